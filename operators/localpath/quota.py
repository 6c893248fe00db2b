"""
A limit on a folder by a project quota: a program of its own, run when a volume changes.

``set FOLDER BYTES NAME`` gives the folder, and all that will be in it, a project with this limit;
``clear FOLDER`` takes it back; ``promised FOLDER …`` prints how many bytes all their limits
together leave to be used; ``try FOLDER`` finds out whether a limit is kept.

No tool does this for ext4 and xfs alike without /etc/projects, a registry that others write
too. Here the number of a project stands where it counts, on the folder, and one is free when
the kernel knows neither limit nor use of it.

Blocks. Source: quotactl(2), linux/fs.h (fsxattr), linux/quota.h (if_dqblk).
"""

import ctypes
import errno
import fcntl
import os
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from zlib import crc32

GET_XATTR, SET_XATTR = 0x801C581F, 0x401C5820
INHERIT = 0x200  # FS_XFLAG_PROJINHERIT
FIRST, NUMBERS = 2**30, 2**29  # far from what people and the kubelet (2**20) count from
_XATTR = struct.Struct("=5I8s")
# Limits in units of 1 KiB, use in bytes; then inodes, times, and which of them are valid.
_QUOTA = struct.Struct("=8QI4x")
_UNIT, _LIMITS_VALID = 1024, 1
_PROJECT, _GET, _SET = 2, 0x800007, 0x800008
_QUOTACTL_FD = 443  # on every architecture; Linux 5.14
_NOBODY = 65534
_TRIED = 2**20  # bytes that are too many for the limit of a trial


def command(what: int) -> int:
    """QCMD of quotactl(2), for projects."""
    return (what << 8) | _PROJECT


def limit_bytes(size: int) -> bytes:
    """The struct that sets the limit, hard and soft; 0 takes it back."""
    blocks = -(-size // _UNIT)
    return _QUOTA.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _LIMITS_VALID)


def limit_and_use(answer: bytes) -> tuple[int, int]:
    """Both in bytes."""
    fields = _QUOTA.unpack(answer)
    return fields[0] * _UNIT, fields[2]


def numbers(name: str) -> Iterator[int]:
    """The projects to be tried for a volume, in order; another name begins elsewhere."""
    start = crc32(name.encode())
    return (FIRST + (start + step) % NUMBERS for step in range(NUMBERS))


def joined(attributes: bytes, number: int) -> bytes:
    """The attributes of a folder with its project; 0: with none."""
    fields = list(_XATTR.unpack(attributes))
    fields[0] = fields[0] | INHERIT if number else fields[0] & ~INHERIT
    fields[3] = number
    return _XATTR.pack(*fields)


def project(attributes: bytes) -> int:
    return int(_XATTR.unpack(attributes)[3])


def _attributes(folder: int) -> bytes:
    return fcntl.ioctl(folder, GET_XATTR, bytes(_XATTR.size))


def _join(folder: int, number: int) -> None:
    fcntl.ioctl(folder, SET_XATTR, joined(_attributes(folder), number))


def _call(folder: int, what: int, number: int, buffer: bytes) -> bytes:
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(buffer, len(buffer))
    if libc.syscall(_QUOTACTL_FD, folder, command(what), number, room):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return room.raw


def _known(folder: int, number: int) -> tuple[int, int]:
    try:
        return limit_and_use(_call(folder, _GET, number, bytes(_QUOTA.size)))
    except OSError as err:
        if err.errno == errno.ENOENT:  # xfs says so of a project that nobody used
            return 0, 0
        raise


def _set(folder: int, size: str, name: str) -> str:
    number = project(_attributes(folder))
    if not FIRST <= number < FIRST + NUMBERS:
        number = next(free for free in numbers(name) if _known(folder, free) == (0, 0))
    _call(folder, _SET, number, limit_bytes(int(size)))
    _join(folder, number)
    return str(number)


def _clear(folder: int) -> str:
    number = project(_attributes(folder))
    if FIRST <= number < FIRST + NUMBERS:
        _call(folder, _SET, number, limit_bytes(0))
        _join(folder, 0)
    return ""


def _promised(folders: Sequence[str]) -> str:
    total = 0
    for path in folders:
        try:
            with _opened(path) as folder:
                limit, used = _known(folder, project(_attributes(folder)))
        except FileNotFoundError:
            continue
        total += max(0, limit - used)
    return str(total)


def _try(folder: int) -> str:
    """In a file that has no name: nothing is left behind."""
    _set(folder, str(_TRIED // 4), "try")
    try:
        file = os.open(".", os.O_TMPFILE | os.O_WRONLY, 0o600, dir_fd=folder)
        user = os.geteuid()
        os.seteuid(_NOBODY)  # root may exceed limits on ext4
        try:
            if os.write(file, bytes(_TRIED)) < _TRIED:
                return ""
            os.fsync(file)
        except OSError as err:
            if err.errno == errno.EDQUOT or err.errno == errno.ENOSPC:
                return ""
            raise
        finally:
            os.seteuid(user)
            os.close(file)
    finally:
        _clear(folder)
    raise OSError(errno.EOPNOTSUPP, "limits are not kept")


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def main(arguments: Sequence[str]) -> int:
    """1 with the reason on standard error, where the file system has no project quotas."""
    commands: dict[str, Callable[..., str]] = {
        "set": _set,
        "clear": _clear,
        "try": _try,
    }
    try:
        if arguments[0] == "promised":
            sys.stdout.write(_promised(arguments[1:]))
            return 0
        with _opened(arguments[1]) as folder:
            sys.stdout.write(commands[arguments[0]](folder, *arguments[2:]))
    except OSError as err:
        sys.stderr.write(f"project quotas: {err.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
