"""
From a disk to a tree that can be written, on loop devices: what is done before systemd starts.
"""

import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from appliance import gpt as layouts

from node.appliance import early, gpt, grow, overlays
from node.host import mounts

pytestmark = pytest.mark.root

MIB = 1 << 20
TABLE = layouts.layout("x86-64", "v1.36.3+pinnace1", layouts.Sizes(config=1, boot=1, root=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopMachine(early.Machine):
    """Its disk is a file; each partition that is asked for becomes a loop device."""

    read_only: bool = False
    devices: dict[tuple[str, int], Path] = field(default_factory=dict)

    def partition(self, table: gpt.Table, name: str) -> Path | None:
        part = table.named(name)
        if part is None or name == "config":  # not every kernel has FAT
            return None
        place = (name, part.sectors)
        if place not in self.devices:
            options = ["-r"] if self.read_only else []
            options += ["-o", str(part.first * 512), "--sizelimit", str(part.sectors * 512)]
            command = ["losetup", "-f", "--show", *options, str(self.disk)]
            done = subprocess.run(command, capture_output=True, check=True, text=True)
            self.devices[place] = Path(done.stdout.strip())
        return self.devices[place]


@dataclass
class Bench:
    folder: Path
    machines: list[LoopMachine] = field(default_factory=list)

    @property
    def disk(self) -> Path:
        return self.folder / "disk.img"

    def start(self, slot: str = "a", *, read_only: bool = False, marker: str = "") -> LoopMachine:
        """Switch off what runs, and do all that is done until systemd would start."""
        self.stop()
        number = len(self.machines)
        root = self.folder / f"root{number}"
        for name in ("etc", "var/lib", "data", "boot/pinnace", "root", "tmp", "run"):
            (root / name).mkdir(parents=True)
        (root / "etc/hostname").write_text("pinnace\n")
        (root / "etc/given").mkdir()
        (root / "etc/given/file").write_text("of the image\n")
        if marker:
            (root / "boot/pinnace" / early.MARKER).write_text(marker)
        machine = LoopMachine(
            disk=self.disk,
            slot=slot,
            root=root,
            run=root / "run/pinnace-boot",
            features="",
            read_only=read_only,
        )
        self.machines.append(machine)
        early.complete(machine)
        return machine

    def stop(self) -> None:
        for machine in self.machines[-1:]:
            for place in mounts.mounted_below(machine.root):
                mounts.unmount(place)
            for device in machine.devices.values():
                subprocess.run(["losetup", "-d", str(device)], check=True)
            machine.devices.clear()

    def spoil(self, offset: int, length: int) -> None:
        """Overwrite a part of the data partition."""
        data = grow.read(self.disk).named("data")
        assert data is not None
        with self.disk.open("r+b") as file:
            file.seek(data.first * 512 + offset)
            file.write(os.urandom(length))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    with made.disk.open("wb") as file:
        file.truncate(TABLE.sectors * 512)
        file.write(layouts.mbr(TABLE))
    grow.write(made.disk, TABLE)
    os.truncate(made.disk, 100 * MIB)
    try:
        yield made
    finally:
        made.stop()


def problems(machine: early.Machine) -> list[str]:
    """The reasons, but for the config partition, which this kernel may not mount."""
    lines = machine.problem.read_text().splitlines() if machine.problem.exists() else []
    found = [line.partition(":")[0] for line in lines]
    return [reason for reason in found if reason != "ConfigMissing"]


def test_the_first_start_makes_a_data_partition_of_all_that_is_free(bench: Bench) -> None:
    machine = bench.start()
    assert problems(machine) == []
    data = grow.read(bench.disk).named("data")
    assert data is not None
    assert data.last * 512 > 98 * MIB
    assert not grow.is_unused(bench.disk, "data")
    room = os.statvfs(machine.data)
    assert room.f_blocks * room.f_frsize > 70 * MIB


def test_what_is_written_is_there_after_a_restart(bench: Bench) -> None:
    first = bench.start()
    (first.root / "etc/hostname").write_text("kitchen\n")
    (first.root / "var/lib/note").write_text("kept\n")
    (first.root / "var/lib/pinnace/state").write_text("kept\n")
    (first.root / "root/.profile").write_text("mine\n")
    (first.root / "var/log/pods/log").write_text("line\n")
    (first.root / "tmp/scratch").write_text("gone\n")
    second = bench.start()
    assert (second.root / "etc/hostname").read_text() == "kitchen\n"
    assert (second.root / "var/lib/note").exists()
    assert (second.root / "var/lib/pinnace/state").exists()
    assert (second.root / "root/.profile").exists()
    assert (second.root / "var/log/pods/log").exists()
    assert not (second.root / "tmp/scratch").exists()


def test_each_slot_has_settings_of_its_own_and_shares_the_data(bench: Bench) -> None:
    first = bench.start("a")
    (first.root / "etc/hostname").write_text("kitchen\n")
    (first.root / "var/lib/pinnace/state").write_text("kept\n")
    second = bench.start("b")
    assert (second.root / "etc/hostname").read_text() == "pinnace\n"
    assert (second.root / "var/lib/pinnace/state").read_text() == "kept\n"


def test_a_disk_that_has_become_larger_gives_the_partition_more_room(bench: Bench) -> None:
    bench.start()
    bench.stop()
    os.truncate(bench.disk, 200 * MIB)
    bench.start()
    data = grow.read(bench.disk).named("data")
    assert data is not None
    assert data.last * 512 > 198 * MIB
    if not may_grow_mounted():
        pytest.skip("no CAP_SYS_RESOURCE: the kernel grows no mounted file system here")
    room = os.statvfs(bench.machines[-1].data)
    assert room.f_blocks * room.f_frsize > 150 * MIB


def may_grow_mounted() -> bool:
    status = Path("/proc/self/status").read_text()
    [effective] = [line.split()[1] for line in status.splitlines() if line.startswith("CapEff")]
    return bool(int(effective, 16) >> 24 & 1)


def test_a_power_cut_while_it_is_formatted_formats_it_again(bench: Bench) -> None:
    bench.spoil(0, 8 * MIB)
    machine = bench.start()
    assert problems(machine) == []


def test_a_partition_that_was_used_is_never_formatted(bench: Bench) -> None:
    grow.set_unused(bench.disk, "data", unused=False)
    bench.spoil(0, 4 * MIB)
    before = bench.disk.read_bytes()[grow.read(bench.disk).partitions[-1].first * 512 :][: 4 * MIB]
    machine = bench.start()
    assert problems(machine) == ["DataCorrupt"]
    after = bench.disk.read_bytes()[grow.read(bench.disk).partitions[-1].first * 512 :][: 4 * MIB]
    assert after == before


def test_a_machine_whose_data_is_lost_comes_up_in_memory(bench: Bench) -> None:
    grow.set_unused(bench.disk, "data", unused=False)
    bench.spoil(0, 4 * MIB)
    machine = bench.start()
    (machine.root / "etc/hostname").write_text("kitchen\n")
    (machine.root / "var/lib/pinnace/state").write_text("for now\n")
    kinds = {
        line.split()[1]: line.split()[2] for line in Path("/proc/mounts").read_text().splitlines()
    }
    assert kinds[str(machine.data)] == "tmpfs"
    assert kinds[str(machine.root / "etc")] == "overlay"


def test_a_damaged_superblock_is_repaired_and_reported(bench: Bench) -> None:
    first = bench.start()
    (first.root / "var/lib/pinnace/state").write_text("kept\n")
    bench.stop()
    bench.spoil(1024, 1024)
    second = bench.start()
    assert problems(second) == ["DataRepaired"]
    assert (second.root / "var/lib/pinnace/state").read_text() == "kept\n"
    assert "superblock" in (second.data / early.REPORT).read_text().lower()
    assert problems(bench.start()) == []


def test_a_write_protected_disk_can_be_read_and_changes_last_until_the_next_start(
    bench: Bench,
) -> None:
    first = bench.start()
    (first.root / "etc/hostname").write_text("kitchen\n")
    (first.root / "var/lib/pinnace/state").write_text("kept\n")
    second = bench.start(read_only=True)
    assert problems(second) == ["DataReadOnly"]
    assert (second.root / "etc/hostname").read_text() == "kitchen\n"
    assert (second.root / "var/lib/pinnace/state").read_text() == "kept\n"
    (second.root / "var/lib/pinnace/state").write_text("changed\n")
    (second.root / "etc/hostname").write_text("cellar\n")
    third = bench.start()
    assert problems(third) == []
    assert (third.root / "var/lib/pinnace/state").read_text() == "kept\n"
    assert (third.root / "etc/hostname").read_text() == "kitchen\n"


def test_data_that_is_lost_is_formatted_where_the_user_wants_it_wiped(bench: Bench) -> None:
    grow.set_unused(bench.disk, "data", unused=False)
    bench.spoil(0, 4 * MIB)
    machine = bench.start(marker="wipe\n")
    assert problems(machine)[:1] == ["DataCorrupt"]
    assert grow.read(bench.disk).named("data") is not None
    assert problems(bench.start()) == []


def test_layers_that_are_not_folders_give_way_to_memory(bench: Bench) -> None:
    first = bench.start()
    slots = first.data / "slots/a"
    bench.stop()
    second = bench.start("b")
    folder = second.data / "slots/a"
    assert folder.name == slots.name
    subprocess.run(["rm", "-rf", str(folder / "etc")], check=True)
    (folder / "etc").write_text("not a folder")
    third = bench.start("a")
    assert problems(third) == ["DataCorrupt"]
    (third.root / "etc/hostname").write_text("works\n")


def test_the_other_slot_starts_with_a_copy_of_what_the_running_one_has(bench: Bench) -> None:
    first = bench.start("a")
    etc = first.root / "etc"
    (etc / "hostname").unlink()
    (etc / "secret").write_text("key\n")
    (etc / "secret").chmod(0o600)
    os.chown(etc / "secret", 1000, 1001)
    (etc / "link").symlink_to("secret")
    (etc / "folder").mkdir(mode=0o750)
    os.utime(etc / "secret", (1, 2))
    overlays.copy_for_other_slot(first.data, "a", "b")
    (etc / "secret").write_text("changed later\n")
    second = bench.start("b")
    etc = second.root / "etc"
    assert not (etc / "hostname").exists()
    assert (etc / "secret").read_text() == "key\n"
    status = (etc / "secret").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (1000, 1001, 0o600)
    assert status.st_mtime == 2
    assert (etc / "link").readlink() == Path("secret")
    assert (etc / "folder").stat().st_mode & 0o777 == 0o750


def test_a_copy_replaces_what_the_other_slot_had(bench: Bench) -> None:
    second = bench.start("b")
    (second.root / "etc/old").write_text("of another time\n")
    first = bench.start("a")
    (first.root / "etc/new").write_text("now\n")
    overlays.copy_for_other_slot(first.data, "a", "b")
    third = bench.start("b")
    assert not (third.root / "etc/old").exists()
    assert (third.root / "etc/new").exists()
    assert sorted(path.name for path in (third.data / "slots").iterdir()) == ["a", "b"]


def test_a_folder_that_was_made_anew_stays_empty_in_the_copy(bench: Bench) -> None:
    first = bench.start("a")
    folder = first.root / "etc/given"
    (folder / "file").unlink()
    folder.rmdir()
    folder.mkdir()
    overlays.copy_for_other_slot(first.data, "a", "b")
    second = bench.start("b")
    assert list((second.root / "etc/given").iterdir()) == []
