"""
Affinity between pods: counted once for a pod, then asked for each node.

Pairs of (topology key, value) are what is counted: how many matching pods run in
that zone, on that host. Source: the API concept "Inter-pod affinity and anti-affinity".
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Snapshot, Term

Pair = tuple[str, str]  # topology key, value

NO_AFFINITY = "node(s) didn't match pod affinity rules"
ANTI_AFFINITY = "node(s) didn't match pod anti-affinity rules"
EXISTING_ANTI_AFFINITY = "node(s) didn't satisfy existing pods anti-affinity rules"


@dataclass(frozen=True, slots=True)
class Counts:
    """Of one pod to be placed, over one snapshot."""

    repelled: Mapping[Pair, int] = field(default_factory=dict)  # by pods that are there
    attracted: Mapping[Pair, int] = field(default_factory=dict)
    avoided: Mapping[Pair, int] = field(default_factory=dict)
    itself: bool = False  # the pod matches all of its own affinity terms


NOTHING = Counts()


def count(pod: PodInfo, snapshot: Snapshot, *, any_repel: bool) -> Counts:
    """``any_repel``: whether any placed pod has anti-affinity; most clusters have none."""
    if not (pod.affinity or pod.anti_affinity or any_repel):
        return NOTHING
    names = snapshot.namespace_labels
    repelled: Counter[Pair] = Counter()
    attracted: Counter[Pair] = Counter()
    avoided: Counter[Pair] = Counter()
    for node, other in snapshot.pods():
        for term in other.anti_affinity:
            if term.matches(pod, names):
                _add(repelled, term, node)
        if pod.affinity and all(term.matches(other, names) for term in pod.affinity):
            for term in pod.affinity:
                _add(attracted, term, node)
        for term in pod.anti_affinity:
            if term.matches(other, names):
                _add(avoided, term, node)
    itself = all(term.matches(pod, names) for term in pod.affinity)
    return Counts(repelled, attracted, avoided, itself)


def _add(counter: Counter[Pair], term: Term, node: NodeInfo) -> None:
    value = node.labels.get(term.topology_key)
    if value is not None:
        counter[term.topology_key, value] += 1


def refusal(pod: PodInfo, counts: Counts, node: NodeInfo) -> str:
    """The reason why the node is not for the pod, "" if it is."""
    if not _is_attracted(pod, counts, node):
        return NO_AFFINITY
    if counts.avoided and any(
        (term.topology_key, node.labels.get(term.topology_key)) in counts.avoided
        for term in pod.anti_affinity
    ):
        return ANTI_AFFINITY
    if counts.repelled and any(pair in counts.repelled for pair in node.labels.items()):
        return EXISTING_ANTI_AFFINITY
    return ""


def _is_attracted(pod: PodInfo, counts: Counts, node: NodeInfo) -> bool:
    for term in pod.affinity:
        if term.topology_key not in node.labels:
            return False
    pairs = [(term.topology_key, node.labels[term.topology_key]) for term in pod.affinity]
    if all(pair in counts.attracted for pair in pairs):
        return True
    # The first pod of a group that wants to be together has nobody to go to.
    return not counts.attracted and counts.itself


def preferences(pod: PodInfo, snapshot: Snapshot) -> Mapping[Pair, int]:
    """Points of each pair: what the pod prefers, and what pods that are there prefer."""
    names = snapshot.namespace_labels
    points: Counter[Pair] = Counter()
    for node, other in snapshot.pods():
        for term in pod.preferred:
            if term.matches(other, names):
                _weigh(points, term, node, term.weight)
        for term in other.preferred:
            if term.matches(pod, names):
                _weigh(points, term, node, term.weight)
        for term in other.affinity:
            if term.matches(pod, names):
                _weigh(points, term, node, 1)
    return points


def _weigh(points: Counter[Pair], term: Term, node: NodeInfo, weight: int) -> None:
    value = node.labels.get(term.topology_key)
    if value is not None:
        points[term.topology_key, value] += weight
