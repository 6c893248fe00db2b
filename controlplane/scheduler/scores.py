"""
How well does a node fit? Each function gives 0 to 100 for each node; their weighted sum decides.

Weights and formulas are those of upstream's default profile.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.objects import node_selectors
from controlplane.scheduler import affinity, spread
from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

MOST = 100.0
SMALL_IMAGE = 23 << 20  # bytes; smaller ones load fast enough
LARGE_IMAGE = 1000 << 20  # bytes for each container; more makes no difference


@dataclass(frozen=True, slots=True)
class Contest:
    """A pod and the nodes that passed all filters."""

    pod: PodInfo
    nodes: Sequence[NodeInfo]
    snapshot: Snapshot
    soft: Sequence[spread.Constraint] = ()
    any_preferred: bool = False  # a placed pod has preferences, or attracts others


Score = Callable[[Contest], list[float]]


def _fractions(pod: PodInfo, node: NodeInfo) -> tuple[float, float]:
    """CPU and memory in use with the pod there, 0 to 1."""
    cpu, memory = node.allocatable.get("cpu", 0), node.allocatable.get("memory", 0)
    used_cpu, used_memory = node.scored[0] + pod.scored[0], node.scored[1] + pod.scored[1]
    return (
        min(used_cpu / cpu, 1.0) if cpu else 1.0,
        min(used_memory / memory, 1.0) if memory else 1.0,
    )


def least_allocated(contest: Contest) -> list[float]:
    made = []
    for node in contest.nodes:
        cpu, memory = _fractions(contest.pod, node)
        made.append(MOST * (1 - (cpu + memory) / 2))
    return made


def balanced_allocation(contest: Contest) -> list[float]:
    """CPU and memory used alike: half their distance is their standard deviation."""
    made = []
    for node in contest.nodes:
        cpu, memory = _fractions(contest.pod, node)
        made.append(MOST * (1 - abs(cpu - memory) / 2))
    return made


def node_affinity(contest: Contest) -> list[float]:
    wanted = (contest.pod.spec.get("affinity") or {}).get("nodeAffinity") or {}
    terms = wanted.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    if not terms:
        return []
    points = [
        float(
            sum(
                term["weight"]
                for term in terms
                if node_selectors.term_matches(term.get("preference") or {}, node.selectable)
            )
        )
        for node in contest.nodes
    ]
    return _scaled(points)


def taint_toleration(contest: Contest) -> list[float]:
    if not any(node.taints for node in contest.nodes):
        return []
    tolerations = contest.pod.spec.get("tolerations")
    counts = [
        float(
            sum(
                taint.get("effect") == "PreferNoSchedule"
                and not node_selectors.tolerates(tolerations, taint)
                for taint in node.taints
            )
        )
        for node in contest.nodes
    ]
    return _reversed(counts)


def image_locality(contest: Contest) -> list[float]:
    spec = contest.pod.spec
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    names = [_tagged(container.get("image", "")) for container in containers]
    total = len(contest.snapshot.nodes) or 1
    spreads = {
        name: sum(name in node.images for node in contest.snapshot.nodes) / total for name in names
    }
    if not any(spreads.values()):
        return []
    largest = LARGE_IMAGE * max(len(names), 1)
    made = []
    for node in contest.nodes:
        size = sum(node.images.get(name, 0) * spreads[name] for name in names)
        size = min(max(size, SMALL_IMAGE), largest)
        made.append(MOST * (size - SMALL_IMAGE) / (largest - SMALL_IMAGE))
    return made


def _tagged(image: str) -> str:
    last = image.rpartition("/")[2]
    return image if ":" in last or "@" in last else f"{image}:latest"


def topology_spread(contest: Contest) -> list[float]:
    if not contest.soft:
        return []
    domains = spread.domains(contest.pod, contest.soft, contest.snapshot.nodes)
    costs = [spread.cost(domains, node) for node in contest.nodes]
    known = [cost for cost in costs if cost is not None]
    least, most = min(known, default=0.0), max(known, default=0.0)
    if not most:
        return [MOST if cost is not None else 0.0 for cost in costs]
    return [MOST * (most + least - cost) / most if cost is not None else 0.0 for cost in costs]


def inter_pod_affinity(contest: Contest) -> list[float]:
    if not (contest.pod.preferred or contest.any_preferred):
        return []
    points = affinity.preferences(contest.pod, contest.snapshot)
    if not points:
        return []
    sums = [
        float(sum(points.get(pair, 0) for pair in node.labels.items())) for node in contest.nodes
    ]
    least, most = min(sums), max(sums)
    if least == most:
        return []
    return [MOST * (value - least) / (most - least) for value in sums]


def _scaled(values: list[float]) -> list[float]:
    most = max(values, default=0.0)
    return [MOST * value / most for value in values] if most else []


def _reversed(values: list[float]) -> list[float]:
    most = max(values, default=0.0)
    return [MOST - MOST * value / most for value in values] if most else []


SCORES: Mapping[Score, int] = {
    taint_toleration: 3,
    node_affinity: 2,
    topology_spread: 2,
    inter_pod_affinity: 2,
    least_allocated: 1,
    balanced_allocation: 1,
    image_locality: 1,
}


def totals(contest: Contest) -> list[float]:
    """One number for each node of the contest; a score that has nothing to say is left out."""
    sums = [0.0] * len(contest.nodes)
    for score, weight in SCORES.items():
        for index, points in enumerate(score(contest)):
            sums[index] += weight * points
    return sums
