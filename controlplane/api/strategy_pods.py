"""
What a pod and a job get from the server when they are created.

The quality of service class follows from the resources alone and never changes
(a resize that would change it is refused by validation).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.objects import quantity

_COUNTED = ("cpu", "memory")
_CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
_JOB_NAME = "batch.kubernetes.io/job-name"


def create_pod(pod: dict[str, Any]) -> None:
    pod["status"] = {"phase": "Pending", "qosClass": qos_class(pod.get("spec") or {})}
    if (pod.get("spec") or {}).get("schedulingGates"):
        pod["status"]["conditions"] = [
            {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": pod["metadata"].get("creationTimestamp"),
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
        ]


def qos_class(spec: Mapping[str, Any]) -> str:
    """Guaranteed, Burstable or BestEffort."""
    if _amounts((spec,), "requests") or _amounts((spec,), "limits"):
        holders: list[Mapping[str, Any]] = [spec]
    else:
        holders = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    requests, limits = _amounts(holders, "requests"), _amounts(holders, "limits")
    if not requests and not limits:
        return "BestEffort"
    guaranteed = all(
        set(_amounts((holder,), "limits")) == set(_COUNTED) for holder in holders
    ) and all(requests.get(name, limits[name]) == limits[name] for name in limits)
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(holders: Iterable[Mapping[str, Any]], which: str) -> dict[str, int]:
    """The sums, in billionths, of what is above zero."""
    sums: dict[str, int] = {}
    for holder in holders:
        for name, value in ((holder.get("resources") or {}).get(which) or {}).items():
            amount = quantity.nanos(value) if name in _COUNTED else 0
            if amount:
                sums[name] = sums.get(name, 0) + amount
    return sums


def create_job(job: dict[str, Any]) -> None:
    """The labels and the selector that tie pods to this job and no other."""
    spec = job.setdefault("spec", {})
    job["status"] = {}
    if spec.get("manualSelector"):
        return
    metadata = job["metadata"]
    template = spec.setdefault("template", {}).setdefault("metadata", {})
    labels = template["labels"] = dict(template.get("labels") or {})
    labels.setdefault("controller-uid", metadata["uid"])
    labels.setdefault(_CONTROLLER_UID, metadata["uid"])
    name = metadata.get("name", "")
    if len(name) <= 63:
        labels.setdefault("job-name", name)
        labels.setdefault(_JOB_NAME, name)
    # As its defaults would do at the next write: a job has its template's labels.
    if not metadata.get("labels"):
        metadata["labels"] = dict(labels)
    selector = spec["selector"] = dict(spec.get("selector") or {})
    matched = selector["matchLabels"] = dict(selector.get("matchLabels") or {})
    matched.setdefault(_CONTROLLER_UID, metadata["uid"])
