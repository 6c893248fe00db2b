"""
Who has which port of which node: first come, first served. Pure.

A node gives all its addresses, so a port of a node is had by one. Before anybody come the
API server and the kubelet; then the Service that had the port before; then pods with host
ports, node ports and the node's own programs; then the older Service. A Service has all of its
ports on a node or none, as with K3s, where they are the host ports of one pod.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from operators.servicelb.facts import Address, Node, Pod, Port, Service
from operators.servicelb.placement import placed

Claim = tuple[str, str, int]  # (node, protocol, port)
PortKey = tuple[str, int]  # (protocol, port)
_SHOWN = 4  # nodes that a message names


class Shadow(NamedTuple):
    """A pod with a host port that another had before it, and has."""

    pod: Pod
    port: PortKey
    node: str
    owner: str  # "Service default/web", "the kubelet"


class Refusal(NamedTuple):
    node: str
    port: PortKey
    owner: str  # "Service default/web", "the kubelet", …
    passing: bool  # nobody tells when the owner lets go


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """Everybody who may have a port of a node, but the Services themselves."""

    api_servers: frozenset[tuple[Address, int]]
    pods: Mapping[tuple[str, str, int], Sequence[tuple[str, Pod]]]  # by node and port: (IP, pod)
    node_ports: Mapping[PortKey, str]  # → the Service
    listeners: Mapping[PortKey, str]  # of the node ``here``: → the program
    here: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    granted: Mapping[str, tuple[Node, ...]]  # by Service
    refused: Mapping[str, tuple[Refusal, ...]]
    held: Mapping[Claim, str]  # → the Service; what the next decision goes by
    shadows: Sequence[Shadow]


@dataclass(slots=True)
class _Ledger:
    """One decision under way."""

    rivals: Rivals
    held: Mapping[Claim, str]
    taken: dict[Claim, str] = field(default_factory=dict)
    # Nodes behind one external address have its ports together.
    addresses: dict[tuple[Address, str, int], str] = field(default_factory=dict)
    granted: dict[str, list[Node]] = field(default_factory=dict)
    refused: dict[str, list[Refusal]] = field(default_factory=dict)
    shadows: list[Shadow] = field(default_factory=list)


def settle(
    services: Sequence[Service],
    nodes: Sequence[Node],
    rivals: Rivals,
    held: Mapping[Claim, str],
) -> Outcome:
    """``services`` in the order in which they came. ``held``: of the last decision."""
    ledger = _Ledger(rivals, held)
    pairs = [(service, node) for service in services for node in placed(service, nodes)]
    # Over all nodes, since those behind one external address have its ports together.
    pairs.sort(key=lambda pair: _rank(pair[0], pair[1], held))
    denied = []
    for service, node in pairs:
        if _refusals(ledger, service, node):
            denied.append((service, node))
        else:
            _grant(ledger, service, node)
    # What the next look will go by, lest it tell of more rivals than this one.
    ledger.held = ledger.taken
    for service, node in denied:
        refusals = _refusals(ledger, service, node)
        ledger.refused.setdefault(service.key, []).extend(refusals)
    return Outcome(
        granted={key: tuple(found) for key, found in ledger.granted.items()},
        refused={key: tuple(found) for key, found in ledger.refused.items()},
        held=ledger.taken,
        shadows=[*ledger.shadows, *_behind_the_node(nodes, rivals)],
    )


def held_by_status(services: Iterable[Service], nodes: Iterable[Node]) -> dict[Claim, str]:
    """What the statuses say: for the first decision after a start."""
    by_address: dict[str, list[str]] = {}
    for node in nodes:
        for address in node.addresses:
            by_address.setdefault(str(address), []).append(node.name)
    found: dict[Claim, str] = {}
    for service in services:
        names = [name for text in service.published for name in by_address.get(text, ())]
        for name in names if service.ours else ():
            for port in service.ports:
                found.setdefault((name, port.protocol, port.number), service.key)
    return found


def reserved(port: Port, node: Node, api_servers: frozenset[tuple[Address, int]]) -> str:
    """Who of those that hold the cluster together has this port; "": nobody."""
    if port.protocol != "TCP":
        return ""
    if port.number == node.kubelet_port:
        return "the kubelet"
    if any((address, port.number) in api_servers for address in node.addresses):
        return "the API server"
    return ""


def pods_by_port(pods: Iterable[Pod]) -> dict[tuple[str, str, int], list[tuple[str, Pod]]]:
    """Those that hold host ports; what forwards for a Service speaks for the Service."""
    found: dict[tuple[str, str, int], list[tuple[str, Pod]]] = {}
    for pod in sorted(pods, key=lambda p: p.key):
        if pod.node and not pod.service:
            for port in pod.ports:
                key = (pod.node, port.protocol, port.number)
                found.setdefault(key, []).append((port.address, pod))
    return found


def told(refusals: Iterable[Refusal]) -> str:
    """One sentence for each owner."""
    nodes: dict[tuple[str, PortKey], list[str]] = {}
    for refusal in refusals:
        nodes.setdefault((refusal.owner, refusal.port), []).append(refusal.node)
    parts = []
    for (owner, (protocol, number)), names in sorted(nodes.items()):
        shown = ", ".join(sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        parts.append(f"{owner} has {protocol} {number} on {shown}{more}")
    return "; ".join(parts)


def _rank(service: Service, node: Node, held: Mapping[Claim, str]) -> int:
    """Who had all its ports comes first, then who had some; among equals who came first."""
    had = sum(_had(service, port, node, held) for port in service.ports)
    return 0 if had == len(service.ports) else 1 if had else 2


def _had(service: Service, port: Port, node: Node, held: Mapping[Claim, str]) -> bool:
    return held.get((node.name, port.protocol, port.number)) == service.key


def _refusals(ledger: _Ledger, service: Service, node: Node) -> list[Refusal]:
    refusals = []
    for port in service.ports:
        owner, passing = _owner(ledger, service, port, node)
        if owner:
            where = (port.protocol, port.number)
            refusals.append(Refusal(node.name, where, owner, passing))
    return refusals


def _grant(ledger: _Ledger, service: Service, node: Node) -> None:
    for port in service.ports:
        where = (port.protocol, port.number)
        ledger.taken[node.name, *where] = service.key
        for address in node.addresses:
            ledger.addresses[address, *where] = service.key
        for pod in _pods(ledger.rivals, port, node):
            ledger.shadows.append(Shadow(pod, where, node.name, f"Service {service.key}"))
    ledger.granted.setdefault(service.key, []).append(node)


def _owner(ledger: _Ledger, service: Service, port: Port, node: Node) -> tuple[str, bool]:
    if owner := reserved(port, node, ledger.rivals.api_servers):
        return owner, False
    for address in node.addresses:
        other = ledger.addresses.get((address, port.protocol, port.number), service.key)
        if other != service.key:
            return f"Service {other}", False
    if _had(service, port, node, ledger.held):
        return "", False
    return _newer(ledger.rivals, service, port, node)


def _newer(rivals: Rivals, service: Service, port: Port, node: Node) -> tuple[str, bool]:
    """Those to whom only a Service yields that did not have the port before."""
    for pod in _pods(rivals, port, node):
        return f"Pod {pod.key}", False
    where = (port.protocol, port.number)
    if rivals.node_ports.get(where, service.key) != service.key:
        return f"Service {rivals.node_ports[where]}, as a node port,", False
    if node.name == rivals.here and where in rivals.listeners:
        return f"the program {rivals.listeners[where]}", True
    return "", False


def _behind_the_node(nodes: Iterable[Node], rivals: Rivals) -> Iterable[Shadow]:
    """Pods whose host port the node itself uses. Those on its network are parts of the node."""
    by_name = {node.name: node for node in nodes}
    for (name, protocol, number), pods in rivals.pods.items():
        node = by_name.get(name)
        owner = reserved(Port(protocol, number), node, rivals.api_servers) if node else ""
        if owner:
            where = (protocol, number)
            yield from (Shadow(pod, where, name, owner) for _, pod in pods if not pod.on_host)


def _pods(rivals: Rivals, port: Port, node: Node) -> Iterable[Pod]:
    """Those with this host port at an address that a Service would have."""
    listed = rivals.pods.get((node.name, port.protocol, port.number), ())
    own = {"", *map(str, node.addresses)} if listed else set()
    return (pod for address, pod in listed if address in own)
