"""A damaged datastore: what can be read of it is in a sound one afterwards, and nothing else."""

import json
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest

from controlplane.store.base import StoreError
from controlplane.store.salvage import is_sound, live, salvage
from controlplane.store.sqlite import SqliteStore

PAGE = 4096
LARGE = 20_000  # bytes: on overflow pages


def value(name: str, size: int = 100) -> bytes:
    return json.dumps({"metadata": {"name": name}, "data": "x" * size}).encode()


async def fill(path: Path, *, objects: int = 300) -> dict[str, bytes]:
    """What is in it at the end: created, changed, deleted, small and large."""
    store = await SqliteStore.open(path)
    kept = {}
    for number in range(objects):
        key = f"/core/configmaps/default/n{number:04}"
        revision = await store.create(key, value(f"old-{number}"))
        if number % 7 == 0:
            await store.delete(key, expected=revision)
            continue
        size = LARGE if number % 50 == 1 else 100 + number
        kept[key] = value(f"new-{number}", size)
        await store.update(key, kept[key], expected=revision)
    await store.close()
    return kept


async def contents(path: Path) -> dict[str, bytes]:
    store = await SqliteStore.open(path)
    try:
        return {item.key: item.value for item in (await store.range("/")).items}
    finally:
        await store.close()


def overwrite(path: Path, pages: Sequence[int], garbage: bytes = b"\xa5") -> None:
    with path.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * PAGE)
            file.write(garbage * PAGE)


async def test_a_sound_datastore_is_said_to_be_sound(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    kept = await fill(path)
    assert is_sound(path) == ""
    assert dict(live(path)) == kept


async def test_what_is_made_of_a_sound_datastore_is_the_same(tmp_path: Path) -> None:
    kept = await fill(tmp_path / "state.db")
    made = salvage(tmp_path / "state.db", tmp_path / "new.db")
    assert (made.objects, made.lost_ranges, made.raw) == (len(kept), (), False)
    assert await contents(tmp_path / "new.db") == kept
    assert is_sound(tmp_path / "new.db") == ""


async def test_no_revision_is_given_twice_and_writes_go_on(tmp_path: Path) -> None:
    await fill(tmp_path / "state.db", objects=20)
    salvage(tmp_path / "state.db", tmp_path / "new.db")
    store = await SqliteStore.open(tmp_path / "new.db")
    found = await store.get("/core/configmaps/default/n0001")
    assert found is not None
    changed = await store.update(found.key, value("again"), expected=found.revision)
    assert changed > 100_000
    await store.delete(found.key, expected=changed)
    await store.close()


@pytest.mark.parametrize("page", range(3, 24, 4))
async def test_a_page_that_is_broken_costs_what_was_on_it(tmp_path: Path, page: int) -> None:
    path = tmp_path / "state.db"
    kept = await fill(path)
    overwrite(path, [page])
    assert is_sound(path)
    made = salvage(path, tmp_path / "new.db")
    found = await contents(tmp_path / "new.db")
    assert len(found) == made.objects
    assert len(found) > len(kept) * 0.6
    wrong = {k for k, v in found.items() if kept.get(k) != v}
    # Where the last change of an object is lost, the one before it is what is left.
    assert all(json.loads(found[key])["metadata"]["name"].startswith("old-") for key in wrong)


@pytest.mark.parametrize("pages", [(1,), (1, 2), (1, 2, 3, 4)])
async def test_a_file_that_sqlite_will_not_open_is_read_without_it(
    tmp_path: Path, pages: tuple[int, ...]
) -> None:
    path = tmp_path / "state.db"
    kept = await fill(path)
    overwrite(path, pages)
    made = salvage(path, tmp_path / "new.db")
    assert made.raw
    found = await contents(tmp_path / "new.db")
    same = [key for key in found if kept.get(key) == found[key]]
    assert len(same) > len(kept) * 0.8
    large = [key for key in kept if len(kept[key]) > LARGE]
    assert sum(found.get(key) == kept[key] for key in large) >= len(large) - 1


async def test_what_was_not_moved_out_of_the_log_yet_counts(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "state.db")
    await store.create("/core/secrets/default/a", value("a"))
    for name in ("state.db", "state.db-wal"):  # as a power cut leaves them
        shutil.copy(tmp_path / name, tmp_path / f"cut-{name.removeprefix('state.')}")
    await store.close()
    (tmp_path / "cut-db").rename(tmp_path / "cut.db")
    (tmp_path / "cut-db-wal").rename(tmp_path / "cut.db-wal")
    overwrite(tmp_path / "cut.db", [1])
    assert salvage(tmp_path / "cut.db", tmp_path / "new.db").objects == 1
    assert await contents(tmp_path / "new.db") == {"/core/secrets/default/a": value("a")}


async def test_a_value_that_is_no_object_any_more_is_named_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    kept = await fill(path, objects=5)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE log SET value = ? WHERE key LIKE '%n0003'", (b'{"meta\x00',))
    made = salvage(path, tmp_path / "new.db")
    assert made.unreadable == ("/core/configmaps/default/n0003",)
    assert set(await contents(tmp_path / "new.db")) == kept.keys() - set(made.unreadable)


@pytest.mark.parametrize("content", [b"", b"\x00" * 3 * PAGE, b"hello\n" * 5000])
def test_where_nothing_can_be_read_nothing_is_made(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.db").write_bytes(content)
    with pytest.raises(StoreError, match="nothing in"):
        salvage(tmp_path / "state.db", tmp_path / "new.db")
    assert not (tmp_path / "new.db").exists()
    assert (tmp_path / "state.db").read_bytes() == content


async def test_what_exists_is_never_overwritten(tmp_path: Path) -> None:
    await fill(tmp_path / "state.db", objects=3)
    (tmp_path / "new.db").write_text("mine")
    with pytest.raises(StoreError, match="exists"):
        salvage(tmp_path / "state.db", tmp_path / "new.db")
    assert (tmp_path / "new.db").read_text() == "mine"
