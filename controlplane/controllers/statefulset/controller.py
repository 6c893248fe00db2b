"""
The StatefulSet controller: pods in the order of their ordinals, or all at once.

Each pass goes through the pods upwards and does what may be done now; in order, the
first pod that does not work ends it. Then pods too many go, downwards, then old ones.
Source: the API concept "StatefulSet"; upstream's controller/statefulset.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.statefulset import claims, identity, status
from controlplane.controllers.statefulset.view import View
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import controller_of, is_deleting, labels, name
from controlplane.objects.resources import (
    CONTROLLER_REVISIONS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)
from controlplane.reconcile import pods, revisions
from controlplane.reconcile.amounts import scaled
from controlplane.reconcile.base import (
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Patch,
    Record,
    SetStatus,
    Write,
)
from controlplane.reconcile.ownership import claim
from controlplane.reconcile.revisions import History

REVISION_HASH = "controller.kubernetes.io/hash"


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    owner = reads.get(STATEFUL_SETS, key.namespace, key.name)
    if owner is None:
        return
    selector = selectors.of_object(owner["spec"].get("selector"))
    candidates = [p for p in reads.list(PODS, key.namespace) if identity.is_member(owner, p)]
    owned, patches = claim(owner, PODS, candidates, selector.matches)
    yield from patches
    history, writes = revisions.prepare(owner, STATEFUL_SETS, reads, REVISION_HASH)
    yield from writes
    if history is None:
        return
    current = history.named((owner.get("status") or {}).get("currentRevision"))
    view = View(
        owner=owner,
        pods=owned,
        current=current if current is not None else history.now,
        update=history.now,
        reads=reads,
        now=now,
    )
    yield from _set_status(view)
    if is_deleting(owner):
        return
    yield from _work(view)
    yield from _clean_up(view, history)


def _set_status(view: View) -> Iterator[Write]:
    new = status.count(view)
    if new != (view.owner.get("status") or {}):
        yield SetStatus(STATEFUL_SETS, view.owner, new)
    later = status.later(view)
    if later is not None:
        yield Again(later)


def _clean_up(view: View, history: History) -> Iterator[Write]:
    live = {*revisions.of_pods(view.pods), name(view.current), name(view.update)}
    dead = sum(name(revision) not in live for revision in history.old)
    limit = view.owner["spec"].get("revisionHistoryLimit", 10)
    yield from revisions.prune(history.old, lambda item: name(item) in live, dead - limit)


# -- one pass


def _work(view: View) -> Iterator[Write]:
    yield from _keep_claims(view)
    for number in view.ordinals:
        pod = view.by_ordinal.get(number)
        yield from _make(view, number) if pod is None else _mend(view, pod)
        if view.is_ordered and not view.works(pod):
            return
    if view.condemned:
        yield from _shrink(view)
        if view.is_ordered:
            return
    if view.rolls:
        yield from _roll(view)


def _keep_claims(view: View) -> Iterator[Write]:
    for pod in view.pods:
        yield from claims.retain(view.owner, pod, view.reads)


def _mend(view: View, pod: Object) -> Iterator[Write]:
    """A pod that is there: replace it if it has ended, else give it what it lacks."""
    if pods.is_finished(pod):
        if not is_deleting(pod):
            yield from _delete(view, pod)
        return
    number = identity.ordinal(pod)
    if pods.phase(pod) == "Pending":
        yield from claims.create(view.owner, number, view.reads)
    missing = identity.identity(view.owner, number)
    if labels(pod).get(identity.POD_NAME) != missing[identity.POD_NAME]:
        meta = pod["metadata"]
        yield Patch(PODS, meta["namespace"], meta["name"], {"metadata": {"labels": missing}})
        yield _record(view, "Update", name(pod))


def _make(view: View, number: int) -> Iterator[Write]:
    owner, reads = view.owner, view.reads
    if claims.is_stale(owner, number, reads):
        return
    going = claims.leaving(owner, number, reads)
    pod_name = f"{name(owner)}-{number}"
    if going is not None:
        yield _record(view, "Create", pod_name, f"pvc {name(going)} is being deleted")
        return
    yield from claims.create(owner, number, reads)

    def made(_: Object) -> list[Write]:
        return [_record(view, "Create", pod_name)]

    def refused(err: StatusError) -> list[Write]:
        if err.reason == "AlreadyExists" or pods.is_namespace_going(err):
            return []
        return [_record(view, "Create", pod_name, err.message)]

    body = _body(view, number)
    yield Create(PODS, body, on_success=made, on_failure=refused)


def _body(view: View, number: int) -> dict[str, Any]:
    revision = view.current if _stays_back(view, number) else view.update
    template = revisions.template_of(revision)
    return identity.body(view.owner, template, number, name(revision))


def _stays_back(view: View, number: int) -> bool:
    """Whether the pod is made at the revision that an update is about to leave."""
    if not view.rolls:
        return False
    if view.rolling is None:
        kept = (view.owner.get("status") or {}).get("currentReplicas", 0)
    else:
        kept = view.rolling.get("partition", 0)
    return number < view.ordinals.start + int(kept)


def _shrink(view: View) -> Iterator[Write]:
    for pod in view.condemned:
        if not is_deleting(pod):
            # In order, a broken pod waits until it is the first broken one.
            waits = view.is_ordered and not view.works(pod)
            if waits and identity.ordinal(pod) != view.first_broken:
                return
            yield from _delete(view, pod)
        if view.is_ordered:
            return


def _roll(view: View) -> Iterator[Write]:
    """Old pods go from the highest ordinal down to the partition, so many at a time."""
    rolling, size = view.rolling or {}, len(view.ordinals)
    most = max(scaled(rolling.get("maxUnavailable", 1), size, up=False), 1)
    room = most - sum(not view.works(view.by_ordinal.get(n)) for n in view.ordinals)
    lowest = view.ordinals.start + int(rolling.get("partition", 0))
    for number in reversed(view.ordinals):
        pod = view.by_ordinal.get(number)
        if room <= 0 or number < lowest:
            return
        if pod is not None and not view.is_updated(pod) and pods.is_active(pod):
            yield from _delete(view, pod)
            room -= 1


def _delete(view: View, pod: Object) -> Iterator[Write]:
    yield Delete(PODS, pod)
    yield _record(view, "Delete", name(pod))


def _record(view: View, verb: str, pod: str, error: str = "") -> Record:
    what = f"{verb} Pod {pod} in StatefulSet {name(view.owner)}"
    if error:
        return Record(view.owner, "Warning", f"Failed{verb}", f"{what} failed error: {error}")
    return Record(view.owner, "Normal", f"Successful{verb}", f"{what} successful")


# -- from changes to keys


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource == PERSISTENT_VOLUME_CLAIMS:
        yield from _with_claim(change, reads)
        return
    for item in (change.old, change.new):
        reference = controller_of(item) if item is not None else None
        if reference is not None and reference["kind"] == "StatefulSet":
            yield Key(change.namespace, reference["name"])
    if change.new is not None and controller_of(change.new) is None:
        for owner in reads.list(STATEFUL_SETS, change.namespace):
            selector = selectors.of_object(owner["spec"].get("selector"))
            if selector.matches(labels(change.new)):
                yield Key(change.namespace, name(owner))


def _with_claim(change: Change, reads: Reads) -> Iterator[Key]:
    """The set whose claims have such a name; only coming, going and new owners matter to it."""
    old, new = change.old, change.new
    if old is not None and new is not None and _told(old) == _told(new):
        return
    stem, _, _ = change.name.rpartition("-")
    for owner in reads.list(STATEFUL_SETS, change.namespace):
        if any(stem == f"{name(t)}-{name(owner)}" for t in claims.templates(owner)):
            yield Key(change.namespace, name(owner))


def _told(item: Object) -> tuple[bool, Any]:
    return is_deleting(item), item["metadata"].get("ownerReferences")


STATEFULSET = Controller(
    name="statefulset-controller",
    primary=STATEFUL_SETS,
    reads=frozenset({PODS, PERSISTENT_VOLUME_CLAIMS, CONTROLLER_REVISIONS}),
    writes=frozenset({STATEFUL_SETS, PODS, PERSISTENT_VOLUME_CLAIMS, CONTROLLER_REVISIONS}),
    shares=frozenset({STATEFUL_SETS, PODS, PERSISTENT_VOLUME_CLAIMS, CONTROLLER_REVISIONS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
