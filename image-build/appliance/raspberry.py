"""
What the firmware of a Raspberry Pi reads: its own programs, its configuration, device trees.

The first partition says which one to go on with (``autoboot.txt``, whose state is
``node/update/boot.py``'s); a Raspberry Pi 3 or Zero 2 W, which has no boot loader of its own,
looks for ``bootcode.bin`` and a ``config.txt`` there as well. All else lies on the slot's boot
partition, which is the same for both slots: so no file there names one.
Source: the Raspberry Pi documentation, "config.txt", "autoboot.txt" and "Boot folder contents".
"""

import tempfile
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from appliance.boards import Board
from appliance.toolbox import Toolbox
from node.update.boot import State, TryBoot

KERNEL, RAMDISK = "vmlinuz", "initrd.img"  # as on every board's boot partition
_BOOT_CODE = "bootcode.bin"
# The usual programs and those that need less memory; not those for cameras and for debugging.
_PROGRAMS = ("start.elf", "fixup.dat", "start_cd.elf", "fixup_cd.dat")
_PROGRAMS_4 = ("start4.elf", "fixup4.dat", "start4cd.elf", "fixup4cd.dat")
_TREES = "linux-image-*/broadcom/bcm*.dtb"
_OVERLAYS = "raspi-firmware/overlays/*.dtbo"
_MOST_MEGABYTES = 32  # of memory that the graphics take: a node draws nothing

_FIRST = """\
# A Raspberry Pi 3 looks for this file. autoboot.txt says from which partition it goes on;
# what is configured lies there.
"""
_CONFIGURATION = f"""\
# Every update replaces this partition: changes here are lost.
arm_64bit=1
# Linux's own names of device trees; Debian's kernel has none of the others.
upstream_kernel=1
kernel={KERNEL}
initramfs {RAMDISK} followkernel
enable_uart=1
gpu_mem={_MOST_MEGABYTES}
disable_splash=1
boot_delay=0
"""


class FirmwareError(Exception):
    """The packages lack a file that the boards cannot start without; the text names it."""


def autoboot() -> bytes:
    """``autoboot.txt`` of a new card, as the machine itself writes it later: 512 bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "autoboot.txt")
        TryBoot(path, nullcontext).write(State())
        return path.read_bytes()


def first_files(boot: Path) -> Iterator[tuple[str, bytes | Path]]:
    """Of the first partition. ``boot``: what packages bring; raises :class:`FirmwareError`."""
    yield _BOOT_CODE, _present(boot / "raspi-firmware" / _BOOT_CODE)
    yield "config.txt", _FIRST.encode()
    yield "autoboot.txt", autoboot()


def slot_files(board: Board, boot: Path) -> Iterator[tuple[str, bytes | Path]]:
    """
    Of a boot partition, but for kernel and RAM disk. Raises :class:`FirmwareError`.

    ``boot``: what packages bring for it, as :class:`appliance.rootfs.Rootfs` has it.
    """
    for name in (*_PROGRAMS, *_PROGRAMS_4):
        yield name, _present(boot / "raspi-firmware" / name)
    yield "config.txt", _CONFIGURATION.encode()
    yield "cmdline.txt", f"{command_line(board)}\n".encode()
    trees = sorted(boot.glob(_TREES))
    if not trees:
        raise FirmwareError(f"the kernel's package has no device trees ({_TREES})")
    for path in trees:
        yield path.name, path
    for path in sorted(boot.glob(_OVERLAYS)):
        yield f"overlays/{path.name}", path


def command_line(board: Board) -> str:
    """One line, or the firmware would read no further. The slot the device tree tells."""
    return f"{board.command_line()} gpt"


def packed(toolbox: Toolbox, kernel: Path) -> bytes:
    """
    The kernel by gzip, which the firmware unpacks by itself: a third of what a card must read.

    Raises :class:`appliance.toolbox.ToolError`.
    """
    return toolbox.run(["busybox", "gzip", "-9", "-c"], stdin=kernel.read_bytes())


def _present(path: Path) -> Path:
    if not path.is_file():
        raise FirmwareError(f"raspi-firmware has no {path.name}")
    return path
