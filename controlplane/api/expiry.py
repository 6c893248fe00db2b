"""
Events are kept for an hour after their last change, as ``--event-ttl`` has it.

The task sleeps until the oldest one's time is up: a server without Events does
not wake.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable

from controlplane.api.cache import ObjectCache
from controlplane.api.entry import Entry
from controlplane.api.history import Watcher
from controlplane.store.base import Mismatch, Store, StoreError

log = logging.getLogger(__name__)

EVENTS = "/core/events"
EVENT_SECONDS = 3600.0
MOST_EVENTS = 4000  # the oldest go first: each costs a kilobyte of memory

Clock = Callable[[], float]  # monotonic, seconds


class EventExpiry:
    """
    Deletes Events when their time is up, or when there are too many.

    Its mutable state: when each was last changed, in that order.
    """

    def __init__(
        self,
        store: Store,
        cache: ObjectCache,
        *,
        monotonic: Clock,
        seconds: float = EVENT_SECONDS,
        most: int = MOST_EVENTS,
    ) -> None:
        self._store = store
        self._cache = cache
        self._monotonic = monotonic
        self._seconds = seconds
        self._most = most
        self._changed: OrderedDict[str, float] = OrderedDict()

    async def run(self) -> None:
        """Without end; a watch that ended, as all do when the server stops, is begun again."""
        while True:
            watcher = self._cache.watch(EVENTS)
            try:
                for entry in self._cache.span(f"{EVENTS}/"):
                    if entry.key not in self._changed:
                        self._touch(entry.key)
                while not watcher.ended:
                    await self._expire()
                    await self._hear(watcher)
            finally:
                self._cache.unwatch(EVENTS, watcher)

    def _touch(self, key: str) -> None:
        self._changed[key] = self._monotonic()
        self._changed.move_to_end(key)

    async def _hear(self, watcher: Watcher) -> None:
        """Wait for changes, but no longer than the oldest Event may live."""
        timeout = None
        if self._changed:
            oldest = next(iter(self._changed.values()))
            timeout = max(1.0, oldest + self._seconds - self._monotonic())
        for occurrence in await watcher.wait(timeout):
            if occurrence.new is not None:
                self._touch(occurrence.new.key)
            elif occurrence.old is not None:
                self._changed.pop(occurrence.old.key, None)

    async def _expire(self) -> None:
        while self._changed:
            key, changed = next(iter(self._changed.items()))
            if len(self._changed) <= self._most and changed + self._seconds > self._monotonic():
                return
            entry = self._cache.entry(key)
            if entry is not None and not await self._delete(entry):
                self._touch(key)
                continue
            self._changed.pop(key, None)

    async def _delete(self, entry: Entry) -> bool:
        """False where it was changed meanwhile and lives on."""
        try:
            await self._store.delete(entry.key, expected=entry.revision)
        except Mismatch as mismatch:
            return mismatch.found is None
        except StoreError as error:
            log.warning("expiry of %s: %s", entry.key, error)
        return True
