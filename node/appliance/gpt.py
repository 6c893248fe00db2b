"""
The table of partitions (GPT) of an image: read, written and made to fit a larger disk.

Pure: bytes in, bytes out. Who builds an image and the machine that grows it on its first boot
share this, so that both mean the same. Sectors have 512 bytes, as on every disk that we boot from.
Source: UEFI specification 2.10, chapter 5.
"""

import struct
import uuid
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

SECTOR = 512
ENTRIES = 128
_ENTRY = struct.Struct("<16s16sQQQ72s")
_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_MAGIC = b"EFI PART"
_REVISION = 0x00010000
ARRAY = ENTRIES * _ENTRY.size // SECTOR  # sectors of the entries: 32
FIRST = 2 + ARRAY  # the first sector that a partition may have

ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
BASIC = uuid.UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")  # shown by every desktop
LINUX = uuid.UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")

# Bit 48, for the use of whoever defines the type: nothing was ever written to this partition.
UNUSED = 1 << 48


class TableError(Exception):
    """There is no valid table where one was looked for; the text says what is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    number: int  # from 1
    kind: uuid.UUID
    identity: uuid.UUID
    first: int  # sector
    last: int  # sector, which is part of it
    name: str
    attributes: int = 0

    @property
    def sectors(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    identity: uuid.UUID
    sectors: int  # of the disk that it describes: the copy stands in the last of them
    partitions: tuple[Partition, ...]

    @property
    def last(self) -> int:
        """The last sector that a partition may have."""
        return self.sectors - ARRAY - 2

    def named(self, name: str) -> Partition | None:
        return next((p for p in self.partitions if p.name == name), None)

    def with_partition(self, changed: Partition) -> "Table":
        """The same with another partition of the same number."""
        kept = (changed if p.number == changed.number else p for p in self.partitions)
        return replace(self, partitions=tuple(kept))


def grown(table: Table, sectors: int, name: str, *, align: int = 2048) -> Table:
    """
    For a disk of so many sectors: partition ``name``, the last one, has all that is free.

    ``align``: where it may end, in sectors. What is there already never shrinks; equal where
    nothing is to be done.
    """
    part = table.named(name)
    if part is None or any(other.first > part.last for other in table.partitions):
        raise TableError(f"there is no last partition {name!r}")
    moved = replace(table, sectors=sectors)
    if part.last > moved.last:
        raise TableError(f"the disk is smaller than its partitions: it ends before {name!r} does")
    end = (moved.last + 1) // align * align - 1
    return moved.with_partition(replace(part, last=max(part.last, end)))


def entries(table: Table) -> bytes:
    array = bytearray(ENTRIES * _ENTRY.size)
    for part in table.partitions:
        _ENTRY.pack_into(
            array,
            (part.number - 1) * _ENTRY.size,
            part.kind.bytes_le,
            part.identity.bytes_le,
            part.first,
            part.last,
            part.attributes,
            part.name.encode("utf-16-le"),
        )
    return bytes(array)


def header(table: Table, *, copy: bool) -> bytes:
    """One sector: the header at the start of the disk, or its copy at the end."""
    first, last = 1, table.sectors - 1
    fields = (
        last if copy else first,
        first if copy else last,
        FIRST,
        table.last,
        table.identity.bytes_le,
        table.sectors - ARRAY - 1 if copy else 2,
        ENTRIES,
        _ENTRY.size,
        zlib.crc32(entries(table)),
    )
    checked = _HEADER.pack(_MAGIC, _REVISION, _HEADER.size, 0, 0, *fields)
    whole = _HEADER.pack(_MAGIC, _REVISION, _HEADER.size, zlib.crc32(checked), 0, *fields)
    return whole.ljust(SECTOR, b"\0")


def mbr(listed: Iterable[tuple[Partition, int]] = (), *, signature: int = 0) -> bytes:
    """
    Sector 0: the usual protection, and up to three partitions (with their type) for old firmware.

    The protecting entry begins at sector 1, as Linux and UEFI ask before they believe the table.
    With partitions beside it, it ends before the first of them and stands last: what reads an
    MBR alone finds a plain one.
    """
    found = list(listed)
    start = min((part.first for part, _ in found), default=0x1_0000_0000)
    shown = [(kind, part.first, part.sectors) for part, kind in found]
    shown.append((0xEE, 1, min(start - 1, 0xFFFFFFFF)))
    rows = b"".join(
        struct.pack("<B3sB3sII", 0, b"\x00\x02\x00", kind, b"\xff\xff\xff", first, count)
        for kind, first, count in shown
    )
    return bytes(440) + struct.pack("<IH", signature, 0) + rows.ljust(64, b"\0") + b"\x55\xaa"


def parse(head: bytes, array: bytes) -> Table:
    """
    One header (either of the two) and the entries that it points to.

    Raises :class:`TableError` where one of the checksums is wrong.
    """
    place = array_of(head)
    if len(array) < place.bytes or zlib.crc32(array[: place.bytes]) != place.checksum:
        raise TableError("the partition entries do not match their checksum")
    (*_, here, other, _, _, identity, _, _, _, _) = _HEADER.unpack_from(head)
    found = (
        _partition(number, array[(number - 1) * place.size : number * place.size])
        for number in range(1, place.bytes // place.size + 1)
    )
    return Table(
        identity=uuid.UUID(bytes_le=identity),
        sectors=max(here, other) + 1,
        partitions=tuple(part for part in found if part is not None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """Where a header says that its entries lie."""

    sector: int
    size: int  # bytes of one entry
    bytes: int  # of all
    checksum: int


def array_of(head: bytes) -> Array:
    """Raises :class:`TableError` where this is no header."""
    (magic, revision, length, checksum, *_, sector, count, size, array) = _HEADER.unpack_from(head)
    if magic != _MAGIC or revision != _REVISION or not _HEADER.size <= length <= SECTOR:
        raise TableError("there is no GPT header")
    if zlib.crc32(head[:16] + bytes(4) + head[20:length]) != checksum:
        raise TableError("the GPT header does not match its checksum")
    if size < _ENTRY.size or not 0 < count * size <= 1 << 20:
        raise TableError("the GPT header gives no sensible size of its entries")
    return Array(sector=sector, size=size, bytes=count * size, checksum=array)


def _partition(number: int, raw: bytes) -> Partition | None:
    kind, identity, first, last, attributes, name = _ENTRY.unpack_from(raw)
    if not any(kind):
        return None
    return Partition(
        number=number,
        kind=uuid.UUID(bytes_le=kind),
        identity=uuid.UUID(bytes_le=identity),
        first=first,
        last=last,
        name=name.decode("utf-16-le", "replace").rstrip("\0"),
        attributes=attributes,
    )
