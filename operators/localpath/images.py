"""
File system images: made, grown and let go of. The kubelet mounts them where pods see them.

An image gets its name only when it is complete, so whoever finds it may use it.
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from operators.localpath import mounts, sizes
from operators.localpath.base import StorageError
from operators.localpath.process import Programs

SUFFIX = ".img"
_DRAFT, _APART = ".new", ".growing"
_TIDY = "rmdir lost+found\n"  # one with something in it stays
_CAP_SYS_RESOURCE = 24
_PAUSES = (0.02, 0.1, 0.5, 1.0, 0.0)  # seconds


class InUse(StorageError):
    """It will do when nobody uses the volume."""


def draft_of(image: Path) -> Path:
    return image.with_name(image.name + _DRAFT)


class Images:
    def __init__(self, programs: Programs) -> None:
        self._programs = programs

    async def make(self, image: Path, claim: int, *, owner: str, mode: int) -> None:
        """An empty file system. ``owner``: uid:gid; ``mode``: of its root folder."""
        draft = draft_of(image)
        await asyncio.to_thread(_hole, draft, sizes.image_size(claim))
        try:
            await self._programs.run(sizes.make_arguments(str(draft), claim, owner))
        except StorageError:
            await self._programs.run(sizes.older_arguments(str(draft), claim, owner))
        await self.own(draft, mode=mode)
        await asyncio.to_thread(publish, draft, image)

    async def own(self, image: Path, *, mode: int) -> None:
        """
        Set the mode of the root folder, and let no lost+found lie in a new volume.

        By debugfs, which needs no mount. Databases refuse a folder that is not empty; e2fsck
        makes a lost+found when it finds something for it.
        """
        told = f"set_inode_field <2> mode 04{mode:04o}\n{_TIDY}"
        said = await self._programs.run(["debugfs", "-w", "-f", "-", str(image)], told=told)
        for line in said.splitlines():
            # It ends with 0 whatever happens. Of what was removed before, nothing needs removing.
            if line.startswith("set_inode_field:") or "while opening" in line:
                raise StorageError(f"debugfs: {line}")

    async def grow(self, image: Path, claim: int, scratch: Path) -> None:
        """
        Make room for ``claim`` bytes, under whoever uses it. ``scratch``: a folder to mount it on.

        Raises :class:`InUse` where the kernel lets this process grow only what nobody uses.
        """
        if not await asyncio.to_thread(_may_grow_mounted):
            await self._grow_apart(image, claim)
            return
        await asyncio.to_thread(_lengthen, image, sizes.image_size(claim))
        # Mounted even if nobody uses it: the kubelet may mount it at any time, and resize2fs
        # must not be at work on an image that the kernel has mounted.
        mounted = await asyncio.to_thread(mounts.of_image, image)
        if mounted:
            await self._grow_mounted(mounted[0].device)
            return
        async with self.mounted(image, scratch) as mount:
            await self._grow_mounted(mount.device)

    async def _grow_mounted(self, device: str) -> None:
        await self._programs.run(["losetup", "--set-capacity", device])
        await self._programs.run(["resize2fs", device])

    async def _grow_apart(self, image: Path, claim: int) -> None:
        """Under another name, so that the kubelet does not find it meanwhile."""
        gone: list[mounts.Mount] = []
        try:
            for mount in await asyncio.to_thread(mounts.of_image, image):
                await self._programs.run(["umount", str(mount.point)])
                gone.append(mount)
            await self._cleared(image)
        except StorageError as err:
            for mount in reversed(gone):  # containers still have it: as it was
                options = ",".join(sorted(mount.options & {"noatime", "discard", "ro"})) or "rw"
                where = [mount.device, str(mount.point)]
                await self._programs.run(["mount", "-t", "ext4", "-o", options, *where])
            raise InUse(
                "the volume is in use, and without CAP_SYS_RESOURCE only one that nobody uses"
                " can be made larger"
            ) from err
        apart = image.with_name(image.name + _APART)
        await asyncio.to_thread(image.rename, apart)
        try:
            await self._grow_copy(apart, image, claim)
        finally:
            await asyncio.to_thread(_bring_back, apart)

    async def _grow_copy(self, apart: Path, image: Path, claim: int) -> None:
        """A resize2fs that is killed half way leaves a ruin: let it be that of a copy."""
        draft = draft_of(image)
        await self._programs.run(
            ["cp", "--reflink=auto", "--sparse=always", str(apart), str(draft)]
        )
        await asyncio.to_thread(_lengthen, draft, sizes.image_size(claim))
        # 1: it has mended something.
        await self._programs.run(["e2fsck", "-f", "-p", str(draft)], codes=(0, 1))
        await self._programs.run(["resize2fs", str(draft)])
        await self._programs.run(["debugfs", "-w", "-f", "-", str(draft)], told=_TIDY)
        await asyncio.to_thread(publish, draft, image)

    async def recover(self, folder: Path) -> None:
        """Images that were being made larger when somebody was killed."""
        for apart in await asyncio.to_thread(lambda: list(folder.glob(f"*{_APART}"))):
            await asyncio.to_thread(_bring_back, apart)

    @asynccontextmanager
    async def mounted(self, image: Path, scratch: Path) -> AsyncIterator[mounts.Mount]:
        """For a while, on a folder of our own."""
        await asyncio.to_thread(scratch.mkdir, 0o700, parents=True, exist_ok=True)
        # It takes the loop device that shows the image already, where there is one: two would
        # be two file systems that do not know of each other. The lock keeps the kubelet,
        # which takes it too, from making one at the same moment.
        mount = ["mount", "-t", "ext4", "-o", "loop,noatime,discard", str(image), str(scratch)]
        await self._programs.run(["flock", str(image), *mount])
        try:
            found = await asyncio.to_thread(mounts.at, scratch)
            if found is None:
                raise StorageError(f"{image} could not be mounted")
            yield found
        finally:
            await self._programs.run(["umount", str(scratch)])
            await asyncio.to_thread(scratch.rmdir)

    async def release(self, image: Path) -> None:
        """Unmount it wherever it is mounted. Raises :class:`StorageError` while it is used."""
        for _ in range(16):  # mounts may lie on each other
            found = await asyncio.to_thread(mounts.of_image, image)
            if not found:
                break
            await self._programs.run(["umount", str(found[0].point)])
        for number in await asyncio.to_thread(lambda: list(mounts.loops(image))):
            if not await asyncio.to_thread(_clears_itself, number):
                await self._programs.run(["losetup", "--detach", f"/dev/loop{number}"])
        await self._cleared(image)

    async def _cleared(self, image: Path) -> None:
        for pause in _PAUSES:  # the kernel clears a device when its last reader is gone
            if not await asyncio.to_thread(lambda: list(mounts.loops(image))):
                return
            await asyncio.sleep(pause)
        raise StorageError(f"{image.name} is still in use")


def publish(draft: Path, image: Path) -> None:
    """Give a complete file its name, so that neither is lost by a power cut."""
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.rename(image)
    sync_folder(image.parent)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hole(path: Path, size: int) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.truncate(size)


def _bring_back(apart: Path) -> None:
    """An image that was put apart: as it was, unless its larger copy is complete."""
    image = apart.with_name(apart.name.removesuffix(_APART))
    draft_of(image).unlink(missing_ok=True)
    if image.exists():
        apart.unlink()
    else:
        apart.rename(image)


def _lengthen(path: Path, size: int) -> None:
    with path.open("r+b") as file:
        if os.fstat(file.fileno()).st_size < size:
            file.truncate(size)
            os.fsync(file.fileno())


def _clears_itself(number: int) -> bool:
    try:
        text = Path(f"/sys/block/loop{number}/loop/autoclear").read_text()
    except OSError:  # it has done so
        return True
    return text.strip() == "1"


def _may_grow_mounted() -> bool:
    """Does this process have what ext4 asks of one that grows a mounted file system?"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _CAP_SYS_RESOURCE & 1)
    return False
