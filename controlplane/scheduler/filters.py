"""
May this pod run on this node? One function for each reason why not.

They are asked in order, cheapest first; the first that refuses speaks for the
node. Names and texts are upstream's: events and people rely on them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.client.base import Object
from controlplane.objects import node_selectors
from controlplane.scheduler import affinity, spread, volumes
from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Port

UNSCHEDULABLE_TAINT: Object = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
TAINT_EFFECTS = ("NoSchedule", "NoExecute")
ANY_ADDRESS = ("0.0.0.0", "::", "")
MOST_PODS = 110  # of a node that does not say


@dataclass(frozen=True, slots=True)
class Question:
    """A pod to be placed, with all that was counted for it beforehand."""

    pod: PodInfo
    affinity: affinity.Counts
    spread: Sequence[spread.Domains]
    volumes: volumes.Needs


@dataclass(frozen=True, slots=True)
class Refusal:
    plugin: str
    reasons: tuple[str, ...]
    resolvable: bool = False  # other pods' going away could help


Filter = Callable[[Question, NodeInfo], Refusal | None]


def node_unschedulable(question: Question, node: NodeInfo) -> Refusal | None:
    if not node.unschedulable:
        return None
    if node_selectors.tolerates(question.pod.spec.get("tolerations"), UNSCHEDULABLE_TAINT):
        return None
    return Refusal("NodeUnschedulable", ("node(s) were unschedulable",))


def node_name(question: Question, node: NodeInfo) -> Refusal | None:
    wanted = question.pod.spec.get("nodeName")
    if not wanted or wanted == node.name:
        return None
    return Refusal("NodeName", ("node(s) didn't match the requested node name",))


def taint_toleration(question: Question, node: NodeInfo) -> Refusal | None:
    if not node.taints:
        return None
    tolerations = question.pod.spec.get("tolerations")
    if node_selectors.untolerated(node.taints, tolerations, TAINT_EFFECTS) is None:
        return None
    return Refusal("TaintToleration", ("node(s) had untolerated taint(s)",))


def node_affinity(question: Question, node: NodeInfo) -> Refusal | None:
    spec = question.pod.spec
    if not (spec.get("nodeSelector") or (spec.get("affinity") or {}).get("nodeAffinity")):
        return None
    if node_selectors.required_affinity_matches(spec, node.selectable):
        return None
    return Refusal("NodeAffinity", ("node(s) didn't match Pod's node affinity/selector",))


def node_ports(question: Question, node: NodeInfo) -> Refusal | None:
    wanted = question.pod.ports
    if not wanted:
        return None
    for pod in node.pods.values():
        if pod.ports and any(_clash(a, b) for a in wanted for b in pod.ports):
            text = "node(s) didn't have free ports for the requested pod ports"
            return Refusal("NodePorts", (text,), resolvable=True)
    return None


def _clash(a: Port, b: Port) -> bool:
    if a[1:] != b[1:]:
        return False
    return a[0] == b[0] or a[0] in ANY_ADDRESS or b[0] in ANY_ADDRESS


def resources_fit(question: Question, node: NodeInfo) -> Refusal | None:
    reasons: list[str] = []
    resolvable = True
    offered = node.allocatable
    most = offered.get("pods", MOST_PODS)
    if len(node.pods) + 1 > most:
        reasons.append("Too many pods")
        resolvable = most > 0
    for name, wanted in question.pod.requests.items():
        if not wanted:
            continue
        all_of_it = offered.get(name, 0)
        if wanted > all_of_it - node.used.get(name, 0):
            reasons.append(f"Insufficient {name}")
            resolvable = resolvable and wanted <= all_of_it
    if not reasons:
        return None
    return Refusal("NodeResourcesFit", tuple(reasons), resolvable)


def volume_restrictions(question: Question, node: NodeInfo) -> Refusal | None:
    if not question.volumes.held_by:
        return None
    held, here = volumes.is_held(question.volumes, node)
    return Refusal("VolumeRestrictions", (volumes.TAKEN,), resolvable=here) if held else None


def volume_binding(question: Question, node: NodeInfo) -> Refusal | None:
    if question.volumes is volumes.NOTHING:
        return None
    reasons = volumes.refusal(question.volumes, node)
    return Refusal("VolumeBinding", reasons) if reasons else None


def volume_zone(question: Question, node: NodeInfo) -> Refusal | None:
    if not question.volumes.zones or volumes.is_in_zone(question.volumes, node):
        return None
    return Refusal("VolumeZone", (volumes.WRONG_ZONE,))


def topology_spread(question: Question, node: NodeInfo) -> Refusal | None:
    reason = spread.refusal(question.spread, node)
    if not reason:
        return None
    return Refusal("PodTopologySpread", (reason,), reason != spread.MISSING_LABEL)


def inter_pod_affinity(question: Question, node: NodeInfo) -> Refusal | None:
    if question.affinity is affinity.NOTHING:
        return None
    reason = affinity.refusal(question.pod, question.affinity, node)
    if not reason:
        return None
    return Refusal("InterPodAffinity", (reason,), reason != affinity.NO_AFFINITY)


FILTERS: tuple[Filter, ...] = (
    node_unschedulable,
    node_name,
    taint_toleration,
    node_affinity,
    node_ports,
    resources_fit,
    volume_restrictions,
    volume_binding,
    volume_zone,
    topology_spread,
    inter_pod_affinity,
)


def refusal(question: Question, node: NodeInfo) -> Refusal | None:
    for check in FILTERS:
        found = check(question, node)
        if found is not None:
            return found
    return None


def summary(total: int, refusals: Mapping[str, Refusal], instead: str = "") -> str:
    """``0/3 nodes are available: 1 Insufficient cpu, 2 node(s) were unschedulable.``"""
    if not total:
        return "no nodes available to schedule pods"
    if instead:
        return f"0/{total} nodes are available: {instead}."
    counts: dict[str, int] = {}
    for found in refusals.values():
        for reason in found.reasons:
            counts[reason] = counts.get(reason, 0) + 1
    listed = sorted(f"{number} {reason}" for reason, number in counts.items())
    return f"0/{total} nodes are available: {', '.join(listed)}."
