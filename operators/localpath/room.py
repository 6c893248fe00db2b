"""
How much a file system can still promise. Blocks.

A volume is promised its size when it is made and takes it later, if ever. What is left to promise
is the free space less what was promised and is not taken yet. Volumes without a limit promise
nothing: what they hold is gone from the free space, and no more is known of them.
"""

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from operators.localpath import notes, places
from operators.localpath.base import OWN_FOLDER


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    free: int  # bytes of the file system that users may take
    promised: int  # and not taken yet
    limited: tuple[str, ...] = ()  # folders whose promise is a project quota

    def left(self, overcommit: float = 1.0) -> int:
        """``overcommit``: how often the free space may be promised; inf: as often as you like."""
        if math.isinf(overcommit):
            return 2**60
        return max(0, int(self.free * overcommit) - self.promised)


def measure(base: Path, bases: Iterable[Path]) -> Room:
    """Of the file system of ``base``; ``bases`` are all that this node has."""
    existing = _existing(base)
    found = os.statvfs(existing)
    device = existing.stat().st_dev
    promised, limited = 0, []
    for other in {base, *bases}:
        if not other.is_dir() or other.stat().st_dev != device:
            continue
        promised += _images(other) + _begun(other)
        limited += [str(other / folder) for folder in _quotas(other)]
    return Room(
        free=found.f_bavail * found.f_frsize, promised=promised, limited=tuple(sorted(limited))
    )


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _images(base: Path) -> int:
    total = 0
    for path in (base / OWN_FOLDER / "images").glob("*"):
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        total += max(0, found.st_size - found.st_blocks * 512)
    return total


def _begun(base: Path) -> int:
    """Promised to volumes whose image is not there yet."""
    return sum(
        note.size
        for _, note in notes.every([base])
        if not places.image(base, note.folder).exists()
        and not places.quota_mark(base, note.folder).exists()
    )


def _quotas(base: Path) -> list[str]:
    return [path.read_text() for path in (base / OWN_FOLDER / "quotas").glob("*")]
