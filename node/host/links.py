"""
Links, addresses and routes of the kernel: small verbs over rtnetlink, IPv4 only.

Source: rtnetlink(7), linux/if_link.h, linux/rtnetlink.h.
"""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Self

from node.host.netlink import (
    CREATE,
    EXCLUSIVE,
    REPLACE,
    Message,
    Netlink,
    NetlinkError,
    attribute,
    attributes,
    is_absent,
    nested,
)

_ROUTE_PROTOCOL = 0  # NETLINK_ROUTE
_NEW_LINK, _DELETE_LINK, _GET_LINK = 16, 17, 18
_NEW_ADDRESS, _DELETE_ADDRESS, _GET_ADDRESS = 20, 21, 22
_NEW_ROUTE, _DELETE_ROUTE, _GET_ROUTE = 24, 25, 26
_LINK = struct.Struct("=BxHiII")  # family, device type, index, flags, mask of flags to change
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # family, to, from, tos, table, protocol, scope, type, flags
_UP = 0x1
_IFLA_HARDWARE, _IFLA_NAME, _IFLA_MTU, _IFLA_INFO = 1, 3, 4, 18
_INFO_KIND, _INFO_DATA = 1, 2
_IFA_ADDRESS, _IFA_LOCAL = 1, 2
_RTA_TARGET, _RTA_OUT, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_SOURCE, _RTA_METRICS = 1, 4, 5, 6, 7, 8
_METRIC_MTU = 2
_MAIN_TABLE = 254
_UNICAST = 1
_OURS = 76  # rtm_protocol: routes of ours can be told apart; free in iproute2's table
SCOPE_GLOBAL, SCOPE_LINK, SCOPE_HOST = 0, 253, 254


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    index: int
    name: str
    mtu: int
    up: bool
    kind: str  # bridge, veth, vxlan, …; "" for hardware and lo
    address: str  # link layer, "aa:bb:…"; "" if it has none


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    target: IPv4Network  # 0.0.0.0/0: the default route
    link: int = 0  # index; 0: none (several next hops, unreachable, …)
    gateway: IPv4Address | None = None
    source: IPv4Address | None = None
    metric: int = 0
    mtu: int = 0  # 0: the link's
    ours: bool = True  # added by :meth:`Links.set_route`


class Links:
    """One rtnetlink socket; close it or use it in a ``with``."""

    def __init__(self, *, netns: str = "") -> None:
        self._netlink = Netlink(_ROUTE_PROTOCOL, netns=netns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._netlink.close()

    def find(self, name: str) -> Link | None:
        request = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, name.encode() + b"\0")
        try:
            return _link(self._netlink.get(_GET_LINK, request))
        except NetlinkError as error:
            if is_absent(error):
                return None
            raise

    def all(self) -> list[Link]:
        return [_link(m) for m in self._netlink.dump(_GET_LINK, _LINK.pack(0, 0, 0, 0, 0))]

    def add(self, name: str, kind: str, *, mtu: int = 0, data: bytes = b"") -> None:
        """Make a link such as a dummy or a bridge; one of that name that exists is fine."""
        info = [attribute(_INFO_KIND, kind.encode())]
        if data:
            info.append(nested(_INFO_DATA, data))
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, name.encode() + b"\0")
        if mtu:
            body += attribute(_IFLA_MTU, struct.pack("=I", mtu))
        body += nested(_IFLA_INFO, *info)
        self._unless_there(_NEW_LINK, body)

    def remove(self, name: str) -> None:
        """One that is absent is fine."""
        body = _LINK.pack(0, 0, 0, 0, 0) + attribute(_IFLA_NAME, name.encode() + b"\0")
        self._unless_absent(_DELETE_LINK, body)

    def set_up(self, index: int, *, mtu: int = 0) -> None:
        body = _LINK.pack(0, 0, index, _UP, _UP)
        if mtu:
            body += attribute(_IFLA_MTU, struct.pack("=I", mtu))
        self._netlink.request(_NEW_LINK, body)

    def addresses(self) -> list[tuple[int, IPv4Interface]]:
        """(index of the link, address with its prefix length) of every link."""
        found = []
        for message in self._netlink.dump(_GET_ADDRESS, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)):
            _, length, _, _, index = _ADDRESS.unpack_from(message.body)
            values = attributes(message.body, _ADDRESS.size)
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw is not None:
                found.append((index, IPv4Interface((raw, length))))
        return found

    def add_address(self, index: int, address: IPv4Interface, *, scope: int = SCOPE_GLOBAL) -> None:
        """An address that is there already is fine."""
        self._unless_there(_NEW_ADDRESS, _address(index, address, scope))

    def remove_address(self, index: int, address: IPv4Interface) -> None:
        """An address that is absent is fine."""
        self._unless_absent(_DELETE_ADDRESS, _address(index, address, 0))

    def routes(self) -> list[Route]:
        """Those of the main table to unicast destinations."""
        request = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _MAIN_TABLE, 0, 0, 0, 0)
        found = []
        for message in self._netlink.dump(_GET_ROUTE, request):
            _, length, _, _, table, protocol, _, kind, _ = _ROUTE.unpack_from(message.body)
            if table == _MAIN_TABLE and kind == _UNICAST:
                found.append(_route(message, length, ours=protocol == _OURS))
        return found

    def set_route(self, route: Route, *, scope: int = SCOPE_GLOBAL) -> None:
        """Add or replace the route to its target with its metric."""
        self._netlink.request(_NEW_ROUTE, _route_body(route, scope), flags=CREATE | REPLACE)

    def remove_route(self, route: Route) -> None:
        """One that is absent is fine."""
        self._unless_absent(_DELETE_ROUTE, _route_body(route, 255))

    def _unless_there(self, kind: int, body: bytes) -> None:
        try:
            self._netlink.request(kind, body, flags=CREATE | EXCLUSIVE)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise

    def _unless_absent(self, kind: int, body: bytes) -> None:
        try:
            self._netlink.request(kind, body)
        except NetlinkError as error:
            if not is_absent(error):
                raise


def _link(message: Message) -> Link:
    _, _, index, flags, _ = _LINK.unpack_from(message.body)
    values = attributes(message.body, _LINK.size)
    kind = attributes(values.get(_IFLA_INFO, b"")).get(_INFO_KIND, b"")
    return Link(
        index=index,
        name=values[_IFLA_NAME].rstrip(b"\0").decode(),
        mtu=struct.unpack("=I", values[_IFLA_MTU])[0],
        up=bool(flags & _UP),
        kind=kind.rstrip(b"\0").decode(),
        address=values.get(_IFLA_HARDWARE, b"").hex(":"),
    )


def _address(index: int, address: IPv4Interface, scope: int) -> bytes:
    header = _ADDRESS.pack(socket.AF_INET, address.network.prefixlen, 0, scope, index)
    return (
        header
        + attribute(_IFA_LOCAL, address.ip.packed)
        + attribute(_IFA_ADDRESS, address.ip.packed)
    )


def _route(message: Message, length: int, *, ours: bool) -> Route:
    values = attributes(message.body, _ROUTE.size)
    gateway, source = values.get(_RTA_GATEWAY), values.get(_RTA_SOURCE)
    metrics = attributes(values.get(_RTA_METRICS, b""))
    return Route(
        target=IPv4Network((values.get(_RTA_TARGET, bytes(4)), length)),
        link=struct.unpack("=I", values.get(_RTA_OUT, bytes(4)))[0],
        gateway=IPv4Address(gateway) if gateway else None,
        source=IPv4Address(source) if source else None,
        metric=struct.unpack("=I", values.get(_RTA_PRIORITY, bytes(4)))[0],
        mtu=struct.unpack("=I", metrics.get(_METRIC_MTU, bytes(4)))[0],
        ours=ours,
    )


def _route_body(route: Route, scope: int) -> bytes:
    length = route.target.prefixlen
    header = (socket.AF_INET, length, 0, 0, _MAIN_TABLE, _OURS, scope, _UNICAST, 0)
    body = _ROUTE.pack(*header) + attribute(_RTA_TARGET, route.target.network_address.packed)
    if route.link:
        body += attribute(_RTA_OUT, struct.pack("=I", route.link))
    if route.gateway:
        body += attribute(_RTA_GATEWAY, route.gateway.packed)
    if route.source:
        body += attribute(_RTA_SOURCE, route.source.packed)
    if route.mtu:
        body += nested(_RTA_METRICS, attribute(_METRIC_MTU, struct.pack("=I", route.mtu)))
    if route.metric:
        body += attribute(_RTA_PRIORITY, struct.pack("=I", route.metric))
    return body
