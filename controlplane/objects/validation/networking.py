"""Ingresses, ingress classes and network policies."""

import ipaddress
from collections.abc import Iterable

from controlplane.objects.errors import forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object, formed

_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_PROTOCOLS = ("TCP", "UDP", "SCTP")


def ingress(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    if not spec.get("rules") and spec.get("defaultBackend") is None:
        text = "either `defaultBackend` or `rules` must be specified"
        yield invalid_value("spec", dict(spec), text)
    if (backend := spec.get("defaultBackend")) is not None:
        yield from _backend(backend, "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        yield from _rule(rule, f"spec.rules[{index}]")
    for index, tls in enumerate(spec.get("tls") or ()):
        for spot, host in enumerate(tls.get("hosts") or ()):
            form = names.wildcard_subdomain if "*" in host else names.dns1123_subdomain
            yield from formed(form, host, f"spec.tls[{index}].hosts[{spot}]")
    if name := spec.get("ingressClassName"):
        yield from formed(names.dns1123_subdomain, name, "spec.ingressClassName")
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    if "kubernetes.io/ingress.class" in annotations and spec.get("ingressClassName"):
        yield invalid_value(
            "metadata.annotations.kubernetes.io/ingress.class",
            annotations["kubernetes.io/ingress.class"],
            "can not be set when the class field is also set",
        )


def _rule(rule: Object, path: str) -> Found:
    if host := rule.get("host"):
        if "*" in host:
            yield from formed(names.wildcard_subdomain, host, f"{path}.host")
        else:
            yield from formed(names.dns1123_subdomain, host, f"{path}.host")
            if _is_address(host):
                yield invalid_value(f"{path}.host", host, "must be a DNS name, not an IP address")
    if (http := rule.get("http")) is None:
        return
    if not http.get("paths"):
        yield required(f"{path}.http.paths")
    for index, given in enumerate(http.get("paths") or ()):
        where = f"{path}.http.paths[{index}]"
        yield from _path(given, where)
        yield from _backend(given.get("backend") or {}, f"{where}.backend")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _path(given: Object, path: str) -> Found:
    kind, value = given.get("pathType"), given.get("path") or ""
    if kind is None:
        yield required(f"{path}.pathType", "pathType must be specified")
        return
    yield from checks.one_of(kind, _PATH_TYPES, f"{path}.pathType")
    if kind in ("Exact", "Prefix"):
        if not value.startswith("/"):
            yield invalid_value(f"{path}.path", value, "must be an absolute path")
        for sign in ("//", "/./", "/../", "%2f", "%2F"):
            if sign in value:
                yield invalid_value(f"{path}.path", value, f"must not contain '{sign}'")
        for end in ("/..", "/."):
            if value.endswith(end):
                yield invalid_value(f"{path}.path", value, f"cannot end with '{end}'")
    elif value and not value.startswith("/"):
        yield invalid_value(f"{path}.path", value, "must be an absolute path")


def _backend(backend: Object, path: str) -> Found:
    service, resource = backend.get("service"), backend.get("resource")
    if service is not None and resource is not None:
        text = "cannot set both resource and service backends"
        yield invalid_value(path, "", text)
    elif resource is not None:
        yield from checks.present(resource.get("kind"), f"{path}.resource.kind")
        yield from checks.present(resource.get("name"), f"{path}.resource.name")
    elif service is None:
        yield required(path, "must specify a service or a resource backend")
    else:
        where = f"{path}.service"
        yield from checks.required_form(names.dns1035_label, service.get("name"), f"{where}.name")
        port = service.get("port") or {}
        name, number = port.get("name"), port.get("number")
        if name and number:
            text = "cannot set both port name & port number"
            yield invalid_value(path, "", text)
        elif name:
            yield from formed(names.port_name, name, f"{where}.port.name")
        elif number:
            yield from checks.port(number, f"{where}.port.number")
        else:
            yield required(path, "port name or number is required")


def ingress_class(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    controller = spec.get("controller") or ""
    if len(controller) > 250:
        yield checks.too_long("spec.controller", 250)
    host, slash, rest = controller.partition("/")
    if not controller:
        yield required("spec.controller")
    elif not slash or not host or not rest:
        text = 'must be a domain-prefixed path (such as "acme.io/foo")'
        yield invalid_value("spec.controller", controller, text)
    else:
        yield from formed(names.dns1123_subdomain, host, "spec.controller")
    if (given := spec.get("parameters")) is not None:
        yield from checks.present(given.get("kind"), "spec.parameters.kind")
        yield from checks.present(given.get("name"), "spec.parameters.name")


def ingress_class_updated(new: Object, old: Object) -> Found:
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if after.get("controller") != before.get("controller"):
        yield invalid_value("spec.controller", after.get("controller") or "", IMMUTABLE)
    yield from ingress_class(new)


def network_policy(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    yield from metadata.selector(spec.get("podSelector"), "spec.podSelector")
    for field, side in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(field) or ()):
            path = f"spec.{field}[{index}]"
            for spot, port in enumerate(rule.get("ports") or ()):
                yield from _policy_port(port, f"{path}.ports[{spot}]")
            for spot, peer in enumerate(rule.get(side) or ()):
                yield from _peer(peer, f"{path}.{side}[{spot}]")
    types = spec.get("policyTypes") or ()
    if len(types) > 2:
        text = "may not specify more than two policyTypes"
        yield invalid_value("spec.policyTypes", list(types), text)
    for index, kind in enumerate(types):
        yield from checks.one_of(kind, ("Egress", "Ingress"), f"spec.policyTypes[{index}]")


def _policy_port(given: Object, path: str) -> Found:
    yield from checks.one_of(given.get("protocol"), _PROTOCOLS, f"{path}.protocol")
    port, end = given.get("port"), given.get("endPort")
    if port is not None:
        yield from checks.port_or_name(port, f"{path}.port")
    if end is None:
        return
    if port is None:
        text = "may not be specified when `port` is not specified"
        yield invalid_value(f"{path}.endPort", end, text)
    elif isinstance(port, str):
        text = "may not be specified when `port` is non-numeric"
        yield invalid_value(f"{path}.endPort", end, text)
    elif end < port:
        text = "must be greater than or equal to `port`"
        yield invalid_value(f"{path}.endPort", end, text)
    else:
        yield from checks.port(end, f"{path}.endPort")


def _peer(peer: Object, path: str) -> Found:
    block = peer.get("ipBlock")
    chosen = [n for n in ("podSelector", "namespaceSelector") if peer.get(n) is not None]
    for name in chosen:
        yield from metadata.selector(peer[name], f"{path}.{name}")
    if block is not None:
        if chosen:
            text = "may not specify both ipBlock and another peer"
            yield forbidden_field(path, text)
        yield from _block(block, f"{path}.ipBlock")
    elif not chosen:
        yield required(path, "must specify a peer")


def _block(block: Object, path: str) -> Found:
    whole = block.get("cidr") or ""
    if not whole:
        yield required(f"{path}.cidr")
        return
    broken = list(checks.cidr(whole, f"{path}.cidr"))
    yield from broken
    if not broken:
        yield from _exceptions(block.get("except") or (), whole, path)


def _exceptions(parts: Iterable[str], whole: str, path: str) -> Found:
    outer = ipaddress.ip_network(whole, strict=False)
    for index, part in enumerate(parts):
        where = f"{path}.except[{index}]"
        broken = list(checks.cidr(part, where))
        yield from broken
        if broken:
            continue
        inner = ipaddress.ip_network(part, strict=False)
        same_version = inner.version == outer.version
        if not same_version or inner == outer or not inner.subnet_of(outer):  # type: ignore[arg-type]
            yield invalid_value(where, part, "must be a strict subset of `cidr`")
