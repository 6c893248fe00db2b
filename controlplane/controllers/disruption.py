"""
PodDisruptionBudget status: how many more pods may be disturbed.

The eviction subresource notes in ``disruptedPods`` what it let go; such a pod counts as
lost until it is gone, or until two minutes later when it was not deleted after all.
Source: the API concept "Disruptions"; KEP-85.
"""

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects import selectors
from controlplane.objects.meta import controller_of, is_deleting, uid_of, with_condition
from controlplane.objects.moment import left
from controlplane.objects.resources import (
    DEPLOYMENTS,
    POD_DISRUPTION_BUDGETS,
    PODS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    STATEFUL_SETS,
)
from controlplane.reconcile import pods
from controlplane.reconcile.base import Again, Controller, Key, Record, SetStatus, Write
from controlplane.reconcile.times import parse

PATIENCE = timedelta(minutes=2)
_SCALED = {
    "ReplicaSet": REPLICA_SETS,
    "ReplicationController": REPLICATION_CONTROLLERS,
    "StatefulSet": STATEFUL_SETS,
}


class _NoScale(Exception):
    """A pod's controller has no replicas to compare with."""


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    budget = reads.get(POD_DISRUPTION_BUDGETS, key.namespace, key.name)
    if budget is None:
        return
    selector = selectors.of_object((budget.get("spec") or {}).get("selector"))
    matching = [
        pod
        for pod in reads.list(PODS, key.namespace)
        if selector.matches(pod["metadata"].get("labels")) and not pods.is_finished(pod)
    ]
    if not matching:
        yield Record(budget, "Normal", "NoPods", "No matching pods found")
    try:
        expected, desired = _wanted(budget, matching, reads)
    except _NoScale as err:
        text = f"Failed to calculate the number of expected pods: {err}"
        yield Record(budget, "Warning", "CalculateExpectedPodCountFailed", text)
        yield from _write(budget, _failed(budget, str(err), now))
        return
    disrupted, wait = _disrupted(budget, matching, now)
    status = _status(budget, matching, disrupted, (expected, desired), now=now)
    yield from _write(budget, status)
    if wait is not None:
        yield Again(wait)


def _write(budget: Object, status: dict[str, Any]) -> Iterator[Write]:
    if status != (budget.get("status") or {}):
        yield SetStatus(POD_DISRUPTION_BUDGETS, budget, status)


def _wanted(budget: Object, matching: Sequence[Object], reads: Reads) -> tuple[int, int]:
    """How many pods there should be, and how many of them must be healthy."""
    spec = budget.get("spec") or {}
    if "maxUnavailable" in spec:
        expected = _expected(matching, reads)
        return expected, max(expected - _number(spec["maxUnavailable"], expected), 0)
    minimum = spec.get("minAvailable", 1)
    if isinstance(minimum, int):
        return len(matching), minimum
    expected = _expected(matching, reads)
    return expected, _number(minimum, expected)


def _number(value: int | str, total: int) -> int:
    return value if isinstance(value, int) else math.ceil(int(value.rstrip("%")) * total / 100)


def _expected(matching: Sequence[Object], reads: Reads) -> int:
    """The sum of the replicas of all workloads that the pods belong to."""
    sizes: dict[str, int] = {}
    for pod in matching:
        reference = controller_of(pod)
        if reference is None:
            raise _NoScale(f'found no controller ref for pod "{pod["metadata"]["name"]}"')
        workload = _workload(reference["kind"], reference["name"], pod, reads)
        if workload is None:
            raise _NoScale(f"{reference['kind']} {reference['name']} has no scale")
        sizes[uid_of(workload)] = workload["spec"].get("replicas", 1)
    return sum(sizes.values())


def _workload(kind: str, name: str, pod: Object, reads: Reads) -> Object | None:
    resource = _SCALED.get(kind)
    if resource is None:
        return None
    found = reads.get(resource, pod["metadata"]["namespace"], name)
    above = controller_of(found) if found is not None else None
    if above is not None and above["kind"] == "Deployment":
        parent = reads.get(DEPLOYMENTS, pod["metadata"]["namespace"], above["name"])
        return parent if parent is not None else found
    return found


def _disrupted(
    budget: Object, matching: Sequence[Object], now: datetime
) -> tuple[dict[str, str], timedelta | None]:
    """The entries that still count, and after how long the first of them no longer does."""
    waiting = {p["metadata"]["name"] for p in matching if not is_deleting(p)}
    kept: dict[str, str] = {}
    waits: list[timedelta] = []
    for name, at in ((budget.get("status") or {}).get("disruptedPods") or {}).items():
        since = parse(at)
        remaining = left(since, PATIENCE, now) if since is not None else timedelta(0)
        if name in waiting and remaining > timedelta(0):
            kept[name] = at
            waits.append(remaining)
    return kept, min(waits, default=None)


def _status(
    budget: Object,
    matching: Sequence[Object],
    disrupted: dict[str, str],
    wanted: tuple[int, int],
    *,
    now: datetime,
) -> dict[str, Any]:
    expected, desired = wanted
    healthy = sum(
        pods.is_ready(pod) and not is_deleting(pod) and pod["metadata"]["name"] not in disrupted
        for pod in matching
    )
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    if allowed > 0:
        condition = {"type": "DisruptionAllowed", "status": "True", "reason": "SufficientPods"}
    else:
        condition = {"type": "DisruptionAllowed", "status": "False", "reason": "InsufficientPods"}
    generation = budget["metadata"].get("generation", 0)
    condition |= {"message": "", "observedGeneration": generation}
    old = (budget.get("status") or {}).get("conditions")
    status: dict[str, Any] = {
        "observedGeneration": generation,
        "disruptionsAllowed": allowed,
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "expectedPods": expected,
        "conditions": with_condition(old, condition, now),
    }
    return status | ({"disruptedPods": disrupted} if disrupted else {})


def _failed(budget: Object, message: str, now: datetime) -> dict[str, Any]:
    old = budget.get("status") or {}
    generation = budget["metadata"].get("generation", 0)
    condition = {
        "type": "DisruptionAllowed",
        "status": "False",
        "reason": "SyncFailed",
        "message": message,
        "observedGeneration": generation,
    }
    counts = {
        name: old.get(name, 0) for name in ("currentHealthy", "desiredHealthy", "expectedPods")
    }
    return {
        **counts,
        "observedGeneration": generation,
        "disruptionsAllowed": 0,
        "conditions": with_condition(old.get("conditions"), condition, now),
    }


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    namespace = change.namespace
    if change.resource.plural != PODS.plural:
        # A workload was scaled: its pods' budgets may compare with another number.
        for budget in reads.list(POD_DISRUPTION_BUDGETS, namespace):
            yield Key(namespace, budget["metadata"]["name"])
        return
    budgets = reads.list(POD_DISRUPTION_BUDGETS, namespace)
    labels = [p["metadata"].get("labels") for p in (change.old, change.new) if p and budgets]
    for budget in budgets:
        selector = selectors.of_object((budget.get("spec") or {}).get("selector"))
        if any(selector.matches(each) for each in labels):
            yield Key(namespace, budget["metadata"]["name"])


DISRUPTION = Controller(
    name="disruption-controller",
    primary=POD_DISRUPTION_BUDGETS,
    reads=frozenset({PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, STATEFUL_SETS, DEPLOYMENTS}),
    writes=frozenset({POD_DISRUPTION_BUDGETS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
