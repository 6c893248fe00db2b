"""Services and their endpoints. Addresses and node ports in use are the allocator's affair."""

from collections.abc import Iterable

from controlplane.objects.errors import (
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object, formed

_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_PROTOCOLS = ("SCTP", "TCP", "UDP")
_POLICIES = ("Cluster", "Local")
_NODE_PORTS = ("NodePort", "LoadBalancer")
_DAY = 86400


def service(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    kind = spec.get("type")
    yield from _ports(spec, kind)
    yield from checks.one_of(kind, _TYPES, "spec.type")
    yield from metadata.labels(spec.get("selector"), "spec.selector")
    yield from _affinity(spec)
    yield from _of_type(spec, kind)
    yield from _addresses(spec)
    yield from _families(spec)
    yield from _traffic(spec, kind)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        yield from checks.endpoint_address(address, f"spec.externalIPs[{index}]")
    for index, block in enumerate(spec.get("loadBalancerSourceRanges") or ()):
        if kind != "LoadBalancer":
            text = "may only be used when `type` is 'LoadBalancer'"
            yield forbidden_field("spec.loadBalancerSourceRanges", text)
        yield from checks.cidr(block, f"spec.loadBalancerSourceRanges[{index}]")
    if load_class := spec.get("loadBalancerClass"):
        yield from formed(names.qualified_name, load_class, "spec.loadBalancerClass")
        if kind != "LoadBalancer":
            text = "may only be used when `type` is 'LoadBalancer'"
            yield forbidden_field("spec.loadBalancerClass", text)


def service_updated(new: Object, old: Object) -> Found:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    both_have = "ExternalName" not in (after.get("type"), before.get("type"))
    if both_have and before.get("clusterIP"):
        yield from _same_addresses(after, before)
    both_load = after.get("type") == before.get("type") == "LoadBalancer"
    if both_load and after.get("loadBalancerClass") != before.get("loadBalancerClass"):
        text = "may not change once set"
        yield invalid_value("spec.loadBalancerClass", after.get("loadBalancerClass"), text)
    yield from service(new)


def _same_addresses(after: Object, before: Object) -> Found:
    if after.get("clusterIP") != before.get("clusterIP"):
        yield invalid_value("spec.clusterIP", after.get("clusterIP") or "", IMMUTABLE)
    new, old = after.get("clusterIPs") or [], before.get("clusterIPs") or []
    if new and old and new[0] != old[0]:
        yield invalid_value("spec.clusterIPs[0]", new, "may not change once set")


def _ports(spec: Object, kind: str | None) -> Found:
    ports = spec.get("ports") or ()
    if not ports and spec.get("clusterIP") != "None" and kind != "ExternalName":
        yield required("spec.ports")
    seen: set[str] = set()
    numbers: set[tuple[object, object]] = set()
    nodes: set[tuple[object, object]] = set()
    for index, given in enumerate(ports):
        path = f"spec.ports[{index}]"
        yield from _port_name(given, path, seen, needed=len(ports) > 1)
        yield from checks.port(given.get("port"), f"{path}.port")
        protocol = given.get("protocol")
        yield from checks.one_of(protocol, _PROTOCOLS, f"{path}.protocol")
        yield from checks.port_or_name(given.get("targetPort"), f"{path}.targetPort")
        if app := given.get("appProtocol"):
            yield from formed(names.qualified_name, app, f"{path}.appProtocol")
        if (protocol, given.get("port")) in numbers:
            shown = {"protocol": protocol, "port": given.get("port")}
            yield duplicate(path, shown)
        numbers.add((protocol, given.get("port")))
        if node := given.get("nodePort"):
            if kind not in _NODE_PORTS:
                text = "may not be used when `type` is 'ClusterIP'"
                yield forbidden_field(f"{path}.nodePort", text)
            if (protocol, node) in nodes:
                yield duplicate(f"{path}.nodePort", node)
            nodes.add((protocol, node))


def _port_name(given: Object, path: str, seen: set[str], *, needed: bool) -> Found:
    name = given.get("name") or ""
    if needed and not name:
        yield required(f"{path}.name")
    elif name:
        yield from formed(names.dns1123_label, name, f"{path}.name")
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)


def _affinity(spec: Object) -> Found:
    affinity = spec.get("sessionAffinity")
    yield from checks.one_of(affinity, ("ClientIP", "None"), "spec.sessionAffinity")
    config, path = spec.get("sessionAffinityConfig"), "spec.sessionAffinityConfig"
    if affinity == "ClientIP":
        client = (config or {}).get("clientIP") or {}
        seconds = client.get("timeoutSeconds")
        where = f"{path}.clientIP.timeoutSeconds"
        if seconds is None:
            text = "when session affinity type is ClientIP"
            yield required(path, text)
        elif not 0 < seconds <= _DAY:
            yield invalid_value(where, seconds, f"must be greater than 0 and less than {_DAY}")
    elif config is not None and affinity == "None":
        text = "must not be set when session affinity is None"
        yield forbidden_field(path, text)


def _of_type(spec: Object, kind: str | None) -> Found:
    if kind != "ExternalName":
        return
    if spec.get("clusterIP"):
        text = "may not be set when `type` is 'ExternalName'"
        yield forbidden_field("spec.clusterIP", text)
    name = (spec.get("externalName") or "").removesuffix(".")
    if name:
        yield from formed(names.dns1123_subdomain, name, "spec.externalName")
    else:
        yield required("spec.externalName")


def _addresses(spec: Object) -> Found:
    address, listed = spec.get("clusterIP") or "", spec.get("clusterIPs") or []
    if address and not listed:
        yield required("spec.clusterIPs", "must be set when clusterIP is set")
    if listed and listed[0] != address:
        text = "first value must match `clusterIP`"
        yield invalid_value("spec.clusterIPs", listed, text)
    if "None" in listed and len(listed) > 1:
        text = "'None' must be the first and only value"
        yield invalid_value("spec.clusterIPs[0]", "None", text)
    for index, given in enumerate(listed):
        if given != "None":
            yield from checks.ip_address(given, f"spec.clusterIPs[{index}]")
    if len(listed) > 2:
        text = "may only hold up to 2 values"
        yield invalid_value("spec.clusterIPs", listed, text)


def _families(spec: Object) -> Found:
    known = ("IPv4", "IPv6")
    families = list(spec.get("ipFamilies") or ())
    for index, family in enumerate(families):
        yield from checks.one_of(family, known, f"spec.ipFamilies[{index}]")
    if len(set(families)) < len(families):
        yield duplicate("spec.ipFamilies[1]", families[1])
    known_policies = ("PreferDualStack", "RequireDualStack", "SingleStack")
    policy = spec.get("ipFamilyPolicy")
    yield from checks.optional_one_of(policy, known_policies, "spec.ipFamilyPolicy")


def _traffic(spec: Object, kind: str | None) -> Found:
    external = spec.get("externalTrafficPolicy")
    outside = kind in _NODE_PORTS or bool(spec.get("externalIPs"))
    if external:
        if not outside:
            text = "may only be set for externally-accessible services"
            yield invalid_value("spec.externalTrafficPolicy", external, text)
        yield from checks.one_of(external, _POLICIES, "spec.externalTrafficPolicy")
    internal = spec.get("internalTrafficPolicy")
    yield from checks.optional_one_of(internal, _POLICIES, "spec.internalTrafficPolicy")
    distribution = spec.get("trafficDistribution")
    known = ("PreferClose", "PreferSameNode", "PreferSameZone")
    yield from checks.optional_one_of(distribution, known, "spec.trafficDistribution")
    if (health := spec.get("healthCheckNodePort")) and not (
        kind == "LoadBalancer" and external == "Local"
    ):
        text = (
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        )
        yield invalid_value("spec.healthCheckNodePort", health, text)


def endpoints(obj: Object) -> Found:
    for index, subset in enumerate(obj.get("subsets") or ()):
        path = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            yield required(path, "must specify `addresses` or `notReadyAddresses`")
        for field in ("addresses", "notReadyAddresses"):
            for spot, address in enumerate(subset.get(field) or ()):
                where = f"{path}.{field}[{spot}]"
                yield from checks.endpoint_address(address.get("ip") or "", f"{where}.ip")
                if host := address.get("hostname"):
                    yield from formed(names.dns1123_label, host, f"{where}.hostname")
        ports = subset.get("ports") or ()
        for spot, port in enumerate(ports):
            where = f"{path}.ports[{spot}]"
            if len(ports) > 1 and not port.get("name"):
                yield required(f"{where}.name")
            elif port.get("name"):
                yield from formed(names.dns1123_label, port["name"], f"{where}.name")
            yield from checks.port(port.get("port") or 0, f"{where}.port")
            yield from checks.one_of(port.get("protocol"), _PROTOCOLS, f"{where}.protocol")


_ADDRESS_TYPES = ("FQDN", "IPv4", "IPv6")
_MOST_ENDPOINTS, _MOST_ADDRESSES, _MOST_PORTS = 1000, 100, 20000


def endpoint_slice(obj: Object) -> Found:
    kind = obj.get("addressType") or ""
    if kind:
        if kind not in _ADDRESS_TYPES:
            yield not_supported("addressType", kind, _ADDRESS_TYPES)
    else:
        yield required("addressType")
    yield from _slice_endpoints(obj.get("endpoints") or (), kind)
    yield from _slice_ports(obj.get("ports") or ())


def endpoint_slice_updated(new: Object, old: Object) -> Found:
    yield from endpoint_slice(new)
    if new.get("addressType") != old.get("addressType"):
        yield invalid_value("addressType", new.get("addressType") or "", IMMUTABLE)


def _slice_endpoints(given: Iterable[Object], kind: str) -> Found:
    listed = list(given)
    if len(listed) > _MOST_ENDPOINTS:
        yield checks.too_many("endpoints", len(listed), _MOST_ENDPOINTS)
        return
    for index, endpoint in enumerate(listed):
        path = f"endpoints[{index}]"
        addresses = endpoint.get("addresses") or ()
        if not addresses:
            yield required(f"{path}.addresses", "must contain at least 1 address")
        if len(addresses) > _MOST_ADDRESSES:
            yield checks.too_many(f"{path}.addresses", len(addresses), _MOST_ADDRESSES)
        for spot, address in enumerate(addresses):
            where = f"{path}.addresses[{spot}]"
            if kind == "FQDN":
                yield from formed(names.dns1123_subdomain, address, where)
            else:
                yield from checks.endpoint_address(address, where)
        if host := endpoint.get("hostname"):
            yield from formed(names.dns1123_label, host, f"{path}.hostname")
        if node := endpoint.get("nodeName"):
            yield from formed(names.dns1123_subdomain, node, f"{path}.nodeName")


def _slice_ports(given: Iterable[Object]) -> Found:
    listed = list(given)
    if len(listed) > _MOST_PORTS:
        yield checks.too_many("ports", len(listed), _MOST_PORTS)
        return
    seen: set[str] = set()
    for index, port in enumerate(listed):
        path = f"ports[{index}]"
        name = port.get("name") or ""
        if name:
            yield from formed(names.dns1123_label, name, f"{path}.name")
        if name in seen:
            yield duplicate(f"{path}.name", name)
        seen.add(name)
        yield from checks.one_of(port.get("protocol"), _PROTOCOLS, f"{path}.protocol")
