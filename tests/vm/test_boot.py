"""
An image starts, again and again: on a disk of any size, after power cuts, with a damaged disk.

The node itself rests in most of these; what is tested is what lies below it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.appliance import gpt, grow
from tests.vm.api import Api, is_ready
from tests.vm.console import MachineError
from tests.vm.machine import MIB, Machine
from tests.vm.releases import Releases

RESTS = "systemd.mask=pinnace.service"
UP = 900.0  # seconds, with emulated processors on a busy computer


@pytest.fixture
def machine(releases: Releases, tmp_path: Path) -> Iterator[Machine]:
    with Machine(
        folder=tmp_path / "vm", image=releases.disk, network="none", arguments=RESTS
    ) as made:
        yield made


def start(machine: Machine) -> None:
    machine.start()
    machine.wait_shell(UP)


def slot_of(machine: Machine) -> str:
    return machine.run("cat /run/pinnace-boot/slot")


def state(machine: Machine) -> dict[str, str]:
    """The boot loader's, of a machine that is off."""
    lines = machine.take("grubenv").decode().splitlines()
    return dict(re.findall(r"^(\w+)=(.*)$", "\n".join(lines), re.MULTILINE))


def choose(machine: Machine, **values: str) -> None:
    """Set what the boot loader knows, of a machine that is off."""
    lines = "".join(f"{name}={value}\n" for name, value in (state(machine) | values).items())
    machine.put({"grubenv": (b"# GRUB Environment Block\n" + lines.encode()).ljust(1024, b"#")})


def copy_slot(machine: Machine) -> None:
    """The second slot gets what the first one has, of a machine that is off."""
    table = grow.read(machine.disk)
    with machine.disk.open("r+b") as file:
        for name in ("boot", "root"):
            source, target = table.named(f"{name}-a"), table.named(f"{name}-b")
            assert source is not None
            assert target is not None
            for offset in range(0, source.sectors * gpt.SECTOR, MIB):
                file.seek(source.first * gpt.SECTOR + offset)
                chunk = file.read(MIB)
                if chunk.count(0) != len(chunk):
                    file.seek(target.first * gpt.SECTOR + offset)
                    file.write(chunk)


def spoil(machine: Machine, name: str, offset: int, length: int) -> None:
    part = grow.read(machine.disk).named(name)
    assert part is not None
    with machine.disk.open("r+b") as file:
        file.seek(part.first * gpt.SECTOR + offset)
        file.write(b"\xa5" * length)


def test_the_data_partition_takes_the_disk_and_keeps_what_is_written(machine: Machine) -> None:
    start(machine)
    assert slot_of(machine) == "a"
    assert machine.run("cat /run/pinnace-boot/problem", check=False).endswith(
        "No such file or directory"
    )
    assert int(machine.run("df -m --output=size /data | tail -1")) > 2800
    assert machine.run("systemctl --failed --no-legend --plain") == ""
    machine.run("echo kept >/etc/note; echo kept >/var/lib/pinnace/note; echo kept >/root/note")
    identity = machine.run("cat /etc/machine-id")
    machine.run("sync")
    machine.power_cut()
    start(machine)
    assert machine.run("cat /etc/note /var/lib/pinnace/note /root/note").split() == ["kept"] * 3
    assert machine.run("cat /etc/machine-id") == identity
    machine.shutdown(UP)
    table = grow.read(machine.disk)
    assert table.sectors * gpt.SECTOR == machine.disk.stat().st_size
    with machine.disk.open("r+b") as file:
        file.truncate(6 << 30)
    start(machine)
    assert int(machine.run("df -m --output=size /data | tail -1")) > 4800
    assert machine.run("cat /root/note") == "kept"


def test_a_damaged_disk_is_repaired_or_the_machine_comes_up_in_memory(machine: Machine) -> None:
    start(machine)
    machine.run("echo kept >/root/note; sync")
    machine.shutdown(UP)
    spoil(machine, "data", 1024, 1024)
    start(machine)
    assert "DataRepaired" in machine.run("cat /run/pinnace-boot/problem")
    assert machine.run("cat /root/note") == "kept"
    machine.shutdown(UP)
    for group in range(0, 3000, 128):  # the superblock, and each of its copies
        spoil(machine, "data", group * MIB, 2 * MIB)
    start(machine)
    assert "DataCorrupt" in machine.run("cat /run/pinnace-boot/problem")
    machine.run("echo now >/etc/note && echo now >/var/lib/pinnace/note")
    machine.shutdown(UP)
    machine.put({"factory-reset": b"wipe\n"})
    start(machine)
    assert machine.run("echo now >/root/note; stat -f -c %T /data") == "ext2/ext3"
    machine.shutdown(UP)
    start(machine)
    assert machine.run("cat /root/note") == "now"
    assert (
        machine.run(
            "test -e /run/pinnace-boot/problem && cat /run/pinnace-boot/problem", check=False
        )
        == ""
    )


def test_a_slot_is_tried_once_and_the_first_one_starts_again(machine: Machine) -> None:
    copy_slot(machine)
    choose(machine, **{"try": "b"})
    start(machine)
    assert slot_of(machine) == "b"
    assert machine.run("cat /run/pinnace-boot/trial") == "1"
    machine.power_cut()
    assert state(machine)["try"] == ""
    start(machine)
    assert slot_of(machine) == "a"
    assert machine.run("cat /run/pinnace-boot/trial", check=False).endswith(
        "No such file or directory"
    )


@pytest.mark.parametrize(
    ("partition", "offset"),
    [
        pytest.param("boot-b", 0, id="no-kernel"),
        pytest.param("root-b", 0, id="no-root"),
    ],
)
def test_a_trial_that_cannot_start_goes_back_by_itself(
    machine: Machine, partition: str, offset: int
) -> None:
    copy_slot(machine)
    spoil(machine, partition, offset, MIB)
    choose(machine, **{"try": "b"})
    start(machine)
    assert slot_of(machine) == "a"


def test_a_kernel_that_panics_on_trial_goes_back_by_itself(machine: Machine) -> None:
    copy_slot(machine)
    choose(machine, **{"try": "b"})
    start(machine)
    assert slot_of(machine) == "b"
    since = machine.console.length
    machine.run("(sleep 1; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    machine.until(r"Starting slot a", UP, since=since)
    machine.wait_shell(UP)
    assert slot_of(machine) == "a"


def test_a_machine_that_hangs_is_reset_by_its_watchdog(releases: Releases, tmp_path: Path) -> None:
    hangs = f"{RESTS} systemd.crash_action=freeze"
    with Machine(folder=tmp_path / "vm", image=releases.disk, arguments=hangs) as machine:
        start(machine)
        since = machine.console.length
        # systemd crashes and stands still then, as it is told: nobody feeds the watchdog.
        machine.run("(sleep 1; kill -SEGV 1) >/dev/null 2>&1 &")
        machine.until(r"Starting slot a", UP, since=since)


def test_a_committed_slot_that_dies_gives_way_to_the_other_good_one(machine: Machine) -> None:
    copy_slot(machine)
    spoil(machine, "root-b", 0, MIB)
    choose(machine, primary="b", good_b="1")
    start(machine)
    assert slot_of(machine) == "a"
    assert machine.console.text.count("Starting slot b") == 3
    assert "slot b cannot be mounted" in machine.console.text


def test_an_empty_disk_says_that_there_is_nothing(machine: Machine) -> None:
    spoil(machine, "boot-a", 0, MIB)
    machine.start()
    machine.until(r"No slot can be started", UP)


@pytest.mark.parametrize("memory", [1024, 512])
def test_a_node_becomes_ready(releases: Releases, tmp_path: Path, memory: int) -> None:
    with Machine(folder=tmp_path / "vm", image=releases.disk, memory=memory) as machine:
        start(machine)
        machine.run("until test -s /etc/pinnace/pinnace.yaml; do sleep 1; done", seconds=UP)
        api = Api(machine)
        api.wait("/api/v1/nodes", is_ready, UP)
        machine.run("systemctl is-system-running --wait", seconds=UP, check=False)
        assert machine.run("systemctl --failed --no-legend --plain") == ""
        total, available = (
            int(machine.run(f"awk '/^{name}:/ {{print $2}}' /proc/meminfo"))
            for name in ("MemTotal", "MemAvailable")
        )
        assert (total - available) // 1024 < 256
        with pytest.raises(MachineError):
            machine.run("touch /usr/x")
