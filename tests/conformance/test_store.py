"""What every store must do: the contract of controlplane/store/base.py, case by case."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import cast

import pytest
import pytest_asyncio

from controlplane.store.base import (
    Compacted,
    Event,
    FutureRevision,
    KeyValue,
    Mismatch,
    Store,
    StoreError,
)
from controlplane.store.memory import MemoryStore
from controlplane.store.sqlite import SqliteStore

PODS = "/core/pods/"
LEASES = "/coordination.k8s.io/leases/"


@pytest_asyncio.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    else:
        made = await SqliteStore.open(tmp_path / "state.db")
    yield made
    await made.close()


@asynccontextmanager
async def watching(
    store: Store, prefix: str, *, after: int
) -> AsyncIterator[AsyncIterator[Sequence[Event]]]:
    watch = cast(AsyncGenerator[Sequence[Event], None], store.watch(prefix, after=after))
    async with aclosing(watch):
        yield watch


async def take(watch: AsyncIterator[Sequence[Event]], count: int) -> list[Event]:
    """Exactly so many events."""
    events: list[Event] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            events += await anext(watch)
    assert len(events) == count
    return events


async def settled(watch: AsyncIterator[Sequence[Event]]) -> asyncio.Task[Sequence[Event]]:
    """A task that waits in the watch."""
    task = asyncio.ensure_future(anext(watch))
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_a_created_key_can_be_read(store: Store) -> None:
    revision = await store.create("/core/pods/default/a", b"1")
    assert revision > 0
    assert await store.get("/core/pods/default/a") == KeyValue(
        "/core/pods/default/a", b"1", revision, revision
    )


async def test_an_absent_key_reads_as_none(store: Store) -> None:
    assert await store.get("/core/pods/default/a") is None


async def test_creating_a_present_key_is_a_mismatch_that_shows_it(store: Store) -> None:
    revision = await store.create("/a", b"1")
    with pytest.raises(Mismatch) as caught:
        await store.create("/a", b"2")
    assert caught.value.found == KeyValue("/a", b"1", revision, revision)
    assert store.statistics().revision == revision


async def test_an_update_keeps_the_creation_revision(store: Store) -> None:
    created = await store.create("/a", b"1")
    revision = await store.update("/a", b"2", expected=created)
    assert revision > created
    assert await store.get("/a") == KeyValue("/a", b"2", revision, created)


async def test_an_update_of_another_revision_is_a_mismatch(store: Store) -> None:
    first = await store.create("/a", b"1")
    second = await store.update("/a", b"2", expected=first)
    with pytest.raises(Mismatch) as caught:
        await store.update("/a", b"3", expected=first)
    assert caught.value.found == KeyValue("/a", b"2", second, first)


async def test_updating_or_deleting_an_absent_key_is_a_mismatch_without_a_value(
    store: Store,
) -> None:
    with pytest.raises(Mismatch) as caught:
        await store.update("/a", b"1", expected=7)
    assert caught.value.found is None
    with pytest.raises(Mismatch) as caught:
        await store.delete("/a", expected=7)
    assert caught.value.found is None


async def test_a_deletion_of_another_revision_is_a_mismatch(store: Store) -> None:
    first = await store.create("/a", b"1")
    await store.update("/a", b"2", expected=first)
    with pytest.raises(Mismatch):
        await store.delete("/a", expected=first)
    assert await store.get("/a") is not None


async def test_a_deletion_has_a_revision_of_its_own(store: Store) -> None:
    created = await store.create("/a", b"1")
    deleted = await store.delete("/a", expected=created)
    assert deleted > created
    assert await store.get("/a") is None
    assert store.statistics().keys == 0


async def test_a_key_created_again_starts_anew(store: Store) -> None:
    first = await store.create("/a", b"1")
    deleted = await store.delete("/a", expected=first)
    again = await store.create("/a", b"2")
    assert again > deleted
    assert await store.get("/a") == KeyValue("/a", b"2", again, again)
    async with watching(store, "/a", after=0) as watch:
        events = await take(watch, 3)
    assert [event.previous is None for event in events] == [True, False, True]


async def test_an_empty_value_is_a_value(store: Store) -> None:
    revision = await store.create("/a", b"")
    assert await store.get("/a") == KeyValue("/a", b"", revision, revision)
    async with watching(store, "/a", after=0) as watch:
        (event,) = await take(watch, 1)
    assert event.current is not None


async def test_range_is_in_byte_order_and_keeps_to_the_prefix(store: Store) -> None:
    keys = [
        "/a/b",
        "/a/",
        "/a/B",
        "/a/é",
        "/a/\U0001f600",
        "/a/\uffff",
        "/a0",
        "/a",
        "/b/x",
        "/a/b/c",
    ]
    for key in keys:
        await store.create(key, key.encode())
    found = await store.range("/a/")
    inside = sorted((key for key in keys if key.startswith("/a/")), key=str.encode)
    assert [item.key for item in found.items] == inside
    assert [item.value for item in found.items] == [key.encode() for key in inside]
    assert found.revision == store.statistics().revision
    assert found.remaining == 0


async def test_range_of_everything_and_of_nothing(store: Store) -> None:
    await store.create("/a", b"")
    assert len((await store.range("")).items) == 1
    assert (await store.range("/b")).items == ()
    assert (await store.range("/a", start="/b")).items == ()
    assert (await store.range("\U0010ffff")).items == ()


async def test_a_prefix_that_ends_in_the_last_code_point_is_bounded(store: Store) -> None:
    for key in ("/a", "/\U0010ffff", "/\U0010ffff!", "0"):
        await store.create(key, b"")
    found = await store.range("/\U0010ffff")
    assert [item.key for item in found.items] == ["/\U0010ffff", "/\U0010ffff!"]


async def test_range_pages_with_limit_start_and_remaining(store: Store) -> None:
    for number in range(10):
        await store.create(f"/a/{number}", b"")
    first = await store.range("/a/", limit=4)
    assert [item.key for item in first.items] == ["/a/0", "/a/1", "/a/2", "/a/3"]
    assert first.remaining == 6
    second = await store.range("/a/", start="/a/4", limit=4, revision=first.revision)
    assert [item.key for item in second.items] == ["/a/4", "/a/5", "/a/6", "/a/7"]
    assert second.remaining == 2
    last = await store.range("/a/", start="/a/7\0", limit=4, revision=first.revision)
    assert [item.key for item in last.items] == ["/a/8", "/a/9"]
    assert last.remaining == 0


async def test_range_at_an_older_revision_shows_what_was(store: Store) -> None:
    a = await store.create("/a", b"a1")
    b = await store.create("/b", b"b1")
    then = store.statistics().revision
    await store.update("/a", b"a2", expected=a)
    await store.delete("/b", expected=b)
    await store.create("/c", b"c1")
    found = await store.range("/", revision=then)
    assert found.revision == then
    assert found.items == (KeyValue("/a", b"a1", a, a), KeyValue("/b", b"b1", b, b))


async def test_pages_of_one_revision_agree_while_keys_change(store: Store) -> None:
    revisions = {f"/a/{n}": await store.create(f"/a/{n}", b"old") for n in range(6)}
    first = await store.range("/a/", limit=3)
    await store.delete("/a/4", expected=revisions["/a/4"])
    await store.update("/a/5", b"new", expected=revisions["/a/5"])
    await store.create("/a/45", b"new")
    rest = await store.range("/a/", start="/a/3", limit=3, revision=first.revision)
    assert [(item.key, item.value) for item in rest.items] == [
        ("/a/3", b"old"),
        ("/a/4", b"old"),
        ("/a/5", b"old"),
    ]
    assert rest.remaining == 0


async def test_a_range_at_a_future_revision_is_refused(store: Store) -> None:
    revision = await store.create("/a", b"")
    with pytest.raises(FutureRevision) as caught:
        await store.range("", revision=revision + 1)
    assert caught.value.current == revision


async def test_a_watch_from_a_future_revision_is_refused(store: Store) -> None:
    revision = await store.create("/a", b"")
    async with watching(store, "", after=revision + 1) as watch:
        with pytest.raises(FutureRevision):
            await anext(watch)


async def test_a_watch_gets_each_change_once_and_in_order(store: Store) -> None:
    created = await store.create("/a", b"1")
    async with watching(store, "", after=0) as watch:
        assert await take(watch, 1) == [
            Event(created, "/a", KeyValue("/a", b"1", created, created), None)
        ]
        updated = await store.update("/a", b"2", expected=created)
        deleted = await store.delete("/a", expected=updated)
        one = KeyValue("/a", b"1", created, created)
        two = KeyValue("/a", b"2", updated, created)
        assert await take(watch, 2) == [
            Event(updated, "/a", two, one),
            Event(deleted, "/a", None, two),
        ]


async def test_a_watch_starts_after_its_revision(store: Store) -> None:
    first = await store.create("/a", b"")
    second = await store.create("/b", b"")
    async with watching(store, "", after=first) as watch:
        assert [event.revision for event in await take(watch, 1)] == [second]


async def test_a_watch_keeps_to_its_prefix(store: Store) -> None:
    async with watching(store, "/a/", after=0) as watch:
        for key in ("/a", "/a/", "/a/x", "/a0", "/b/a/"):
            await store.create(key, b"")
        await store.create("/a/z", b"")
        assert [event.key for event in await take(watch, 3)] == ["/a/", "/a/x", "/a/z"]


async def test_a_write_is_in_the_queues_of_watchers_before_it_returns(store: Store) -> None:
    async with watching(store, "", after=0) as watch:
        waiting = await settled(watch)
        assert store.statistics().watchers == 1
        revision = await store.create("/a", b"")
        assert [event.revision for event in await waiting] == [revision]
    assert store.statistics().watchers == 0


async def test_volatile_and_durable_changes_share_one_sequence(store: Store) -> None:
    pod = await store.create(PODS + "d/a", b"1")
    lease = await store.create(LEASES + "d/a", b"1", volatile=True)
    renewed = await store.update(LEASES + "d/a", b"2", expected=lease)
    pod_again = await store.update(PODS + "d/a", b"2", expected=pod)
    gone = await store.delete(LEASES + "d/a", expected=renewed)
    revisions = [pod, lease, renewed, pod_again, gone]
    assert revisions == sorted(set(revisions))
    async with watching(store, "", after=0) as watch:
        assert [event.revision for event in await take(watch, 5)] == revisions
    async with watching(store, LEASES, after=pod) as watch:
        assert [event.revision for event in await take(watch, 3)] == [lease, renewed, gone]


async def test_volatile_keys_are_read_like_others(store: Store) -> None:
    lease = await store.create(LEASES + "d/a", b"1", volatile=True)
    pod = await store.create(PODS + "d/a", b"1")
    assert await store.get(LEASES + "d/a") == KeyValue(LEASES + "d/a", b"1", lease, lease)
    renewed = await store.update(LEASES + "d/a", b"2", expected=lease)
    assert [item.revision for item in (await store.range("")).items] == [renewed, pod]
    then = await store.range("", revision=pod)
    assert [item.revision for item in then.items] == [lease, pod]
    with pytest.raises(Mismatch) as caught:
        await store.update(LEASES + "d/a", b"3", expected=lease)
    assert caught.value.found is not None
    assert caught.value.found.revision == renewed


async def test_a_volatile_key_can_be_neither_created_twice_nor_made_durable(store: Store) -> None:
    await store.create(LEASES + "d/a", b"1", volatile=True)
    with pytest.raises(Mismatch):
        await store.create(LEASES + "d/a", b"2", volatile=True)
    with pytest.raises(Mismatch):
        await store.create(LEASES + "d/a", b"2")
    await store.create(PODS + "d/a", b"1")
    with pytest.raises(Mismatch):
        await store.create(PODS + "d/a", b"2", volatile=True)


async def test_compaction_keeps_current_values_and_forgets_history(store: Store) -> None:
    a1 = await store.create("/a", b"1")
    a2 = await store.update("/a", b"2", expected=a1)
    b = await store.create("/b", b"1")
    await store.delete("/b", expected=b)
    a3 = await store.update("/a", b"3", expected=a2)
    await store.compact(a2)
    assert store.statistics().compact_revision == a2
    assert (await store.range("/")).items == (KeyValue("/a", b"3", a3, a1),)
    assert (await store.range("/", revision=a2)).items == (KeyValue("/a", b"2", a2, a1),)
    with pytest.raises(Compacted) as caught:
        await store.range("/", revision=a1)
    assert caught.value.compact_revision == a2


async def test_a_watch_from_before_the_compaction_is_refused(store: Store) -> None:
    first = await store.create("/a", b"1")
    second = await store.update("/a", b"2", expected=first)
    third = await store.update("/a", b"3", expected=second)
    await store.compact(second)
    async with watching(store, "", after=first) as watch:
        with pytest.raises(Compacted) as caught:
            await anext(watch)
    assert caught.value.compact_revision == second
    async with watching(store, "", after=second) as watch:
        (event,) = await take(watch, 1)
    assert event.revision == third
    assert event.previous == KeyValue("/a", b"2", second, first)


async def test_compaction_is_idempotent_and_never_goes_back(store: Store) -> None:
    first = await store.create("/a", b"1")
    second = await store.update("/a", b"2", expected=first)
    await store.compact(second)
    await store.compact(second)
    await store.compact(first)
    assert store.statistics().compact_revision == second
    with pytest.raises(FutureRevision):
        await store.compact(second + 1)


async def test_compaction_up_to_now_leaves_deleted_keys_creatable(store: Store) -> None:
    first = await store.create("/a", b"1")
    deleted = await store.delete("/a", expected=first)
    await store.compact(deleted)
    again = await store.create("/a", b"2")
    assert again > deleted
    assert (await store.range("", revision=deleted)).items == ()
    assert await store.get("/a") == KeyValue("/a", b"2", again, again)


async def test_a_running_watch_outlives_a_compaction(store: Store) -> None:
    async with watching(store, "", after=0) as watch:
        first = await store.create("/a", b"1")
        await take(watch, 1)
        second = await store.update("/a", b"2", expected=first)
        await store.compact(second)
        third = await store.update("/a", b"3", expected=second)
        assert [event.revision for event in await take(watch, 2)] == [second, third]


async def test_of_many_writers_of_one_key_each_round_has_one_winner(store: Store) -> None:
    revision = await store.create("/a", b"0")
    for _ in range(3):
        results = await asyncio.gather(
            *(store.update("/a", str(n).encode(), expected=revision) for n in range(20)),
            return_exceptions=True,
        )
        winners = [result for result in results if isinstance(result, int)]
        losers = [result for result in results if isinstance(result, Mismatch)]
        assert len(winners) == 1
        assert len(losers) == 19
        revision = winners[0]
        assert all(loser.found and loser.found.revision == revision for loser in losers)


async def test_concurrent_writers_lose_nothing(store: Store) -> None:
    async def count_up(name: str) -> None:
        revision = await store.create(name, b"0")
        for number in range(1, 11):
            revision = await store.update(name, str(number).encode(), expected=revision)

    async with watching(store, "", after=0) as watch:
        waiting = await settled(watch)
        await asyncio.gather(*(count_up(f"/{number}") for number in range(20)))
        events = [*await waiting]
        events += await take(watch, 220 - len(events)) if len(events) < 220 else []
    assert [event.revision for event in events] == sorted({event.revision for event in events})
    assert len(events) == 220
    assert all(item.value == b"10" for item in (await store.range("")).items)


async def test_concurrent_increments_by_retry_add_up(store: Store) -> None:
    await store.create("/counter", b"0")

    async def increment() -> None:
        while True:
            found = await store.get("/counter")
            assert found is not None
            try:
                value = str(int(found.value) + 1).encode()
                await store.update("/counter", value, expected=found.revision)
            except Mismatch:
                continue
            return

    await asyncio.gather(*(increment() for _ in range(12)))
    found = await store.get("/counter")
    assert found is not None
    assert found.value == b"12"


async def test_concurrent_creation_and_deletion_of_one_key_are_in_some_order(store: Store) -> None:
    async def churn() -> int:
        done = 0
        for _ in range(10):
            try:
                revision = await store.create("/a", b"")
                await store.delete("/a", expected=revision)
                done += 2
            except Mismatch:
                await asyncio.sleep(0)
        return done

    counts = await asyncio.gather(*(churn() for _ in range(5)))
    assert await store.get("/a") is None
    async with watching(store, "", after=0) as watch:
        events = await take(watch, sum(counts))
    assert [event.current is None for event in events] == [False, True] * (sum(counts) // 2)


async def test_a_watcher_that_is_left_behind_must_list_again(store: Store) -> None:
    async with watching(store, "", after=0) as watch:
        revision = await store.create("/a", b"")
        await take(watch, 1)
        for _ in range(1200):
            revision = await store.update("/a", b"", expected=revision)
        with pytest.raises(Compacted):
            await asyncio.wait_for(anext(watch), 5)
    assert store.statistics().watchers == 0


async def test_a_slow_watcher_holds_up_no_other(store: Store) -> None:
    async with watching(store, "", after=0) as slow, watching(store, "", after=0) as fast:
        revision = await store.create("/a", b"")
        await take(slow, 1)
        await take(fast, 1)
        for _ in range(1100):
            revision = await store.update("/a", b"", expected=revision)
            (event,) = await take(fast, 1)
            assert event.revision == revision


async def test_large_values_survive(store: Store) -> None:
    value = bytes(range(256)) * 6144  # 1.5 MiB, the limit of the API
    first = await store.create("/a", value)
    second = await store.update("/a", value[::-1], expected=first)
    assert await store.get("/a") == KeyValue("/a", value[::-1], second, first)
    assert (await store.range("/a", revision=first)).items[0].value == value


async def test_ten_thousand_keys(store: Store) -> None:
    for chunk in range(0, 10_000, 500):
        await asyncio.gather(
            *(store.create(f"/a/{n:05}", str(n).encode()) for n in range(chunk, chunk + 500))
        )
    found = await store.range("/a/")
    assert [item.value for item in found.items] == [str(n).encode() for n in range(10_000)]
    page = await store.range("/a/", start="/a/07000", limit=500)
    assert page.items[0].key == "/a/07000"
    assert page.remaining == 2500
    assert store.statistics().keys == 10_000


async def test_a_closed_store_refuses_everything(store: Store) -> None:
    revision = await store.create("/a", b"")
    await store.close()
    with pytest.raises(StoreError):
        await store.get("/a")
    with pytest.raises(StoreError):
        await store.range("")
    with pytest.raises(StoreError):
        await store.create("/b", b"")
    with pytest.raises(StoreError):
        await store.update("/a", b"", expected=revision)
    with pytest.raises(StoreError):
        await store.compact(revision)
    async with watching(store, "", after=revision) as watch:
        with pytest.raises(StoreError):
            await anext(watch)
    await store.close()


async def test_closing_ends_the_watches(store: Store) -> None:
    async with watching(store, "", after=0) as watch:
        waiting = await settled(watch)
        await store.close()
        with pytest.raises(StoreError):
            await asyncio.wait_for(waiting, 5)


async def test_closing_finishes_what_was_accepted(store: Store) -> None:
    writes = [asyncio.ensure_future(store.create(f"/{number}", b"")) for number in range(30)]
    await asyncio.sleep(0)
    await store.close()
    revisions = await asyncio.gather(*writes)
    assert len(set(revisions)) == 30


async def test_a_cancelled_watch_unsubscribes(store: Store) -> None:
    watch = store.watch("", after=0)
    waiting = await settled(watch)
    assert store.statistics().watchers == 1
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert store.statistics().watchers == 0


async def test_a_cancelled_write_harms_no_other(store: Store) -> None:
    writes = [asyncio.ensure_future(store.create(f"/{number}", b"")) for number in range(10)]
    await asyncio.sleep(0)
    writes[3].cancel()
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) >= 9
    assert await store.create("/after", b"") == store.statistics().revision
