"""
Random policies over random pods: what the kernel lets through is what the API's text says.

One table lives through all examples, so that every change of it is tested too.
"""

import os
import subprocess
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from node.host.netlink import run_inside
from operators.netpol import elements, rules
from operators.netpol.oracle import Wanted
from operators.netpol.rules import FAMILY, TABLE, Facts
from operators.netpol.table import Table
from tests.fakes.netpol import Net, Object, Probe, new_net
from tests.fakes.netpol_worlds import PODS, Told, World, reference, said, worlds

pytestmark = [pytest.mark.root, pytest.mark.timeout(3600)]
# For an hour of it: PINNACE_NETPOL_EXAMPLES=30000
EXAMPLES = int(os.environ.get("PINNACE_NETPOL_EXAMPLES", "100"))
TCP, UDP = (80, 81, 8080), (53, 80)
WANTED = [*(("TCP", port) for port in TCP), *(("UDP", port) for port in UDP)]


class Kernel:
    """The operator's compiler, and nft in the node's namespace."""

    def __init__(self, netns: str) -> None:
        self._netns = netns
        self._enter = ("nsenter", f"--net={netns}", "--")
        self._told, self._table = Told(), Table(FAMILY, TABLE)
        self.compiler = self._told.compiler
        self._load(self._table.full(rules.fixed_text(Facts(closed=("10.42.0.0/24",)))))

    def follow(self, world: World) -> None:
        self._told.follow(world)
        difference = self._table.replace(self.compiler.parts())
        if difference.elements_only:
            run_inside(self._netns, lambda: elements.change(difference.gone, difference.fresh))
        else:
            self._load(difference.text)
        # A source port that comes again would belong to a connection of an earlier example.
        subprocess.run([*self._enter, "conntrack", "-F"], capture_output=True, check=True)

    def _load(self, text: str) -> None:
        done = subprocess.run(
            [*self._enter, "nft", "-f", "-"],
            input=text,
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, f"{done.stderr}\n{text}"


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with new_net() as made:
        for name, address in PODS.items():
            made.add_pod(name, address)
        made.serve(TCP, UDP)
        yield made


@pytest.fixture(scope="module")
def kernel(net: Net) -> Kernel:
    return Kernel(net.host.node.path)


def test_the_kernel_lets_through_what_the_api_says_and_nothing_else(
    net: Net, kernel: Kernel
) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize="PINNACE_NETPOL_EXAMPLES" not in os.environ,
        database=None,
        phases=[Phase.generate],  # an example depends on those before it: nothing to shrink
        suppress_health_check=list(HealthCheck),
    )
    @given(world=worlds())
    def check(world: World) -> None:
        kernel.follow(world)
        probes, wanted = [], []
        ends: dict[str, Object | str] = {**world.pods, "node": "node", "client": "192.0.2.9"}
        for source, from_ in ends.items():
            for target, to in ends.items():
                if source != target and {source, target} != {"node", "client"}:
                    for protocol, port in WANTED:
                        probes.append(Probe(source, net.addresses[target], protocol, port))
                        wanted.append(reference(world, from_, to, (protocol, port)))
                        oracle = said(kernel.compiler, from_, to, Wanted(protocol, port))
                        assert oracle == wanted[-1]
        seen = net.probe(probes)
        differ = [(p, w) for p, w, s in zip(probes, wanted, seen, strict=True) if w != s]
        assert not differ, f"{differ[:3]} in {world}"

    check()
