"""
The pod network that is wanted on this node, from what the node knows of itself.

One node for now: pods reach each other over the bridge and the world by
masquerade. What an overlay between nodes adds belongs here too, as more
:class:`Route` values and a link for each other node's podCIDR, decided from the
flannel annotations of the nodes; :func:`pod_mtu` leaves room for it already.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv4Network

FAMILY = "ip"
TABLE = "pinnace_network"
# Outer Ethernet, IP, UDP and VXLAN headers. Taken off also while there is one node only,
# since pods keep the MTU they started with when a second node joins.
OVERLAY_OVERHEAD = 50
DEFAULT_MTU = 1500
_EVERYWHERE = IPv4Network("0.0.0.0/0")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkFacts:
    index: int
    mtu: int
    addresses: tuple[IPv4Interface, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFacts:
    target: IPv4Network
    link: int
    metric: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    node_ip: IPv4Address | None  # the node's main address
    cluster_cidr: IPv4Network
    service_cidr: IPv4Network
    loopback: int  # index of lo
    links: tuple[LinkFacts, ...]
    routes: tuple[RouteFacts, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WantedRoute:
    target: IPv4Network
    link: int
    source: IPv4Address | None
    mtu: int
    metric: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    mtu: int  # of the pods' links and the bridge
    ruleset: str
    routes: tuple[WantedRoute, ...]
    sysctls: Mapping[str, str]
    optional_sysctls: Mapping[str, str] = field(default_factory=dict)


def plan(facts: Facts) -> Plan:
    mtu = pod_mtu(facts)
    return Plan(
        mtu=mtu,
        ruleset=_ruleset(facts.cluster_cidr),
        routes=(_service_route(facts, mtu),),
        sysctls={
            "net.ipv4.ip_forward": "1",
        },
        optional_sysctls={
            # Between two pods on the bridge, replies of a service must pass the
            # translation of addresses, and policies must see every packet.
            "net.bridge.bridge-nf-call-iptables": "1",
            # Node ports on 127.0.0.1; the chain loopback keeps strangers out.
            "net.ipv4.conf.all.route_localnet": "1",
        },
    )


def pod_mtu(facts: Facts) -> int:
    """That of the link the node talks through, less the overlay's headers."""
    by_index = {link.index: link for link in facts.links}
    defaults = sorted(
        (route.metric, route.link)
        for route in facts.routes
        if route.target == _EVERYWHERE and route.link in by_index
    )
    if defaults:
        outer = by_index[defaults[0][1]].mtu
    else:
        outer = _mtu_of_address(facts.links, facts.node_ip)
    return max(min(outer, 65535) - OVERLAY_OVERHEAD, 576)


def _mtu_of_address(links: Sequence[LinkFacts], address: IPv4Address | None) -> int:
    for link in links:
        if any(interface.ip == address for interface in link.addresses):
            return min(link.mtu, DEFAULT_MTU)  # it may be lo
    return DEFAULT_MTU


def _service_route(facts: Facts, mtu: int) -> WantedRoute:
    """
    Lets processes of the node use cluster IPs without a default route.

    The kernel looks for a route before the proxy may translate the address. Any
    does; this one keeps what is not translated from leaving the node.
    """
    own = {interface.ip for link in facts.links for interface in link.addresses}
    return WantedRoute(
        target=facts.service_cidr,
        link=facts.loopback,
        source=facts.node_ip if facts.node_ip in own else None,
        mtu=mtu,  # else TCP would take the loopback's 64 KiB for granted
        metric=4096,  # whoever has a route of their own for it goes first
    )


def _ruleset(cluster_cidr: IPv4Network) -> str:
    """
    Masquerade, since nobody outside the cluster can answer to a pod's address.

    And what the setting route_localnet opens is closed again: only connections that the
    service proxy translated may come to the loopback network from another link.
    """
    return f"""add table {FAMILY} {TABLE}
delete table {FAMILY} {TABLE}
table {FAMILY} {TABLE} {{
chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  ip saddr {cluster_cidr} ip daddr != {{ {cluster_cidr}, 224.0.0.0/4 }} masquerade fully-random
}}
chain loopback {{
  type filter hook input priority filter; policy accept;
  iifname "lo" return
  ip daddr 127.0.0.0/8 ct status & dnat != dnat drop
}}
}}
"""
