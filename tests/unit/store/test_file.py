"""The files of the store on disk: their modes, their damage, their backups."""

import asyncio
import contextlib
import os
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controlplane.store.base import StoreError
from controlplane.store.file import SCHEMA_VERSION, backup_file
from controlplane.store.sqlite import SqliteStore

ROOT = Path(__file__).parents[3]


@pytest_asyncio.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(tmp_path / "state.db")
    yield made
    await made.close()


@contextlib.asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    made = await SqliteStore.open(path)
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


async def test_all_files_are_private(store: SqliteStore, tmp_path: Path) -> None:
    await store.create("/a", b"")
    assert modes(tmp_path) == dict.fromkeys(
        ("state.db", "state.db-wal", "state.db-shm", "state.db.lock"), 0o600
    )


async def test_an_open_file_mode_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path):
        pass
    path.chmod(0o644)
    async with opened(path):
        assert path.stat().st_mode & 0o777 == 0o600


async def test_a_second_process_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="in use by another process"):
        await SqliteStore.open(tmp_path / "state.db")
    await store.create("/a", b"")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"apiVersion: v1\n" * 500)
    with pytest.raises(StoreError, match="is not a datastore: move it away"):
        await SqliteStore.open(tmp_path / "state.db")


async def test_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.db").mkdir()
    with pytest.raises(StoreError, match="must be a file"):
        await SqliteStore.open(tmp_path / "state.db")


async def test_a_path_through_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"")
    with pytest.raises(StoreError, match="must exist on a writable filesystem"):
        await SqliteStore.open(tmp_path / "db" / "state.db")


async def test_a_newer_schema_is_refused_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path):
        pass
    execute(path, f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with pytest.raises(StoreError, match=f"schema version {SCHEMA_VERSION + 1}.*newer Pinnace"):
        await SqliteStore.open(path)


async def test_the_files_of_other_programs_are_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    execute(path, "CREATE TABLE kine (id INTEGER PRIMARY KEY)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="K3s datastore"):
        await SqliteStore.open(path)
    execute(path, "ALTER TABLE kine RENAME TO other")
    with pytest.raises(StoreError, match="another program"):
        await SqliteStore.open(path)
    assert len(path.read_bytes()) == len(before)


async def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / "state.db").touch()
    async with opened(tmp_path / "state.db") as store:
        assert await store.create("/a", b"") == 1


async def test_damage_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path) as store:
        for number in range(100):
            await store.create(f"/{number}", bytes(1000))
    content = bytearray(path.read_bytes())
    content[4096 * 5 : 4096 * 20] = b"\xff" * 4096 * 15
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        await SqliteStore.open(path)


async def test_a_file_of_mostly_free_space_shrinks_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    async with opened(path) as store:
        revision = await store.create("/a", b"")
        for _ in range(40):
            revision = await store.update("/a", bytes(1 << 20), expected=revision)
        await store.compact(revision)
    assert path.stat().st_size > 40 << 20
    async with opened(path) as store:
        assert await store.get("/a") is not None
        assert store.statistics().keys == 1
    assert path.stat().st_size < 4 << 20


async def test_a_backup_is_one_consistent_private_file(store: SqliteStore, tmp_path: Path) -> None:
    for number in range(20):
        await store.create(f"/{number}", bytes(500))

    async def write_on(done: asyncio.Event) -> None:
        revision = await store.create("/busy", b"")
        while not done.is_set():
            revision = await store.update("/busy", b"", expected=revision)

    done = asyncio.Event()
    target = tmp_path / "backup.db"
    async with asyncio.TaskGroup() as group:
        group.create_task(write_on(done))
        await store.backup(target)
        done.set()
    assert {name: mode for name, mode in modes(tmp_path).items() if "backup" in name} == {
        "backup.db": 0o600
    }
    async with opened(target) as copy:
        assert copy.statistics().keys in (20, 21)
        assert (await copy.range("/1")).items == (await store.range("/1")).items


async def test_a_backup_never_overwrites(store: SqliteStore, tmp_path: Path) -> None:
    target = tmp_path / "backup.db"
    target.write_bytes(b"precious")
    with pytest.raises(StoreError, match="never overwrites"):
        await store.backup(target)
    assert target.read_bytes() == b"precious"


async def test_a_backup_that_fails_leaves_nothing(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write the backup"):
        await store.backup(tmp_path / "absent" / "backup.db")
    other = tmp_path / "other.db"
    execute(other, "CREATE TABLE t (x)")
    with pytest.raises(StoreError, match="not a Pinnace datastore"):
        backup_file(other, tmp_path / "backup.db")
    other.write_bytes(b"apiVersion: v1\n" * 500)
    with pytest.raises(StoreError, match=r"other\.db is not a datastore"):
        backup_file(other, tmp_path / "backup.db")
    with pytest.raises(StoreError, match=r"no datastore at .*absent\.db"):
        backup_file(tmp_path / "absent.db", tmp_path / "backup.db")
    assert not [name for name in modes(tmp_path) if "backup" in name]


async def test_another_process_backs_up_a_store_in_use(store: SqliteStore, tmp_path: Path) -> None:
    revision = await store.create("/busy", b"")
    command = (
        "import pathlib, sys; from controlplane.store.file import backup_file;"
        "backup_file(*map(pathlib.Path, sys.argv[1:]))"
    )
    target = tmp_path / "backup.db"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", command, str(tmp_path / "state.db"), str(target), cwd=ROOT
    )
    waiting = asyncio.ensure_future(process.wait())
    while not waiting.done():
        revision = await store.update("/busy", bytes(100), expected=revision)
    assert waiting.result() == 0
    async with opened(target) as copy:
        found = await copy.get("/busy")
    assert found is not None
    assert found.revision <= revision
    assert await store.update("/busy", b"", expected=revision) > revision


async def test_a_stopped_or_killed_store_can_be_backed_up_too(
    store: SqliteStore, tmp_path: Path
) -> None:
    revision = await store.create("/a", b"")
    for _ in range(5):
        revision = await store.update("/a", b"", expected=revision)
    killed = crash_copy(tmp_path / "state.db", tmp_path / "killed")
    await asyncio.to_thread(backup_file, killed, tmp_path / "one.db")
    await store.close()
    await asyncio.to_thread(backup_file, tmp_path / "state.db", tmp_path / "two.db")
    for name in ("one.db", "two.db"):
        async with opened(tmp_path / name) as copy:
            found = await copy.get("/a")
            assert found is not None
            assert found.revision == revision


def modes(directory: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in directory.iterdir()}


def execute(path: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_what_a_killed_process_left_is_synced_before_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last commit may be with the kernel alone; who has read it must not see it go."""

    async def leave() -> None:
        store = await SqliteStore.open(tmp_path / "live" / "state.db")
        await store.create("/core/pods/a", b"1")
        shutil.copytree(tmp_path / "live", tmp_path / "left")
        await store.close()

    asyncio.run(leave())
    path = tmp_path / "left" / "state.db"
    synced: list[int] = []
    monkeypatch.setattr("os.fsync", lambda found: synced.append(os.fstat(found).st_ino))

    async def read() -> None:
        wanted = {path.stat().st_ino, path.with_name("state.db-wal").stat().st_ino}
        store = await SqliteStore.open(path)
        assert wanted <= set(synced)
        assert [item.value for item in (await store.range("/core/pods/")).items] == [b"1"]
        await store.close()
        synced.clear()
        store = await SqliteStore.open(path)
        assert not wanted & set(synced), "a clean end leaves nothing to sync"
        await store.close()

    asyncio.run(read())
