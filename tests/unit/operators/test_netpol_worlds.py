"""Random worlds, without a kernel: changes add up, and the oracle agrees with the API's text."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from operators.netpol.oracle import Wanted
from operators.netpol.table import Table
from tests.fakes.netpol import Object
from tests.fakes.netpol_worlds import Told, World, reference, said, worlds

WANTED = [(protocol, port) for protocol in ("TCP", "UDP") for port in (53, 80, 8080)]
NO_CHECKS = list(HealthCheck)


def text_of(told: Told, table: Table) -> list[str]:
    """What the table holds, in any order."""
    table.replace(told.compiler.parts())
    lines = []
    for line in table.full("").splitlines():
        head, brace, elements = line.partition("{")
        lines.append(head + brace + ",".join(sorted(elements.strip(" }").split(", "))))
    return sorted(lines)


@settings(max_examples=40, suppress_health_check=NO_CHECKS)
@given(found=st.lists(worlds(), min_size=2, max_size=4))
def test_a_table_that_went_through_changes_is_as_one_made_at_once(found: list[World]) -> None:
    told, table = Told(), Table("inet", "t")
    for world in found:
        told.follow(world)
        table.replace(told.compiler.parts())
    fresh = Told()
    fresh.follow(found[-1])
    assert text_of(told, table) == text_of(fresh, Table("inet", "t"))


@settings(max_examples=60, suppress_health_check=NO_CHECKS)
@given(world=worlds())
def test_the_oracle_says_what_the_api_says(world: World) -> None:
    told = Told()
    told.follow(world)
    ends: list[Object | str] = [*world.pods.values(), "node", "192.0.2.9"]
    for source in ends:
        for target in ends:
            for wanted in WANTED:
                expected = reference(world, source, target, wanted)
                assert said(told.compiler, source, target, Wanted(*wanted)) is expected
