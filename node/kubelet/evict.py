"""
Pressure → conditions, and which pod has to go: because the node is short, or it took too much.

Of the pods of a node that is short those go first that use more than they requested, of
them those of the lowest priority, and then by how much they are above. Critical pods never.
Pure. Source: "Node-pressure Eviction", "Local ephemeral storage"; the thresholds are K3s's
(5 % of a disk, 10 % more before it is over) and kubelet's (100 MiB of memory, but no
more than 5 % of it: a small board has no 100 MiB to leave idle).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import node_selectors, quantity
from node.kubelet import resources
from node.kubelet.base import uid_of
from node.kubelet.usage import FileSystem, Tree
from node.kubelet.view import Waiting

REASON = "Evicted"
KEPT_FOR = timedelta(minutes=5)  # a condition stays so long after its cause was last seen
MEMORY, DISK = "MemoryPressure", "DiskPressure"
STORAGE = "ephemeral-storage"
_CRITICAL = 2_000_000_000  # system-cluster-critical and above
_LOW_MEMORY, _LOW_SHARE, _RECLAIM_SHARE = 100 << 20, 0.05, 0.10
_MEMORY_TAINT: Object = {"key": "node.kubernetes.io/memory-pressure", "effect": "NoSchedule"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One look at the machine."""

    memory: int  # bytes in all
    memory_available: int
    nodefs: FileSystem
    imagefs: FileSystem | None  # None: the same as nodefs


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """Something that a node can be short of."""

    name: str
    resource: str
    condition: str
    available: int
    threshold: int
    reclaim: int  # so much more has to be there before it is over

    @property
    def headroom(self) -> int:
        return self.available - self.threshold


def low_memory(whole: int) -> int:
    """So many bytes have to be left of a machine's memory."""
    return min(_LOW_MEMORY, int(whole * _LOW_SHARE))


def signals(reading: Reading) -> list[Signal]:
    low = low_memory(reading.memory)
    out = [
        Signal(
            name="memory.available",
            resource="memory",
            condition=MEMORY,
            available=reading.memory_available,
            threshold=low,
            reclaim=0,
        )
    ]
    for name, disk in (("nodefs", reading.nodefs), ("imagefs", reading.imagefs)):
        if disk is not None:
            out += _of_disk(name, disk)
    return out


def _of_disk(name: str, disk: FileSystem) -> Iterator[Signal]:
    pairs = (
        ("available", STORAGE, disk.available, disk.capacity, _RECLAIM_SHARE),
        ("inodesFree", "inodes", disk.inodes_free, disk.inodes, 0.0),
    )
    for what, resource, available, whole, reclaim in pairs:
        if whole:  # some file systems have no number of inodes
            yield Signal(
                name=f"{name}.{what}",
                resource=resource,
                condition=DISK,
                available=available,
                threshold=int(whole * _LOW_SHARE),
                reclaim=int(whole * reclaim),
            )


def met(found: Iterable[Signal], before: frozenset[str]) -> list[Signal]:
    """What is short; ``before``: names of those that were, which need more to be over."""
    return [
        signal
        for signal in found
        if signal.headroom < (signal.reclaim if signal.name in before else 0)
    ]


def conditions(seen: Mapping[str, datetime], now: datetime) -> frozenset[str]:
    """Those seen lately; a clock that was set back does not make one last."""
    return frozenset(name for name, at in seen.items() if abs(now - at) < KEPT_FOR)


def refuse(pod: Object, held: frozenset[str]) -> Waiting | None:
    """Why a pod may not begin on a node with these conditions, or None."""
    if not held or is_critical(pod):
        return None
    if held == {MEMORY} and (
        resources.qos_class(pod) != "BestEffort"
        or node_selectors.tolerates(pod["spec"].get("tolerations"), _MEMORY_TAINT)
    ):
        return None
    return Waiting(REASON, f"The node had condition: [{' '.join(sorted(held))}]. ")


def is_critical(pod: Object) -> bool:
    return bool(pod["spec"].get("priority", 0) >= _CRITICAL)


# -- a node that is short


def rank(pods: Iterable[Object], usage: Mapping[str, int], resource: str) -> Sequence[Object]:
    """The pods that may be evicted, the first to go first; ``usage`` by uid."""

    def order(pod: Object) -> tuple[bool, int, int]:
        asked = 0 if resource == "inodes" else resources.pod_requests([pod], resource)
        above = usage.get(uid_of(pod), 0) - asked
        return above <= 0, pod["spec"].get("priority", 0), -above

    return sorted((pod for pod in pods if not is_critical(pod)), key=order)


def message(pod: Object, signal: Signal, used: Mapping[str, int]) -> str:
    """As kubelet words it; ``used`` by container, in bytes."""
    resource = signal.resource
    text = (
        f"The node was low on resource: {resource}. Threshold quantity: "
        f"{_shown(signal.threshold, resource)}, available: {_shown(signal.available, resource)}. "
    )
    if resource == "inodes":
        return text
    containers = [*pod["spec"]["containers"], *pod["spec"].get("initContainers", ())]
    for container in containers:
        took = used.get(container["name"], 0)
        asked = resources.amount(container, "requests", resource)
        if took > asked:
            text += (
                f"Container {container['name']} was using {quantity.of_bytes(took)}, "
                f"request is {quantity.of_bytes(asked)}, has larger consumption of {resource}. "
            )
    return text


def _shown(amount: int, resource: str) -> str:
    return str(amount) if resource == "inodes" else quantity.of_bytes(amount)


# -- a pod that took too much


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one pod takes of the disk."""

    volumes: Mapping[str, int]  # of emptyDirs on the disk, bytes
    containers: Mapping[str, Tree]  # logs, and what is written beside volumes
    whole: int

    def of_containers(self) -> dict[str, int]:
        return {name: tree.used for name, tree in self.containers.items()}


def is_limited(pod: Object) -> bool:
    """Is there anything to look at?"""
    return next(_limits(pod), None) is not None


@dataclass(frozen=True, slots=True)
class _Limit:
    signal: str
    limit: int
    message: str
    volume: str = ""
    container: str = ""

    def used(self, taken: Taken) -> int:
        if self.volume:
            return taken.volumes.get(self.volume, 0)
        if self.container:
            return taken.containers.get(self.container, Tree(0, 0)).used
        return taken.whole


def _limits(pod: Object) -> Iterator[_Limit]:
    spec = pod["spec"]
    for volume in spec.get("volumes", ()):
        source = volume.get("emptyDir") or {}
        size = source.get("sizeLimit")
        if size is None or source.get("medium") or quantity.value(size) <= 0:
            continue  # one in memory is made no larger
        text = f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{size}". '
        yield _Limit("emptydirfs.limit", quantity.value(size), text, volume=volume["name"])
    if whole := _pod_limit(spec):
        text = (
            "Pod ephemeral local storage usage exceeds the total limit of containers "
            f"{quantity.of_bytes(whole)}. "
        )
        yield _Limit("ephemeralpodfs.limit", whole, text)
    for container in spec["containers"]:
        if limit := resources.amount(container, "limits", STORAGE):
            name, shown = container["name"], container["resources"]["limits"][STORAGE]
            text = f'Container {name} exceeded its local ephemeral storage limit "{shown}". '
            yield _Limit("ephemeralcontainerfs.limit", limit, text, container=name)


def _pod_limit(spec: Mapping[str, Any]) -> int:
    """The containers' limits together, or the largest of the init containers'."""
    together = sum(resources.amount(c, "limits", STORAGE) for c in spec["containers"])
    inits = [resources.amount(c, "limits", STORAGE) for c in spec.get("initContainers", ())]
    return max([together, *inits])


def over_limit(pod: Object, taken: Taken) -> tuple[str, str] | None:
    """(signal, message) of the first limit that the pod exceeds."""
    if is_critical(pod):
        return None
    for limit in _limits(pod):
        if limit.used(taken) > limit.limit:
            return limit.signal, limit.message
    return None


def headroom(pod: Object, taken: Taken) -> int:
    """Bytes that the pod may still write before the first of its limits."""
    return min((max(0, at.limit - at.used(taken)) for at in _limits(pod)), default=0)
