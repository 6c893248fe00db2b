"""What only the store on disk has: restarts, group commit, files, errors and backups."""

import asyncio
import contextlib
import shutil
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.store.base import Compacted, Event, KeyValue, StoreError
from controlplane.store.broadcast import Limits
from controlplane.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[3]
LEASE = "/coordination.k8s.io/leases/kube-node-lease/n1"
TINY = Limits(window_events=3, window_bytes=0)


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "state.db")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def opened(path: Path, limits: Limits | None = None) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(path, limits=limits)
    try:
        yield made
    finally:
        await made.close()


def crash_copy(path: Path, target: Path) -> Path:
    """The files as they are: what a killed process leaves behind."""
    target.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), target / (path.name + suffix))
    return target / path.name


async def take(store: SqliteStore, prefix: str, *, after: int, count: int) -> list[Event]:
    events: list[Event] = []
    watch = store.watch(prefix, after=after)
    async with asyncio.timeout(10), contextlib.aclosing(watch):
        while len(events) < count:
            events += await anext(watch)
    return events


async def change_often(store: SqliteStore, key: str, times: int) -> list[int]:
    revisions = [await store.create(key, b"0")]
    for number in range(1, times):
        revisions.append(await store.update(key, b"%d" % number, expected=revisions[-1]))
    return revisions


async def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path) as store:
        first = await store.create("/a", b"1")
        second = await store.update("/a", b"2", expected=first)
        await store.delete("/b", expected=await store.create("/b", b""))
        highest = store.statistics().revision
    async with opened(path) as store:
        assert (await store.range("")).items == (KeyValue("/a", b"2", second, first),)
        assert store.statistics().revision == highest
        assert await store.update("/a", b"3", expected=second) == highest + 1


async def test_what_was_acknowledged_is_there_after_a_kill(
    store: SqliteStore, tmp_path: Path
) -> None:
    await change_often(store, "/a", 50)
    async with opened(crash_copy(tmp_path / "state.db", tmp_path / "copy")) as copy:
        assert (await copy.range("")).items == (await store.range("")).items


async def test_volatile_keys_are_gone_after_a_restart_and_their_revisions_are_not_used_again(
    store: SqliteStore, tmp_path: Path
) -> None:
    revision = await store.create(LEASE, b"", volatile=True)
    for _ in range(20):
        revision = await store.update(LEASE, b"", expected=revision)
    async with opened(crash_copy(tmp_path / "state.db", tmp_path / "copy")) as copy:
        assert await copy.get(LEASE) is None
        assert copy.statistics().revision >= revision
        assert await copy.create("/a", b"") > revision


async def test_a_clean_stop_gives_the_reserved_revisions_back(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db") as store:
        revision = await store.create(LEASE, b"", volatile=True)
    async with opened(tmp_path / "state.db") as store:
        assert await store.create("/a", b"") == revision + 1


async def test_the_history_of_volatile_keys_ends_at_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db") as store:
        first = await store.create("/core/pods/d/a", b"")
        await store.create(LEASE, b"", volatile=True)
    async with opened(tmp_path / "state.db") as store:
        for prefix in ("", "/coordination.k8s.io/leases/", LEASE):
            with pytest.raises(Compacted):
                await take(store, prefix, after=first, count=1)
            with pytest.raises(Compacted):
                await store.range(prefix, revision=first)
        assert len(await take(store, "/core/pods/", after=0, count=1)) == 1


async def test_the_history_of_durable_keys_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db") as store:
        revisions = await change_often(store, "/a", 600)
    async with opened(tmp_path / "state.db") as store:
        more = await store.update("/a", b"x", expected=revisions[-1])
        events = await take(store, "/a", after=revisions[0], count=600)
        assert [event.revision for event in events] == [*revisions[1:], more]
        assert [event.previous.value for event in events if event.previous] == [
            b"%d" % number for number in range(600)
        ]


async def test_a_watch_that_catches_up_misses_nothing_while_writes_go_on(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db", TINY) as store:
        revisions = await change_often(store, "/a", 700)

        async def go_on() -> None:
            for _ in range(300):
                revisions.append(await store.update("/a", b"", expected=revisions[-1]))

        async with asyncio.TaskGroup() as group:
            group.create_task(go_on())
            reading = group.create_task(take(store, "", after=0, count=1000))
        assert [event.revision for event in reading.result()] == revisions


async def test_volatile_history_that_left_the_window_is_compacted(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db", TINY) as store:
        first = await store.create(LEASE, b"1", volatile=True)
        revision = first
        for _ in range(5):
            revision = await store.update(LEASE, b"2", expected=revision)
        with pytest.raises(Compacted):
            await store.range("/coordination.k8s.io/", revision=first)
        assert len(await take(store, LEASE, after=revision - 2, count=2)) == 2


async def test_volatile_writes_write_nothing(store: SqliteStore, tmp_path: Path) -> None:
    revision = await store.create(LEASE, b"", volatile=True)
    before = on_disk(tmp_path)
    for _ in range(500):
        revision = await store.update(LEASE, b"x", expected=revision)
    assert on_disk(tmp_path) == before
    assert store.statistics().transactions == 1


async def test_ten_thousand_volatile_writes_cost_a_few_transactions(store: SqliteStore) -> None:
    revision = await store.create(LEASE, b"", volatile=True)
    for _ in range(10_500):
        revision = await store.update(LEASE, b"x", expected=revision)
    assert store.statistics().transactions == 2


async def test_reads_and_empty_compactions_write_nothing(
    store: SqliteStore, tmp_path: Path
) -> None:
    revision = await store.create("/a", b"")
    before = on_disk(tmp_path)
    await store.range("")
    await store.get("/a")
    await store.compact(revision)
    assert on_disk(tmp_path) == before


async def test_writers_share_a_commit(store: SqliteStore) -> None:
    await asyncio.gather(*(store.create(f"/{number}", b"") for number in range(200)))
    assert store.statistics().writes == 200
    assert store.statistics().transactions <= 5


async def test_a_lone_writer_commits_each_write(store: SqliteStore) -> None:
    await change_often(store, "/a", 10)
    assert store.statistics().transactions == 10


async def test_compaction_deletes_rows(store: SqliteStore, tmp_path: Path) -> None:
    revisions = await change_often(store, "/a", 1200)
    await store.delete("/b", expected=await store.create("/b", b""))
    await store.compact(store.statistics().revision)
    assert rows(tmp_path / "state.db") == [revisions[-1]]


async def test_compaction_is_remembered(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db") as store:
        revisions = await change_often(store, "/a", 10)
        await store.compact(revisions[5])
    async with opened(tmp_path / "state.db") as store:
        assert store.statistics().compact_revision == revisions[5]
        with pytest.raises(Compacted):
            await store.range("", revision=revisions[4])
        assert (await store.range("", revision=revisions[5])).items[0].value == b"5"


async def test_deleting_the_newest_rows_does_not_turn_back_revisions(tmp_path: Path) -> None:
    async with opened(tmp_path / "state.db") as store:
        await store.delete("/a", expected=await store.create("/a", b""))
        highest = store.statistics().revision
        await store.compact(highest)
    async with opened(tmp_path / "state.db") as store:
        assert await store.create("/a", b"") > highest


async def test_reads_and_writes_go_on_during_compactions(store: SqliteStore) -> None:
    revisions = [await store.create(f"/{number}", b"0") for number in range(50)]

    async def write() -> None:
        for _ in range(10):
            for number in range(50):
                key = f"/{number}"
                revisions[number] = await store.update(key, b"x", expected=revisions[number])
            await store.compact(store.statistics().revision)

    async def read(done: asyncio.Event) -> None:
        while not done.is_set():
            assert len((await store.range("")).items) == 50
            assert await store.get("/7") is not None

    done = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(read(done))
        await write()
        done.set()


async def test_a_full_disk_fails_the_group_and_the_store_goes_on_afterwards(
    store: SqliteStore,
) -> None:
    first = await store.create("/a", b"1")
    watch = store.watch("", after=first)
    full = store._files.writer.execute("PRAGMA page_count").fetchone()[0]
    store._files.writer.execute(f"PRAGMA max_page_count = {full}")
    results = await asyncio.gather(
        *(store.create(f"/{number}", bytes(9000)) for number in range(5)),
        store.update("/a", bytes(9000), expected=first),
        return_exceptions=True,
    )
    assert all(isinstance(result, StoreError) for result in results)
    assert "no space left" in str(results[0])
    assert (await store.range("")).items == (KeyValue("/a", b"1", first, first),)
    assert store.statistics().revision == first
    store._files.writer.execute("PRAGMA max_page_count = 1000000")
    second = await store.update("/a", b"2", expected=first)
    async with contextlib.aclosing(watch):
        (event,) = await asyncio.wait_for(anext(watch), 5)
    assert event.revision == second == first + 1


async def test_a_volatile_write_fails_too_when_no_revisions_can_be_reserved(
    store: SqliteStore,
) -> None:
    await store.create("/a", b"1")
    connection = store._files.writer
    connection.execute("PRAGMA query_only = ON")
    with pytest.raises(StoreError, match="read-only"):
        await store.create(LEASE, b"", volatile=True)
    connection.execute("PRAGMA query_only = OFF")
    assert await store.create(LEASE, b"", volatile=True) > 0


async def test_a_key_that_is_not_text_fails_alone(store: SqliteStore) -> None:
    results = await asyncio.gather(
        store.create("/a", b""), store.create("/\ud800", b""), return_exceptions=True
    )
    assert results[0] == 1
    assert isinstance(results[1], UnicodeEncodeError)


async def test_a_key_costs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path) as store:
        await asyncio.gather(
            *(store.create(f"/core/pods/default/a-pod-{n:05}", bytes(1500)) for n in range(5000))
        )
    tracemalloc.start()
    try:
        async with opened(path):
            used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used / 5000 < 300


def test_the_module_does_not_start_threads_when_imported() -> None:
    command = "import controlplane.store.sqlite, threading; print(threading.active_count())"
    done = subprocess.run(
        [sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "1"


def on_disk(directory: Path) -> dict[str, tuple[int, int]]:
    """The shared-memory file is not written to disk by anyone."""
    return {
        path.name: (path.stat().st_size, path.stat().st_mtime_ns)
        for path in directory.iterdir()
        if not path.name.endswith("-shm")
    }


def rows(path: Path) -> list[int]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute("SELECT revision FROM log")]
