"""Elements that we put into the kernel ourselves are those that nft would have put there."""

import re
import subprocess
from collections.abc import Iterator

import pytest

from node.host.netlink import run_inside
from operators.netpol import elements, rules
from operators.netpol.rules import FAMILY, TABLE, Facts
from operators.netpol.table import Difference
from tests.fakes.host import Namespace

pytestmark = pytest.mark.root
TARGET = f"{FAMILY} {TABLE}"
MORE = f"""
add set {TARGET} ports4 {{ type ipv4_addr . inet_proto . inet_service; }}
add set {TARGET} ports6 {{ type ipv6_addr . inet_proto . inet_service; }}
add chain {TARGET} in/some
add chain {TARGET} in/other
"""
FRESH = {
    "known4": [(f"10.42.{number // 250}.{number % 250}", "") for number in range(1000)],
    "known6": [("fd00::2", "")],
    "itself4": [("10.42.0.2 . 10.42.0.2", "")],
    "ingress4": [("10.42.0.2", "goto in/some"), ("10.42.0.3", "goto in/some")],
    "ingress6": [("fd00::2", "goto in/some")],
    "ports4": [("10.42.0.2 . tcp . 8080", ""), ("10.42.0.2 . udp . 53", "")],
    "ports6": [("fd00::2 . sctp . 9", "")],
}
GONE = {"known4": ["10.42.0.7"], "ingress4": ["10.42.0.3"], "ports4": ["10.42.0.2 . udp . 53"]}
MOVED = {"ingress4": [("10.42.0.3", "goto in/other")]}


class Kernel:
    def __init__(self) -> None:
        self.namespace = Namespace("elements")
        self.load(f"add table {TARGET}\ntable {TARGET} {{\n{rules.fixed_text(Facts())}}}\n{MORE}")

    def load(self, text: str) -> None:
        self._nft("-f", "-", given=text)

    def change(self, difference: Difference) -> None:
        run_inside(self.namespace.path, lambda: elements.change(difference.gone, difference.fresh))

    def listed(self) -> dict[str, set[str]]:
        """Set or map → its elements."""
        text = self._nft("list", "table", FAMILY, TABLE)
        found = re.findall(r"(?:set|map) (\S+) \{[^}]*?elements = \{([^}]*)\}", text)
        return {name: set(re.split(r",\s*", words.strip())) for name, words in found}

    def _nft(self, *words: str, given: str = "") -> str:
        argv = ["nsenter", f"--net={self.namespace.path}", "--", "nft", *words]
        return subprocess.run(argv, input=given, text=True, capture_output=True, check=True).stdout


@pytest.fixture
def kernels() -> Iterator[tuple[Kernel, Kernel]]:
    made = Kernel(), Kernel()
    yield made
    for kernel in made:
        kernel.namespace.remove()


def test_both_ways_lead_to_the_same_table(kernels: tuple[Kernel, Kernel]) -> None:
    ours, nfts = kernels
    for difference in (
        Difference(TARGET, fresh=FRESH),
        Difference(TARGET, gone=GONE, fresh=MOVED),
    ):
        ours.change(difference)
        nfts.load(difference.text)
        assert ours.listed() == nfts.listed()
    assert len(ours.listed()["known4"]) == 999


@pytest.mark.parametrize(
    "wrong",
    [
        {"nosuchset": [("10.42.0.2", "")]},
        {"ingress4": [("10.42.0.2", "goto no/such/chain")]},
    ],
)
def test_what_the_kernel_refuses_leaves_nothing_behind(
    kernels: tuple[Kernel, Kernel], wrong: dict[str, list[tuple[str, str]]]
) -> None:
    kernel, _ = kernels
    with pytest.raises(FileNotFoundError):
        kernel.change(Difference(TARGET, fresh={"known4": [("10.42.0.9", "")], **wrong}))
    assert kernel.listed() == {}
