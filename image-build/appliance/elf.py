"""
Programs and libraries without what only a debugger reads, of whatever architecture.

The loader needs nothing beyond the segments that it maps; the names and places of sections,
symbols for debuggers and their data lie behind those, and are cut off. Wheels come with them.
Source: the ELF specification (System V ABI, chapter 4 and 5), 64 bits, lowest byte first.
"""

import struct
from pathlib import Path

_MAGIC = b"\x7fELF\x02\x01"
_HEADER = 64  # bytes
_LOAD = 1  # a segment that is mapped


def strip_all(folder: Path) -> int:
    """Every shared library below a folder; how many bytes that saved."""
    return sum(strip(path) for path in sorted(folder.rglob("*.so*")) if not path.is_symlink())


def strip(path: Path) -> int:
    """One file; how many bytes shorter it is. What is no ELF of 64 bits stays as it is."""
    data = path.read_bytes()
    end = _end(data)
    if end is None or end >= len(data):
        return 0
    kept = bytearray(data[:end])
    struct.pack_into("<Q", kept, 40, 0)  # where sections are described
    struct.pack_into("<HH", kept, 60, 0, 0)  # how many there are, and which one has the names
    path.write_bytes(kept)
    return len(data) - end


def _end(data: bytes) -> int | None:
    """Of what the loader looks at; None for another format."""
    if len(data) < _HEADER or not data.startswith(_MAGIC):
        return None
    table: int = struct.unpack_from("<Q", data, 32)[0]
    size, count = struct.unpack_from("<HH", data, 54)
    ends: list[int] = [_HEADER, table + size * count]
    for at in range(table, table + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        # Notes and the like lie within a mapped segment, or nobody reads them.
        ends += [offset + length] if kind == _LOAD else []
    return max(ends)
