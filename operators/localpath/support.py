"""
Which limits the file system of a path can keep: found by making one, once for each path.

Project quotas first, since they cost nothing; then images on loop devices. The
trial leaves nothing behind and writes a few blocks.
"""

import asyncio
import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from operators.localpath import images, mounts, places
from operators.localpath.base import FILE_IMAGE, OWN_FOLDER, QUOTA, Refused, StorageError, Support
from operators.localpath.process import Programs

TOOLS = {
    "mkfs.ext4": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "resize2fs": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "losetup": "mount",
    "mount": "mount",
    "umount": "mount",
}
LOG = logging.getLogger(__name__)
_TRIAL = "trial"
_PAUSES = (0.2, 1.0, 0.0)  # seconds
# ext4 and xfs alike; without one of these the kernel counts nothing.
_QUOTA_OPTIONS = frozenset({"prjquota", "pquota"})
_QUOTA_KINDS = frozenset({"ext4", "xfs"})


class Supported:
    def __init__(self, programs: Programs, python: Sequence[str], search: str) -> None:
        self._programs = programs
        self._python = python
        self._search = search
        self._known: dict[Path, Support] = {}
        self._lock = asyncio.Lock()

    async def of(self, base: Path) -> Support:
        async with self._lock:
            if base not in self._known:
                self._known[base] = await self._try(base)
            return self._known[base]

    async def _try(self, base: Path) -> Support:
        await asyncio.to_thread(_private, base)
        return Support(no_quota=await self._no_quota(base), no_image=await self._no_image(base))

    async def _no_quota(self, base: Path) -> str:
        mount = await asyncio.to_thread(mounts.holding, base)
        if mount.kind not in _QUOTA_KINDS:
            return f"{mount.kind} has no project quotas"
        if not mount.options & _QUOTA_OPTIONS:
            return f"{mount.point} is not mounted with prjquota"
        trial = base / OWN_FOLDER / "quotas.trial"
        await asyncio.to_thread(trial.mkdir, 0o700, exist_ok=True)
        try:
            await self._programs.run(
                [*self._python, "operators.localpath.quota", "try", str(trial)]
            )
        except StorageError as err:
            return str(err)
        finally:
            await asyncio.to_thread(trial.rmdir)
        return ""

    async def _no_image(self, base: Path) -> str:
        if missing := missing_tools(self._search):
            return missing
        reason = ""
        for pause in _PAUSES:  # others, too, look for a free loop device
            reason = await self._no_image_now(base)
            if not reason:
                return ""
            await asyncio.sleep(pause)
        LOG.warning("%s: no images of volumes: %s", base, reason)
        return reason

    async def _no_image_now(self, base: Path) -> str:
        image, scratch = places.image(base, f"{_TRIAL}/0"), places.scratch(base, _TRIAL)
        made = images.Images(self._programs)
        try:
            await self._let_go(base)
            await made.make(image, 2**20, owner="0:0", mode=0o777)
            async with made.mounted(image, scratch):
                pass
        except (StorageError, OSError) as err:
            return str(err)
        finally:
            await self._let_go(base)
        return ""

    async def _let_go(self, base: Path) -> None:
        """Of a trial that was killed, too."""
        image, scratch = places.image(base, f"{_TRIAL}/0"), places.scratch(base, _TRIAL)
        if await asyncio.to_thread(mounts.at, scratch):
            await self._programs.run(["umount", str(scratch)])
        await asyncio.to_thread(_remove, image, scratch)


def choose(enforce: str, support: Support, base: Path, *, shared: bool) -> str:
    """
    How the size of a new volume is enforced.

    ``enforce`` is the StorageClass's parameter; ``shared``: other nodes see the same path, where
    neither a loop device nor the quota of one kernel would hold. Raises :class:`Refused`.
    """
    if shared:
        if enforce in {"quota", "image"}:
            raise Refused(f"enforce {enforce!r} is not possible on a shared file system")
        return "none"
    reasons = {"quota": (QUOTA, support.no_quota), "image": (FILE_IMAGE, support.no_image)}
    match enforce:
        case "auto":
            return support.best
        case "none":
            return "none"
        case "quota" | "image":
            chosen, reason = reasons[enforce]
            if reason:
                raise Refused(f"enforce {enforce!r} is not possible on {base}: {reason}")
            return chosen
        case _:
            raise Refused(f"enforce must be auto, quota, image or none, not {enforce!r}")


def missing_tools(search: str) -> str:
    """Names the packages to install; "": all are there."""
    folders = [Path(folder) for folder in search.split(":")]
    missing = [t for t in TOOLS if not any(os.access(f / t, os.X_OK) for f in folders)]
    if not missing:
        return ""
    packages = sorted({TOOLS[tool] for tool in missing})
    return f"{', '.join(missing)} is missing: apt-get install {' '.join(packages)}"


def _private(base: Path) -> None:
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    (base / OWN_FOLDER).mkdir(mode=0o700, exist_ok=True)


def _remove(image: Path, scratch: Path) -> None:
    image.unlink(missing_ok=True)
    images.draft_of(image).unlink(missing_ok=True)
    for folder in (scratch, scratch.parent, image.parent):
        with suppress(OSError):  # it is not there, or others are in it
            folder.rmdir()
