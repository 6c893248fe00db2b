"""
What the proxy needs of services and endpoint slices, parsed once at the edge.

Only IPv4 is taken: the node has one pod network, and it is IPv4. Headless and
ExternalName services have nothing to forward and are no :class:`Service` here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, ip_network
from typing import Any, NamedTuple

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SOURCES_ANNOTATION = "service.beta.kubernetes.io/load-balancer-source-ranges"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


class ServiceKey(NamedTuple):
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    name: str
    protocol: str  # tcp, udp, sctp
    port: int
    node_port: int  # 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    key: ServiceKey
    created: str  # RFC 3339: where two claim one address, the older service has it
    cluster_ips: tuple[str, ...]
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[str, ...]  # of the load balancer's addresses; empty: all
    ports: tuple[Port, ...]
    affinity_seconds: int  # 0: no session affinity
    internal_local: bool  # internalTrafficPolicy Local
    external_local: bool
    health_port: int  # healthCheckNodePort; 0: none


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One address of an endpoint slice, with the slice's ports by name."""

    address: str
    ports: Mapping[tuple[str, str], int]  # (name, protocol) → port; shared by the whole slice
    node: str
    ready: bool
    serving: bool
    terminating: bool
    zone_hints: tuple[str, ...]
    node_hints: tuple[str, ...]


def _ipv4(texts: list[Any]) -> tuple[str, ...]:
    """The IPv4 ones, in normal form and without repetition."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[str(IPv4Address(text))] = None
        except ValueError:
            continue
    return tuple(found)


_NOBODY = ("255.255.255.255/32",)


def _ranges(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> tuple[str, ...]:
    """
    Who may use the load balancer's addresses; empty: everybody.

    The annotation counts where the field is empty. What cannot be understood admits nobody.
    """
    told = ((metadata.get("annotations") or {}).get(SOURCES_ANNOTATION) or "").strip()
    texts = spec.get("loadBalancerSourceRanges") or (told.split(",") if told else [])
    try:
        networks = [ip_network(text.strip(), strict=False) for text in texts]
    except ValueError:
        return _NOBODY
    mine = [network for network in networks if isinstance(network, IPv4Network)]
    if texts and not mine:
        return _NOBODY  # ranges of another family only
    # nft refuses overlapping elements.
    return tuple(str(network) for network in collapse_addresses(mine))


def _ports(spec: Mapping[str, Any], *, has_node_ports: bool) -> tuple[Port, ...]:
    return tuple(
        Port(
            name=port.get("name", ""),
            protocol=_PROTOCOLS[port.get("protocol", "TCP")],
            port=port["port"],
            node_port=port.get("nodePort", 0) if has_node_ports else 0,
        )
        for port in spec.get("ports") or []
        if port.get("protocol", "TCP") in _PROTOCOLS
    )


def _affinity(spec: Mapping[str, Any]) -> int:
    if spec.get("sessionAffinity") != "ClientIP":
        return 0
    client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
    return int(client_ip.get("timeoutSeconds") or 10800)


def parse_service(service: Mapping[str, Any]) -> Service | None:
    """None: nothing to forward, or left to another proxy by its label."""
    metadata, spec = service["metadata"], service.get("spec") or {}
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName" or PROXY_NAME_LABEL in (metadata.get("labels") or {}):
        return None
    cluster_ips = _ipv4(spec.get("clusterIPs") or [spec.get("clusterIP", "")])
    if not cluster_ips:
        return None
    balanced = kind == "LoadBalancer"
    ingress = ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
    external_local = (
        spec.get("externalTrafficPolicy") == "Local" and kind in ("NodePort", "LoadBalancer")
    ) or (spec.get("externalTrafficPolicy") == "Local" and bool(spec.get("externalIPs")))
    return Service(
        key=ServiceKey(metadata["namespace"], metadata["name"]),
        created=metadata.get("creationTimestamp") or "",
        cluster_ips=cluster_ips,
        external_ips=_ipv4(spec.get("externalIPs") or []),
        load_balancer_ips=_ipv4(
            [entry.get("ip", "") for entry in ingress if entry.get("ipMode", "VIP") == "VIP"]
            if balanced
            else []
        ),
        source_ranges=_ranges(metadata, spec) if balanced else (),
        ports=_ports(spec, has_node_ports=kind in ("NodePort", "LoadBalancer")),
        affinity_seconds=_affinity(spec),
        internal_local=spec.get("internalTrafficPolicy") == "Local",
        external_local=external_local,
        health_port=spec.get("healthCheckNodePort", 0) if balanced and external_local else 0,
    )


def slice_service(endpoint_slice: Mapping[str, Any]) -> ServiceKey | None:
    """The service that a slice belongs to; None: no business of the proxy."""
    metadata = endpoint_slice["metadata"]
    labels = metadata.get("labels") or {}
    name = labels.get(SERVICE_NAME_LABEL)
    if not name or HEADLESS_LABEL in labels or PROXY_NAME_LABEL in labels:
        return None
    return ServiceKey(metadata["namespace"], name)


def parse_endpoints(endpoint_slice: Mapping[str, Any]) -> tuple[Endpoint, ...]:
    """Those of an IPv4 slice; only the first address of an endpoint counts, as the API says."""
    if endpoint_slice.get("addressType") != "IPv4":
        return ()
    ports = {
        (port.get("name") or "", _PROTOCOLS[port.get("protocol", "TCP")]): port["port"]
        for port in endpoint_slice.get("ports") or []
        if port.get("port") and port.get("protocol", "TCP") in _PROTOCOLS
    }
    endpoints = []
    for entry in endpoint_slice.get("endpoints") or []:
        addresses = _ipv4((entry.get("addresses") or [])[:1])
        conditions = entry.get("conditions") or {}
        hints = entry.get("hints") or {}
        if addresses:
            endpoints.append(
                Endpoint(
                    address=addresses[0],
                    ports=ports,
                    node=entry.get("nodeName") or "",
                    # An absent condition means unknown, to be taken as ready and serving.
                    ready=conditions.get("ready") is not False,
                    serving=conditions.get("serving") is not False,
                    terminating=conditions.get("terminating") is True,
                    zone_hints=tuple(zone["name"] for zone in hints.get("forZones") or []),
                    node_hints=tuple(node["name"] for node in hints.get("forNodes") or []),
                )
            )
    return tuple(endpoints)
