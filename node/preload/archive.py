"""
Reads an archive of images member by member, and never holds more of it than a piece.

A plain tar is a file with holes to jump over. A compressed one is the output of the program
that unpacks it, which works beside us, on another core where there is one.
"""

import contextlib
import posixpath
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

PIECE = 1 << 20  # bytes; larger messages are not faster, and containerd holds a whole one
_PROGRAMS = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x04\x22\x4d\x18", "lz4"),
)


class BadArchive(Exception):
    """This is no archive of images for this machine; the text is one line, and says why."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file of the archive, or, where ``target`` is given, another name for one."""

    name: str  # without "./" in front
    size: int
    target: str = ""


class Archive:
    """``jumps``: what is not read costs nothing, so that it may be gone through twice."""

    def __init__(self, path: Path) -> None:
        """Raises ``OSError``."""
        self._path = path
        with path.open("rb") as file:
            self._program = compression(file.read(6))
        self.jumps = not self._program

    def members(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """
        Each with its contents in pieces, which may be read until the next one is asked for.

        Raises :class:`BadArchive` where the archive is damaged or ends too early, at the latest
        after the last member, and ``OSError``.
        """
        with contextlib.ExitStack() as stack:
            if self._program:
                file = stack.enter_context(_unpacked(self._program, self._path))
            else:
                file = stack.enter_context(self._path.open("rb"))
            try:
                tar = stack.enter_context(_tar(file, jumps=self.jumps))
                while (info := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                    if info.isfile():
                        yield Member(clean(info.name), info.size), _contents(tar, info)
                    elif info.issym() or info.islnk():
                        yield Member(clean(info.name), 0, _target(info)), iter(())
            except (tarfile.TarError, EOFError) as err:
                raise BadArchive(f"damaged or cut off: {err}") from err


def compression(start: bytes) -> str:
    """The program that unpacks what begins so; "": not compressed."""
    return next((program for magic, program in _PROGRAMS if start.startswith(magic)), "")


def clean(name: str) -> str:
    """``./a//b`` → ``a/b``."""
    return posixpath.normpath(name)


def _target(info: tarfile.TarInfo) -> str:
    """A hard link names its target from the top, a symbolic one from where it lies."""
    if info.islnk():
        return clean(info.linkname)
    return clean(posixpath.join(posixpath.dirname(clean(info.name)), info.linkname))


def _tar(file: IO[bytes], *, jumps: bool) -> tarfile.TarFile:
    if jumps:
        return tarfile.open(fileobj=file, mode="r:")
    return tarfile.open(fileobj=file, mode="r|", bufsize=PIECE)


def _contents(tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    try:
        file = tar.extractfile(info)
        while file is not None and (piece := file.read(PIECE)):
            yield piece
    except (tarfile.TarError, EOFError) as err:
        raise BadArchive(f"damaged or cut off: {info.name}: {err}") from err


@contextlib.contextmanager
def _unpacked(program: str, path: Path) -> Iterator[IO[bytes]]:
    """What the program makes of the file, read to its end; else :class:`BadArchive`."""
    try:
        process = subprocess.Popen(
            [program, "-dc", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError as err:
        raise BadArchive(f"{program} is not installed") from err
    with process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            yield process.stdout
            while process.stdout.read(PIECE):  # the checksum is at the end
                pass
        except BadArchive:
            _complain(program, process)
            raise
        except BaseException:
            process.kill()
            raise
        _complain(program, process)


def _complain(program: str, process: subprocess.Popen[bytes]) -> None:
    """Raise what the program has to say, where it failed by itself."""
    assert process.stderr is not None
    assert process.stdout is not None
    process.stdout.close()
    text = process.stderr.read().decode(errors="replace").strip()
    code = process.wait()
    if code and code != -signal.SIGPIPE:
        raise BadArchive(text.splitlines()[-1] if text else f"{program} failed ({code})")
