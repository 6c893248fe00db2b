"""
Volumes on this node's own disk: what :class:`~operators.localpath.base.Storage` asks for, done.

The order of the steps is what makes them safe to repeat: first the note, then the
folder, then its limit; a file gets its name when it is complete. Removing goes
the other way, and the PersistentVolume stays until nothing is left.
"""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from weakref import WeakValueDictionary

from operators.localpath import folders, notes, places, room, sizes, support
from operators.localpath.base import (
    FILE_IMAGE,
    QUOTA,
    UNENFORCED,
    Copied,
    Made,
    Order,
    Place,
    Refused,
    Source,
    StorageError,
    Support,
    Unfinished,
    Unfit,
)
from operators.localpath.copies import Copies
from operators.localpath.images import Images
from operators.localpath.notes import Note
from operators.localpath.process import Programs

_QUOTA_PROGRAM = "operators.localpath.quota"


class Native:
    """``bases``: every path that this node is configured to have."""

    def __init__(
        self,
        programs: Programs,
        python: Sequence[str],
        search: str,
        bases: Callable[[], list[Path]],
    ) -> None:
        self._programs = programs
        self._python = python
        self._bases = bases
        self._images = Images(programs)
        self._copies = Copies(programs, self._images, python)
        self._supported = support.Supported(programs, python, search)
        self._promising = asyncio.Lock()  # between looking what is left and promising it
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def support(self, base: Path) -> Support:
        return await self._supported.of(base)

    async def left(self, base: Path, overcommit: float) -> int:
        """Bytes that can still be promised on the file system of a path."""
        found = await asyncio.to_thread(room.measure, base, self._bases())
        left = found.left(overcommit)
        if not found.limited:
            return left
        said = await self._quota("promised", *found.limited)
        return max(0, left - int(said))

    # Making

    async def make(self, order: Order) -> Made:
        async with self._lock(order.name):
            await self.undo(order.name)
            image = places.image(order.base, order.folder)
            if await asyncio.to_thread(image.exists):
                return await self._adopt_image(order, image)
            empty = await asyncio.to_thread(folders.is_empty, order.base, order.folder)
            if not empty:
                return self._adopt_folder(order)
            able = await self._supported.of(order.base)
            enforced = support.choose(order.enforce, able, order.base, shared=order.shared)
            await self._promise(order, enforced)
            await self._make(order, enforced)
            kept = image if enforced == FILE_IMAGE else None
            return Made(enforced_by=enforced, image=str(kept) if kept else None)

    async def _adopt_image(self, order: Order, image: Path) -> Made:
        """What a volume of the same path left, as its policy was Retain."""
        if order.source:
            raise Refused(f"{order.base / order.folder} holds data already")
        await asyncio.to_thread(folders.make, order.base, order.folder, folders.PRIVATE)
        before = await asyncio.to_thread(lambda: image.stat().st_size)
        if before < sizes.image_size(order.size):
            scratch = places.scratch(order.base, order.name)
            await self._images.grow(image, order.size, scratch)
        return Made(enforced_by=FILE_IMAGE, image=str(image))

    def _adopt_folder(self, order: Order) -> Made:
        """Data that was there before, of K3s perhaps: an image would hide it."""
        if order.source or order.enforce in {"image", "quota"}:
            raise Refused(f"{order.base / order.folder} holds data already")
        return Made(enforced_by=UNENFORCED)

    async def _promise(self, order: Order, enforced: str) -> None:
        size = sizes.image_size(order.size) if enforced == FILE_IMAGE else order.size
        async with self._promising:
            if enforced != UNENFORCED:
                left = await self.left(order.base, order.overcommit)
                if size > left:
                    raise Unfit(f"not enough free space on {order.base}: {size} of {left} bytes")
            there = await asyncio.to_thread(_exists, order.base / order.folder)
            note = Note(
                name=order.name,
                kind="volume",
                folder=order.folder,
                size=size if enforced != UNENFORCED else 0,
                kept=there,
                claim=order.claim,
                uid=order.uid,
            )
            await asyncio.to_thread(notes.write, order.base, note)

    async def _make(self, order: Order, enforced: str) -> None:
        base, folder = order.base, order.folder
        user, group = _number(order.user, "user"), _number(order.group, "group")
        mode = _mode(order.mode)
        hidden = enforced == FILE_IMAGE
        await asyncio.to_thread(folders.make, base, folder, folders.PRIVATE if hidden else mode)
        if hidden:
            owner = f"{max(user, 0)}:{max(group, 0)}"
            await self._fill_image(order, owner=owner, mode=mode)
            return
        if enforced == QUOTA:
            await self._limit(base, folder, order.size)
        if order.source:
            await self._copies.to_folder(order.source, base / folder)
        else:
            await asyncio.to_thread(folders.own, base, folder, owner=(user, group), mode=mode)

    async def _fill_image(self, order: Order, *, owner: str, mode: int) -> None:
        image, scratch = places.image(order.base, order.folder), self._scratch(order)
        if order.source and order.source.image:
            await self._copies.of_image(order.source, image)
            await self._images.grow(image, order.size, scratch)
            return
        await self._images.make(image, order.size, owner=owner, mode=mode)
        if order.source:
            async with self._images.mounted(image, scratch):
                await self._copies.to_folder(order.source, scratch)

    async def _limit(self, base: Path, folder: str, size: int) -> None:
        await asyncio.to_thread(_mark, places.quota_mark(base, folder), folder)
        await self._quota("set", str(base / folder), str(size), folder)

    def _scratch(self, order: Order) -> Path:
        return places.scratch(order.base, order.name)

    async def finished(self, name: str) -> None:
        for base in self._bases():
            await asyncio.to_thread(notes.remove, base, name)

    async def unfinished(self) -> Sequence[Unfinished]:
        found = await asyncio.to_thread(lambda: list(notes.every(self._bases())))
        return [
            Unfinished(name=note.name, claim=note.claim, uid=note.uid)
            for _, note in found
            if note.kind == "volume"
        ]

    async def undo(self, name: str) -> None:
        for base in self._bases():
            note = await asyncio.to_thread(notes.read, base, name)
            if note is None or note.kind != "volume":
                continue
            await self._clear(base, note.folder, name, keep_folder=note.kept)
            await asyncio.to_thread(notes.remove, base, name)

    # Removing

    async def remove(self, place: Place) -> None:
        async with self._lock(place.name):
            if place.image is None and await asyncio.to_thread(_is_mounted, place.path):
                expected = places.image(place.base, place.folder)
                if not await asyncio.to_thread(expected.exists):
                    raise StorageError(f"something is mounted on {place.path}")
            await self._clear(place.base, place.folder, place.name, keep_folder=False)
            await asyncio.to_thread(notes.remove, place.base, place.name)

    async def _clear(self, base: Path, folder: str, name: str, *, keep_folder: bool) -> None:
        image, scratch = places.image(base, folder), places.scratch(base, name)
        if await asyncio.to_thread(image.exists):
            await self._images.release(image)
        await asyncio.to_thread(_remove_image, image, scratch)
        mark = places.quota_mark(base, folder)
        if await asyncio.to_thread(mark.exists):
            if await asyncio.to_thread(_exists, base / folder):
                await self._quota("clear", str(base / folder))
            await asyncio.to_thread(mark.unlink)
        if not keep_folder:
            await asyncio.to_thread(folders.remove, base, folder)

    # Growing

    async def grow(self, place: Place, size: int, overcommit: float) -> None:
        async with self._lock(place.name):
            if place.enforced_by == QUOTA:
                await self._afford(place, size - place.size, overcommit)
                await self._limit(place.base, place.folder, size)
            elif place.image:
                image = place.image
                before = await asyncio.to_thread(lambda: image.stat().st_size)
                await self._afford(place, sizes.image_size(size) - before, overcommit)
                await self._images.grow(image, size, places.scratch(place.base, place.name))

    async def _afford(self, place: Place, more: int, overcommit: float) -> None:
        left = await self.left(place.base, overcommit)
        if more > left:
            raise StorageError(f"not enough free space on {place.base}: {more} of {left} bytes")

    # Snapshots

    async def snapshot(self, place: Place, name: str) -> Copied:
        async with self._lock(place.name):
            return await self._copies.snapshot(place, name)

    async def remove_snapshot(self, name: str) -> None:
        async with self._lock(name):
            for base in self._bases():
                await self._copies.remove(base, name)

    async def find_snapshot(self, name: str, size: int) -> Source | None:
        for base in self._bases():
            found = await asyncio.to_thread(self._copies.find, base, name, size)
            if found:
                return found
        return None

    async def recover(self) -> None:
        """What a killed one left: drafts of notes, frozen file systems, mounts of a moment."""
        for base in self._bases():
            await asyncio.to_thread(notes.sweep, base)
            await self._copies.recover(base)

    async def _quota(self, *arguments: str) -> str:
        return await self._programs.run([*self._python, _QUOTA_PROGRAM, *arguments])

    def _lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())


def _number(text: str, what: str) -> int:
    if not text:
        return -1
    if not text.isdecimal() or int(text) >= 2**32 - 1:
        raise Refused(f"{what} {text!r} is not a number: names are not known outside of images")
    return int(text)


def _mode(text: str) -> int:
    if not text:
        return folders.OPEN
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o7777:
        raise Refused(f"permissions {text!r} are not octal")
    return mode


def _exists(path: Path) -> bool:
    return path.is_symlink() or path.exists()


def _is_mounted(path: Path) -> bool:
    return path.is_mount()


def _mark(path: Path, folder: str) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(folder)


def _remove_image(image: Path, scratch: Path) -> None:
    image.unlink(missing_ok=True)
    image.with_name(image.name + ".new").unlink(missing_ok=True)
    if scratch.exists():
        scratch.rmdir()
