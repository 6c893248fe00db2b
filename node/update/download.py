"""
Fetch a bundle: resumed after any interruption, once on the disk, and checked on the way.

A file of this machine is used where it lies. What was fetched in part is kept with the address
and the ETag that it came from, and goes on from there, also after a power cut.
"""

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import aiohttp

from node.host.files import sync_directory, write_atomic
from node.update.base import InstallError, RefusedError

LOG = logging.getLogger(__name__)
SPARE_BYTES = 64 << 20  # to be left for the node
_PIECE = 256 << 10
_TRIES = 6  # in a row without a single byte
_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=30.0, sock_read=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    url: str
    sha256: str = ""  # hex; "": not said
    size: int = 0  # bytes; 0: not said


class _Again(Exception):
    """It broke off; what came so far is good."""


def local_path(url: str) -> Path | None:
    """Of a file of this machine; None: it is to be fetched. Raises :class:`RefusedError`."""
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.netloc:
        return None
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    if url.startswith("/"):
        return Path(url)
    raise RefusedError("NotABundle", f"{url!r} is no address: https://…, http://… or a path")


class Downloads:
    """At most one bundle, ``<folder>/bundle``, or ``bundle.part`` on its way there."""

    def __init__(self, folder: Path, *, pauses: tuple[float, ...] = _PAUSES) -> None:
        self._pauses = pauses
        self.whole = folder / "bundle"
        self._part = folder / "bundle.part"
        self._about = folder / "bundle.about.json"

    def drop(self) -> None:
        """Blocks on the disk."""
        for path in (self.whole, self._part, self._about):
            path.unlink(missing_ok=True)

    async def fetch(self, wanted: Wanted, progress: Callable[[int], None]) -> Path:
        """
        Where the bundle is. ``progress`` is told percents.

        Raises :class:`RefusedError` (Tampered, TooLarge, NotABundle) or :class:`InstallError`.
        """
        local = local_path(wanted.url)
        if local is not None:
            return await asyncio.to_thread(_checked_in_place, local, wanted)
        about = {"url": wanted.url, "sha256": wanted.sha256}
        known = await asyncio.to_thread(self._known)
        if {key: known.get(key, "") for key in about} != about:
            await asyncio.to_thread(self._begin, about)
        elif self.whole.exists():
            return self.whole
        found = ""
        for _ in range(2):  # what went on from an older part may be a mixture
            await self._download(wanted, progress)
            found = await asyncio.to_thread(_digest, self._part)
            if not wanted.sha256 or found == wanted.sha256:
                await asyncio.to_thread(self._finish)
                return self.whole
            await asyncio.to_thread(self._begin, about)
        raise RefusedError("Tampered", f"{wanted.url} has the SHA-256 {found}, not as announced")

    async def _download(self, wanted: Wanted, progress: Callable[[int], None]) -> None:
        failures = 0
        async with aiohttp.ClientSession(
            timeout=_TIMEOUT, trust_env=True, auto_decompress=False
        ) as session:
            while True:
                before = _size(self._part)
                try:
                    return await self._once(session, wanted, progress)
                except (aiohttp.ClientError, TimeoutError, OSError, _Again) as err:
                    failures = 1 if _size(self._part) > before else failures + 1
                    why = str(err) or type(err).__name__
                    if failures >= _TRIES:
                        raise InstallError(f"cannot fetch {wanted.url}: {why}") from err
                    LOG.info("fetching %s broke off (%s): it goes on", wanted.url, why)
                    await asyncio.sleep(self._pauses[min(failures, len(self._pauses)) - 1])

    async def _once(
        self, session: aiohttp.ClientSession, wanted: Wanted, progress: Callable[[int], None]
    ) -> None:
        have = _size(self._part)
        headers = {"Accept-Encoding": "identity"}
        tag = (await asyncio.to_thread(self._known)).get("tag", "")
        if have and tag:
            headers |= {"Range": f"bytes={have}-", "If-Range": tag}
        async with session.get(wanted.url, headers=headers) as answer:
            if answer.status == 416:
                await asyncio.to_thread(self._begin, {"url": wanted.url, "sha256": wanted.sha256})
                raise _Again("it is another file now")
            if answer.status not in (200, 206):
                _refuse_status(wanted.url, answer.status)
            start = have if answer.status == 206 else 0
            total = _total(answer, start, wanted)
            await asyncio.to_thread(self._check_space, total - start)
            await asyncio.to_thread(self._note, wanted, _tag(answer.headers))
            await self._read(answer, start, total, progress)

    async def _read(
        self,
        answer: aiohttp.ClientResponse,
        start: int,
        total: int,
        progress: Callable[[int], None],
    ) -> None:
        have = start
        with open(self._part, "ab" if start else "wb") as out:  # noqa: ASYNC230, PTH123 - below
            try:
                async for piece in answer.content.iter_chunked(_PIECE):
                    have += len(piece)
                    if total and have > total:
                        raise RefusedError("TooLarge", f"it is larger than {total} bytes")
                    await asyncio.to_thread(out.write, piece)
                    progress(min(99, have * 100 // total) if total else 0)
            finally:
                await asyncio.shield(asyncio.to_thread(_flush, out.fileno(), out.flush))
        if total and have < total:
            raise _Again(f"{have} of {total} bytes came")
        progress(100)

    def _check_space(self, more: int) -> None:
        free = shutil.disk_usage(self._part.parent).free
        if free < max(0, more) + SPARE_BYTES:
            wanted = (max(0, more) + SPARE_BYTES) >> 20
            raise InstallError(
                f"no space for the bundle: {free >> 20} MiB are free and {wanted} MiB needed"
            )

    def _known(self) -> dict[str, str]:
        try:
            return {k: str(v) for k, v in json.loads(self._about.read_text()).items()}
        except (OSError, ValueError, AttributeError):
            return {}

    def _begin(self, about: Mapping[str, str]) -> None:
        self.drop()
        self._about.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(self._about, json.dumps(about))

    def _note(self, wanted: Wanted, tag: str) -> None:
        about = {"url": wanted.url, "sha256": wanted.sha256, "tag": tag}
        if self._known() != about:
            write_atomic(self._about, json.dumps(about))

    def _finish(self) -> None:
        self._part.replace(self.whole)
        sync_directory(self.whole.parent)


def _refuse_status(url: str, status: int) -> None:
    if status in (408, 425, 429) or status >= 500:
        raise _Again(f"the server answers {status}")
    raise InstallError(f"cannot fetch {url}: the server answers {status}")


def _total(answer: aiohttp.ClientResponse, start: int, wanted: Wanted) -> int:
    """Bytes of the whole file; 0: nobody says."""
    length = answer.content_length
    said = start + length if length is not None else 0
    if wanted.size and said > wanted.size:
        raise RefusedError("TooLarge", f"the server has {said} bytes, and {wanted.size} were said")
    return wanted.size or said


def _tag(headers: Mapping[str, str]) -> str:
    """By which the server knows the file again; a weak ETag does not tell its bytes."""
    tag = headers.get("ETag", "")
    return tag if tag and not tag.startswith("W/") else headers.get("Last-Modified", "")


def _checked_in_place(path: Path, wanted: Wanted) -> Path:
    try:
        if not wanted.sha256:
            with path.open("rb"):
                return path
        found = _digest(path)
    except OSError as err:
        raise InstallError(f"cannot read {path}: {err.strerror}") from err
    if found != wanted.sha256:
        raise RefusedError("Tampered", f"{path} has the SHA-256 {found}, not as announced")
    return path


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _flush(descriptor: int, flush: Callable[[], None]) -> None:
    flush()
    os.fsync(descriptor)
