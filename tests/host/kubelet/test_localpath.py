"""File system images on loop devices: mounted once, mended, never the bare folder."""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from node.host import loop, mountinfo, mounts
from node.kubelet import localpath
from node.kubelet.localpath import Backing, LocalPath

pytestmark = pytest.mark.root


def make_image(path: Path, size: str = "16M") -> Path:
    subprocess.run(["mkfs.ext4", "-q", "-F", path, size], check=True)
    return path


def until(holds: Callable[[], bool], seconds: float = 10) -> None:
    """For what the kernel does in its own time and tells nobody of."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.01)


@dataclass
class Place:
    folder: Path
    local: LocalPath
    name: str

    @property
    def target(self) -> Path:
        return self.folder / "data"

    def image(self, name: str = "data.img") -> Path:
        return make_image(self.folder / name)

    def mount(self, image: Path, *options: str) -> Path:
        self.local.ensure(Backing(image=image, target=self.target, options=options))
        return self.target

    def unmount(self, image: Path) -> None:
        """Until the device is gone too, as after a reboot."""
        assert mounts.unmount(self.target)
        until(lambda: loop.find(image) is None)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    name = localpath.mark(tmp_path)
    yield Place(tmp_path, LocalPath(name), name)
    for point in mounts.mounted_below(tmp_path):
        mounts.unmount(point)


def test_an_image_is_mounted_once_and_its_device_goes_with_the_mount(place: Place) -> None:
    image = place.image()
    place.mount(image)
    (place.target / "note").write_text("kept")
    place.mount(image)
    number = loop.find(image)
    assert number is not None
    assert [m.point for m in mountinfo.mounts() if m.point == place.target] == [place.target]
    shown = loop.status(number)
    assert shown is not None
    assert (shown.autoclear, shown.name) == (True, place.name)
    assert localpath.mounted(place.name) == [place.target]
    place.unmount(image)
    assert loop.status(number) is None
    assert not (place.target / "note").exists()
    assert (place.mount(image) / "note").read_text() == "kept"


def test_what_lies_beneath_is_closed_to_all_but_root(place: Place) -> None:
    image = place.image()
    place.mount(image)
    place.unmount(image)
    assert place.target.stat().st_mode & 0o777 == 0o700


def test_pods_that_share_a_volume_mount_it_once(place: Place) -> None:
    image = place.image()
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: place.mount(image), range(16)))
    assert len([m for m in mountinfo.mounts() if m.point == place.target]) == 1


def test_an_image_that_is_not_there_is_named(place: Place) -> None:
    missing = place.folder / "gone.img"
    with pytest.raises(ValueError, match=f"the image of the volume is missing: {missing}"):
        place.mount(missing)
    assert mountinfo.at(place.target) is None


def test_a_file_without_a_file_system_is_refused_and_leaves_no_device(place: Place) -> None:
    image = place.folder / "empty.img"
    image.write_bytes(bytes(1 << 20))
    with pytest.raises(ValueError, match="there is no ext4 file system on"):
        place.mount(image)
    until(lambda: loop.find(image) is None)


def test_what_else_is_mounted_there_is_refused(place: Place) -> None:
    first, second = place.image("first.img"), place.image("second.img")
    place.mount(first)
    with pytest.raises(ValueError, match=f"has {first} mounted, not {second}"):
        place.mount(second)
    mounts.unmount(place.target)
    mounts.tmpfs(place.target, size=1 << 20)
    with pytest.raises(ValueError, match=f"has tmpfs mounted, not {second}"):
        place.mount(second)


def test_an_image_that_was_deleted_makes_room_for_the_new_one(place: Place) -> None:
    first = place.image("first.img")
    place.mount(first)
    first.unlink()
    second = place.image("second.img")
    with (place.target / "busy").open("w"), pytest.raises(ValueError, match="still in use"):
        place.mount(second)
    place.mount(second)
    assert loop.find(second) is not None


def test_a_device_that_somebody_left_is_taken_over(place: Place) -> None:
    image = place.image()
    found = subprocess.run(
        ["losetup", "--find", "--show", image], check=True, capture_output=True, text=True
    )
    number = int(found.stdout.strip().removeprefix("/dev/loop"))
    place.mount(image)
    assert loop.find(image) == number
    place.unmount(image)


def test_of_two_devices_that_show_an_image_one_is_used(place: Place) -> None:
    image = place.image()
    argv = ["losetup", "--find", "--show", str(image)]
    made = [
        subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        for _ in range(2)
    ]
    numbers = [int(name.removeprefix("/dev/loop")) for name in made]
    place.mount(image)
    entry = mountinfo.at(place.target)
    assert entry is not None
    assert entry.device == (loop.MAJOR, min(numbers))
    subprocess.run(["losetup", "--detach", f"/dev/loop{max(numbers)}"], check=True)
    place.unmount(image)


def test_a_read_only_device_is_not_taken_over(place: Place) -> None:
    image = place.image()
    argv = ["losetup", "--find", "--show", "--read-only", str(image)]
    found = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    try:
        with pytest.raises(OSError, match="a loop device shows it read-only"):
            place.mount(image)
    finally:
        subprocess.run(["losetup", "--detach", found], check=True)


def test_the_journal_of_a_power_cut_is_replayed(place: Place) -> None:
    image, cut = place.image(), place.folder / "cut.img"
    place.mount(image)
    note = place.target / "note"
    note.write_text("written before the lights went out")
    descriptor = os.open(note, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    shutil.copyfile(image, cut)  # the journal is not emptied yet
    place.unmount(image)
    place.mount(cut)
    assert note.read_text() == "written before the lights went out"


def test_a_file_system_with_errors_is_checked_before_it_is_mounted(place: Place) -> None:
    image = place.image()
    subprocess.run(["debugfs", "-w", "-R", "ssv state 2", image], check=True, capture_output=True)
    place.mount(image)
    place.unmount(image)
    shown = subprocess.run(["dumpe2fs", "-h", image], check=True, capture_output=True, text=True)
    assert "clean\n" in shown.stdout
    assert "with errors" not in shown.stdout


def test_damage_that_needs_a_person_is_told_with_the_checkers_own_words(place: Place) -> None:
    image = place.image()
    place.mount(image)
    (place.target / "folder").mkdir()
    place.unmount(image)
    for request in ("ssv state 2", "sif folder mode 0", "sif / mode 0100644"):
        subprocess.run(["debugfs", "-w", "-R", request, image], check=True, capture_output=True)
    with pytest.raises(ValueError, match=r"is damaged, run e2fsck on it: .*UNEXPECTED"):
        place.mount(image)
    assert mountinfo.at(place.target) is None


def test_a_file_system_that_became_read_only_is_mended_when_nobody_uses_it(place: Place) -> None:
    image = place.image()
    place.mount(image)
    (place.target / "note").write_text("kept")
    subprocess.run(["mount", "-o", "remount,ro", place.target], check=True)
    with (place.target / "note").open(), pytest.raises(ValueError, match="has become read-only"):
        place.mount(image)
    place.mount(image)
    (place.target / "note").write_text("written again")


def test_mount_options_of_the_volume_count(place: Place) -> None:
    image = place.image()
    place.mount(image, "ro", "nosuid", "data=ordered")
    with pytest.raises(OSError, match="Read-only"):
        (place.target / "note").write_text("no")
    place.mount(image, "ro", "nosuid", "data=ordered")  # as asked for: nothing to mend
    place.unmount(image)
    with pytest.raises(OSError, match="Invalid argument"):
        place.mount(image, "no-such-option")


def test_what_a_pod_deletes_is_given_back_to_the_disk(place: Place) -> None:
    image = place.image()
    place.mount(image)
    empty = image.stat().st_blocks
    big = place.target / "big"
    big.write_bytes(os.urandom(4 << 20))
    os.sync()
    full = image.stat().st_blocks
    assert full >= empty + (4 << 20) // 512
    big.unlink()

    def is_given_back() -> bool:
        os.sync()
        return image.stat().st_blocks < full - (3 << 20) // 512

    until(is_given_back)


def test_another_nodes_devices_are_not_ours(place: Place) -> None:
    place.mount(place.image())
    assert localpath.mounted(localpath.mark(Path("/elsewhere"))) == []
