"""
The pods that wait for a node: active, backing off, or unschedulable until something changes.

A pod that fits nowhere remembers which filters refused it; only an event that
could change the mind of one of them brings it back. So a full cluster costs nothing.
"""

import enum
import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from controlplane.reconcile.clock import Clock
from controlplane.reconcile.queue import Timers

FIRST_BACKOFF = 1.0  # seconds, doubled with each attempt
LONGEST_BACKOFF = 10.0
ANYTHING = "*"  # refused for a reason that every event may change


class Event(enum.Enum):
    NODE_ADDED = enum.auto()
    NODE_CHANGED = enum.auto()
    POD_GONE = enum.auto()  # deleted, finished, or asking for less
    POD_PLACED = enum.auto()  # or relabelled
    VOLUMES_CHANGED = enum.auto()  # claims, volumes, classes, room for them
    NAMESPACE_CHANGED = enum.auto()


_OF_PODS = {"PodTopologySpread", "InterPodAffinity"}
# The filters that may think otherwise after an event.
HINTS: Mapping[Event, frozenset[str]] = {
    Event.NODE_ADDED: frozenset(
        {
            "Nodes",
            "NodeUnschedulable",
            "NodeName",
            "TaintToleration",
            "NodeAffinity",
            "NodePorts",
            "NodeResourcesFit",
            "VolumeBinding",
            "VolumeZone",
            *_OF_PODS,
        }
    ),
    Event.NODE_CHANGED: frozenset(
        {
            "NodeUnschedulable",
            "TaintToleration",
            "NodeAffinity",
            "NodeResourcesFit",
            "VolumeBinding",
            "VolumeZone",
            *_OF_PODS,
        }
    ),
    Event.POD_GONE: frozenset({"NodePorts", "NodeResourcesFit", "VolumeRestrictions", *_OF_PODS}),
    Event.POD_PLACED: frozenset(_OF_PODS),
    Event.VOLUMES_CHANGED: frozenset({"VolumeBinding", "VolumeRestrictions", "VolumeZone"}),
    Event.NAMESPACE_CHANGED: frozenset({"InterPodAffinity"}),
}


@dataclass(slots=True)
class Waiting:
    """One pod in the queue; changed by the queue alone."""

    uid: str
    namespace: str
    name: str
    priority: int
    since: float  # the clock's seconds, when it first came
    attempts: int = 0
    tried: float = 0.0
    refused_by: frozenset[str] = frozenset()
    active: bool = False


class PodQueue:
    """
    Highest priority first, then first come first served.

    Its mutable state: every waiting pod by uid; a heap of active ones, where entries of
    pods that have left are recognised by ``active`` and the entry's number; the timers of those
    that back off. A pod in none of the latter two is unschedulable.
    """

    def __init__(self, clock: Clock, ready: Callable[[], None]) -> None:
        self._clock = clock
        self._ready = ready
        self._pods: dict[str, Waiting] = {}
        self._heap: list[tuple[int, float, int, str]] = []
        self._entry: dict[str, int] = {}  # uid → number of its entry in the heap
        self._count = 0
        self._timers: Timers[str] = Timers(clock, self._activate)

    def __len__(self) -> int:
        return len(self._pods)

    @property
    def active(self) -> int:
        return len(self._entry)

    def close(self) -> None:
        self._timers.close()

    def add(self, uid: str, namespace: str, name: str, priority: int) -> None:
        """A new pod, or one whose spec changed: try it now."""
        waiting = self._pods.get(uid)
        if waiting is None:
            now = self._clock.monotonic()
            waiting = self._pods[uid] = Waiting(uid, namespace, name, priority, now)
        self._activate(uid)

    def remove(self, uid: str) -> None:
        self._pods.pop(uid, None)
        self._entry.pop(uid, None)
        self._timers.discard(uid)

    def __contains__(self, uid: str) -> bool:
        return uid in self._pods

    def take(self) -> Waiting | None:
        """The next pod to try; it stays in the queue until removed or parked."""
        while self._heap:
            _, _, number, uid = heapq.heappop(self._heap)
            if self._entry.get(uid) != number:
                continue
            del self._entry[uid]
            waiting = self._pods[uid]
            waiting.attempts += 1
            waiting.tried = self._clock.monotonic()
            return waiting
        return None

    def park(self, waiting: Waiting, refused_by: frozenset[str]) -> None:
        """Unschedulable: until an event that one of the filters cares for."""
        if waiting.uid in self._pods:
            waiting.refused_by = refused_by

    def back_off(self, waiting: Waiting) -> None:
        """Something went wrong: try again after a while."""
        self._pods[waiting.uid] = waiting
        waiting.refused_by = frozenset({ANYTHING})
        self._timers.add(waiting.uid, self._delay(waiting))

    def happened(self, event: Event) -> None:
        """Bring back whom the event may help, not before their back-off is over."""
        if not self._pods:
            return
        helped = HINTS[event]
        for waiting in list(self._pods.values()):
            if waiting.uid in self._entry or not waiting.refused_by:
                continue
            if ANYTHING in waiting.refused_by or not helped.isdisjoint(waiting.refused_by):
                delay = self._delay(waiting)
                if delay > 0:
                    self._timers.add(waiting.uid, delay)
                else:
                    self._activate(waiting.uid)

    def _delay(self, waiting: Waiting) -> float:
        whole = min(FIRST_BACKOFF * 2.0 ** min(waiting.attempts - 1, 10), LONGEST_BACKOFF)
        return whole - (self._clock.monotonic() - waiting.tried)

    def _activate(self, uid: str) -> None:
        waiting = self._pods.get(uid)
        if waiting is None or uid in self._entry:
            return
        waiting.refused_by = frozenset()
        self._timers.discard(uid)
        self._count += 1
        self._entry[uid] = self._count
        heapq.heappush(self._heap, (-waiting.priority, waiting.since, self._count, uid))
        self._ready()
