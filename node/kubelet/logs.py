"""
Containers' logs as the runtime writes them: parse, select, follow, across rotations.

A line of a file is ``<RFC 3339 nano> <stdout|stderr> <P|F> <text>``; P says that the
line goes on in the next one. Following waits for inotify, never polls. Source: the CRI
logging format, KEP-2845 and the pods/log API.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controlplane.client.base import Object
from controlplane.objects import meta
from node.cri.base import ContainerConfig
from node.kubelet import inotify
from node.kubelet.base import Settings

_CHUNK = 64 * 1024


def link(pod: Object, settings: Settings, config: ContainerConfig, id_: str) -> None:
    """Make the name that log shippers look for, ``/var/log/containers/…-<id>.log``. Blocks."""
    meta_ = pod["metadata"]
    folder = settings.log_dir.parent / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    name = folder / f"{meta_['name']}_{meta_['namespace']}_{config.name}-{id_}.log"
    name.unlink(missing_ok=True)
    directory = f"{meta_['namespace']}_{meta_['name']}_{meta_['uid']}"
    name.symlink_to(settings.log_dir / directory / config.log_path)


def unlink(settings: Settings, id_: str) -> None:
    """Blocks."""
    for name in (settings.log_dir.parent / "containers").glob(f"*-{id_}.log"):
        name.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class Line:
    time: bytes
    stream: bytes  # stdout or stderr
    partial: bool
    text: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What of a log is asked for; ``stream`` is All, Stdout or Stderr."""

    follow: bool = False
    tail: int | None = None
    since: datetime | None = None
    timestamps: bool = False
    limit: int | None = None  # bytes
    stream: str = "All"


def parse(raw: bytes) -> Line | None:
    """None for what is not of this format, such as a line cut short by a power cut."""
    parts = raw.split(b" ", 3)
    if len(parts) < 4:
        return None
    time, stream, tags, text = parts
    return Line(time, stream, tags.split(b":")[0] == b"P", text)


def _passes(line: Line, wanted: Wanted) -> bool:
    if wanted.stream != "All" and line.stream.decode() != wanted.stream.lower():
        return False
    if wanted.since is None:
        return True
    return meta.parse_time(line.time.decode()) >= wanted.since


def _shown(line: Line, wanted: Wanted, *, fresh: bool) -> bytes:
    """``fresh``: a new line begins here; its continuation carries no time of its own."""
    text = line.text if line.partial else line.text + b"\n"
    return line.time + b" " + text if wanted.timestamps and fresh else text


def tail_offset(path: Path, lines: int, wanted: Wanted) -> int:
    """Where the last ``lines`` whole lines that pass the selection begin. Blocks."""
    with path.open("rb") as file:
        end = file.seek(0, 2)
        if lines == 0:
            return end
        position, rest, count = end, b"", 0
        while position > 0:
            size = min(_CHUNK, position)
            position -= size
            file.seek(position)
            block = file.read(size) + rest
            pieces = block.split(b"\n")
            rest = pieces[0]
            offset = position + len(block)
            for piece in reversed(pieces[1:]):
                offset -= len(piece) + 1
                if piece and _ends_line(piece, wanted):
                    count += 1
                    if count > lines:
                        return offset + len(piece) + 2
        if rest and _ends_line(rest, wanted) and count + 1 > lines:
            return len(rest) + 1
    return 0


def _ends_line(raw: bytes, wanted: Wanted) -> bool:
    line = parse(raw)
    if line is None or line.partial:
        return False
    return wanted.stream == "All" or line.stream.decode() == wanted.stream.lower()


def tail(path: Path, lines: int) -> str:
    """The text of the last lines, for a termination message. Blocks."""
    wanted = Wanted()
    try:
        with path.open("rb") as file:
            file.seek(tail_offset(path, lines, wanted))
            found = [line for raw in file if (line := parse(raw.rstrip(b"\n")))]
    except OSError:
        return ""
    return b"".join(_shown(line, wanted, fresh=True) for line in found).decode(errors="replace")


async def read(path: Path, wanted: Wanted, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    """
    The log as the API gives it, piece by piece; with ``follow`` until ``running`` says no.

    The runtime writes on to a new file of the same name after a rotation.
    """
    left = wanted.limit
    async for piece in _pieces(path, wanted, running):
        if left is None:
            yield piece
            continue
        yield piece[:left]
        left -= len(piece)
        if left <= 0:
            return


async def _pieces(path: Path, wanted: Wanted, running: Callable[[], bool]) -> AsyncIterator[bytes]:
    with inotify.Watch() as watch:
        if wanted.follow:
            watch.add(path.parent, inotify.CREATE | inotify.MODIFY | inotify.MOVED_TO)
        reader = _Reader(path, wanted)
        await asyncio.to_thread(reader.open)
        try:
            while True:
                alive = wanted.follow and running()
                while piece := await asyncio.to_thread(reader.read):
                    yield piece
                if not alive:
                    if not await asyncio.to_thread(reader.reopen):
                        return
                    continue
                if await asyncio.to_thread(reader.reopen):
                    continue
                await watch.wait(1.0)
        finally:
            reader.close()


class _Reader:
    """One open log file. Mutable: the file, what of a line was read, whether a line begins."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self._path = path
        self._wanted = wanted
        self._rest = b""
        self._fresh: dict[bytes, bool] = {}
        self._passing = wanted.since is None
        self._file = None if not path.exists() else path.open("rb")

    def open(self) -> None:
        if self._file is None and self._path.exists():
            self._file = self._path.open("rb")
        if self._file is not None and self._wanted.tail is not None:
            self._file.seek(tail_offset(self._path, self._wanted.tail, self._wanted))

    def reopen(self) -> bool:
        """After a rotation the name belongs to another file; was there one?"""
        try:
            now = self._path.stat()
        except OSError:
            return False
        if self._file is not None:
            own = os.fstat(self._file.fileno())
            if (own.st_dev, own.st_ino) == (now.st_dev, now.st_ino):
                return False
            self._file.close()
        self._file, self._rest = self._path.open("rb"), b""
        return True

    def read(self) -> bytes:
        """The next piece that passes; b"" at the end of what is there."""
        if self._file is None:
            return b""
        while block := self._file.read(_CHUNK):
            *whole, self._rest = (self._rest + block).split(b"\n")
            if piece := b"".join(self._take(raw) for raw in whole):
                return piece
        return b""

    def _take(self, raw: bytes) -> bytes:
        line = parse(raw)
        if line is None:
            return b""
        if self._wanted.since is not None and self._passing is False:
            self._passing = _passes(line, self._wanted)
            if not self._passing:
                return b""
        if self._wanted.stream != "All" and not _passes(line, self._wanted):
            return b""
        fresh = self._fresh.get(line.stream, True)
        self._fresh[line.stream] = not line.partial
        return _shown(line, self._wanted, fresh=fresh)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
