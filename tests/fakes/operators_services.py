"""Services, nodes and pods as the API has them, and their facts."""

from typing import Any

from operators.servicelb.facts import ENABLE_LABEL, POOL_LABEL, Node, Service, node_of, service_of

Object = dict[str, Any]
MANAGER = "pinnace-servicelb"
_KNOWN = {"enable": ENABLE_LABEL, "pool": POOL_LABEL}


def node_body(
    name: str,
    *addresses: str,
    ready: bool = True,
    taints: tuple[str, ...] = (),
    kubelet: int = 0,
    **labels: str,
) -> Object:
    """``ext:`` in front of an address makes it an external one. A taint is ``key:Effect``."""
    given = [
        {
            "type": "ExternalIP" if text.startswith("ext:") else "InternalIP",
            "address": text.removeprefix("ext:"),
        }
        for text in addresses
    ]
    parts = [taint.partition(":") for taint in taints]
    return {
        "metadata": {"name": name, "labels": {_KNOWN[key]: v for key, v in labels.items()}},
        "spec": {"taints": [{"key": key, "effect": effect} for key, _, effect in parts]},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready)}],
            "addresses": given,
            "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet}},
        },
    }


def node(name: str, *addresses: str, **more: Any) -> Node:
    return node_of(node_body(name, *addresses, **more))


def service_body(
    name: str = "web",
    *ports: int | str,
    created: str = "1",
    pool: str = "",
    annotations: dict[str, str] | None = None,
    published: tuple[str, ...] = (),
    **spec: Any,
) -> Object:
    """A port is 80, or ``UDP/53``; its node port is 30000 more."""
    parts = [str(port).rpartition("/") for port in ports or (80,)]
    listed = [
        {"port": int(number), "protocol": protocol or "TCP", "nodePort": 30000 + int(number)}
        for protocol, _, number in parts
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"{name}-0123456789",
            "resourceVersion": "1",
            "creationTimestamp": created,
            "labels": {POOL_LABEL: pool} if pool else {},
            "annotations": annotations or {},
        },
        "spec": {
            "type": "LoadBalancer",
            "ports": listed,
            "clusterIPs": ["10.43.0.80"],
            **spec,
        },
        "status": {"loadBalancer": {"ingress": [{"ip": ip, "ipMode": "VIP"} for ip in published]}},
    }


def service(name: str = "web", *ports: int | str, **more: Any) -> Service:
    return service_of(service_body(name, *ports, **more), MANAGER)


def pod_body(name: str, host: str, *ports: str | int, **more: Any) -> Object:
    """On the node ``host``; a host port is 80, ``UDP/53`` or ``127.0.0.1:80``."""
    listed = []
    for port in map(str, ports):
        protocol, _, rest = port.rpartition("/")
        address, _, number = rest.rpartition(":")
        entry = {"hostPort": int(number), "containerPort": 1, "protocol": protocol or "TCP"}
        listed.append(entry | ({"hostIP": address} if address else {}))
    return {
        "metadata": {
            "name": name,
            "namespace": more.pop("namespace", "default"),
            "uid": f"{name}-uid",
            "labels": more.pop("labels", {}),
        },
        "spec": {"nodeName": host, "containers": [{"name": "c", "ports": listed}], **more},
        "status": {"phase": "Running"},
    }
