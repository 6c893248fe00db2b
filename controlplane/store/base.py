"""
The contract of the store: a revisioned, append-only log of changes to keys.

One sequence of revisions covers all keys. A write names the revision it
expects the key to have, so two writers never overwrite each other unseen. A
watcher gets every change after a revision, in order, once. Compaction drops
history (never current values); asking for dropped history raises
:class:`Compacted`.

All implementations pass ``tests/conformance/test_store.py``. Values are opaque
bytes. The revision of a key is not part of its value.

Durable writes return after they are safe on disk (a power cut keeps them);
volatile ones (``volatile=True``) take part in the same sequence of revisions
but are kept in memory only and are gone after a restart, by declaration. A key
is either volatile for its whole life or durable for its whole life. After a
restart the next revision is greater than any that was ever handed out, also to
volatile writes.

Every write is visible to ``get``, ``range`` and all watchers (in their queues)
before its coroutine returns.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


class StoreError(Exception):
    """The store could not do it: disk full, I/O error, closed. Nothing was written."""


class NoSpace(StoreError):
    """The disk is full. Deletions may still be accepted; there is more once space was made."""


class Damaged(StoreError):
    """What is on the disk is broken: no trying again will help."""


class Compacted(Exception):
    """The revision asked for is older than the last compaction."""

    def __init__(self, compact_revision: int) -> None:
        super().__init__(f"compacted up to revision {compact_revision}")
        self.compact_revision = compact_revision


class FutureRevision(Exception):
    """The revision asked for has not been reached."""

    def __init__(self, current: int) -> None:
        super().__init__(f"the newest revision is {current}")
        self.current = current


class Mismatch(Exception):
    """The key does not have the expected revision; ``found`` is what it has, None if absent."""

    def __init__(self, found: "KeyValue | None") -> None:
        super().__init__("the key has another revision")
        self.found = found


@dataclass(frozen=True, slots=True)
class KeyValue:
    key: str
    value: bytes
    revision: int  # of the last change
    created: int  # revision at which the key was created


@dataclass(frozen=True, slots=True)
class Event:
    """One change. ``current`` is None for a deletion, ``previous`` None for a creation."""

    revision: int
    key: str
    current: KeyValue | None
    previous: KeyValue | None


@dataclass(frozen=True, slots=True)
class Range:
    """An answer that holds at exactly ``revision``."""

    revision: int
    items: tuple[KeyValue, ...]  # in byte order of their keys
    remaining: int  # how many more there are beyond the limit


@dataclass(frozen=True, slots=True)
class Statistics:
    """For /metrics and tests."""

    revision: int
    compact_revision: int
    keys: int
    transactions: int  # commits to disk so far
    writes: int  # durable writes so far; writes / transactions is the size of the group commit
    watchers: int
    file_bytes: int  # on disk, write-ahead log included; 0 for memory


class Store(Protocol):
    async def create(self, key: str, value: bytes, *, volatile: bool = False) -> int:
        """Add a key that is absent and return its revision; else :class:`Mismatch`."""

    async def update(self, key: str, value: bytes, *, expected: int) -> int:
        """Replace the value of a key at revision ``expected``; else :class:`Mismatch`."""

    async def delete(self, key: str, *, expected: int) -> int:
        """Remove a key at revision ``expected`` and return the deletion's revision."""

    async def get(self, key: str) -> KeyValue | None:
        """The newest value."""

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        """
        The keys that begin with ``prefix``, from ``start`` (inclusive; "": the first) on.

        ``limit`` 0: all. ``revision`` 0: as of now; else as of then, volatile keys
        included as far back as the watch history reaches; :class:`Compacted` or
        :class:`FutureRevision` where that cannot be answered.
        """

    def watch(self, prefix: str, *, after: int) -> AsyncIterator[Sequence[Event]]:
        """
        Batches of the changes after a revision to keys with the prefix, in order, without end.

        Raises :class:`Compacted` when history after ``after`` is gone, also for a
        consumer so slow that it was left behind. Closing the iterator unsubscribes.
        """

    async def compact(self, revision: int) -> None:
        """Forget history up to the revision; current values stay. Idempotent."""

    async def backup(self, path: Path) -> None:
        """
        A consistent copy to a file that must not exist, made while writes go on.

        It appears whole or not at all. :class:`StoreError` where the
        implementation has its own tools for that (etcd, PostgreSQL).
        """

    def statistics(self) -> Statistics:
        """A snapshot of the counters; does no I/O."""

    async def close(self) -> None:
        """Finish what was accepted, then refuse everything with :class:`StoreError`."""
