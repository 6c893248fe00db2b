"""
The embedded store: a log in one SQLite file, with group commit.

All writes pass one queue on the event loop. When no commit runs, the queue
becomes the next group: expectations are checked against the index, revisions
are given, and one transaction goes to the writer thread. What arrives
meanwhile waits for the next group, so that an fsync is shared under load and a
lone write waits for nobody. A key is in a group at most once, hence every
check is made against what is on disk. Index, watchers and callers learn of a
group after its commit; if it fails they never do, and its revisions are given
again.

Values are on disk only (the API server above has its own copy of them); in
memory is, for each key, the revision of its newest row, and whole volatile
keys. Volatile writes need no transaction: they take the next revision at once,
within a block of revisions that was reserved on disk before, so that a restart
never gives one of them again.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from controlplane.store.base import (
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    Mismatch,
    NoSpace,
    Range,
    Statistics,
    StoreError,
)
from controlplane.store.broadcast import Broadcast, Limits
from controlplane.store.file import Files, backup_file, open_files
from controlplane.store.keys import Keys
from controlplane.store.log import Change, Content, Reader, Transaction, Writer
from controlplane.store.reserve import Reserve
from controlplane.store.volatile import Families, family

_RESERVED_REVISIONS = 10_000  # one small write for so many volatile ones
_GROUP_WRITES = 512
_GROUP_BYTES = 4 << 20
_CLOSED = "the store is closed"
_FULL = (
    "no space left for the datastore {path}: free some on its filesystem; deletions are accepted"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    """A write on its way; ``done`` gets its revision, or None: another revision was found."""

    key: str
    value: bytes | None
    expected: int  # 0: absent
    volatile: bool  # meant for creations; other writes go by what is there
    done: asyncio.Future[int | None]


class _Group:
    """What goes into one transaction, and who waits for it."""

    __slots__ = ("size", "unreserved", "writes")

    def __init__(self) -> None:
        self.writes: dict[str, tuple[_Write, int]] = {}  # key → write, row that it replaces
        self.unreserved: list[_Write] = []  # volatile; tried again after the transaction
        self.size = 0

    @property
    def is_full(self) -> bool:
        return len(self.writes) >= _GROUP_WRITES or self.size >= _GROUP_BYTES

    def add(self, write: _Write, previous: int) -> None:
        self.writes[write.key] = write, previous
        self.size += len(write.value or b"")

    def waiting(self) -> list[_Write]:
        return [*(write for write, _ in self.writes.values()), *self.unreserved]


class SqliteStore:
    """Implements :class:`controlplane.store.base.Store`; made by :meth:`open`."""

    def __init__(self, files: Files, content: Content, writer: Writer, threads: "_Threads") -> None:
        self._files = files
        self._writer = writer
        self._reader = Reader(files.path, files.reader)
        self._threads = threads
        # Durable keys: the revision of their newest row. Volatile ones: all there is of them.
        self._index: dict[str, int | KeyValue] = dict(content.index)
        self._keys = Keys(self._index)
        self._revision = content.revision
        self._reserved = 0  # what is left of the last run's block is not used
        self._compact_revision = content.compacted
        self._compacted_rows = content.compacted  # how far the deletion of rows has come
        self._compacting = asyncio.Lock()
        self._families = Families(content.families, revision=content.revision)
        self._broadcast = Broadcast(revision=content.revision, limits=threads.limits)
        self._queue: deque[_Write] = deque()
        self._busy = False
        self._scheduled = False
        self._closed = False
        self._reserve = Reserve(files.path, 0)
        self._idle = asyncio.Event()
        self._idle.set()
        self._transactions = 0
        self._writes = 0

    @classmethod
    async def open(
        cls, path: Path, *, limits: Limits | None = None, reserve: int = 0
    ) -> "SqliteStore":
        """
        Open or make the store at ``path`` (mode 0600) and its directory.

        Beside the file lie ``-wal`` and ``-shm``, which belong to it while it is open
        or after a power cut, and ``.lock``; ``reserve``: bytes for :mod:`.reserve`.
        :class:`StoreError` says what to do.
        """
        threads = _Threads(limits or Limits())
        try:
            files = await threads.write(lambda: open_files(path))
        except BaseException:
            threads.stop()
            raise
        try:
            writer = Writer(path, files.writer)
            content = await threads.write(writer.load)
        except BaseException:
            await threads.write(files.close)
            threads.stop()
            raise
        made = cls(files, content, writer, threads)
        made._reserve = Reserve(path, reserve)
        await threads.write(made._reserve.take)
        return made

    async def create(self, key: str, value: bytes, *, volatile: bool = False) -> int:
        return await self._write(key, value, expected=0, volatile=volatile)

    async def update(self, key: str, value: bytes, *, expected: int) -> int:
        return await self._write(key, value, expected=expected)

    async def delete(self, key: str, *, expected: int) -> int:
        return await self._write(key, None, expected=expected)

    async def get(self, key: str) -> KeyValue | None:
        while True:
            self._check_open()
            found = self._index.get(key)
            if not isinstance(found, int):
                return found
            value = await self._read(partial(self._reader.value, key, found))
            if value is not None:
                return value
            # Replaced and compacted while the thread was about to read: look again.

    async def range(
        self, prefix: str, *, start: str = "", limit: int = 0, revision: int = 0
    ) -> Range:
        self._check_open()
        if revision and revision != self._revision:
            return await self._range_then(prefix, start, limit, revision)
        while True:
            now = self._revision
            page, remaining = self._keys.page(prefix, start, limit)
            try:
                items = await self._load({key: self._index[key] for key in page}, now)
            except Compacted:
                if revision:
                    raise
                # Compacted beyond this moment while the thread was about to read: look again.
            else:
                return Range(now, items, remaining)

    async def watch(self, prefix: str, *, after: int) -> AsyncGenerator[Sequence[Event], None]:
        self._check_open()
        if after > self._revision:
            raise FutureRevision(self._revision)
        while True:
            self._check_history(prefix, after)
            upto = self._broadcast.floor
            if after >= upto:
                break
            events, after = await self._history(prefix, after, upto)
            if events:
                yield events
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
        self._compact_revision = max(self._compact_revision, revision)
        self._broadcast.forget(revision)
        async with self._compacting:
            while self._compacted_rows < revision:
                self._check_open()
                step = partial(self._writer.compact, self._compacted_rows, revision)
                self._compacted_rows = await self._threads.write(step)

    async def backup(self, path: Path) -> None:
        self._check_open()
        await asyncio.to_thread(backup_file, self._files.path, path)

    def statistics(self) -> Statistics:
        return Statistics(
            revision=self._revision,
            compact_revision=self._compact_revision,
            keys=len(self._keys),
            transactions=self._transactions,
            writes=self._writes,
            watchers=self._broadcast.watchers,
            file_bytes=self._writer.file_bytes,
        )

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await self._idle.wait()
        self._broadcast.close()
        async with self._compacting:
            if self._reserved > self._revision:
                # Give the rest of the block back; failing that, revisions skip it.
                with contextlib.suppress(StoreError):
                    tightened = Transaction(changes=(), reserve=self._revision)
                    await self._threads.write(lambda: self._writer.append(tightened))
            await self._threads.read(lambda: None)  # what was accepted before
            await self._threads.write(self._files.close)
        self._threads.stop()

    async def _write(
        self, key: str, value: bytes | None, *, expected: int, volatile: bool = False
    ) -> int:
        key.encode()  # a key that is not text must fail alone, not with its group
        is_new = expected == 0 and not volatile
        if not self._reserve.allows(value, is_new=is_new):
            await self._threads.write(self._reserve.take)  # there may be space again
            if not self._reserve.allows(value, is_new=is_new):
                raise NoSpace(_FULL.format(path=self._files.path))
        while True:
            self._check_open()
            done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            self._queue.append(_Write(key, value, expected, volatile, done))
            self._idle.clear()
            self._schedule()
            revision = await done
            if revision is not None:
                return revision
            found = await self.get(key)
            if found is not None or expected:
                raise Mismatch(found)
            # It was there when the creation was tried, and is not any more: try again.

    def _schedule(self) -> None:
        """Begin the next group after the writers that are ready now have queued theirs."""
        if not self._busy and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._begin)

    def _begin(self) -> None:
        self._scheduled = False
        group = self._gather()
        if group.writes or group.unreserved:
            self._commit(group)
        elif self._queue:
            self._schedule()
        else:
            self._idle.set()

    def _gather(self) -> _Group:
        """Answer what can be answered now; the rest is the group, or stays in the queue."""
        group = _Group()
        later: list[_Write] = []
        events: list[Event] = []
        answers: list[tuple[_Write, int | None]] = []
        while self._queue and not group.is_full and len(answers) < _GROUP_WRITES:
            write = self._queue.popleft()
            if write.done.done():
                continue  # cancelled by its caller
            found = self._index.get(write.key)
            row = found.revision if isinstance(found, KeyValue) else found or 0
            if write.key in group.writes:
                later.append(write)
            elif row != write.expected:
                answers.append((write, None))
            elif not (isinstance(found, KeyValue) or (found is None and write.volatile)):
                group.add(write, row)
            elif self._revision < self._reserved and write.key in self._families:
                events.append(self._write_volatile(write, found))
                answers.append((write, self._revision))
            else:
                group.unreserved.append(write)
        self._queue.extendleft(reversed(later))
        self._publish(events)
        for write, revision in answers:
            write.done.set_result(revision)
        return group

    def _write_volatile(self, write: _Write, previous: int | KeyValue | None) -> Event:
        assert not isinstance(previous, int)
        self._revision += 1
        revision = self._revision
        current = None
        if write.value is not None:
            created = previous.created if previous is not None else revision
            current = KeyValue(write.key, write.value, revision, created)
        event = Event(revision, write.key, current, previous)
        self._apply(event, current)
        return event

    def _commit(self, group: _Group) -> None:
        changes = [
            Change(revision, write.key, previous, write.value)
            for revision, (write, previous) in enumerate(
                group.writes.values(), start=self._revision + 1
            )
        ]
        last = self._revision + len(changes)
        # In use and half used up: another block costs nothing in a transaction that is due.
        renew = last < self._reserved < last + _RESERVED_REVISIONS // 2
        transaction = Transaction(
            changes=changes,
            reserve=last + _RESERVED_REVISIONS if group.unreserved or renew else 0,
            families=sorted(
                {family(w.key) for w in group.unreserved if w.key not in self._families}
            ),
        )
        self._busy = True
        commit = self._threads.write(lambda: self._writer.append(transaction))
        commit.add_done_callback(lambda future: self._finish(group, transaction, future))

    def _finish(
        self, group: _Group, transaction: Transaction, commit: asyncio.Future[list[Event]]
    ) -> None:
        self._busy = False
        try:
            events = commit.result()
        except NoSpace as error:
            self._fail(group, error, again=self._reserve.give())
        except Exception as error:
            self._fail(group, error)
        else:
            self._succeed(group, transaction, events)
        self._begin()

    def _fail(self, group: _Group, error: Exception, *, again: bool = False) -> None:
        """``again``: what the reserve allows is tried once more."""
        kind = type(error) if isinstance(error, StoreError) else StoreError
        allowed: list[_Write] = []
        for write in group.waiting():
            is_new = write.expected == 0 and not write.volatile
            if again and self._reserve.allows(write.value, is_new=is_new):
                allowed.append(write)
            elif not write.done.done():
                failure = kind(str(error))
                failure.__cause__ = error
                write.done.set_exception(failure)
        self._queue.extendleft(reversed(allowed))

    def _succeed(self, group: _Group, transaction: Transaction, events: list[Event]) -> None:
        self._transactions += 1
        self._writes += len(events)
        self._revision += len(events)
        if transaction.reserve:
            self._reserved = transaction.reserve
        self._families.add(transaction.families)
        for event in events:
            self._apply(event, event.revision if event.current is not None else None)
        self._publish(events)
        for event in events:
            done = group.writes[event.key][0].done
            if not done.done():
                done.set_result(event.revision)
        self._queue.extendleft(reversed(group.unreserved))

    def _apply(self, event: Event, entry: int | KeyValue | None) -> None:
        if entry is None:
            del self._index[event.key]
            self._keys.remove(event.key)
            return
        if event.previous is None:
            self._keys.add(event.key)
        self._index[event.key] = entry

    def _publish(self, events: Sequence[Event]) -> None:
        if events:
            for event in self._broadcast.publish(events):
                self._families.dropped(event.key, event.revision)

    async def _range_then(self, prefix: str, start: str, limit: int, revision: int) -> Range:
        """The range as of an older revision: what is now, with later changes undone."""
        if revision > self._revision:
            raise FutureRevision(self._revision)
        self._check_history(prefix, revision)
        everything, _ = self._keys.page(prefix, "", 0)
        then: dict[str, int | KeyValue | None] = {key: self._index[key] for key in everything}
        floor, newest = self._broadcast.floor, self._revision
        for event in self._broadcast.since(max(revision, floor)):
            if event.key.startswith(prefix):
                then[event.key] = event.previous
        if revision < floor:
            then |= await self._read(
                lambda: self._reader.replaced(prefix, after=revision, upto=newest)
            )
        entries = {key: entry for key, entry in then.items() if entry}
        page, remaining = Keys(entries).page(prefix, start, limit)
        items = await self._load({key: entries[key] for key in page}, revision)
        return Range(revision, items, remaining)

    async def _load(self, page: Mapping[str, int | KeyValue], at: int) -> tuple[KeyValue, ...]:
        wanted = [(key, row) for key, row in page.items() if isinstance(row, int)]
        if wanted:
            rows = await self._read(lambda: self._reader.values(wanted, at=at))
            found = iter(rows)
            return tuple(next(found) if isinstance(e, int) else e for e in page.values())
        return tuple(entry for entry in page.values() if isinstance(entry, KeyValue))

    async def _history(self, prefix: str, after: int, upto: int) -> tuple[Sequence[Event], int]:
        return await self._read(lambda: self._reader.history(prefix, after=after, upto=upto))

    async def _read(self, function: Callable[[], T]) -> T:
        self._check_open()
        return await self._threads.read(function)

    def _check_open(self) -> None:
        if self._closed:
            raise StoreError(_CLOSED)

    def _check_history(self, prefix: str, revision: int) -> None:
        begins = max(self._compact_revision, self._families.begins(prefix))
        if revision < begins:
            raise Compacted(begins)


class _Threads:
    """A thread that writes and one that reads, so that a commit holds up no reader."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="store-reader")

    def write(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._writer, function)

    def read(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._reader, function)

    def stop(self) -> None:
        self._writer.shutdown()
        self._reader.shutdown()
