"""
The Job controller: count, decide whether it is over, else bring the pods to the wanted number.

A Job that is decided says so first (SuccessCriteriaMet, FailureTarget) and is
Complete or Failed only once its last pod has gone.
Source: the API concept "Jobs"; KEP-3998 (success policy), KEP-3939 (pod replacement policy).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.job import failures, indexes, tally
from controlplane.controllers.job.tally import FINALIZER, Tally
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import (
    clone,
    condition,
    controller_of,
    finalizers,
    is_deleting,
    is_true,
    rfc3339,
)
from controlplane.objects.moment import elapsed, left
from controlplane.objects.resources import JOBS, PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import (
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Record,
    SetStatus,
    Write,
)
from controlplane.reconcile.ownership import claim
from controlplane.reconcile.times import parse

BURST = 500
CONTROLLER_NAME = "kubernetes.io/job-controller"
COMPLETIONS_REACHED = ("CompletionsReached", "Reached expected number of succeeded pods")

Reason = tuple[str, str]  # reason, message


@dataclass(frozen=True, slots=True)
class _Verdict:
    """``target``: SuccessCriteriaMet or FailureTarget; both are final."""

    target: str
    why: Reason

    @property
    def final(self) -> str:
        return "Complete" if self.target == "SuccessCriteriaMet" else "Failed"


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    job = reads.get(JOBS, key.namespace, key.name)
    if job is None:
        yield from _release_orphans(key, reads)
        return
    if job["spec"].get("managedBy", CONTROLLER_NAME) != CONTROLLER_NAME:
        return
    selector = selectors.of_object(job["spec"].get("selector"))
    candidates = reads.list(PODS, key.namespace)
    owned, patches = claim(job, PODS, candidates, selector.matches, finalizer=FINALIZER)
    yield from patches
    counted = tally.take(job, owned)
    if is_true(job, "Complete") or is_true(job, "Failed"):
        yield from tally.releases(job, counted, everything=True)
        yield from _expire(job, now)
        return
    yield from _advance(job, counted, now)


def _release_orphans(key: Key, reads: Reads) -> Iterator[Write]:
    """Pods of a Job that is gone shall not wait to be counted."""
    for pod in reads.list(PODS, key.namespace):
        reference = controller_of(pod)
        if (
            FINALIZER in finalizers(pod)
            and reference is not None
            and (reference["kind"], reference["name"]) == ("Job", key.name)
        ):
            yield tally.release(pod)


def _expire(job: Object, now: datetime) -> Iterator[Write]:
    """``ttlSecondsAfterFinished``."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    found = condition(job, "Complete") or condition(job, "Failed") or {}
    ended = parse(found.get("lastTransitionTime"))
    if ttl is None or ended is None or is_deleting(job):
        return
    remaining = left(ended, timedelta(seconds=ttl), now)
    if remaining > timedelta(0):
        yield Again(remaining)
    else:
        yield Delete(JOBS, job, "Foreground")


# -- one pass over a Job that is not over


def _advance(job: Object, counted: Tally, now: datetime) -> Iterator[Write]:
    status: dict[str, Any] = clone(dict(job.get("status") or {}))
    suspended = bool(job["spec"].get("suspend"))
    yield from _start_or_suspend(job, status, now, suspended=suspended)
    verdict = _verdict(job, counted, now)
    work: list[Write] = []
    if verdict is not None:
        work += [Delete(PODS, pod) for pod in counted.active]
        yield from _judge(job, status, verdict, counted, now=now)
    elif suspended:
        work += [Delete(PODS, pod) for pod in counted.active]
        work += _deleted(job, counted.active)
    elif not is_deleting(job):
        work += _manage(job, counted, now)
        work += _deadline(job, status, now)
    _fill(status, counted)
    if _plain(status) != _plain(job.get("status") or {}):
        yield SetStatus(JOBS, job, status)
    yield from tally.releases(job, counted)
    yield from work


def _fill(status: dict[str, Any], counted: Tally) -> None:
    status |= {
        "active": len(counted.active),
        "ready": sum(map(pods.is_ready, counted.active)),
        "terminating": len(counted.terminating),
        "succeeded": counted.succeeded_count,
        "failed": counted.failed_count,
        "uncountedTerminatedPods": {k: v for k, v in counted.uncounted.items() if v},
    }
    if counted.is_indexed:
        status["completedIndexes"] = indexes.text_of(counted.completed)
        if counted.job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = indexes.text_of(counted.given_up)


def _plain(status: Object) -> dict[str, Any]:
    return {key: value for key, value in status.items() if value}


def _start_or_suspend(
    job: Object, status: dict[str, Any], now: datetime, *, suspended: bool
) -> Iterator[Write]:
    was = is_true(job, "Suspended")
    if suspended and not was:
        status.pop("startTime", None)
        _set(status, ("Suspended", "True"), ("JobSuspended", "Job suspended"), now)
        yield Record(job, "Normal", "Suspended", "Job suspended")
    elif was and not suspended:
        _set(status, ("Suspended", "False"), ("JobResumed", "Job resumed"), now)
        status["startTime"] = rfc3339(now)
        yield Record(job, "Normal", "Resumed", "Job resumed")
    elif not suspended:
        status.setdefault("startTime", rfc3339(now))


def _set(status: dict[str, Any], what: tuple[str, str], why: Reason, now: datetime) -> None:
    at = rfc3339(now)
    entry = {
        "type": what[0],
        "status": what[1],
        "lastProbeTime": at,
        "lastTransitionTime": at,
        "reason": why[0],
        "message": why[1],
    }
    others = [c for c in status.get("conditions") or () if c["type"] != what[0]]
    status["conditions"] = [*others, entry]


# -- is it over?


def _verdict(job: Object, counted: Tally, now: datetime) -> _Verdict | None:
    for target in ("FailureTarget", "SuccessCriteriaMet"):
        found = condition(job, target)
        if found is not None and found["status"] == "True":
            return _Verdict(target, (found.get("reason", ""), found.get("message", "")))
    failed = _failure(job, counted, now)
    if failed is not None:
        return _Verdict("FailureTarget", failed)
    succeeded = _success(job, counted)
    return _Verdict("SuccessCriteriaMet", succeeded) if succeeded is not None else None


def _failure(job: Object, counted: Tally, now: datetime) -> Reason | None:
    spec = job["spec"]
    for pod in counted.failed:
        action, why = failures.judge(job, pod)
        if action == "FailJob":
            return why
    if failures.beyond_limit(job, counted.failed_count, counted.active):
        return "BackoffLimitExceeded", "Job has reached the specified backoff limit"
    start = parse((job.get("status") or {}).get("startTime"))
    limit = spec.get("activeDeadlineSeconds")
    is_late = (
        limit is not None and start is not None and elapsed(start, now) >= timedelta(seconds=limit)
    )
    if is_late and not spec.get("suspend"):
        return "DeadlineExceeded", "Job was active longer than specified deadline"
    return _index_failure(job, counted)


def _index_failure(job: Object, counted: Tally) -> Reason | None:
    if not counted.given_up:
        return None
    most = job["spec"].get("maxFailedIndexes")
    if most is not None and len(counted.given_up) > most:
        return (
            "MaxFailedIndexesExceeded",
            "Job has exceeded the specified maximal number of failed indexes",
        )
    if len(counted.given_up) + len(counted.completed) >= job["spec"]["completions"]:
        return "FailedIndexes", "Job has failed indexes"
    return None


def _success(job: Object, counted: Tally) -> Reason | None:
    policy = _by_policy(job, counted)
    if policy is not None:
        return policy
    completions = job["spec"].get("completions")
    if completions is None:
        # A work queue: one success says that all the work is taken.
        done = counted.succeeded_count > 0 and not counted.active
    else:
        done = counted.succeeded_count >= completions
    return COMPLETIONS_REACHED if done else None


def _by_policy(job: Object, counted: Tally) -> Reason | None:
    rules = (job["spec"].get("successPolicy") or {}).get("rules") or ()
    for number, rule in enumerate(rules):
        found = set(counted.completed)
        wanted = None
        if rule.get("succeededIndexes"):
            wanted = indexes.parse(rule["succeededIndexes"], job["spec"]["completions"])
            found &= wanted
        least = rule.get("succeededCount")
        met = found == wanted if least is None else len(found) >= least
        if met:
            return "SuccessPolicy", f"Matched rules at index {number}"
    return None


def _judge(
    job: Object, status: dict[str, Any], verdict: _Verdict, counted: Tally, *, now: datetime
) -> Iterator[Write]:
    if not is_true(job, verdict.target):
        _set(status, (verdict.target, "True"), verdict.why, now)
    at_work = counted.active or counted.terminating or any(counted.uncounted.values())
    if at_work or any(FINALIZER in finalizers(pod) for pod in counted.owned):
        return
    _set(status, (verdict.final, "True"), verdict.why, now)
    if verdict.final == "Complete":
        status["completionTime"] = rfc3339(now)
        yield Record(job, "Normal", "Completed", "Job completed")
    else:
        yield Record(job, "Warning", *verdict.why)


def _deadline(job: Object, status: dict[str, Any], now: datetime) -> Iterator[Write]:
    limit, start = job["spec"].get("activeDeadlineSeconds"), parse(status.get("startTime"))
    if limit is not None and start is not None:
        span = timedelta(seconds=limit)
        remaining = left(start, span, now, ahead=span)
        if remaining > timedelta(0):
            yield Again(remaining)


# -- the wanted number of pods


def _manage(job: Object, counted: Tally, now: datetime) -> Iterator[Write]:
    wanted = _wanted(job, counted)
    active = len(counted.active)
    if active > wanted:
        ordered = sorted(counted.active, key=lambda pod: pods.deletion_order(pod, 0, now))
        doomed = ordered[: active - wanted]
        yield from (Delete(PODS, pod) for pod in doomed)
        yield from _deleted(job, doomed)
        return
    missing = wanted - active
    if tally.replaces_only_failed(job):
        missing -= len(counted.terminating)
    if missing <= 0:
        return
    fresh = [pod for pod in counted.failed if failures.judge(job, pod)[0] != "Ignore"]
    wait = failures.delay_left(counted.succeeded, fresh, now)
    if wait > timedelta(0):
        yield Again(wait)
        return
    yield from _create(job, counted, min(missing, BURST))


def _wanted(job: Object, counted: Tally) -> int:
    spec = job["spec"]
    parallelism, completions = int(spec.get("parallelism", 1)), spec.get("completions")
    if completions is None:
        return len(counted.active) if counted.succeeded_count > 0 else parallelism
    open_ = int(completions) - counted.succeeded_count - len(counted.given_up)
    return max(min(parallelism, open_), 0)


def _deleted(job: Object, gone: Sequence[Object]) -> Iterator[Write]:
    for pod in gone:
        text = f"Deleted pod: {pod['metadata']['name']}"
        yield Record(job, "Normal", "SuccessfulDelete", text)


def _create(job: Object, counted: Tally, count: int) -> Iterator[Write]:
    def made(pod: Object) -> list[Write]:
        name = pod["metadata"]["name"]
        return [Record(job, "Normal", "SuccessfulCreate", f"Created pod: {name}")]

    def refused(err: StatusError) -> list[Write]:
        if pods.is_namespace_going(err):
            return []
        return [Record(job, "Warning", "FailedCreate", f"Error creating: {err.message}")]

    for body in _bodies(job, counted, count):
        yield Create(PODS, body, on_success=made, on_failure=refused)


def _bodies(job: Object, counted: Tally, count: int) -> Iterator[Object]:
    body = pods.from_template(job["spec"]["template"], job)
    meta = body["metadata"]
    meta["finalizers"] = [*meta.get("finalizers", ()), FINALIZER]
    if not counted.is_indexed:
        for _ in range(count):
            yield body
        return
    taken = indexes.completed(counted.active) | counted.completed | counted.given_up
    if tally.replaces_only_failed(job):
        taken |= indexes.completed(counted.terminating)
    free = (i for i in range(job["spec"]["completions"]) if i not in taken)
    for _, index in zip(range(count), free, strict=False):
        yield _indexed(job, body, index, counted)


def _indexed(job: Object, body: Object, index: int, counted: Tally) -> Object:
    made: dict[str, Any] = clone(dict(body))
    meta, spec = made["metadata"], made["spec"]
    name = job["metadata"]["name"]
    mark = {indexes.INDEX: str(index)}
    meta["generateName"] = f"{name}-{index}-"
    meta["annotations"] = {**meta.get("annotations", {}), **mark}
    meta["labels"] = {**meta.get("labels", {}), **mark}
    if job["spec"].get("backoffLimitPerIndex") is not None:
        before = failures.next_count(job, index, counted.failed)
        meta["annotations"][failures.FAILURE_COUNT] = str(before)
    if not spec.get("hostname"):
        spec["hostname"] = f"{name}-{index}"
    for container in [*(spec.get("initContainers") or ()), *spec["containers"]]:
        env = container.setdefault("env", [])
        if not any(entry["name"] == "JOB_COMPLETION_INDEX" for entry in env):
            path = f"metadata.labels['{indexes.INDEX}']"
            source = {"fieldRef": {"fieldPath": path}}
            env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})
    return made


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    for pod in (change.old, change.new):
        reference = controller_of(pod) if pod is not None else None
        if reference is not None and reference["kind"] == "Job":
            yield Key(change.namespace, reference["name"])
    if change.new is not None and controller_of(change.new) is None:
        labels = change.new["metadata"].get("labels")
        for job in reads.list(JOBS, change.namespace):
            if selectors.of_object(job["spec"].get("selector")).matches(labels):
                yield Key(change.namespace, job["metadata"]["name"])


JOB = Controller(
    name="job-controller",
    primary=JOBS,
    reads=frozenset({PODS}),
    writes=frozenset({JOBS, PODS}),
    shares=frozenset({JOBS, PODS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
