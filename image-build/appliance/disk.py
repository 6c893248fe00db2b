"""
A disk image from its parts: written to a sparse file, at their places, without loop devices.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from appliance import gpt as layouts
from node.appliance import gpt

CHUNK = 1 << 20


class DiskError(Exception):
    """A part is larger than its partition; the text says by how much."""


def write(path: Path, table: gpt.Table, parts: Mapping[str, Path]) -> None:
    """
    The image at ``path``, which is replaced; ``parts``: contents of partitions by label.

    What has no content is zero, and not stored. Raises :class:`DiskError`.
    """
    for name, content in parts.items():
        part = table.named(name)
        room = part.sectors * gpt.SECTOR if part else 0
        if content.stat().st_size > room:
            raise DiskError(f"{content.name} has {content.stat().st_size} bytes, {name} {room}")
    path.unlink(missing_ok=True)
    with path.open("wb") as file:
        file.truncate(table.sectors * gpt.SECTOR)
        file.write(layouts.mbr(table) + gpt.header(table, copy=False) + gpt.entries(table))
        file.seek((table.sectors - gpt.ARRAY - 1) * gpt.SECTOR)
        file.write(gpt.entries(table) + gpt.header(table, copy=True))
        for part in table.partitions:
            if part.name in parts:
                _copy(parts[part.name], file, part.first * gpt.SECTOR)


def _copy(source: Path, target: BinaryIO, offset: int) -> None:
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            if chunk.count(0) != len(chunk):
                target.seek(offset)
                target.write(chunk)
            offset += len(chunk)
