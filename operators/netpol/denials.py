"""
What the rules have denied, told in the log with the names of the pods.

The kernel hands over ten packets a minute at most, and nothing at all while nothing
is denied. It works where the kernel's own log does not: in network namespaces and in
containers. For ulogd and its like there is another group: see :mod:`operators.netpol.rules`.

Source: linux/netfilter/nfnetlink_log.h, RFC 791, RFC 8200.
"""

import asyncio
import errno
import logging
import socket
import struct

from operators.netpol.netlink import (
    RECEIVE,
    Netfilter,
    after_subheader,
    attribute,
    attributes,
    messages,
    subheader,
)
from operators.netpol.plan import Compiler
from operators.netpol.rules import OWN_LOG_GROUP

LOG = logging.getLogger(__name__)
_SUBSYSTEM = 4 << 8
_PACKET, _CONFIG = _SUBSYSTEM | 0, _SUBSYSTEM | 1
_COMMAND, _MODE, _AT_ONCE = 1, 2, 5
_BIND = 1
_COPY_PACKET, _COPIED = 2, 128  # bytes: headers are all that we read
_PAYLOAD, _PREFIX = 9, 10
_NAMES = {6: "TCP", 17: "UDP", 132: "SCTP", 1: "ICMP", 58: "ICMPv6"}
_WITH_PORTS = (6, 17, 132)


class Denials:
    def __init__(self, compiler: Compiler) -> None:
        self._compiler = compiler

    async def run(self) -> None:
        """Until cancelled; where somebody else reads the group, or the kernel has none, nothing."""
        with Netfilter() as netfilter:
            try:
                _bind(netfilter)
            except OSError as err:
                LOG.debug("what is denied is not logged here: %s", err)
                await asyncio.Event().wait()
            netfilter.socket.setblocking(False)
            loop = asyncio.get_running_loop()
            loop.add_reader(netfilter.socket, self._read, netfilter.socket)
            try:
                await asyncio.Event().wait()
            finally:
                loop.remove_reader(netfilter.socket)

    def _read(self, source: socket.socket) -> None:
        try:
            data = source.recv(RECEIVE)
        except OSError as err:
            if err.errno not in (errno.EAGAIN, errno.ENOBUFS):
                LOG.warning("what is denied: %s", err)
                asyncio.get_running_loop().remove_reader(source)
            return
        for kind, body in messages(data):
            if kind == _PACKET:
                found = attributes(after_subheader(body))
                prefix = found.get(_PREFIX, b"").rstrip(b"\0").decode(errors="replace")
                if told := self._words(prefix, found.get(_PAYLOAD, b"")):
                    LOG.warning("%s", told)

    def _words(self, prefix: str, packet: bytes) -> str:
        seen = parse(packet)
        if seen is None:
            return ""
        protocol, source, target, port = seen
        kind = prefix.rpartition(" ")[2]
        why = "the address is not known yet" if kind == "unknown" else f"{kind} policies"
        there = f"{protocol} port {port}" if port else protocol
        return f"denied {self._name(source)} -> {self._name(target)} {there}: {why}"

    def _name(self, address: str) -> str:
        pod = self._compiler.pods.at(address)
        return f"{pod.key} ({address})" if pod else address


def _bind(netfilter: Netfilter) -> None:
    group = subheader(socket.AF_UNSPEC, OWN_LOG_GROUP)
    netfilter.ask(_CONFIG, group + attribute(_COMMAND, struct.pack("=B", _BIND)))
    mode = struct.pack(">IBB", _COPIED, _COPY_PACKET, 0)
    at_once = attribute(_AT_ONCE, struct.pack(">I", 1))  # each packet, instead of up to 100
    netfilter.ask(_CONFIG, group + attribute(_MODE, mode) + at_once)


def parse(packet: bytes) -> tuple[str, str, str, int] | None:
    """Protocol, source, target and the target's port (0: none); None: not to be read."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        start, number = 4 * (packet[0] & 15), packet[9]
        ends = packet[12:16], packet[16:20]
        family = socket.AF_INET
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        start, number = 40, packet[6]
        ends = packet[8:24], packet[24:40]
        family = socket.AF_INET6
    else:
        return None
    ports = packet[start + 2 : start + 4] if number in _WITH_PORTS else b""
    source, target = (socket.inet_ntop(family, end) for end in ends)
    return _NAMES.get(number, str(number)), source, target, int.from_bytes(ports, "big")
