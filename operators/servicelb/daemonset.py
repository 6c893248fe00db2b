"""
The DaemonSet whose pods forward a Service's ports, where nodes do not do it themselves. Pure.

Names, labels and the environment of its containers are K3s's, so that K3s's image works as
well as ours. What is compared with the live object is what we set, not what the server adds.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from operators.servicelb.annotations import as_object
from operators.servicelb.facts import (
    ENABLE_LABEL,
    NAME_LABEL,
    NAMESPACE_LABEL,
    POOL_LABEL,
    Port,
    Service,
)
from operators.servicelb.placement import OWN_TOLERATIONS

SELECTOR_LABEL = "svccontroller.k3s.cattle.io/nodeselector"
ACCOUNT = "svclb"
PRIORITY = "system-node-critical"
_LONGEST_NAME = 48
_EVERYBODY = {"IPv4": "0.0.0.0/0", "IPv6": "::/0"}
# net.ipv4.ip_forward is inherited from the node, and few kubelets let a pod set it.
_IPV6_FORWARDING = {"name": "net.ipv6.conf.all.forwarding", "value": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    service: Service
    namespace: str
    image: str
    selecting: bool  # some node has the label by which nodes are chosen
    avoid: tuple[str, ...]  # nodes that use one of the ports themselves


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A live one of ours: :func:`essence` of it, and the Service it is for."""

    essence: bytes
    resource_version: str = field(compare=False)  # changes with every pod of it
    service: str


def name_of(service: Service) -> str:
    name = service.key.partition("/")[2]
    if len(name) > _LONGEST_NAME:
        name = name[:_LONGEST_NAME].rstrip("-")
    return f"svclb-{name}-{service.uid[:8]}"


def found_of(body: Mapping[str, Any]) -> Found | None:
    """None: not one of ours."""
    labels = body["metadata"].get("labels") or {}
    if SELECTOR_LABEL not in labels or NAME_LABEL not in labels:
        return None
    service = f"{labels.get(NAMESPACE_LABEL, '')}/{labels[NAME_LABEL]}"
    version = body["metadata"]["resourceVersion"]
    return Found(essence=essence(body), resource_version=version, service=service)


def body_of(wanted: Wanted) -> dict[str, Any]:
    service = wanted.service
    name = name_of(service)
    namespace, _, service_name = service.key.partition("/")
    named = {NAME_LABEL: service_name, NAMESPACE_LABEL: namespace}
    labels = {SELECTOR_LABEL: "true" if wanted.selecting else "false", **named}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": wanted.namespace, "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
            "template": {
                "metadata": {"labels": {"app": name, **named}},
                "spec": _pod_spec(wanted),
            },
        },
    }


def essence(body: Mapping[str, Any]) -> bytes:
    """What :func:`body_of` sets, as a digest: of a wanted and of a live object alike."""
    template = body["spec"]["template"]
    pod = template["spec"]
    fields = (
        *("priorityClassName", "serviceAccountName", "automountServiceAccountToken"),
        *("tolerations", "nodeSelector", "affinity", "hostNetwork"),
    )
    labels = body["metadata"].get("labels") or {}
    kept = {
        "labels": [labels.get(name) for name in (SELECTOR_LABEL, NAME_LABEL, NAMESPACE_LABEL)],
        "pod labels": (template.get("metadata") or {}).get("labels"),
        "pod": [pod.get(field) or None for field in fields],
        "sysctls": (pod.get("securityContext") or {}).get("sysctls") or None,
        "containers": [_container_essence(container) for container in pod["containers"]],
    }
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).digest()[:16]


def _container_essence(container: Mapping[str, Any]) -> list[Any]:
    return [
        *(container.get(field) for field in ("name", "image", "ports", "env", "command")),
        ((container.get("securityContext") or {}).get("capabilities") or {}).get("add"),
    ]


def _pod_spec(wanted: Wanted) -> dict[str, Any]:
    service = wanted.service
    spec: dict[str, Any] = {
        "priorityClassName": service.priority or PRIORITY,
        "serviceAccountName": ACCOUNT,
        "automountServiceAccountToken": False,
        "tolerations": [as_object(t) for t in (*OWN_TOLERATIONS, *service.tolerations)],
        "containers": [_container(wanted, port) for port in service.ports],
    }
    if "IPv6" in service.families:
        spec["securityContext"] = {"sysctls": [_IPV6_FORWARDING]}
    if wanted.selecting:
        spec["nodeSelector"] = {ENABLE_LABEL: "true"}
        if service.pool:
            spec["nodeSelector"][POOL_LABEL] = service.pool
    if wanted.avoid:
        # The API takes one value in each, and all of them must hold.
        fields = [
            {"key": "metadata.name", "operator": "NotIn", "values": [node]} for node in wanted.avoid
        ]
        terms = {"nodeSelectorTerms": [{"matchFields": fields}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}
        }
    return spec


def _container(wanted: Wanted, port: Port) -> dict[str, Any]:
    name = f"lb-{port.protocol.lower()}-{port.number}"
    return {
        "name": name,
        "image": wanted.image,
        "imagePullPolicy": "IfNotPresent",
        "ports": [
            {
                "name": name,
                "containerPort": port.number,
                "hostPort": port.number,
                "protocol": port.protocol,
            }
        ],
        "env": _environment(wanted.service, port),
        "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}},
    }


def _environment(service: Service, port: Port) -> list[dict[str, Any]]:
    sources = service.sources or tuple(_EVERYBODY[family] for family in service.families)
    to_node = service.local
    ips: dict[str, Any] = {"name": "DEST_IPS"}
    if to_node:
        # The node port of the same node, where the proxy finds only endpoints of this node.
        ips["valueFrom"] = {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.hostIPs"}}
    else:
        ips["value"] = ",".join(service.cluster_ips)
    return [
        {"name": "SRC_PORT", "value": str(port.number)},
        {"name": "SRC_RANGES", "value": ",".join(sources)},
        {"name": "DEST_PROTO", "value": port.protocol},
        {"name": "DEST_PORT", "value": str(port.node_port if to_node else port.number)},
        ips,
    ]
