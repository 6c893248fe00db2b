"""
The DaemonSet controller: a pod where one is missing, none where none should be, then updates.

Source: the API concept "DaemonSet"; upstream's controller/daemon.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.daemonset import nodes, rollout
from controlplane.controllers.daemonset.backoff import Replacements
from controlplane.controllers.daemonset.rollout import Steps
from controlplane.controllers.daemonset.view import View, by_node
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import controller_of, is_deleting, labels, name
from controlplane.objects.resources import CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS
from controlplane.reconcile import pods, revisions
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
from controlplane.reconcile.revisions import HASH_LABEL, History

BURST = 250  # pods made or deleted in one pass
_ALWAYS = frozenset(
    {"currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady"}
)


def _reconcile(
    replacements: Replacements, key: Key, reads: Reads, now: datetime
) -> Iterator[Write]:
    daemon_set = reads.get(DAEMON_SETS, key.namespace, key.name)
    if daemon_set is None:
        return
    selector = selectors.of_object(daemon_set["spec"].get("selector"))
    if selector.empty:
        text = "This daemon set is selecting all pods. A non-empty selector is required."
        yield Record(daemon_set, "Warning", "SelectingAll", text)
        return
    if is_deleting(daemon_set):
        return
    history, writes = revisions.prepare(daemon_set, DAEMON_SETS, reads, HASH_LABEL)
    yield from writes
    if history is None:
        return
    owned, patches = claim(daemon_set, PODS, reads.list(PODS, key.namespace), selector.matches)
    yield from patches
    view = View(
        daemon_set=daemon_set,
        fits={name(node): nodes.fit(daemon_set, node) for node in reads.list(NODES)},
        pods=by_node(owned),
        hashed=labels(history.now).get(HASH_LABEL, ""),
        now=now,
    )
    yield from _set_status(view)
    yield from _work(view, replacements)
    yield from _clean_up(view, history, owned)


def _work(view: View, replacements: Replacements) -> Iterator[Write]:
    steps = Steps()
    for node in view.fits:
        yield from _manage(view, node, replacements, steps)
    # Meant for a node that is gone: nobody else would ever delete those.
    for node, found in view.pods.items():
        if node not in view.fits:
            steps.delete += [pod for pod in found if not pod["spec"].get("nodeName")]
    if not steps and view.rolls:
        steps = rollout.roll(view)
    yield from _perform(view, steps)


# -- one node


def _manage(view: View, node: str, replacements: Replacements, steps: Steps) -> Iterator[Write]:
    fits, found = view.fits[node], view.pods.get(node)
    if found is None:
        if fits.start:
            steps.create.append(node)
        return
    staying = [pod for pod in found if not is_deleting(pod)]
    if not fits.stay:
        steps.delete += staying
        return
    yield from _replace_ended(view, staying, replacements, steps)
    running = [pod for pod in staying if not pods.is_finished(pod)]
    if not view.allows_surge:
        steps.delete += running[1:]
    elif running:
        steps.delete += _excess(view, running)
    elif fits.start:
        steps.create.append(node)


def _replace_ended(
    view: View,
    staying: Sequence[Object],
    replacements: Replacements,
    steps: Steps,
) -> Iterator[Write]:
    daemon_set = view.daemon_set
    meta, observed = daemon_set["metadata"], (daemon_set.get("status") or {})
    for pod in staying:
        node = nodes.target(pod)
        place = (meta["uid"], observed.get("observedGeneration", 0), node)
        what = f"daemon pod {meta['namespace']}/{name(pod)} on node {node}"
        match pods.phase(pod):
            case "Failed":
                left = replacements.left(place, view.now)
                if left > timedelta(0):
                    yield Again(left)
                    continue
                replacements.replaced(place, view.now)
                text = f"Found failed {what}, will try to kill it"
                yield Record(daemon_set, "Warning", "FailedDaemonPod", text)
                steps.delete.append(pod)
            case "Succeeded":
                text = f"Found succeeded {what}, will try to delete it"
                yield Record(daemon_set, "Normal", "SucceededDaemonPod", text)
                steps.delete.append(pod)
            case _:
                pass


def _excess(view: View, running: Sequence[Object]) -> list[Object]:
    """All but the oldest of each kind; the old one too, once it is of no use any more."""
    new = [pod for pod in running if view.is_updated(pod)]
    old = [pod for pod in running if not view.is_updated(pod)]
    gone = [*new[1:], *old[1:]]
    if new and old and (not pods.is_ready(old[0]) or view.is_available(new[0])):
        gone.append(old[0])
    return gone


# -- writing


def _perform(view: View, steps: Steps) -> Iterator[Write]:
    daemon_set = view.daemon_set

    def made(pod: Object) -> Iterable[Write]:
        return [Record(daemon_set, "Normal", "SuccessfulCreate", f"Created pod: {name(pod)}")]

    def refused(err: StatusError) -> Iterable[Write]:
        if pods.is_namespace_going(err):
            return []
        return [Record(daemon_set, "Warning", "FailedCreate", f"Error creating: {err.message}")]

    doomed = steps.delete[:BURST]
    yield from (Delete(PODS, pod) for pod in doomed)
    for pod in doomed:
        yield Record(daemon_set, "Normal", "SuccessfulDelete", f"Deleted pod: {name(pod)}")
    for node in steps.create[:BURST]:
        body = nodes.body(daemon_set, node, view.hashed)
        yield Create(PODS, body, on_success=made, on_failure=refused)


def _clean_up(view: View, history: History, owned: Sequence[Object]) -> Iterator[Write]:
    live = revisions.of_pods(owned)
    limit = view.daemon_set["spec"].get("revisionHistoryLimit", 10)

    def is_live(revision: Object) -> bool:
        return labels(revision).get(HASH_LABEL) in live

    yield from revisions.prune(history.old, is_live, len(history.old) - limit)


def _set_status(view: View) -> Iterator[Write]:
    daemon_set, old = view.daemon_set, view.daemon_set.get("status") or {}
    placed = [view.pods[n][0] for n, f in view.fits.items() if f.start and n in view.pods]
    waits = [view.wait(pod) for pod in placed]
    available = sum(wait == timedelta(0) for wait in waits)
    counted: dict[str, Any] = {
        "currentNumberScheduled": len(placed),
        "numberMisscheduled": sum(not f.start and n in view.pods for n, f in view.fits.items()),
        "desiredNumberScheduled": view.desired,
        "numberReady": sum(wait is not None for wait in waits),
        "observedGeneration": daemon_set["metadata"].get("generation", 0),
        "updatedNumberScheduled": sum(map(view.is_updated, placed)),
        "numberAvailable": available,
        "numberUnavailable": view.desired - available,
        "collisionCount": old.get("collisionCount"),
        "conditions": old.get("conditions"),
    }
    new = {key: value for key, value in counted.items() if value or key in _ALWAYS}
    if new != {key: value for key, value in old.items() if value or key in _ALWAYS}:
        yield SetStatus(DAEMON_SETS, daemon_set, new)
    later = min((wait for wait in waits if wait), default=None)
    if later is not None:
        yield Again(later)


# -- from changes to keys


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource == NODES:
        yield from _touched(change, reads)
        return
    for item in (change.old, change.new):
        reference = controller_of(item) if item is not None else None
        if reference is not None and reference["kind"] == "DaemonSet":
            yield Key(change.namespace, reference["name"])
    if change.new is not None and controller_of(change.new) is None:
        for daemon_set in reads.list(DAEMON_SETS, change.namespace):
            selector = selectors.of_object(daemon_set["spec"].get("selector"))
            if selector.matches(labels(change.new)):
                yield Key(change.namespace, name(daemon_set))


def _touched(change: Change, reads: Reads) -> Iterator[Key]:
    """By a node that came, went, or fits otherwise than before; its heartbeats touch nobody."""
    old, new = change.old, change.new
    for daemon_set in reads.list(DAEMON_SETS):
        before = nodes.fit(daemon_set, old) if old is not None else None
        after = nodes.fit(daemon_set, new) if new is not None else None
        if before != after:
            meta = daemon_set["metadata"]
            yield Key(meta["namespace"], meta["name"])


def make() -> Controller:
    return Controller(
        name="daemonset-controller",
        primary=DAEMON_SETS,
        reads=frozenset({PODS, NODES, CONTROLLER_REVISIONS}),
        writes=frozenset({DAEMON_SETS, PODS, CONTROLLER_REVISIONS}),
        shares=frozenset({PODS, CONTROLLER_REVISIONS}),
        reconcile=partial(_reconcile, Replacements()),
        keys_for=_keys_for,
    )
