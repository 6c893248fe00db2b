"""What is mounted where, and from which image, as the kernel tells it. Blocks, on no disk."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LOOP = 7  # the major number of loop devices
_TABLE = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    point: Path
    major: int
    minor: int
    kind: str  # ext4, xfs, …
    options: frozenset[str]  # of the mount and of its file system

    @property
    def device(self) -> str:
        """Of a loop device."""
        return f"/dev/loop{self.minor}"


def parse(table: str) -> list[Mount]:
    """In the order in which they were made. Source: proc_pid_mountinfo(5)."""
    found = []
    for line in table.splitlines():
        own, _, rest = line.partition(" - ")
        fields, (kind, _source, options) = own.split(" "), rest.split(" ")[:3]
        major, _, minor = fields[2].partition(":")
        found.append(
            Mount(
                point=Path(_OCTAL.sub(lambda m: chr(int(m[1], 8)), fields[4])),
                major=int(major),
                minor=int(minor),
                kind=kind,
                options=frozenset(fields[5].split(",")) | frozenset(options.split(",")),
            )
        )
    return found


def all_mounts() -> list[Mount]:
    return parse(_TABLE.read_text(errors="surrogateescape"))


def at(point: Path) -> Mount | None:
    """What is seen there: the last that was mounted; None: a plain folder."""
    real = Path(os.path.realpath(point))
    return next((m for m in reversed(all_mounts()) if m.point == real), None)


def holding(path: Path) -> Mount:
    """The mount that a path lies in, whether the path exists or not."""
    real = Path(os.path.realpath(path))
    covering = [m for m in all_mounts() if real.is_relative_to(m.point)]
    longest = max(len(m.point.parts) for m in covering)
    return [m for m in covering if len(m.point.parts) == longest][-1]


def loops(image: Path) -> Iterator[int]:
    """The numbers of the loop devices that show an image."""
    wanted = os.path.realpath(image)
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            shown = backing.read_text().rstrip("\n").removesuffix(" (deleted)")
        except OSError:  # taken apart meanwhile
            continue
        if shown == wanted:
            yield int(backing.parent.parent.name.removeprefix("loop"))


def of_image(image: Path) -> list[Mount]:
    """Where an image is mounted, the last one first."""
    numbers = set(loops(image))
    return [m for m in reversed(all_mounts()) if m.major == LOOP and m.minor in numbers]
