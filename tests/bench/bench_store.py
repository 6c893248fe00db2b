"""
What the stores cost: writes, fan-out, opening and memory.

Prints a table; :func:`run` returns its rows for whoever collects them. Rates on
disk depend on the device above all, so plain ``sqlite3`` with a transaction a
row runs beside them in the same directory.
"""

import asyncio
import contextlib
import gc
import os
import sqlite3
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path

from controlplane.store.base import Store
from controlplane.store.file import backup_file
from controlplane.store.memory import MemoryStore
from controlplane.store.sqlite import SqliteStore

Row = tuple[str, float, str, str]

VALUE = os.urandom(1500)  # a pod
KEYS = 10_000
WATCHERS = 100


def run(directory: Path | None = None) -> list[Row]:
    """``directory``: on the device to be measured; None: the temporary directory."""
    with tempfile.TemporaryDirectory(dir=directory) as made:
        path = Path(made)
        rows = [*_writes(path), *_fan_out(path), *_opening(path)]
    return rows


def _writes(directory: Path) -> list[Row]:
    plain = _plain_rate(directory / "plain.db", 500)
    rows: list[Row] = [("sqlite3, a transaction a row", plain, "1/s", "the yardstick")]
    for writers, each in ((1, 500), (20, 100), (200, 25)):
        rate, group = asyncio.run(_rate(directory / f"{writers}.db", writers, each))
        note = f"{rate / plain:.1f} x sqlite3, {group:.1f} writes a commit"
        rows.append((f"writes, {writers} at a time", rate, "1/s", note))
    rate, _ = asyncio.run(_rate(directory / "volatile.db", 20, 500, volatile=True))
    rows.append(("volatile writes, 20 at a time", rate, "1/s", ""))
    rate = asyncio.run(_timed(MemoryStore(), lambda store: _update(store, "/a", 5000), 5000))
    rows.append(("memory store, writes", rate, "1/s", ""))
    return rows


def _plain_rate(path: Path, count: int) -> float:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE log (revision INTEGER PRIMARY KEY, key TEXT, value BLOB)")
        begin = time.perf_counter()
        for number in range(count):
            row = (number + 1, f"/{number}", VALUE)
            connection.execute("INSERT INTO log VALUES (?, ?, ?)", row)
        return count / (time.perf_counter() - begin)


async def _rate(
    path: Path, writers: int, each: int, *, volatile: bool = False
) -> tuple[float, float]:
    store = await SqliteStore.open(path)

    async def work(store: Store) -> None:
        names = (f"/core/pods/default/{number}" for number in range(writers))
        await asyncio.gather(*(_update(store, name, each, volatile=volatile) for name in names))

    rate = await _timed(store, work, writers * each)
    statistics = store.statistics()
    await store.close()
    return rate, statistics.writes / max(1, statistics.transactions)


async def _timed(store: Store, work: Callable[[Store], Awaitable[None]], count: int) -> float:
    begin = time.perf_counter()
    await work(store)
    return count / (time.perf_counter() - begin)


async def _update(store: Store, key: str, times: int, *, volatile: bool = False) -> None:
    revision = await store.create(key, VALUE, volatile=volatile)
    for _ in range(times - 1):
        revision = await store.update(key, VALUE, expected=revision)


def _fan_out(directory: Path) -> list[Row]:
    rate, seconds = asyncio.run(_watch(directory / "watch.db", 500))
    return [
        (f"events to {WATCHERS} watchers", rate, "1/s", "20 writers at a time, all read"),
        ("write to the last watcher", seconds * 1e3, "ms", f"one write, {WATCHERS} watchers"),
    ]


async def _watch(path: Path, count: int) -> tuple[float, float]:
    store = await SqliteStore.open(path)

    async def read(count: int, after: int) -> None:
        seen = 0
        async with contextlib.aclosing(store.watch("/core/", after=after)) as watch:
            async for events in watch:
                seen += len(events)
                if seen >= count:
                    return

    async def measure(writers: int, each: int) -> float:
        after = store.statistics().revision
        async with asyncio.TaskGroup() as group:
            for _ in range(WATCHERS):
                group.create_task(read(writers * each, after))
            await asyncio.sleep(0)
            begin = time.perf_counter()
            for number in range(writers):
                group.create_task(_update(store, f"/core/pods/{after}/{number}", each))
        return time.perf_counter() - begin

    rate = count * WATCHERS / await measure(20, count // 20)
    latency = min([await measure(1, 1) for _ in range(20)])
    await store.close()
    return rate, latency


def _opening(directory: Path) -> list[Row]:
    path = directory / "open.db"
    asyncio.run(_fill(path))
    tracemalloc.start()
    gc.collect()
    used = asyncio.run(_open(path))[1]
    tracemalloc.stop()
    seconds = min(asyncio.run(_open(path))[0] for _ in range(5))
    listing = min(asyncio.run(_open(path))[2] for _ in range(3))
    begin = time.perf_counter()
    backup_file(path, directory / "backup.db")
    copying = time.perf_counter() - begin
    size = path.stat().st_size
    return [
        (f"open with {KEYS} keys", seconds * 1e3, "ms", f"{size >> 20} MiB file"),
        (f"range over {KEYS} keys", listing * 1e3, "ms", ""),
        ("memory a key", used / KEYS, "byte", "index; values stay on disk"),
        ("file a key", size / KEYS, "byte", f"values of {len(VALUE)}"),
        ("backup", copying * 1e3, "ms", "synced"),
    ]


async def _fill(path: Path) -> None:
    store = await SqliteStore.open(path)
    for start in range(0, KEYS, 500):
        names = (f"/core/pods/default/a-pod-{number:05}" for number in range(start, start + 500))
        await asyncio.gather(*(store.create(name, VALUE) for name in names))
    await store.close()


async def _open(path: Path) -> tuple[float, int, float]:
    begin = time.perf_counter()
    store = await SqliteStore.open(path)
    opened = time.perf_counter() - begin
    used = tracemalloc.get_traced_memory()[0]
    begin = time.perf_counter()
    await store.range("")
    listed = time.perf_counter() - begin
    await store.close()
    return opened, used, listed


if __name__ == "__main__":
    for name, value, unit, note in run():
        print(f"{name:34} {value:12,.1f} {unit:5} {note}")  # noqa: T201 - a script
