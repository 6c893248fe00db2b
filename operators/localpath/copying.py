"""
Copies a file system image as it is at one moment: a program of its own.

``copy IMAGE TARGET [MOUNT]``: the file system at MOUNT, that of the image, stands still while
that is needed. Where the disk can share blocks (xfs, btrfs), the copy is one instant. Elsewhere
everything is copied while pods go on writing, and only what has changed since is copied once
more while they wait. Holes stay holes. ``thaw MOUNT`` mends what one who was killed left.

Blocks. Source: ioctl_fsfreeze(2), ioctl_ficlone(2), lseek(2) (SEEK_DATA).
"""

import errno
import fcntl
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

FICLONE, FREEZE, THAW = 0x40049409, 0xC0045877, 0xC0045878
_CHUNK = 2**20
_CANNOT = frozenset({errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS})


@contextmanager
def frozen(mount: str) -> Iterator[None]:
    """Nothing is written below ``mount`` for the time of the block; "": it is not mounted."""
    if not mount:
        yield
        return
    folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.ioctl(folder, THAW, 0)  # left by one who was killed
        fcntl.ioctl(folder, FREEZE, 0)
        try:
            yield
        finally:
            fcntl.ioctl(folder, THAW, 0)
    finally:
        os.close(folder)


def thaw(mount: str) -> None:
    folder = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # it was not frozen
            fcntl.ioctl(folder, THAW, 0)
    finally:
        os.close(folder)


def copy(source: int, target: int, mount: str) -> None:
    if _clone(source, target, mount):
        return
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    for start, end in _data(source, size):
        _copy(source, target, start, end)
    if not mount:
        return
    os.fsync(target)
    with frozen(mount):
        # The loop device may write around the page cache: what is cached may be old.
        os.posix_fadvise(source, 0, 0, os.POSIX_FADV_DONTNEED)
        _copy_changes(source, target, size)


def _clone(source: int, target: int, mount: str) -> bool:
    try:
        with frozen(mount):
            fcntl.ioctl(target, FICLONE, source)
    except OSError as err:
        if err.errno in _CANNOT:
            return False
        raise
    return True


def _copy_changes(source: int, target: int, size: int) -> None:
    done = 0
    for start, end in _data(source, size):
        _clear(target, done, start)
        for place in range(start, end, _CHUNK):
            length = min(_CHUNK, end - place)
            now = os.pread(source, length, place)
            if now != os.pread(target, length, place):
                _write(target, now, place)
        done = end
    _clear(target, done, size)


def _clear(target: int, start: int, end: int) -> None:
    """What has become a hole since."""
    for first, last in _data(target, end, start):
        for place in range(first, last, _CHUNK):
            _write(target, bytes(min(_CHUNK, last - place)), place)


def _data(file: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """The stretches that are no holes."""
    place = start
    while place < size:
        try:
            begin = os.lseek(file, place, os.SEEK_DATA)
        except OSError as err:
            if err.errno == errno.ENXIO:
                return
            raise
        if begin >= size:
            return
        place = min(os.lseek(file, begin, os.SEEK_HOLE), size)
        yield begin, place


def _copy(source: int, target: int, start: int, end: int) -> None:
    place = start
    while place < end:
        data = os.pread(source, min(_CHUNK, end - place), place)
        if not data:
            return
        _write(target, data, place)
        place += len(data)


def _write(target: int, data: bytes, place: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(target, view, place)
        view, place = view[written:], place + written


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)  # thaws on its way out


def main(arguments: Sequence[str]) -> int:
    if arguments[0] == "thaw":
        thaw(arguments[1])
        return 0
    _, image, place, *mount = arguments
    signal.signal(signal.SIGTERM, _stop)
    try:
        source = os.open(image, os.O_RDONLY | os.O_NOFOLLOW)
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        target = os.open(place, flags, 0o600)
        copy(source, target, mount[0] if mount else "")
        os.fsync(target)
    except OSError as err:
        sys.stderr.write(f"cannot copy the image: {err.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
