"""
/metrics/cadvisor: what dashboards know of containers, under cAdvisor's names.

CPU and memory come from the runtime, throttling and limits from the cgroups, network
counters from the pod's own namespace. Read when somebody asks; what a kernel or a
cgroup version does not tell is left out, so that no series is a guess.
"""

import asyncio
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from controlplane.objects import meta
from node.cri.base import ContainerStats, Runtime
from node.kubelet import cgroups, resources, stats, usage
from node.kubelet.base import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID, all_containers
from node.kubelet.exposition import Page
from node.kubelet.run import Kubelet

_PERIOD = 100_000  # µs, of a container with a CPU limit
Labels = dict[str, str]


@dataclass(frozen=True, slots=True)
class _Family:
    kind: str
    text: str


_FAMILIES = {
    "container_cpu_usage_seconds_total": _Family("counter", "Cumulative cpu time consumed"),
    "container_cpu_cfs_periods_total": _Family("counter", "Number of elapsed enforcement periods"),
    "container_cpu_cfs_throttled_periods_total": _Family("counter", "Number of throttled periods"),
    "container_cpu_cfs_throttled_seconds_total": _Family("counter", "Time that was throttled"),
    "container_memory_usage_bytes": _Family("gauge", "Memory usage, caches included"),
    "container_memory_working_set_bytes": _Family("gauge", "Current working set"),
    "container_memory_rss": _Family("gauge", "Size of RSS in bytes"),
    "container_memory_cache": _Family("gauge", "Number of bytes of page cache memory"),
    "container_memory_failures_total": _Family("counter", "Memory allocation failures"),
    "container_oom_events_total": _Family("counter", "Out of memory events"),
    "container_fs_usage_bytes": _Family("gauge", "Bytes that the container takes on the disk"),
    "container_fs_limit_bytes": _Family("gauge", "Bytes of the file system it is on"),
    "container_fs_inodes_total": _Family("gauge", "Inodes that the container takes"),
    "container_network_receive_bytes_total": _Family("counter", "Bytes received"),
    "container_network_receive_packets_total": _Family("counter", "Packets received"),
    "container_network_receive_errors_total": _Family("counter", "Errors while receiving"),
    "container_network_receive_packets_dropped_total": _Family("counter", "Dropped receiving"),
    "container_network_transmit_bytes_total": _Family("counter", "Bytes transmitted"),
    "container_network_transmit_packets_total": _Family("counter", "Packets transmitted"),
    "container_network_transmit_errors_total": _Family("counter", "Errors while transmitting"),
    "container_network_transmit_packets_dropped_total": _Family("counter", "Dropped transmitting"),
    "container_spec_cpu_period": _Family("gauge", "CPU period of the container"),
    "container_spec_cpu_quota": _Family("gauge", "CPU quota of the container"),
    "container_spec_cpu_shares": _Family("gauge", "CPU share of the container"),
    "container_spec_memory_limit_bytes": _Family("gauge", "Memory limit of the container"),
    "container_start_time_seconds": _Family("gauge", "Start time since unix epoch in seconds"),
    "container_last_seen": _Family("gauge", "Last time the container was seen"),
    "machine_cpu_cores": _Family("gauge", "Number of logical CPU cores"),
    "machine_memory_bytes": _Family("gauge", "Amount of memory installed on the machine"),
}
Series = tuple[str, Labels, float]


async def metrics(kubelet: Kubelet, runtime: Runtime, now: datetime) -> str:
    found = stats.by_pod(await runtime.stats())
    disks = await runtime.image_fs()
    path = Path(disks[0].mountpoint) if disks else kubelet.settings.pods_dir.parent
    series = await asyncio.to_thread(lambda: list(_collect(kubelet, found, path, now)))
    sorted_in: dict[str, list[Series]] = {name: [] for name in _FAMILIES}
    for item in series:
        sorted_in[item[0]].append(item)
    page, stamp = Page(), int(now.timestamp() * 1000)
    for name, items in sorted_in.items():
        if items:
            page.begin(name, _FAMILIES[name].kind, _FAMILIES[name].text)
        for _, labels, value in items:
            page.add(name, value, labels, stamp=stamp if labels else None)
    return page.text()


def _collect(
    kubelet: Kubelet, found: Mapping[str, list[ContainerStats]], disk: Path, now: datetime
) -> Iterator[Series]:
    """Blocks: reads /proc and cgroups."""
    whole = usage.of_file_system(disk).capacity
    for items in found.values():
        for item in items:
            yield from _of_runtime(kubelet, item, whole, now)
            yield from _of_cgroup(kubelet, item)
            yield from _of_spec(kubelet, item)
        yield from _network(kubelet, items)
    yield "machine_cpu_cores", {}, os.cpu_count() or 1
    yield "machine_memory_bytes", {}, stats.memory_info()["MemTotal"]


def _labels(kubelet: Kubelet, item: ContainerStats) -> Labels:
    worker = kubelet.workers.get(item.labels.get(POD_UID, ""))
    image, where = "", ""
    if worker is not None:
        found = [seen for seen in worker.view.containers if seen.status.id == item.id]
        image = found[0].status.image_ref if found else ""
        where = cgroups.of_container(worker.pod, item.id, kubelet.settings)
    return {
        "container": item.labels.get(CONTAINER_NAME, ""),
        "id": where,
        "image": image,
        "name": item.id,
        "namespace": item.labels.get(POD_NAMESPACE, ""),
        "pod": item.labels.get(POD_NAME, ""),
    }


def _of_runtime(
    kubelet: Kubelet, item: ContainerStats, disk: int, now: datetime
) -> Iterator[Series]:
    labels = _labels(kubelet, item)
    yield "container_cpu_usage_seconds_total", {**labels, "cpu": "total"}, item.cpu_ns / 1e9
    yield "container_memory_usage_bytes", labels, item.memory_usage
    yield "container_memory_working_set_bytes", labels, item.memory_working_set
    yield "container_memory_rss", labels, item.memory_rss
    scopes = (("pgfault", item.page_faults), ("pgmajfault", item.major_page_faults))
    for kind, count in scopes:
        more = {"failure_type": kind, "scope": "container"}
        yield "container_memory_failures_total", labels | more, count
    yield "container_fs_usage_bytes", {**labels, "device": ""}, item.rootfs_used
    yield "container_fs_limit_bytes", {**labels, "device": ""}, disk
    yield "container_fs_inodes_total", {**labels, "device": ""}, item.rootfs_inodes
    yield "container_last_seen", labels, int(now.timestamp())
    began = stats.started(kubelet.workers.get(item.labels.get(POD_UID, "")), item.id)
    if began:
        yield "container_start_time_seconds", labels, int(meta.parse_time(began).timestamp())


def _of_cgroup(kubelet: Kubelet, item: ContainerStats) -> Iterator[Series]:
    worker = kubelet.workers.get(item.labels.get(POD_UID, ""))
    if worker is None:
        return
    labels, v2 = _labels(kubelet, item), kubelet.settings.cgroup_v2
    cpu = _pairs(cgroups.folder("cpu", labels["id"], v2=v2) / "cpu.stat")
    if "nr_periods" in cpu:
        seconds = cpu.get("throttled_usec", 0) / 1e6 + cpu.get("throttled_time", 0) / 1e9
        yield "container_cpu_cfs_periods_total", labels, cpu["nr_periods"]
        yield "container_cpu_cfs_throttled_periods_total", labels, cpu["nr_throttled"]
        yield "container_cpu_cfs_throttled_seconds_total", labels, seconds
    memory = cgroups.folder("memory", labels["id"], v2=v2)
    numbers = _pairs(memory / "memory.stat")
    if v2 and "file" in numbers:
        yield "container_memory_cache", labels, numbers["file"]
    elif "total_cache" in numbers:
        yield "container_memory_cache", labels, numbers["total_cache"]
    events = _pairs(memory / ("memory.events" if v2 else "memory.oom_control"))
    if "oom_kill" in events:
        yield "container_oom_events_total", labels, events["oom_kill"]


def _of_spec(kubelet: Kubelet, item: ContainerStats) -> Iterator[Series]:
    worker = kubelet.workers.get(item.labels.get(POD_UID, ""))
    if worker is None:
        return
    name, labels = item.labels.get(CONTAINER_NAME, ""), _labels(kubelet, item)
    for container in all_containers(worker.pod):
        if container["name"] != name:
            continue
        asked = resources.of_container(worker.pod, container, kubelet.settings)
        yield "container_spec_cpu_period", labels, _PERIOD
        yield "container_spec_cpu_shares", labels, asked.cpu_shares
        yield "container_spec_memory_limit_bytes", labels, asked.memory_limit
        if asked.cpu_quota:
            yield "container_spec_cpu_quota", labels, asked.cpu_quota


def _network(kubelet: Kubelet, items: list[ContainerStats]) -> Iterator[Series]:
    """Of the pod; one with the host's network has none of its own."""
    worker = kubelet.workers.get(items[0].labels.get(POD_UID, ""))
    if worker is None or worker.pod["spec"].get("hostNetwork"):
        return
    about = worker.pod["metadata"]
    labels = {
        "container": "",
        "id": resources.cgroup_parent(worker.pod, kubelet.settings),
        "image": "",
        "name": "",
        "namespace": about["namespace"],
        "pod": about["name"],
    }
    table = _device_table(kubelet, items)
    for line in table.splitlines()[2:]:
        name, _, rest = line.partition(":")
        numbers = [int(field) for field in rest.split()]
        if name.strip() == "lo" or len(numbers) < 12:
            continue
        with_name = {**labels, "interface": name.strip()}
        for offset, way in ((0, "receive"), (8, "transmit")):
            for index, what in enumerate(("bytes", "packets", "errors", "packets_dropped")):
                series = f"container_network_{way}_{what}_total"
                yield series, with_name, numbers[offset + index]


def _device_table(kubelet: Kubelet, items: list[ContainerStats]) -> str:
    """/proc/net/dev as a process of the pod sees it."""
    for item in items:
        where = _labels(kubelet, item)["id"]
        folder = cgroups.folder("memory", where, v2=kubelet.settings.cgroup_v2)
        try:
            first = (folder / "cgroup.procs").read_text().split()[0]
            return Path("/proc", first, "net/dev").read_text()
        except (OSError, IndexError):
            continue
    return ""


def _pairs(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split() for line in lines)
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}
