"""
When a Job has failed, which failures count, and how long to wait after one.

Source: the API concept "Jobs" ("Pod backoff failure policy", "Pod failure policy");
KEP-3329 (pod failure policy), KEP-3850 (backoff limit per index).
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.job import indexes
from controlplane.objects.meta import condition
from controlplane.objects.moment import left
from controlplane.reconcile import pods
from controlplane.reconcile.times import parse

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=10), timedelta(minutes=10)
FAILURE_COUNT = "batch.kubernetes.io/job-index-failure-count"

Reason = tuple[str, str]  # reason, message


def finished_at(pod: Object) -> datetime | None:
    """When its last container ended; where that is unknown, when the pod became unready."""
    status = pod.get("status") or {}
    ends = [
        parse(((c.get("state") or {}).get("terminated") or {}).get("finishedAt"))
        for c in status.get("containerStatuses") or ()
    ]
    known = [end for end in ends if end is not None]
    if known:
        return max(known)
    ready = condition(pod, "Ready") or {}
    meta = pod["metadata"]
    return parse(
        ready.get("lastTransitionTime")
        or meta.get("deletionTimestamp")
        or meta.get("creationTimestamp")
    )


def delay_left(finished: Iterable[Object], failed: Iterable[Object], now: datetime) -> timedelta:
    """Until new pods may be made: doubled with each failure since the last success."""
    successes = [at for pod in finished if (at := finished_at(pod)) is not None]
    after = max(successes, default=None)
    ends = [at for pod in failed if (at := finished_at(pod)) is not None]
    recent = [at for at in ends if after is None or at > after]
    if not recent:
        return timedelta(0)
    doublings: int = min(len(recent) - 1, 20)
    whole = min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)
    return left(max(recent), whole, now)


def beyond_limit(job: Object, failed: int, active: Iterable[Object]) -> bool:
    """Failed pods, and restarts of containers where pods restart them in place."""
    spec = job["spec"]
    limit = spec.get("backoffLimit", 6)
    if failed > limit:
        return True
    if spec["template"]["spec"].get("restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        status.get("restartCount", 0)
        for pod in active
        if pods.phase(pod) in ("Running", "Pending")
        for field in ("initContainerStatuses", "containerStatuses")
        for status in (pod.get("status") or {}).get(field) or ()
    )
    return bool(restarts >= limit) if limit else restarts > 0


# -- the pod failure policy


def judge(job: Object, pod: Object) -> tuple[str, Reason]:
    """What the policy says of a failed pod: Count, Ignore, FailJob or FailIndex; and why."""
    rules = (job["spec"].get("podFailurePolicy") or {}).get("rules") or ()
    if pods.phase(pod) != "Failed":
        return "Count", ("", "")
    for number, rule in enumerate(rules):
        text = _by_exit_code(rule, pod) or _by_condition(rule, pod)
        if text:
            message = f"{text} matching {rule['action']} rule at index {number}"
            return rule["action"], ("PodFailurePolicy", message)
    return "Count", ("", "")


def _by_exit_code(rule: Mapping[str, Any], pod: Object) -> str:
    wanted = rule.get("onExitCodes")
    if not wanted:
        return ""
    status = pod.get("status") or {}
    for field in ("initContainerStatuses", "containerStatuses"):
        for container in status.get(field) or ():
            code = ((container.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
            name = wanted.get("containerName")
            if not code or (name and name != container["name"]):
                continue
            if (code in wanted["values"]) == (wanted["operator"] == "In"):
                text = f"Container {container['name']} for pod {_called(pod)}"
                return f"{text} failed with exit code {code}"
    return ""


def _by_condition(rule: Mapping[str, Any], pod: Object) -> str:
    for pattern in rule.get("onPodConditions") or ():
        found = condition(pod, pattern["type"])
        if found is not None and found["status"] == pattern.get("status", "True"):
            return f"Pod {_called(pod)} has condition {pattern['type']}"
    return ""


def _called(pod: Object) -> str:
    return f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"


# -- the limit for each index


def count_of(pod: Object) -> int:
    """How often the pod's index had failed before it."""
    text = (pod["metadata"].get("annotations") or {}).get(FAILURE_COUNT, "0")
    return int(text) if text.isdigit() else 0


def failed_indexes(job: Object, failed: Sequence[Object]) -> set[int]:
    """Indexes that have used up their own limit, or that the policy gives up."""
    limit = job["spec"].get("backoffLimitPerIndex")
    if limit is None:
        return set()
    gone: set[int] = set()
    for pod in failed:
        index = indexes.of_pod(pod)
        action, _ = judge(job, pod)
        if index is not None and (action == "FailIndex" or count_of(pod) >= limit):
            gone.add(index)
    return gone


def next_count(job: Object, index: int, failed: Iterable[Object]) -> int:
    """The failure count of the next pod of an index."""
    counts = [
        count_of(pod) + (judge(job, pod)[0] != "Ignore")
        for pod in failed
        if indexes.of_pod(pod) == index
    ]
    return max(counts, default=0)
