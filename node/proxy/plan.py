"""
Services and their endpoints become the parts of one nftables table.

A packet's way: the verdict map ``service_ips`` (or ``node_ports`` for the node's
own addresses) sends the first packet of a connection to a chain of the service. Where a
load balancer has an address of this node, ``balancer_ports`` does so for what comes in at any
other address of the node, too: the address may be that of a router before it, or there
are more networks than the node's object names.

    svc/…    any endpoint, by random or by affinity
    local/…  endpoints on this node only
    ext/…    from outside: masquerade, or keep the client's address and stay local
    fw/…     the source ranges of a load balancer, before ext
    ep/…     one endpoint of a service with affinity: remember the client, then translate

A service without endpoints has no chain at all: its elements say ``goto refuse``,
so clients hear "connection refused" at once; where only the policy Local leaves
none, they say ``drop`` so that a load balancer tries elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from node.proxy.endpoints import Backend, Chosen, choose
from node.proxy.ruleset import EMPTY, Element, Part
from node.proxy.services import Endpoint, Port, Service, ServiceKey

FAMILY = "ip"
TABLE = "pinnace_proxy"
MASQUERADE = 0x4000  # the bit of the packet mark that upstream's proxies use as well
REFUSE = "goto refuse"
DROP = "drop"
_PROTOCOLS = {"TCP": "tcp", "UDP": "udp", "SCTP": "sctp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the rules depend on besides services: constant but for ``zone`` and the addresses."""

    node: str
    node_ips: tuple[str, ...]
    external_ips: tuple[str, ...] = ()  # as its Node object says; a router may have them
    zone: str  # topology.kubernetes.io/zone of the node; "": none
    cluster_cidr: IPv4Network
    service_cidr: IPv4Network
    # Cluster IPs that a process of this node answers itself: never translated.
    own_ips: frozenset[IPv4Address]
    # TCP ports at the node's own addresses that no service and no pod may take: without the
    # kubelet and the API server nobody could take them back.
    own_ports: tuple[int, ...] = ()


def fixed_text(facts: Facts) -> str:
    """The named maps and base chains: everything that no service changes."""
    own = ", ".join(str(address) for address in sorted(facts.own_ips))
    ports = ", ".join(map(str, facts.own_ports))
    keep = (f"ip daddr {{ {own} }} accept\n" if own else "") + (
        f"tcp dport {{ {ports} }} fib daddr type local accept" if ports else ""
    )
    others = f"ip daddr {facts.service_cidr}"
    mark = f"meta mark set meta mark | {MASQUERADE:#x}"
    unmark = f"meta mark set meta mark & {0xFFFFFFFF ^ MASQUERADE:#x}"
    transports = "meta l4proto { tcp, udp, sctp }"
    return f"""
map service_ips {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
map node_ports {{ type inet_proto . inet_service : verdict; }}
map balancer_ports {{ type inet_proto . inet_service : verdict; }}
map host_ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
map host_port_ips {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
set hairpins {{ type ipv4_addr . ipv4_addr; }}
chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject
}}
chain services {{
  {others} ip saddr != {facts.cluster_cidr} {mark}
  ip daddr . meta l4proto . th dport vmap @service_ips
  {transports} dnat ip to ip daddr . meta l4proto . th dport map @host_port_ips
  fib daddr type local jump node_addresses
  {others} goto refuse
}}
chain node_addresses {{
  meta l4proto . th dport vmap @node_ports
  {transports} dnat ip to meta l4proto . th dport map @host_ports
}}
chain prerouting {{
  type nat hook prerouting priority dstnat; policy accept;
  {keep}
  jump services
  fib daddr type local meta l4proto . th dport vmap @balancer_ports
}}
chain output {{
  type nat hook output priority -100; policy accept;
  {keep}
  goto services
}}
chain postrouting {{
  type nat hook postrouting priority srcnat; policy accept;
  meta mark & {MASQUERADE:#x} != 0 {unmark} masquerade fully-random
  ct status dnat ip saddr . ip daddr @hairpins masquerade fully-random
  ct status dnat ip saddr 127.0.0.0/8 oifname != "lo" masquerade fully-random
}}
"""


def plan_service(service: Service, endpoints: Sequence[Endpoint], facts: Facts) -> Part:
    chains: dict[str, tuple[str, ...]] = {}
    sets: dict[str, str] = {}
    elements: dict[Element, str] = {}
    udp: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
    for port in service.ports:
        chosen = choose(endpoints, port, node=facts.node, zone=facts.zone)
        if port.protocol == "udp":
            udp |= _udp(service, port, chosen, facts)
        chains |= _port_chains(service, port, chosen, facts)
        sets |= _affinity_sets(service, port, chosen)
        elements |= _port_elements(service, port, chosen, facts)
    elements |= _hairpins(endpoint.address for endpoint in endpoints if endpoint.node == facts.node)
    if not any(element.container != "hairpins" for element in elements):
        return EMPTY
    rank = (service.created, *service.key)
    return Part(rank=rank, chains=chains, sets=sets, elements=elements, udp=udp)


def plan_pod(pod: Mapping[str, Any]) -> Part:
    """The host ports of a pod on this node; empty once it has finished."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    address = status.get("podIP", "")
    if spec.get("hostNetwork") or not address or status.get("phase") in ("Succeeded", "Failed"):
        return EMPTY
    elements: dict[Element, str] = {}
    udp: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
    for port in _host_ports(spec):
        protocol = _PROTOCOLS[port.get("protocol", "TCP")]
        value = f"{address} . {port['containerPort']}"
        where = f"{protocol} . {port['hostPort']}"
        host_ip = port.get("hostIP") or "0.0.0.0"
        if protocol == "udp":
            backend = (address, int(port["containerPort"]))
            udp["" if host_ip == "0.0.0.0" else host_ip, port["hostPort"]] = frozenset([backend])
        if host_ip == "0.0.0.0":
            elements[Element("host_ports", where)] = value
        elif ":" not in host_ip:
            elements[Element("host_port_ips", f"{host_ip} . {where}")] = value
    if not elements:
        return EMPTY
    rank = (metadata.get("creationTimestamp") or "", metadata["namespace"], metadata["name"])
    return Part(rank=rank, elements=elements | _hairpins([address]), udp=udp)


def _host_ports(spec: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Also those of sidecars, which are init containers that stay."""
    sidecars = [
        container
        for container in spec.get("initContainers") or []
        if container.get("restartPolicy") == "Always"
    ]
    for container in [*spec.get("containers", []), *sidecars]:
        yield from (port for port in container.get("ports") or [] if port.get("hostPort"))


def local_endpoints(service: Service, endpoints: Sequence[Endpoint], node: str) -> int:
    """How many addresses on this node may serve: what a health check reports."""
    found: set[str] = set()
    for port in service.ports:
        chosen = choose(endpoints, port, node=node, zone="", hints=False)
        found |= {backend.address for backend in chosen.local}
    return len(found)


def name_of(kind: str, key: ServiceKey, port: Port) -> str:
    """A chain's name, readable in ``nft list ruleset``; nft allows slashes and dots."""
    return f"{kind}/{key.namespace}/{key.name}/{port.protocol}/{port.port}"


def _udp(
    service: Service, port: Port, chosen: Chosen, facts: Facts
) -> dict[tuple[str, int], frozenset[tuple[str, int]]]:
    answers: frozenset[tuple[str, int]] = frozenset({*chosen.cluster, *chosen.local})
    addresses = (*service.cluster_ips, *service.external_ips, *service.load_balancer_ips)
    found = {(address, port.port): answers for address in addresses}
    if port.node_port:
        found["", port.node_port] = answers
    if _is_here(service, facts):
        found["", port.port] = answers
    return found


def _is_here(service: Service, facts: Facts) -> bool:
    """An address of the load balancer is one of this node."""
    return not {*facts.node_ips, *facts.external_ips}.isdisjoint(service.load_balancer_ips)


def _hairpins(addresses: Iterable[str]) -> dict[Element, str]:
    """Pairs for connections that come back to where they started; nft cannot compare two fields."""
    return {Element("hairpins", f"{address} . {address}"): "" for address in addresses}


def _affinity_sets(service: Service, port: Port, chosen: Chosen) -> dict[str, str]:
    if not service.affinity_seconds:
        return {}
    body = (
        f"type ipv4_addr; size 65535; flags dynamic,timeout; timeout {service.affinity_seconds}s;"
    )
    backends = {*chosen.cluster, *chosen.local}
    return {_affinity_set(service, port, backend): body for backend in sorted(backends)}


def _affinity_set(service: Service, port: Port, backend: Backend) -> str:
    # The timeout is part of the name, because that of an existing set cannot be changed.
    name = _endpoint_chain(service, port, backend).replace("ep/", "aff/", 1)
    return f"{name}/{service.affinity_seconds}"


def _endpoint_chain(service: Service, port: Port, backend: Backend) -> str:
    return f"{name_of('ep', service.key, port)}/{backend.address}/{backend.port}"


def _has_external(service: Service, port: Port) -> bool:
    return bool(port.node_port or service.external_ips or service.load_balancer_ips)


def _port_chains(
    service: Service, port: Port, chosen: Chosen, facts: Facts
) -> dict[str, tuple[str, ...]]:
    chains: dict[str, tuple[str, ...]] = {}
    svc, local = name_of("svc", service.key, port), name_of("local", service.key, port)
    external = _has_external(service, port)
    if chosen.cluster and (external or not service.internal_local):
        chains[svc] = _balance(service, port, chosen.cluster)
    if chosen.local and (service.internal_local or (external and service.external_local)):
        chains[local] = _balance(service, port, chosen.local)
    if external and chosen.exist:
        chains[name_of("ext", service.key, port)] = _external(service, port, chosen, facts)
        if service.source_ranges and service.load_balancer_ips:
            chains[name_of("fw", service.key, port)] = _firewall(service, port, facts)
    if service.affinity_seconds:
        used = {
            *(chosen.cluster if svc in chains else ()),
            *(chosen.local if local in chains else ()),
        }
        for backend in sorted(used):
            chains[_endpoint_chain(service, port, backend)] = (
                f"update @{_affinity_set(service, port, backend)} {{ ip saddr }}",
                _translate(port, backend),
            )
    return chains


def _translate(port: Port, backend: Backend) -> str:
    return f"meta l4proto {port.protocol} dnat ip to {backend.address}:{backend.port}"


def _balance(service: Service, port: Port, backends: tuple[Backend, ...]) -> tuple[str, ...]:
    if service.affinity_seconds:
        chains = [_endpoint_chain(service, port, backend) for backend in backends]
        remembered = [
            f"ip saddr @{_affinity_set(service, port, backend)} goto {chain}"
            for backend, chain in zip(backends, chains, strict=True)
        ]
        picks = ", ".join(f"{i} : goto {chain}" for i, chain in enumerate(chains))
        return (*remembered, f"numgen random mod {len(chains)} vmap {{ {picks} }}")
    if len(backends) == 1:
        return (_translate(port, backends[0]),)
    picks = ", ".join(f"{i} : {b.address} . {b.port}" for i, b in enumerate(backends))
    numbers = f"numgen random mod {len(backends)}"
    return (f"meta l4proto {port.protocol} dnat ip to {numbers} map {{ {picks} }}",)


def _external(service: Service, port: Port, chosen: Chosen, facts: Facts) -> tuple[str, ...]:
    svc = name_of("svc", service.key, port)
    mark = f"meta mark set meta mark | {MASQUERADE:#x}"
    if not service.external_local:
        return (mark, f"goto {svc}")
    local = name_of("local", service.key, port)
    return (
        # From inside, the policy does not hold: these would reach the cluster IP just as well.
        f"ip saddr {facts.cluster_cidr} goto {svc}",
        f"fib saddr type local {mark}",
        f"fib saddr type local goto {svc}",
        f"goto {local}" if chosen.local else DROP,
    )


def _firewall(service: Service, port: Port, facts: Facts) -> tuple[str, ...]:
    ranges = [IPv4Network(text) for text in service.source_ranges]
    ext = name_of("ext", service.key, port)
    rules = [f"ip saddr {{ {', '.join(service.source_ranges)} }} goto {ext}"]
    # The node may talk to an address of its own with any of its addresses as the source.
    if any(IPv4Address(ip) in network for ip in facts.node_ips for network in ranges):
        rules.append(f"fib saddr type local goto {ext}")
    return (*rules, DROP)


def _port_elements(
    service: Service, port: Port, chosen: Chosen, facts: Facts
) -> dict[Element, str]:
    where = f"{port.protocol} . {port.port}"
    internal = _internal_verdict(service, port, chosen)
    external = f"goto {name_of('ext', service.key, port)}" if chosen.exist else REFUSE
    balancer = external
    if chosen.exist and service.source_ranges:
        balancer = f"goto {name_of('fw', service.key, port)}"
    elements = {Element("service_ips", f"{ip} . {where}"): external for ip in service.external_ips}
    elements |= {
        Element("service_ips", f"{ip} . {where}"): balancer for ip in service.load_balancer_ips
    }
    elements |= {
        Element("service_ips", f"{ip} . {where}"): internal
        for ip in service.cluster_ips
        if IPv4Address(ip) not in facts.own_ips
    }
    if port.node_port:
        elements[Element("node_ports", f"{port.protocol} . {port.node_port}")] = external
    if _is_here(service, facts):
        elements[Element("balancer_ports", where)] = balancer
    return elements


def _internal_verdict(service: Service, port: Port, chosen: Chosen) -> str:
    if not chosen.exist:
        return REFUSE
    if not service.internal_local:
        return f"goto {name_of('svc', service.key, port)}"
    return f"goto {name_of('local', service.key, port)}" if chosen.local else DROP
