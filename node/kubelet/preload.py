"""
Images that come with the appliance: tarballs of the images folder, imported at the start and
when a file appears; ``*.txt`` files name images to pull. All of them are pinned, so that the
garbage collector leaves them alone.

CRI cannot import, so :mod:`node.preload` does it with containerd's own API, in a process that
lives as long as one import. A file is imported once: its size and time are remembered in the
agent's folder, because unpacking 500 MB at each boot would wear out a card.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Mapping
from pathlib import Path

from node.cri.base import Runtime, RuntimeFailure
from node.cri.reference import normalise
from node.kubelet import inotify

_log = logging.getLogger(__name__)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.lz4")
_SETTLE = 0.5  # seconds without a write
_LOOKS, _PAUSE = 500, 0.02  # until CRI has heard of an image; seconds between two looks


class ImportFailed(Exception):
    """An archive could not be imported; one line that says why."""


class Preloader:
    """Its mutable state is the record of what was imported, kept in a file."""

    def __init__(self, images_dir: Path, socket: Path, record: Path, runtime: Runtime) -> None:
        self._folder = images_dir
        self._socket = socket
        self._record = record
        self._runtime = runtime

    async def run(self, ready: asyncio.Event) -> None:
        """Import what is there, set ``ready``, then whatever appears; for ever."""
        await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        with inotify.Watch() as watch:
            watch.add(self._folder, inotify.CLOSE_WRITE | inotify.MOVED_TO)
            await self.load()
            ready.set()
            while True:
                await watch.wait()
                while await watch.wait(_SETTLE):
                    pass
                await self.load()

    async def load(self) -> None:
        known = await asyncio.to_thread(self._known)
        for path in sorted(self._folder.iterdir()):
            mark = await asyncio.to_thread(_mark, path)
            if known.get(path.name) == mark or not _is_ours(path):
                continue
            try:
                await self._take(path)
            except (ImportFailed, RuntimeFailure, OSError) as err:
                _log.error("images: %s: %s", path.name, err)
                continue
            known[path.name] = mark
            await asyncio.to_thread(self._remember, known)

    async def _take(self, path: Path) -> None:
        if path.suffix == ".txt":
            for line in (await asyncio.to_thread(path.read_text)).splitlines():
                if name := line.strip():
                    await self._runtime.pull(name, None, None)
                    await self._pin(normalise(name))
            return
        images = await self._import(path)
        for name, id_ in images.items():
            await self._seen(name, id_)
        _log.info("images: %s: imported %s", path.name, ", ".join(images))

    async def _import(self, path: Path) -> Mapping[str, str]:
        """What was in it: names and ids. Raises :class:`ImportFailed`."""
        arguments = {"socket": str(self._socket), "archive": str(path)}
        code = f"import sys; sys.path[:] = {_search_path()!r}; from node.preload.run import main; "
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-I", "-S", "-c", f"{code}sys.exit(main({arguments!r}))"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            output, errors = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        if process.returncode != 0:
            lines = errors.decode(errors="replace").strip().splitlines()
            raise ImportFailed(lines[-1] if lines else f"ended with {process.returncode}")
        return json.loads(output)  # type: ignore[no-any-return]

    async def _seen(self, name: str, id_: str) -> None:
        """CRI hears of a new image by an event of containerd's, and tells nobody when it has."""
        for _ in range(_LOOKS):
            image = await self._runtime.image(name)
            if image is not None and image.id == id_:
                return
            await asyncio.sleep(_PAUSE)
        _log.warning("images: %s is not shown by the runtime", name)

    async def _pin(self, name: str) -> None:
        from node.cri import pins

        await pins.pin(self._socket, [name])

    async def pinned(self) -> frozenset[str]:
        """All images that must stay, by name. :class:`RuntimeFailure` where nobody can tell."""
        from node.cri import pins

        return await pins.pinned(self._socket)

    def _known(self) -> dict[str, list[int]]:
        try:
            return json.loads(self._record.read_text())  # type: ignore[no-any-return]
        except (OSError, ValueError):
            return {}

    def _remember(self, known: dict[str, list[int]]) -> None:
        self._record.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._record.with_suffix(".tmp")
        temporary.write_text(json.dumps(known))
        temporary.replace(self._record)


def _mark(path: Path) -> list[int]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns]


def _is_ours(path: Path) -> bool:
    return path.is_file() and (path.name.endswith(_ARCHIVES) or path.suffix == ".txt")


def _search_path() -> list[str]:
    """Ours, for a Python that looks around for none: neither a setting nor a folder changes it."""
    return [str(Path(__file__).parents[2]), *sys.path]
