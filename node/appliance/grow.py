"""
The data partition takes the rest of the disk, on the first boot and after a move to a larger one.

The table is written in an order in which a power cut leaves one that is valid: first the copy, at
what is now the end of the disk, then the one at the start. In between the start is the old one
or does not match its checksum, and then the kernel (told ``gpt``), GRUB and UEFI take the copy.
"""

import ctypes
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from node.appliance import gpt

_BLKGETSIZE64 = 0x80081272 if struct.calcsize("P") == 8 else 0x80041272
_BLKPG = 0x1269
_RESIZE = 3
# struct blkpg_partition and struct blkpg_ioctl_arg of linux/blkpg.h
_PART = struct.Struct("@qqi64s64s0q")
_CALL = struct.Struct("@iiiP")


@contextmanager
def _opened(disk: Path, flags: int) -> Iterator[int]:
    descriptor = os.open(disk, flags | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def size(descriptor: int) -> int:
    """Bytes of an open disk, or of a file that stands for one."""
    try:
        answer = fcntl.ioctl(descriptor, _BLKGETSIZE64, bytes(8))
    except OSError:
        return os.fstat(descriptor).st_size
    return int.from_bytes(answer, "little")


def read(disk: Path) -> gpt.Table:
    """
    The table at the start of the disk, else its copy at the end.

    Raises :class:`node.appliance.gpt.TableError`, and ``OSError``.
    """
    with _opened(disk, os.O_RDONLY) as descriptor:
        return _read(descriptor)


def _read(descriptor: int) -> gpt.Table:
    try:
        return _read_at(descriptor, gpt.SECTOR)
    except gpt.TableError:
        return _read_at(descriptor, size(descriptor) // gpt.SECTOR * gpt.SECTOR - gpt.SECTOR)


def _read_at(descriptor: int, offset: int) -> gpt.Table:
    head = os.pread(descriptor, gpt.SECTOR, offset)
    if len(head) < gpt.SECTOR:
        raise gpt.TableError("the disk ends before its partition table")
    place = gpt.array_of(head)
    return gpt.parse(head, os.pread(descriptor, place.bytes, place.sector * gpt.SECTOR))


def write(disk: Path, table: gpt.Table) -> None:
    """Both copies of a table, safe on disk, the one at the end first."""
    with _opened(disk, os.O_RDWR) as descriptor:
        _write(descriptor, table)


def _write(descriptor: int, table: gpt.Table) -> None:
    end = (table.sectors - gpt.ARRAY - 1) * gpt.SECTOR
    array = gpt.entries(table)
    os.pwrite(descriptor, array + gpt.header(table, copy=True), end)
    os.fsync(descriptor)
    # The entries hold one changed sector, and the header is one: nothing can be torn within.
    os.pwrite(descriptor, array, 2 * gpt.SECTOR)
    os.fsync(descriptor)
    os.pwrite(descriptor, gpt.header(table, copy=False), gpt.SECTOR)
    os.fsync(descriptor)


def grow(disk: Path, name: str) -> bool:
    """
    Give the last partition, ``name``, all that the disk has. True: the table was written.

    Also mends a copy that is missing or not at the end. The kernel is told, and an equal table
    costs two reads. Raises :class:`node.appliance.gpt.TableError`, and ``OSError``.
    """
    with _opened(disk, os.O_RDWR) as descriptor:
        table = _read(descriptor)
        wanted = gpt.grown(table, size(descriptor) // gpt.SECTOR, name)
        if written := not _is_written(descriptor, wanted):
            _write(descriptor, wanted)
        if part := wanted.named(name):
            _tell_kernel(descriptor, disk, part)
        return written


def _is_written(descriptor: int, table: gpt.Table) -> bool:
    try:
        first = _read_at(descriptor, gpt.SECTOR)
        last = _read_at(descriptor, (table.sectors - 1) * gpt.SECTOR)
    except gpt.TableError:
        return False
    return first == last == table


def _tell_kernel(descriptor: int, disk: Path, part: gpt.Partition) -> None:
    """Where the kernel has another size of it; a file has no kernel to tell."""
    known = Path("/sys/class/block") / partition_name(disk.name, part.number) / "size"
    if not known.exists() or int(known.read_text()) == part.sectors:
        return
    told = _PART.pack(part.first * gpt.SECTOR, part.sectors * gpt.SECTOR, part.number, b"", b"")
    buffer = ctypes.create_string_buffer(told, _PART.size)
    fcntl.ioctl(descriptor, _BLKPG, _CALL.pack(_RESIZE, 0, _PART.size, ctypes.addressof(buffer)))


def partition_name(disk: str, number: int) -> str:
    """``sda`` and 6: ``sda6``; ``mmcblk0`` and 6: ``mmcblk0p6``."""
    return f"{disk}p{number}" if disk[-1].isdigit() else f"{disk}{number}"


def is_unused(disk: Path, name: str) -> bool:
    """Whether nothing was ever written to a partition: it may be formatted."""
    part = read(disk).named(name)
    return part is not None and bool(part.attributes & gpt.UNUSED)


def set_unused(disk: Path, name: str, *, unused: bool) -> None:
    """
    Say of a partition that it may be formatted at the next boot, or that it may not any longer.

    On disk when this returns. Raises :class:`node.appliance.gpt.TableError`, and ``OSError``.
    """
    table = read(disk)
    part = table.named(name)
    if part is None:
        raise gpt.TableError(f"there is no partition {name!r}")
    kept = part.attributes & ~gpt.UNUSED
    changed = replace(part, attributes=kept | gpt.UNUSED if unused else kept)
    if changed != part:
        write(disk, table.with_partition(changed))
