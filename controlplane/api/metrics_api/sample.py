"""
From what a kubelet says to what is used: two samples make a rate.

A kubelet's summary counts CPU time since the start; use is the difference of two summaries
over the time between them, the window that the API tells. Source: the kubelet
stats API (stats/v1alpha1) and the resource metrics API (metrics.k8s.io).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Count:
    cpu_ns: int  # since the start
    memory: int  # working set, bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """One summary; ``at`` is when it was taken, in seconds of a monotonic clock."""

    at: float
    node: Count
    containers: Mapping[tuple[str, str], Count]  # pod uid, container


@dataclass(frozen=True, slots=True)
class Use:
    nano_cores: int
    memory: int

    def as_usage(self) -> dict[str, str]:
        """As the API says it; both are quantities."""
        return {"cpu": f"{self.nano_cores}n", "memory": f"{self.memory >> 10}Ki"}


@dataclass(frozen=True, slots=True)
class Measured:
    """What one node and its pods used; ``window`` in seconds."""

    window: float
    node: Use
    pods: Mapping[str, Mapping[str, Use]]  # by uid, then by container


def read(summary: Mapping[str, Any], at: float) -> Sample:
    """KeyError, TypeError or ValueError for what is no summary."""
    containers = {}
    for pod in summary.get("pods") or ():
        uid = pod["podRef"]["uid"]
        for container in pod.get("containers") or ():
            count = _count(container)
            if count is not None:
                containers[uid, container["name"]] = count
    node = _count(summary["node"])
    if node is None:
        raise ValueError("the node has no figures yet")
    return Sample(at, node, containers)


def _count(item: Mapping[str, Any]) -> Count | None:
    cpu, memory = item.get("cpu") or {}, item.get("memory") or {}
    if "usageCoreNanoSeconds" not in cpu or "workingSetBytes" not in memory:
        return None
    return Count(int(cpu["usageCoreNanoSeconds"]), int(memory["workingSetBytes"]))


def between(first: Sample, second: Sample) -> Measured:
    """``second`` is later; what is only in it has started since, so all its time counts."""
    window = second.at - first.at
    pods: dict[str, dict[str, Use]] = {}
    for key, count in second.containers.items():
        uid, name = key
        pods.setdefault(uid, {})[name] = _use(first.containers.get(key), count, window)
    return Measured(window, _use(first.node, second.node, window), pods)


def _use(before: Count | None, now: Count, window: float) -> Use:
    spent = now.cpu_ns
    if before is not None and before.cpu_ns <= spent:  # else it has started anew
        spent -= before.cpu_ns
    return Use(round(spent / window), now.memory)


def duration(seconds: float) -> str:
    """As Go prints one, to the millisecond: 1.003s, 1m0.5s."""
    milli = round(seconds * 1000)
    minutes, milli = divmod(milli, 60_000)
    text = f"{milli / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    return f"{minutes}m{text}" if minutes else text
