"""
The status of a Deployment: counts, Available, and Progressing with its deadline.

Source: the Deployment API documentation ("Deployment status"); upstream's
deployment/progress.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.deployment.revisions import replicas_of
from controlplane.controllers.deployment.sizes import limits
from controlplane.objects.meta import condition, rfc3339, without_condition
from controlplane.objects.moment import left
from controlplane.reconcile.times import parse

NO_DEADLINE = 2**31 - 1
AVAILABLE_REASON = "NewReplicaSetAvailable"
TIMED_OUT = "ProgressDeadlineExceeded"
PAUSED, RESUMED = "DeploymentPaused", "DeploymentResumed"

Condition = Mapping[str, Any]


def has_deadline(deployment: Object) -> bool:
    return deployment["spec"].get("progressDeadlineSeconds") not in (None, NO_DEADLINE)


def _count(sets: Sequence[Object], field: str) -> int:
    return sum((item.get("status") or {}).get(field, 0) for item in sets)


def made(type_: str, status: str, reason: str, message: str) -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": message}


def set_condition(
    conditions: Sequence[Condition], new: Condition, now: datetime, *, touch: bool = False
) -> list[Condition]:
    """
    Put a condition in by its type; one with the same status and reason stays as it is.

    ``touch`` replaces it all the same: ``lastUpdateTime`` is what the progress deadline
    is measured from, so progress moves it though nothing else changes.
    """
    old = next((c for c in conditions if c["type"] == new["type"]), None)
    same_status = old is not None and old["status"] == new["status"]
    if old is not None and same_status and old.get("reason") == new["reason"] and not touch:
        return list(conditions)
    at = rfc3339(now)
    since = old.get("lastTransitionTime", at) if old is not None and same_status else at
    full = {**new, "lastUpdateTime": at, "lastTransitionTime": since}
    return [*(c for c in conditions if c["type"] != new["type"]), full]


def counts(
    deployment: Object, sets: Sequence[Object], new: Object | None, now: datetime
) -> dict[str, Any]:
    """Everything but Progressing, which stays as it was."""
    old = deployment.get("status") or {}
    available = _count(sets, "availableReplicas")
    limit = limits(deployment)
    if available >= limit.desired - limit.unavailable:
        enough = made(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    else:
        enough = made(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    status = {
        "observedGeneration": deployment["metadata"].get("generation", 0),
        "replicas": _count(sets, "replicas"),
        "updatedReplicas": _count([new], "replicas") if new is not None else 0,
        "readyReplicas": _count(sets, "readyReplicas"),
        "availableReplicas": available,
        "terminatingReplicas": _count(sets, "terminatingReplicas"),
        "unavailableReplicas": max(sum(map(replicas_of, sets)) - available, 0),
        "collisionCount": old.get("collisionCount"),
        "conditions": set_condition(old.get("conditions") or (), enough, now),
    }
    return {key: value for key, value in status.items() if value}


def is_complete(deployment: Object, status: Mapping[str, Any]) -> bool:
    desired = replicas_of(deployment)
    fields = ("replicas", "updatedReplicas", "availableReplicas")
    counted = [status.get(field, 0) for field in fields]
    behind = status.get("observedGeneration", 0) < deployment["metadata"].get("generation", 0)
    return not behind and all(count == desired for count in counted)


def _is_progressing(deployment: Object, status: Mapping[str, Any]) -> bool:
    """Any count moved in the direction of the update since the last status."""
    old = deployment.get("status") or {}

    def grew(field: str) -> bool:
        return bool(status.get(field, 0) > old.get(field, 0))

    def older(counted: Mapping[str, Any]) -> int:
        return int(counted.get("replicas", 0) - counted.get("updatedReplicas", 0))

    return (
        grew("updatedReplicas")
        or older(status) < older(old)
        or grew("readyReplicas")
        or grew("availableReplicas")
    )


def deadline_left(deployment: Object, now: datetime) -> timedelta | None:
    """Until the progress deadline; None: nothing is being waited for."""
    found = condition(deployment, "Progressing")
    if found is None or found.get("reason") in (AVAILABLE_REASON, PAUSED):
        return None
    if found.get("reason") == TIMED_OUT:
        return timedelta(0)
    since = parse(found.get("lastUpdateTime"))
    if since is None:
        return None
    span = timedelta(seconds=deployment["spec"]["progressDeadlineSeconds"])
    return left(since, span, now, ahead=span)


def rollout(
    deployment: Object, sets: Sequence[Object], new: Object | None, now: datetime
) -> dict[str, Any]:
    """The whole status while a rollout is going on, or over."""
    status = counts(deployment, sets, new, now)
    conditions = status.get("conditions", [])
    if not has_deadline(deployment):
        conditions = without_condition(conditions, "Progressing")
    elif not _was_complete(deployment, status):
        conditions = _progress(deployment, status, new, now)
    failure = _replica_failure(sets, new)
    if failure is not None:
        conditions = set_condition(conditions, failure, now)
    else:
        conditions = without_condition(conditions, "ReplicaFailure")
    return {**status, "conditions": conditions}


def _was_complete(deployment: Object, status: Mapping[str, Any]) -> bool:
    """Complete before and not updating now: scaling is no rollout and moves no condition."""
    found = condition(deployment, "Progressing")
    return (
        found is not None
        and found.get("reason") == AVAILABLE_REASON
        and status.get("replicas", 0) == status.get("updatedReplicas", 0)
    )


def _progress(
    deployment: Object, status: Mapping[str, Any], new: Object | None, now: datetime
) -> list[Condition]:
    conditions = status.get("conditions", [])
    what = f'Deployment "{deployment["metadata"]["name"]}"'
    if new is not None:
        what = f'ReplicaSet "{new["metadata"]["name"]}"'
    if is_complete(deployment, status):
        done = f"{what} has successfully progressed."
        condition_ = made("Progressing", "True", AVAILABLE_REASON, done)
        return set_condition(conditions, condition_, now)
    if _is_progressing(deployment, status):
        going = made("Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.")
        return set_condition(conditions, going, now, touch=True)
    remaining = deadline_left(deployment, now)
    if remaining is not None and remaining <= timedelta(0):
        late = made("Progressing", "False", TIMED_OUT, f"{what} has timed out progressing.")
        return set_condition(conditions, late, now)
    return list(conditions)


def _replica_failure(sets: Sequence[Object], new: Object | None) -> Condition | None:
    for item in [*([new] if new is not None else []), *sets]:
        found = condition(item, "ReplicaFailure")
        if found is not None:
            return made("ReplicaFailure", found["status"], found["reason"], found["message"])
    return None
