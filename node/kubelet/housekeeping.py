"""
What has to be tidied up from time to time: long logs, unused images.

One round every half minute, and only while there is something: a container that runs, an
image file system that is filling up. Source: kubelet's containerLogMaxSize (10 MiB) and
containerLogMaxFiles (5), imageGCHighThresholdPercent (85) and imageGCLowThresholdPercent (80).
"""

import asyncio
import gzip
import logging
import os
import shutil
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from controlplane.objects.moment import elapsed
from node.cri.base import Image, Runtime, RuntimeFailure
from node.kubelet.base import Clock
from node.kubelet.run import Kubelet
from node.kubelet.view import Seen

_log = logging.getLogger(__name__)
_ROUND = 30.0
_IMAGES_EVERY = timedelta(minutes=5)
_MAX_LOG, _MAX_FILES = 10 << 20, 5
_HIGH, _LOW = 0.85, 0.80
_MIN_AGE = timedelta(minutes=2)
Kept = Callable[[], Awaitable[frozenset[str]]]


@dataclass(frozen=True, slots=True)
class Disk:
    capacity: int
    available: int

    @property
    def usage(self) -> float:
        return 1 - self.available / self.capacity if self.capacity else 0.0


def to_remove(
    images: Iterable[Image],
    used: frozenset[str],
    disk: Disk,
    seen_since: dict[str, datetime],
    *,
    now: datetime,
) -> Sequence[Image]:
    """Pure: the unused images to remove, longest known first, until 80 % would be reached."""
    if disk.usage < _HIGH:
        return ()
    wanted = int(disk.capacity * (1 - _LOW)) - disk.available
    old = [i for i in images if elapsed(seen_since.get(i.id, now), now) >= _MIN_AGE]
    return enough(old, used, wanted, key=lambda i: seen_since.get(i.id, now))


def enough(
    images: Iterable[Image],
    used: frozenset[str],
    wanted: int | None,
    *,
    key: Callable[[Image], datetime],
) -> Sequence[Image]:
    """Pure: so many unused images that their sizes reach ``wanted`` bytes; None: all of them."""
    chosen, freed = [], 0
    for image in sorted((i for i in images if not i.pinned and i.id not in used), key=key):
        if wanted is not None and freed >= wanted:
            break
        chosen.append(image)
        freed += image.size
    return chosen


def rotate(path: Path, now: datetime) -> bool:
    """
    Move a log that is too long aside, compress the one before, and drop the oldest.

    Returns whether the runtime has to open it again. Blocks.
    """
    if not path.exists() or path.stat().st_size < _MAX_LOG:
        return False
    older = sorted(p for p in path.parent.glob(f"{path.name}.*") if p.suffix != ".tmp")
    for old in older:
        if old.suffix != ".gz":
            _compress(old)
    kept = sorted(path.parent.glob(f"{path.name}.*"))
    for old in kept[: max(0, len(kept) - (_MAX_FILES - 2))]:
        old.unlink()
    path.rename(path.with_name(f"{path.name}.{now:%Y%m%d-%H%M%S}"))
    return True


def _compress(path: Path) -> None:
    temporary = path.with_name(f"{path.name}.tmp")
    with path.open("rb") as source, gzip.open(temporary, "wb") as target:
        shutil.copyfileobj(source, target)
    temporary.rename(path.with_name(f"{path.name}.gz"))
    path.unlink()


class Housekeeper:
    """Its mutable state: since when each image is unused, and the last look at the disk."""

    def __init__(
        self, kubelet: Kubelet, runtime: Runtime, clock: Clock, *, kept: Kept | None = None
    ) -> None:
        """``kept``: the names of images that must stay, used or not."""
        self._kubelet = kubelet
        self._runtime = runtime
        self._clock = clock
        self._kept = kept
        self._unused_since: dict[str, datetime] = {}
        self._looked: datetime | None = None

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_ROUND)
            try:
                await self.round()
            except (RuntimeFailure, OSError) as err:
                _log.warning("housekeeping: %s", err)
            except Exception:
                _log.exception("housekeeping")

    async def round(self) -> None:
        now = self._clock()
        for worker in list(self._kubelet.workers.values()):
            for seen in worker.view.alive:
                await self._rotate(seen, now)
        if self._looked is None or abs(now - self._looked) >= _IMAGES_EVERY:
            self._looked = now
            await self._images(now)

    async def _rotate(self, seen: Seen, now: datetime) -> None:
        if not seen.status.log_path:
            return
        if await asyncio.to_thread(rotate, Path(seen.status.log_path), now):
            await self._runtime.reopen_log(seen.status.id)

    async def _images(self, now: datetime) -> None:
        places = await self._runtime.image_fs()
        if not places:
            return
        found = await asyncio.to_thread(os.statvfs, places[0].mountpoint)
        disk = Disk(found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize)
        images, used = await self._unused(now)
        if to_remove(images, used, disk, self._unused_since, now=now):
            used |= await self._ids_kept(images)
        for image in to_remove(images, used, disk, self._unused_since, now=now):
            await self._remove(image)

    async def _unused(self, now: datetime) -> tuple[Sequence[Image], frozenset[str]]:
        """All images, and the ids of those in use."""
        images = await self._runtime.images()
        used = frozenset(c.image_ref for c in await self._runtime.containers())
        self._unused_since = {
            i.id: self._unused_since.get(i.id, now) for i in images if i.id not in used
        }
        return images, used

    async def _ids_kept(self, images: Iterable[Image]) -> frozenset[str]:
        """containerd 1.6 does not tell which images are pinned, so their names are asked for."""
        names = await self._kept() if self._kept is not None else frozenset[str]()
        return frozenset(image.id for image in images if not names.isdisjoint(image.tags))

    async def _remove(self, image: Image) -> None:
        _log.info("removing image %s", image.tags or image.id)
        await self._runtime.remove_image(image.id)

    async def reclaim(self, wanted: int | None) -> int:
        """
        Under pressure: remove unused images until ``wanted`` bytes are freed, whatever their age.

        None: all of them. How many were removed.
        """
        now = self._clock()
        images, used = await self._unused(now)
        used |= await self._ids_kept(images)
        chosen = enough(images, used, wanted, key=lambda i: self._unused_since.get(i.id, now))
        for image in chosen:
            await self._remove(image)
        return len(chosen)
