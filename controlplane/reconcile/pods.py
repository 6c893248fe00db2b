"""
What state a pod is in, as all controllers of pods must agree on it; how pods are made.

Source: the API concept "Pod Lifecycle"; the order of deletion is that of the
ReplicaSet's documentation ("Scaling a ReplicaSet").
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import condition, controller_reference, is_deleting, is_true
from controlplane.objects.moment import left
from controlplane.reconcile.times import parse

FINISHED = ("Succeeded", "Failed")
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"


def phase(pod: Object) -> str:
    return (pod.get("status") or {}).get("phase") or "Pending"


def is_finished(pod: Object) -> bool:
    return phase(pod) in FINISHED


def is_active(pod: Object) -> bool:
    return not is_finished(pod) and not is_deleting(pod)


def is_terminating(pod: Object) -> bool:
    return is_deleting(pod) and not is_finished(pod)


def is_ready(pod: Object) -> bool:
    return is_true(pod, "Ready")


def ready_since(pod: Object) -> datetime | None:
    found = condition(pod, "Ready")
    if found is None or found.get("status") != "True":
        return None
    return parse(found.get("lastTransitionTime"))


def available_in(pod: Object, min_ready: int, now: datetime) -> timedelta | None:
    """How long until the pod has been ready for ``min_ready`` seconds; None: not ready now."""
    if not is_ready(pod):
        return None
    since = ready_since(pod)
    if not min_ready or since is None:
        return timedelta(0)
    return left(since, timedelta(seconds=min_ready), now)


def restarts(pod: Object) -> int:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return max((s.get("restartCount", 0) for s in statuses), default=0)


def deletion_order(pod: Object, neighbours: int, now: datetime) -> tuple[Any, ...]:
    """
    A sort key: whoever comes first is deleted first.

    ``neighbours``: how many pods of the same set run on the same node. Times are
    compared by powers of two, so that about equally old pods are picked at random (by uid).
    """
    meta = pod["metadata"]
    since = ready_since(pod)
    created = parse(meta.get("creationTimestamp"))
    return (
        bool((pod.get("spec") or {}).get("nodeName")),
        {"Pending": 0, "Unknown": 1}.get(phase(pod), 2),
        is_ready(pod),
        deletion_cost(pod),
        -neighbours,
        _age_bucket(since, now),
        -restarts(pod),
        _age_bucket(created, now),
        meta.get("uid", ""),
    )


def deletion_cost(pod: Object) -> int:
    text = (pod["metadata"].get("annotations") or {}).get(DELETION_COST, "0")
    try:
        return int(text)
    except ValueError:
        return 0


def _age_bucket(since: datetime | None, now: datetime) -> int:
    """0 for what just happened (or never), greater with age."""
    if since is None:
        return -1
    seconds = (now - since).total_seconds()
    return int(math.log2(seconds)) + 1 if seconds >= 1 else 0


def from_template(template: Mapping[str, Any], owner: Object) -> dict[str, Any]:
    """A pod of a pod template, owned by ``owner``, named by the server after it."""
    meta = template.get("metadata") or {}
    made: dict[str, Any] = {
        "generateName": f"{owner['metadata']['name']}-",
        "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [controller_reference(owner)],
    }
    for key in ("labels", "annotations", "finalizers"):
        if meta.get(key):
            made[key] = meta[key]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": template["spec"]}


def is_namespace_going(err: StatusError) -> bool:
    """Whether nothing can be created because the namespace is being deleted: no news to anybody."""
    causes = (err.details or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
