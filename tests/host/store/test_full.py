"""A disk that is full: reads go on, deletions are accepted; all is, once there is space again."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.store.base import NoSpace
from controlplane.store.reserve import SIZE
from controlplane.store.sqlite import SqliteStore

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Of 40 MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    if request.param == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(place))
    else:
        image = tmp_path / "image"
        run("truncate", "-s", "40M", str(image))
        run("mkfs.ext4", "-q", "-m", "0", str(image))
        run("mount", "-o", "loop", str(image), str(place))
    yield place
    run("umount", "--lazy", str(place))


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True, timeout=30)


def fill(disk: Path) -> Path:
    """Until nothing fits any more."""
    filler = disk / "filler"
    with filler.open("ab", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue
    return filler


def reserved(disk: Path) -> int:
    """Bytes."""
    return sum(path.stat().st_size for path in disk.glob("*reserve*"))


def value(size: int) -> bytes:
    return json.dumps({"metadata": {}, "data": "x" * size}).encode()


async def until_refused(store: SqliteStore, prefix: str) -> int:
    """Create until the disk is full; how many were made."""
    for number in range(10_000):
        try:
            await store.create(f"{prefix}{number:05}", value(20_000))
        except NoSpace:
            return number
    raise AssertionError("the disk is never full")


async def test_on_a_full_disk_deletions_make_room(disk: Path) -> None:
    store = await SqliteStore.open(disk / "state.db", reserve=SIZE)
    kept = await store.create("/a/kept", value(100))
    filler = await asyncio.to_thread(fill, disk)
    made = await until_refused(store, "/b/")
    with pytest.raises(NoSpace, match="no space left"):
        await store.create("/a/new", value(10))
    with pytest.raises(NoSpace, match="deletions are accepted"):
        await store.update("/a/kept", value(100_000), expected=kept)
    changed = await store.update("/a/kept", value(200), expected=kept)  # a finalizer, a status
    assert len((await store.range("/")).items) == made + 1
    for item in (await store.range("/b/")).items:
        await store.delete(item.key, expected=item.revision)
    await store.delete("/a/kept", expected=changed)
    await asyncio.to_thread(filler.unlink)
    await store.create("/a/new", value(10))
    await store.close()
    assert reserved(disk) == SIZE


async def test_when_changes_have_used_it_up_the_rest_is_for_deletions(disk: Path) -> None:
    store = await SqliteStore.open(disk / "state.db", reserve=SIZE)
    revision = await store.create("/a", value(10))
    doomed = await store.create("/b", value(10))
    await asyncio.to_thread(fill, disk)
    await until_refused(store, "/c/")
    with pytest.raises(NoSpace):  # noqa: PT012 - at some change
        for _ in range(5000):
            revision = await store.update("/a", value(30_000), expected=revision)
    await store.delete("/b", expected=doomed)
    await store.delete("/a", expected=revision)
    assert reserved(disk) == 0
    await store.close()


async def test_nothing_that_was_acknowledged_is_lost_on_the_way(disk: Path) -> None:
    store = await SqliteStore.open(disk / "state.db", reserve=SIZE)
    await asyncio.to_thread(fill, disk)
    made = await until_refused(store, "/b/")
    await store.close()
    again = await SqliteStore.open(disk / "state.db", reserve=SIZE)
    assert len((await again.range("/b/")).items) == made
    await again.close()


async def test_a_disk_with_no_room_for_a_reserve_has_none(disk: Path) -> None:
    filler = disk / "filler"
    await asyncio.to_thread(filler.write_bytes, bytes(31 * MIB))
    store = await SqliteStore.open(disk / "state.db", reserve=SIZE)
    await store.create("/a", value(10))
    assert reserved(disk) == 0
    await until_refused(store, "/b/")
    await asyncio.to_thread(filler.unlink)
    await store.create("/a2", value(10))
    await store.close()
