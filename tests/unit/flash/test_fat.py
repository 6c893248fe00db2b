"""Files in a FAT file system, without mounting it; fsck.fat says that it is whole."""

import os
import random
import shutil
import string
import subprocess
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from node.flash.fat import Fat, FatError
from tests.unit.flash import images

WHEN = datetime(2026, 11, 24, 12, 30, 10)
SIZES = {12: 2 << 20, 16: 24 << 20, 32: 64 << 20}

pytestmark = pytest.mark.skipif(
    not shutil.which("mkfs.fat") or not shutil.which("mtype"),
    reason="mkfs.fat and mtools (Debian: dosfstools, mtools) are not installed",
)


class Volume:
    """A FAT of one kind in a file."""

    def __init__(self, path: Path, bits: int) -> None:
        self.path = path
        path.write_bytes(images.fat(SIZES[bits], bits))
        self.size = SIZES[bits]
        self.descriptor = os.open(path, os.O_RDWR)

    def open(self) -> Fat:
        return Fat(self.descriptor, 0, self.size)

    def check(self) -> None:
        done = subprocess.run(["fsck.fat", "-n", str(self.path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout

    def read(self, name: str) -> bytes:
        """As mtools finds it."""
        argv = ["mtype", "-i", str(self.path), f"::/{name}"]
        return subprocess.run(
            argv, capture_output=True, check=True, env={"LC_ALL": "C.UTF-8", "PATH": os.defpath}
        ).stdout


@pytest.fixture(params=[12, 16, 32])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    made = Volume(tmp_path / "fat.img", request.param)
    yield made
    os.close(made.descriptor)


def test_a_file_is_there_for_others(volume: Volume) -> None:
    fat = volume.open()
    fat.write_file("pinnace.yaml", b"hostname: kitchen\n", WHEN)
    fat.flush()
    volume.check()
    assert volume.read("pinnace.yaml") == b"hostname: kitchen\n"
    assert volume.open().read_file("PINNACE.YAML") == b"hostname: kitchen\n"
    assert volume.open().names() == ["pinnace.yaml"]


def test_what_others_wrote_is_replaced_and_its_room_is_free_again(volume: Volume) -> None:
    argv = ["mcopy", "-i", str(volume.path), "-", "::/pinnace.yaml"]
    subprocess.run(argv, input=b"a" * 300_000, check=True)
    fat = volume.open()
    for number in range(30):  # thirty times its size do not fit at once
        fat.write_file("pinnace.yaml", bytes([number]) * 300_000, WHEN)
    fat.write_file("Pinnace.YAML", b"short", WHEN)
    fat.flush()
    volume.check()
    assert volume.read("pinnace.yaml") == b"short"
    assert len(volume.open().names()) == 1


def test_folders_grow_and_names_may_be_long(volume: Volume) -> None:
    fat = volume.open()
    names = [f"manifests/déjà vu/{'long name ' * 12}{n}.yaml" for n in range(60)]
    for number, name in enumerate(names):
        fat.write_file(name, str(number).encode(), WHEN)
    fat.flush()
    volume.check()
    assert len(volume.open().names("manifests/déjà vu")) == 60
    assert volume.read(names[59]) == b"59"


def test_empty_files_and_short_names(volume: Volume) -> None:
    fat = volume.open()
    fat.write_file("A.TXT", b"", WHEN)
    fat.write_file("grubenv", b"x" * 1024, WHEN)
    fat.write_file("a b.tar.gz", b"y", WHEN)
    fat.flush()
    volume.check()
    assert volume.open().names() == ["A.TXT", "grubenv", "a b.tar.gz"]


def test_a_random_history_ends_as_a_model_says(volume: Volume) -> None:
    chosen = random.Random(volume.size)
    model: dict[str, bytes] = {}
    for _ in range(6):
        fat = volume.open()
        for _ in range(30):
            letters = string.ascii_letters + "äß -_.,"
            name = "".join(chosen.choices(letters, k=chosen.randint(1, 40))).strip(" .") or "x"
            folder = chosen.choice(["", "one/", "one/two/", "Drei/"])
            same = next((m for m in model if m.casefold() == (folder + name).casefold()), None)
            if (folder + name).casefold() in {"one", "drei"}:
                continue
            data = chosen.randbytes(chosen.choice([0, 1, 511, 2048, 9000]))
            fat.write_file(same or folder + name, data, WHEN)
            model[same or folder + name] = data
        fat.flush()
        volume.check()
    again = volume.open()
    assert all(again.read_file(name) == data for name, data in model.items())


def test_a_full_partition_is_said(volume: Volume) -> None:
    fat = volume.open()
    with pytest.raises(FatError, match="full"):
        fat.write_file("big", bytes(volume.size), WHEN)


@pytest.mark.parametrize("name", ["a:b", "a?", "x" * 256, "a\nb", "end."])
def test_names_that_fat_cannot_have_are_refused(volume: Volume, name: str) -> None:
    with pytest.raises(FatError, match="no name"):
        volume.open().write_file(name, b"", WHEN)


def test_a_file_is_no_folder_and_a_folder_no_file(volume: Volume) -> None:
    fat = volume.open()
    fat.write_file("a/b", b"", WHEN)
    with pytest.raises(FatError, match="is a folder"):
        fat.write_file("a", b"", WHEN)
    with pytest.raises(FatError, match="is a file"):
        fat.write_file("a/b/c", b"", WHEN)


@pytest.mark.parametrize("damage", ["zeros", "ext4", "cut"])
def test_what_is_no_fat_is_refused(tmp_path: Path, damage: str) -> None:
    data = bytearray(images.fat(4 << 20))
    if damage == "zeros":
        data[:512] = bytes(512)
    elif damage == "ext4":
        data[11:13] = b"\0\0"
    size = 1 << 20 if damage == "cut" else len(data)
    path = tmp_path / "fat.img"
    path.write_bytes(data)
    with path.open("rb") as file, pytest.raises(FatError):
        Fat(file.fileno(), 0, size)


def test_a_chain_that_bites_its_tail_ends(volume: Volume) -> None:
    fat = volume.open()
    fat.write_file("a", bytes(50_000), WHEN)
    found = fat._find("a")
    assert found is not None
    fat._set(found.cluster, found.cluster)
    with pytest.raises(FatError, match="damaged"):
        fat.read_file("a")
