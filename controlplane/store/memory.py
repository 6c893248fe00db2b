"""
The reference store: a dictionary and the whole history, in memory.

It says what the contract means in the fewest lines; tests of everything above
the store run on it.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from controlplane.store.base import (
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    Mismatch,
    Range,
    Statistics,
    StoreError,
)
from controlplane.store.broadcast import Broadcast, Limits
from controlplane.store.keys import Keys

# The window is the only history here: it ends at the last compaction, nowhere else.
_WHOLE_HISTORY = Limits(window_events=0, window_bytes=0)


class MemoryStore:
    """Implements :class:`controlplane.store.base.Store`; volatile and durable are the same."""

    def __init__(self) -> None:
        self._values: dict[str, KeyValue] = {}
        self._keys = Keys()
        self._broadcast = Broadcast(revision=0, limits=_WHOLE_HISTORY)
        self._revision = 0
        self._writes = 0
        self._closed = False

    async def create(self, key: str, value: bytes, *, volatile: bool = False) -> int:
        self._check_open()
        found = self._values.get(key)
        if found is not None:
            raise Mismatch(found)
        self._keys.add(key)
        self._writes += not volatile
        revision = self._revision + 1
        return await self._set(key, KeyValue(key, value, revision, revision))

    async def update(self, key: str, value: bytes, *, expected: int) -> int:
        previous = self._expect(key, expected)
        self._writes += 1
        return await self._set(key, KeyValue(key, value, self._revision + 1, previous.created))

    async def delete(self, key: str, *, expected: int) -> int:
        self._expect(key, expected)
        self._keys.remove(key)
        self._writes += 1
        return await self._set(key, None)

    async def get(self, key: str) -> KeyValue | None:
        self._check_open()
        return self._values.get(key)

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        self._check_open()
        values, keys = self._values, self._keys
        if revision:
            self._check_revision(revision)
            values = dict(values)
            for event in self._broadcast.since(revision):
                if event.previous is not None:
                    values[event.key] = event.previous
                else:
                    values.pop(event.key, None)
            keys = Keys(values)
        page, remaining = keys.page(prefix, start, limit)
        return Range(revision or self._revision, tuple(values[key] for key in page), remaining)

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Sequence[Event], None]:
        self._check_open()
        self._check_revision(after)
        subscription = self._broadcast.subscribe(prefix, after)
        try:
            while True:
                yield await subscription.next()
        finally:
            self._broadcast.unsubscribe(subscription)

    async def compact(self, revision: int) -> None:
        self._check_open()
        if revision > self._revision:
            raise FutureRevision(self._revision)
        self._broadcast.forget(revision)

    async def backup(self, path: Path) -> None:
        raise StoreError(f"the memory store cannot be copied to {path}: it keeps no file")

    def statistics(self) -> Statistics:
        return Statistics(
            revision=self._revision,
            compact_revision=self._broadcast.floor,
            keys=len(self._keys),
            transactions=0,
            writes=self._writes,
            watchers=self._broadcast.watchers,
            file_bytes=0,
        )

    async def close(self) -> None:
        self._closed = True
        self._broadcast.close()

    def _expect(self, key: str, expected: int) -> KeyValue:
        self._check_open()
        found = self._values.get(key)
        if found is None or found.revision != expected:
            raise Mismatch(found)
        return found

    async def _set(self, key: str, current: KeyValue | None) -> int:
        self._revision += 1
        revision = self._revision
        previous = self._values.pop(key, None)
        if current is not None:
            self._values[key] = current
        self._broadcast.publish([Event(revision, key, current, previous)])
        # As a store on disk does: whoever writes in a loop lets the watchers run.
        await asyncio.sleep(0)
        return revision

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError("the store is closed")

    def _check_revision(self, revision: int) -> None:
        if revision < self._broadcast.floor:
            raise Compacted(self._broadcast.floor)
        if revision > self._revision:
            raise FutureRevision(self._revision)
