"""
A disk with a cache of its own, which a power cut empties: what was not flushed is gone, in part.

QEMU reaches it by NBD on a socket. Writes are kept here until the guest flushes; at a power cut
each sector that was not flushed is on the disk or is not, by chance, whatever was written first:
so do cards and disks. A sector is never torn. This finds a missing fsync that killing QEMU
alone does not.
Source: the NBD protocol, doc/proto.md of the NetworkBlockDevice project.
"""

import contextlib
import enum
import os
import random
import shutil
import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.vm.machine import Machine

SECTOR = 512
_ROOM = 128 << 10  # sectors of the cache; a full one writes what came first
_MAGIC, _OPTION = b"NBDMAGIC", b"IHAVEOPT"
_REPLY = 0x3E889045565A9
_REQUEST, _SIMPLE = 0x25609513, 0x67446698
_FLAGS = 1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6  # has flags, flush, FUA, trim, write zeroes
_ACK, _EXPORT, _UNSUPPORTED = 1, 3, 0x80000001
_FUA = 1
_INVALID = 22  # EINVAL


class Option(enum.IntEnum):
    EXPORT_NAME = 1  # the old way to begin
    ABORT = 2
    INFO = 6
    GO = 7


class Command(enum.IntEnum):
    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6


class Disk:
    """The contents: a file, and what has not reached it."""

    def __init__(self, path: Path, room: int = _ROOM) -> None:
        self._room = room
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self.size = os.fstat(self._file).st_size
        self._cache: dict[int, bytes] = {}
        self._lock = threading.Lock()

    def read(self, offset: int, length: int) -> bytes:
        with self._lock:
            data = bytearray(os.pread(self._file, length, offset))
            first = offset // SECTOR
            sectors = range(first, first + length // SECTOR)
            for sector in self._cache.keys() & sectors:
                at = (sector - first) * SECTOR
                data[at : at + SECTOR] = self._cache[sector]
        return bytes(data)

    def write(self, offset: int, data: bytes, *, through: bool = False) -> None:
        first = offset // SECTOR
        with self._lock:
            for number in range(len(data) // SECTOR):
                # What is written again is the newest: it is lost first.
                self._cache.pop(first + number, None)
                if not through:
                    at = number * SECTOR
                    self._cache[first + number] = data[at : at + SECTOR]
            if through:
                os.pwrite(self._file, data, offset)
            while len(self._cache) > self._room:
                sector = next(iter(self._cache))
                os.pwrite(self._file, self._cache.pop(sector), sector * SECTOR)

    def flush(self) -> None:
        with self._lock:
            self._put(self._cache)
            self._cache.clear()

    def lose(self, chance: random.Random) -> int:
        """The power is cut; how many sectors are lost."""
        with self._lock:
            share = chance.random()
            kept = {s: d for s, d in self._cache.items() if chance.random() < share}
            lost = len(self._cache) - len(kept)
            self._put(kept)
            self._cache.clear()
        return lost

    def _put(self, sectors: dict[int, bytes]) -> None:
        for sector, data in sectors.items():
            os.pwrite(self._file, data, sector * SECTOR)

    def close(self) -> None:
        os.close(self._file)


class Server:
    """Serves one disk to whoever connects to a socket, one after the other."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(4)
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=10)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(EOFError, OSError):
                stream = _Stream(connection)
                if self._negotiate(stream):
                    self._serve(stream)

    def _negotiate(self, stream: "_Stream") -> bool:
        """Until the client has chosen the one export that there is."""
        stream.send(_MAGIC + _OPTION + struct.pack(">H", 3))  # fixed newstyle, no zeroes
        stream.take(4)
        about = struct.pack(">QH", self._disk.size, _FLAGS)
        while True:
            magic, option, length = struct.unpack(">8sII", stream.take(16))
            stream.take(length)
            if magic != _OPTION:
                return False
            match option:
                case Option.EXPORT_NAME:
                    stream.send(about)
                    return True
                case Option.INFO | Option.GO:
                    stream.answer(option, _EXPORT, struct.pack(">H", 0) + about)
                    stream.answer(option, _ACK)
                    if option == Option.GO:
                        return True
                case Option.ABORT:
                    stream.answer(option, _ACK)
                    return False
                case _:
                    stream.answer(option, _UNSUPPORTED)

    def _serve(self, stream: "_Stream") -> None:
        while True:
            fields = struct.unpack(">IHHQQI", stream.take(28))
            magic, flags, kind, handle, offset, length = fields
            if magic != _REQUEST or kind == Command.DISCONNECT:
                return
            content = stream.take(length) if kind == Command.WRITE else b""
            answer, error = b"", 0
            match kind:
                case Command.READ:
                    answer = self._disk.read(offset, length)
                case Command.WRITE:
                    self._disk.write(offset, content, through=bool(flags & _FUA))
                case Command.FLUSH:
                    self._disk.flush()
                case Command.TRIM:
                    pass  # a disk may keep what is not wanted any longer
                case Command.WRITE_ZEROES:
                    self._disk.write(offset, bytes(length), through=bool(flags & _FUA))
                case _:
                    error = _INVALID
            stream.send(struct.pack(">IIQ", _SIMPLE, error, handle) + answer)


class _Stream:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def take(self, length: int) -> bytes:
        data = self._file.read(length)
        if len(data) < length:
            raise EOFError
        return data

    def send(self, data: bytes) -> None:
        self._connection.sendall(data)

    def answer(self, option: int, kind: int, data: bytes = b"") -> None:
        self.send(struct.pack(">QIII", _REPLY, option, kind, len(data)) + data)


@contextlib.contextmanager
def served(path: Path) -> Iterator[tuple[Disk, Path]]:
    """A disk and the socket that it is reached at."""
    folder = Path(tempfile.mkdtemp(prefix="nbd-"))
    disk = Disk(path)
    server = Server(disk, folder / "socket")
    try:
        yield disk, folder / "socket"
    finally:
        server.close()
        disk.close()
        shutil.rmtree(folder)


@dataclass(kw_only=True)
class VolatileMachine(Machine):
    """A machine whose power cuts are those of a real disk; ``chance`` says what is lost."""

    chance: random.Random
    _served: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, init=False)
    _disk: Disk | None = field(default=None, init=False)
    _socket: Path = field(default=Path(), init=False)

    def start(self, *options: str) -> None:
        if self._disk is None:
            self._disk, self._socket = self._served.enter_context(served(self.disk))
        super().start(*options)

    def drive(self) -> str:
        return f"file=nbd+unix:///?socket={self._socket},format=raw,cache=none"

    def power_cut(self) -> None:
        super().power_cut()
        if self._disk is not None:
            self._disk.lose(self.chance)
            self._disk = None
            self._served.close()
