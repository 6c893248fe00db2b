"""Nodes and pods for the tests of the scheduler."""

from typing import Any


def node(name: str = "n1", cpu: str = "4", memory: str = "8Gi", **fields: Any) -> dict[str, Any]:
    spec = {key: fields[key] for key in ("taints", "unschedulable") if key in fields}
    labels = {"kubernetes.io/hostname": name, **fields.get("labels", {})}
    status = {
        "allocatable": {"cpu": cpu, "memory": memory, "pods": "110", **fields.get("more", {})},
        "images": fields.get("images", []),
    }
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": status,
    }


def pod(name: str = "p1", cpu: str = "", memory: str = "", **fields: Any) -> dict[str, Any]:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    meta: dict[str, Any] = {
        "name": name,
        "namespace": "default",
        "uid": f"uid-{name}",
        "labels": fields.pop("labels", {}),
    }
    container: dict[str, Any] = {"name": "c", "image": fields.pop("image", "app:1")}
    if requests:
        container["resources"] = {"requests": requests}
    if "ports" in fields:
        container["ports"] = fields.pop("ports")
    status = fields.pop("status", {})
    return {"metadata": meta, "spec": {"containers": [container], **fields}, "status": status}


def together(labels: dict[str, str], key: str = "kubernetes.io/hostname") -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": key}


def required(kind: str, *terms: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"requiredDuringSchedulingIgnoredDuringExecution": list(terms)}}
