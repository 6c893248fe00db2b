"""
NoExecute taints → pods that do not tolerate them are deleted, now or after the time they tolerate.

How long counts from when the taint was first seen to act on the pod; that is the
controller's only memory.
Source: the API concept "Taints and Tolerations", "Taint based Evictions".
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import is_deleting, uid_of, with_condition
from controlplane.objects.moment import left
from controlplane.objects.node_selectors import tolerates
from controlplane.objects.resources import NODES, PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Again, Controller, Delete, Key, Record, SetStatus, Write


def make() -> Controller:
    return Controller(
        name="taint-eviction-controller",
        primary=PODS,
        reads=frozenset({NODES}),
        writes=frozenset({PODS}),
        shares=frozenset({PODS}),
        reconcile=_Evictions().reconcile,
        keys_for=_keys_for,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.load_old is not None and _no_execute(change.old) == _no_execute(change.new):
        return
    if change.load_old is None and not _no_execute(change.new):
        return
    for pod in reads.on_node(change.name):
        yield Key(pod["metadata"]["namespace"], pod["metadata"]["name"])


def _no_execute(node: Object | None) -> list[Object]:
    taints = (node.get("spec") or {}).get("taints") or () if node is not None else ()
    return [taint for taint in taints if taint["effect"] == "NoExecute"]


class _Evictions:
    """Since when each pod has been on borrowed time, by uid."""

    def __init__(self) -> None:
        self._since: dict[Key, tuple[str, datetime]] = {}

    def reconcile(self, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        pod = reads.get(PODS, key.namespace, key.name)
        name = pod["spec"].get("nodeName") if pod is not None else None
        taints = _no_execute(reads.get(NODES, "", name)) if name else []
        if pod is None or not taints or is_deleting(pod) or pods.is_finished(pod):
            yield from self._pardon(key, pod)
            return
        grace = _grace(pod, taints)
        if grace is None:
            yield from self._pardon(key, pod)
            return
        uid = uid_of(pod)
        known = self._since.get(key)
        since = known[1] if known is not None and known[0] == uid else now
        self._since[key] = (uid, since)
        remaining = left(since, grace, now)
        if remaining > timedelta(0):
            yield Again(remaining)
            return
        yield from _evict(pod, now)

    def _pardon(self, key: Key, pod: Object | None) -> Iterator[Write]:
        known = self._since.pop(key, None)
        if known is None or pod is None or is_deleting(pod) or uid_of(pod) != known[0]:
            return
        text = f"Cancelling deletion of Pod {key.namespace}/{key.name}"
        yield Record(pod, "Normal", "TaintManagerEviction", text)


def _grace(pod: Object, taints: list[Object]) -> timedelta | None:
    """How long the pod may stay; None: for ever."""
    tolerations = pod["spec"].get("tolerations") or ()
    seconds: list[int] = []
    for taint in taints:
        matching = [toleration for toleration in tolerations if tolerates((toleration,), taint)]
        if not matching:
            return timedelta(0)
        limited = [
            t["tolerationSeconds"] for t in matching if t.get("tolerationSeconds") is not None
        ]
        seconds += limited
    return timedelta(seconds=max(min(seconds), 0)) if seconds else None


def _evict(pod: Object, now: datetime) -> Iterator[Write]:
    meta, status = pod["metadata"], dict(pod.get("status") or {})
    text = f"Marking for deletion Pod {meta['namespace']}/{meta['name']}"
    yield Record(pod, "Normal", "TaintManagerEviction", text)
    target = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByTaintManager",
        "message": "Taint manager: deleting due to NoExecute taint",
    }
    status["conditions"] = with_condition(status.get("conditions"), target, now)
    yield SetStatus(PODS, pod, status)
    yield Delete(PODS, pod)
