"""
A folder as a squashfs: the same bytes from the same files, whoever makes it and when.

Owners and times of the folder do not count: all is root's and of one time, but for what a
table says. So nobody has to be root to make it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.toolbox import Toolbox

BLOCK = 256 * 1024  # bytes; larger is smaller on disk, and costs memory at each read


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """What is not root's, or has a mode that an unprivileged file cannot have."""

    place: str  # without a slash in front
    mode: int
    user: int = 0
    group: int = 0


def make(
    tree: Path, target: Path, toolbox: Toolbox, *, epoch: int, level: int, owned: Sequence[Owned]
) -> Path:
    """
    Write ``target`` whole or not at all. ``epoch``: every time in it, seconds since 1970.
    ``level``: of zstd, 1 to 22. Raises :class:`appliance.toolbox.ToolError`.
    """
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"/{o.place} m {o.mode:o} {o.user} {o.group}" for o in owned]
    pseudo = [word for line in lines for word in ("-p", line)]
    toolbox.run(
        [
            *("mksquashfs", "/mnt/tree", f"/mnt/out/{partial.name}", "-noappend", "-no-progress"),
            *("-comp", "zstd", "-Xcompression-level", str(level), "-b", str(BLOCK)),
            *("-all-root", "-no-xattrs", "-no-exports", "-root-mode", "0755", "-all-time"),
            *(str(epoch), "-mkfs-time", str(epoch), "-quiet", *pseudo),
        ],
        binds={"/mnt/tree": tree, "/mnt/out": target.parent},
    )
    partial.rename(target)
    return target
