"""
The same object in another version of its kind.

Kinds with two versions share their stored objects; what is stored is one version, what
a client asked for may be the other. Custom resources have strategy None here: only
``apiVersion`` changes, conversion webhooks are the API server's.
Source: the field documentation of events.k8s.io/v1 (which core field each replaces).
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.objects.convert_autoscaling import autoscaler_to_v1, autoscaler_to_v2
from controlplane.objects.facts import schema_of
from controlplane.objects.kinds import Kind
from controlplane.objects.walk import prune_empty

# events.k8s.io/v1 → v1; what is not named here is called the same.
_EVENT_FIELDS = {
    "regarding": "involvedObject",
    "note": "message",
    "reportingController": "reportingComponent",
    "deprecatedSource": "source",
    "deprecatedFirstTimestamp": "firstTimestamp",
    "deprecatedLastTimestamp": "lastTimestamp",
    "deprecatedCount": "count",
}
_CORE_EVENT_FIELDS = {core: name for name, core in _EVENT_FIELDS.items()}


def convert(obj: Mapping[str, Any], source: Kind, target: Kind) -> dict[str, Any]:
    """A new object; parts may be shared with ``obj``, which is not changed."""
    if source.api_version == target.api_version:
        return dict(obj)
    function = _CONVERSIONS.get((source.api_version, target.api_version, source.kind))
    out = function(obj) if function is not None and not source.custom else dict(obj)
    out["apiVersion"] = target.api_version
    out["kind"] = target.kind
    if function is None or source.custom:
        return out
    return prune_empty(out, schema_of(target))


def _event_to_core(obj: Mapping[str, Any]) -> dict[str, Any]:
    return {_EVENT_FIELDS.get(name, name): value for name, value in obj.items()}


def _event_from_core(obj: Mapping[str, Any]) -> dict[str, Any]:
    return {_CORE_EVENT_FIELDS.get(name, name): value for name, value in obj.items()}


_CONVERSIONS: dict[tuple[str, str, str], Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    ("events.k8s.io/v1", "v1", "Event"): _event_to_core,
    ("v1", "events.k8s.io/v1", "Event"): _event_from_core,
    ("autoscaling/v1", "autoscaling/v2", "HorizontalPodAutoscaler"): autoscaler_to_v2,
    ("autoscaling/v2", "autoscaling/v1", "HorizontalPodAutoscaler"): autoscaler_to_v1,
}
