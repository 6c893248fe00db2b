"""
Fan-out of changes to watchers, and the recent history that a new watcher starts from.

A watcher has a bounded queue. One that does not keep up is told
:class:`Compacted` and lists again, instead of holding memory or holding up
writers. The window of recent changes is bounded by number and by bytes; it
holds durable and volatile changes alike, in the one order of revisions, so
that a watch from a recent revision reads nothing from disk.

Everything here belongs to one event loop and never waits, except
:meth:`Subscription.next`.
"""

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from controlplane.store.base import Compacted, Event, StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is held for watchers; 0: no bound."""

    window_events: int = 1000
    window_bytes: int = 2 << 20  # of values, current and previous
    queue_events: int = 1000  # of each watcher


class Subscription:
    """One watcher's queue."""

    __slots__ = ("_closed", "_events", "_limit", "_lost_at", "_waiter", "prefix")

    def __init__(self, prefix: str, events: Sequence[Event], limit: int) -> None:
        self.prefix = prefix
        self._events = list(events)
        self._limit = limit
        self._lost_at = 0
        self._closed = False
        self._waiter: asyncio.Future[None] | None = None

    async def next(self) -> Sequence[Event]:
        """Everything queued, at least one event; one caller at a time."""
        while not self._events:
            if self._lost_at:
                raise Compacted(self._lost_at)
            if self._closed:
                raise StoreError("the store is closed")
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        events, self._events = self._events, []
        return events

    def offer(self, events: Sequence[Event], revision: int) -> None:
        """Queue the events that concern this watcher, or give it up if it is behind."""
        if self._lost_at:
            return
        prefix = self.prefix
        mine = [event for event in events if event.key.startswith(prefix)] if prefix else events
        if not mine:
            return
        # A batch larger than the bound does not make a watcher slow; only what it left does.
        if self._limit and self._events and len(self._events) + len(mine) > self._limit:
            self._events = []
            self._lost_at = revision
        else:
            self._events.extend(mine)
        self._wake()

    def close(self) -> None:
        """What is queued can still be taken."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Broadcast:
    """The window of recent changes and the watchers that follow it."""

    def __init__(self, *, revision: int, limits: Limits) -> None:
        self._limits = limits
        self._window: deque[Event] = deque()
        self._bytes = 0
        self._subscriptions: set[Subscription] = set()
        self._closed = False
        self.floor = revision  # every change after this revision is in the window

    @property
    def watchers(self) -> int:
        return len(self._subscriptions)

    def publish(self, events: Sequence[Event]) -> Sequence[Event]:
        """
        Hand changes to the watchers, in order; returns what left the window for it.

        ``events`` is not empty and newer than everything published before.
        """
        self._window.extend(events)
        self._bytes += sum(map(_size, events))
        revision = events[-1].revision
        for subscription in self._subscriptions:
            subscription.offer(events, revision)
        return self._evict()

    def since(self, revision: int) -> Iterator[Event]:
        """The changes after ``revision`` (at least the floor), the newest first."""
        for event in reversed(self._window):
            if event.revision <= revision:
                return
            yield event

    def subscribe(self, prefix: str, after: int) -> Subscription:
        """Follow from ``after`` (at least the floor) on; ends with :meth:`unsubscribe`."""
        if self._closed:
            raise StoreError("the store is closed")
        missed = [event for event in self.since(after) if event.key.startswith(prefix)]
        missed.reverse()
        subscription = Subscription(prefix, missed, self._limits.queue_events)
        self._subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        self._subscriptions.discard(subscription)

    def forget(self, revision: int) -> None:
        """Drop the window up to the revision, as compaction asks."""
        window = self._window
        while window and window[0].revision <= revision:
            self._bytes -= _size(window.popleft())
        self.floor = max(self.floor, revision)

    def close(self) -> None:
        """Watchers take what they have been handed, then get :class:`StoreError`."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.close()

    def _evict(self) -> Sequence[Event]:
        limits, window = self._limits, self._window
        evicted: list[Event] = []
        while window and (
            (limits.window_events and len(window) > limits.window_events)
            or (limits.window_bytes and self._bytes > limits.window_bytes)
        ):
            event = window.popleft()
            self._bytes -= _size(event)
            self.floor = event.revision
            evicted.append(event)
        return evicted


def _size(event: Event) -> int:
    size = len(event.current.value) if event.current else 0
    return size + (len(event.previous.value) if event.previous else 0)
