"""
What is known of Services, Nodes, EndpointSlices, Pods and DaemonSets, by kind and key.

What was deleted while nobody watched is missing from the next listing: :mod:`operators.sweep`.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from operators.sweep import Sweep


class Known:
    """Facts by kind and key; ``changed`` is called when something is not as it was."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.synced = False  # all kinds were listed once
        self.services: dict[str, Any] = {}
        self.node_ports: dict[str, Any] = {}  # of Services of any type
        self.nodes: dict[str, Any] = {}
        self.slices: dict[str, Any] = {}
        self.pods: dict[str, Any] = {}
        self.daemonsets: dict[str, Any] = {}
        self._sweeps: dict[int, Sweep] = {}

    def put(self, kind: dict[str, Any], key: str, facts: Any) -> None:
        """``facts`` None: of no interest."""
        same = kind.get(key) == facts
        if facts is not None:
            kind[key] = facts  # equal ones may be of another version
        elif not same:
            del kind[key]
        if not same:
            self._tell()

    def sync(self) -> None:
        if not self.synced:
            self.synced = True
            self._changed()

    def seen(self, kind: dict[str, Any], key: str, *, listed: bool) -> None:
        """``listed``: see :meth:`operators.sweep.Sweep.seen`."""
        sweep = self._sweeps.get(id(kind))
        if sweep is None:
            sweep = self._sweeps[id(kind)] = Sweep(partial(self._sweep, kind))
        sweep.seen(key, listed=listed)

    def _sweep(self, kind: dict[str, Any], found: set[str]) -> None:
        gone = [key for key in kind if key not in found]
        for key in gone:
            del kind[key]
        if gone:
            self._tell()

    def _tell(self) -> None:
        if self.synced:
            self._changed()


class Pace:
    """
    Makes few calls of many: the first one soon, in a storm at most one a second.

    What it calls looks at everything, so a call that comes later misses nothing.
    """

    FIRST, LONGEST = 0.05, 1.0  # seconds

    def __init__(self, call: Callable[[], None], clock: Callable[[], float]) -> None:
        self._call = call
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self._last = float("-inf")
        self._gap = self.FIRST

    def tell(self) -> None:
        if self._timer is None:
            now = self._clock()
            wait = max(self.FIRST, self._last + self._gap - now)
            self._timer = asyncio.get_running_loop().call_later(wait, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._clock()
        stormy = now - self._last < max(2 * self._gap, self.LONGEST)
        self._gap = min(2 * self._gap, self.LONGEST) if stormy else self.FIRST
        self._last = now
        self._call()
