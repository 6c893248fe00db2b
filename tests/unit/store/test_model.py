"""Random histories against a model that is nothing but a list of changes."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from controlplane.store.base import Compacted, Event, KeyValue, Mismatch, Store
from controlplane.store.broadcast import Limits
from controlplane.store.memory import MemoryStore
from controlplane.store.sqlite import SqliteStore

T = TypeVar("T")

KEYS = st.sampled_from(
    [f"/core/{kind}/d/{name}" for kind in ("pods", "podsx", "events") for name in ("a", "ab", "é")]
)
PREFIXES = st.sampled_from(["", "/core/", "/core/pods/", "/core/pods", "/core/events/", "/x"])
VOLATILE = "/core/events/"
VALUES = st.binary(max_size=20)
# So small that most histories are read from the file.
TINY = Limits(window_events=3, window_bytes=0, queue_events=1000)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "state.db"
        self.now: dict[str, KeyValue] = {}
        self.events: list[Event] = []
        self.compacted = 0
        self.started = 0  # revision of the last start
        self.had_volatile = False
        self.lost_volatile = False
        self.store = self.run(self.make())

    async def make(self) -> Store:
        return MemoryStore()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.directory.cleanup()

    def done(self, key: str, revision: int, value: bytes | None) -> None:
        previous = self.now.pop(key, None)
        current = None
        if value is not None:
            current = KeyValue(key, value, revision, previous.created if previous else revision)
            self.now[key] = current
        assert revision > max(self.started, self.events[-1].revision if self.events else 0)
        self.events.append(Event(revision, key, current, previous))
        self.had_volatile |= key.startswith(VOLATILE)

    def state_at(self, revision: int, prefix: str) -> tuple[KeyValue, ...]:
        state = dict(self.now)
        for event in reversed(self.events):
            if event.revision > revision:
                state.pop(event.key, None)
                if event.previous is not None:
                    state[event.key] = event.previous
        return tuple(state[key] for key in sorted(state) if key.startswith(prefix))

    def may_be_gone(self, prefix: str, revision: int) -> bool:
        volatile = prefix.startswith(VOLATILE) or VOLATILE.startswith(prefix)
        return revision < self.compacted or (volatile and not isinstance(self.store, MemoryStore))

    def must_be_gone(self, prefix: str, revision: int) -> bool:
        volatile = prefix.startswith(VOLATILE) or VOLATILE.startswith(prefix)
        lost = volatile and self.lost_volatile and revision < self.started
        return revision < self.compacted or lost

    @rule(key=KEYS, value=VALUES)
    def create(self, key: str, value: bytes) -> None:
        work = self.store.create(key, value, volatile=key.startswith(VOLATILE))
        if key in self.now:
            with pytest.raises(Mismatch) as caught:
                self.run(work)
            assert caught.value.found == self.now[key]
        else:
            self.done(key, self.run(work), value)

    @rule(key=KEYS, value=st.none() | VALUES, stale=st.booleans())
    def change(self, key: str, value: bytes | None, stale: bool) -> None:
        found = self.now.get(key)
        expected = found.revision - stale if found else 1
        if value is None:
            work = self.store.delete(key, expected=expected)
        else:
            work = self.store.update(key, value, expected=expected)
        if found is None or stale:
            with pytest.raises(Mismatch) as caught:
                self.run(work)
            assert caught.value.found == found
        else:
            self.done(key, self.run(work), value)

    @rule(prefix=PREFIXES, back=st.integers(0, 15))
    def range_then(self, prefix: str, back: int) -> None:
        revision = max(1, self.store.statistics().revision - back)
        if revision > self.store.statistics().revision:
            return
        try:
            found = self.run(self.store.range(prefix, revision=revision))
        except Compacted:
            assert self.may_be_gone(prefix, revision)
        else:
            assert not self.must_be_gone(prefix, revision)
            assert found.items == self.state_at(revision, prefix)

    @rule(prefix=PREFIXES, start=KEYS, limit=st.integers(0, 4))
    def page(self, prefix: str, start: str, limit: int) -> None:
        found = self.run(self.store.range(prefix, start=start, limit=limit))
        wanted = [self.now[k] for k in sorted(self.now) if k.startswith(prefix) and k >= start]
        page = wanted[:limit] if limit else wanted
        assert list(found.items) == page
        assert found.remaining == len(wanted) - len(page)

    @rule(prefix=PREFIXES, back=st.integers(0, 15))
    def watch(self, prefix: str, back: int) -> None:
        after = max(0, self.store.statistics().revision - back)
        wanted = [e for e in self.events if e.revision > after and e.key.startswith(prefix)]
        try:
            seen = self.run(self.collect(prefix, after, len(wanted)))
        except Compacted:
            assert self.may_be_gone(prefix, after)
        else:
            assert seen == wanted

    async def collect(self, prefix: str, after: int, count: int) -> list[Event]:
        seen: list[Event] = []
        watch = self.store.watch(prefix, after=after)
        async with asyncio.timeout(10):
            while len(seen) < count:
                seen += await anext(watch)
        return seen

    @rule(back=st.integers(0, 10))
    def compact(self, back: int) -> None:
        revision = max(0, self.store.statistics().revision - back)
        self.run(self.store.compact(revision))
        self.compacted = max(self.compacted, revision)

    @invariant()
    def agrees(self) -> None:
        statistics = self.store.statistics()
        assert statistics.keys == len(self.now)
        assert self.run(self.store.range("")).items == self.state_at(statistics.revision, "")


class SqliteMachine(StoreMachine):
    async def make(self) -> Store:
        return await SqliteStore.open(self.path, limits=TINY)

    @precondition(lambda self: bool(self.events))
    @rule()
    def restart(self) -> None:
        highest = self.store.statistics().revision
        self.run(self.store.close())
        self.store = self.run(self.make())
        self.started = self.store.statistics().revision
        self.lost_volatile = self.had_volatile
        assert self.started >= highest
        # A compaction that found nothing to delete is not written down: all of it is still there.
        assert self.store.statistics().compact_revision <= self.compacted
        self.compacted = self.store.statistics().compact_revision
        for key in [key for key in self.now if key.startswith(VOLATILE)]:
            del self.now[key]
        self.events = [event for event in self.events if not event.key.startswith(VOLATILE)]


QUICK = settings(
    max_examples=60, stateful_step_count=40, deadline=None, derandomize=True, database=None
)
StoreMachine.TestCase.settings = QUICK
SqliteMachine.TestCase.settings = QUICK

TestMemory = StoreMachine.TestCase
TestSqlite = SqliteMachine.TestCase
