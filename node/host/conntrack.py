"""
Connections that the kernel tracks: find and forget those that lead to nowhere.

Clients of UDP keep their source port, so a translation made for an endpoint that is
gone would hold for as long as they go on sending.

Source: linux/netfilter/nfnetlink_conntrack.h.
"""

import socket
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from node.host.netlink import Netlink, NetlinkError, attributes, is_absent, nested

_NETFILTER = 12
_SUBSYSTEM = 1 << 8
_GET, _DELETE = _SUBSYSTEM | 1, _SUBSYSTEM | 2
_TUPLE_ORIGINAL, _TUPLE_REPLY, _ZONE = 1, 2, 18
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_IP_SOURCE, _IP_TARGET = 1, 2
_PROTOCOL_NUMBER, _SOURCE_PORT, _TARGET_PORT = 1, 2, 3
_HEADER = struct.Struct("=BBH")  # nfgenmsg: family, version, resource


class Flow(NamedTuple):
    """One UDP connection: where the client sent to, and who answers."""

    target: str
    port: int
    answers: str
    answers_port: int
    original: bytes  # the tuple as the kernel gave it, to name the flow again


def udp_flows(netns: str = "") -> list[Flow]:
    """Every tracked UDP connection over IPv4. Dumps the table: call it in a thread."""
    with Netlink(_NETFILTER, netns=netns) as netlink:
        return list(_udp_flows(netlink))


def forget_udp(is_stale: Callable[[Flow], bool], *, netns: str = "") -> int:
    """Delete the UDP connections that are stale; how many there were. Call it in a thread."""
    deleted = 0
    with Netlink(_NETFILTER, netns=netns) as netlink:
        for flow in [flow for flow in _udp_flows(netlink) if is_stale(flow)]:
            body = _HEADER.pack(socket.AF_INET, 0, 0) + nested(_TUPLE_ORIGINAL, flow.original)
            try:
                netlink.request(_DELETE, body)
                deleted += 1
            except NetlinkError as error:
                if not is_absent(error):  # it may have timed out in between
                    raise
    return deleted


def _udp_flows(netlink: Netlink) -> Iterator[Flow]:
    for message in netlink.dump(_GET, _HEADER.pack(socket.AF_INET, 0, 0)):
        found = attributes(message.body, _HEADER.size)
        original, reply = found.get(_TUPLE_ORIGINAL), found.get(_TUPLE_REPLY)
        if original is None or reply is None:
            continue
        there, back = attributes(original), attributes(reply)
        protocol = attributes(there[_TUPLE_PROTOCOL])
        if protocol[_PROTOCOL_NUMBER][0] != socket.IPPROTO_UDP:
            continue
        yield Flow(
            target=socket.inet_ntoa(attributes(there[_TUPLE_IP])[_IP_TARGET]),
            port=int.from_bytes(protocol[_TARGET_PORT], "big"),
            answers=socket.inet_ntoa(attributes(back[_TUPLE_IP])[_IP_SOURCE]),
            answers_port=int.from_bytes(attributes(back[_TUPLE_PROTOCOL])[_SOURCE_PORT], "big"),
            original=original,
        )
