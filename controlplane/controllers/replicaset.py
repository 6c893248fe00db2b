"""
ReplicaSet and ReplicationController → Pod: as many pods as asked for.

The two differ in how they select and in their names only. No bookkeeping of
expected creations is needed: the loop lets a key come back only when Reads
shows what its last pass wrote.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import (
    condition,
    controller_of,
    is_deleting,
    with_condition,
    without_condition,
)
from controlplane.objects.resources import PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from controlplane.reconcile import pods
from controlplane.reconcile.base import (
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Record,
    SetStatus,
    Write,
)
from controlplane.reconcile.ownership import claim

BURST = 500  # pods made or deleted in one pass


@dataclass(frozen=True, slots=True)
class _Flavour:
    resource: Resource
    kind: str
    selector: Callable[[Object], selectors.Selector]


def _of_set(item: Object) -> selectors.Selector:
    return selectors.of_object(item["spec"].get("selector"))


def _of_replication_controller(item: Object) -> selectors.Selector:
    labels = item["spec"].get("selector")
    return selectors.of_labels(labels) if labels else selectors.NOTHING


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass works from."""

    flavour: _Flavour
    owner: Object
    owned: Sequence[Object]  # pods in any state
    reads: Reads
    now: datetime

    @property
    def active(self) -> list[Object]:
        return [pod for pod in self.owned if pods.is_active(pod)]


def _reconcile(flavour: _Flavour, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    owner = reads.get(flavour.resource, key.namespace, key.name)
    if owner is None:
        return
    selector = flavour.selector(owner)
    owned, patches = claim(owner, PODS, reads.list(PODS, key.namespace), selector.matches)
    yield from patches
    this = _Pass(flavour, owner, owned, reads, now)
    missing = owner["spec"].get("replicas", 1) - len(this.active)
    if is_deleting(owner):
        missing = 0
    if missing > 0:
        yield from _create(this, missing)
    elif missing < 0:
        yield from _delete(this, -missing)
    status, wait = _status(owner, owned, now)
    if missing == 0:
        status["conditions"] = without_condition(status["conditions"], "ReplicaFailure")
    yield from _write_status(flavour, owner, status)
    if wait is not None:
        yield Again(wait)


def _create(this: _Pass, count: int) -> Iterator[Write]:
    owner = this.owner
    body = pods.from_template(owner["spec"]["template"], owner)

    def made(pod: Object) -> Iterable[Write]:
        name = pod["metadata"]["name"]
        return [Record(owner, "Normal", "SuccessfulCreate", f"Created pod: {name}")]

    def refused(err: StatusError) -> Iterable[Write]:
        if pods.is_namespace_going(err):
            return
        yield Record(owner, "Warning", "FailedCreate", f"Error creating: {err.message}")
        status, _ = _status(owner, this.owned, this.now)
        failure = _failure("FailedCreate", err.message)
        # The first failure is told and kept: each names another pod, and a status that
        # always changes would bring the owner back at once instead of with back-off.
        if condition(owner, "ReplicaFailure") is None:
            status["conditions"] = with_condition(status["conditions"], failure, this.now)
        yield from _write_status(this.flavour, owner, status)

    for _ in range(min(count, BURST)):
        yield Create(PODS, body, on_success=made, on_failure=refused)


def _delete(this: _Pass, count: int) -> Iterator[Write]:
    crowd = _crowd(this)

    def order(pod: Object) -> tuple[Any, ...]:
        return pods.deletion_order(pod, crowd[pod["spec"].get("nodeName", "")], this.now)

    doomed = sorted(this.active, key=order)[: min(count, BURST)]
    yield from (Delete(PODS, pod) for pod in doomed)
    for pod in doomed:
        text = f"Deleted pod: {pod['metadata']['name']}"
        yield Record(this.owner, "Normal", "SuccessfulDelete", text)


def _crowd(this: _Pass) -> Counter[str]:
    """Active pods on each node, of all the sets that have the same owner (a Deployment's)."""
    related = this.active
    above = controller_of(this.owner)
    if above is not None:
        for sibling in this.reads.owned(this.flavour.resource, above["uid"]):
            uid = sibling["metadata"]["uid"]
            if uid != this.owner["metadata"]["uid"]:
                related += [p for p in this.reads.owned(PODS, uid) if pods.is_active(p)]
    return Counter(pod["spec"].get("nodeName", "") for pod in related)


def _failure(reason: str, message: str) -> Mapping[str, Any]:
    return {"type": "ReplicaFailure", "status": "True", "reason": reason, "message": message}


def _status(
    owner: Object, owned: Sequence[Object], now: datetime
) -> tuple[dict[str, Any], timedelta | None]:
    """The new status, and after how long a ready pod becomes available."""
    spec, old = owner["spec"], owner.get("status") or {}
    min_ready = spec.get("minReadySeconds", 0)
    wanted = (spec["template"].get("metadata") or {}).get("labels") or {}
    active = [pod for pod in owned if pods.is_active(pod)]
    waits = [pods.available_in(pod, min_ready, now) for pod in active]
    labelled = sum(wanted.items() <= (p["metadata"].get("labels") or {}).items() for p in active)
    status: dict[str, Any] = {
        "replicas": len(active),
        "fullyLabeledReplicas": labelled,
        "readyReplicas": sum(wait is not None for wait in waits),
        "availableReplicas": sum(wait == timedelta(0) for wait in waits),
        "terminatingReplicas": sum(pods.is_terminating(pod) for pod in owned),
        "observedGeneration": owner["metadata"].get("generation", 0),
        "conditions": list(old.get("conditions") or ()),
    }
    later = min((wait for wait in waits if wait), default=None)
    return status, later


def _write_status(flavour: _Flavour, owner: Object, status: dict[str, Any]) -> Iterator[Write]:
    new = {key: value for key, value in status.items() if value or key == "replicas"}
    if flavour.kind == "ReplicationController":
        new.pop("terminatingReplicas", None)  # ReplicaSets only
    old = {k: v for k, v in (owner.get("status") or {}).items() if v or k == "replicas"}
    if new != old:
        yield SetStatus(flavour.resource, owner, new)


def _keys_for(flavour: _Flavour, change: Change, reads: Reads) -> Iterator[Key]:
    """The set that controls the pod; for one without, the sets that would take it."""
    pod = change.new or change.old
    if pod is None:
        return
    for item in _both(change):
        reference = controller_of(item)
        if reference is not None and reference["kind"] == flavour.kind:
            yield Key(change.namespace, reference["name"])
    if controller_of(pod) is None and change.new is not None:
        labels = pod["metadata"].get("labels") or {}
        for owner in reads.list(flavour.resource, change.namespace):
            if flavour.selector(owner).matches(labels):
                yield Key(change.namespace, owner["metadata"]["name"])


def _both(change: Change) -> list[Object]:
    return [item for item in (change.old, change.new) if item is not None]


def _make(name: str, flavour: _Flavour) -> Controller:
    return Controller(
        name=name,
        primary=flavour.resource,
        reads=frozenset({PODS}),
        writes=frozenset({PODS, flavour.resource}),
        shares=frozenset({PODS, flavour.resource}),
        reconcile=partial(_reconcile, flavour),
        keys_for=partial(_keys_for, flavour),
    )


REPLICASET = _make("replicaset-controller", _Flavour(REPLICA_SETS, "ReplicaSet", _of_set))
REPLICATIONCONTROLLER = _make(
    "replication-controller",
    _Flavour(REPLICATION_CONTROLLERS, "ReplicationController", _of_replication_controller),
)
