"""
From a root, a kernel and its modules to a disk that starts: what goes into which partition.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from appliance import compress, disk, fat, grub, initrd, raspberry
from appliance import gpt as layouts
from appliance.boards import Board
from appliance.toolbox import Toolbox

FILES = Path(__file__).parent.parent / "files"
KERNEL, RAMDISK = "vmlinuz", "initrd.img"
_LABEL = "PINNACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the image is made of."""

    board: Board
    version: str
    epoch: int  # seconds since 1970: the time of every file
    root: Path  # squashfs
    kernel: Path
    modules: Path  # …/lib/modules/6.12.1-amd64
    busybox: Path  # static, of the board
    firmware: Path  # what packages bring for boot partitions


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    disk: Path  # the whole, not compressed
    boot: Path  # FAT of a slot, for the bundle as well


def assemble(toolbox: Toolbox, parts: Parts, target: Path, say: Callable[[str], None]) -> Made:
    """
    ``disk.img`` and ``boot.img`` in the folder ``target``.

    Raises :class:`appliance.toolbox.ToolError`, :class:`appliance.initrd.InitrdError`,
    :class:`appliance.raspberry.FirmwareError` and :class:`appliance.disk.DiskError`.
    """
    name, sizes = parts.board.name, layouts.sizes(parts.board.name)
    made = Made(disk=target / "disk.img", boot=target / "boot.img")
    ramdisk = compress.ramdisk(toolbox, _ramdisk(parts))
    say(f"initial RAM disk: {len(ramdisk) / 1e6:.1f} MB")
    make_boot(toolbox, parts, made.boot, ramdisk)
    config = target / "config.img"
    make_config(toolbox, parts, config)
    table = layouts.layout(name, parts.version, sizes)
    disk.write(made.disk, table, {"config": config, "boot-a": made.boot, "root-a": parts.root})
    say(f"disk: {table.sectors * 512 / 1e6:.0f} MB, {stored(made.disk) / 1e6:.0f} MB of it used")
    return made


def make_boot(toolbox: Toolbox, parts: Parts, target: Path, ramdisk: bytes) -> None:
    """The FAT that a slot is booted from, the same for both. Raises as :func:`assemble`."""
    fat.make(
        toolbox,
        target,
        size=layouts.sizes(parts.board.name).boot * layouts.MIB,
        label="BOOT",
        serial=layouts.serial(parts.board.name, parts.version, "boot"),
        files=_boot_files(toolbox, parts, ramdisk),
        epoch=parts.epoch,
    )


def make_config(toolbox: Toolbox, parts: Parts, target: Path) -> None:
    """The FAT of the boot loader and of whoever owns the machine. Raises as :func:`assemble`."""
    fat.make(
        toolbox,
        target,
        size=layouts.sizes(parts.board.name).config * layouts.MIB,
        label=_LABEL,
        serial=layouts.serial(parts.board.name, parts.version, "config"),
        files=dict(_config_files(toolbox, parts)),
        epoch=parts.epoch,
    )


def _ramdisk(parts: Parts) -> bytes:
    modules = initrd.read_modules(parts.modules)
    return initrd.build(modules, parts.busybox.read_bytes(), FILES)


def _boot_files(toolbox: Toolbox, parts: Parts, ramdisk: bytes) -> dict[str, bytes | Path]:
    if is_raspberry(parts.board):
        kernel = raspberry.packed(toolbox, parts.kernel)
        files = dict(raspberry.slot_files(parts.board, parts.firmware))
        return {**files, KERNEL: kernel, RAMDISK: ramdisk}
    return {KERNEL: parts.kernel, RAMDISK: ramdisk}


def is_raspberry(board: Board) -> bool:
    """Whether a Raspberry Pi's firmware starts it, and not UEFI."""
    return board.name.startswith("rpi-")


def _config_files(toolbox: Toolbox, parts: Parts) -> Iterator[tuple[str, bytes | Path]]:
    for path in sorted((FILES / "config").iterdir()):
        yield path.name, path
    if is_raspberry(parts.board):
        yield from raspberry.first_files(parts.firmware)
    else:
        arguments = f"{parts.board.command_line()} gpt"
        yield grub.PROGRAM, grub.program(toolbox)
        yield "EFI/BOOT/grub.cfg", grub.configuration(FILES / "grub.cfg", arguments)
        yield "grubenv", grub.environment()


def stored(path: Path) -> int:
    """Bytes that a sparse file has on the disk."""
    return path.stat().st_blocks * 512
