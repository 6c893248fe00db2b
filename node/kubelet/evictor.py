"""
Sends pods away when the node runs short, or when they take more of the disk than they may.

It looks when the kernel says that memory is short, when something was pulled or
started, and else as late as it dares: a disk cannot be filled faster than it
can be written. Pods without limits of their own are never measured.
:mod:`node.kubelet.evict` decides, the pod's worker does.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from node.cri.base import ContainerStats, Runtime, RuntimeFailure
from node.host.pressure import MemoryAlarm
from node.kubelet import evict, spec, stats, usage
from node.kubelet.base import CONTAINER_NAME, POD_UID, Clock
from node.kubelet.evict import Reading, Signal, Taken
from node.kubelet.housekeeping import Housekeeper
from node.kubelet.run import Kubelet
from node.kubelet.usage import NOTHING, Tree
from node.kubelet.view import Waiting
from node.kubelet.worker import Worker

_log = logging.getLogger(__name__)
_FIRST, _SHORTEST, _LIMITED, _LONGEST = 1.0, 2.0, 10.0, 60.0  # seconds between two looks
_WRITTEN, _CREATED = 100 << 20, 20_000  # bytes and inodes that a disk may lose in a second
_FUTILE = 10.0  # after an attempt that freed nothing; doubled
_CLEANED_SECONDS = 30.0
_GRACE = 1  # seconds: what makes a pod go does not wait
_EPHEMERAL = ("emptyDir", "configMap", "downwardAPI")


@dataclass(frozen=True, slots=True)
class _Look:
    """When a limited pod was measured, and what the disk had left then."""

    at: float
    free: int
    headroom: int  # of the pod


class Evictor:
    """
    Its mutable state: what the node is short of and since when each condition was last seen,
    and the last look at each pod that has limits.
    """

    def __init__(
        self,
        kubelet: Kubelet,
        runtime: Runtime,
        housekeeper: Housekeeper,
        *,
        data_dir: Path,
        clock: Clock,
        look: Callable[[Path, Path], Reading] | None = None,
    ) -> None:
        """``look``: at the disk of the node and at that of images; it may block."""
        self._kubelet = kubelet
        self._runtime = runtime
        self._housekeeper = housekeeper
        self._data_dir = data_dir
        self._clock = clock
        self._look = look or _look
        self.on_change: list[Callable[[], None]] = []  # called when a condition comes or goes
        self.held: frozenset[str] = frozenset()  # conditions
        self._short: frozenset[str] = frozenset()  # names of signals
        self._seen: dict[str, datetime] = {}  # condition → when
        self._looks: dict[str, _Look] = {}
        self._began: dict[str, float] = {}  # uid of a limited pod → when it was first seen
        self._images: Path | None = None
        self._futile = 0.0
        self._wake = asyncio.Event()
        self._alarm_works = False

    def wake(self) -> None:
        """Something took disk or memory: an image, a container."""
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        alarm, loop = MemoryAlarm(), asyncio.get_running_loop()
        self._alarm_works = alarm.works

        def alarmed() -> None:
            alarm.silence()
            self._alarm_works = alarm.works
            self._wake.set()

        loop.add_reader(alarm, alarmed)
        try:
            while True:
                self._wake.clear()
                pause = await self._try()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), pause)
        finally:
            loop.remove_reader(alarm)
            alarm.close()

    async def _try(self) -> float:
        try:
            return await self.round()
        except (RuntimeFailure, OSError) as err:
            _log.warning("pressure: %s", err)
        except Exception:
            _log.exception("pressure")
        return _LIMITED

    async def round(self) -> float:
        """One look, and what follows from it; the seconds until the next one."""
        reading = await self._read()
        found = evict.signals(reading)
        short = evict.met(found, self._short)
        self._note(short)
        if await self._over_limits(reading):
            return _SHORTEST
        if short:
            done = await self._relieve(short[0])
            self._futile = 0.0 if done else min(_LONGEST, 2 * self._futile or _FUTILE)
            return self._futile or _SHORTEST
        self._futile = 0.0
        return self._pause(found)

    # -- the node

    async def _read(self) -> Reading:
        if self._images is None:
            with contextlib.suppress(RuntimeFailure):
                places = await self._runtime.image_fs()
                self._images = Path(places[0].mountpoint) if places else self._data_dir
        return await asyncio.to_thread(self._look, self._data_dir, self._images or self._data_dir)

    def _note(self, short: list[Signal]) -> None:
        now = self._clock()
        self._short = frozenset(signal.name for signal in short)
        self._seen |= {signal.condition: now for signal in short}
        before, self.held = self.held, evict.conditions(self._seen, now)
        if before != self.held:
            for tell in self.on_change:
                tell()

    def _pause(self, found: list[Signal]) -> float:
        """Until the first of the disks could be full, were it written without a pause."""
        seconds = [_LONGEST]
        for signal in found:
            if signal.resource == "memory":
                seconds += [] if self._alarm_works else [_LIMITED]
            else:
                rate = _CREATED if signal.resource == "inodes" else _WRITTEN
                seconds.append(signal.headroom / rate)
        pause = max(_SHORTEST, min(seconds))
        if self._began:
            # Most of what a pod writes it writes at its beginning.
            age = asyncio.get_running_loop().time() - max(self._began.values())
            pause = min(pause, max(_FIRST, min(age, _LIMITED)))
        return pause

    async def _relieve(self, signal: Signal) -> bool:
        """Whether something was done about it."""
        name = self._kubelet.settings.node_name
        node = {"metadata": {"name": name, "uid": name}, "kind": "Node", "apiVersion": "v1"}
        text = f"Attempting to reclaim {signal.resource}"
        self._kubelet.recorder.record(node, "Warning", "EvictionThresholdMet", text)
        removed = 0
        if signal.condition == evict.DISK:
            wanted = signal.reclaim - signal.headroom if signal.resource == evict.STORAGE else None
            removed = await self._remove_images(wanted)
            left = evict.met(evict.signals(await self._read()), self._short)
            if signal.name not in {other.name for other in left}:
                return True
        return await self._send_away(signal) or bool(removed)

    async def _remove_images(self, wanted: int | None) -> int:
        try:
            return await self._housekeeper.reclaim(wanted)
        except (RuntimeFailure, OSError) as err:
            _log.warning("no images were removed: %s", err)  # then it is the pods' turn
            return 0

    async def _send_away(self, signal: Signal) -> bool:
        workers = {uid: w for uid, w in self._kubelet.workers.items() if _may_go(w)}
        found = stats.by_pod(await self._runtime.stats())
        used: dict[str, int] = {}
        by_container: dict[str, Mapping[str, int]] = {}
        for uid, worker in workers.items():
            items = found.get(uid, [])
            if signal.resource == "memory":
                by_container[uid] = {
                    item.labels.get(CONTAINER_NAME, ""): item.memory_working_set for item in items
                }
                used[uid] = sum(by_container[uid].values())
                continue
            taken = await asyncio.to_thread(self._measure, worker, items)
            by_container[uid] = taken.of_containers()
            used[uid] = taken.whole
        ranked = evict.rank([w.pod for w in workers.values()], used, signal.resource)
        if not ranked:
            return False
        uid = ranked[0]["metadata"]["uid"]
        text = evict.message(workers[uid].pod, signal, by_container[uid])
        await self._evict(workers[uid], signal.name, text, disrupted=True)
        return True

    # -- pods with limits

    async def _over_limits(self, reading: Reading) -> bool:
        """Whether any had to go."""
        now, free = asyncio.get_running_loop().time(), reading.nodefs.available
        workers = {
            uid: worker
            for uid, worker in self._kubelet.workers.items()
            if uid in self._began or evict.is_limited(worker.pod)
        }
        self._began = {uid: self._began.get(uid, now) for uid in workers}
        self._looks = {uid: look for uid, look in self._looks.items() if uid in workers}
        gone = False
        for uid, worker in workers.items():
            if not _may_go(worker) or not self._is_due(uid, now, free):
                continue
            items = stats.by_pod(await self._runtime.stats({POD_UID: uid})).get(uid, [])
            taken = await asyncio.to_thread(self._measure, worker, items)
            self._looks[uid] = _Look(now, free, evict.headroom(worker.pod, taken))
            if (exceeded := evict.over_limit(worker.pod, taken)) is not None:
                await self._evict(worker, *exceeded, disrupted=False)
                gone = True
        return gone

    def _is_due(self, uid: str, now: float, free: int) -> bool:
        """Not before the disk lost as much as the pod had left, unless somebody may have freed."""
        look = self._looks.get(uid)
        if look is None or now - look.at >= _LONGEST:
            return True
        return look.free - free >= max(look.headroom, 1)

    def _measure(self, worker: Worker, items: list[ContainerStats]) -> Taken:
        """Blocks: walks over its folders."""
        settings = self._kubelet.settings
        beside = self._images is None or _same_disk(self._images, settings.pods_dir)
        containers: dict[str, Tree] = {}
        for item in items:
            name = item.labels.get(CONTAINER_NAME, "")
            logs = usage.of_tree(spec.log_directory(worker.pod, settings) / name)
            root = Tree(item.rootfs_used, item.rootfs_inodes) if beside else NOTHING
            containers[name] = logs + root
        on_disk = [v for v in stats.volumes_of(worker) if v.kind in _EPHEMERAL and v.tree]
        return Taken(
            volumes={v.name: v.used for v in on_disk},
            containers=containers,
            whole=sum(v.used for v in on_disk) + sum(tree.used for tree in containers.values()),
        )

    async def _evict(self, worker: Worker, signal: str, text: str, *, disrupted: bool) -> None:
        _log.warning("evicting pod %s: %s", worker.pod["metadata"]["name"], text)
        self._kubelet.counters.evictions[signal] += 1
        self._kubelet.recorder.record(worker.pod, "Warning", evict.REASON, text)
        why = Waiting(evict.REASON, text)
        worker.evict(why, disruption=text if disrupted else "", grace=_GRACE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLEANED_SECONDS):
                await worker.ended.wait()


def _may_go(worker: Worker) -> bool:
    return bool(worker.view.alive) and worker.memory.evicted is None


def _same_disk(a: Path, b: Path) -> bool:
    return a.stat().st_dev == b.stat().st_dev


def _look(data_dir: Path, images: Path) -> Reading:
    memory = stats.memory_info()
    apart = not _same_disk(images, data_dir)
    return Reading(
        memory=memory["MemTotal"],
        memory_available=memory["MemAvailable"],
        nodefs=usage.of_file_system(data_dir),
        imagefs=usage.of_file_system(images) if apart else None,
    )
