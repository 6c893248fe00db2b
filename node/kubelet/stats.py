"""
How much CPU, memory and disk the node and its pods use: the summary API.

Containers' figures come from the runtime, the node's from /proc, those of volumes from
their file systems; nothing is measured before somebody asks. Source: the kubelet stats API
(stats/v1alpha1) and KEP-727.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.objects import meta
from node.cri.base import ContainerStats, FsUsage, Runtime
from node.kubelet import spec, usage
from node.kubelet.base import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID, Settings
from node.kubelet.run import Kubelet
from node.kubelet.usage import FileSystem, Tree
from node.kubelet.view import moment
from node.kubelet.worker import Worker

_PROC = Path("/proc")
# Volumes whose use is a part of the pod's ephemeral storage, where they are on the disk.
_EPHEMERAL = ("emptyDir", "configMap", "downwardAPI")
_MEASURED = (*_EPHEMERAL, "secret", "projected")


def memory_info(proc: Path = _PROC) -> dict[str, int]:
    """/proc/meminfo in bytes. Blocks, but never on a disk."""
    out = {}
    for line in (proc / "meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        out[name] = int(rest.split()[0]) * 1024
    return out


def cpu_seconds(proc: Path = _PROC) -> float:
    """What all CPUs worked since the boot, idle and waiting not counted."""
    fields = (proc / "stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeUse:
    """One volume of a pod; ``claim`` is "" where it is no claim's."""

    name: str
    claim: str
    kind: str
    disk: FileSystem
    tree: Tree | None = None  # of a part of a file system: what the volume itself takes

    @property
    def used(self) -> int:
        return self.tree.used if self.tree is not None else self.disk.used

    @property
    def inodes_used(self) -> int:
        return self.tree.inodes if self.tree is not None else self.disk.inodes_used


def volumes_of(worker: Worker, *, claims_only: bool = False) -> list[VolumeUse]:
    """
    Of a pod's volumes, those that can be measured; hostPath ones belong to the host. Blocks.

    Those on the disk are walked over; of claims only their file systems are asked.
    """
    ready, out = worker.ready, []
    if ready is None:
        return []
    for volume in worker.pod["spec"].get("volumes", ()):
        name = volume["name"]
        kind = next((key for key in volume if key != "name"), "emptyDir")
        found = ready.claims.get(name)
        if name not in ready.paths or (found is None and (claims_only or kind not in _MEASURED)):
            continue
        try:
            disk = usage.of_file_system(ready.paths[name])
        except OSError:
            continue
        whole = found is not None or _is_in_memory(volume)
        tree = None if whole else usage.of_tree(ready.paths[name])
        claim = found.claim if found is not None else ""
        out.append(VolumeUse(name=name, claim=claim, kind=kind, disk=disk, tree=tree))
    return out


def _is_in_memory(volume: Mapping[str, Any]) -> bool:
    return bool((volume.get("emptyDir") or {}).get("medium"))


def by_pod(items: Iterable[ContainerStats]) -> dict[str, list[ContainerStats]]:
    """By the uid of the pod; those that have ended have no figures."""
    out: dict[str, list[ContainerStats]] = {}
    for item in items:
        if item.timestamp:
            out.setdefault(item.labels.get(POD_UID, ""), []).append(item)
    return out


async def summary(
    kubelet: Kubelet, runtime: Runtime, now: datetime, *, brief: bool = False
) -> dict[str, Any]:
    """``brief``: CPU and memory only, so that no disk is touched."""
    found = by_pod(await runtime.stats())
    images = () if brief else await runtime.image_fs()
    return await asyncio.to_thread(_summary, kubelet, found, images, meta.rfc3339(now), brief=brief)


def _summary(
    kubelet: Kubelet,
    found: Mapping[str, list[ContainerStats]],
    images: Sequence[FsUsage],
    time: str,
    *,
    brief: bool,
) -> dict[str, Any]:
    memory = memory_info()
    available, total = memory["MemAvailable"], memory["MemTotal"]
    nanoseconds = int(cpu_seconds() * 1e9)
    node: dict[str, Any] = {
        "nodeName": kubelet.settings.node_name,
        "startTime": kubelet.started_at,
        "cpu": {"time": time, "usageCoreNanoSeconds": nanoseconds},
        "memory": {
            "time": time,
            "availableBytes": available,
            "workingSetBytes": total - available,
            "usageBytes": total - memory["MemFree"],
            "rssBytes": memory["AnonPages"],
        },
        "swap": {
            "time": time,
            "swapAvailableBytes": memory["SwapFree"],
            "swapUsageBytes": memory["SwapTotal"] - memory["SwapFree"],
        },
    }
    disk = None
    if not brief:
        disk = usage.of_file_system(kubelet.settings.pods_dir.parent)
        node |= {"fs": _disk(disk, time), "rlimit": _processes(time)}
        if images:
            node["runtime"] = {"imageFs": _image_disk(images[0], time)}
    pods = [_pod(items, kubelet, time, disk) for items in found.values()]
    return {"node": node, "pods": pods}


def _disk(disk: FileSystem, time: str, tree: Tree | None = None) -> dict[str, Any]:
    return {
        "time": time,
        "availableBytes": disk.available,
        "capacityBytes": disk.capacity,
        "usedBytes": disk.used if tree is None else tree.used,
        "inodesFree": disk.inodes_free,
        "inodes": disk.inodes,
        "inodesUsed": disk.inodes_used if tree is None else tree.inodes,
    }


def _image_disk(images: FsUsage, time: str) -> dict[str, Any]:
    disk = usage.of_file_system(Path(images.mountpoint))
    return _disk(disk, time, Tree(images.used_bytes, images.inodes_used))


def _processes(time: str) -> dict[str, Any]:
    most = int((_PROC / "sys/kernel/pid_max").read_text())
    running = (_PROC / "loadavg").read_text().split()[3].partition("/")[2]
    return {"time": time, "maxpid": most, "curproc": int(running)}


def _pod(
    items: Sequence[ContainerStats], kubelet: Kubelet, time: str, disk: FileSystem | None
) -> dict[str, Any]:
    labels = items[0].labels
    rates = [i.cpu_nano_cores for i in items]
    whole = None if None in rates else sum(r for r in rates if r is not None)
    worker = kubelet.workers.get(labels.get(POD_UID, ""))
    start = worker.status.get("startTime") if worker is not None else None
    out: dict[str, Any] = {
        "podRef": {
            "name": labels.get(POD_NAME, ""),
            "namespace": labels.get(POD_NAMESPACE, ""),
            "uid": labels.get(POD_UID, ""),
        },
        "startTime": start or time,
        "containers": [_container(item, time, worker) for item in items],
        "cpu": _cpu(sum(i.cpu_ns for i in items), whole, time),
        "memory": _memory(items, time),
    }
    if disk is not None and worker is not None:
        _add_disk(out, items, (worker, kubelet.settings), disk)
    return out


def _add_disk(
    out: dict[str, Any],
    items: Sequence[ContainerStats],
    of: tuple[Worker, Settings],
    disk: FileSystem,
) -> None:
    (worker, settings), time = of, out["cpu"]["time"]
    volumes, whole = volumes_of(worker), usage.NOTHING
    for item, shown in zip(items, out["containers"], strict=True):
        root = Tree(item.rootfs_used, item.rootfs_inodes)
        logs = usage.of_tree(spec.log_directory(worker.pod, settings) / shown["name"])
        shown |= {"rootfs": _disk(disk, time, root), "logs": _disk(disk, time, logs)}
        whole += root + logs
    for volume in volumes:
        if volume.kind in _EPHEMERAL and volume.tree is not None:
            whole += volume.tree
    namespace = worker.pod["metadata"]["namespace"]
    out["volume"] = [_volume(volume, namespace, time) for volume in volumes]
    out["ephemeral-storage"] = _disk(disk, time, whole)


def _volume(volume: VolumeUse, namespace: str, time: str) -> dict[str, Any]:
    out = {"name": volume.name, **_disk(volume.disk, time, volume.tree)}
    if volume.claim:
        out["pvcRef"] = {"name": volume.claim, "namespace": namespace}
    return out


def _container(item: ContainerStats, time: str, worker: Worker | None) -> dict[str, Any]:
    return {
        "name": item.labels.get(CONTAINER_NAME, item.name),
        "startTime": started(worker, item.id) or time,
        "cpu": _cpu(item.cpu_ns, item.cpu_nano_cores, time),
        "memory": _memory([item], time),
    }


def started(worker: Worker | None, id_: str) -> str:
    """When a container began, "" where it is not known."""
    if worker is not None:
        for seen in worker.view.containers:
            if seen.status.id == id_ and seen.status.started_at:
                return meta.rfc3339(moment(seen.status.started_at))
    return ""


def _cpu(nanoseconds: int, nano_cores: int | None, time: str) -> dict[str, Any]:
    out: dict[str, Any] = {"time": time, "usageCoreNanoSeconds": nanoseconds}
    if nano_cores is not None:
        out["usageNanoCores"] = nano_cores
    return out


def _memory(items: Sequence[ContainerStats], time: str) -> dict[str, Any]:
    return {
        "time": time,
        "usageBytes": sum(i.memory_usage for i in items),
        "workingSetBytes": sum(i.memory_working_set for i in items),
        "rssBytes": sum(i.memory_rss for i in items),
        "pageFaults": sum(i.page_faults for i in items),
        "majorPageFaults": sum(i.major_page_faults for i in items),
    }
