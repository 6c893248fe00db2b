"""
Keys that need a look, each looked at by one worker at a time.

Level-triggered: a key says that something may have changed, not what, so many
events for one key cost one look. A look that fails comes again, later each time.
Nothing runs and no timer is set while nothing waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

LOG = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0

Reconcile = Callable[[str], Awaitable[float | None]]


class Queue:
    """``reconcile`` gets a key; it returns after how many seconds it wants the key again."""

    def __init__(self, name: str, reconcile: Reconcile, *, workers: int = 4) -> None:
        self._name = name
        self._reconcile = reconcile
        self._ready: asyncio.Queue[str] = asyncio.Queue()
        self._waiting: set[str] = set()  # in _ready; at most once each
        self._running: set[str] = set()
        self._again: set[str] = set()  # added while running
        self._failures: dict[str, int] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._workers = workers

    def add(self, key: str) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: str, seconds: float) -> None:
        """An earlier look, for whatever reason, cancels this one."""
        if timer := self._timers.pop(key, None):
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(self._workers):
                    tasks.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._running.add(key)
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
        try:
            again = await self._reconcile(key)
        except asyncio.CancelledError as err:
            # kopf, when it gives up, cancels what it finds running in the loop: that is
            # a failure of this look, not the end of this worker.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self._failed(key, err)
        except Exception as err:
            return self._failed(key, err)
        self._failures.pop(key, None)
        return again

    def _failed(self, key: str, err: BaseException) -> float:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(FIRST_DELAY * 2.0 ** min(failures - 1, 10), LONGEST_DELAY)
        LOG.warning(
            "%s %s: %s; again in %.0f s", self._name, key, str(err) or type(err).__name__, delay
        )
        LOG.debug("%s %s", self._name, key, exc_info=err)
        return delay
