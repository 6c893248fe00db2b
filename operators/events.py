"""Event objects, as ``kubectl describe`` shows them. Pure."""

from collections.abc import Mapping
from typing import Any

COMPONENT = "pinnace-operators"


def event(
    about: Mapping[str, Any], *, name: str, warning: bool, reason: str, message: str, now: str
) -> dict[str, Any]:
    """``about``: the object, with apiVersion and kind. ``now``: RFC 3339."""
    metadata = about["metadata"]
    scope = {"namespace": metadata["namespace"]} if metadata.get("namespace") else {}
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": namespace_of(about)},
        "involvedObject": {
            "apiVersion": about["apiVersion"],
            "kind": about["kind"],
            **scope,
            "name": metadata["name"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": "Warning" if warning else "Normal",
        "reason": reason,
        "message": message[:1024],
        "source": {"component": COMPONENT},
        "reportingComponent": COMPONENT,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }


def path(about: Mapping[str, Any]) -> str:
    """Where such an event is created."""
    return f"/api/v1/namespaces/{namespace_of(about)}/events"


def namespace_of(about: Mapping[str, Any]) -> str:
    """Events of what has no namespace are kept in "default"."""
    return str(about["metadata"].get("namespace") or "default")
