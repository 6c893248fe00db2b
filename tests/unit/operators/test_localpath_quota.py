"""Project quotas: what the kernel is told, byte by byte, and which command lines do it."""

import struct
import sys
from pathlib import Path
from typing import Any

from operators.localpath import mounts, quota, room
from operators.localpath.base import Order, Place, Support
from operators.localpath.native import Native
from operators.localpath.process import Programs
from operators.localpath.support import Supported, missing_tools

MIB = 2**20


def test_a_command_is_for_projects() -> None:
    assert quota.command(0x800008) == 0x80000802


def test_a_limit_is_in_units_of_1_kib_hard_and_soft() -> None:
    fields = struct.unpack("=8QI4x", quota.limit_bytes(10 * MIB + 1))
    assert fields[:2] == (10241, 10241)
    assert fields[8] == 1  # only the limits of blocks are meant


def test_limit_and_use_are_read_in_bytes() -> None:
    answer = struct.pack("=8QI4x", 1024, 1024, 4096, 0, 0, 1, 0, 0, 0xFFF)
    assert quota.limit_and_use(answer) == (MIB, 4096)


def test_a_folder_gives_its_project_on_and_keeps_its_other_attributes() -> None:
    before = struct.pack("=5I8s", 0x10, 7, 1, 0, 0, b"")
    after = quota.joined(before, 2**30 + 5)
    assert struct.unpack("=5I8s", after)[:4] == (0x210, 7, 1, 2**30 + 5)
    assert quota.project(after) == 2**30 + 5
    assert quota.joined(after, 0) == before


def test_projects_are_numbered_far_from_those_of_people_and_the_kubelet() -> None:
    one, two = quota.numbers("pvc-1_ns_a"), quota.numbers("pvc-2_ns_b")
    first = [next(one) for _ in range(3)]
    assert all(2**30 <= number < 2**31 for number in first)
    assert first[1] - first[0] == 1
    assert next(two) != first[0]
    assert next(quota.numbers("pvc-1_ns_a")) == first[0]


def test_a_file_system_without_quotas_is_said_to_have_none(capfd: Any) -> None:
    assert quota.main(["try", "/proc"]) == 1
    assert "project quotas: " in capfd.readouterr().err


class Told(Programs):
    """Remembers the command lines, and answers them."""

    def __init__(self) -> None:
        super().__init__("")
        self.lines: list[list[str]] = []

    async def run(self, argv: Any, **_: Any) -> str:
        self.lines.append(list(argv))
        return "0"


class Able(Supported):
    async def of(self, base: Path) -> Support:
        return Support(no_image="not asked")


def native(base: Path) -> tuple[Native, Told]:
    told = Told()
    made = Native(told, [sys.executable, "-m"], "", lambda: [base])
    made._supported = Able(told, [], "")
    return made, told


async def test_a_volume_with_a_quota_is_limited_grown_and_cleared(tmp_path: Path) -> None:
    base = tmp_path / "storage"
    storage, told = native(base)
    order = Order(
        name="pvc-1", claim="ns/a", uid="1", node="pi", base=base, folder="v", size=8 * MIB
    )
    made = await storage.make(order)
    assert (made.enforced_by, made.image) == ("project-quota", None)
    place = Place(
        name="pvc-1",
        node="pi",
        base=base,
        folder="v",
        size=8 * MIB,
        enforced_by="project-quota",
        image=None,
    )
    await storage.grow(place, 16 * MIB, 1.0)
    await storage.finished("pvc-1")
    await storage.remove(place)
    program, folder = [sys.executable, "-m", "operators.localpath.quota"], str(base / "v")
    assert told.lines == [
        [*program, "set", folder, str(8 * MIB), "v"],
        [*program, "promised", folder],
        [*program, "set", folder, str(16 * MIB), "v"],
        [*program, "clear", folder],
    ]
    assert not (base / "v").exists()
    assert list((base / ".pinnace" / "quotas").iterdir()) == []


def test_what_is_promised_and_not_taken_is_not_left() -> None:
    found = room.Room(free=100, promised=30)
    assert found.left() == 70
    assert found.left(2.0) == 170
    assert found.left(0.1) == 0
    assert found.left(float("inf")) == 2**60


MOUNTINFO = r"""
22 1 8:2 / / rw,relatime shared:1 - ext4 /dev/sda2 rw,prjquota
30 22 7:3 / /data/a\040b rw,noatime - ext4 /dev/loop3 rw,discard
31 22 0:40 / /run rw,nosuid - tmpfs tmpfs rw,size=100k
"""


def test_mounts_are_read_with_their_options_and_devices() -> None:
    root, image, run = mounts.parse(MOUNTINFO.strip())
    assert "prjquota" in root.options
    assert (image.point, image.device) == (Path("/data/a b"), "/dev/loop3")
    assert {"noatime", "discard"} <= image.options
    assert (run.kind, run.major) == ("tmpfs", 0)


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    assert missing_tools("/usr/sbin:/usr/bin:/sbin:/bin") == ""
    said = missing_tools(str(tmp_path))
    assert "mkfs.ext4" in said
    assert said.endswith("apt-get install e2fsprogs mount")
