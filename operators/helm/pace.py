"""
Not more than so many looks at one key, however often it changes.

The first change is looked at at once; those that follow within the gap are one look at its
end, which sees the latest state. Nothing is kept of a key that is quiet.
"""

import asyncio
from collections.abc import Callable

GAP_SECONDS = 1.0


class Pace:
    """``add`` is called with a key at most once in ``gap`` seconds."""

    def __init__(self, add: Callable[[str], None], *, gap: float = GAP_SECONDS) -> None:
        self._add = add
        self._gap = gap
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._changed: set[str] = set()  # since the last look

    def add(self, key: str) -> None:
        if key in self._timers:
            self._changed.add(key)
        else:
            self._look(key)

    def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _look(self, key: str) -> None:
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(self._gap, self._gap_is_over, key)
        self._add(key)

    def _gap_is_over(self, key: str) -> None:
        del self._timers[key]
        if key in self._changed:
            self._changed.discard(key)
            self._look(key)
