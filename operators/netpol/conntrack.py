"""
Connections that the kernel tracks: find and forget those that are not allowed any longer.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from operators.netpol.netlink import (
    DUMP,
    NESTED,
    Netfilter,
    attribute,
    attributes,
    is_absent,
    subheader,
)

_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_ORIGINAL, _REPLY, _ZONE = 1, 2, 18
_IP, _PROTOCOL = 1, 2
_SOURCE4, _SOURCE6 = 1, 3
_NUMBER, _SOURCE_PORT = 1, 2
_NAMES = {6: "TCP", 17: "UDP", 132: "SCTP"}
_ICMP = (1, 58)


@dataclass(frozen=True, slots=True)
class Flow:
    """Who began it, from which port, and who answers, at which port: behind any translation."""

    protocol: str  # TCP, UDP, SCTP, or the number as text
    source: str
    source_port: int
    answers: str
    answers_port: int
    name: bytes = field(default=b"", compare=False)  # how the kernel knows it


def flows(addresses: frozenset[str]) -> list[Flow]:
    """
    Those that begin or end at one of these.

    Blocks for as long as the table is long: call it in a thread.
    """
    with Netfilter() as netfilter:
        every = netfilter.ask(_GET, subheader(socket.AF_UNSPEC), flags=DUMP)
    found = (_flow(attributes(body)) for body in every)
    return [
        flow for flow in found if flow and (flow.source in addresses or flow.answers in addresses)
    ]


def forget(doomed: Iterable[Flow]) -> None:
    """What the kernel told with :func:`flows`; one that has ended in between is fine."""
    with Netfilter() as netfilter:
        for flow in doomed:
            family = socket.AF_INET6 if ":" in flow.source else socket.AF_INET
            try:
                netfilter.ask(_DELETE, subheader(family) + flow.name)
            except OSError as error:
                if not is_absent(error):
                    raise


def _flow(found: Mapping[int, bytes]) -> Flow | None:
    if _ORIGINAL not in found or _REPLY not in found:
        return None
    there, back = attributes(found[_ORIGINAL]), attributes(found[_REPLY])
    asked, answered = attributes(there[_PROTOCOL]), attributes(back[_PROTOCOL])
    number = asked[_NUMBER][0]
    if number in _ICMP:
        return None
    name = attribute(_ORIGINAL | NESTED, found[_ORIGINAL])
    if zone := found.get(_ZONE):
        name += attribute(_ZONE, zone)
    return Flow(
        _NAMES.get(number, str(number)),
        _address(attributes(there[_IP])),
        int.from_bytes(asked.get(_SOURCE_PORT, b""), "big"),
        _address(attributes(back[_IP])),
        int.from_bytes(answered.get(_SOURCE_PORT, b""), "big"),
        name,
    )


def _address(found: Mapping[int, bytes]) -> str:
    if _SOURCE4 in found:
        return socket.inet_ntop(socket.AF_INET, found[_SOURCE4])
    return socket.inet_ntop(socket.AF_INET6, found[_SOURCE6])


def own_addresses(proc: Path = Path("/proc/net")) -> frozenset[str]:
    """The addresses of this machine, from the kernel's own tables. Blocks: call it in a thread."""
    found: set[str] = set()
    last = ""
    for line in (proc / "fib_trie").read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] in ("|--", "+--"):
            last = words[1]
        elif words[0] == "/32" and words[-1] == "LOCAL":
            found.add(last)
    if (six := proc / "if_inet6").exists():
        for line in six.read_text().splitlines():
            found.add(socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])))
    return frozenset(found)
