"""
The status of a StatefulSet: counts by state and by revision.

Source: the API documentation of StatefulSetStatus; upstream's controller/statefulset.
"""

from datetime import timedelta
from typing import Any

from controlplane.controllers.statefulset import identity
from controlplane.controllers.statefulset.view import View
from controlplane.objects.meta import is_deleting, name
from controlplane.reconcile import pods

ALWAYS = frozenset({"replicas", "availableReplicas", "collisionCount"})


def count(view: View) -> dict[str, Any]:
    owner, old = view.owner, view.owner.get("status") or {}
    staying = [pod for pod in view.pods if not is_deleting(pod)]
    waits = [view.wait(pod) for pod in view.pods if pods.phase(pod) == "Running"]
    status: dict[str, Any] = {
        "observedGeneration": owner["metadata"].get("generation", 0),
        "replicas": len(view.pods),
        "readyReplicas": sum(wait is not None for wait in waits),
        "availableReplicas": sum(wait == timedelta(0) for wait in waits),
        "currentReplicas": sum(map(view.is_current, staying)),
        "updatedReplicas": sum(map(view.is_updated, staying)),
        "currentRevision": name(view.current),
        "updateRevision": name(view.update),
        "collisionCount": old.get("collisionCount") or 0,
        "conditions": old.get("conditions"),
    }
    wanted = identity.replicas(owner)
    counts = ("replicas", "readyReplicas", "updatedReplicas")
    if view.rolls and all(status[key] == wanted for key in counts):
        # The update is over: from now on its revision is the one that is left.
        status["currentReplicas"] = status["updatedReplicas"]
        status["currentRevision"] = status["updateRevision"]
    return {key: value for key, value in status.items() if value or key in ALWAYS}


def later(view: View) -> timedelta | None:
    """After how long the next ready pod becomes available."""
    return min((wait for pod in view.pods if (wait := view.wait(pod))), default=None)
