"""
Changes of files as the kernel tells them: inotify, since the standard library has none.

Only what a folder of manifests needs: a set of watched folders and one flag that says
something in them may be different. Source: inotify(7).
"""

import asyncio
import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CLOSE_WRITE, _MOVED_FROM, _MOVED_TO = 0x8, 0x40, 0x80
_CREATE, _DELETE, _DELETE_SELF = 0x100, 0x200, 0x400
_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_ONLYDIR = 0x01000000
_MASK = _CLOSE_WRITE | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE | _DELETE_SELF | _ONLYDIR
_HEADER = struct.Struct("iIII")
_READ = 64 << 10

_libc = ctypes.CDLL(None, use_errno=True)


class Folders:
    """
    Watches folders on the running event loop; :meth:`changed` waits for the next change.

    Its mutable state is the kernel's descriptor, what it calls each folder, and the flag.
    """

    def __init__(self) -> None:
        self._file = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._file < 0:
            raise _error("inotify_init1")
        self._watched: dict[int, Path] = {}
        self._dirty = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._file, self._read)

    def watch(self, folders: Iterable[Path]) -> None:
        """Exactly these folders from now on; one that is not there is left out."""
        wanted = set(folders)
        for number, path in list(self._watched.items()):
            if path not in wanted:
                _libc.inotify_rm_watch(self._file, number)
                del self._watched[number]
        for path in wanted - set(self._watched.values()):
            number = _libc.inotify_add_watch(self._file, os.fsencode(path), _MASK)
            if number >= 0:
                self._watched[number] = path

    async def changed(self) -> None:
        """Return once something has changed since the last call of :meth:`clear`."""
        await self._dirty.wait()

    def poke(self) -> None:
        """Wake whoever waits as if something had changed."""
        self._dirty.set()

    def clear(self) -> None:
        self._dirty.clear()

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._file)
        os.close(self._file)

    def _read(self) -> None:
        try:
            data = os.read(self._file, _READ)
        except BlockingIOError:
            return
        at = 0
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            name = data[at + _HEADER.size : at + _HEADER.size + length].rstrip(b"\0")
            at += _HEADER.size + length
            if mask & _IGNORED:
                self._watched.pop(number, None)
            if self._matters(number, mask, os.fsdecode(name)):
                self._dirty.set()

    def _matters(self, number: int, mask: int, name: str) -> bool:
        if mask & _OVERFLOW:
            return True
        if mask & _CREATE and not mask & _ISDIR:
            # A new file is empty still and closed later; a link is never closed.
            folder = self._watched.get(number)
            return folder is not None and (folder / name).is_symlink()
        return not mask & _IGNORED


def _error(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")
