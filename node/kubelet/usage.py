"""
How much of a disk is used: by a file system, by a folder. Blocks; asked only when somebody asks.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSystem:
    """Bytes and inodes; of a folder with a project quota ext4 gives the quota's numbers."""

    capacity: int
    available: int  # to others than root
    used: int
    inodes: int
    inodes_free: int

    @property
    def inodes_used(self) -> int:
        return self.inodes - self.inodes_free


@dataclass(frozen=True, slots=True)
class Tree:
    used: int  # bytes that are allocated, not those that files say they are long
    inodes: int

    def __add__(self, other: "Tree") -> "Tree":
        return Tree(self.used + other.used, self.inodes + other.inodes)


NOTHING = Tree(0, 0)


def of_file_system(path: Path) -> FileSystem:
    """``OSError`` where the path is not there."""
    found = os.statvfs(path)
    size = found.f_frsize
    return FileSystem(
        capacity=found.f_blocks * size,
        available=found.f_bavail * size,
        used=(found.f_blocks - found.f_bfree) * size,
        inodes=found.f_files,
        inodes_free=found.f_ffree,
    )


def of_tree(top: Path) -> Tree:
    """
    A folder and all below it on the same file system, hard links once.

    What vanishes meanwhile does not count, nor does a folder that is not there.
    """
    try:
        info = top.lstat()
    except OSError:
        return NOTHING
    used, seen, device = info.st_blocks * 512, {info.st_ino}, info.st_dev
    folders = [str(top)] if stat.S_ISDIR(info.st_mode) else []
    while folders:
        try:
            entries = list(os.scandir(folders.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                info = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if info.st_dev != device or info.st_ino in seen:
                continue
            seen.add(info.st_ino)
            used += info.st_blocks * 512
            if stat.S_ISDIR(info.st_mode):
                folders.append(entry.path)
    return Tree(used, len(seen))
