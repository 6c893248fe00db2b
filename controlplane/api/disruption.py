"""
Whether a pod may be evicted now: its PodDisruptionBudget says so and is told at once.

The budget's controller counts healthy pods; between two counts the eviction
itself takes one off, so that two evictions at the same time cannot both be the
last one allowed. Source: KEP-85 and KEP-3017.
"""

from typing import Any

from controlplane.api import pipeline
from controlplane.api.call import Call, Parts
from controlplane.api.strategy import prepare_status
from controlplane.api.write import Change, change
from controlplane.client.base import Object
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError, forbidden
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import condition, rfc3339, with_condition

BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", True)
_MOST_DISRUPTED = 2000


async def admit_eviction(parts: Parts, call: Call, pod: Object) -> None:
    """Return if the pod may go; 429 with the cause DisruptionBudget if not now."""
    status = pod.get("status") or {}
    if status.get("phase") in ("Succeeded", "Failed", "Pending"):
        return
    if pod["metadata"].get("deletionTimestamp"):
        return
    labels = pod["metadata"].get("labels")
    budgets = [
        budget
        for budget in parts.cache.list(BUDGETS, call.namespace)
        if selectors.of_object((budget.get("spec") or {}).get("selector")).matches(labels)
    ]
    if not budgets:
        return
    if len(budgets) > 1:
        raise StatusError(
            500,
            "InternalError",
            "This pod has more than one PodDisruptionBudget, which the eviction subresource "
            "does not support.",
        )
    budget = budgets[0]
    if not _is_ready(pod) and _lets_unready_go(budget):
        return
    await _take_one(parts, call, budget["metadata"]["name"])


async def mark_evicted(parts: Parts, call: Call) -> None:
    """Say on the pod that it does not end by itself (KEP-3329): Jobs may not count it."""
    now = parts.clock()
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    pod_call = Call(
        user=call.user,
        kind=call.kind,
        namespace=call.namespace,
        name=call.name,
        subresource="status",
        options=call.options,
        agent=call.agent,
    )

    async def make(old: Object) -> dict[str, Any]:
        new: dict[str, Any] = pipeline.copy(old)
        status = new.setdefault("status", {})
        status["conditions"] = with_condition(status.get("conditions"), target, now)
        return new

    await change(parts, pod_call, Change(make=make, prepare=prepare_status, admitted=True))


def _is_ready(pod: Object) -> bool:
    ready = condition(pod, "Ready")
    return ready is not None and ready.get("status") == "True"


def _lets_unready_go(budget: Object) -> bool:
    if (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget.get("status") or {}
    desired = status.get("desiredHealthy") or 0
    return bool(desired > 0 and (status.get("currentHealthy") or 0) >= desired)


async def _take_one(parts: Parts, call: Call, name: str) -> None:
    kind = parts.kinds.by_resource(*BUDGETS[:3])
    assert kind is not None
    budget_call = Call(
        user=call.user,
        kind=kind,
        namespace=call.namespace,
        name=name,
        subresource="status",
        options=call.options,
        agent="eviction",
    )
    now = rfc3339(parts.clock())

    async def make(old: Object) -> dict[str, Any]:
        _check(old)
        new: dict[str, Any] = pipeline.copy(old)
        status = new["status"]
        status["disruptionsAllowed"] -= 1
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), call.name: now}
        return new

    await change(parts, budget_call, Change(make=make, prepare=prepare_status, admitted=True))


def _check(budget: Object) -> None:
    name = budget["metadata"]["name"]
    status = budget.get("status") or {}
    if (status.get("observedGeneration") or 0) < (budget["metadata"].get("generation") or 0):
        why = f"The disruption budget {name} is still being processed by the server."
        raise _not_now(why, 10)
    allowed = status.get("disruptionsAllowed") or 0
    if allowed < 0:
        raise forbidden("poddisruptionbudgets.policy", name, "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > _MOST_DISRUPTED:
        why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
        raise forbidden("poddisruptionbudgets.policy", name, why)
    if allowed == 0:
        needed, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
        why = (
            f"The disruption budget {name} needs {needed} healthy pods and has {healthy} currently"
        )
        raise _not_now(why, 0)


def _not_now(why: str, retry_after: int) -> StatusError:
    details: dict[str, Any] = {"causes": [{"reason": "DisruptionBudget", "message": why}]}
    headers = {}
    if retry_after:
        details["retryAfterSeconds"] = retry_after
        headers["Retry-After"] = str(retry_after)
    return StatusError(
        429,
        "TooManyRequests",
        "Cannot evict pod as it would violate the pod's disruption budget.",
        details=details,
        headers=headers,
    )
