"""
Node health → conditions, taints: a node that no longer renews its Lease becomes unknown.

A Lease counts from when its renewal was seen here, not from the time written in it: the
clocks of small boards are often wrong. That observation is the controller's only memory; it
starts afresh after a restart, which gives every node its grace period again.
Source: the API concepts "Nodes" and "Taints and Tolerations".
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import clone, condition, is_deleting, is_true, rfc3339
from controlplane.objects.moment import elapsed
from controlplane.objects.resources import LEASES, NODES, PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Again, Controller, Key, Patch, Record, SetStatus, Write

GRACE = timedelta(seconds=40)
LEASE_NAMESPACE = "kube-node-lease"
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"

# Condition and status → the taint that keeps new pods away.
_CONDITION_TAINTS: Mapping[tuple[str, str], str] = {
    ("Ready", "False"): NOT_READY,
    ("Ready", "Unknown"): UNREACHABLE,
    ("MemoryPressure", "True"): "node.kubernetes.io/memory-pressure",
    ("DiskPressure", "True"): "node.kubernetes.io/disk-pressure",
    ("PIDPressure", "True"): "node.kubernetes.io/pid-pressure",
    ("NetworkUnavailable", "True"): "node.kubernetes.io/network-unavailable",
}
_NO_SCHEDULE = frozenset({*_CONDITION_TAINTS.values(), UNSCHEDULABLE})
_NO_EXECUTE = frozenset({NOT_READY, UNREACHABLE})
_LOST_CONDITIONS = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


def make() -> Controller:
    health = _Health()
    return Controller(
        name="node-controller",
        primary=NODES,
        reads=frozenset({LEASES, PODS, NODES}),
        writes=frozenset({NODES, PODS}),
        shares=frozenset({NODES, PODS}),
        reconcile=health.reconcile,
        keys_for=_keys_for,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    match change.resource.plural:
        case LEASES.plural if change.namespace == LEASE_NAMESPACE:
            yield Key("", change.name)
        case NODES.plural:
            # The last healthy node going, or the first one coming, changes what is done to all.
            if _is_ready(change.old) != _is_ready(change.new):
                for node in reads.list(NODES):
                    yield Key("", node["metadata"]["name"])
        case _:
            pass


def _is_ready(node: Object | None) -> bool:
    return node is not None and is_true(node, "Ready")


class _Health:
    """When a sign of life of each node was last seen, by which sign."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[Any, datetime]] = {}

    def reconcile(self, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        node = reads.get(NODES, "", key.name)
        if node is None or is_deleting(node):
            self._seen.pop(key.name, None)
            return
        left = GRACE - elapsed(self._last_seen(node, reads, now), now)
        if left <= timedelta(0):
            lost = _lost(node, now)
            if lost is not None:
                yield SetStatus(NODES, node, lost)
                text = f"Node {key.name} status is now: NodeNotReady"
                yield Record(node, "Normal", "NodeNotReady", text)
                return  # the taints follow from the new status
        else:
            yield Again(left + timedelta(seconds=1))
        yield from _taint(node, reads, now)
        if not _is_ready(node) and condition(node, "Ready") is not None:
            yield from _mark_pods(node, reads, now)

    def _last_seen(self, node: Object, reads: Reads, now: datetime) -> datetime:
        name = node["metadata"]["name"]
        lease = reads.get(LEASES, LEASE_NAMESPACE, name)
        ready = condition(node, "Ready") or {}
        sign = (
            (lease.get("spec") or {}).get("renewTime") if lease is not None else None,
            ready.get("lastHeartbeatTime") if ready.get("status") != "Unknown" else None,
        )
        before = self._seen.get(name)
        if before is not None:
            # A condition that we set to Unknown ourselves is no sign of life.
            sign = (sign[0], sign[1] or before[0][1])
            if sign == before[0]:
                return before[1]
        self._seen[name] = (sign, now)
        return now


def _lost(node: Object, now: datetime) -> dict[str, Any] | None:
    """The status of a node that is heard of no more; None: it says so already."""
    status: dict[str, Any] = clone(dict(node.get("status") or {}))
    conditions = status.setdefault("conditions", [])
    at, changed = rfc3339(now), False
    for type_ in _LOST_CONDITIONS:
        found = next((c for c in conditions if c["type"] == type_), None)
        if found is None:
            created = node["metadata"].get("creationTimestamp", at)
            found = {"type": type_, "lastHeartbeatTime": created}
            conditions.append(found)
            reason = "NodeStatusNeverUpdated", "Kubelet never posted node status."
        elif found["status"] == "Unknown":
            continue
        else:
            reason = "NodeStatusUnknown", "Kubelet stopped posting node status."
        found |= {"status": "Unknown", "reason": reason[0], "message": reason[1]}
        found["lastTransitionTime"] = at
        changed = True
    return status if changed else None


# -- taints


def _taint(node: Object, reads: Reads, now: datetime) -> Iterator[Write]:
    old: Sequence[Object] = (node.get("spec") or {}).get("taints") or ()
    wanted = [*_by_condition(node), *_by_health(node, reads)]
    kept = [taint for taint in old if not _is_ours(taint)]
    ours = [taint for taint in old if _is_ours(taint)]
    pairs = {(taint["key"], taint["effect"]) for taint in ours}
    if pairs == set(wanted):
        return
    known = {(taint["key"], taint["effect"]): taint for taint in ours}
    made: list[Object] = list(kept)
    for key, effect in wanted:
        fresh = {"key": key, "effect": effect}
        if effect == "NoExecute":
            fresh["timeAdded"] = rfc3339(now)
        made.append(known.get((key, effect), fresh))
    meta = node["metadata"]
    version = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    body = {"metadata": version, "spec": {"taints": made}}
    yield Patch(NODES, "", meta["name"], body)


def _is_ours(taint: Object) -> bool:
    keys = {"NoSchedule": _NO_SCHEDULE, "NoExecute": _NO_EXECUTE}.get(taint["effect"], frozenset())
    return taint["key"] in keys


def _by_condition(node: Object) -> Iterator[tuple[str, str]]:
    for found in (node.get("status") or {}).get("conditions") or ():
        key = _CONDITION_TAINTS.get((found["type"], found["status"]))
        if key is not None:
            yield key, "NoSchedule"
    if (node.get("spec") or {}).get("unschedulable"):
        yield UNSCHEDULABLE, "NoSchedule"


def _by_health(node: Object, reads: Reads) -> Iterator[tuple[str, str]]:
    """Pods are sent away, unless no node is well: then the fault is more likely here."""
    ready = condition(node, "Ready")
    if ready is None or ready["status"] == "True":
        return
    if any(_is_ready(other) for other in reads.list(NODES)):
        key = NOT_READY if ready["status"] == "False" else UNREACHABLE
        yield key, "NoExecute"


# -- pods


def _mark_pods(node: Object, reads: Reads, now: datetime) -> Iterator[Write]:
    """Pods of a node that is not ready are not ready either: traffic shall go elsewhere."""
    for pod in reads.on_node(node["metadata"]["name"]):
        found = condition(pod, "Ready")
        if found is None or found["status"] != "True" or pods.is_finished(pod):
            continue
        status: dict[str, Any] = clone(dict(pod["status"]))
        for entry in status["conditions"]:
            if entry["type"] == "Ready":
                entry |= {"status": "False", "lastTransitionTime": rfc3339(now)}
        yield SetStatus(PODS, pod, status)
        yield Record(pod, "Warning", "NodeNotReady", "Node is not ready")
