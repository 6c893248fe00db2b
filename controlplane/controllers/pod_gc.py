"""
Pods that nobody will ever finish: on a node that is gone, or deleted before they had one.

A node gets a while to come back before its pods are taken for lost.
Source: the API concept "Pod Lifecycle", "Garbage collection of Pods".
"""

from collections.abc import Iterator
from datetime import datetime, timedelta

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import is_deleting, with_condition
from controlplane.objects.moment import left
from controlplane.objects.resources import NODES, PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Again, Controller, Delete, Key, SetStatus, Write

QUARANTINE = timedelta(seconds=40)


def make() -> Controller:
    return Controller(
        name="pod-garbage-collector-controller",
        primary=PODS,
        reads=frozenset({NODES}),
        writes=frozenset({PODS}),
        shares=frozenset({PODS}),
        reconcile=_Collector().reconcile,
        keys_for=_keys_for,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.load_new is None:
        for pod in reads.on_node(change.name):
            yield Key(pod["metadata"]["namespace"], pod["metadata"]["name"])


class _Collector:
    """Since when each node that pods name has been missing."""

    def __init__(self) -> None:
        self._missing: dict[str, datetime] = {}

    def reconcile(self, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        pod = reads.get(PODS, key.namespace, key.name)
        if pod is None:
            return
        name = pod["spec"].get("nodeName")
        if not name:
            if is_deleting(pod):
                yield Delete(PODS, pod, grace_seconds=0)
            return
        if reads.get(NODES, "", name) is not None:
            self._missing.pop(name, None)
            return
        since = self._missing.setdefault(name, now)
        remaining = left(since, QUARANTINE, now)
        if remaining > timedelta(0):
            yield Again(remaining)
            return
        yield from _collect(pod, now)


def _collect(pod: Object, now: datetime) -> Iterator[Write]:
    if not pods.is_finished(pod):
        status = dict(pod.get("status") or {})
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "DeletionByPodGC",
            "message": "PodGC: node no longer exists",
        }
        status["conditions"] = with_condition(status.get("conditions"), target, now)
        yield SetStatus(PODS, pod, {**status, "phase": "Failed"})
    yield Delete(PODS, pod, grace_seconds=0)
