"""
One attempt to place one pod: snapshot in, a node or the reasons why not out.

Nothing here waits or writes; :mod:`controlplane.scheduler.loop` does what comes out.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controlplane.client.base import Object, Reads
from controlplane.objects import selectors
from controlplane.objects.meta import controller_of
from controlplane.objects.resources import (
    POD_DISRUPTION_BUDGETS,
    REPLICA_SETS,
    REPLICATION_CONTROLLERS,
    SERVICES,
    STATEFUL_SETS,
)
from controlplane.scheduler import affinity, preempt, spread, volumes
from controlplane.scheduler.filters import Question, Refusal, refusal, summary
from controlplane.scheduler.scores import Contest, totals
from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Snapshot, View, pod_info

_WORKLOADS = {
    "ReplicaSet": REPLICA_SETS,
    "ReplicationController": REPLICATION_CONTROLLERS,
    "StatefulSet": STATEFUL_SETS,
}
ALL_NODES = 100  # up to so many, every node is looked at


@dataclass(frozen=True, slots=True)
class Placed:
    pod: PodInfo
    node: str
    chosen: Sequence[tuple[volumes.Waiting, Object | None]] = ()


@dataclass(frozen=True, slots=True)
class Unplaced:
    pod: PodInfo
    message: str
    refused_by: frozenset[str]
    victims: preempt.Choice | None = None


@dataclass(slots=True)
class Planner:
    """
    Decides for one pod at a time.

    ``nominated`` are the nodes that preemption has made room on, with the pods the room is for:
    less important pods must not take it. ``start`` rotates where the search begins.
    """

    view: View
    reads: Reads
    nominated: dict[str, PodInfo] = field(default_factory=dict)  # pod uid → pod with its node
    start: int = 0
    pick: Callable[[Sequence[int]], int] = random.choice

    def place(self, pod: Object) -> Placed | Unplaced:
        info = pod_info(pod, keep_spec=True)
        snapshot = self.view.snapshot()
        needs = volumes.needs(pod, self.reads, self._node_of)
        if pod["spec"].get("resourceClaims"):
            return self._nowhere(
                info, "Pinnace does not support dynamic resource allocation", "DynamicResources"
            )
        if needs.refused:
            return self._nowhere(info, needs.refused, "VolumeBinding")
        question = self._question(info, snapshot, needs)
        refusals: dict[str, Refusal] = {}
        fitting = self._fitting(question, snapshot, refusals)
        if not fitting:
            return self._unplaced(pod, question, snapshot, refusals)
        node = fitting[0] if len(fitting) == 1 else self._best(pod, info, snapshot, fitting)
        chosen = volumes.choose(needs.waiting, node) if needs.waiting else None
        return Placed(info, node.name, chosen or ())

    def _node_of(self, uid: str) -> str | None:
        placed = self.view.pod(uid)
        return placed.node if placed is not None else None

    # -- filters

    def _question(self, pod: PodInfo, snapshot: Snapshot, needs: volumes.Needs) -> Question:
        counts = affinity.count(pod, snapshot, any_repel=bool(self.view.repelling))
        return Question(pod, counts, spread.count(pod, snapshot), needs)

    def _fitting(
        self, question: Question, snapshot: Snapshot, refusals: dict[str, Refusal]
    ) -> list[NodeInfo]:
        nodes = snapshot.nodes
        enough = _enough(len(nodes))
        start = self.start % len(nodes) if nodes else 0
        fitting: list[NodeInfo] = []
        for node in (*nodes[start:], *nodes[:start]) if start else nodes:
            found = refusal(question, self._with_nominated(node, question.pod))
            if found is not None:
                refusals[node.name] = found
                continue
            fitting.append(node)
            if len(fitting) >= enough:
                break
        if len(nodes) > ALL_NODES:
            self.start = start + len(fitting) + len(refusals)
        return fitting

    def _with_nominated(self, node: NodeInfo, pod: PodInfo) -> NodeInfo:
        for other in self.nominated.values():
            if (
                other.node == node.name
                and other.uid != pod.uid
                and other.priority >= pod.priority
                and other.uid not in node.pods
            ):
                node = node.with_pod(other)
        return node

    # -- scores

    def _best(
        self, pod: Object, info: PodInfo, snapshot: Snapshot, fitting: Sequence[NodeInfo]
    ) -> NodeInfo:
        own = info.spec.get("topologySpreadConstraints")
        if own:
            soft = spread.constraints(info, "ScheduleAnyway")
        else:
            selector = workload_selector(pod, self.reads)
            soft = spread.defaults(selector) if selector is not None else []
            # Nodes without a zone shall compete too.
            labels = [node.labels for node in fitting]
            soft = [c for c in soft if all(c.topology_key in each for each in labels)]
        contest = Contest(info, fitting, snapshot, soft, bool(self.view.preferring))
        sums = totals(contest)
        most = max(sums)
        return fitting[self.pick([i for i, value in enumerate(sums) if value >= most - 1e-9])]

    # -- nowhere

    def _nowhere(self, pod: PodInfo, reason: str, plugin: str) -> Unplaced:
        total = len(self.view.snapshot().nodes)
        message = summary(total, {}, reason)
        if total:
            why = {n.name: _NOT_HELPFUL for n in self.view.snapshot().nodes}
            message += f" preemption: {summary(total, why)}"
        return Unplaced(pod, message, frozenset({plugin, "Nodes"}))

    def _unplaced(
        self, pod: Object, question: Question, snapshot: Snapshot, refusals: dict[str, Refusal]
    ) -> Unplaced:
        info, total = question.pod, len(snapshot.nodes)
        message = summary(total, refusals)
        plugins = frozenset(found.plugin for found in refusals.values()) or frozenset({"Nodes"})
        if not total:
            return Unplaced(info, message, plugins)
        hindrance = self._may_not_preempt(pod, info)
        if hindrance:
            return Unplaced(info, f"{message} preemption: {hindrance}", plugins)
        choice, why = preempt.find(
            info,
            snapshot,
            refusals,
            self._asking(question, snapshot),
            budgets=_budgets(self.reads),
        )
        if choice is None:
            message += f" preemption: {summary(total, why)}"
        return Unplaced(info, message, plugins, choice)

    def _may_not_preempt(self, pod: Object, info: PodInfo) -> str:
        if pod["spec"].get("preemptionPolicy") == "Never":
            return "not eligible due to preemptionPolicy=Never."
        nominated = (pod.get("status") or {}).get("nominatedNodeName")
        node = self.view.node(nominated) if nominated else None
        if node is not None and any(
            other.deleting and other.priority < info.priority for other in node.pods.values()
        ):
            return "not eligible due to a terminating pod on the nominated node."
        return ""

    def _asking(self, question: Question, snapshot: Snapshot) -> preempt.Ask:
        info = question.pod
        fixed = question.affinity is affinity.NOTHING and not question.spread

        def ask(node: NodeInfo) -> Refusal | None:
            asked = question
            if not fixed:  # what was counted changes with the pods of the node
                asked = self._question(info, snapshot.replacing(node), question.volumes)
            return refusal(asked, self._with_nominated(node, info))

        return ask


_NOT_HELPFUL = Refusal("Preemption", (preempt.NOT_HELPFUL,))


def _enough(nodes: int) -> int:
    """How many fitting nodes are compared; upstream's adaptive share of large clusters."""
    if nodes <= ALL_NODES:
        return max(nodes, 1)
    percent = max(50 - nodes // 125, 5)
    return max(nodes * percent // 100, ALL_NODES)


def _budgets(reads: Reads) -> list[preempt.Budget]:
    return [
        preempt.Budget(
            budget["metadata"]["namespace"],
            selectors.of_object((budget.get("spec") or {}).get("selector")),
            (budget.get("status") or {}).get("disruptionsAllowed", 0),
        )
        for budget in reads.list(POD_DISRUPTION_BUDGETS)
    ]


def workload_selector(pod: Object, reads: Reads) -> selectors.Selector | None:
    """What selects the pod's siblings: its services and its workload; None: it has none."""
    meta = pod["metadata"]
    labels = meta.get("labels") or {}
    merged: dict[str, str] = {}
    for service in reads.list(SERVICES, meta["namespace"]):
        chosen = service["spec"].get("selector")
        if chosen and chosen.items() <= labels.items():
            merged |= chosen
    reference = controller_of(pod)
    resource = _WORKLOADS.get(reference["kind"]) if reference is not None else None
    expressions: list[Object] = []
    if reference is not None and resource is not None:
        owner = reads.get(resource, meta["namespace"], reference["name"])
        chosen = owner["spec"].get("selector") or {} if owner is not None else {}
        if resource == REPLICATION_CONTROLLERS:
            merged |= chosen
        else:
            merged |= chosen.get("matchLabels") or {}
            expressions = chosen.get("matchExpressions") or []
    if not merged and not expressions:
        return None
    return selectors.of_object({"matchLabels": merged, "matchExpressions": expressions})
