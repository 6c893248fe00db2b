"""
The pods of a Job, told apart and counted once.

A pod keeps a finalizer until it is counted. The count goes to the status first
(``uncountedTerminatedPods``), then the finalizer comes off, then the count becomes
final: whatever is interrupted, no pod counts twice and none is missed.
Source: KEP-2307 (job tracking without lingering pods).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.job import failures, indexes
from controlplane.objects.meta import finalizers, is_deleting, uid_of
from controlplane.objects.resources import PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Patch

FINALIZER = "batch.kubernetes.io/job-tracking"


@dataclass(frozen=True, slots=True)
class Tally:
    job: Object
    owned: Sequence[Object]
    active: Sequence[Object]
    terminating: Sequence[Object]
    succeeded: Sequence[Object]  # pods that are still there
    failed: Sequence[Object]
    succeeded_count: int
    failed_count: int
    uncounted: dict[str, list[str]]  # succeeded, failed → uids
    completed: frozenset[int]  # indexes
    given_up: frozenset[int]

    @property
    def is_indexed(self) -> bool:
        return is_indexed(self.job)


def is_indexed(job: Object) -> bool:
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_failed(job: Object, pod: Object) -> bool:
    if pods.phase(pod) == "Failed":
        return True
    # Pods that go because the Job is suspended have not failed.
    if replaces_only_failed(job) or job["spec"].get("suspend"):
        return False
    return is_deleting(pod) and pods.phase(pod) != "Succeeded"


def replaces_only_failed(job: Object) -> bool:
    return bool(job["spec"].get("podReplacementPolicy") == "Failed")


def take(job: Object, owned: Sequence[Object]) -> Tally:
    old = job.get("status") or {}
    indexed, most = is_indexed(job), job["spec"].get("completions") or 0
    succeeded = [p for p in owned if pods.phase(p) == "Succeeded"]
    failed = [p for p in owned if is_failed(job, p)]
    uncounted, done = _count(job, owned, succeeded, failed)
    completed: set[int] = set()
    given_up: set[int] = set()
    if indexed:
        completed = indexes.parse(old.get("completedIndexes"), most)
        completed |= {i for i in indexes.completed(succeeded) if i < most}
        given_up = indexes.parse(old.get("failedIndexes"), most)
        given_up |= {i for i in failures.failed_indexes(job, failed) if i < most} - completed
    return Tally(
        job=job,
        owned=owned,
        active=[p for p in owned if pods.is_active(p)],
        terminating=[p for p in owned if pods.is_terminating(p)],
        succeeded=succeeded,
        failed=failed,
        succeeded_count=len(completed) if indexed else done[0] + len(uncounted["succeeded"]),
        failed_count=done[1] + len(uncounted["failed"]),
        uncounted=uncounted,
        completed=frozenset(completed),
        given_up=frozenset(given_up),
    )


def _count(
    job: Object, owned: Sequence[Object], succeeded: Sequence[Object], failed: Sequence[Object]
) -> tuple[dict[str, list[str]], tuple[int, int]]:
    """What waits for its finalizer to come off, and what is counted for good."""
    old = job.get("status") or {}
    listed = old.get("uncountedTerminatedPods") or {}
    held = {uid_of(p) for p in owned if FINALIZER in finalizers(p)}
    before = {key: list(listed.get(key) or ()) for key in ("succeeded", "failed")}
    noted = {*before["succeeded"], *before["failed"]}
    uncounted = {key: [uid for uid in uids if uid in held] for key, uids in before.items()}
    final = {key: len(before[key]) - len(uncounted[key]) for key in before}
    fresh = {"succeeded": [] if is_indexed(job) else succeeded, "failed": failed}
    for key, found in fresh.items():
        for pod in found:
            if uid_of(pod) in held and uid_of(pod) not in noted:
                if key == "failed" and failures.judge(job, pod)[0] == "Ignore":
                    continue
                uncounted[key].append(uid_of(pod))
    counted = old.get("succeeded", 0) - len(before["succeeded"]) + final["succeeded"]
    lost = old.get("failed", 0) - len(before["failed"]) + final["failed"]
    return uncounted, (max(counted, 0), max(lost, 0))


def releases(job: Object, tally: Tally, *, everything: bool = False) -> Iterator[Patch]:
    """Finalizers off the pods that the status has counted; off all once the Job is over."""
    for pod in tally.owned:
        over = pods.is_finished(pod) or is_failed(job, pod) or _is_let_go(job, pod)
        if FINALIZER in finalizers(pod) and (over or everything):
            yield release(pod)


def _is_let_go(job: Object, pod: Object) -> bool:
    """On its way out without having failed: by a suspension, or with the whole Job."""
    return is_deleting(pod) and bool(job["spec"].get("suspend") or is_deleting(job))


def release(pod: Object) -> Patch:
    meta: dict[str, Any] = dict(pod["metadata"])
    body = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "finalizers": [f for f in finalizers(pod) if f != FINALIZER],
        }
    }
    return Patch(PODS, meta["namespace"], meta["name"], body)
