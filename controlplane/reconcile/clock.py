"""
The time as controllers get it: a wall clock to write into objects, timers that ignore its jumps.

A board without a battery starts with a wrong clock that is corrected later; delays
are therefore measured by the event loop's own clock, never by comparing dates.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Protocol


class Timer(Protocol):
    def cancel(self) -> None: ...


class Clock(Protocol):
    def now(self) -> datetime:
        """UTC, with tzinfo."""

    def monotonic(self) -> float:
        """Seconds since some instant; never goes back."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call once after ``delay`` seconds, on the event loop."""


class LoopClock:
    """The running event loop's timers beside a wall clock that the composition root passes."""

    def __init__(self, wall: Callable[[], datetime]) -> None:
        self._wall = wall

    def now(self) -> datetime:
        return self._wall()

    def monotonic(self) -> float:
        return asyncio.get_running_loop().time()

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        return asyncio.get_running_loop().call_later(delay, callback)
