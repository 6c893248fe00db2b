"""
Topology spread: how evenly matching pods lie over zones, hosts or any other label.

Source: the API concept "Pod Topology Spread Constraints", KEP-895, KEP-3022
(minDomains), KEP-3094 (node inclusion policies), KEP-3243 (matchLabelKeys).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.client.base import Object
from controlplane.objects import node_selectors, selectors
from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

MISMATCH = "node(s) didn't match pod topology spread constraints"
MISSING_LABEL = "node(s) didn't match pod topology spread constraints (missing required label)"
HOSTNAME, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    max_skew: int
    topology_key: str
    selector: selectors.Selector
    min_domains: int
    honor_affinity: bool
    honor_taints: bool


@dataclass(frozen=True, slots=True)
class Domains:
    """The matching pods in each domain of one constraint."""

    constraint: Constraint
    matching: Mapping[str, int]  # value of the topology key → pods
    itself: int  # 1 if the pod would count too

    @property
    def fewest(self) -> int:
        if len(self.matching) < self.constraint.min_domains:
            return 0
        return min(self.matching.values(), default=0)


def constraints(pod: PodInfo, when: str) -> list[Constraint]:
    """``when``: DoNotSchedule or ScheduleAnyway."""
    found = pod.spec.get("topologySpreadConstraints") or ()
    return [_constraint(pod, c) for c in found if c.get("whenUnsatisfiable") == when]


def _constraint(pod: PodInfo, body: Object) -> Constraint:
    selector = body.get("labelSelector")
    keys = [key for key in body.get("matchLabelKeys") or () if key in pod.labels]
    if keys and selector is not None:
        same = [{"key": k, "operator": "In", "values": [pod.labels[k]]} for k in keys]
        expressions = [*(selector.get("matchExpressions") or ()), *same]
        selector = {**selector, "matchExpressions": expressions}
    return Constraint(
        max_skew=body["maxSkew"],
        topology_key=body["topologyKey"],
        selector=selectors.of_object(selector),
        min_domains=body.get("minDomains") or 1,
        honor_affinity=body.get("nodeAffinityPolicy", "Honor") == "Honor",
        honor_taints=body.get("nodeTaintsPolicy", "Ignore") == "Honor",
    )


def defaults(selector: selectors.Selector) -> list[Constraint]:
    """For pods of a workload that says nothing: over hosts, and less strictly over zones."""
    return [
        Constraint(
            max_skew=skew,
            topology_key=key,
            selector=selector,
            min_domains=1,
            honor_affinity=True,
            honor_taints=False,
        )
        for key, skew in ((HOSTNAME, 3), (ZONE, 5))
    ]


def _counts_in(pod: PodInfo, constraint: Constraint, node: NodeInfo) -> bool:
    fits = node_selectors.required_affinity_matches(pod.spec, node.selectable)
    if constraint.honor_affinity and not fits:
        return False
    tolerations = pod.spec.get("tolerations")
    untolerated = node_selectors.untolerated(node.taints, tolerations)
    return not constraint.honor_taints or untolerated is None


def _matching(pod: PodInfo, constraint: Constraint, node: NodeInfo) -> int:
    return sum(
        other.namespace == pod.namespace
        and not other.deleting
        and constraint.selector.matches(other.labels)
        for other in node.pods.values()
    )


def domains(pod: PodInfo, found: Sequence[Constraint], nodes: Iterable[NodeInfo]) -> list[Domains]:
    """Nodes without all of the topology keys do not count, nor those the pod cannot go to."""
    keys = [constraint.topology_key for constraint in found]
    labelled = [node for node in nodes if all(key in node.labels for key in keys)]
    made = []
    for constraint in found:
        counts: dict[str, int] = {}
        for node in labelled:
            if _counts_in(pod, constraint, node):
                value = node.labels[constraint.topology_key]
                counts[value] = counts.get(value, 0) + _matching(pod, constraint, node)
        made.append(Domains(constraint, counts, int(constraint.selector.matches(pod.labels))))
    return made


def count(pod: PodInfo, snapshot: Snapshot) -> list[Domains]:
    hard = constraints(pod, "DoNotSchedule")
    return domains(pod, hard, snapshot.nodes) if hard else []


def refusal(found: Sequence[Domains], node: NodeInfo) -> str:
    """The reason why the node is not for the pod, "" if it is."""
    for domain in found:
        value = node.labels.get(domain.constraint.topology_key)
        if value is None:
            return MISSING_LABEL
        skew = domain.matching.get(value, 0) + domain.itself - domain.fewest
        if skew > domain.constraint.max_skew:
            return MISMATCH
    return ""


def cost(found: Sequence[Domains], node: NodeInfo) -> float | None:
    """What the node costs by the soft constraints; None: it lacks a label."""
    total = 0.0
    for domain in found:
        value = node.labels.get(domain.constraint.topology_key)
        if value is None:
            return None
        # Many domains make each count small; the weight evens that out.
        weight = math.log(len(domain.matching) + 2)
        total += domain.matching.get(value, 0) * weight + domain.constraint.max_skew - 1
    return total
