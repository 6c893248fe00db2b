"""
HorizontalPodAutoscaler between autoscaling/v1 and v2.

v1 knows one CPU percentage. Everything else of v2 travels in annotations, as JSON in
the form that upstream uses, so that an object written through v1 loses nothing.
Source: the annotations' names and forms as an upstream server serves them.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from controlplane.objects.defaults_workloads import DEFAULT_CPU_UTILIZATION, cpu_metric

_PREFIX = "autoscaling.alpha.kubernetes.io/"
_METRICS = f"{_PREFIX}metrics"
_CURRENT = f"{_PREFIX}current-metrics"
_CONDITIONS = f"{_PREFIX}conditions"
_BEHAVIOR = f"{_PREFIX}behavior"
_ROUND_TRIP = (
    _METRICS,
    _CURRENT,
    _CONDITIONS,
    _BEHAVIOR,
    f"{_PREFIX}scale-down-tolerance",
    f"{_PREFIX}scale-up-tolerance",
)
_PERCENT = "targetCPUUtilizationPercentage"
_CURRENT_PERCENT = "currentCPUUtilizationPercentage"
# Of each type of metric: its field.
_FIELDS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}
# Which v1 field each part of a v2 target or current value becomes. ``!``: v1 always writes it.
_TARGETS: dict[str, dict[str, str]] = {
    "Resource": {
        "averageUtilization": "targetAverageUtilization",
        "averageValue": "targetAverageValue",
    },
    "ContainerResource": {
        "averageUtilization": "targetAverageUtilization",
        "averageValue": "targetAverageValue",
    },
    "Pods": {"averageValue": "!targetAverageValue"},
    "Object": {"value": "!targetValue", "averageValue": "averageValue"},
    "External": {"value": "targetValue", "averageValue": "targetAverageValue"},
}
_CURRENTS: dict[str, dict[str, str]] = {
    "Resource": {
        "averageUtilization": "currentAverageUtilization",
        "averageValue": "!currentAverageValue",
    },
    "ContainerResource": {
        "averageUtilization": "currentAverageUtilization",
        "averageValue": "!currentAverageValue",
    },
    "Pods": {"averageValue": "!currentAverageValue"},
    "Object": {"value": "!currentValue", "averageValue": "averageValue"},
    "External": {"value": "!currentValue", "averageValue": "currentAverageValue"},
}
_RULES = {
    "stabilizationWindowSeconds": "StabilizationWindowSeconds",
    "selectPolicy": "SelectPolicy",
    "policies": "Policies",
    "tolerance": "Tolerance",
}
_POLICY = {"type": "Type", "value": "Value", "periodSeconds": "PeriodSeconds"}


def autoscaler_to_v1(obj: Mapping[str, Any]) -> dict[str, Any]:
    annotations = _annotations(obj)
    spec = dict(obj.get("spec") or {})
    status = dict(obj.get("status") or {})
    metrics = spec.pop("metrics", None) or []
    behavior = spec.pop("behavior", None)
    current = status.pop("currentMetrics", None) or []
    conditions = status.pop("conditions", None) or []
    percents = [p for p in (_cpu_percent(metric, "target") for metric in metrics) if p is not None]
    others = [metric for metric in metrics if _cpu_percent(metric, "target") is None]
    if percents:
        spec[_PERCENT] = percents[0]
    for metric in current:
        percent = _cpu_percent(metric, "current")
        if percent is not None:
            status[_CURRENT_PERCENT] = percent
    if others:
        annotations[_METRICS] = _dump([_to_v1(m, "target", _TARGETS) for m in others])
    if current:
        annotations[_CURRENT] = _dump([_to_v1(m, "current", _CURRENTS) for m in current])
    if behavior is not None:
        annotations[_BEHAVIOR] = _dump(_behavior_to_v1(behavior))
    if conditions:
        annotations[_CONDITIONS] = _dump(conditions)
    return _joined(obj, annotations, spec, status)


def autoscaler_to_v2(obj: Mapping[str, Any]) -> dict[str, Any]:
    """Annotations that do not parse are dropped, as upstream does."""
    annotations = _annotations(obj)
    carried = (obj.get("metadata") or {}).get("annotations") or {}
    spec = dict(obj.get("spec") or {})
    status = dict(obj.get("status") or {})
    percent = spec.pop(_PERCENT, None)
    current = status.pop(_CURRENT_PERCENT, None)
    metrics = [_from_v1(m, "target", _TARGETS) for m in _load(carried, _METRICS, list)]
    if percent is not None:
        metrics.append(cpu_metric(percent))
    spec["metrics"] = metrics or [cpu_metric(DEFAULT_CPU_UTILIZATION)]
    if behavior := _behavior_from_v1(_load(carried, _BEHAVIOR, dict)):
        spec["behavior"] = behavior
    currents = [_from_v1(m, "current", _CURRENTS) for m in _load(carried, _CURRENT, list)]
    if not currents and current is not None:
        resource = {"name": "cpu", "current": {"averageUtilization": current}}
        currents = [{"type": "Resource", "resource": resource}]
    if currents:
        status["currentMetrics"] = currents
    if conditions := _load(carried, _CONDITIONS, list):
        status["conditions"] = conditions
    return _joined(obj, annotations, spec, status)


def _annotations(obj: Mapping[str, Any]) -> dict[str, str]:
    """Those of the user."""
    found = (obj.get("metadata") or {}).get("annotations") or {}
    return {name: text for name, text in found.items() if name not in _ROUND_TRIP}


def _joined(
    obj: Mapping[str, Any],
    annotations: dict[str, str],
    spec: dict[str, Any],
    status: dict[str, Any],
) -> dict[str, Any]:
    metadata = {**(obj.get("metadata") or {}), "annotations": annotations}
    return {**obj, "metadata": metadata, "spec": spec, "status": status}


def _cpu_percent(metric: Mapping[str, Any], values: str) -> int | None:
    resource = metric.get("resource") or {}
    if metric.get("type") != "Resource" or resource.get("name") != "cpu":
        return None
    percent: int | None = (resource.get(values) or {}).get("averageUtilization")
    return percent


def _dump(value: Any) -> str:
    return orjson.dumps(value).decode()


def _load(annotations: Mapping[str, str], name: str, wanted: type) -> Any:
    try:
        value = orjson.loads(annotations[name])
    except (KeyError, ValueError, TypeError):
        return wanted()
    if not isinstance(value, wanted):
        return wanted()
    if isinstance(value, list):
        return [item for item in value if isinstance(item, dict)]
    return value


def _to_v1(
    metric: Mapping[str, Any], values: str, names: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    source = metric.get(field) or {}
    out = {name: source[name] for name in ("name", "container") if name in source}
    identifier = source.get("metric") or {}
    if kind in ("Pods", "Object", "External"):
        out["metricName"] = identifier.get("name", "")
        if "selector" in identifier:
            key = "metricSelector" if kind == "External" else "selector"
            out[key] = identifier["selector"]
    if kind == "Object":
        out["target"] = source.get("describedObject") or {}
    numbers = source.get(values) or {}
    for part, name in names.get(kind, {}).items():
        if part in numbers:
            out[name.removeprefix("!")] = numbers[part]
        elif name.startswith("!"):
            out[name[1:]] = "0"
    return {"type": kind, field: out} if field else {"type": kind}


def _from_v1(
    metric: Mapping[str, Any], values: str, names: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    kind = metric.get("type", "")
    field = _FIELDS.get(kind, "")
    source = metric.get(field) or {}
    out: dict[str, Any] = {name: source[name] for name in ("name", "container") if name in source}
    if kind in ("Pods", "Object", "External"):
        out["metric"] = {"name": source.get("metricName", "")}
        selector = source.get("metricSelector" if kind == "External" else "selector")
        if selector is not None:
            out["metric"]["selector"] = selector
    if kind == "Object":
        out["describedObject"] = source.get("target") or {}
    numbers = {
        part: source[name.removeprefix("!")]
        for part, name in names.get(kind, {}).items()
        if name.removeprefix("!") in source
    }
    if values == "target":
        if kind == "Object" and "averageValue" in numbers and numbers.get("value") in ("0", 0):
            del numbers["value"]
        numbers["type"] = _target_type(kind, numbers)
    out[values] = numbers
    return {"type": kind, field: out} if field else {"type": kind}


def _target_type(kind: str, numbers: Mapping[str, Any]) -> str:
    if "averageUtilization" in numbers:
        return "Utilization"
    if kind == "External":
        return "Value" if "value" in numbers else "AverageValue"
    if kind == "Object":
        return "AverageValue" if "averageValue" in numbers else "Value"
    return "AverageValue"


def _behavior_to_v1(behavior: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, internal in (("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")):
        rules = behavior.get(name)
        out[internal] = None
        if rules is not None:
            found = {theirs: rules.get(ours) for ours, theirs in _RULES.items()}
            if found["Policies"] is not None:
                found["Policies"] = [
                    {theirs: policy.get(ours) for ours, theirs in _POLICY.items()}
                    for policy in found["Policies"]
                ]
            out[internal] = found
    return out


def _behavior_from_v1(behavior: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, internal in (("scaleUp", "ScaleUp"), ("scaleDown", "ScaleDown")):
        rules = behavior.get(internal)
        if isinstance(rules, dict):
            found = {
                ours: rules[theirs]
                for ours, theirs in _RULES.items()
                if rules.get(theirs) is not None
            }
            if "policies" in found:
                found["policies"] = [
                    {ours: policy.get(theirs) for ours, theirs in _POLICY.items()}
                    for policy in found["policies"]
                ]
            out[name] = found
    return out
