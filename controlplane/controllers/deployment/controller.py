"""
The Deployment controller: one step of a rollout at a time.

Each pass does the first thing there is to do (pause, create the new set, scale,
clean up) and writes the status; the ReplicaSets' changes bring the key back.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.deployment import sizes, status
from controlplane.controllers.deployment.revisions import (
    REVISION,
    by_age,
    desired_of,
    find_new,
    inherited,
    new_set,
    next_revision,
    replicas_of,
    revision_of,
    same_template,
    with_sizes,
)
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import condition, controller_of, is_controlled_by, is_deleting
from controlplane.objects.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from controlplane.reconcile import pods
from controlplane.reconcile.base import (
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Patch,
    Record,
    SetStatus,
    Update,
    Write,
)
from controlplane.reconcile.ownership import claim


@dataclass(frozen=True, slots=True)
class _View:
    """A Deployment and its sets, old ones by age, as one pass sees them."""

    deployment: Object
    new: Object | None
    old: Sequence[Object]
    reads: Reads
    now: datetime

    @property
    def all(self) -> list[Object]:
        return [*self.old, *([self.new] if self.new is not None else [])]

    @property
    def active_old(self) -> list[Object]:
        return [item for item in self.old if replicas_of(item) > 0]


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    deployment = reads.get(DEPLOYMENTS, key.namespace, key.name)
    if deployment is None:
        return
    selector = selectors.of_object(deployment["spec"].get("selector"))
    if selector.empty:
        text = "This deployment is selecting all pods. A non-empty selector is required."
        yield Record(deployment, "Warning", "SelectingAll", text)
        return
    candidates = reads.list(REPLICA_SETS, key.namespace)
    owned, patches = claim(deployment, REPLICA_SETS, candidates, selector.matches)
    yield from patches
    new = find_new(deployment, owned)
    old = [item for item in by_age(owned) if item is not new]
    view = _View(deployment, new, old, reads, now)
    if is_deleting(deployment):
        yield from _set_status(view, status.counts(deployment, view.all, new, now))
        return
    paused = _pause_condition(view)
    if paused is not None:
        yield from _set_status(view, paused)
        return
    yield from _next_step(view)


def _next_step(view: _View) -> Iterator[Write]:
    if view.deployment["spec"].get("paused") or _is_resized(view):
        steps = list(_resize(view))
        yield from steps
        if not steps and view.deployment["spec"].get("paused"):
            yield from _clean_up(view)
        counted = status.counts(view.deployment, view.all, view.new, view.now)
        yield from _set_status(view, counted)
        return
    steps = list(_roll(view) if sizes.is_rolling(view.deployment) else _recreate(view))
    yield from steps
    if any(isinstance(step, Create | Patch | SetStatus) for step in steps):
        return  # the Deployment is about to change: its status is for the next pass
    counted = status.rollout(view.deployment, view.all, view.new, view.now)
    if not steps and status.is_complete(view.deployment, counted):
        yield from _clean_up(view)
    yield from _set_status(view, counted)
    yield from _watch_deadline(view, counted)


def _watch_deadline(view: _View, counted: dict[str, Any]) -> Iterator[Write]:
    if not status.has_deadline(view.deployment) or status.is_complete(view.deployment, counted):
        return
    left = status.deadline_left(view.deployment, view.now)
    if left is not None and left > timedelta(0):
        yield Again(left + timedelta(seconds=1))


# -- pause and resume


def _pause_condition(view: _View) -> dict[str, Any] | None:
    """The status with the condition that says so, where pausing has changed."""
    deployment = view.deployment
    found = condition(deployment, "Progressing")
    if not status.has_deadline(deployment):
        return None
    if found is not None and found.get("reason") == status.TIMED_OUT:
        return None
    was_paused = found is not None and found.get("reason") == status.PAUSED
    if bool(deployment["spec"].get("paused")) == was_paused:
        return None
    if was_paused:
        new = status.made("Progressing", "Unknown", status.RESUMED, "Deployment is resumed")
    else:
        new = status.made("Progressing", "Unknown", status.PAUSED, "Deployment is paused")
    return _with_condition(view, new)


def _with_condition(view: _View, new: status.Condition) -> dict[str, Any]:
    old = dict(view.deployment.get("status") or {})
    old["conditions"] = status.set_condition(old.get("conditions") or (), new, view.now)
    return old


# -- scaling


def _is_resized(view: _View) -> bool:
    """Whether the Deployment's own size changed since its active sets were scaled."""
    desired = replicas_of(view.deployment)
    for item in view.all:
        made_for = desired_of(item)
        if replicas_of(item) > 0 and made_for is not None and made_for != desired:
            return True
    return False


def _resize(view: _View) -> Iterator[Write]:
    deployment, desired = view.deployment, replicas_of(view.deployment)
    active = [item for item in view.all if replicas_of(item) > 0]
    if len(active) <= 1:
        only = active[0] if active else view.new or (view.old[-1] if view.old else None)
        if only is not None:
            yield from _scale(view, only, desired)
        return
    if sizes.is_saturated(deployment, view.new):
        for item in view.active_old:
            yield from _scale(view, item, 0)
        return
    if sizes.is_rolling(deployment):
        wanted = sizes.spread(deployment, active)
        for item in active:
            yield from _scale(view, item, wanted[item["metadata"]["name"]])


def _scale(view: _View, item: Object, size: int) -> Iterator[Write]:
    limit = sizes.limits(view.deployment)
    annotations = with_sizes(item, limit.desired, limit.maximum)
    before = replicas_of(item)
    meta = item["metadata"]
    if before == size and annotations == (meta.get("annotations") or {}):
        return
    body = {
        **item,
        "metadata": {**meta, "annotations": annotations},
        "spec": {**item["spec"], "replicas": size},
    }
    yield Update(REPLICA_SETS, body)
    if before != size:
        way = "up" if before < size else "down"
        text = f"Scaled {way} replica set {meta['name']} from {before} to {size}"
        yield Record(view.deployment, "Normal", "ScalingReplicaSet", text)


# -- rollouts


def _roll(view: _View) -> Iterator[Write]:
    prepared = list(_prepare_new(view))
    yield from prepared
    if prepared or view.new is None:
        return
    desired = replicas_of(view.deployment)
    own = replicas_of(view.new)
    size = desired if own > desired else sizes.size_of_new(view.deployment, view.all, view.new)
    if own != size:
        yield from _scale(view, view.new, size)
        return
    active = view.active_old
    limit = sizes.limits(view.deployment)
    smaller = sizes.shrink_old(active, view.new, view.all, limit)
    for item in active:
        if item["metadata"]["name"] in smaller:
            yield from _scale(view, item, smaller[item["metadata"]["name"]])


def _recreate(view: _View) -> Iterator[Write]:
    for item in view.active_old:
        yield from _scale(view, item, 0)
    if view.active_old or _old_pods_run(view):
        return
    prepared = list(_prepare_new(view))
    yield from prepared
    if not prepared and view.new is not None:
        yield from _scale(view, view.new, replicas_of(view.deployment))


def _old_pods_run(view: _View) -> bool:
    for item in view.old:
        for pod in view.reads.owned(PODS, item["metadata"]["uid"]):
            if not pods.is_finished(pod) and is_controlled_by(pod, item):
                return True
    return False


def _prepare_new(view: _View) -> Iterator[Write]:
    """Make the new set, or bring its annotations and the Deployment's revision up to date."""
    if view.new is None:
        yield _create_new(view)
        return
    revision = next_revision(view.old)
    meta = view.new["metadata"]
    annotations = inherited(view.deployment, meta.get("annotations") or {}, revision)
    ready = view.deployment["spec"].get("minReadySeconds", 0)
    spec = view.new["spec"]
    if annotations != (meta.get("annotations") or {}) or spec.get("minReadySeconds", 0) != ready:
        body = {
            **view.new,
            "metadata": {**meta, "annotations": annotations},
            "spec": {**spec, "minReadySeconds": ready},
        }
        yield Update(REPLICA_SETS, body)
        return
    yield from _own_revision(view.deployment, str(revision_of(view.new)))
    if status.has_deadline(view.deployment) and not condition(view.deployment, "Progressing"):
        text = f'Found new replica set "{meta["name"]}"'
        found = status.made("Progressing", "True", "FoundNewReplicaSet", text)
        yield SetStatus(DEPLOYMENTS, view.deployment, _with_condition(view, found))


def _own_revision(deployment: Object, revision: str) -> Iterator[Write]:
    meta = deployment["metadata"]
    if (meta.get("annotations") or {}).get(REVISION) != revision:
        body = {"metadata": {"uid": meta["uid"], "annotations": {REVISION: revision}}}
        # By the status, as upstream: changed annotations of the spec would be a new generation.
        yield Patch(DEPLOYMENTS, meta["namespace"], meta["name"], body, subresource="status")


def _create_new(view: _View) -> Create:
    deployment = view.deployment
    size = sizes.size_of_new(deployment, view.all, None)
    body = new_set(deployment, view.old, size, sizes.limits(deployment).maximum)
    name = body["metadata"]["name"]

    def made(_: Object) -> Iterator[Write]:
        if size > 0:
            text = f"Scaled up replica set {name} from 0 to {size}"
            yield Record(deployment, "Normal", "ScalingReplicaSet", text)
        if status.has_deadline(deployment):
            text = f'Created new replica set "{name}"'
            created = status.made("Progressing", "True", "NewReplicaSetCreated", text)
            yield SetStatus(DEPLOYMENTS, deployment, _with_condition(view, created))

    def refused(err: StatusError) -> Iterable[Write]:
        if err.reason == "AlreadyExists":
            return _collided(view, name)
        return _not_created(view, name, err)

    return Create(REPLICA_SETS, body, on_success=made, on_failure=refused)


def _collided(view: _View, name: str) -> Iterator[Write]:
    """Another template has this hash, or the set is there and the view was late."""
    found = view.reads.get(REPLICA_SETS, view.deployment["metadata"]["namespace"], name)
    if found is None:
        return
    wanted = view.deployment["spec"]["template"]
    ours = is_controlled_by(found, view.deployment)
    if ours and same_template(found["spec"]["template"], wanted):
        return
    old = dict(view.deployment.get("status") or {})
    old["collisionCount"] = old.get("collisionCount", 0) + 1
    yield SetStatus(DEPLOYMENTS, view.deployment, old)


def _not_created(view: _View, name: str, err: StatusError) -> Iterator[Write]:
    text = f'Failed to create new replica set "{name}": {err.message}'
    yield Record(view.deployment, "Warning", "ReplicaSetCreateError", text)
    if status.has_deadline(view.deployment):
        failed = status.made("Progressing", "False", "ReplicaSetCreateError", text)
        yield from _set_status(view, _with_condition(view, failed))


# -- afterwards


def _clean_up(view: _View) -> Iterator[Write]:
    """Delete the oldest revisions beyond the limit that no pod needs any more."""
    limit = view.deployment["spec"].get("revisionHistoryLimit")
    if limit is None:
        return
    kept = [item for item in view.old if not is_deleting(item)]
    excess = len(kept) - limit
    if excess <= 0:
        return
    for item in sorted(kept, key=revision_of)[:excess]:
        seen = item.get("status") or {}
        behind = item["metadata"].get("generation", 0) > seen.get("observedGeneration", 0)
        if not seen.get("replicas") and not replicas_of(item) and not behind:
            yield Delete(REPLICA_SETS, item)


def _set_status(view: _View, new: dict[str, Any]) -> Iterator[Write]:
    if _plain(new) != _plain(view.deployment.get("status") or {}):
        yield SetStatus(DEPLOYMENTS, view.deployment, new)


def _plain(counted: dict[str, Any]) -> dict[str, Any]:
    """Conditions have no order."""
    listed = sorted(counted.get("conditions") or (), key=lambda c: str(c["type"]))
    return {**{k: v for k, v in counted.items() if v}, "conditions": listed}


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource.plural == PODS.plural:
        yield from _recreating(change, reads)
        return
    for item in (change.old, change.new):
        reference = controller_of(item) if item is not None else None
        if reference is not None and reference["kind"] == "Deployment":
            yield Key(change.namespace, reference["name"])
    if change.new is not None and controller_of(change.new) is None:
        labels = change.new["metadata"].get("labels") or {}
        for deployment in reads.list(DEPLOYMENTS, change.namespace):
            selector = selectors.of_object(deployment["spec"].get("selector"))
            if not selector.empty and selector.matches(labels):
                yield Key(change.namespace, deployment["metadata"]["name"])


def _recreating(change: Change, reads: Reads) -> Iterator[Key]:
    """A Recreate rollout waits for old pods to be gone; nobody else here looks at pods."""
    if change.old is None or (change.new is not None and not pods.is_finished(change.new)):
        return
    reference = controller_of(change.old)
    if reference is None or reference["kind"] != "ReplicaSet":
        return
    parent = reads.get(REPLICA_SETS, change.namespace, reference["name"])
    above = controller_of(parent) if parent is not None else None
    if above is None or above["kind"] != "Deployment":
        return
    deployment = reads.get(DEPLOYMENTS, change.namespace, above["name"])
    if deployment is not None and not sizes.is_rolling(deployment):
        yield Key(change.namespace, above["name"])


DEPLOYMENT = Controller(
    name="deployment-controller",
    primary=DEPLOYMENTS,
    reads=frozenset({REPLICA_SETS, PODS}),
    writes=frozenset({DEPLOYMENTS, REPLICA_SETS}),
    shares=frozenset({REPLICA_SETS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
