"""
The environment of a container: values, references, service variables and their expansion.

Pure: config maps and secrets come as already fetched values. Source: the API's
EnvVar and EnvFromSource, and the documentation on dependent variables.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import quantity
from node.kubelet.base import ConfigError, Settings, all_containers

_REFERENCE = re.compile(r"\$(?:\$|\(([^)]*)\))")
_FIELD_KEY = re.compile(r"metadata\.(labels|annotations)\['(.+)'\]")
Data = Mapping[
    tuple[str, str], Mapping[str, bytes] | None
]  # ("configmap", name) → data; None: absent


def expand(text: str, values: Mapping[str, str]) -> str:
    """``$(NAME)`` where NAME is known; ``$$(NAME)`` is a literal ``$(NAME)``."""

    def replace(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return values.get(found[1], found[0])

    return _REFERENCE.sub(replace, text)


def field(pod: Object, path: str, settings: Settings, ips: Iterable[str] = ()) -> str:
    """The Downward API's field paths."""
    meta, spec = pod["metadata"], pod["spec"]
    addresses = list(ips)
    if found := _FIELD_KEY.fullmatch(path):
        return str(meta.get(found[1], {}).get(found[2], ""))
    match path:
        case "metadata.name" | "metadata.namespace" | "metadata.uid":
            return str(meta[path.removeprefix("metadata.")])
        case "metadata.labels" | "metadata.annotations":
            return format_map(meta.get(path.removeprefix("metadata."), {}))
        case "spec.nodeName":
            return str(spec.get("nodeName", ""))
        case "spec.serviceAccountName":
            return str(spec.get("serviceAccountName", ""))
        case "status.hostIP":
            return settings.node_ips[0]
        case "status.hostIPs":
            return ",".join(settings.node_ips)
        case "status.podIP":
            return addresses[0] if addresses else ""
        case "status.podIPs":
            return ",".join(addresses)
        case _:
            raise ConfigError(f"unsupported fieldPath: {path}")


def format_map(values: Mapping[str, str]) -> str:
    """``key="value"`` lines, sorted; quoted as Go's %q does for what occurs here."""
    return "\n".join(f"{key}={_quote(values[key])}" for key in sorted(values))


def _quote(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    escaped = escaped.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return f'"{escaped}"'


def resource_field(
    pod: Object, container: Mapping[str, Any], ref: Mapping[str, Any], settings: Settings
) -> str:
    """``limits.cpu`` and the rest, divided and rounded up; a limit not set is the node's share."""
    if named := ref.get("containerName"):
        container = next((c for c in all_containers(pod) if c["name"] == named), container)
    kind, _, resource = ref["resource"].partition(".")
    resources = container.get("resources") or {}
    text = resources.get(kind, {}).get(resource)
    if text is None and kind == "requests":
        text = resources.get("limits", {}).get(resource)
    if text is None and kind == "limits":
        text = settings.allocatable.get(resource)
    divisor = quantity.nanos(ref.get("divisor") or "1") or quantity.nanos("1")
    return str(-(-quantity.nanos(text or "0") // divisor))


def service_variables(
    services: Iterable[Object], namespace: str, everything: bool
) -> dict[str, str]:
    """
    Docker-link style variables of the services of a namespace.

    The API server's own (``default/kubernetes``) is there even without service links.
    """
    out: dict[str, str] = {}
    for service in services:
        meta, spec = service["metadata"], service["spec"]
        address = spec.get("clusterIP", "")
        is_api = meta["namespace"] == "default" and meta["name"] == "kubernetes"
        wanted = is_api or (everything and meta["namespace"] == namespace)
        if not wanted or address in ("", "None") or not spec.get("ports"):
            continue
        out.update(_of_service(meta["name"], address, spec["ports"]))
    return out


def _of_service(name: str, address: str, ports: list[Mapping[str, Any]]) -> dict[str, str]:
    prefix = name.upper().replace("-", "_")
    host = f"[{address}]" if ":" in address else address
    first = ports[0]
    out = {f"{prefix}_SERVICE_HOST": address, f"{prefix}_SERVICE_PORT": str(first["port"])}
    for port in ports:
        if port.get("name"):
            suffix = port["name"].upper().replace("-", "_")
            out[f"{prefix}_SERVICE_PORT_{suffix}"] = str(port["port"])
    protocol = first.get("protocol", "TCP").lower()
    out[f"{prefix}_PORT"] = f"{protocol}://{host}:{first['port']}"
    for port in ports:
        protocol = port.get("protocol", "TCP")
        start = f"{prefix}_PORT_{port['port']}_{protocol}"
        out[start] = f"{protocol.lower()}://{host}:{port['port']}"
        out[f"{start}_PROTO"] = protocol.lower()
        out[f"{start}_PORT"] = str(port["port"])
        out[f"{start}_ADDR"] = address
    return out


def references(container: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The config maps and secrets that the environment needs: ("secret", name)."""
    found = set()
    for source in container.get("envFrom", ()):
        for kind, ref in (("configmap", "configMapRef"), ("secret", "secretRef")):
            if ref in source:
                found.add((kind, source[ref].get("name", "")))
    for variable in container.get("env", ()):
        source = variable.get("valueFrom") or {}
        for kind, ref in (("configmap", "configMapKeyRef"), ("secret", "secretKeyRef")):
            if ref in source:
                found.add((kind, source[ref].get("name", "")))
    return found


_KINDS = {
    "configMapRef": "configmap",
    "secretRef": "secret",
    "configMapKeyRef": "configmap",
    "secretKeyRef": "secret",
}


def _from_sources(container: Mapping[str, Any], data: Data) -> dict[str, str]:
    out: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        prefix = source.get("prefix", "")
        for ref in source.keys() & _KINDS.keys():
            kind, name = _KINDS[ref], source[ref].get("name", "")
            values = data.get((kind, name))
            if values is None:
                if source[ref].get("optional"):
                    continue
                raise ConfigError(f'{kind} "{name}" not found')
            # Any name that the API let through: programs read what shells cannot (KEP-4369).
            for key, value in values.items():
                out[prefix + key] = value.decode(errors="replace")
    return out


def _from_key(ref: Mapping[str, Any], kind: str, data: Data, where: str) -> str | None:
    name, key = ref.get("name", ""), ref["key"]
    values = data.get((kind, name))
    if values is None:
        if ref.get("optional"):
            return None
        raise ConfigError(f'{kind} "{name}" not found')
    if key not in values:
        if ref.get("optional"):
            return None
        shown = "ConfigMap" if kind == "configmap" else "Secret"
        raise ConfigError(f"couldn't find key {key} in {shown} {where}/{name}")
    return values[key].decode(errors="replace")


def build(
    pod: Object,
    container: Mapping[str, Any],
    *,
    services: Mapping[str, str],
    data: Data,
    ips: Iterable[str],
    settings: Settings,
) -> dict[str, str]:
    """In the order: services, envFrom, env; raise :class:`ConfigError` for what is missing."""
    out = _from_sources(container, data)
    addresses = tuple(ips)
    namespace = pod["metadata"]["namespace"]
    known = {**services, **out}
    for variable in container.get("env", ()):
        name, source = variable["name"], variable.get("valueFrom")
        if not source:
            value: str | None = expand(variable.get("value", ""), known)
        elif "fieldRef" in source:
            value = field(pod, source["fieldRef"]["fieldPath"], settings, addresses)
        elif "resourceFieldRef" in source:
            value = resource_field(pod, container, source["resourceFieldRef"], settings)
        elif "configMapKeyRef" in source:
            value = _from_key(source["configMapKeyRef"], "configmap", data, namespace)
        elif "secretKeyRef" in source:
            value = _from_key(source["secretKeyRef"], "secret", data, namespace)
        else:
            raise ConfigError(f"env {name}: unsupported source: {', '.join(source)}")
        if value is not None:
            known[name] = out[name] = value
    return {**{k: v for k, v in services.items() if k not in out}, **out}
