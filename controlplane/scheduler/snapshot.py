"""
The frozen view of nodes and their pods that filters and scores work on.

Every value is frozen; a change replaces the one node that it concerns. So a
cycle may keep what it took, and "what if these pods were gone" is one more value.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from controlplane.client.base import Object
from controlplane.objects import selectors
from controlplane.scheduler import requests
from controlplane.scheduler.requests import Amounts

Port = tuple[str, str, int]  # address, protocol, port


@dataclass(frozen=True, slots=True)
class Term:
    """One pod (anti-)affinity term, ready to match."""

    selector: selectors.Selector
    namespaces: frozenset[str]
    namespace_selector: selectors.Selector | None
    topology_key: str
    weight: int = 0  # of preferred terms; negative: anti-affinity

    def matches(self, pod: "PodInfo", namespace_labels: Mapping[str, Mapping[str, str]]) -> bool:
        if pod.namespace not in self.namespaces:
            if self.namespace_selector is None:
                return False
            labels = namespace_labels.get(pod.namespace, {})
            if not self.namespace_selector.matches(labels):
                return False
        return self.selector.matches(pod.labels)


@dataclass(frozen=True, slots=True, kw_only=True)
class PodInfo:
    """What scheduling needs of a pod."""

    uid: str
    namespace: str
    name: str
    labels: Mapping[str, str]
    node: str  # "": not bound
    priority: int
    requests: Amounts
    scored: tuple[int, int]  # CPU and memory as compared
    ports: frozenset[Port]
    deleting: bool
    started: str  # status.startTime
    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    preferred: tuple[Term, ...] = ()
    spec: Object = field(default_factory=dict)  # of pods to be placed only: saves memory


def pod_info(pod: Object, *, keep_spec: bool = False) -> PodInfo:
    meta, spec = pod["metadata"], pod["spec"]
    affinity = spec.get("affinity") or {}
    namespace = meta.get("namespace", "")
    return PodInfo(
        uid=meta["uid"],
        namespace=namespace,
        name=meta["name"],
        labels=meta.get("labels") or {},
        node=spec.get("nodeName") or "",
        priority=spec.get("priority") or 0,
        requests=requests.of_pod(pod),
        scored=requests.scored(pod),
        ports=frozenset(_ports(spec)),
        deleting=bool(meta.get("deletionTimestamp")),
        started=(pod.get("status") or {}).get("startTime") or "",
        affinity=_required(affinity.get("podAffinity"), namespace),
        anti_affinity=_required(affinity.get("podAntiAffinity"), namespace),
        preferred=(
            *_preferred(affinity.get("podAffinity"), namespace, 1),
            *_preferred(affinity.get("podAntiAffinity"), namespace, -1),
        ),
        spec=spec if keep_spec else {},
    )


def _ports(spec: Object) -> Iterator[Port]:
    containers = [*(spec.get("containers") or ())]
    containers += [
        c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"
    ]
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                address = port.get("hostIP") or "0.0.0.0"
                yield address, port.get("protocol") or "TCP", port["hostPort"]


def _term(term: Object, namespace: str, weight: int = 0) -> Term:
    by_labels = term.get("namespaceSelector")
    named = term.get("namespaces") or ()
    own = () if named or by_labels is not None else (namespace,)
    return Term(
        selectors.of_object(term.get("labelSelector")),
        frozenset((*named, *own)),
        selectors.of_object(by_labels) if by_labels is not None else None,
        term["topologyKey"],
        weight,
    )


def _required(affinity: Object | None, namespace: str) -> tuple[Term, ...]:
    terms = (affinity or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(_term(term, namespace) for term in terms)


def _preferred(affinity: Object | None, namespace: str, sign: int) -> Iterator[Term]:
    for term in (affinity or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ():
        yield _term(term["podAffinityTerm"], namespace, sign * term["weight"])


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeInfo:
    """A node, what it offers and what is taken of it."""

    name: str
    labels: Mapping[str, str]
    taints: tuple[Object, ...]
    unschedulable: bool
    allocatable: Amounts
    images: Mapping[str, int]  # name → bytes
    present: bool = True  # False: only pods that name it are known
    pods: Mapping[str, PodInfo] = field(default_factory=dict)  # by uid
    used: Amounts = field(default_factory=dict)
    scored: tuple[int, int] = (0, 0)

    @property
    def selectable(self) -> Object:
        """In the form that node selectors are matched against."""
        return {"metadata": {"name": self.name, "labels": self.labels}}

    def with_pod(self, pod: PodInfo) -> "NodeInfo":
        old = self.pods.get(pod.uid)
        base = self.without((pod.uid,)) if old is not None else self
        used = dict(base.used)
        requests.add(used, pod.requests)
        cpu, memory = base.scored
        return replace(
            base,
            pods={**base.pods, pod.uid: pod},
            used=used,
            scored=(cpu + pod.scored[0], memory + pod.scored[1]),
        )

    def without(self, uids: Iterable[str]) -> "NodeInfo":
        pods, used = dict(self.pods), dict(self.used)
        cpu, memory = self.scored
        for uid in uids:
            pod = pods.pop(uid, None)
            if pod is not None:
                requests.subtract(used, pod.requests)
                cpu, memory = cpu - pod.scored[0], memory - pod.scored[1]
        return replace(self, pods=pods, used=used, scored=(cpu, memory))

    def same_offer(self, other: "NodeInfo") -> bool:
        """Whether nothing that filters look at differs but the pods."""
        return (
            self.labels == other.labels
            and self.taints == other.taints
            and self.unschedulable == other.unschedulable
            and self.allocatable == other.allocatable
        )


def node_info(node: Object) -> NodeInfo:
    meta, spec, status = node["metadata"], node.get("spec") or {}, node.get("status") or {}
    images = {
        name: image.get("sizeBytes", 0)
        for image in status.get("images") or ()
        for name in image.get("names") or ()
    }
    return NodeInfo(
        name=meta["name"],
        labels=meta.get("labels") or {},
        taints=tuple(spec.get("taints") or ()),
        unschedulable=bool(spec.get("unschedulable")),
        allocatable=requests.amounts(status.get("allocatable") or status.get("capacity")),
        images=images,
    )


def _absent(name: str) -> NodeInfo:
    return NodeInfo(
        name=name,
        labels={},
        taints=(),
        unschedulable=False,
        allocatable={},
        images={},
        present=False,
    )


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All nodes at one moment. Nodes that are gone but still have pods are not in it."""

    nodes: tuple[NodeInfo, ...]
    namespace_labels: Mapping[str, Mapping[str, str]]

    def pods(self) -> Iterator[tuple[NodeInfo, PodInfo]]:
        for node in self.nodes:
            for pod in node.pods.values():
                yield node, pod

    def replacing(self, changed: NodeInfo) -> "Snapshot":
        nodes = tuple(changed if node.name == changed.name else node for node in self.nodes)
        return replace(self, nodes=nodes)


class View:
    """
    Keeps the newest snapshot up to date.

    Its mutable state: the nodes by name (each a frozen value), where each pod is, the
    labels of namespaces, and a snapshot that is taken anew only after a change.
    """

    def __init__(self) -> None:
        self._nodes: dict[str, NodeInfo] = {}
        self._where: dict[str, str] = {}  # pod uid → node
        self._namespaces: dict[str, Mapping[str, str]] = {}
        self._taken: Snapshot | None = None
        self.repelling: set[str] = set()  # uids of placed pods with anti-affinity
        self.preferring: set[str] = set()  # of those whose wishes others are scored by

    def node(self, name: str) -> NodeInfo | None:
        found = self._nodes.get(name)
        return found if found is not None and found.present else None

    def set_node(self, node: NodeInfo) -> NodeInfo | None:
        """Take a new state of the node; the one before, if any."""
        old = self._nodes.get(node.name)
        if old is not None:
            node = replace(node, pods=old.pods, used=old.used, scored=old.scored)
        self._put(node)
        return old if old is not None and old.present else None

    def drop_node(self, name: str) -> None:
        old = self._nodes.pop(name, None)
        self._taken = None
        if old is not None and old.pods:
            empty = _absent(name)
            self._put(replace(empty, pods=old.pods, used=old.used, scored=old.scored))

    def put_pod(self, pod: PodInfo) -> None:
        """A pod on its node, assumed or bound; replaces what was known of it."""
        before = self._where.get(pod.uid)
        if before is not None and before != pod.node:
            self.drop_pod(pod.uid)
        self._where[pod.uid] = pod.node
        node = self._nodes.get(pod.node) or _absent(pod.node)
        self._put(node.with_pod(pod))
        if pod.anti_affinity:
            self.repelling.add(pod.uid)
        if pod.preferred or pod.affinity:
            self.preferring.add(pod.uid)

    def drop_pod(self, uid: str) -> bool:
        """Whether it was on a node."""
        name = self._where.pop(uid, None)
        self.repelling.discard(uid)
        self.preferring.discard(uid)
        if name is None:
            return False
        left = self._nodes[name].without((uid,))
        if left.present or left.pods:
            self._put(left)
        else:
            del self._nodes[name]
        return True

    def pod(self, uid: str) -> PodInfo | None:
        name = self._where.get(uid)
        return self._nodes[name].pods[uid] if name is not None else None

    def set_namespace(self, name: str, labels: Mapping[str, str] | None) -> None:
        if labels is None:
            self._namespaces.pop(name, None)
        else:
            self._namespaces[name] = labels

    def snapshot(self) -> Snapshot:
        if self._taken is None:
            nodes = tuple(node for node in self._nodes.values() if node.present)
            self._taken = Snapshot(nodes, self._namespaces)
        return self._taken

    def _put(self, node: NodeInfo) -> None:
        self._nodes[node.name] = node
        self._taken = None
