"""
Images that come with the appliance: tarballs of the images folder, imported at the start and
when a file appears; ``*.txt`` files name images to pull. All of them are pinned, so that the
garbage collector leaves them alone.

CRI cannot import, so this runs containerd's ``ctr``. A file is imported once: its size and
time are remembered beside it in the agent's folder, because unpacking 500 MB at each boot
would wear out a card.
"""

import asyncio
import json
import logging
from pathlib import Path

from node.cri.base import Runtime, RuntimeFailure
from node.kubelet import inotify

_log = logging.getLogger(__name__)
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz", ".tar.lz4")
_UNPACK = {
    ".tar.zst": ("zstd", "-dc"),
    ".tar.bz2": ("bzip2", "-dc"),
    ".tar.xz": ("xz", "-dc"),
    ".tar.lz4": ("lz4", "-dc"),
}
_PIN = "io.cri-containerd.pinned=pinned"
_SETTLE = 0.5  # seconds without a write


class ImportFailed(Exception):
    """``ctr`` refused; the text is its own."""


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
                    await self._ctr("images", "label", name, _PIN)
            return
        names = await self._import(path)
        _log.info("images: %s: imported %s", path.name, ", ".join(names))
        for name in names:
            await self._ctr("images", "label", name, _PIN)

    async def _import(self, path: Path) -> list[str]:
        before = {tag for image in await self._runtime.images() for tag in image.tags}
        unpack = next((v for k, v in _UNPACK.items() if path.name.endswith(k)), None)
        command = ["images", "import", "--digests=false", "-"]
        if unpack is None:
            command[-1] = str(path)
            output = await self._ctr(*command)
        else:
            output = await self._piped([*unpack, str(path)], command)
        named = [line.split()[1] for line in output.splitlines() if line.startswith("unpacking ")]
        after = {tag for image in await self._runtime.images() for tag in image.tags}
        return list(dict.fromkeys([*named, *sorted(after - before)]))

    async def pinned(self) -> frozenset[str]:
        """The names of all images that must stay. :class:`ImportFailed` where nobody can tell."""
        key, _, value = _PIN.partition("=")
        listed = await self._ctr("images", "list", "--quiet", f'labels."{key}"=={value}')
        return frozenset(listed.split())

    def _base(self) -> list[str]:
        return ["ctr", "--address", str(self._socket), "--namespace", "k8s.io"]

    async def _ctr(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *self._base(),
            *arguments,
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
            raise ImportFailed(errors.decode(errors="replace").strip())
        return output.decode(errors="replace")

    async def _piped(self, unpack: list[str], command: list[str]) -> str:
        script = 'set -o pipefail 2>/dev/null; "$1" "$2" "$3" | { shift 3; "$@"; }'
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            script,
            "sh",
            *unpack,
            *self._base(),
            *command,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        output, errors = await process.communicate()
        if process.returncode != 0:
            raise ImportFailed(errors.decode(errors="replace").strip())
        return output.decode(errors="replace")

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
