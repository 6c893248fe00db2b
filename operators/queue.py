"""
Keys that need a look, each looked at by one worker at a time.

Level-triggered: a key says that something may have changed, not what, so many
events for one key cost one look. A look that fails comes again, later each time, and a key
that never rests is looked at ever less often, up to a bound: the last of its events counts.
Keys are looked at in the order in which they came, so none can keep another waiting.
Nothing runs and no timer is set while nothing waits.
"""

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

LOG = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
# A key may come so often in a row without waiting; then each look waits twice as long after
# the last one, up to the longest interval. A key that rested for that long is new again.
BURST = 5
FIRST_INTERVAL = 0.1
LONGEST_INTERVAL = 2.0

Reconcile = Callable[[str], Awaitable[float | None]]

# For the metrics of this process.
_QUEUES: "weakref.WeakSet[Queue]" = weakref.WeakSet()


def alive() -> list["Queue"]:
    return list(_QUEUES)


@dataclass(slots=True)
class _Pace:
    """Of a key that comes again and again."""

    looked_at: float  # of the clock, when its last look began
    count: int  # looks without a rest


class Queue:
    """``reconcile`` gets a key; it returns after how many seconds it wants the key again."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 4) -> None:
        self.name = name
        self.looks = 0  # since it was made
        self.failures = 0
        self._reconcile = reconcile
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()  # in _ready; at most once each
        self._running: set[str] = set()
        self._again: set[str] = set()  # added while running
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._paces: dict[str, _Pace] = {}
        self._workers = workers
        _QUEUES.add(self)

    @property
    def depth(self) -> int:
        """Keys whose turn it is, or that are being looked at."""
        return len(self._waiting) + len(self._running)

    def add(self, key: str) -> None:
        """As soon as its turn comes; later where it comes too often."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            wait = self._wait(key)
            if wait > 0:
                self._set_timer(key, wait)
            else:
                self._enqueue(key)

    def add_later(self, key: str, seconds: float) -> None:
        """Later still where it comes too often. An earlier look cancels this one."""
        self._set_timer(key, max(seconds, self._wait(key)))

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._workers):
                    tasks.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _set_timer(self, key: str, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self._enqueue, key)

    def _enqueue(self, key: str) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def _wait(self, key: str) -> float:
        """Seconds until this key may be looked at again."""
        pace = self._paces.get(key)
        if pace is None or pace.count < BURST:
            return 0.0
        interval = min(FIRST_INTERVAL * 2.0 ** min(pace.count - BURST, 10), LONGEST_INTERVAL)
        return pace.looked_at + interval - asyncio.get_running_loop().time()

    def _note(self, key: str) -> None:
        now = asyncio.get_running_loop().time()
        pace = self._paces.get(key)
        if pace is None or now - pace.looked_at > 2 * LONGEST_INTERVAL:
            self._rest(now)
            self._paces[key] = _Pace(now, 1)
        else:
            self._paces[key] = _Pace(now, pace.count + 1)

    def _rest(self, now: float) -> None:
        """Forget the paces of keys that rested; only those of the last seconds stay."""
        over = [k for k, p in self._paces.items() if now - p.looked_at > 2 * LONGEST_INTERVAL]
        for key in over:
            del self._paces[key]

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
            self._note(key)
            try:
                again = await self._look(key)
            finally:
                self._running.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif again is not None:
                self.add_later(key, again)

    async def _look(self, key: str) -> float | None:
        self.looks += 1
        try:
            again = await self._reconcile(key)
        except asyncio.CancelledError as err:
            # Something that it was waiting for was cancelled: a failure of this look,
            # not the end of this worker.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(key, err)
        except Exception as err:
            return self._failed(key, err)
        self._failures.pop(key, None)
        return again

    def _failed(self, key: str, err: BaseException) -> float:
        self.failures += 1
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 10), LONGEST_DELAY)
        LOG.warning(
            "%s %s: %s; again in %.0f s", self.name, key, str(err) or type(err).__name__, delay
        )
        LOG.debug("%s %s", self.name, key, exc_info=err)
        return delay
