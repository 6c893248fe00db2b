"""
Machines with an arm64 processor, started from the image of the Raspberry Pi in QEMU.

QEMU has none of the firmware of a Raspberry Pi. What that would do is done here: ``autoboot.txt``
says which boot partition is next, and kernel, RAM disk and command line are taken from there. So
the slot is told as a word of the command line and not by the device tree; whether a real board's
firmware does all this as it is documented, no test here can say.

:class:`Virt` is QEMU's own board, with the devices of a virtual machine. :class:`Raspberry3` has
those of a Raspberry Pi 3: its card, its serial ports, USB; and 1 GiB of memory. Of its watchdog it
has only the reset, which comes as soon as the watchdog is started: so nothing starts it there.
"""

import base64
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import ClassVar

from node.appliance import grow
from tests.vm.machine import MIB, Machine

PROGRAM = "qemu-system-aarch64"
SLOTS = {2: "a", 3: "b"}  # by the number of the boot partition
# An emulated processor on a busy computer is slower than that of any board.
_PATIENCE = base64.b64encode(b"[Service]\nTimeoutStartSec=1h\n").decode()
_PATIENT = " ".join(
    f"systemd.set_credential_binary=systemd.unit-dropin.{unit}:{_PATIENCE}"
    for unit in ("systemd-.service", "dbus.service")
)
TREE = "bcm2837-rpi-3-b.dtb"


def missing() -> str:
    """What has to be installed before a machine can start; "" where nothing."""
    needed = {PROGRAM: "qemu-system-arm", "mcopy": "mtools"}
    return " ".join(package for program, package in needed.items() if not shutil.which(program))


class Virt(Machine):
    """What differs from a PC: how it starts, and where its consoles are."""

    board: ClassVar[tuple[str, ...]] = ("-machine", "virt,accel=tcg", "-cpu", "cortex-a72")
    words: ClassVar[str] = "console=ttyAMA0 systemd.debug_shell=ttyS0"
    left_out: ClassVar[str] = ""  # a word of the image's

    def _prepare_disk(self) -> None:
        size = self.disk_size
        subprocess.run(["cp", "--sparse=always", self.image, self.disk], check=True)
        if self.disk.stat().st_size < size:
            os.truncate(self.disk, size)
        self.put(self.files)

    def slot(self) -> str:
        """The one that the firmware would start."""
        text = self.take("autoboot.txt").decode()
        number = re.search(r"^\[all\]\n(?:.+\n)*?boot_partition=(\d+)$", text, re.MULTILINE)
        assert number is not None, text
        return SLOTS[int(number[1])]

    def take_boot(self, name: str) -> Path:
        """A file of the boot partition of the slot that is next, in the machine's folder."""
        part = grow.read(self.disk).named(f"boot-{self.slot()}")
        assert part is not None
        target = self.folder / name
        where = f"{self.disk}@@{part.first * 512}"
        command = ["mcopy", "-o", "-n", "-i", where, f"::/{name}", str(target)]
        subprocess.run(command, check=True, env={**os.environ, "MTOOLS_SKIP_CHECK": "1"})
        return target

    def start(self, *options: str) -> None:
        kernel, ramdisk = self.take_boot("vmlinuz"), self.take_boot("initrd.img")
        given = self.take_boot("cmdline.txt").read_text().split()
        said = " ".join(word for word in given if word != self.left_out)
        line = f"{said} {self.words} {_PATIENT} {self.arguments} pinnace.slot={self.slot()}"
        loaded = ["-kernel", str(kernel), "-initrd", str(ramdisk), "-append", line]
        super().start(*loaded, *options)

    def _command(self, variables: Path, here: Path) -> list[str]:
        command = [PROGRAM, "-nodefaults", "-display", "none", *self.board]
        command += ["-smp", str(self.processors), "-m", str(self.memory)]
        for name in ("serial", "shell", "qmp"):
            command += ["-chardev", f"socket,id={name},path={here / name}"]
        command += ["-serial", "chardev:serial", "-mon", "chardev=qmp,mode=control"]
        command += self._devices()
        for drive in self.disks:
            command += ["-drive", drive]
        return [*command, *self.options]

    def _devices(self) -> list[str]:
        command = ["-device", "pci-serial,chardev=shell", "-device", "virtio-rng-pci"]
        command += ["-drive", f"{self.drive()},if=none,id=disk"]
        command += ["-device", "virtio-blk-pci,drive=disk"]
        command += ["-device", "i6300esb", "-watchdog-action", "reset"]
        command += ["-rtc", f"base={self.clock or 'utc'}"]
        return [*command, *self._network()]


class Raspberry3(Virt):
    """Its clock begins at 1970, and its memory is 1 GiB and no other."""

    board: ClassVar[tuple[str, ...]] = ("-machine", "raspi3b")
    # The first serial port is Bluetooth's; what the kernel says early goes on there all the same.
    words: ClassVar[str] = (
        "earlycon=pl011,0x3f201000 keep_bootcon systemd.debug_shell=ttyS1 modprobe.blacklist=vc4 "
        "systemd.watchdog_sec=0"
    )
    left_out: ClassVar[str] = "console=ttyS1,115200n8"  # the shell's: no status between its output

    def __post_init__(self) -> None:
        self.processors, self.memory = 4, 1024
        self.disk_size = 4096 * MIB  # a card's size is a power of two
        super().__post_init__()

    def start(self, *options: str) -> None:
        super().start("-dtb", str(self.take_boot(TREE)), *options)

    def drive(self) -> str:
        # It writes block by block while the processors wait; were each of them forced to the disk
        # of a busy computer, the driver would give up after its 10 s, and the kernel with it.
        return f"file={self.disk},format=raw,cache=unsafe"

    def _devices(self) -> list[str]:
        command = ["-serial", "chardev:shell", "-drive", f"{self.drive()},if=sd"]
        if self.network != "none":
            rules = self._network()[1].partition(",model=virtio-net-pci")[2]
            command += ["-netdev", f"user,id=net{rules}", "-device", "usb-net,netdev=net"]
        return command
