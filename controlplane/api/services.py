"""
What a Service gets from the server: addresses, node ports and families.

A value that the client left out at an update stays what it was, since clients
of old manifests do not know it; one that a changed type no longer needs goes.
Pinnace's service network is IPv4 only; what asks for more is refused in
upstream's words.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.api.allocate import Allocator, Hold, Taken
from controlplane.objects.errors import FieldError, invalid, invalid_value

_HEADLESS = "None"
_WITH_PORTS = ("NodePort", "LoadBalancer")


def assign(
    allocator: Allocator, service: dict[str, Any], old: Mapping[str, Any] | None, hold: Hold
) -> None:
    """Fill in the spec in place; 422 where a wanted number cannot be had."""
    spec = service.setdefault("spec", {})
    before: Mapping[str, Any] = (old or {}).get("spec") or {}
    if old is not None:
        _keep(spec, before)
        _drop(spec, before)
    errors = _families(spec)
    if not errors:
        errors = _cluster_ip(allocator, spec, before, hold)
    if not errors:
        errors = _ports(allocator, spec, before, hold)
    if errors:
        raise invalid("Service", service["metadata"].get("name", ""), errors)


def _keep(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """What the client left out and still applies."""
    external = spec.get("type") == "ExternalName"
    if not external and before.get("type") != "ExternalName":
        ips = spec.get("clusterIPs")
        if not spec.get("clusterIP") and not ips:
            _copy(spec, before, "clusterIP", "clusterIPs")
        elif spec.get("clusterIP") and not ips:
            spec["clusterIPs"] = [spec["clusterIP"]]
        elif ips and not spec.get("clusterIP"):
            spec["clusterIP"] = ips[0]
        for field in ("ipFamilies", "ipFamilyPolicy"):
            if not spec.get(field):
                _copy(spec, before, field)
    if spec.get("type") in _WITH_PORTS and before.get("type") in _WITH_PORTS:
        _keep_node_ports(spec, before)
    if _wants_check(spec) and _wants_check(before) and not spec.get("healthCheckNodePort"):
        _copy(spec, before, "healthCheckNodePort")


def _keep_node_ports(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    had = {
        (port.get("protocol", "TCP"), port.get("port")): port.get("nodePort")
        for port in before.get("ports") or ()
    }
    named = {port.get("nodePort") for port in spec.get("ports") or ()}
    for port in spec.get("ports") or ():
        kept = had.get((port.get("protocol", "TCP"), port.get("port")))
        if not port.get("nodePort") and kept and kept not in named:
            port["nodePort"] = kept


def _drop(spec: dict[str, Any], before: Mapping[str, Any]) -> None:
    """What the new type does not have and the client did not change."""
    type_, was = spec.get("type"), before.get("type")
    gone: list[str] = []
    if type_ == "ExternalName" and was != type_:
        gone += ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]
    if not _wants_check(spec):
        gone.append("healthCheckNodePort")
    if was == "LoadBalancer" and type_ != was:
        gone += ["allocateLoadBalancerNodePorts", "loadBalancerClass"]
    if type_ not in _WITH_PORTS and was in _WITH_PORTS:
        gone.append("externalTrafficPolicy")
        had = {port.get("nodePort") for port in before.get("ports") or ()}
        for port in spec.get("ports") or ():
            if port.get("nodePort") in had:
                port.pop("nodePort", None)
    for field in gone:
        if spec.get(field) == before.get(field):
            spec.pop(field, None)


def _copy(spec: dict[str, Any], before: Mapping[str, Any], *fields: str) -> None:
    for field in fields:
        if before.get(field):
            spec[field] = before[field]


def _wants_check(spec: Mapping[str, Any]) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _families(spec: dict[str, Any]) -> list[FieldError]:
    if spec.get("type") == "ExternalName":
        return []
    ips = spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else [])
    families = spec.get("ipFamilies") or []
    if ips == [_HEADLESS] and not spec.get("selector"):
        # Their endpoints are made by hand, of whatever family.
        spec.setdefault("ipFamilyPolicy", "RequireDualStack" if not families else "SingleStack")
        if not families:
            spec["ipFamilies"] = ["IPv4", "IPv6"]
        return []
    if spec.get("ipFamilyPolicy") == "RequireDualStack":
        why = "this cluster is not configured for dual-stack services"
        return [invalid_value("spec.ipFamilyPolicy", "RequireDualStack", why)]
    for at, family in enumerate(families):
        if family == "IPv6":
            field = f"spec.ipFamilies[{at}]"
            return [invalid_value(field, family, "not configured on this cluster")]
    if not spec.get("ipFamilyPolicy"):
        spec["ipFamilyPolicy"] = "SingleStack"
    spec["ipFamilies"] = ["IPv4"]
    return []


def _cluster_ip(
    allocator: Allocator, spec: dict[str, Any], before: Mapping[str, Any], hold: Hold
) -> list[FieldError]:
    if spec.get("type") == "ExternalName":
        return []
    wanted = spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0]
    if wanted == _HEADLESS or (wanted and wanted == before.get("clusterIP")):
        address = wanted
    else:
        try:
            address = allocator.take_address(wanted, hold)
        except Taken as taken:
            shown = f'["{wanted}"]' if wanted else "[]"
            which = (
                f"failed to allocate IP {wanted}" if wanted else "failed to allocate a serviceIP"
            )
            message = f"Invalid value: {shown}: {which}: {taken}"
            return [FieldError("FieldValueInvalid", "spec.clusterIPs", message)]
    spec["clusterIP"] = address
    spec["clusterIPs"] = [address]
    return []


def _ports(
    allocator: Allocator, spec: dict[str, Any], before: Mapping[str, Any], hold: Hold
) -> list[FieldError]:
    if spec.get("type") not in _WITH_PORTS:
        return []
    had = {port.get("nodePort") for port in before.get("ports") or ()}
    mine: dict[int, set[str]] = {}  # node port → protocols, of this service
    ports = spec.get("ports") or []
    errors: list[FieldError] = []
    automatic = spec["type"] == "NodePort" or spec.get("allocateLoadBalancerNodePorts", True)
    for at, port in enumerate(ports):  # those asked for come first
        number, protocol = port.get("nodePort"), port.get("protocol", "TCP")
        if not number:
            continue
        shared = number in mine and protocol not in mine[number]
        if number not in had and not shared:
            errors += _take(allocator, port, f"spec.ports[{at}].nodePort", hold)
        mine.setdefault(number, set()).add(protocol)
    for at, port in enumerate(ports):
        if port.get("nodePort") or not automatic or errors:
            continue
        number = _same_port(ports, port, mine)
        if number:
            port["nodePort"] = number
        else:
            errors += _take(allocator, port, f"spec.ports[{at}].nodePort", hold)
        mine.setdefault(port.get("nodePort", 0), set()).add(port.get("protocol", "TCP"))
    return errors or _health_check(allocator, spec, before, hold)


def _same_port(
    ports: list[dict[str, Any]], port: Mapping[str, Any], mine: Mapping[int, set[str]]
) -> int:
    """The node port of the same port in another protocol, so that both are reached alike."""
    for other in ports:
        number: int = other.get("nodePort") or 0
        same = number and other.get("port") == port.get("port")
        if same and port.get("protocol", "TCP") not in mine.get(number, ()):
            return number
    return 0


def _take(allocator: Allocator, port: dict[str, Any], field: str, hold: Hold) -> list[FieldError]:
    wanted = port.get("nodePort") or 0
    try:
        port["nodePort"] = allocator.take_port(wanted, hold)
    except Taken as taken:
        return [invalid_value(field, wanted, str(taken))]
    return []


def _health_check(
    allocator: Allocator, spec: dict[str, Any], before: Mapping[str, Any], hold: Hold
) -> list[FieldError]:
    wanted = spec.get("healthCheckNodePort") or 0
    if not _wants_check(spec) or (wanted and wanted == before.get("healthCheckNodePort")):
        return []
    try:
        spec["healthCheckNodePort"] = allocator.take_port(wanted, hold)
    except Taken as taken:
        return [invalid_value("spec.healthCheckNodePort", wanted, str(taken))]
    return []
