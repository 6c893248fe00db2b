"""
What a person who stands before the board, or holds its card, should know; as text. Pure.

The same facts in two shapes: ``status.txt`` on the partition, which must not change while
nothing does, and the screen, which also says what is going on.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from node.firstboot.places import CONFIG_NAME

READY, STARTING, FAILING = "ready", "starting", "not starting"
_LONGEST = 300  # characters of what the node said
_OTHERS = re.compile(r"lo|cni\d|flannel|pinnace|veth|docker|dummy|br-|kube-")
_ESCAPES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
SOURCES = {
    "file": "",
    "missing": f"There is no {CONFIG_NAME} on the card: the node runs with defaults.",
    "kept": f"There is no {CONFIG_NAME} on the card any more: the last good settings stay.",
    "last good": f"{CONFIG_NAME} has mistakes: the last good settings stay.",
    "defaults": f"{CONFIG_NAME} has mistakes: the node runs with defaults (DHCP, no SSH keys).",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    hostname: str
    mdns_name: str  # kitchen.local; another where somebody has that name already
    node_name: str
    version: str
    slot: str  # "": none
    board: str
    state: str  # READY, STARTING or FAILING
    reason: str  # what the node said last, where it does not start
    addresses: tuple[tuple[str, str], ...]  # (interface, address)
    fingerprints: tuple[str, ...]
    has_keys: bool  # somebody can log in
    source: str  # a key of SOURCES
    problems: tuple[str, ...]  # of pinnace.yaml
    faults: tuple[str, ...]  # of the machine: its data partition, its clock


def reachable(found: Mapping[str, Sequence[str]]) -> tuple[tuple[str, str], ...]:
    """Of the addresses by interface those that people can use: not of pods, not link-local."""
    return tuple(
        (name, address)
        for name, addresses in sorted(found.items())
        if not _OTHERS.match(name)
        for address in sorted(addresses)
        if not address.lower().startswith(("fe80", "127.", "::1"))
    )


def as_file(status: Status) -> str:
    """``status.txt``. What it says of the state is only what lasts."""
    lines = [*_head(status), "", *_body(status)]
    if status.state == FAILING:
        lines += ["", *_failing(status)]
    return "\n".join([*lines, *_trouble(status)]) + "\n"


def as_screen(status: Status) -> str:
    """For a console, in plain characters."""
    state = {READY: "is ready", STARTING: "is starting", FAILING: "does not start"}[status.state]
    lines = [*_head(status), f"The node {status.node_name} {state}.", "", *_body(status)]
    if status.state == FAILING:
        lines += ["", *_failing(status)]
    return "\n".join([*lines, *_trouble(status)]) + "\n"


def _head(status: Status) -> Iterator[str]:
    slot = f", slot {status.slot}" if status.slot else ""
    board = f" on {status.board}" if status.board else ""
    yield f"Pinnace {status.version}{board}{slot}"


def _body(status: Status) -> Iterator[str]:
    yield f"Name:       {status.mdns_name} (node {status.node_name})"
    if status.addresses:
        for number, (interface, address) in enumerate(status.addresses):
            yield f"{'Addresses:' if not number else '':<11} {address} ({interface})"
    else:
        yield "Addresses:  none; is a cable plugged in, is there a DHCP server?"
    for number, fingerprint in enumerate(status.fingerprints):
        yield f"{'SSH host:' if not number else '':<11} {fingerprint}"
    yield ""
    if status.has_keys:
        yield "To use the cluster from your computer:"
        yield f"  ssh root@{status.mdns_name} pinnace kubeconfig > kubeconfig"
        yield "  kubectl --kubeconfig=kubeconfig get nodes"
    else:
        yield f"Nobody can log in: put your SSH key into {CONFIG_NAME}, and start the board again:"
        yield "  ssh: {keys: [ssh-ed25519 AAAA…]}"


def _failing(status: Status) -> Iterator[str]:
    yield f"THE NODE {status.node_name} DOES NOT START."
    if status.reason:
        yield f"  {_plain(status.reason)[:_LONGEST]}"
    yield "To see more:"
    yield f"  ssh root@{status.mdns_name} journalctl -u pinnace -n 50"


def _trouble(status: Status) -> Iterator[str]:
    if status.faults:
        yield ""
        yield "TROUBLE:"
        yield from (f"  {_plain(fault)}" for fault in status.faults)
    said = SOURCES.get(status.source, "")
    if said or status.problems:
        yield ""
        yield said or f"{CONFIG_NAME} was taken, but:"
        yield from (f"  {_plain(problem)}" for problem in status.problems)


def _plain(text: str) -> str:
    """One line without control characters: what stands in a file must not drive a terminal."""
    return _ESCAPES.sub("?", text.replace("\n", " "))
