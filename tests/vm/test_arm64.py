"""
The image of the Raspberry Pi, made on this computer, in QEMU's board for arm64 and in its Pi 3.

What the firmware of a real one does is done by the test (:mod:`tests.vm.arm`).
"""

from contextlib import nullcontext
from pathlib import Path

import pytest

from node.update.boot import State, TryBoot
from tests.vm import arm
from tests.vm.api import Api, is_ready
from tests.vm.machine import Machine
from tests.vm.releases import Releases, make
from tests.vm.test_boot import copy_slot

RESTS = "systemd.mask=pinnace.service"
UP = 1500.0  # seconds, with emulated processors on a busy computer


@pytest.fixture(scope="session")
def board() -> Releases:
    if lacking := arm.missing():
        pytest.skip(f"not installed: {lacking}")
    return make(lambda text: None, board="rpi-arm64")


def becomes_ready(machine: Machine) -> None:
    machine.wait_shell(UP)
    machine.run("systemctl start pinnace", seconds=UP)
    Api(machine).wait("/api/v1/nodes", is_ready, UP)
    assert machine.run("uname -m") == "aarch64"


def used_memory(machine: Machine) -> int:
    """MiB."""
    total, available = (
        int(machine.run(f"awk '/^{name}:/ {{print $2}}' /proc/meminfo", seconds=UP))
        for name in ("MemTotal", "MemAvailable")
    )
    return (total - available) // 1024


def test_a_node_becomes_ready(board: Releases, tmp_path: Path) -> None:
    with arm.Virt(folder=tmp_path / "vm", image=board.disk) as machine:
        machine.start()
        becomes_ready(machine)
        machine.run("systemctl is-system-running --wait", seconds=UP, check=False)
        assert machine.run("systemctl --failed --no-legend --plain") == ""
        assert used_memory(machine) < 256


def test_a_node_becomes_ready_on_the_hardware_of_a_raspberry_pi_3(
    board: Releases, tmp_path: Path
) -> None:
    with arm.Raspberry3(folder=tmp_path / "vm", image=board.disk) as machine:
        machine.start()
        becomes_ready(machine)
        assert machine.run("cat /run/pinnace-boot/disk") == "/dev/mmcblk0"
        machine.run("test -c /dev/watchdog0")
        machine.run("systemctl is-system-running --wait", seconds=UP, check=False)
        assert machine.run("systemctl --failed --no-legend --plain") == ""
        assert used_memory(machine) < 300  # four processors, USB, and so soon after its start


def test_a_slot_is_tried_once_and_the_first_one_starts_again(
    board: Releases, tmp_path: Path
) -> None:
    with arm.Virt(
        folder=tmp_path / "vm", image=board.disk, network="none", arguments=RESTS
    ) as machine:
        copy_slot(machine)
        note(machine, tmp_path, State(try_once="b"))
        machine.start()
        machine.wait_shell(UP)
        assert machine.run("cat /run/pinnace-boot/slot /run/pinnace-boot/trial").split() == [
            "b",
            "1",
        ]
        machine.power_cut()
        assert machine.slot() == "a"
        machine.start()
        machine.wait_shell(UP)
        assert machine.run("cat /run/pinnace-boot/slot") == "a"
        assert machine.run("test -e /run/pinnace-boot/trial || echo none") == "none"


def note(machine: Machine, folder: Path, state: State) -> None:
    """What the firmware is to start, of a machine that is off."""
    path = folder / "autoboot.txt"
    path.write_bytes(machine.take("autoboot.txt"))
    TryBoot(path, nullcontext).write(state)
    machine.put({"autoboot.txt": path.read_bytes()})
