"""
Where a relayed connection goes: the kubelet of a pod's node, a pod, a Service's pod.

Pure lookups in the cache; a Service is resolved to one of its ready endpoints
here, so that the service proxy of this machine is not needed.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from controlplane.api.call import Parts
from controlplane.client.base import Object
from controlplane.objects.errors import StatusError, bad_request, unavailable
from controlplane.objects.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES

_KUBELET_PORT = 10250
_PORT = re.compile(r"[0-9]{1,5}")
_ADDRESSES = ("InternalIP", "ExternalIP", "Hostname")


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    scheme: str  # http or https
    kubelet: bool = False  # spoken to with our client certificate

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


def kubelet_of(parts: Parts, node_name: str) -> Target:
    """503 where the node is unknown or has no address yet."""
    node = parts.cache.get(NODES, "", node_name)
    if node is None:
        raise unavailable(f'nodes "{node_name}" not found')
    status = node.get("status") or {}
    addresses = {a["type"]: a["address"] for a in reversed(status.get("addresses") or ())}
    host = next((addresses[type_] for type_ in _ADDRESSES if type_ in addresses), "")
    if not host:
        raise unavailable(f"no preferred addresses found; known addresses: {list(addresses)}")
    endpoint = (status.get("daemonEndpoints") or {}).get("kubeletEndpoint") or {}
    scheme = "https" if parts.kubelet_tls is not None else "http"
    return Target(host, endpoint.get("Port") or _KUBELET_PORT, scheme, kubelet=True)


def container_of(pod: Object, wanted: str) -> str:
    """The container that is meant; 400 where that is not clear or not there."""
    name, spec = pod["metadata"]["name"], pod.get("spec") or {}
    fields = ("containers", "initContainers", "ephemeralContainers")
    groups = [[c["name"] for c in spec.get(field) or ()] for field in fields]
    if wanted:
        if not any(wanted in names for names in groups):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    containers = groups[0]
    if len(containers) == 1:
        return str(containers[0])
    text = f"a container name must be specified for pod {name}, choose one of: {_go(containers)}"
    if groups[1]:
        text += f" or one of the init containers: {_go(groups[1])}"
    raise bad_request(text)


def _go(names: Sequence[str]) -> str:
    return f"[{' '.join(names)}]"


def split_name(name: str) -> tuple[str, str, str]:
    """``https:web:8443`` → scheme, name, port; each but the name may be empty."""
    match name.split(":"):
        case [alone]:
            return "", alone, ""
        case [alone, port]:
            return "", alone, port
        case [scheme, alone, port] if scheme in ("http", "https", ""):
            return scheme, alone, port
        case _:
            raise bad_request(f"invalid service request {name!r}")


def pod_target(parts: Parts, namespace: str, name: str) -> Target:
    scheme, name, port = split_name(name)
    pod = parts.cache.get(PODS, namespace, name)
    if pod is None:
        raise StatusError(
            404, "NotFound", f'pods "{name}" not found', details={"name": name, "kind": "pods"}
        )
    address = (pod.get("status") or {}).get("podIP")
    if not address or not _is_proxyable(parts, address):
        raise bad_request("address not allowed")
    number = int(port) if _PORT.fullmatch(port) else _pod_port(pod, port)
    return Target(address, number, scheme or "http")


def _is_proxyable(parts: Parts, address: str) -> bool:
    """Not this machine itself nor its neighbours' link-local services, as upstream."""
    try:
        ip = ip_address(address)
    except ValueError:
        return False
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if ip.is_loopback:
        return parts.network.loopback
    return not (ip.is_link_local or ip.is_unspecified or ip.is_multicast)


def _pod_port(pod: Object, name: str) -> int:
    """A named port, or without a name the first that a container has; else 80."""
    ports = [p for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
    if name:
        for port in ports:
            if port.get("name") == name:
                return int(port["containerPort"])
        raise bad_request(f'no port named "{name}" found in pod')
    return int(ports[0]["containerPort"]) if ports else 80


def service_target(parts: Parts, namespace: str, name: str) -> Target:
    scheme, name, wanted = split_name(name)
    service = parts.cache.get(SERVICES, namespace, name)
    if service is None:
        text = f'services "{name}" not found'
        raise StatusError(404, "NotFound", text, details={"name": name, "kind": "services"})
    port = _service_port(service, wanted)
    if port is None:
        raise unavailable(f"no service port {wanted!r} found for service {name!r}")
    found: list[Target] = []
    for slice_ in parts.cache.list(ENDPOINT_SLICES, namespace):
        labels = slice_["metadata"].get("labels") or {}
        if labels.get("kubernetes.io/service-name") == name:
            targets = _slice_targets(slice_, port.get("name") or "", scheme or "http")
            found += [target for target in targets if _is_proxyable(parts, target.host)]
    if not found:
        raise unavailable(f'no endpoints available for service "{name}"')
    return random.choice(found)  # noqa: S311 - a spread, not a secret


def _service_port(service: Object, wanted: str) -> Mapping[str, Any] | None:
    ports: list[Mapping[str, Any]] = (service.get("spec") or {}).get("ports") or []
    if not wanted:
        return ports[0] if ports else None
    for port in ports:
        if port.get("name") == wanted or str(port.get("port")) == wanted:
            return port
    return None


def _slice_targets(slice_: Object, name: str, scheme: str) -> list[Target]:
    ports = [p["port"] for p in slice_.get("ports") or () if (p.get("name") or "") == name]
    if not ports:
        return []
    return [
        Target(address, ports[0], scheme)
        for endpoint in slice_.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True) is not False
        for address in endpoint["addresses"][:1]
    ]
