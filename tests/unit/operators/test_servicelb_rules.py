"""What holds whatever Services, nodes and pods there are, and in whatever order they come."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from operators.servicelb import claims
from operators.servicelb.claims import Claim
from operators.servicelb.facts import Node, Service, pod_of
from operators.servicelb.plan import Plan, World, forwarded, native
from tests.fakes.operators_services import node, pod_body, service

PORTS: st.SearchStrategy[list[int | str]] = st.lists(
    st.sampled_from([80, 443, "UDP/53"]), min_size=1, max_size=2, unique=True
)
NODES = [
    node("a", "10.0.0.1", kubelet=443),
    node("b", "10.0.0.2", "ext:198.51.100.2"),
    node("c", "10.0.0.3", "ext:198.51.100.2"),  # behind the same address as b
]


@st.composite
def services(draw: st.DrawFn) -> Service:
    name = draw(st.sampled_from("pqrst"))
    made = service(
        name,
        *draw(PORTS),
        created=draw(st.sampled_from("123")),
        published=tuple(draw(st.sets(st.sampled_from(["10.0.0.1", "10.0.0.2", "198.51.100.2"])))),
        loadBalancerIP=draw(st.sampled_from(["", "10.0.0.3"])),
    )
    return replace(made, local=draw(st.booleans()))


@st.composite
def worlds(draw: st.DrawFn) -> World:
    found = draw(st.lists(services(), max_size=5, unique_by=lambda s: s.key))
    pods = [
        pod_of(pod_body(f"pod-{number}", host, port), "kube-system")
        for number, (host, port) in enumerate(
            draw(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([80, 443]))))
        )
    ]
    return World(
        services=found,
        nodes=draw(st.lists(st.sampled_from(NODES), unique_by=lambda n: n.name)),
        local={service.key: frozenset(draw(st.sets(st.sampled_from("abc")))) for service in found},
        pods=[pod for pod in pods if pod],
    )


def after(world: World, decided: Plan) -> World:
    """The same with what was decided in the statuses."""
    changed = {change.service.key: change for change in decided.changes}
    return replace(world, services=[written(s, changed.get(s.key)) for s in world.services])


def written(thing: Service, change: Any) -> Service:
    if change is None:
        return thing
    condition = {
        "type": change.trouble.condition,
        "status": "True",
        "reason": change.trouble.reason,
        "message": change.trouble.message,
    }
    conditions = (condition,) if change.trouble.message else ()
    return replace(thing, published=change.addresses, as_vip=True, conditions=conditions)


def granted(world: World, held: dict[Claim, str] | None = None) -> dict[str, tuple[Node, ...]]:
    ordered = sorted(world.services, key=lambda s: (s.created, s.key))
    rivals = claims.Rivals(
        api_servers=frozenset(),
        pods=claims.pods_by_port(world.pods),
        node_ports={},
        listeners={},
        here="",
    )
    start = claims.held_by_status(ordered, world.nodes) if held is None else held
    return dict(claims.settle(ordered, world.nodes, rivals, start).granted)


@given(worlds())
def test_no_port_of_an_address_is_had_by_two(world: World) -> None:
    taken: set[tuple[Any, str, int]] = set()
    for thing in world.services:
        mine = {
            (address, port.protocol, port.number)
            for found in granted(world).get(thing.key, ())
            for address in found.addresses
            for port in thing.ports
        }
        assert not mine & taken
        taken |= mine


@given(worlds())
def test_the_same_again_changes_nothing(world: World) -> None:
    first = native(world, None)
    again = native(after(world, first), first.held)
    assert not again.changes
    assert again.held == first.held


@given(worlds(), services())
def test_a_newcomer_takes_nothing_from_those_who_were_served(
    world: World, newcomer: Service
) -> None:
    first = native(world, None)
    fresh = replace(newcomer, key="default/aaa", created="0", published=())
    grown = replace(world, services=[fresh, *world.services])
    second = native(grown, first.held)
    assert {claim: key for claim, key in second.held.items() if claim in first.held} == first.held


@given(worlds())
def test_the_order_in_which_things_are_known_does_not_matter(world: World) -> None:
    turned = replace(
        world,
        services=_turned(world.services),
        nodes=_turned(world.nodes),
        pods=_turned(world.pods),
    )
    assert native(world, None).held == native(turned, None).held
    told = {change.service.key: change for change in native(world, None).changes}
    assert told == {change.service.key: change for change in native(turned, None).changes}


@given(worlds())
def test_who_is_refused_is_told_who_has_it(world: World) -> None:
    for change in native(world, None).changes:
        assert bool(change.trouble.message) == ("has" in change.trouble.message)
    busy = {(pod.node, port.number) for pod in world.pods for port in pod.ports}
    for thing in world.services:
        free = [
            found
            for found in world.nodes
            if all(
                (found.name, port.number) not in busy and port.number != found.kubelet_port
                for port in thing.ports
            )
        ]
        if len(world.services) == 1:
            assert {n.name for n in free} <= {n.name for n in granted(world).get(thing.key, ())}


@given(worlds())
def test_pods_that_forward_are_wanted_for_every_service(world: World) -> None:
    decided = forwarded(world, (), namespace="x", image="y")
    assert len(decided.daemonsets) == len(world.services)
    again = forwarded(after(world, decided), decided.daemonsets, namespace="x", image="y")
    assert not again.changes
    assert not again.obsolete


def _turned(things: Sequence[Any]) -> list[Any]:
    return list(reversed(things))
