"""
How much CPU and memory the node and its pods use: the summary API and resource metrics.

Containers' figures come from the runtime, the node's from /proc. Source: the kubelet
stats API (stats/v1alpha1) and KEP-727.
"""

import asyncio
import os
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from controlplane.objects import meta
from node.cri.base import ContainerStats, Runtime
from node.kubelet.base import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from node.kubelet.run import Kubelet

_PROC = Path("/proc")


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


def _of_node() -> tuple[float, int, int]:
    """(CPU seconds, working set, available)."""
    memory = memory_info()
    available = memory["MemAvailable"]
    return cpu_seconds(), memory["MemTotal"] - available, available


def _by_pod(items: Iterable[ContainerStats]) -> dict[str, list[ContainerStats]]:
    out: dict[str, list[ContainerStats]] = {}
    for item in items:
        if item.timestamp:  # zero: it has ended
            out.setdefault(item.labels.get(POD_UID, ""), []).append(item)
    return out


def _cpu(nanoseconds: int, nano_cores: int | None, time: str) -> dict[str, Any]:
    out: dict[str, Any] = {"time": time, "usageCoreNanoSeconds": nanoseconds}
    if nano_cores is not None:
        out["usageNanoCores"] = nano_cores
    return out


def _memory(items: list[ContainerStats], time: str) -> dict[str, Any]:
    return {
        "time": time,
        "usageBytes": sum(i.memory_usage for i in items),
        "workingSetBytes": sum(i.memory_working_set for i in items),
        "rssBytes": sum(i.memory_rss for i in items),
        "pageFaults": sum(i.page_faults for i in items),
        "majorPageFaults": sum(i.major_page_faults for i in items),
    }


async def summary(kubelet: Kubelet, runtime: Runtime, now: datetime) -> dict[str, Any]:
    found = _by_pod(await runtime.stats())
    cpu, used, available = await asyncio.to_thread(_of_node)
    disk = await asyncio.to_thread(os.statvfs, kubelet.settings.pods_dir.parent)
    time = meta.rfc3339(now)
    node = {
        "nodeName": kubelet.settings.node_name,
        "startTime": kubelet.started_at,
        "cpu": _cpu(int(cpu * 1e9), None, time),
        "memory": {"time": time, "workingSetBytes": used, "availableBytes": available},
        "fs": {
            "time": time,
            "availableBytes": disk.f_bavail * disk.f_frsize,
            "capacityBytes": disk.f_blocks * disk.f_frsize,
            "usedBytes": (disk.f_blocks - disk.f_bfree) * disk.f_frsize,
            "inodesFree": disk.f_ffree,
            "inodes": disk.f_files,
            "inodesUsed": disk.f_files - disk.f_ffree,
        },
    }
    return {"node": node, "pods": [_pod(items, kubelet, time) for items in found.values()]}


def _pod(items: list[ContainerStats], kubelet: Kubelet, time: str) -> dict[str, Any]:
    labels = items[0].labels
    rates = [i.cpu_nano_cores for i in items]
    whole = None if None in rates else sum(r for r in rates if r is not None)
    worker = kubelet.workers.get(labels.get(POD_UID, ""))
    start = worker.status.get("startTime") if worker is not None else None
    return {
        "podRef": {
            "name": labels.get(POD_NAME, ""),
            "namespace": labels.get(POD_NAMESPACE, ""),
            "uid": labels.get(POD_UID, ""),
        },
        "startTime": start or time,
        "containers": [_container(item, time) for item in items],
        "cpu": _cpu(sum(i.cpu_ns for i in items), whole, time),
        "memory": _memory(items, time),
    }


def _container(item: ContainerStats, time: str) -> dict[str, Any]:
    return {
        "name": item.labels.get(CONTAINER_NAME, item.name),
        "startTime": time,
        "cpu": _cpu(item.cpu_ns, item.cpu_nano_cores, time),
        "memory": _memory([item], time),
        "rootfs": {"time": time, "usedBytes": item.rootfs_used, "inodesUsed": item.rootfs_inodes},
    }


async def resource_metrics(kubelet: Kubelet, runtime: Runtime, now: datetime) -> str:
    """Prometheus text of /metrics/resource: what metrics-server scrapes."""
    found = _by_pod(await runtime.stats())
    cpu, used, _ = await asyncio.to_thread(_of_node)
    stamp = int(now.timestamp() * 1000)
    lines = _family("node_cpu_usage_seconds_total", "counter", "Cumulative CPU time of the node")
    lines.append(f"node_cpu_usage_seconds_total {cpu:.6f} {stamp}")
    lines += _family("node_memory_working_set_bytes", "gauge", "Working set of the node")
    lines.append(f"node_memory_working_set_bytes {used} {stamp}")
    per_container = [
        (_labels(item.labels, container=True), item) for items in found.values() for item in items
    ]
    per_pod = [(_labels(items[0].labels, container=False), items) for items in found.values()]
    lines += _family("container_cpu_usage_seconds_total", "counter", "CPU time of the container")
    lines += [
        f"container_cpu_usage_seconds_total{{{labels}}} {i.cpu_ns / 1e9:.6f} {stamp}"
        for labels, i in per_container
    ]
    lines += _family("container_memory_working_set_bytes", "gauge", "Working set of the container")
    lines += [
        f"container_memory_working_set_bytes{{{labels}}} {i.memory_working_set} {stamp}"
        for labels, i in per_container
    ]
    lines += _family("pod_cpu_usage_seconds_total", "counter", "CPU time of the pod")
    lines += [
        f"pod_cpu_usage_seconds_total{{{labels}}} {sum(i.cpu_ns for i in items) / 1e9:.6f} {stamp}"
        for labels, items in per_pod
    ]
    lines += _family("pod_memory_working_set_bytes", "gauge", "Working set of the pod")
    lines += [
        f"pod_memory_working_set_bytes{{{labels}}} "
        f"{sum(i.memory_working_set for i in items)} {stamp}"
        for labels, items in per_pod
    ]
    lines += [*_family("scrape_error", "gauge", "1 if there was an error"), "scrape_error 0"]
    return "\n".join(lines) + "\n"


def _family(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {name} [STABLE] {text}", f"# TYPE {name} {kind}"]


def _labels(labels: Mapping[str, str], *, container: bool) -> str:
    pairs = {"namespace": labels.get(POD_NAMESPACE, ""), "pod": labels.get(POD_NAME, "")}
    if container:
        pairs = {"container": labels.get(CONTAINER_NAME, ""), **pairs}
    return ",".join(f'{key}="{value}"' for key, value in pairs.items())
