"""
Snapshots, and volumes that begin as a copy: of an image as a whole, of a folder file by file.

An image is copied by :mod:`operators.localpath.copying`, consistent as of one moment. The files
of a folder are copied one after the other: as after a power cut, and what a pod writes
meanwhile may be there in part.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from operators.localpath import folders, images, mounts, notes, places, sizes
from operators.localpath.base import OWN_FOLDER, Copied, Place, Source
from operators.localpath.images import SUFFIX, Images
from operators.localpath.notes import Note
from operators.localpath.process import Programs

_PROGRAM = "operators.localpath.copying"
_COPY = ("cp", "--archive", "--reflink=auto", "--sparse=auto", "--one-file-system")


class Copies:
    def __init__(self, programs: Programs, made: Images, python: Sequence[str]) -> None:
        self._programs = programs
        self._images = made
        self._python = python

    async def snapshot(self, place: Place, name: str) -> Copied:
        """The caller sees to it that nothing else happens to the volume."""
        found = await asyncio.to_thread(self.find, place.base, name, place.size)
        if found is None:
            note = Note(name=name, kind="snapshot", folder=place.folder, size=0)
            await asyncio.to_thread(notes.write, place.base, note)
            await self._take(place, places.snapshot(place.base, name))
            found = await asyncio.to_thread(self.find, place.base, name, place.size)
        await asyncio.to_thread(notes.remove, place.base, name)
        assert found is not None
        return Copied(created=found.created, consistent=place.image is not None)

    async def _take(self, place: Place, target: Path) -> None:
        if place.image:
            source = Source(
                kind="volume", name=place.name, size=place.size, base=place.base, image=place.image
            )
            await self.of_image(source, target.with_name(target.name + SUFFIX))
            return
        draft = target.with_name(target.name + ".new")
        await asyncio.to_thread(_fresh, draft)
        await self._programs.run([*_COPY, f"{place.path}/.", str(draft)])
        await asyncio.to_thread(_publish_folder, draft, target)

    async def of_image(self, source: Source, image: Path) -> None:
        """The file system of a source, as it is at one moment."""
        assert source.image is not None
        original, draft = source.image, images.draft_of(image)
        await asyncio.to_thread(draft.parent.mkdir, 0o700, parents=True, exist_ok=True)
        where = await asyncio.to_thread(mounts.of_image, original)
        point = [str(where[0].point)] if where else []
        try:
            await self._run("copy", str(original), str(draft), *point)
        except BaseException:
            if point:
                await asyncio.shield(self._run("thaw", *point))
            raise
        await asyncio.to_thread(images.publish, draft, image)

    async def to_folder(self, source: Source, folder: Path) -> None:
        """Its files, with owners and modes."""
        async with self._files(source) as files:
            await self._programs.run([*_COPY, f"{files}/.", str(folder)])

    @asynccontextmanager
    async def _files(self, source: Source) -> AsyncIterator[Path]:
        if source.image is None:
            yield source.base / source.folder
            return
        mounted = await asyncio.to_thread(mounts.of_image, source.image)
        if mounted:
            yield mounted[0].point
            return
        scratch = places.scratch(source.base, f"from-{source.name}")
        async with self._images.mounted(source.image, scratch):
            yield scratch

    def find(self, base: Path, name: str, size: int) -> Source | None:
        """Blocks."""
        folder = places.snapshot(base, name)
        image = folder.with_name(folder.name + SUFFIX)
        relative = str(folder.relative_to(base))
        common: dict[str, Any] = {"kind": "snapshot", "name": name, "base": base}
        if image.is_file():
            found = image.stat()
            size = size or sizes.claim_size(found.st_size)
            return Source(**common, size=size, image=image, created=found.st_mtime)
        if folder.is_dir():
            created = folder.stat().st_mtime
            return Source(**common, size=size, folder=relative, created=created)
        return None

    async def remove(self, base: Path, name: str) -> None:
        folder = places.snapshot(base, name)
        image = folder.with_name(folder.name + SUFFIX)
        if await asyncio.to_thread(image.exists):
            await self._images.release(image)
        await asyncio.to_thread(_remove, base, folder)
        await asyncio.to_thread(notes.remove, base, name)

    async def recover(self, base: Path) -> None:
        """Nobody copies anything yet: what is frozen was left so, and what is mounted too."""
        await self._images.recover(base / OWN_FOLDER / "images")
        for _, note in await asyncio.to_thread(lambda: list(notes.every([base]))):
            mount = await asyncio.to_thread(mounts.at, base / note.folder)
            if note.kind == "snapshot" and mount and mount.major == mounts.LOOP:
                await self._run("thaw", str(mount.point))
        moments = (base / OWN_FOLDER / "mounts").resolve()
        for mount in await asyncio.to_thread(mounts.all_mounts):
            if mount.point.is_relative_to(moments):
                await self._programs.run(["umount", str(mount.point)])

    async def _run(self, *arguments: str) -> str:
        return await self._programs.run([*self._python, _PROGRAM, *arguments], patience=6 * 3600.0)


def _fresh(folder: Path) -> None:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _remove_folder(folder)
    folder.mkdir(mode=0o700)


def _publish_folder(draft: Path, target: Path) -> None:
    os.utime(draft)  # cp gave it the time of its source
    draft.rename(target)
    os.sync()


def _remove(base: Path, folder: Path) -> None:
    for ending in (SUFFIX, SUFFIX + ".new"):
        folder.with_name(folder.name + ending).unlink(missing_ok=True)
    for path in (folder, folder.with_name(folder.name + ".new")):
        folders.remove(base, str(path.relative_to(base)))


def _remove_folder(folder: Path) -> None:
    try:
        above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        folders.remove_at(above, folder.name)
    finally:
        os.close(above)
