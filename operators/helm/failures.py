"""
How often an attempt failed, and when the next one may be made. Pure.

The count is kept in the status of the HelmChart, so a restart of the operators, or a node
that crashes again and again, does not begin to count anew. It is written with the
failure that it counts; where many look the same, only each tenth.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators.helm.base import HelmError
from operators.helm.plan import Memory

FIRST_RETRY = 10.0  # seconds; doubled with each failure, as a Job does
LONGEST_RETRY = 360.0
EACH_IS_WRITTEN = 10  # failures
INTERRUPTED = "Interrupted"
# Of a worker that ended before it answered: what it began is found interrupted then.
_CUT_SHORT = frozenset({"WorkerDied", "TimedOut"})
ROLLBACK_FAILED = "RollbackFailed"
TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What is being attempted. Failures of another attempt do not count for this one."""

    hash: str  # of what shapes the release
    generation: str  # of the chart and its configuration: any change of them is a new attempt
    access: str  # of the credentials and authorities on the way to the chart


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    attempt: Attempt
    count: int
    reason: str
    message: str
    final: bool  # not to be tried again
    retry_at: float  # of the clock of the process
    revision: str = ""  # the one that was interrupted, and the uid of its record


def delay(count: int) -> float:
    """Seconds between this failure and the next attempt."""
    return min(FIRST_RETRY * 2.0 ** min(count - 1, 10), LONGEST_RETRY)


def after(
    before: Failure | None,
    attempt: Attempt,
    err: HelmError,
    *,
    limit: int,
    clock: float,
    revision: str = "",
) -> Failure:
    """``limit``: how many attempts may follow the first. ``revision``: that was interrupted."""
    same = before is not None and before.attempt == attempt
    count = before.count + 1 if before and same else 1
    if (
        before
        and same
        and revision
        and (before.revision == revision or before.reason in _CUT_SHORT)
    ):
        count = before.count  # it is known already
    reason, message = err.reason, str(err)
    if count > limit and not err.permanent:
        reason = "BackoffLimitExceeded"
        message = f"gave up after {count} attempts: {err}"
    return Failure(
        attempt=attempt,
        count=count,
        reason=reason,
        message=message,
        final=err.permanent or count > limit,
        retry_at=clock + _pause(count, err.reason),
        revision=revision,
    )


def _pause(count: int, reason: str) -> float:
    if reason == INTERRUPTED:
        # A power cut says nothing of the chart: the first time it goes on at once.
        return delay(count - 1) if count > 1 else 0.0
    return delay(count)


def memory_of(failure: Failure | None, attempt: Attempt, *, rolling_back: bool = False) -> Memory:
    if failure is None or failure.attempt.hash != attempt.hash:
        return Memory(rolling_back=rolling_back)
    if failure.attempt.generation != attempt.generation:
        return Memory(touched=True, rolling_back=rolling_back)
    return Memory(
        interrupted=failure.count if failure.reason == INTERRUPTED else 0,
        given_up=failure.final and failure.attempt == attempt,
        rolling_back=rolling_back,
    )


def is_written(failure: Failure) -> bool:
    """Whether this one is worth a write for its count alone."""
    return failure.final or failure.count <= EACH_IS_WRITTEN or failure.count % EACH_IS_WRITTEN == 0


def to_status(failure: Failure, now: datetime) -> dict[str, Any]:
    return {
        "hash": failure.attempt.hash,
        "generation": failure.attempt.generation,
        "access": failure.attempt.access,
        "attempts": failure.count,
        "reason": failure.reason,
        "revision": failure.revision,
        "final": failure.final,
        "time": now.strftime(TIME),
    }


def from_status(status: Mapping[str, Any], *, now: datetime, clock: float) -> Failure | None:
    """None: nothing is known, or it is not what this module wrote."""
    found = status.get("failure")
    if not isinstance(found, Mapping):
        return None
    conditions = status.get("conditions") or ()
    said: Mapping[str, Any] = next((c for c in conditions if c.get("type") == "Failed"), {})
    count, reason = int(found.get("attempts") or 1), str(found.get("reason") or "Unknown")
    return Failure(
        attempt=Attempt(
            hash=str(found.get("hash") or ""),
            generation=str(found.get("generation") or ""),
            access=str(found.get("access") or ""),
        ),
        count=count,
        reason=reason,
        message=str(said.get("message") or "the attempt before failed"),
        revision=str(found.get("revision") or ""),
        final=bool(found.get("final")),
        retry_at=clock + _left(str(found.get("time") or ""), count, reason, now),
    )


def _left(written: str, count: int, reason: str, now: datetime) -> float:
    """Seconds until the next attempt; never more than after a failure just now."""
    if count >= EACH_IS_WRITTEN:  # when the last one was, nobody wrote down
        return delay(count)
    pause = _pause(count, reason)
    try:
        since = (now - datetime.strptime(written + "+0000", TIME + "%z")).total_seconds()
    except ValueError:
        return pause
    # A clock that went back in between must not make it wait for what it takes to be the future.
    return max(0.0, pause - max(0.0, since))
