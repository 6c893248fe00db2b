"""The disk that forgets what was not flushed, asked by a client of its protocol."""

import random
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.volatile import Command, Disk, Option, served

SECTOR = 512


class Client:
    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        assert self._file.read(18)[:16] == b"NBDMAGICIHAVEOPT"
        self._socket.sendall(struct.pack(">I", 3))
        self._socket.sendall(struct.pack(">8sII4sH", b"IHAVEOPT", Option.GO, 6, bytes(4), 0))
        kind = 0
        while kind != 1:
            _, _, kind, length = struct.unpack(">QIII", self._file.read(20))
            about = self._file.read(length)
            if kind == 3:
                self.size, self.flags = struct.unpack(">QH", about[2:])

    def ask(self, command: int, offset: int = 0, data: bytes = b"", length: int = 0) -> bytes:
        size = length or len(data)
        self._socket.sendall(struct.pack(">IHHQQI", 0x25609513, 0, command, 7, offset, size) + data)
        magic, error, handle = struct.unpack(">IIQ", self._file.read(16))
        assert (magic, error, handle) == (0x67446698, 0, 7)
        return self._file.read(size) if command == Command.READ else b""

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[Disk, Client, Path]]:
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    with served(path) as (made, at):
        client = Client(at)
        yield made, client, path
        client.close()


def test_what_is_written_is_read_and_not_on_the_disk_yet(disk: tuple[Disk, Client, Path]) -> None:
    _, client, path = disk
    client.ask(Command.WRITE, 1024, b"x" * 1024)
    assert client.size == 1 << 20
    assert client.ask(Command.READ, 512, length=2048) == bytes(512) + b"x" * 1024 + bytes(512)
    assert path.read_bytes() == bytes(1 << 20)


def test_a_flush_puts_all_of_it_on_the_disk(disk: tuple[Disk, Client, Path]) -> None:
    made, client, path = disk
    client.ask(Command.WRITE, 512, b"x" * 512)
    client.ask(Command.FLUSH)
    assert made.lose(random.Random(1)) == 0
    assert path.read_bytes()[512:1024] == b"x" * 512


def test_a_power_cut_loses_a_part_of_what_was_not_flushed(disk: tuple[Disk, Client, Path]) -> None:
    made, client, path = disk
    client.ask(Command.WRITE, 0, b"y" * SECTOR * 100)
    lost = made.lose(random.Random(3))
    found = [path.read_bytes()[at : at + SECTOR] for at in range(0, SECTOR * 100, SECTOR)]
    assert 0 < lost < 100
    assert found.count(bytes(SECTOR)) == lost
    assert found.count(b"y" * SECTOR) == 100 - lost


def test_zeroes_are_written_as_anything_else(disk: tuple[Disk, Client, Path]) -> None:
    _, client, path = disk
    client.ask(Command.WRITE, 0, b"z" * 1024)
    client.ask(Command.WRITE_ZEROES, 0, length=512)
    client.ask(Command.FLUSH)
    assert path.read_bytes()[:1024] == bytes(512) + b"z" * 512


def test_a_cache_that_is_full_writes_what_came_first(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(bytes(SECTOR * 8))
    made = Disk(path, room=4)
    for number in range(8):
        made.write(number * SECTOR, b"w" * SECTOR)
    made.close()
    assert path.read_bytes() == b"w" * SECTOR * 4 + bytes(SECTOR * 4)
