"""
Mount and unmount, by the C library's own calls: no program is started.

Source: mount(2), umount(2), proc_pid_mountinfo(5).
"""

import ctypes
import errno
import os
from pathlib import Path

READ_ONLY, NO_SUID, NO_DEVICES, NO_EXECUTE, NO_ATIME = 0x1, 0x2, 0x4, 0x8, 0x400
_REMOUNT, _BIND, _RECURSIVE = 0x20, 0x1000, 0x4000
_PROPAGATION = {"private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20}
_DETACH, _NO_FOLLOW = 2, 8
_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str | Path, kind: str, *, flags: int = 0, options: str = "") -> None:
    """``kind``: the file system; "" where the flags say what to do. ``OSError`` as mount(2)."""
    result = _libc.mount(
        source.encode(),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    if result != 0:
        _raise(target)


def bind(source: Path, target: Path, *, read_only: bool = False, recursive: bool = False) -> None:
    """Make a file or folder appear at another place, which must exist and be of the same sort."""
    flags = _BIND | (_RECURSIVE if recursive else 0)
    mount(str(source), target, "", flags=flags)
    if read_only:
        # The kernel ignores the flag at the bind itself.
        try:
            mount("", target, "", flags=_REMOUNT | _BIND | READ_ONLY)
        except OSError:
            unmount(target)
            raise


def remount(target: Path, *, flags: int) -> None:
    """With these flags in place of those it has. ``OSError`` as mount(2)."""
    mount("", target, "", flags=_REMOUNT | flags)


def tmpfs(target: Path, *, size: int = 0, mode: int = 0o755) -> None:
    """A file system in memory; ``size`` in bytes, 0: half of the machine's memory."""
    options = f"mode={mode:o}" + (f",size={size}" if size else "")
    mount("tmpfs", target, "tmpfs", flags=NO_SUID | NO_DEVICES, options=options)


def set_propagation(target: Path, how: str) -> None:
    """``how``: private, slave or shared; of the mount and those below it."""
    mount("", target, "", flags=_PROPAGATION[how] | _RECURSIVE)


def unmount(target: Path, *, detach: bool = False) -> bool:
    """
    False: nothing was mounted there. ``OSError`` (EBUSY) while it is in use.

    ``detach``: out of sight at once, gone when the last user is.
    """
    flags = _NO_FOLLOW | (_DETACH if detach else 0)
    if _libc.umount2(os.fsencode(target), flags) == 0:
        return True
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOENT):
        return False
    return _raise(target)


def mounted_below(root: Path) -> list[Path]:
    """Mount points at or below a folder, the deepest first: the order to unmount them in."""
    found = []
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        # Spaces and the like are written as octal numbers.
        text = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        path = Path(os.fsdecode(text))
        if path == root or root in path.parents:
            found.append(path)
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def _raise(target: str | Path) -> bool:
    code = ctypes.get_errno()
    raise OSError(code, os.strerror(code), str(target))
