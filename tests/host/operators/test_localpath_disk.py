"""Volumes on the real kernel: images on loop devices, limits that hold, crashes at any step."""

import asyncio
import errno
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from operators.localpath import copying, folders, mounts, notes, places, sizes
from operators.localpath.base import FILE_IMAGE, Made, Order, Place, Refused, StorageError, Unfit
from operators.localpath.images import InUse, _may_grow_mounted
from operators.localpath.native import Native
from operators.localpath.process import Programs

pytestmark = pytest.mark.root
ROOT = Path(__file__).parent.parent.parent.parent
SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
MIB, GIB = 2**20, 2**30


def disk(base: Path) -> Native:
    programs = Programs(SEARCH, {"PYTHONPATH": str(ROOT)})
    return Native(programs, [sys.executable, "-m"], SEARCH, lambda: [base])


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "storage"
    for mount in reversed(mounts.all_mounts()):
        if mount.point.is_relative_to(tmp_path):
            subprocess.run(["umount", str(mount.point)], check=True)
    with os.scandir(tmp_path) as left:
        assert not [number for entry in left for number in mounts.loops(Path(entry.path))]


def order(base: Path, number: int = 1, size: int = 16 * MIB, **more: Any) -> Order:
    name = f"pvc-{number}"
    return Order(
        name=name,
        claim=f"ns/claim{number}",
        uid=str(number),
        node="pi",
        base=base,
        folder=f"{name}_ns_claim{number}",
        **{"size": size, **more},
    )


def place(order: Order, made: Made) -> Place:
    return Place(
        name=order.name,
        node="pi",
        base=order.base,
        folder=order.folder,
        size=order.size,
        enforced_by=made.enforced_by,
        image=Path(made.image) if made.image else None,
    )


def mount(order: Order, made: Made) -> Path:
    """As the kubelet does."""
    target = order.base / order.folder
    assert made.image
    subprocess.run(["mount", "-o", "loop,discard", made.image, str(target)], check=True)
    return target


def sh(*argv: str, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, check=check, capture_output=True, text=True, cwd=cwd)


def start(*argv: str, **more: Any) -> "subprocess.Popen[bytes]":
    """Once it says that it has begun."""
    process = subprocess.Popen([sys.executable, "-c", *argv], stdout=subprocess.PIPE, **more)
    assert process.stdout
    process.stdout.readline()
    return process


def taken(image: str | Path) -> int:
    """Bytes on the disk."""
    return Path(image).stat().st_blocks * 512


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def fill(file: Path, most: int) -> int:
    """Write until the disk is full; the bytes that went in."""
    with file.open("wb", buffering=0) as opened:
        for done in range(0, most, MIB):
            try:
                opened.write(bytes(MIB))
            except OSError as err:
                if err.errno != errno.ENOSPC:
                    raise
                return done
    return most


def everything(base: Path) -> set[str]:
    """Files and folders below, without our own folders."""
    own = {".pinnace", *(f".pinnace/{n}" for n in ("images", "making", "snapshots", "mounts"))}
    return {str(path.relative_to(base)) for path in base.rglob("*")} - own


async def test_a_full_volume_is_full_for_itself_alone(base: Path) -> None:
    native = disk(base)
    one, two = order(base, 1), order(base, 2)
    first = mount(one, await native.make(one))
    second = mount(two, await native.make(two))
    written = fill(first / "big", 64 * MIB)
    assert 15 * MIB <= written <= 18 * MIB
    assert fill(second / "small", 4 * MIB) == 4 * MIB
    assert fill(base / "beside", 4 * MIB) == 4 * MIB


@pytest.mark.parametrize("size", [5 * MIB, 100 * MIB, 119 * MIB, GIB, 100 * GIB])
async def test_what_was_asked_for_fits_and_little_more(base: Path, size: int) -> None:
    wanted = order(base, size=size, overcommit=100.0)
    made = await disk(base).make(wanted)
    assert made.image
    folder = mount(wanted, made)
    assert size <= free(folder) <= size * 1.02 + 2 * MIB
    assert list(folder.iterdir()) == []
    assert folder.stat().st_mode & 0o7777 == 0o777


def test_an_older_mkfs_writes_as_little(tmp_path: Path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(sizes.image_size(GIB))
    sh(*sizes.older_arguments(str(image), GIB, "0:0"))
    assert taken(image) < MIB


async def test_a_new_volume_writes_almost_nothing_then_or_later(base: Path) -> None:
    wanted = order(base, size=GIB)
    made = await disk(base).make(wanted)
    assert made.image
    before = taken(made.image)
    folder = mount(wanted, made)
    (folder / "file").write_text("x")
    # An inode table or a journal that was still to be zeroed would be by the unmount.
    sh("umount", str(folder))
    after = taken(made.image)
    assert before < MIB
    assert after - before < MIB


async def test_owner_and_permissions_are_those_of_the_order(base: Path) -> None:
    for number, enforce in enumerate(("image", "none")):
        wanted = order(base, number, enforce=enforce, user="1000", group="100000", mode="0750")
        made = await disk(base).make(wanted)
        folder = mount(wanted, made) if made.image else base / wanted.folder
        found = folder.stat()
        assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 100000, 0o750)


async def test_the_bare_folder_of_an_image_is_nobodys(base: Path) -> None:
    wanted = order(base)
    await disk(base).make(wanted)
    assert mode(base / wanted.folder) == 0o700
    assert mode(base) == 0o700


async def test_more_than_there_is_free_is_not_promised(base: Path) -> None:
    native = disk(base)
    left = await native.left(base, 1.0)
    with pytest.raises(Unfit, match="not enough free space"):
        await native.make(order(base, size=left))
    wanted = order(base, 2, size=left // 2)
    await native.make(wanted)
    now = await native.left(base, 1.0)
    assert now < left * 0.51
    with pytest.raises(Unfit):
        await native.make(order(base, 3, size=left * 6 // 10))
    await native.make(order(base, 4, size=left * 6 // 10, overcommit=10.0))


async def test_a_volume_that_is_in_use_grows_with_its_files_open(base: Path) -> None:
    native, wanted = disk(base), order(base)
    made = await native.make(wanted)
    assert made.image
    folder = mount(wanted, made)
    with (folder / "open").open("w+") as file:
        file.write("before")
        file.flush()
        if _may_grow_mounted():
            await native.grow(place(wanted, made), 600 * MIB, 1.0)
            assert free(folder) > 590 * MIB
        else:
            with pytest.raises(InUse):  # and it is as it was
                await native.grow(place(wanted, made), 600 * MIB, 1.0)
        file.write(", after")
        file.flush()
        assert (folder / "open").read_text() == "before, after"


async def test_a_volume_that_nobody_uses_grows_and_keeps_its_data(base: Path) -> None:
    native, wanted = disk(base), order(base)
    made = await native.make(wanted)
    assert made.image
    folder = mount(wanted, made)
    (folder / "note").write_text("kept")
    sh("umount", str(folder))
    await native.grow(place(wanted, made), 40 * GIB, 10.0)
    folder = mount(wanted, made)
    assert free(folder) >= 40 * GIB
    assert os.statvfs(folder).f_files > 2_000_000
    assert [path.name for path in folder.iterdir()] == ["note"]
    assert taken(made.image) < 20 * MIB


async def test_a_volume_is_removed_while_it_is_mounted(base: Path) -> None:
    native, wanted = disk(base), order(base)
    made = await native.make(wanted)
    folder = mount(wanted, made)
    (folder / "file").write_text("x")
    await native.finished(wanted.name)
    await native.remove(place(wanted, made))
    await native.remove(place(wanted, made))
    assert everything(base) == set()


async def test_a_volume_in_use_is_not_removed(base: Path) -> None:
    native, wanted = disk(base), order(base)
    made = await native.make(wanted)
    folder = mount(wanted, made)
    with (folder / "open").open("w"), pytest.raises(StorageError):
        await native.remove(place(wanted, made))
    await native.remove(place(wanted, made))
    assert not folder.exists()


# Crashes

WORKER = """
import asyncio, sys
from pathlib import Path
from tests.host.operators.test_localpath_disk import disk, order, place
base = Path(sys.argv[1])
async def main():
    native = disk(base)
    for number in range(40):
        wanted = order(base, number)
        made = await native.make(wanted)
        await native.finished(wanted.name)
        await native.grow(place(wanted, made), 24 * 2**20, 1.0)
        await native.snapshot(place(wanted, made), "snap")
        await native.remove_snapshot("snap")
        await native.remove(place(wanted, made))
print("begun", flush=True)
asyncio.run(main())
"""


@pytest.mark.parametrize("seed", range(8))
async def test_killed_at_any_step_it_converges(base: Path, seed: int) -> None:
    """The worker and its programs die together, as in a power cut; only the disk remembers."""
    worker = start(WORKER, str(base), cwd=ROOT, start_new_session=True)
    try:
        worker.wait(random.Random(seed).uniform(0.0, 0.7))
    except subprocess.TimeoutExpired:
        os.killpg(worker.pid, signal.SIGKILL)
    worker.communicate()
    native = disk(base)
    await native.recover()
    await native.support(base)
    for begun in await native.unfinished():
        await native.undo(begun.name)
    for number in range(40):
        wanted = order(base, number)
        image = places.image(base, wanted.folder)
        if image.exists():
            sh("e2fsck", "-fn", str(image))
        await native.remove(place(wanted, Made(enforced_by=FILE_IMAGE, image=str(image))))
    await native.remove_snapshot("snap")
    assert everything(base) == set()
    made = await native.make(order(base))
    assert made.enforced_by == FILE_IMAGE


async def test_a_note_that_was_written_and_not_put_in_its_place_began_nothing(base: Path) -> None:
    wanted = order(base)
    note = notes.Note(name=wanted.name, kind="volume", folder=wanted.folder, size=wanted.size)
    notes.write(base, note)
    path = places.note(base, wanted.name)
    draft = path.rename(path.with_name(path.name + ".new"))
    native = disk(base)
    assert await native.unfinished() == []
    assert draft.exists()  # who asks what is unfinished may come amid the writing of another note
    await native.recover()
    assert everything(base) == set()


async def test_a_note_without_its_volume_is_no_obstacle(base: Path) -> None:
    native, wanted = disk(base), order(base)
    await native.make(wanted)
    again = await native.make(wanted)  # nobody said that it was finished
    assert again.image
    assert [begun.name for begun in await native.unfinished()] == [wanted.name]
    await native.finished(wanted.name)
    assert await native.unfinished() == []
    adopted = await native.make(order(base, size=48 * MIB))
    assert adopted.image == again.image
    assert free(mount(wanted, adopted)) >= 48 * MIB


async def test_what_was_there_before_stays_when_a_volume_is_undone(base: Path) -> None:
    wanted = order(base)
    (base / wanted.folder).mkdir(parents=True)
    native = disk(base)
    await native.make(wanted)
    await native.undo(wanted.name)
    assert everything(base) == {wanted.folder}


async def test_data_of_before_is_not_hidden_by_an_image(base: Path) -> None:
    wanted = order(base)
    (base / wanted.folder).mkdir(parents=True)
    (base / wanted.folder / "data").write_text("of K3s")
    native = disk(base)
    made = await native.make(wanted)
    assert made == Made(enforced_by="none")
    assert (base / wanted.folder / "data").read_text() == "of K3s"
    with pytest.raises(Refused, match="holds data already"):
        await native.make(order(base, enforce="image"))


# Attacks


def test_removing_follows_no_link_out_of_the_volume(tmp_path: Path) -> None:
    outside, base = tmp_path / "outside", tmp_path / "storage"
    (outside / "precious").mkdir(parents=True)
    (outside / "precious" / "file").write_text("kept")
    volume = base / "v"
    (volume / "deep" / "er").mkdir(parents=True)
    (volume / "link").symlink_to(outside)
    (volume / "deep" / "er" / "up").symlink_to("../../../..")
    (volume / "deep" / "absolute").symlink_to(outside / "precious" / "file")
    (volume / "deep" / "hard").hardlink_to(outside / "precious" / "file")
    folders.remove(base, "v")
    assert not volume.exists()
    assert (outside / "precious" / "file").read_text() == "kept"


def test_a_link_in_the_place_of_a_volume_is_only_a_link(tmp_path: Path) -> None:
    outside, base = tmp_path / "outside", tmp_path / "storage"
    outside.mkdir()
    (outside / "file").write_text("kept")
    base.mkdir()
    (base / "v").symlink_to(outside)
    folders.remove(base, "v")
    assert not (base / "v").is_symlink()
    (base / "ns").symlink_to(outside)
    with pytest.raises(Refused, match="nothing follows a link"):
        folders.remove(base, "ns/file")
    with pytest.raises(Refused, match="nothing follows a link"):
        folders.make(base, "ns/new")
    assert (outside / "file").read_text() == "kept"


@pytest.mark.parametrize("folder", ["..", "../x", "a/../../x", "/etc", "", "a/.."])
def test_a_path_that_leads_elsewhere_is_refused(tmp_path: Path, folder: str) -> None:
    for do in (folders.make, folders.remove):
        with pytest.raises(Refused, match="invalid references"):
            do(tmp_path, folder)


def test_a_tree_of_any_depth_is_removed(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    here = os.open(volume, os.O_RDONLY)
    for _ in range(300):  # deeper than any path may be long
        os.mkdir("d" * 100, dir_fd=here)
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=here))
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    folders.remove(tmp_path, "v")
    assert not volume.exists()


def test_nothing_on_another_file_system_is_removed(tmp_path: Path) -> None:
    inner = tmp_path / "v" / "a" / "b"
    inner.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "other", str(inner)], check=True)
    try:
        (inner / "file").write_text("kept")
        with pytest.raises(StorageError, match="still mounted"):
            folders.remove(tmp_path, "v")
        assert [path.name for path in tmp_path.rglob("file")] == ["file"]
    finally:
        point = next(path for path in tmp_path.rglob("*") if path.is_mount())
        subprocess.run(["umount", str(point)], check=True)


# Snapshots

WRITER = """
import os, sys
with open(sys.argv[1], "wb", buffering=0) as file:
    print("begun", flush=True)
    number = 0
    while True:
        file.write(number.to_bytes(8, "big") * 512)
        os.fsync(file.fileno())
        number += 1
"""


async def test_a_snapshot_is_the_volume_at_one_moment(base: Path) -> None:
    native, wanted = disk(base), order(base, size=64 * MIB)
    made = await native.make(wanted)
    folder = mount(wanted, made)
    writer = start(WRITER, str(folder / "log"))
    try:
        copied = await native.snapshot(place(wanted, made), "s1")
        at_that_time = (folder / "log").stat().st_size
    finally:
        writer.kill()
        writer.communicate()
    assert copied.consistent
    source = await native.find_snapshot("s1", wanted.size)
    assert source
    assert source.image
    sh("e2fsck", "-fn", str(source.image))
    copy = order(base, 2, size=128 * MIB, source=source)
    log = (mount(copy, await native.make(copy)) / "log").read_bytes()
    assert 0 < len(log) <= at_that_time
    assert log == b"".join(n.to_bytes(8, "big") * 512 for n in range(len(log) // 4096))


async def test_a_snapshot_knows_what_was_removed_meanwhile(base: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 3 * MIB)
    with source.open("r+b") as a, target.open("w+b") as b:
        b.write(b"y" * 3 * MIB)
        b.flush()
        punch = ["fallocate", "--punch-hole", "--offset", str(MIB), "--length", str(MIB)]
        sh(*punch, str(source))
        copying._copy_changes(a.fileno(), b.fileno(), 3 * MIB)
    assert target.read_bytes() == source.read_bytes()


async def test_a_file_system_left_frozen_is_thawed_at_the_next_start(base: Path) -> None:
    native, wanted = disk(base), order(base)
    folder = mount(wanted, await native.make(wanted))
    note = notes.Note(name="s", kind="snapshot", folder=wanted.folder, size=0)
    notes.write(base, note)
    sh("fsfreeze", "--freeze", str(folder))
    await disk(base).recover()
    async with asyncio.timeout(10):
        await asyncio.to_thread((folder / "file").write_text, "thawed")


async def test_a_folder_without_an_image_is_copied_file_by_file(base: Path) -> None:
    native, wanted = disk(base), order(base, enforce="none")
    made = await native.make(wanted)
    folder = base / wanted.folder
    (folder / "file").write_text("then")
    (folder / "file").chmod(0o640)
    (folder / "link").symlink_to("/etc/hostname")
    copied = await native.snapshot(place(wanted, made), "s2")
    assert not copied.consistent
    (folder / "file").write_text("now")
    source = await native.find_snapshot("s2", wanted.size)
    for number, enforce in ((2, "none"), (3, "image")):
        copy = order(base, number, enforce=enforce, source=source)
        got = await native.make(copy)
        restored = mount(copy, got) if got.image else base / copy.folder
        assert (restored / "file").read_text() == "then"
        assert (restored / "file").stat().st_mode & 0o777 == 0o640
        assert (restored / "link").readlink() == Path("/etc/hostname")
    await native.remove_snapshot("s2")
    assert await native.find_snapshot("s2", 1) is None


# Quotas


def quota_base(tmp_path: Path) -> Path:
    """A file system with project quotas; the test is skipped where the kernel has none."""
    image, base = tmp_path / "quota.img", tmp_path / "storage"
    with image.open("wb") as file:
        file.truncate(256 * MIB)
    features = ["-O", "quota,project", "-E", "quotatype=prjquota"]
    subprocess.run(["mkfs.ext4", "-q", *features, str(image)], check=True)
    base.mkdir()
    options = ["-o", "loop,prjquota"]
    done = subprocess.run(
        ["mount", *options, str(image), str(base)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip("the kernel has no quota format 2 (CONFIG_QFMT_V2): ext4 mounts no prjquota")
    return base


async def test_a_project_quota_holds_and_grows_and_goes(base: Path, tmp_path: Path) -> None:
    base = quota_base(tmp_path)
    native, wanted = disk(base), order(base, size=8 * MIB)
    able = await native.support(base)
    assert (able.no_quota, able.best) == ("", "project-quota")
    made = await native.make(wanted)
    folder = base / wanted.folder
    # Root may exceed a quota of ext4. Nobody else may enter by the path, as no pod does.
    drop = ["setpriv", "--reuid=65534", "--clear-groups", "dd", "if=/dev/zero", "bs=1M", "of=big"]
    said = sh(*drop, "count=32", check=False, cwd=folder)
    assert "quota exceeded" in said.stderr
    await native.grow(place(wanted, made), 16 * MIB, 1.0)
    sh(*drop, "count=15", cwd=folder)
    await native.remove(place(wanted, made))
    assert everything(base) <= {"lost+found", ".pinnace/quotas"}
