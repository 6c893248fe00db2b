"""File systems in files, and a disk put together of them."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from appliance import disk, fat
from appliance import gpt as layouts
from appliance.toolbox import Toolbox

from node.appliance import gpt, grow

SIZES = layouts.Sizes(config=1, boot=1, root=2, data=1)
TABLE = layouts.layout("x86-64", "v1.36.3+pinnace1", SIZES)
MIB = 1 << 20


class HostTools(Toolbox):
    """This machine's programs, with the toolbox's paths."""

    def run(
        self,
        argv: Sequence[str],
        *,
        binds: Mapping[str, Path] | None = None,
        env: Mapping[str, str] | None = None,
        stdin: bytes | None = None,
    ) -> bytes:
        script = stdin or b""
        for at, path in (binds or {}).items():
            script = script.replace(f"{at}/".encode(), f"{path}/".encode())
        found = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "TZ": "UTC"}
        done = subprocess.run(
            list(argv), input=script, capture_output=True, check=True, env={**found, **(env or {})}
        )
        return done.stdout


def make_fat(path: Path, size: int) -> bytes:
    fat.make(
        HostTools(root=Path("/")),
        path,
        size=size,
        label="PINNACE",
        serial=0x1234ABCD,
        files={"EFI/BOOT/BOOTX64.EFI": b"program", "grubenv": b"state", "README.txt": b"read\n"},
        epoch=1_790_000_000,
    )
    return path.read_bytes()


needs_mtools = pytest.mark.skipif(
    not (shutil.which("mkfs.vfat", path="/usr/sbin:/sbin") and shutil.which("mcopy")),
    reason="not installed: dosfstools mtools",
)


@needs_mtools
def test_files_come_into_a_file_system_that_says_what_it_is(tmp_path: Path) -> None:
    content = make_fat(tmp_path / "config.img", 64 * MIB)
    assert len(content) == 64 * MIB
    assert content[82:90] == b"FAT32   "
    assert content[67:71] == bytes.fromhex("cdab3412")
    command = ["mtype", "-i", str(tmp_path / "config.img"), "::/EFI/BOOT/BOOTX64.EFI"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"program"


@needs_mtools
def test_the_same_files_give_the_same_file_system(tmp_path: Path) -> None:
    made = [make_fat(tmp_path / name, 34 * MIB) for name in ("one", "two")]
    assert made[0] == made[1]


def test_each_part_lies_at_its_place_and_the_rest_is_not_stored(tmp_path: Path) -> None:
    root, path = tmp_path / "root", tmp_path / "disk.img"
    root.write_bytes(b"r" * MIB + bytes(MIB // 2) + b"e")
    disk.write(path, TABLE, {"root-a": root})
    assert grow.read(path) == TABLE
    part = TABLE.named("root-a")
    assert part is not None
    content = path.read_bytes()
    assert len(content) == TABLE.sectors * 512
    start = part.first * 512
    assert content[start : start + root.stat().st_size] == root.read_bytes()
    assert content.count(0) >= len(content) - MIB - 65536
    assert path.stat().st_blocks * 512 < 3 * MIB


def test_both_copies_of_the_table_are_there(tmp_path: Path) -> None:
    path = tmp_path / "disk.img"
    disk.write(path, TABLE, {})
    before = path.read_bytes()
    assert not grow.grow(path, "data")
    assert path.read_bytes() == before
    assert before[-512:] == gpt.header(TABLE, copy=True)


def test_a_root_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "root.squashfs"
    root.write_bytes(bytes(2 * MIB + 1))
    with pytest.raises(disk.DiskError, match=r"root.squashfs has 2097153 bytes, root-a 2097152"):
        disk.write(tmp_path / "disk.img", TABLE, {"root-a": root})
