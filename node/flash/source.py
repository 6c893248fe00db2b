"""
An image as it comes: raw or compressed, told apart by its first bytes and read in one pass.
"""

import bz2
import gzip
import importlib
import lzma
import os
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

from node.appliance import gpt
from node.flash.base import Placed, RefusedError

CONFIG = "config"  # the partition's name
BOOT = ("boot-a", "root-a", "data")  # others by which an image is known to be ours
HEAD = gpt.FIRST * gpt.SECTOR  # bytes that hold the table of partitions
_MAGIC = (
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x1f\x8b", "gz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    (b"PK\x03\x04", "zip"),
)


class Source:
    """An image file that is read once, from its beginning. Use it in a ``with``."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`RefusedError` where it cannot be opened or read."""
        self.path = path
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._file: Any = path.open("rb")
        except OSError as err:
            raise RefusedError(f"{path}: {err.strerror}") from err
        try:
            self._stream = self._open(_kind(self._file))
        except BaseException:
            self._file.close()
            raise

    def _open(self, kind: str) -> Any:
        match kind:
            case "xz":
                return lzma.LZMAFile(self._file)
            case "gz":
                return gzip.GzipFile(fileobj=self._file)
            case "bz2":
                return bz2.BZ2File(self._file)
            case "zst":
                return self._zstd()
            case "zip":
                raise RefusedError(f"{self.path} is a zip file: unpack it first")
            case _:
                return self._file

    def _zstd(self) -> Any:
        """Python has it since 3.14; before, the program does."""
        try:
            return importlib.import_module("compression.zstd").ZstdFile(self._file)
        except ModuleNotFoundError:
            pass
        program = shutil.which("zstd")
        if program is None:
            raise RefusedError(f"{self.path} needs the program zstd: install it, or `unzstd` it")
        os.lseek(self._file.fileno(), 0, os.SEEK_SET)  # what was looked at is read again
        self._process = subprocess.Popen(
            [program, "-q", "-d", "-c"], stdin=self._file, stdout=subprocess.PIPE
        )
        return self._process.stdout

    def fill(self, buffer: memoryview) -> int:
        """Bytes read; fewer than fit only at the end. Raises :class:`RefusedError`."""
        filled = 0
        try:
            while filled < len(buffer):
                count = self._stream.readinto(buffer[filled:])
                if not count:
                    break
                filled += count
        except (EOFError, lzma.LZMAError, zlib.error, OSError) as err:
            raise RefusedError(
                f"{self.path} is damaged or was not downloaded whole: {err}"
            ) from err
        if filled < len(buffer) and self._process is not None and self._process.wait():
            raise RefusedError(f"{self.path} is damaged or was not downloaded whole")
        return filled

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdout:
                self._process.stdout.close()
        else:
            self._stream.close()
        self._file.close()

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(file: Any) -> str:
    start = file.read(8)
    file.seek(0)
    return next((kind for magic, kind in _MAGIC if start.startswith(magic)), "")


def table(head: bytes, path: Path) -> gpt.Table:
    """Of the image's first bytes. Raises :class:`RefusedError` where it is none of ours."""
    try:
        if len(head) < HEAD:
            raise gpt.TableError("it is too short")
        found = gpt.parse(head[gpt.SECTOR : 2 * gpt.SECTOR], head[2 * gpt.SECTOR :])
    except gpt.TableError as err:
        raise RefusedError(f"{path} is no disk image: {err}") from err
    if found.named(CONFIG) is None or not all(found.named(name) for name in BOOT):
        raise RefusedError(f"{path} is no image of Pinnace: it lacks the partitions of one")
    return found


def size(found: gpt.Table) -> int:
    """Bytes of the whole image, which its own table tells before it is unpacked."""
    return found.sectors * gpt.SECTOR


def placed(found: gpt.Table) -> Placed:
    part = found.named(CONFIG)
    assert part is not None  # table() has seen it
    return Placed(start=part.first * gpt.SECTOR, size=part.sectors * gpt.SECTOR)
