"""
Which addresses each Service of type LoadBalancer has. Pure.

A node gives all its addresses to all Services, so two Services may not share a
port: the older one has it, as with K3s, where the second one's pod does not start.
Labels and their meaning are K3s's. Source: K3s's documentation, "Service Load Balancer".
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

Object = Mapping[str, Any]
Address = IPv4Address | IPv6Address

ENABLE_LABEL = "svccontroller.k3s.cattle.io/enablelb"
POOL_LABEL = "svccontroller.k3s.cattle.io/lbpool"
CONDITION = "LoadBalancerPortsError"
REASON = "PortConflict"
_VERSIONS = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    ready: bool
    enabled: str | None  # the label's value
    pool: str
    internal: tuple[Address, ...]
    external: tuple[Address, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: str  # namespace/name
    uid: str
    resource_version: str
    created: str  # RFC 3339
    ours: bool  # of type LoadBalancer and without a class
    local: bool  # externalTrafficPolicy
    pool: str
    families: tuple[str, ...]
    ports: frozenset[tuple[str, int]]
    published: tuple[str, ...]  # as they stand in the status
    as_vip: bool  # every address in the status has this ipMode
    conditions: tuple[Object, ...]

    @property
    def conflict(self) -> str:
        """The message of our condition; "": there is none."""
        found = (c for c in self.conditions if c["type"] == CONDITION and c["status"] == "True")
        return next((str(condition.get("message", "")) for condition in found), "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    service: Service
    addresses: tuple[str, ...]
    conflict: str


def node_of(body: Object) -> Node:
    status, labels = body.get("status") or {}, body["metadata"].get("labels") or {}
    conditions = status.get("conditions") or ()
    return Node(
        name=body["metadata"]["name"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        enabled=labels.get(ENABLE_LABEL),
        pool=labels.get(POOL_LABEL, ""),
        internal=_addresses(status, "InternalIP"),
        external=_addresses(status, "ExternalIP"),
    )


def service_of(body: Object) -> Service:
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    return Service(
        key=f"{metadata['namespace']}/{metadata['name']}",
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=metadata.get("creationTimestamp") or "",
        ours=spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass"),
        local=spec.get("externalTrafficPolicy") == "Local",
        pool=(metadata.get("labels") or {}).get(POOL_LABEL, ""),
        families=tuple(spec.get("ipFamilies") or ("IPv4",)),
        ports=frozenset((p.get("protocol", "TCP"), p["port"]) for p in spec.get("ports") or ()),
        published=tuple(entry.get("ip") or entry.get("hostname") or "" for entry in ingress),
        as_vip=all(entry.get("ipMode") == "VIP" for entry in ingress),
        conditions=tuple(status.get("conditions") or ()),
    )


def concerns_us(service: Service, body: Object) -> bool:
    """What is of another class is left alone; addresses at a type that has none are cleared."""
    return service.ours or (bool(service.published) and body["spec"]["type"] != "LoadBalancer")


def ready_nodes(slice_: Object) -> frozenset[str]:
    """The nodes on which this EndpointSlice has a ready endpoint."""
    return frozenset(
        endpoint["nodeName"]
        for endpoint in slice_.get("endpoints") or ()
        if endpoint.get("nodeName") and (endpoint.get("conditions") or {}).get("ready") is not False
    )


def changes(
    services: Iterable[Service], nodes: Sequence[Node], local: Mapping[str, frozenset[str]]
) -> list[Change]:
    """
    What differs from what stands in the status.

    ``local``: of each Service, the nodes with a ready endpoint.
    """
    found: list[Change] = []
    taken: dict[tuple[Address, str, int], str] = {}
    for service in sorted(services, key=lambda s: (s.created, s.key)):
        addresses, conflict = _give(service, nodes, local, taken) if service.ours else ((), "")
        same = addresses == service.published and service.as_vip
        if not same or conflict != service.conflict:
            found.append(Change(service=service, addresses=addresses, conflict=conflict))
    return found


def withdrawals(services: Iterable[Service], nodes: Sequence[Node]) -> list[Change]:
    """With the operator disabled: what it gave, which nothing but a node's address can be."""
    known = {str(address) for node in nodes for address in (*node.internal, *node.external)}
    return [
        Change(service=service, addresses=(), conflict="")
        for service in services
        if service.conflict
        or (service.published and service.as_vip and known.issuperset(service.published))
    ]


def status_patch(change: Change, now: str) -> dict[str, Any]:
    """A merge patch of the Service's status. ``now``: RFC 3339."""
    ingress = [{"ip": address, "ipMode": "VIP"} for address in change.addresses]
    status: dict[str, Any] = {"loadBalancer": {"ingress": ingress or None}}
    if change.conflict != change.service.conflict:
        kept = [dict(c) for c in change.service.conditions if c["type"] != CONDITION]
        condition = {
            "type": CONDITION,
            "status": "True",
            "reason": REASON,
            "message": change.conflict,
            "lastTransitionTime": now,
        }
        status["conditions"] = [*kept, *([condition] if change.conflict else [])]
    return {"metadata": {"resourceVersion": change.service.resource_version}, "status": status}


def _give(
    service: Service,
    nodes: Sequence[Node],
    local: Mapping[str, frozenset[str]],
    taken: dict[tuple[Address, str, int], str],
) -> tuple[tuple[str, ...], str]:
    offered = _offered(service, _eligible(service, nodes, local))
    free, owners = [], set()
    for address in offered:
        claims = [(address, protocol, port) for protocol, port in service.ports]
        rivals = {f"{taken[claim]} has {claim[1]} {claim[2]}" for claim in claims if claim in taken}
        if rivals:
            owners |= rivals
        else:
            taken.update(dict.fromkeys(claims, service.key))
            free.append(str(address))
    return tuple(free), "" if free else "; ".join(sorted(owners))


def _eligible(
    service: Service, nodes: Sequence[Node], local: Mapping[str, frozenset[str]]
) -> list[Node]:
    found = [node for node in nodes if node.ready]
    # One label anywhere, even on a node that is away, turns the list of nodes into a choice.
    if any(node.enabled is not None for node in nodes):
        found = [node for node in found if node.enabled == "true"]
        if service.pool:
            found = [node for node in found if node.pool == service.pool]
    if service.local:
        with_endpoint = local.get(service.key, frozenset())
        found = [node for node in found if node.name in with_endpoint]
    return found


def _offered(service: Service, nodes: Sequence[Node]) -> list[Address]:
    external = {address for node in nodes for address in node.external}
    offered = external or {address for node in nodes for address in node.internal}
    return [
        address
        for family in service.families
        for address in sorted(a for a in offered if a.version == _VERSIONS[family])
    ]


def _addresses(status: Object, kind: str) -> tuple[Address, ...]:
    found = []
    for entry in status.get("addresses") or ():
        if entry["type"] == kind:
            try:
                found.append(ip_address(entry["address"]))
            except ValueError:  # somebody else's node may say anything
                continue
    return tuple(found)
