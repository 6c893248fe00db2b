"""
What is remembered from look to look: failures of attempts, and revisions that others make.

The failures are in the status of the HelmChart too, which is read where this process
does not know of any, as after a restart.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators.helm import failures, status, wanted
from operators.helm.base import HelmError, Job
from operators.helm.failures import Attempt, Failure
from operators.helm.plan import STORM_ATTEMPTS, Revision, storm
from operators.helm.tell import Teller

Object = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One HelmChart at one look."""

    key: str  # namespace/name
    chart: Object  # as it was read; its status as it was written since
    job: Job
    policy: str  # of failure
    history: Sequence[Revision]
    attempt: Attempt
    failure: Failure | None  # the last one, of this attempt or of another


class Attempts:
    """``now`` is the time of day, ``clock`` the seconds that a back-off is measured in."""

    def __init__(
        self, teller: Teller, *, now: Callable[[], datetime], clock: Callable[[], float]
    ) -> None:
        self._teller = teller
        self._now = now
        self._clock = clock
        self._failures: dict[str, Failure] = {}
        self._pending: dict[str, tuple[Revision, float]] = {}  # first seen at
        self._begun: dict[str, deque[float]] = {}  # the last few attempts, newest first
        self._held: dict[str, int] = {}  # how many of them had to wait for calmer times

    def remembered(self, key: str, chart: Object) -> Failure | None:
        if key not in self._failures:
            told = chart.get("status") or {}
            found = failures.from_status(told, now=self._now(), clock=self._clock())
            if found is None:
                return None
            self._failures[key] = found
        return self._failures[key]

    def forget(self, key: str, *, gone: bool = False) -> None:
        """``gone``: the chart is no more; else it is as wanted."""
        self._failures.pop(key, None)
        self._pending.pop(key, None)
        if gone:
            self._begun.pop(key, None)
            self._held.pop(key, None)

    def begin(self, key: str) -> float:
        """
        Count one more attempt; or seconds to wait, where there were too many of late.

        Failures have their own pauses, but somebody may change the chart each time.
        """
        begun = self._begun.setdefault(key, deque(maxlen=STORM_ATTEMPTS))
        now, held = self._clock(), self._held.get(key, 0)
        left = storm([now - at for at in begun], held)
        if left:
            return left
        if left is None:
            self._held.pop(key, None)
        else:
            self._held[key] = held + 1
        begun.appendleft(now)
        return 0.0

    def waited(self, key: str, history: Sequence[Revision]) -> float:
        """For how many seconds the last revision has been as it is, as far as this process saw."""
        last = history[-1] if history else None
        if last is None or not last.status.startswith("pending-"):
            self._pending.pop(key, None)
            return 0.0
        seen, since = self._pending.get(key, (None, 0.0))
        if seen != last:
            since = self._clock()
            self._pending[key] = (last, since)
        return self._clock() - since

    def left(self, look: Look) -> float:
        """Seconds until this may be attempted again; 0: now."""
        failure = look.failure
        if failure is None or failure.attempt != look.attempt:
            return 0.0
        return max(0.0, failure.retry_at - self._clock())

    async def is_given_up(self, look: Look) -> bool:
        failure = look.failure
        if failure is None or failure.attempt != look.attempt or not failure.final:
            return False
        await self._teller.tell(look.chart, status.failure(failure.reason, failure.message))
        return True

    async def failed(self, look: Look, err: HelmError, *, revision: str = "") -> Failure:
        """One more failure; told, and written down. ``revision``: that was interrupted."""
        failure = failures.after(
            look.failure,
            look.attempt,
            err,
            limit=wanted.backoff_limit(look.chart),
            clock=self._clock(),
            revision=revision,
        )
        self._failures[look.key] = failure
        fields = {}
        if failures.is_written(failure):
            fields["failure"] = failures.to_status(failure, self._now())
        outcome = status.failure(failure.reason, failure.message)
        await self._teller.tell(look.chart, outcome, fields=fields)
        return failure

    async def give_up(self, look: Look, reason: str, message: str) -> None:
        """Until the chart changes."""
        failure = Failure(
            attempt=look.attempt, count=1, reason=reason, message=message, final=True, retry_at=0.0
        )
        self._failures[look.key] = failure
        fields = {"failure": failures.to_status(failure, self._now())}
        await self._teller.tell(look.chart, status.failure(reason, message), fields=fields)
