"""
PersistentVolume → its phase: whether it is free, bound, or left behind by its claim.

A volume whose claim is gone stays Released until its provisioner deletes it or an administrator
clears the claimRef: its data is somebody's. No volume type that is served here has a
deleter or a recycler, so those policies end in Failed unless a provisioner made the volume.
"""

from collections.abc import Iterator
from datetime import datetime

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import annotations, clone, rfc3339
from controlplane.objects.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES
from controlplane.reconcile import volumes
from controlplane.reconcile.base import Controller, Key, Record, SetStatus, Update, Write

_OVER = frozenset({"Released", "Failed"})


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    volume = reads.get(PERSISTENT_VOLUMES, "", key.name)
    if volume is None:
        return
    held = volume["spec"].get("claimRef")
    if held is None or not held.get("uid"):
        yield from _set_phase(volume, "Available", now)
        return
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, held["namespace"], held["name"])
    if claim is None or claim["metadata"]["uid"] != held["uid"]:
        yield from _release(volume, now)
        return
    match volumes.volume_name(claim):
        case "":
            return  # the claim takes it next
        case name if name == key.name:
            yield from _set_phase(volume, "Bound", now)
        case _ if _is_provisioned(volume) and _policy(volume) == "Delete":
            yield from _release(volume, now)  # made for a claim that has another one
        case _:
            yield from _set_free(volume)


def _policy(volume: Object) -> str:
    return str(volume["spec"].get("persistentVolumeReclaimPolicy") or "Retain")


def _is_provisioned(volume: Object) -> bool:
    return volumes.PROVISIONED_BY in annotations(volume)


def _release(volume: Object, now: datetime) -> Iterator[Write]:
    if volumes.phase(volume) not in _OVER:
        yield from _set_phase(volume, "Released", now)  # the policy is for the next pass
        return
    if volumes.phase(volume) == "Failed":
        return
    policy = _policy(volume)
    if policy == "Delete" and not _is_provisioned(volume):
        name = volume["metadata"]["name"]
        text = (
            f'error getting deleter volume plugin for volume "{name}":'
            " no deletable volume plugin matched"
        )
        yield from _fail(volume, "VolumeFailedDelete", text, now)
    elif policy == "Recycle":
        text = "No recycler plugin found for the volume!"
        yield from _fail(volume, "VolumeFailedRecycle", text, now)


def _fail(volume: Object, reason: str, text: str, now: datetime) -> Iterator[Write]:
    yield from _set_phase(volume, "Failed", now, text)
    yield Record(volume, "Warning", reason, text)


def _set_free(volume: Object) -> Iterator[Write]:
    """Undo a reservation: all of it if it was the binder's, only the uid if a person's."""
    body = clone(volume)
    if body["metadata"].get("annotations", {}).pop(volumes.BOUND_BY_CONTROLLER, None):
        del body["spec"]["claimRef"]
    else:
        body["spec"]["claimRef"].pop("uid")
    yield Update(PERSISTENT_VOLUMES, body)


def _set_phase(volume: Object, phase: str, now: datetime, text: str = "") -> Iterator[Write]:
    if volumes.phase(volume) == phase:
        return
    status = {"phase": phase, "lastPhaseTransitionTime": rfc3339(now)}
    if text:
        status["message"] = text
    yield SetStatus(PERSISTENT_VOLUMES, volume, status)


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    """The volumes that a claim names or named, and those that are reserved for it."""
    for claim in (change.old, change.new):
        if claim is not None and volumes.volume_name(claim):
            yield Key("", volumes.volume_name(claim))
    for volume in reads.list(PERSISTENT_VOLUMES):
        held = volume["spec"].get("claimRef") or {}
        if (held.get("namespace"), held.get("name")) == (change.namespace, change.name):
            yield Key("", volume["metadata"]["name"])


VOLUME_PHASES = Controller(
    name="persistentvolume-binder-controller",
    primary=PERSISTENT_VOLUMES,
    reads=frozenset({PERSISTENT_VOLUME_CLAIMS}),
    writes=frozenset({PERSISTENT_VOLUMES}),
    shares=frozenset({PERSISTENT_VOLUMES}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
