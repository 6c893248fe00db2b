"""
What the plans need of Services, Nodes, Pods and EndpointSlices, parsed once. Pure.

A cluster may have a thousand of each, so facts are small: an object of no interest has none.
Labels and annotations are K3s's. Source: K3s's documentation, "Service Load Balancer".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, NamedTuple

from operators.servicelb.annotations import Toleration, source_ranges, tolerations

Object = Mapping[str, Any]
Address = IPv4Address | IPv6Address

ENABLE_LABEL = "svccontroller.k3s.cattle.io/enablelb"
POOL_LABEL = "svccontroller.k3s.cattle.io/lbpool"
NAME_LABEL = "svccontroller.k3s.cattle.io/svcname"
NAMESPACE_LABEL = "svccontroller.k3s.cattle.io/svcnamespace"
PRIORITY_ANNOTATION = "svccontroller.k3s.cattle.io/priorityclassname"
PORTS_CONDITION = "LoadBalancerPortsError"
SPEC_CONDITION = "LoadBalancerSpecError"
NODES_CONDITION = "LoadBalancerNodesError"
CONDITIONS = frozenset({PORTS_CONDITION, SPEC_CONDITION, NODES_CONDITION})
_FINISHED = ("Succeeded", "Failed")
_IPV4: tuple[str, ...] = ("IPv4",)


class Port(NamedTuple):
    protocol: str  # TCP, UDP, SCTP
    number: int
    node_port: int = 0  # 0: none


class HostPort(NamedTuple):
    address: str  # "": every address of the node
    protocol: str
    number: int


class Taint(NamedTuple):
    key: str
    value: str
    effect: str


class Trouble(NamedTuple):
    """Why a Service has fewer addresses than it might; without a message there is none."""

    condition: str = ""  # its type
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    ready: bool
    enabled: str | None  # the label's value
    pool: str
    taints: tuple[Taint, ...]
    internal: tuple[Address, ...]
    external: tuple[Address, ...]
    kubelet_port: int  # 0: unknown

    @property
    def addresses(self) -> tuple[Address, ...]:
        return (*self.internal, *self.external)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: str  # namespace/name
    uid: str
    resource_version: str = field(compare=False)  # changes with every label
    created: str  # RFC 3339
    ours: bool  # of type LoadBalancer and without a class
    local: bool  # externalTrafficPolicy
    pool: str
    priority: str  # name of a PriorityClass; "": the default
    tolerations: tuple[Toleration, ...]
    families: tuple[str, ...]
    ports: tuple[Port, ...]
    cluster_ips: tuple[str, ...]
    wanted_ip: str  # loadBalancerIP
    sources: tuple[str, ...]  # CIDR; empty: everybody
    problem: str  # what in its annotations cannot be understood
    published: tuple[str, ...]  # as they stand in the status
    as_vip: bool  # every address in the status has this ipMode
    given: bool  # what stands in the status was written by us
    conditions: tuple[Object, ...]

    @property
    def trouble(self) -> Trouble:
        """As our condition tells it."""
        for found in self.conditions:
            if found["type"] in CONDITIONS and found["status"] == "True":
                return Trouble(found["type"], found.get("reason", ""), found.get("message", ""))
        return Trouble()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """One with host ports, or one that forwards for a Service."""

    key: str
    uid: str
    node: str  # where it is or shall be
    ports: tuple[HostPort, ...]
    on_host: bool  # in the node's own network namespace
    service: str  # the Service that it forwards for; "": none
    app: str  # its DaemonSet, where it forwards
    ready: bool
    stuck: str  # the scheduler's words, while it has no place


def node_of(body: Object) -> Node:
    status, labels = body.get("status") or {}, body["metadata"].get("labels") or {}
    conditions = status.get("conditions") or ()
    kubelet = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    return Node(
        name=body["metadata"]["name"],
        ready=any(c["type"] == "Ready" and c["status"] == "True" for c in conditions),
        enabled=labels.get(ENABLE_LABEL),
        pool=labels.get(POOL_LABEL, ""),
        taints=tuple(
            Taint(taint["key"], taint.get("value", ""), taint["effect"])
            for taint in (body.get("spec") or {}).get("taints") or ()
        ),
        internal=_addresses(status, "InternalIP"),
        external=_addresses(status, "ExternalIP"),
        kubelet_port=kubelet.get("Port", 0),
    )


def service_of(body: Object, manager: str) -> Service:
    """``manager``: by which field manager our writes are known again."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    annotations = metadata.get("annotations") or {}
    ingress = (status.get("loadBalancer") or {}).get("ingress") or ()
    tolerated, problem = tolerations(annotations)
    sources, unclear = source_ranges(spec, annotations)
    families = tuple(spec.get("ipFamilies") or _IPV4)
    return Service(
        key=key_of(body),
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        created=metadata.get("creationTimestamp") or "",
        ours=spec.get("type") == "LoadBalancer" and not spec.get("loadBalancerClass"),
        local=spec.get("externalTrafficPolicy") == "Local",
        pool=(metadata.get("labels") or {}).get(POOL_LABEL, ""),
        priority=annotations.get(PRIORITY_ANNOTATION, ""),
        tolerations=tolerated,
        families=_IPV4 if families == _IPV4 else families,
        ports=tuple(
            Port(port.get("protocol", "TCP"), port["port"], port.get("nodePort", 0))
            for port in spec.get("ports") or ()
        ),
        cluster_ips=tuple(spec.get("clusterIPs") or ()),
        wanted_ip=spec.get("loadBalancerIP", ""),
        sources=sources,
        problem=problem or unclear,
        published=tuple(entry.get("ip") or entry.get("hostname") or "" for entry in ingress),
        as_vip=all(entry.get("ipMode") == "VIP" for entry in ingress),
        given=any(
            entry.get("manager") == manager and _sets_addresses(entry)
            for entry in metadata.get("managedFields") or ()
        ),
        conditions=tuple(status.get("conditions") or ()),
    )


def concerns_us(service: Service, body: Object) -> bool:
    """
    What is of another class is left alone.

    Addresses at a type that has none are cleared, and so is what we gave before the class came.
    """
    other_type = body["spec"].get("type") != "LoadBalancer"
    return service.ours or (bool(service.published) and (other_type or service.given))


def node_ports_of(body: Object) -> tuple[tuple[str, int], ...]:
    """What every node uses for this Service: (protocol, port)."""
    spec = body["spec"]
    found = [
        (port.get("protocol", "TCP"), port["nodePort"])
        for port in spec.get("ports") or ()
        if port.get("nodePort")
    ]
    if spec.get("healthCheckNodePort"):
        found.append(("TCP", spec["healthCheckNodePort"]))
    return tuple(found)


def pod_of(body: Object, namespace: str) -> Pod | None:
    """``namespace``: where the pods that forward are. None: of no interest."""
    metadata, spec, status = body["metadata"], body["spec"], body.get("status") or {}
    labels = metadata.get("labels") or {}
    forwards = metadata["namespace"] == namespace and NAME_LABEL in labels
    ports = tuple(_host_ports(spec)) if status.get("phase") not in _FINISHED else ()
    if not (ports or forwards):
        return None
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    return Pod(
        key=key_of(body),
        uid=metadata["uid"],
        node=spec.get("nodeName") or _meant_for(spec),
        ports=ports,
        on_host=bool(spec.get("hostNetwork")),
        service=f"{labels.get(NAMESPACE_LABEL, '')}/{labels[NAME_LABEL]}" if forwards else "",
        app=labels.get("app", "") if forwards else "",
        ready=(conditions.get("Ready") or {}).get("status") == "True",
        stuck=scheduled.get("message", "") if scheduled.get("status") == "False" else "",
    )


def ready_nodes(slice_: Object) -> frozenset[str]:
    """The nodes on which this EndpointSlice has a ready endpoint."""
    return frozenset(
        endpoint["nodeName"]
        for endpoint in slice_.get("endpoints") or ()
        if endpoint.get("nodeName") and (endpoint.get("conditions") or {}).get("ready") is not False
    )


def servers_of(slice_: Object) -> frozenset[tuple[Address, int]]:
    """Address and port of every endpoint: of API servers, if it is theirs."""
    ports = [port["port"] for port in slice_.get("ports") or () if port.get("port")]
    texts = [text for e in slice_.get("endpoints") or () for text in e.get("addresses") or ()]
    return frozenset((address, port) for address in _parsed(texts) for port in ports)


def key_of(body: Object) -> str:
    return f"{body['metadata']['namespace']}/{body['metadata']['name']}"


def _sets_addresses(entry: Object) -> bool:
    fields = (entry.get("fieldsV1") or {}).get("f:status") or {}
    return "f:ingress" in (fields.get("f:loadBalancer") or {})


def _host_ports(spec: Object) -> Iterable[HostPort]:
    """Also those of sidecars, which are init containers that stay."""
    sidecars = (c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always")
    for container in (*(spec.get("containers") or ()), *sidecars):
        for port in container.get("ports") or ():
            if number := port.get("hostPort"):
                address = port.get("hostIP") or ""
                everywhere = address in {"", "0.0.0.0", "::"}
                protocol = port.get("protocol", "TCP")
                yield HostPort("" if everywhere else address, protocol, number)


def _meant_for(spec: Object) -> str:
    """The node that a DaemonSet made this pod for; "" for any other pod."""
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for rule in term.get("matchFields") or ():
            if rule["key"] == "metadata.name" and rule["operator"] == "In":
                return str(rule["values"][0])
    return ""


def _addresses(status: Object, kind: str) -> tuple[Address, ...]:
    found = status.get("addresses") or ()
    return tuple(_parsed(entry["address"] for entry in found if entry["type"] == kind))


def _parsed(texts: Iterable[str]) -> Iterable[Address]:
    for text in texts:
        try:
            yield ip_address(text)
        except ValueError:  # somebody else's node may say anything
            continue
