"""Defaults of the core group's kinds other than pods. Source: the fields' documentation."""

import base64
from typing import Any

from controlplane.objects.defaults_pods import (
    Dict,
    claim_spec,
    dig,
    fill,
    pod_spec,
    resource_list,
    volume_source,
)

NAME_LABEL = "kubernetes.io/metadata.name"
_AFFINITY_SECONDS = 10800


def service(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("sessionAffinity", "None")
    spec.setdefault("type", "ClusterIP")
    _affinity(spec)
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        if port.get("targetPort", 0) in (0, ""):
            port["targetPort"] = port.get("port", 0)
    external = spec["type"] in ("NodePort", "LoadBalancer") or (
        spec["type"] == "ClusterIP" and spec.get("externalIPs")
    )
    if external:
        spec.setdefault("externalTrafficPolicy", "Cluster")
    if spec["type"] in ("NodePort", "LoadBalancer", "ClusterIP"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if spec["type"] == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
        for ingress in dig(obj, "status", "loadBalancer").get("ingress", ()):
            if ingress.get("ip"):
                ingress.setdefault("ipMode", "VIP")


def _affinity(spec: Dict) -> None:
    if spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    elif spec["sessionAffinity"] == "ClientIP":
        config = dig(spec, "sessionAffinityConfig", "clientIP")
        if "timeoutSeconds" not in config:
            seconds = {"timeoutSeconds": _AFFINITY_SECONDS}
            spec["sessionAffinityConfig"] = {"clientIP": seconds}


def namespace(obj: Dict) -> None:
    metadata = obj.setdefault("metadata", {})
    if metadata.get("name"):
        metadata.setdefault("labels", {})[NAME_LABEL] = metadata["name"]
    obj.setdefault("status", {}).setdefault("phase", "Active")


def node(obj: Dict) -> None:
    status = obj.setdefault("status", {})
    if "capacity" in status and "allocatable" not in status:
        status["allocatable"] = dict(status["capacity"])
    resource_list(status.get("capacity"))
    resource_list(status.get("allocatable"))


def secret(obj: Dict) -> None:
    """Also merges ``stringData``, which is written and never read."""
    obj.setdefault("type", "Opaque")
    plain = obj.pop("stringData", None)
    if plain:
        data = obj.setdefault("data", {})
        for key, text in plain.items():
            data[key] = base64.b64encode(text.encode()).decode()


def persistent_volume(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, {"persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem"})
    resource_list(spec.get("capacity"))
    volume_source(spec)
    obj.setdefault("status", {}).setdefault("phase", "Pending")


def persistent_volume_claim(obj: Dict) -> None:
    claim_spec(obj.setdefault("spec", {}))
    status = obj.setdefault("status", {})
    status.setdefault("phase", "Pending")
    resource_list(status.get("capacity"))
    resource_list(status.get("allocatedResources"))


def endpoints(obj: Dict) -> None:
    for subset in obj.get("subsets", ()):
        for port in subset.get("ports", ()):
            port.setdefault("protocol", "TCP")


def limit_range(obj: Dict) -> None:
    for item in dig(obj, "spec").get("limits", ()):
        if item.get("type") == "Container":
            _limits_of_containers(item)
        for name in ("max", "min", "default", "defaultRequest", "maxLimitRequestRatio"):
            resource_list(item.get(name))


def _limits_of_containers(item: Dict) -> None:
    default: Dict = dict(item.get("default") or {})
    fill(default, item.get("max") or {})
    request: Dict = dict(item.get("defaultRequest") or {})
    fill(request, default)
    fill(request, item.get("min") or {})
    if default:
        item["default"] = default
    if request:
        item["defaultRequest"] = request


def resource_quota(obj: Dict) -> None:
    resource_list(dig(obj, "spec").get("hard"))
    resource_list(dig(obj, "status").get("hard"))
    resource_list(dig(obj, "status").get("used"))


def pod_template(obj: Dict) -> None:
    pod_spec(obj.setdefault("template", {}).setdefault("spec", {}))


def replication_controller(obj: Dict) -> None:
    spec = obj.setdefault("spec", {})
    spec.setdefault("replicas", 1)
    labels: dict[str, Any] = dig(spec, "template", "metadata", "labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        obj.setdefault("metadata", {}).setdefault("labels", dict(labels))
    if "template" in spec:
        pod_spec(spec["template"].setdefault("spec", {}))
