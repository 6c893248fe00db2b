"""A stick is mounted for a moment, only looked at first, and told the result."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.host import mounts
from node.update import usb

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="mkfs.ext4 is not installed"),
]


def _told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A device with a file system that every kernel here has."""
    image = tmp_path / "stick.img"
    with image.open("wb") as file:
        file.truncate(4 << 20)
    _told("mkfs.ext4", "-q", "-O", "^has_journal", str(image))
    device = Path(_told("losetup", "--find", "--show", str(image)))
    yield device
    _told("losetup", "--detach", str(device))


def test_a_stick_is_only_looked_at_before_there_is_something_to_say(stick: Path) -> None:
    with usb.mounted(stick, read_only=True) as folder:
        assert folder.is_mount()
        with pytest.raises(OSError, match="Read-only"):
            (folder / "x").touch()
    assert not folder.exists()
    with usb.mounted(stick, read_only=False) as folder:
        usb.write_result(folder, ["all is well"])
    with usb.mounted(stick, read_only=True) as folder:
        assert (folder / usb.RESULT).read_bytes() == b"all is well\r\n"


def test_a_device_that_holds_nothing_known_leaves_nothing_behind(tmp_path: Path) -> None:
    image = tmp_path / "noise.img"
    image.write_bytes(os.urandom(1 << 20))
    device = Path(_told("losetup", "--find", "--show", str(image)))
    try:
        with pytest.raises(OSError, match=str(usb.MOUNTS)), usb.mounted(device, read_only=True):
            pass
        assert not mounts.mounted_below(usb.MOUNTS / device.name)
        assert not (usb.MOUNTS / device.name).exists()
    finally:
        _told("losetup", "--detach", str(device))
