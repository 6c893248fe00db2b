"""
Files of a FAT file system within an image or on a card, written without mounting it.

Whoever sets a node up is often no root, and a card that is mounted while it is written is asking
for trouble. FAT12, FAT16 and FAT32 with long names; directories grow, what is there is replaced.
Nothing is on the disk before :meth:`Fat.flush`, but the contents of files, in free clusters.

Source: Microsoft, "FAT: General Overview of On-Disk Format" 1.03; Linux, "VFAT".
"""

import itertools
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath
from typing import NamedTuple

_ENTRY = 32
_LONG, _DIRECTORY, _VOLUME, _ARCHIVE = 0x0F, 0x10, 0x08, 0x20
_FREE, _END = 0xE5, 0x00
_PER_LONG = 13  # characters in one entry of a long name
_LAST_LONG = 0x40
_FORBIDDEN = frozenset('"*/:<>?\\|')
_SHORT = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~")
_SIGNATURE = b"\x55\xaa"
_LABEL = "\0label"  # of the whole volume, in its root: no file has this name
_FSINFO = (0x41615252, 0x61417272)


class FatError(Exception):
    """This is no FAT that can be written to, or it is full; one line for the user."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """Where everything lies, in bytes from the start of the file system."""

    sector: int
    cluster: int  # bytes
    table: int  # the first table
    table_size: int
    tables: int
    root: int  # of the fixed root directory; 0: it is a chain of clusters
    root_size: int
    root_cluster: int
    data: int  # where cluster 2 is
    clusters: int
    bits: int  # 12, 16 or 32
    info: int  # the sector with counts of FAT32; 0: none


@dataclass(slots=True, kw_only=True)
class _Found:
    """A name in a directory."""

    name: str
    at: int  # of its short entry, within the directory's bytes
    first: int  # of its first entry, a long one where it has any
    short: bytes
    directory: bool
    cluster: int
    size: int


class _What(NamedTuple):
    """What a short entry says beside its name."""

    attributes: int
    cluster: int
    size: int
    when: datetime


class Fat:
    """One file system, at ``start`` of an open file; the descriptor stays the caller's."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._shape = _shape(self._read(0, 512), size)
        self._table = bytearray(self._read(self._shape.table, self._shape.table_size))
        self._next = 2

    # Reading

    def read_file(self, path: str) -> bytes | None:
        """None: there is no such file."""
        found = self._find(path)
        if found is None or found.directory:
            return None
        return b"".join(self._clusters(found.cluster))[: found.size]

    def names(self, path: str = "") -> list[str]:
        """What lies in a folder, folders with a slash behind them. Raises :class:`FatError`."""
        found = self._find(path) if path else None
        if path and (found is None or not found.directory):
            raise FatError(f"there is no folder {path}")
        content = self._directory(found.cluster if found else 0)
        return [f"{e.name}/" if e.directory else e.name for e in _entries(content) if _real(e)]

    # Writing

    def write_file(self, path: str, data: bytes, when: datetime) -> None:
        """Put a file there, with the folders that it lies in; one that is there is replaced."""
        parts = PurePosixPath(path).parts
        parent = 0
        for part in parts[:-1]:
            parent = self._folder(parent, part, when)
        self._put(parent, parts[-1], data, when)

    def flush(self) -> None:
        """Write the tables, and the count of what is free. Until then nothing has a name."""
        shape = self._shape
        for number in range(shape.tables):
            self._write(shape.table + number * shape.table_size, bytes(self._table))
        if shape.info:
            sector = bytearray(self._read(shape.info, 512))
            if struct.unpack_from("<I", sector, 0)[0] == _FSINFO[0]:
                table = memoryview(self._table).cast("I")[2 : shape.clusters + 2]
                struct.pack_into("<II", sector, 488, table.tolist().count(0), self._next)
                self._write(shape.info, bytes(sector))

    def _folder(self, parent: int, name: str, when: datetime) -> int:
        content = self._directory(parent)
        found = _named(content, name)
        if found is not None:
            if not found.directory:
                raise FatError(f"{name} is a file, and was to be a folder")
            return found.cluster
        (cluster,) = self._allocate(1)
        dots = bytearray(self._shape.cluster)
        here, above = (_What(_DIRECTORY, one, 0, when) for one in (cluster, parent))
        dots[: 2 * _ENTRY] = _short_entry(b".".ljust(11), here) + _short_entry(
            b"..".ljust(11), above
        )
        self._write(self._where(cluster), bytes(dots))
        self._enter(parent, content, name, here)
        return cluster

    def _put(self, parent: int, name: str, data: bytes, when: datetime) -> None:
        content = self._directory(parent)
        found = _named(content, name)
        if found is not None and found.directory:
            raise FatError(f"{name} is a folder, and was to be a file")
        clusters = self._allocate(-(-len(data) // self._shape.cluster))
        for number, cluster in enumerate(clusters):
            part = data[number * self._shape.cluster :][: self._shape.cluster]
            self._write(self._where(cluster), part.ljust(self._shape.cluster, b"\0"))
        first = clusters[0] if clusters else 0
        what = _What(_ARCHIVE, first, len(data), when)
        if found is None:
            self._enter(parent, content, name, what)
            return
        entry = _short_entry(found.short, what)
        # How the short name is shown, in small letters, stands where we have nothing to say.
        entry = entry[:12] + content[found.at + 12 : found.at + 13] + entry[13:]
        content[found.at : found.at + _ENTRY] = entry
        self._store(parent, content)
        self._release(found.cluster)

    def _enter(self, parent: int, content: bytearray, name: str, what: _What) -> None:
        short = _short_name(name, {e.short for e in _entries(content)})
        new = [*_long_entries(name, short), _short_entry(short, what)]
        at, was_end = _room(content, len(new))
        end = at + len(new) * _ENTRY
        if end > len(content) and not parent and self._shape.root:
            raise FatError("the root folder has no room for another name")
        while end > len(content):
            content.extend(bytes(self._shape.cluster))
        content[at:end] = b"".join(new)
        if was_end and end < len(content):
            content[end] = _END  # what lies behind the end never counted
        self._store(parent, content)

    # Directories as bytes

    def _find(self, path: str) -> _Found | None:
        cluster = 0
        found: _Found | None = None
        for part in PurePosixPath(path).parts:
            if found is not None and not found.directory:
                return None
            found = _named(self._directory(cluster), part)
            if found is None:
                return None
            cluster = found.cluster
        return found

    def _directory(self, cluster: int) -> bytearray:
        """Of a folder's first cluster; 0 is the root."""
        if not cluster and self._shape.root:
            return bytearray(self._read(self._shape.root, self._shape.root_size))
        return bytearray(b"".join(self._clusters(cluster or self._shape.root_cluster)))

    def _store(self, cluster: int, content: bytearray) -> None:
        if not cluster and self._shape.root:
            self._write(self._shape.root, bytes(content))
            return
        chain = list(self._chain(cluster or self._shape.root_cluster))
        missing = len(content) // self._shape.cluster - len(chain)
        if missing:
            more = self._allocate(missing)
            self._set(chain[-1], more[0])
            chain += more
        for number, one in enumerate(chain):
            part = content[number * self._shape.cluster :][: self._shape.cluster]
            self._write(self._where(one), bytes(part))

    # Clusters

    def _clusters(self, first: int) -> Iterator[bytes]:
        for cluster in self._chain(first):
            yield self._read(self._where(cluster), self._shape.cluster)

    def _chain(self, cluster: int) -> Iterator[int]:
        for _ in range(self._shape.clusters):
            if not 2 <= cluster < self._shape.clusters + 2:
                return
            yield cluster
            cluster = self._entry(cluster)
        raise FatError("the file system is damaged: a chain of clusters does not end")

    def _allocate(self, count: int) -> list[int]:
        """A chain of free clusters, ended."""
        found: list[int] = []
        end = self._shape.clusters + 2
        for cluster in itertools.chain(range(self._next, end), range(2, self._next)):
            if len(found) == count:
                break
            if not self._entry(cluster):
                found.append(cluster)
        if len(found) < count:
            raise FatError("the partition is full")
        for one, following in itertools.pairwise([*found, -1]):
            self._set(one, following)
        if found:
            self._next = min(found[-1] + 1, self._shape.clusters + 1)
        return found

    def _release(self, cluster: int) -> None:
        for one in list(self._chain(cluster)):
            self._set(one, 0)

    def _entry(self, cluster: int) -> int:
        match self._shape.bits:
            case 12:
                (pair,) = struct.unpack_from("<H", self._table, cluster * 3 // 2)
                return int(pair >> 4 if cluster % 2 else pair & 0xFFF)
            case 16:
                return int(struct.unpack_from("<H", self._table, cluster * 2)[0])
            case _:
                return int(struct.unpack_from("<I", self._table, cluster * 4)[0]) & 0x0FFFFFFF

    def _set(self, cluster: int, value: int) -> None:
        """-1 ends a chain."""
        match self._shape.bits:
            case 12:
                (pair,) = struct.unpack_from("<H", self._table, cluster * 3 // 2)
                value &= 0xFFF
                pair = pair & 0x000F | value << 4 if cluster % 2 else pair & 0xF000 | value
                struct.pack_into("<H", self._table, cluster * 3 // 2, pair)
            case 16:
                struct.pack_into("<H", self._table, cluster * 2, value & 0xFFFF)
            case _:
                (before,) = struct.unpack_from("<I", self._table, cluster * 4)
                kept = before & 0xF0000000 | value & 0x0FFFFFFF
                struct.pack_into("<I", self._table, cluster * 4, kept)

    def _where(self, cluster: int) -> int:
        return self._shape.data + (cluster - 2) * self._shape.cluster

    def _read(self, offset: int, length: int) -> bytes:
        data = os.pread(self._descriptor, length, self._start + offset)
        if len(data) != length:
            raise FatError("the file system is cut off")
        return data

    def _write(self, offset: int, data: bytes) -> None:
        while data:
            written = os.pwrite(self._descriptor, data, self._start + offset)
            data, offset = data[written:], offset + written


def _shape(boot: bytes, size: int) -> _Shape:
    sector, per_cluster, reserved, tables, root_entries, small = struct.unpack_from(
        "<HBHBHH", boot, 11
    )
    (table,) = struct.unpack_from("<H", boot, 22)
    (total,) = struct.unpack_from("<I", boot, 32)
    if boot[510:512] != _SIGNATURE or sector not in {512, 1024, 2048, 4096} or not per_cluster:
        raise FatError("there is no FAT file system")
    is_large = table == 0
    if is_large:
        (table,) = struct.unpack_from("<I", boot, 36)
    root_sectors = -(-root_entries * _ENTRY // sector)
    data = reserved + tables * table + root_sectors
    sectors = small or total
    clusters = (sectors - data) // per_cluster
    if sectors * sector > size or clusters < 1 or not tables or not reserved:
        raise FatError("there is no FAT file system that fits its partition")
    bits = 12 if clusters < 4085 else 16 if clusters < 65525 else 32
    if (bits == 32) != is_large:
        raise FatError("the FAT file system contradicts itself")
    info = struct.unpack_from("<H", boot, 48)[0] if is_large else 0
    return _Shape(
        sector=sector,
        cluster=per_cluster * sector,
        table=reserved * sector,
        table_size=table * sector,
        tables=tables,
        root=0 if is_large else (reserved + tables * table) * sector,
        root_size=root_sectors * sector,
        root_cluster=struct.unpack_from("<I", boot, 44)[0] if is_large else 0,
        data=data * sector,
        clusters=clusters,
        bits=bits,
        info=info * sector if 0 < info < reserved else 0,
    )


# Names in a directory


def _entries(content: bytearray) -> Iterator[_Found]:
    long: dict[int, bytes] = {}
    first = 0
    for at in range(0, len(content), _ENTRY):
        entry = bytes(content[at : at + _ENTRY])
        if entry[0] == _END:
            return
        if entry[0] == _FREE:
            long = {}
        elif entry[11] & 0x3F == _LONG:
            if entry[0] & _LAST_LONG:
                long, first = {}, at
            long[entry[0] & 0x1F] = entry
        else:
            name = _long_name(long, entry[:11])
            high, low, size = (
                *struct.unpack_from("<H", entry, 20),
                *struct.unpack_from("<HI", entry, 26),
            )
            yield _Found(
                name=name or _shown(entry),
                at=at,
                first=first if name else at,
                short=entry[:11],
                directory=bool(entry[11] & _DIRECTORY),
                cluster=high << 16 | low,
                size=size,
            )
            long = {}


def _real(entry: _Found) -> bool:
    return entry.name not in {".", "..", _LABEL}


def _named(content: bytearray, name: str) -> _Found | None:
    wanted = name.casefold()
    return next((e for e in _entries(content) if e.name.casefold() == wanted), None)


def _long_name(parts: dict[int, bytes], short: bytes) -> str:
    """ "" where there is none, or one that belongs to another entry."""
    if not parts or any(part[13] != _checksum(short) for part in parts.values()):
        return ""
    raw = b"".join(parts[n][1:11] + parts[n][14:26] + parts[n][28:32] for n in sorted(parts))
    return raw.decode("utf-16-le", "replace").partition("\0")[0]


def _shown(entry: bytes) -> str:
    if entry[11] & _VOLUME:
        return _LABEL
    base = entry[:8].decode("cp437").rstrip()
    ending = entry[8:11].decode("cp437").rstrip()
    base = base.lower() if entry[12] & 0x08 else base
    ending = ending.lower() if entry[12] & 0x10 else ending
    return f"{base}.{ending}" if ending else base


def _checksum(short: bytes) -> int:
    total = 0
    for byte in short:
        total = ((total & 1) << 7) + (total >> 1) + byte & 0xFF
    return total


def _short_name(name: str, taken: set[bytes]) -> bytes:
    """Of eight and three characters, and of nobody else here. Raises :class:`FatError`."""
    wrong = not name or len(name.encode("utf-16-le")) > 510 or name[-1] in ". "
    if wrong or any(c in _FORBIDDEN or not c.isprintable() for c in name):
        raise FatError(f"{name!r} is no name that a FAT file system can have")
    base, dot, ending = name.upper().rpartition(".")
    base, ending = (base, ending) if dot and base else (name.upper(), "")
    plain = bytes(_fitting(base), "ascii")[:8], bytes(_fitting(ending), "ascii")[:3]
    whole = plain[0].ljust(8) + plain[1].ljust(3)
    if f"{base}.{ending}".rstrip(".") == name == _whole(plain) and whole not in taken:
        return whole
    for number in range(1, 1_000_000):
        tail = f"~{number}".encode()
        short = (plain[0][: 8 - len(tail)] + tail).ljust(8) + plain[1].ljust(3)
        if short not in taken:
            return short
    raise FatError(f"there are too many names like {name}")


def _fitting(text: str) -> str:
    return "".join(c if c in _SHORT else "_" for c in text if c not in " .")


def _whole(plain: tuple[bytes, bytes]) -> str:
    base, ending = (part.decode() for part in plain)
    return f"{base}.{ending}" if ending else base


def _long_entries(name: str, short: bytes) -> list[bytes]:
    """In the order in which they lie, the last part first; none for a name that is short."""
    base, ending = short[:8].decode("ascii").rstrip(), short[8:].decode("ascii").rstrip()
    if name == (f"{base}.{ending}" if ending else base):
        return []
    raw = name.encode("utf-16-le")
    count = -(-len(raw) // (2 * _PER_LONG))
    if len(raw) % (2 * _PER_LONG):
        raw += b"\0\0"
    raw = raw.ljust(count * 2 * _PER_LONG, b"\xff")
    found = []
    for number in range(count, 0, -1):
        part = raw[(number - 1) * 2 * _PER_LONG : number * 2 * _PER_LONG]
        order = number | (_LAST_LONG if number == count else 0)
        head = struct.pack("<B10sBBB", order, part[:10], _LONG, 0, _checksum(short))
        found.append(head + part[10:22] + b"\0\0" + part[22:26])
    return found


def _short_entry(short: bytes, what: _What) -> bytes:
    when, cluster = what.when, what.cluster
    date = (max(when.year, 1980) - 1980) << 9 | when.month << 5 | when.day
    time = when.hour << 11 | when.minute << 5 | when.second // 2
    times = (0, time, date, date, cluster >> 16, time, date, cluster & 0xFFFF, what.size)
    return short + struct.pack("<BBBHHHHHHHI", what.attributes, 0, *times)


def _room(content: bytearray, count: int) -> tuple[int, bool]:
    """Where so many entries fit, and whether that is at the end, where bytes may be missing."""
    free = 0
    for at in range(0, len(content), _ENTRY):
        if content[at] == _END:
            return at - free * _ENTRY, True
        free = free + 1 if content[at] == _FREE else 0
        if free == count:
            return at - (count - 1) * _ENTRY, False
    return len(content) - free * _ENTRY, True
