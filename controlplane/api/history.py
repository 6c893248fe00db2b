"""
The recent changes of each kind, and who waits for the next one.

A watch from a recent resourceVersion is answered from here; an older one gets
410. All kinds share one budget of bytes, and the oldest change goes first: what
is forgotten moves the floor of its own kind only, so a quiet kind can be
watched from a resourceVersion of days ago.
"""

import asyncio
from collections import deque
from collections.abc import Iterator

from controlplane.api.entry import Entry


class Occurrence:
    """One change of one object; ``old`` None: created, ``new`` None: deleted."""

    __slots__ = ("new", "old", "revision")

    def __init__(self, revision: int, old: Entry | None, new: Entry | None) -> None:
        self.revision = revision
        self.old = old
        self.new = new

    @property
    def entry(self) -> Entry:
        entry = self.new if self.new is not None else self.old
        assert entry is not None
        return entry


class Watcher:
    """
    What one watch has still to be told: filled by the cache, emptied by :meth:`wait`.

    A watcher that fell ``limit`` changes behind is cut off, as upstream does; its
    client lists again. Its mutable state is the queue, the waiter and ``ended``.
    """

    __slots__ = ("_limit", "_pending", "_waiter", "ended")

    def __init__(self, limit: int = 10_000) -> None:
        self._pending: list[Occurrence] = []
        self._waiter: asyncio.Future[None] | None = None
        self._limit = limit
        self.ended = False

    @property
    def pending(self) -> bool:
        return bool(self._pending)

    def offer(self, occurrence: Occurrence) -> None:
        self._pending.append(occurrence)
        if len(self._pending) > self._limit:
            self.ended = True
        self._wake()

    def end(self) -> None:
        """The kind went away or the server stops."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout: float | None) -> list[Occurrence]:  # noqa: ASYNC109 - a poll of the queue, not a cancellation
        """What has come; empty after ``timeout`` seconds without any, or once ended."""
        if not self._pending and not self.ended:
            loop = asyncio.get_running_loop()
            self._waiter = loop.create_future()
            timer = loop.call_later(timeout, self._wake) if timeout is not None else None
            try:
                await self._waiter
            finally:
                self._waiter = None
                if timer is not None:
                    timer.cancel()
        taken, self._pending = self._pending, []
        return taken


class Line:
    """The history of one kind and its watchers. ``floor``: the last revision forgotten."""

    __slots__ = ("events", "floor", "watchers")

    def __init__(self, floor: int) -> None:
        self.events: deque[Occurrence] = deque()
        self.floor = floor
        self.watchers: dict[Watcher, None] = {}

    def since(self, revision: int) -> Iterator[Occurrence]:
        """The changes after a revision that is not below the floor."""
        late: list[Occurrence] = []
        for occurrence in reversed(self.events):
            if occurrence.revision <= revision:
                break
            late.append(occurrence)
        return reversed(late)


class History:
    """The lines of all kinds under one budget of bytes."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._bytes = 0
        self._order: deque[Line] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def add(self, line: Line, occurrence: Occurrence) -> None:
        line.events.append(occurrence)
        self._order.append(line)
        self._bytes += _weight(occurrence)
        while self._bytes > self._budget and len(self._order) > 1:
            oldest = self._order.popleft()
            gone = oldest.events.popleft()
            oldest.floor = gone.revision
            self._bytes -= _weight(gone)
        for watcher in line.watchers:
            watcher.offer(occurrence)


def _weight(occurrence: Occurrence) -> int:
    return 200 + len(occurrence.entry.data)
