"""Which disks may be overwritten: facts as the kernel has them, judged."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from node.flash import devices, plan
from node.flash.base import Disk, Use

CARD = Disk(
    path="/dev/sdx",
    name="sdx",
    size=32_000_000_000,
    model="Generic SD Reader",
    bus="usb",
    removable=True,
    read_only=False,
    parent="",
    uses=(),
)
NEEDED = 1_000_000_000


def test_a_card_may_be_written_to() -> None:
    assert plan.refusal(CARD, NEEDED, "") == ""
    assert plan.described(CARD) == "Generic SD Reader, 32.0 GB, usb"


@pytest.mark.parametrize(
    ("disk", "said"),
    [
        (replace(CARD, name="sdx1", path="/dev/sdx1", parent="sdx"), "the whole disk, /dev/sdx"),
        (replace(CARD, uses=(Use(device="sdx1", what="is mounted at /media/a"),)), "is in use"),
        (replace(CARD, uses=(Use(device="sdx2", what="is mounted at /"),)), "own disk"),
        (replace(CARD, uses=(Use(device="sdx2", what="is swap"),)), "sdx2 is swap"),
        (replace(CARD, read_only=True), "write-protected"),
        (replace(CARD, size=0), "has no medium"),
        (replace(CARD, size=NEEDED - 1), "too small: 1000.0 MB, and the image needs 1.0 GB"),
        (replace(CARD, removable=False), "--force=/dev/sdx"),
    ],
)
def test_what_may_not_be_written_to_is_named(disk: Disk, said: str) -> None:
    assert said in plan.refusal(disk, NEEDED, "")


def test_force_is_for_the_one_disk_that_it_names() -> None:
    inner = replace(CARD, removable=False)
    assert plan.refusal(inner, NEEDED, "/dev/sdx") == ""
    assert "--force" in plan.refusal(inner, NEEDED, "/dev/sdy")
    mounted = replace(inner, uses=(Use(device="sdx1", what="is mounted at /"),))
    assert "own disk" in plan.refusal(mounted, NEEDED, "/dev/sdx")


class Machine:
    """Folders as in /sys and /proc, in which the block devices of a machine are described."""

    def __init__(self, root: Path) -> None:
        self.sys = root / "sys"
        self.proc = root / "proc"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "self/mountinfo").write_text("")
        (self.proc / "swaps").write_text("Filename Type Size Used Priority\n")

    def disk(self, place: str, number: str, **facts: str) -> Path:
        folder = self.sys / "devices" / place
        (folder / "holders").mkdir(parents=True)
        for name, text in {"dev": number, "size": "64000000", "ro": "0", **facts}.items():
            path = folder / name.replace("__", "/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text + "\n")
        link = self.sys / "dev/block" / number
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(folder)
        return folder

    def hold(self, below: Path, above: Path) -> None:
        (below / "holders" / above.name).symlink_to(above)

    def mount(self, number: str, *points: str) -> None:
        with (self.proc / "self/mountinfo").open("a") as file:
            file.writelines(f"1 2 {number} / {p} rw - ext4 none rw\n" for p in points)

    def look(self, number: str) -> Disk:
        return devices.described(self.sys / "dev/block" / number, "/dev/x", self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def said(disk: Disk) -> Sequence[str]:
    return [f"{use.device} {use.what}" for use in disk.uses]


def test_a_stick_on_usb_is_removable_whatever_it_says(machine: Machine) -> None:
    place = "pci0/usb1/1-1/host2/target2/block/sdb"
    machine.disk(place, "8:16", removable="0", device__vendor="SanDisk ", device__model="Ultra")
    found = machine.look("8:16")
    assert (found.bus, found.removable, found.model) == ("usb", True, "SanDisk Ultra")
    assert found.size == 64_000_000 * 512


@pytest.mark.parametrize(("kind", "removable"), [("SD", True), ("MMC", False)])
def test_a_card_is_removable_and_what_is_soldered_on_is_not(
    machine: Machine, kind: str, removable: bool
) -> None:
    place = "platform/mmc_host/mmc0/mmc0:0001/block/mmcblk0"
    machine.disk(place, "179:0", removable="0", device__type=kind, device__name="SC32G")
    found = machine.look("179:0")
    assert (found.bus, found.removable, found.model) == ("mmc", removable, "SC32G")


def test_mounts_of_partitions_and_of_what_lies_on_them_are_found(machine: Machine) -> None:
    machine.disk("pci0/ata1/host0/block/sda", "8:0", removable="0")
    part = machine.disk("pci0/ata1/host0/block/sda/sda2", "8:2", partition="2")
    machine.disk("pci0/ata1/host0/block/sda/sda1", "8:1", partition="1")
    crypt = machine.disk("virtual/block/dm-0", "253:0")
    volume = machine.disk("virtual/block/dm-1", "253:1")
    machine.hold(part, crypt)
    machine.hold(crypt, volume)
    machine.mount("253:1", "/")
    machine.mount("8:1", "/boot/efi")
    found = machine.look("8:0")
    assert "dm-1 is mounted at /" in said(found)
    assert "sda1 is mounted at /boot/efi" in said(found)
    assert any(text.startswith("sda2 is part of dm-0 (device mapper") for text in said(found))
    assert "own disk" in plan.refusal(found, NEEDED, "/dev/x")


def test_a_member_of_a_raid_is_in_use_without_a_mount(machine: Machine) -> None:
    disk = machine.disk("pci0/ata2/host1/block/sdc", "8:32", removable="0")
    array = machine.disk("virtual/block/md0", "9:0")
    machine.hold(disk, array)
    assert said(machine.look("8:32")) == ["sdc is part of md0 (RAID)"]


def test_a_partition_knows_its_disk(machine: Machine) -> None:
    machine.disk("pci0/usb1/block/sdb", "8:16", removable="1")
    machine.disk("pci0/usb1/block/sdb/sdb1", "8:17", partition="1")
    assert machine.look("8:17").parent == "sdb"
    assert machine.look("8:17").removable
