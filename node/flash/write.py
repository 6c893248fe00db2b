"""
Write an image to a disk or a file, and read it back.

The beginning, with the table of partitions, is written last: a card that was pulled out in
between boots nowhere and looks like nothing. What is read back comes from the medium, not from
memory. Unpacking and writing go on side by side.

Source: open(2) O_DIRECT, linux/fs.h (BLKZEROOUT, BLKFLSBUF, BLKRRPART).
"""

import contextlib
import errno
import fcntl
import hashlib
import mmap
import os
import queue
import struct
import threading
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path

from node.flash.base import BrokenError, RefusedError
from node.flash.source import Source

CHUNK = 4 << 20
_EDGE = 1 << 20  # bytes at either end where tables of partitions lie
_BLOCK = 4096
_ZERO_OUT, _FLUSH, _READ_TABLE = 0x127F, 0x1261, 0x125F
_BUFFERS = 3
_SYNC_EVERY = 64 << 20
Show = Callable[[int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    sha256: str
    marks: tuple[int, ...]  # a checksum of each chunk, to say where a card is bad


class Target:
    """A disk or a file, open to be written to. Use it in a ``with``."""

    def __init__(self, path: Path, *, block: bool, size: int) -> None:
        """``size``: bytes that a disk has. Raises :class:`RefusedError`."""
        self.path = path
        self.block = block
        self.size = size
        self._direct = block
        self._unsynced = 0
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_EXCL if block else os.O_CREAT)
        try:
            try:
                self.descriptor = os.open(path, flags | (os.O_DIRECT if block else 0), 0o644)
            except OSError as err:
                if err.errno != errno.EINVAL:
                    raise
                self._direct = False
                self.descriptor = os.open(path, flags, 0o644)
        except OSError as err:
            raise RefusedError(_why(path, err)) from err

    def begin(self, total: int) -> None:
        """What was there is gone from here on."""
        if not self.block:
            os.ftruncate(self.descriptor, 0)
            os.ftruncate(self.descriptor, total)
            return
        self.zero(0, min(_EDGE, self.size))
        end = max(self.size - _EDGE, 0) // _BLOCK * _BLOCK
        self.zero(end, self.size - end)
        os.fsync(self.descriptor)

    def write(self, offset: int, data: memoryview) -> None:
        if not any_but_zeros(data):
            self.zero(offset, len(data))
            return
        self._aligned(len(data))
        while data:
            count = os.pwritev(self.descriptor, [data], offset)
            data, offset = data[count:], offset + count
        self._unsynced += CHUNK
        if self._unsynced >= _SYNC_EVERY:
            os.fdatasync(self.descriptor)  # so that the bar tells the truth
            self._unsynced = 0

    def zero(self, offset: int, length: int) -> None:
        """A card keeps what it had where nothing is written: zeros are written as well."""
        if not self.block:
            return  # a hole of the new file
        try:
            fcntl.ioctl(self.descriptor, _ZERO_OUT, struct.pack("=QQ", offset, length))
        except OSError:
            self._aligned(length)
            zeros = _buffer(length)
            done = 0
            while done < length:
                done += os.pwritev(self.descriptor, [zeros[done:]], offset + done)

    def read(self, offset: int, buffer: memoryview) -> None:
        self._aligned(len(buffer))
        while buffer:
            count = os.preadv(self.descriptor, [buffer], offset)
            if not count:
                raise BrokenError(f"{self.path} ends before the image does")
            buffer, offset = buffer[count:], offset + count

    def settle(self) -> None:
        """All is on the medium, and nothing of it is remembered."""
        os.fsync(self.descriptor)
        if self.block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.descriptor, _FLUSH)
        os.posix_fadvise(self.descriptor, 0, 0, os.POSIX_FADV_DONTNEED)

    def announce(self) -> None:
        """Let the machine see the new partitions; where it cannot, it does when it is put in."""
        if self.block:
            with contextlib.suppress(OSError):
                fcntl.ioctl(self.descriptor, _READ_TABLE)

    def _aligned(self, length: int) -> None:
        """Past the page cache only whole blocks go; a last part goes through it."""
        if self._direct and length % _BLOCK:
            self.indirect()

    def indirect(self) -> None:
        """Through the page cache from here on, for reads and writes of any size."""
        self._direct = False
        flags = fcntl.fcntl(self.descriptor, fcntl.F_GETFL)
        fcntl.fcntl(self.descriptor, fcntl.F_SETFL, flags & ~os.O_DIRECT)

    def __enter__(self) -> "Target":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def _why(path: Path, err: OSError) -> str:
    if err.errno == errno.EBUSY:
        return f"{path} is in use by the system (mounted elsewhere, or part of a volume)"
    if err.errno in (errno.EACCES, errno.EPERM):
        return f"{path} may not be written to by you: try again as root (sudo)"
    if err.errno == errno.EROFS:
        return f"{path} is write-protected"
    return f"{path}: {err.strerror}"


def _buffer(length: int) -> memoryview:
    """At the beginning of a page, as reads and writes past the page cache ask for."""
    return memoryview(mmap.mmap(-1, length))


def any_but_zeros(data: memoryview) -> bool:
    raw = data.tobytes()
    return raw.count(0) != len(raw)


def write(source: Source, first: bytes, target: Target, total: int, *, show: Show) -> Written:
    """
    ``first``: what was read of the source already, a whole chunk or all that there is.

    Raises :class:`BrokenError`, after which the target is of no use.
    """
    digest = hashlib.sha256(first)
    marks = [zlib.crc32(first)]
    try:
        target.begin(total)
        offset = len(first)
        show(0)
        with contextlib.closing(_ahead(source)) as chunks:
            for chunk in chunks:
                if offset + len(chunk) > total:
                    raise BrokenError(f"{source.path} is longer than its own table says")
                digest.update(chunk)
                marks.append(zlib.crc32(chunk))
                target.write(offset, chunk)
                offset += len(chunk)
                show(offset)
        if offset != total:
            raise BrokenError(f"{source.path} ends too early: it was not downloaded whole")
        start = _buffer(len(first))
        start[:] = first
        target.write(0, start)
        target.settle()
    except RefusedError as err:
        raise BrokenError(str(err)) from err
    except OSError as err:
        raise BrokenError(f"{target.path} cannot be written to: {err.strerror}") from err
    return Written(sha256=digest.hexdigest(), marks=tuple(marks))


def _ahead(source: Source) -> Generator[memoryview, None, None]:
    """The rest of a source; while one chunk is used the next are unpacked in a thread."""
    free: queue.SimpleQueue[memoryview | None] = queue.SimpleQueue()
    full: queue.SimpleQueue[tuple[memoryview, int] | Exception] = queue.SimpleQueue()
    for _ in range(_BUFFERS):
        free.put(_buffer(CHUNK))

    def work() -> None:
        try:
            while (buffer := free.get()) is not None:
                count = source.fill(buffer)
                full.put((buffer, count))
                if count < len(buffer):
                    return
        except Exception as err:
            full.put(err)

    thread = threading.Thread(target=work, name="unpack")
    thread.start()
    try:
        while True:
            got = full.get()
            if isinstance(got, Exception):
                raise got
            buffer, count = got
            if count:
                yield buffer[:count]
            if count < len(buffer):
                return
            free.put(buffer)
    finally:
        free.put(None)
        thread.join()


def verify(target: Target, written: Written, total: int, *, show: Show) -> None:
    """Raises :class:`BrokenError`, which says where the medium gave something else back."""
    digest = hashlib.sha256()
    buffer = _buffer(CHUNK)
    try:
        for number, offset in enumerate(range(0, total, CHUNK)):
            part = buffer[: min(CHUNK, total - offset)]
            target.read(offset, part)
            if zlib.crc32(part) != written.marks[number]:
                raise BrokenError(
                    f"{target.path} gave back something else than was written, at "
                    f"{offset / 1e6:.0f} MB: the card is worn out or smaller than it says"
                )
            digest.update(part)
            show(min(offset + CHUNK, total))
    except OSError as err:
        raise BrokenError(f"{target.path} cannot be read back: {err.strerror}") from err
    if digest.hexdigest() != written.sha256:
        raise BrokenError(f"{target.path} gave back something else than was written")
