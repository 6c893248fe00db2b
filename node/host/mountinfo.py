"""
What is mounted where, as the kernel tells it.

Source: proc_pid_mountinfo(5).
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_OWN = Path("/proc/self/mountinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """One mount; ``source`` as it was given to mount(2)."""

    device: tuple[int, int]  # major and minor of the file system
    point: Path
    kind: str  # ext4, tmpfs, …
    source: str
    read_only: bool  # this mount, or the whole file system


def mounts(table: Path = _OWN) -> Iterator[Mounted]:
    """Every mount of this namespace, in the order they were made. Blocks, but on no disk."""
    for line in table.read_bytes().splitlines():
        yield _mounted(line)


def at(point: Path, table: Path = _OWN) -> Mounted | None:
    """What a path shows: the last that was mounted there; None: a plain folder."""
    found = None
    for mounted in mounts(table):
        if mounted.point == point:
            found = mounted
    return found


def _mounted(line: bytes) -> Mounted:
    own, _, rest = line.partition(b" - ")
    fields, (kind, source, options) = own.split(b" "), rest.split(b" ")[:3]
    major, _, minor = fields[2].partition(b":")
    return Mounted(
        device=(int(major), int(minor)),
        point=Path(_text(fields[4])),
        kind=_text(kind),
        source=_text(source),
        read_only=b"ro" in fields[5].split(b",") or b"ro" in options.split(b","),
    )


def _text(field: bytes) -> str:
    """Spaces and the like are written as octal numbers."""
    return os.fsdecode(
        field.decode("unicode_escape").encode("latin-1") if b"\\" in field else field
    )
