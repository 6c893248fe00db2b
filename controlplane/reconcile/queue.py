"""
Queues of keys: each waits once, is worked on by one worker at a time, and comes back on time.

A key that is added while it is worked on is worked on again afterwards, so no
change is lost and no two workers ever hold the same key.
"""

import heapq
import random
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from controlplane.reconcile.clock import Clock, Timer

K = TypeVar("K", bound=Hashable)

FIRST_DELAY = 0.005  # seconds, doubled with each failure; upstream's rate limiter
LONGEST_DELAY = 1000.0


class Queue(Generic[K]):
    """
    First in, first out, without doubles.

    Its mutable state: ``_waiting`` (order) and ``_queued`` (membership) agree;
    ``_active`` are being worked on; ``_dirty`` is the part of ``_active`` to queue again.
    """

    def __init__(self) -> None:
        self._waiting: deque[K] = deque()
        self._queued: set[K] = set()
        self._active: set[K] = set()
        self._dirty: set[K] = set()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def active(self) -> int:
        return len(self._active)

    def add(self, key: K) -> None:
        if key in self._active:
            self._dirty.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.append(key)

    def take(self) -> K | None:
        """The next key, now active until :meth:`done`; None: nothing waits."""
        if not self._waiting:
            return None
        key = self._waiting.popleft()
        self._queued.discard(key)
        self._active.add(key)
        return key

    def done(self, key: K) -> None:
        self._active.discard(key)
        if key in self._dirty:
            self._dirty.discard(key)
            self.add(key)


class Timers(Generic[K]):
    """
    Keys that come back later: one heap, one timer of the clock, nothing at idle.

    A key has at most one time, the earliest asked for since it last came back.
    """

    def __init__(self, clock: Clock, due: Callable[[K], None]) -> None:
        self._clock = clock
        self._due = due
        self._at: dict[K, float] = {}
        self._heap: list[tuple[float, int, K]] = []
        self._timer: Timer | None = None
        self._armed = float("inf")
        self._count = 0  # keeps equal times apart, so that keys need no order

    def __len__(self) -> int:
        return len(self._at)

    def add(self, key: K, delay: float) -> None:
        at = self._clock.monotonic() + max(delay, 0.0)
        if self._at.get(key, float("inf")) <= at:
            return
        self._at[key] = at
        self._count += 1
        heapq.heappush(self._heap, (at, self._count, key))
        self._arm()

    def discard(self, key: K) -> None:
        # The heap's entry stays and is recognised as stale when it comes up.
        self._at.pop(key, None)

    def hurry(self) -> None:
        """All of them are due now."""
        waiting = list(self._at)
        self.close()
        for key in waiting:
            self._due(key)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._armed = None, float("inf")
        self._heap.clear()
        self._at.clear()

    def _drop_stale(self) -> None:
        while self._heap and self._at.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)

    def _arm(self) -> None:
        self._drop_stale()
        first = self._heap[0][0] if self._heap else float("inf")
        if first == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = first
        if self._heap:
            delay = max(first - self._clock.monotonic(), 0.0)
            self._timer = self._clock.call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer, self._armed = None, float("inf")
        now = self._clock.monotonic()
        while self._heap and self._heap[0][0] <= now:
            at, _, key = heapq.heappop(self._heap)
            if self._at.get(key) == at:
                del self._at[key]
                self._due(key)
        self._arm()


class Backoff(Generic[K]):
    """How long a key that failed waits: doubled each time, less up to half at random."""

    def __init__(
        self,
        first: float = FIRST_DELAY,
        longest: float = LONGEST_DELAY,
        *,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._failures: dict[K, int] = {}

    def failures(self, key: K) -> int:
        return self._failures.get(key, 0)

    def failed(self, key: K) -> float:
        """Count one more failure; the seconds to wait."""
        count = self._failures.get(key, 0)
        self._failures[key] = count + 1
        whole = min(self._first * 2.0 ** min(count, 40), self._longest)
        return whole * (1 - self._jitter() / 2)

    def forget(self, key: K) -> None:
        self._failures.pop(key, None)
