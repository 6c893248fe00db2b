"""
inotify through libc: wait until something happens in a folder.

The descriptor is registered with the event loop, so that a thousand waiting readers
cost nothing. Source: inotify(7).
"""

import asyncio
import contextlib
import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

MODIFY, CLOSE_WRITE, MOVED_FROM, MOVED_TO = 0x2, 0x8, 0x40, 0x80
CREATE, DELETE = 0x100, 0x200
_NONBLOCK, _CLOEXEC = 0o4000, 0o2000000
_HEAD = struct.Struct("iIII")


@dataclass(frozen=True, slots=True)
class Happened:
    mask: int
    name: str


class Watch:
    """One inotify descriptor, used by one task. Raises OSError where the kernel refuses."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = self._check(self._libc.inotify_init1(_NONBLOCK | _CLOEXEC))

    def __enter__(self) -> "Watch":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._descriptor)

    @staticmethod
    def _check(result: int) -> int:
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def add(self, path: Path, mask: int) -> None:
        self._check(
            self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), ctypes.c_uint32(mask))
        )

    async def wait(self, seconds: float | None = None) -> list[Happened]:
        """What happened; [] when the time passed first."""
        if found := self._read():
            return found
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(self._descriptor, readable.set)
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(readable.wait(), seconds)
        finally:
            loop.remove_reader(self._descriptor)
        return self._read()

    def _read(self) -> list[Happened]:
        try:
            data = os.read(self._descriptor, 64 * 1024)
        except BlockingIOError:
            return []
        found, offset = [], 0
        while offset < len(data):
            _, mask, _, length = _HEAD.unpack_from(data, offset)
            offset += _HEAD.size
            name = data[offset : offset + length].rstrip(b"\0").decode(errors="replace")
            offset += length
            found.append(Happened(mask, name))
        return found
