"""Deployments and all others that make pods, disruption budgets and autoscalers."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from controlplane.objects import quantity, selectors
from controlplane.objects.meta import controller_of, parse_time
from controlplane.objects.printing.cells import (
    NONE,
    UNKNOWN,
    UNSET,
    Cells,
    Object,
    Printer,
    age,
    columns,
    containers,
    human,
    labels,
    name,
    since,
    spec,
    status,
)

_WIDE = ("Containers*", "Images*", "Selector*")


def _wide(obj: Object) -> Cells:
    return [*containers(spec(obj).get("template")), selectors.to_text(spec(obj).get("selector"))]


def _replicas(obj: Object) -> int:
    found = spec(obj).get("replicas")
    return 1 if found is None else int(found)


def _deployment(obj: Object, now: datetime) -> Cells:
    state = status(obj)
    return [
        name(obj),
        f"{state.get('readyReplicas') or 0}/{_replicas(obj)}",
        state.get("updatedReplicas") or 0,
        state.get("availableReplicas") or 0,
        age(obj, now),
        *_wide(obj),
    ]


def _replica_set(obj: Object, now: datetime) -> Cells:
    state = status(obj)
    current, ready = state.get("replicas") or 0, state.get("readyReplicas") or 0
    return [name(obj), _replicas(obj), current, ready, age(obj, now), *_wide(obj)]


def _replication_controller(obj: Object, now: datetime) -> Cells:
    return [
        *_replica_set({**obj, "spec": {**spec(obj), "selector": None}}, now)[:-1],
        labels(spec(obj).get("selector")),
    ]


def _daemon_set(obj: Object, now: datetime) -> Cells:
    state = status(obj)
    counts = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    template = (spec(obj).get("template") or {}).get("spec") or {}
    return [
        name(obj),
        *(state.get(count) or 0 for count in counts),
        labels(template.get("nodeSelector")),
        age(obj, now),
        *_wide(obj),
    ]


def _stateful_set(obj: Object, now: datetime) -> Cells:
    ready = f"{status(obj).get('readyReplicas') or 0}/{_replicas(obj)}"
    return [name(obj), ready, age(obj, now), *containers(spec(obj).get("template"))]


def _job(obj: Object, now: datetime) -> Cells:
    succeeded, wanted = status(obj).get("succeeded") or 0, spec(obj).get("completions")
    parallelism = spec(obj).get("parallelism") or 0
    if wanted is not None:
        completions = f"{succeeded}/{wanted}"
    elif parallelism > 1:
        completions = f"{succeeded}/1 of {parallelism}"
    else:
        completions = f"{succeeded}/1"
    return [
        name(obj),
        _job_status(obj),
        completions,
        _job_duration(obj, now),
        age(obj, now),
        *_wide(obj),
    ]


def _true_conditions(obj: Object) -> dict[str, Mapping[str, Any]]:
    listed = status(obj).get("conditions") or ()
    return {c.get("type", ""): c for c in listed if c.get("status") == "True"}


def _job_status(obj: Object) -> str:
    true = _true_conditions(obj)
    for kind in ("Complete", "Failed"):
        if kind in true:
            return kind
    if (obj.get("metadata") or {}).get("deletionTimestamp"):
        return "Terminating"
    for kind in ("Suspended", "FailureTarget", "SuccessCriteriaMet"):
        if kind in true:
            return kind
    return "Running"


def _job_duration(obj: Object, now: datetime) -> str:
    state = status(obj)
    if not (start := state.get("startTime")):
        return ""
    end = state.get("completionTime")
    if not end and (failed := _true_conditions(obj).get("Failed")):
        end = failed.get("lastTransitionTime")
    return human((parse_time(end) if end else now) - parse_time(start))


def _cron_job(obj: Object, now: datetime) -> Cells:
    inner, state = spec(obj), status(obj)
    job = (inner.get("jobTemplate") or {}).get("spec") or {}
    last = state.get("lastScheduleTime")
    suspend = inner.get("suspend")
    return [
        name(obj),
        inner.get("schedule", ""),
        inner.get("timeZone") or NONE,
        UNSET if suspend is None else str(bool(suspend)),
        len(state.get("active") or ()),
        since(last, now) if last else NONE,
        age(obj, now),
        *containers(job.get("template")),
        selectors.to_text(job.get("selector")),
    ]


def _revision(obj: Object, now: datetime) -> Cells:
    owner = controller_of(obj)
    shown = NONE
    if owner:
        group = owner.get("apiVersion", "").rpartition("/")[0]
        kind = owner.get("kind", "").lower()
        shown = f"{kind}.{group}/{owner.get('name')}" if group else f"{kind}/{owner.get('name')}"
    return [name(obj), shown, obj.get("revision") or 0, age(obj, now)]


def _budget(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    bounds = [inner.get(field) for field in ("minAvailable", "maxUnavailable")]
    shown = ["N/A" if bound is None else str(bound) for bound in bounds]
    return [name(obj), *shown, status(obj).get("disruptionsAllowed") or 0, age(obj, now)]


def _autoscaler(obj: Object, now: datetime) -> Cells:
    inner, state = spec(obj), status(obj)
    target = inner.get("scaleTargetRef") or {}
    least = inner.get("minReplicas")
    return [
        name(obj),
        f"{target.get('kind', '')}/{target.get('name', '')}",
        _targets(obj),
        UNSET if least is None else str(least),
        inner.get("maxReplicas") or 0,
        state.get("currentReplicas") or 0,
        age(obj, now),
    ]


def _targets(obj: Object) -> str:
    """Of both versions: v1 has one target of CPU."""
    inner, state = spec(obj), status(obj)
    wanted = inner.get("targetCPUUtilizationPercentage")
    if wanted is not None:
        current = state.get("currentCPUUtilizationPercentage")
        shown = UNKNOWN if current is None else f"{current}%"
        return f"cpu: {shown}/{wanted}%"
    metrics, current_metrics = inner.get("metrics") or (), state.get("currentMetrics") or ()
    listed: list[str] = []
    for index, metric in enumerate(metrics):
        now_at = current_metrics[index] if index < len(current_metrics) else {}
        listed.append(_metric(metric, now_at))
    if not listed:
        return NONE
    if len(listed) > 2:
        return f"{', '.join(listed[:2])} + {len(listed) - 2} more..."
    return ", ".join(listed)


_METRIC_FIELDS = {
    "Resource": "resource",
    "ContainerResource": "containerResource",
    "Pods": "pods",
    "Object": "object",
    "External": "external",
}


def _metric(metric: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    kind = metric.get("type", "")
    field = _METRIC_FIELDS.get(kind)
    if field is None:
        return "<unknown type>"
    source, seen = metric.get(field) or {}, (current.get(field) or {}).get("current") or {}
    target = source.get("target") or {}
    prefix = f"{source.get('name')}: " if kind in ("Resource", "ContainerResource") else ""
    if (wanted := target.get("averageUtilization")) is not None:
        now_at = seen.get("averageUtilization")
        return f"{prefix}{UNKNOWN if now_at is None else f'{now_at}%'}/{wanted}%"
    average = target.get("averageValue") is not None
    value = "averageValue" if average else "value"
    now_at = seen.get(value)
    suffix = " (avg)" if average and kind in ("Object", "External") else ""
    shown = UNKNOWN if now_at is None else quantity.canonical(now_at)
    return f"{prefix}{shown}/{target.get(value)}{suffix}"


DEPLOYMENT = Printer(
    columns("Name", "Ready", "Up-to-date#", "Available#", "Age", *_WIDE), _deployment
)
REPLICA_SET = Printer(
    columns("Name", "Desired#", "Current#", "Ready#", "Age", *_WIDE), _replica_set
)
REPLICATION_CONTROLLER = Printer(REPLICA_SET.columns, _replication_controller)
DAEMON_SET = Printer(
    columns(
        "Name",
        "Desired#",
        "Current#",
        "Ready#",
        "Up-to-date#",
        "Available#",
        "Node Selector",
        "Age",
        *_WIDE,
    ),
    _daemon_set,
)
STATEFUL_SET = Printer(columns("Name", "Ready", "Age", "Containers*", "Images*"), _stateful_set)
JOB = Printer(columns("Name", "Status", "Completions", "Duration", "Age", *_WIDE), _job)
CRON_JOB = Printer(
    columns("Name", "Schedule", "Timezone", "Suspend?", "Active#", "Last Schedule", "Age", *_WIDE),
    _cron_job,
)
CONTROLLER_REVISION = Printer(columns("Name", "Controller", "Revision#", "Age"), _revision)
DISRUPTION_BUDGET = Printer(
    columns("Name", "Min Available", "Max Unavailable", "Allowed Disruptions#", "Age"), _budget
)
AUTOSCALER = Printer(
    columns("Name", "Reference", "Targets", "MinPods", "MaxPods#", "Replicas#", "Age"), _autoscaler
)
