"""
Which addresses each Service of type LoadBalancer has, and what its status says. Pure.

Here the service proxy of every node forwards, so an address is had by deciding so;
with pods that forward (:mod:`operators.servicelb.daemonset`) it is had where such a pod is ready.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operators.servicelb import claims, daemonset
from operators.servicelb.claims import Claim, Outcome, PortKey, Refusal, Rivals, Shadow
from operators.servicelb.daemonset import Wanted
from operators.servicelb.facts import (
    CONDITIONS,
    NODES_CONDITION,
    PORTS_CONDITION,
    SPEC_CONDITION,
    Address,
    Node,
    Pod,
    Service,
    Trouble,
)
from operators.servicelb.placement import chosen_by_label, misplaced, placed

NO_NODE_PORTS = (
    "externalTrafficPolicy Local needs node ports, and allocateLoadBalancerNodePorts is false"
)
_VERSIONS = {"IPv4": 4, "IPv6": 6}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    services: Sequence[Service]
    nodes: Sequence[Node]
    local: Mapping[str, frozenset[str]]  # of each Service, the nodes with a ready endpoint
    pods: Sequence[Pod] = ()
    api_servers: frozenset[tuple[Address, int]] = frozenset()
    node_ports: Mapping[PortKey, str] = field(default_factory=dict)  # → the Service
    listeners: Mapping[PortKey, str] = field(default_factory=dict)  # of the node ``here``
    here: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    service: Service
    addresses: tuple[str, ...]
    trouble: Trouble


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    changes: Sequence[Change]
    held: Mapping[Claim, str]
    shadows: Sequence[Shadow] = ()
    passing: bool = False  # somebody waits for a program to end, which nobody tells
    daemonsets: Mapping[str, Wanted] = field(default_factory=dict)  # all that should be there
    obsolete: Sequence[str] = ()  # DaemonSets that should not


def native(world: World, held: Mapping[Claim, str] | None) -> Plan:
    """
    Where the nodes themselves forward.

    ``held``: of the plan before, None for the first one.
    """
    services = _in_order(world.services)
    if held is None:
        held = claims.held_by_status(services, world.nodes)
    outcome = claims.settle(services, world.nodes, _rivals(world), held)
    found = []
    for service in services:
        nodes = [node for node in outcome.granted.get(service.key, ()) if node.ready]
        refused = outcome.refused.get(service.key, ())
        found.append(_change(service, _with_endpoints(service, nodes, world.local), refused, world))
    return Plan(
        changes=_differing(found),
        held=outcome.held,
        shadows=outcome.shadows,
        passing=any(_waits(outcome)),
    )


def forwarded(world: World, live: Iterable[str], *, namespace: str, image: str) -> Plan:
    """
    Where pods forward: ``image`` in DaemonSets of ``namespace``.

    ``live``: the names of those that are there.
    """
    found, wanted = [], {}
    pods = _by_daemonset(world.pods)
    by_node = {node.name: node for node in world.nodes}
    selecting = chosen_by_label(world.nodes)
    for service in _in_order(world.services):
        if not service.ours:
            found.append(_change(service, (), (), world))
            continue
        if problem := service.problem or _unforwardable(service):
            found.append(_change(service, (), (), world, problem=problem))
            continue
        name = daemonset.name_of(service)
        taken = _reserved(service, world)
        wanted[name] = Wanted(
            service=service,
            namespace=namespace,
            image=image,
            selecting=selecting,
            avoid=tuple(sorted({refusal.node for refusal in taken})),
        )
        mine = [pod for pod in pods.get(name, ()) if pod.service == service.key]
        nodes = [by_node[pod.node] for pod in mine if pod.ready and pod.node in by_node]
        refused = (*taken, *_stuck(service, mine, world.pods))
        found.append(_change(service, _with_endpoints(service, nodes, world.local), refused, world))
    return Plan(
        changes=_differing(found),
        held={},
        daemonsets=wanted,
        obsolete=sorted(set(live) - wanted.keys()),
    )


def withdrawals(services: Iterable[Service]) -> list[Change]:
    """With the operator disabled: what it gave, and no other's."""
    return [
        Change(service=service, addresses=(), trouble=Trouble())
        for service in services
        if service.given and (service.published or service.trouble.message)
    ]


def newcomers(world: World, held: Mapping[Claim, str] | None) -> set[PortKey]:
    """The ports that a Service wants and does not have yet on the node ``here``."""
    if held is None:
        held = claims.held_by_status(_in_order(world.services), world.nodes)
    return {
        (port.protocol, port.number)
        for service in world.services
        if any(node.name == world.here for node in placed(service, world.nodes))
        for port in service.ports
        if held.get((world.here, port.protocol, port.number)) != service.key
    }


def status_patch(change: Change, now: str) -> dict[str, Any]:
    """A merge patch of the Service's status. ``now``: RFC 3339."""
    ingress = [{"ip": address, "ipMode": "VIP"} for address in change.addresses]
    status: dict[str, Any] = {"loadBalancer": {"ingress": ingress or None}}
    if change.trouble != change.service.trouble:
        kept = [dict(c) for c in change.service.conditions if c["type"] not in CONDITIONS]
        condition = {
            "type": change.trouble.condition,
            "status": "True",
            "reason": change.trouble.reason,
            "message": change.trouble.message,
            "lastTransitionTime": now,
        }
        status["conditions"] = [*kept, *([condition] if change.trouble.message else [])]
    return {"metadata": {"resourceVersion": change.service.resource_version}, "status": status}


def _in_order(services: Iterable[Service]) -> list[Service]:
    return sorted(services, key=lambda service: (service.created, service.key))


def _rivals(world: World) -> Rivals:
    return Rivals(
        api_servers=world.api_servers,
        pods=claims.pods_by_port(world.pods),
        node_ports=world.node_ports,
        listeners=world.listeners,
        here=world.here,
    )


def _waits(outcome: Outcome) -> Iterable[bool]:
    return (refusal.passing for refused in outcome.refused.values() for refusal in refused)


def _change(
    service: Service,
    addresses: tuple[str, ...],
    refused: Sequence[Refusal],
    world: World,
    *,
    problem: str = "",
) -> Change:
    trouble = Trouble()
    if problem := problem or (service.problem if service.ours else ""):
        trouble = Trouble(SPEC_CONDITION, "Invalid", problem)
    elif refused:
        trouble = Trouble(PORTS_CONDITION, "PortConflict", claims.told(refused))
    elif reason := misplaced(service, world.nodes):
        trouble = Trouble(NODES_CONDITION, "NoNode", reason)
    return Change(service=service, addresses=addresses, trouble=trouble)


def _differing(changes: Iterable[Change]) -> list[Change]:
    """What is taken away comes first, so that no port is had by two."""
    found = [
        change
        for change in changes
        if change.addresses != change.service.published
        or not change.service.as_vip
        or change.trouble != change.service.trouble
    ]
    return sorted(found, key=lambda change: not set(change.service.published) > {*change.addresses})


def _with_endpoints(
    service: Service, nodes: Sequence[Node], local: Mapping[str, frozenset[str]]
) -> tuple[str, ...]:
    if service.local:
        having = local.get(service.key, frozenset())
        nodes = [node for node in nodes if node.name in having]
    return tuple(str(address) for address in _offered(service, nodes))


def _offered(service: Service, nodes: Sequence[Node]) -> list[Address]:
    external = {address for node in nodes for address in node.external}
    offered = external or {address for node in nodes for address in node.internal}
    # One address was asked for, and the nodes have it; else the wish means nothing, as with K3s.
    asked = {a for node in nodes for a in node.addresses if str(a) == service.wanted_ip}
    offered = asked or offered
    return [
        address
        for family in service.families
        for address in sorted(a for a in offered if a.version == _VERSIONS[family])
    ]


def _unforwardable(service: Service) -> str:
    lacking = service.local and not all(port.node_port for port in service.ports)
    return NO_NODE_PORTS if lacking else ""


def _reserved(service: Service, world: World) -> list[Refusal]:
    """Host ports there would take the port from those that hold the cluster together."""
    return [
        Refusal(node.name, (port.protocol, port.number), owner, passing=False)
        for node in placed(service, world.nodes)
        for port in service.ports
        if (owner := claims.reserved(port, node, world.api_servers))
    ]


def _by_daemonset(pods: Iterable[Pod]) -> dict[str, list[Pod]]:
    found: dict[str, list[Pod]] = {}
    for pod in pods:
        if pod.service:
            found.setdefault(pod.app, []).append(pod)
    return found


def _stuck(service: Service, mine: Iterable[Pod], pods: Iterable[Pod]) -> list[Refusal]:
    """For each pod that the scheduler could not place, who has its port."""
    stuck = {pod.node: pod for pod in mine if "free ports" in pod.stuck}
    wanted = {(port.protocol, port.number) for port in service.ports}
    return [
        Refusal(pod.node, where, _owner(pod), passing=False)
        for pod in (pods if stuck else ())
        if pod.node in stuck and pod.service != service.key and not pod.stuck
        for port in pod.ports
        if (where := (port.protocol, port.number)) in wanted
    ]


def _owner(pod: Pod) -> str:
    return f"Service {pod.service}" if pod.service else f"Pod {pod.key}"
