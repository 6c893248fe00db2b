"""
The kubelet's own metrics, those that autoscalers scrape, and those of probes: Prometheus' text.

Names, labels and stability are kubelet's. Everything is read when somebody asks.
"""

import asyncio
import os
import platform
import resource
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from controlplane.objects import meta
from controlplane.objects.version import VERSION
from node.cri.base import ContainerStats, Runtime
from node.kubelet import stats
from node.kubelet.base import CONTAINER_NAME, POD_NAME, POD_NAMESPACE, POD_UID
from node.kubelet.exposition import Page
from node.kubelet.run import Kubelet
from node.kubelet.stats import VolumeUse

_OWN = Path("/proc/self")
_VOLUMES = (
    ("capacity_bytes", "Capacity in bytes of the volume"),
    ("available_bytes", "Number of available bytes in the volume"),
    ("used_bytes", "Number of used bytes in the volume"),
    ("inodes", "Maximum number of inodes in the volume"),
    ("inodes_free", "Number of free inodes in the volume"),
    ("inodes_used", "Number of used inodes in the volume"),
)


async def own(kubelet: Kubelet) -> str:
    """/metrics."""
    page = Page()
    _build(page, kubelet)
    _pods(page, kubelet)
    _counters(page, kubelet)
    _volumes(page, await asyncio.to_thread(_claims, kubelet))
    _process(page)
    return page.text()


def _build(page: Page, kubelet: Kubelet) -> None:
    major, minor = VERSION.removeprefix("v").split(".")[:2]
    labels = {"git_version": VERSION, "major": major, "minor": minor}
    labels["platform"] = f"linux/{platform.machine()}"
    page.begin("kubernetes_build_info", "gauge", "[ALPHA] What this is.")
    page.add("kubernetes_build_info", 1, labels)
    page.begin("kubelet_node_name", "gauge", "[ALPHA] The node's name. The count is always 1.")
    page.add("kubelet_node_name", 1, {"node": kubelet.settings.node_name})


def _pods(page: Page, kubelet: Kubelet) -> None:
    workers = list(kubelet.workers.values())
    running = sum(worker.view.sandbox is not None for worker in workers)
    states: dict[str, int] = {}
    for worker in workers:
        for seen in worker.view.containers:
            state = seen.status.state.name.lower()
            states[state] = states.get(state, 0) + 1
    text = "[ALPHA] Number of pods that have a running pod sandbox"
    page.one("kubelet_running_pods", "gauge", text, running)
    text = "[ALPHA] Number of containers currently running"
    page.begin("kubelet_running_containers", "gauge", text)
    for state, count in sorted(states.items()):
        page.add("kubelet_running_containers", count, {"container_state": state})
    text = "[ALPHA] The number of pods the kubelet is being instructed to run"
    page.begin("kubelet_desired_pods", "gauge", text)
    page.add("kubelet_desired_pods", len(workers), {"static": ""})


def _counters(page: Page, kubelet: Kubelet) -> None:
    counted = kubelet.counters
    text = "[ALPHA] Cumulative number of pods started"
    page.one("kubelet_started_pods_total", "counter", text, counted.started_pods)
    listed = (
        ("started_containers_total", "container_type", counted.started_containers, "started"),
        ("evictions", "eviction_signal", counted.evictions, "evicted, by what was short"),
        ("admission_rejections_total", "reason", counted.rejections, "refused at admission"),
    )
    for name, label, counter, what in listed:
        noun = "containers" if "containers" in name else "pods"
        page.begin(f"kubelet_{name}", "counter", f"[ALPHA] Cumulative number of {noun} {what}")
        for value, count in sorted(counter.items()):
            page.add(f"kubelet_{name}", count, {label: value})


def _claims(kubelet: Kubelet) -> dict[tuple[str, str], VolumeUse]:
    """Each claim once, however many pods share it. Blocks."""
    found: dict[tuple[str, str], VolumeUse] = {}
    for worker in list(kubelet.workers.values()):
        namespace = worker.pod["metadata"]["namespace"]
        for volume in stats.volumes_of(worker, claims_only=True):
            found.setdefault((namespace, volume.claim), volume)
    return found


def _volumes(page: Page, claims: Mapping[tuple[str, str], VolumeUse]) -> None:
    for key, text in _VOLUMES:
        name = f"kubelet_volume_stats_{key}"
        page.begin(name, "gauge", f"[ALPHA] {text}")
        for (namespace, claim), volume in claims.items():
            value = getattr(volume.disk, key.removesuffix("_bytes"))
            page.add(name, value, {"namespace": namespace, "persistentvolumeclaim": claim})


def _process(page: Page) -> None:
    """Of the agent itself, as every Prometheus client library tells."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    fields = (_OWN / "stat").read_text().rpartition(")")[2].split()
    boot = next(
        int(line.split()[1])
        for line in Path("/proc/stat").read_text().splitlines()
        if line.startswith("btime")
    )
    began = boot + int(fields[19]) / os.sysconf("SC_CLK_TCK")
    text = "Total user and system CPU time spent in seconds."
    page.one("process_cpu_seconds_total", "counter", text, used.ru_utime + used.ru_stime)
    page.one("process_max_fds", "gauge", "Maximum number of open file descriptors.", _limit())
    text = "Number of open file descriptors."
    page.one("process_open_fds", "gauge", text, len(list((_OWN / "fd").iterdir())))
    resident = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    page.one("process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident)
    text = "Start time of the process since unix epoch in seconds."
    page.one("process_start_time_seconds", "gauge", text, began)
    page.one("process_virtual_memory_bytes", "gauge", "Virtual memory in bytes.", int(fields[20]))


def _limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


async def resources(kubelet: Kubelet, runtime: Runtime, now: datetime) -> str:
    """/metrics/resource: what metrics-server scrapes."""
    found = [item for items in stats.by_pod(await runtime.stats()).values() for item in items]
    memory = await asyncio.to_thread(stats.memory_info)
    cpu = await asyncio.to_thread(stats.cpu_seconds)
    stamp, page = int(now.timestamp() * 1000), Page()
    text = "[STABLE] Cumulative cpu time consumed by the node in core-seconds"
    page.begin("node_cpu_usage_seconds_total", "counter", text)
    page.add("node_cpu_usage_seconds_total", cpu, stamp=stamp)
    text = "[STABLE] Current working set of the node in bytes"
    page.begin("node_memory_working_set_bytes", "gauge", text)
    used = memory["MemTotal"] - memory["MemAvailable"]
    page.add("node_memory_working_set_bytes", used, stamp=stamp)
    text = "[ALPHA] Current swap usage of the node in bytes. Reported only on non-windows systems"
    page.begin("node_swap_usage_bytes", "gauge", text)
    page.add("node_swap_usage_bytes", memory["SwapTotal"] - memory["SwapFree"], stamp=stamp)
    _containers(page, kubelet, found, stamp)
    _sums(page, found, stamp)
    text = "1 if there was an error while getting container metrics, 0 otherwise"
    page.one("scrape_error", "gauge", f"[ALPHA] (Deprecated since 1.29.0) {text}", 0)
    page.one("resource_scrape_error", "gauge", f"[STABLE] {text}", 0)
    return page.text()


def _containers(page: Page, kubelet: Kubelet, found: list[ContainerStats], stamp: int) -> None:
    name, text = "container_start_time_seconds", "Start time of the container since unix epoch"
    page.begin(name, "gauge", f"[STABLE] {text} in seconds")
    for item in found:
        worker = kubelet.workers.get(item.labels.get(POD_UID, ""))
        if began := stats.started(worker, item.id):
            page.add(name, meta.parse_time(began).timestamp(), _labels(item, container=True))
    name, text = "container_cpu_usage_seconds_total", "Cumulative cpu time consumed by the"
    page.begin(name, "counter", f"[STABLE] {text} container in core-seconds")
    for item in found:
        page.add(name, item.cpu_ns / 1e9, _labels(item, container=True), stamp=stamp)
    name = "container_memory_working_set_bytes"
    page.begin(name, "gauge", "[STABLE] Current working set of the container in bytes")
    for item in found:
        page.add(name, item.memory_working_set, _labels(item, container=True), stamp=stamp)


def _sums(page: Page, found: list[ContainerStats], stamp: int) -> None:
    pods: dict[str, list[ContainerStats]] = {}
    for item in found:
        pods.setdefault(item.labels.get(POD_UID, ""), []).append(item)
    name, text = "pod_cpu_usage_seconds_total", "Cumulative cpu time consumed by the pod in"
    page.begin(name, "counter", f"[STABLE] {text} core-seconds")
    for items in pods.values():
        value = sum(item.cpu_ns for item in items) / 1e9
        page.add(name, value, _labels(items[0], container=False), stamp=stamp)
    name = "pod_memory_working_set_bytes"
    page.begin(name, "gauge", "[STABLE] Current working set of the pod in bytes")
    for items in pods.values():
        working_set = sum(item.memory_working_set for item in items)
        page.add(name, working_set, _labels(items[0], container=False), stamp=stamp)


def _labels(item: ContainerStats, *, container: bool) -> dict[str, str]:
    out = {"container": item.labels.get(CONTAINER_NAME, "")} if container else {}
    return out | {
        "pod": item.labels.get(POD_NAME, ""),
        "namespace": item.labels.get(POD_NAMESPACE, ""),
    }


def probes(kubelet: Kubelet) -> str:
    """/metrics/probes."""
    page, name = Page(), "prober_probe_total"
    text = "[BETA] Cumulative number of a liveness, readiness or startup probe for a container"
    page.begin(name, "counter", f"{text} by result.")
    for worker in kubelet.workers.values():
        about = worker.pod["metadata"]
        for (container, kind, result), count in worker.probed.items():
            labels = {
                "container": container,
                "namespace": about["namespace"],
                "pod": about["name"],
                "pod_uid": worker.uid,
                "probe_type": kind,
                "result": result,
            }
            page.add(name, count, labels)
    return page.text()
