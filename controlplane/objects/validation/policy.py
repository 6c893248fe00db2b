"""Disruption budgets, autoscalers, quotas and limit ranges."""

from collections.abc import Iterable

from controlplane.objects import quantity
from controlplane.objects.errors import duplicate, forbidden_field, invalid_value, required
from controlplane.objects.validation import checks, metadata, names
from controlplane.objects.validation.checks import IMMUTABLE, Found, Object, formed

_METRICS = {
    "ContainerResource": "containerResource",
    "External": "external",
    "Object": "object",
    "Pods": "pods",
    "Resource": "resource",
}
_SCOPES = (
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
)


def disruption_budget(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
    if least is not None and most is not None:
        text = "minAvailable and maxUnavailable cannot be both set"
        yield invalid_value("spec", dict(spec), text)
    for name, value in (("minAvailable", least), ("maxUnavailable", most)):
        if value is not None:
            yield from checks.int_or_percent(value, f"spec.{name}")
            yield from checks.not_over_100_percent(value, f"spec.{name}")
    yield from metadata.selector(spec.get("selector"), "spec.selector")
    known = ("AlwaysAllow", "IfHealthyBudget")
    policy = spec.get("unhealthyPodEvictionPolicy")
    yield from checks.optional_one_of(policy, known, "spec.unhealthyPodEvictionPolicy")


def autoscaler(obj: Object) -> Found:
    """Of autoscaling/v2; v1 is converted before."""
    spec = obj.get("spec") or {}
    least, most = spec.get("minReplicas"), spec.get("maxReplicas") or 0
    if least is not None and least < 1:
        yield invalid_value("spec.minReplicas", least, "must be greater than or equal to 1")
    if most < 1:
        yield invalid_value("spec.maxReplicas", most, "must be greater than 0")
    if least is not None and most < least:
        text = "must be greater than or equal to `minReplicas`"
        yield invalid_value("spec.maxReplicas", most, text)
    target = spec.get("scaleTargetRef") or {}
    for name in ("kind", "name"):
        path = f"spec.scaleTargetRef.{name}"
        yield from checks.required_form(names.path_segment, target.get(name), path)
    for index, metric in enumerate(spec.get("metrics") or ()):
        yield from _metric(metric, f"spec.metrics[{index}]")
    behavior = spec.get("behavior") or {}
    for name in ("scaleUp", "scaleDown"):
        if (rules := behavior.get(name)) is not None:
            yield from _scaling(rules, f"spec.behavior.{name}")


def _metric(metric: Object, path: str) -> Found:
    kind = metric.get("type") or ""
    if not kind:
        yield required(f"{path}.type", "must specify a metric source type")
        return
    yield from checks.one_of(kind, _METRICS, f"{path}.type")
    field = _METRICS.get(kind)
    if field is None:
        return
    source = metric.get(field)
    if source is None:
        text = "must populate information for the given metric source"
        yield required(f"{path}.{field}", text)
        return
    if kind in ("Resource", "ContainerResource") and not source.get("name"):
        yield required(f"{path}.{field}.name", "must specify a resource name")
    if kind == "ContainerResource" and not source.get("container"):
        yield required(f"{path}.{field}.container", "must specify a container")
    yield from _target(source.get("target") or {}, f"{path}.{field}.target")


def _target(target: Object, path: str) -> Found:
    if not target.get("type"):
        yield required(f"{path}.type", "must specify a metric target type")
    else:
        known = ("AverageValue", "Utilization", "Value")
        yield from checks.one_of(target["type"], known, f"{path}.type")
    for name in ("value", "averageValue"):
        value = target.get(name)
        if value is not None and quantity.is_quantity(value) and quantity.nanos(value) <= 0:
            yield invalid_value(f"{path}.{name}", value, "must be positive")
    utilization = target.get("averageUtilization")
    if utilization is not None and utilization < 1:
        text = "must be greater than 0"
        yield invalid_value(f"{path}.averageUtilization", utilization, text)


def _scaling(rules: Object, path: str) -> Found:
    window = rules.get("stabilizationWindowSeconds")
    where = f"{path}.stabilizationWindowSeconds"
    yield from checks.non_negative(window, where)
    if window is not None and window > 3600:
        yield invalid_value(where, window, "must be less than or equal to 3600")
    known = ("Disabled", "Max", "Min")
    yield from checks.optional_one_of(rules.get("selectPolicy"), known, f"{path}.selectPolicy")
    policies = rules.get("policies") or ()
    if not policies:
        yield required(f"{path}.policies", "must specify at least one Policy")
    for index, policy in enumerate(policies):
        where = f"{path}.policies[{index}]"
        yield from checks.one_of(policy.get("type"), ("Percent", "Pods"), f"{where}.type")
        for name, limit in (("value", None), ("periodSeconds", 1800)):
            number = policy.get(name) or 0
            if number <= 0:
                yield invalid_value(f"{where}.{name}", number, "must be greater than zero")
            elif limit is not None and number > limit:
                text = f"must be less than or equal to {limit}"
                yield invalid_value(f"{where}.{name}", number, text)


def quota(obj: Object) -> Found:
    spec = obj.get("spec") or {}
    for name, value in (spec.get("hard") or {}).items():
        path = f"spec.hard[{name}]"
        yield from formed(names.qualified_name, name, path)
        yield from checks.amount(value, path)
    for name in spec.get("scopes") or ():
        yield from checks.one_of(name, _SCOPES, "spec.scopes")


def quota_updated(new: Object, old: Object) -> Found:
    yield from quota(new)
    after, before = new.get("spec") or {}, old.get("spec") or {}
    if set(after.get("scopes") or ()) != set(before.get("scopes") or ()):
        yield invalid_value("spec.scopes", after.get("scopes"), IMMUTABLE)


def limit_range(obj: Object) -> Found:
    seen: set[str] = set()
    for index, limit in enumerate((obj.get("spec") or {}).get("limits") or ()):
        path = f"spec.limits[{index}]"
        kind = limit.get("type") or ""
        yield from formed(names.qualified_name, kind, f"{path}.type")
        if kind in seen:
            yield duplicate(f"{path}.type", kind)
        seen.add(kind)
        if kind == "Pod":
            for name in ("default", "defaultRequest"):
                if limit.get(name):
                    text = "may not be specified when `type` is 'Pod'"
                    yield forbidden_field(f"{path}.{name}", text)
        if kind == "PersistentVolumeClaim" and not (limit.get("min") or limit.get("max")):
            yield required(
                path,
                "either minimum or maximum storage value is required, but neither was provided",
            )
        yield from _ordered(limit, path)


# Each must not be greater than the next, for every resource.
_ORDER = (
    ("min", "max"),
    ("min", "defaultRequest"),
    ("min", "default"),
    ("defaultRequest", "max"),
    ("defaultRequest", "default"),
    ("default", "max"),
)


def _ordered(limit: Object, path: str) -> Found:
    for field in ("min", "max", "default", "defaultRequest"):
        for name, value in (limit.get(field) or {}).items():
            yield from checks.amount(value, f"{path}.{field}[{name}]")
    for low, high in _ORDER:
        yield from _pair(limit, path, low, high)


def _pair(limit: Object, path: str, low: str, high: str) -> Found:
    lower, upper = limit.get(low) or {}, limit.get(high) or {}
    for name in lower:
        value, bound = lower[name], upper.get(name)
        if bound is None or not _valid((value, bound)):
            continue
        if quantity.compare(value, bound) > 0:
            shown, top = quantity.canonical(value), quantity.canonical(bound)
            text = f"{_SPOKEN[low]} value {shown} is greater than {_SPOKEN[high]} value {top}"
            yield invalid_value(f"{path}.{low}[{name}]", shown, text)


_SPOKEN = {"min": "min", "max": "max", "default": "default", "defaultRequest": "default request"}


def _valid(values: Iterable[object]) -> bool:
    return all(map(quantity.is_quantity, values))
