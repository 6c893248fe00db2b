"""
PersistentVolumeClaim → PersistentVolume: which volume a claim gets.

First the volume is reserved (claimRef), then the claim names it, then both say Bound: whoever
dies in between finds the rest to do. The binding of claims whose class waits
for the first consumer begins in the scheduler, which reserves the volume, and ends here.
Source: the API concepts "Persistent Volumes" and "Storage Classes".
"""

from collections.abc import Iterator
from datetime import datetime

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import annotations, clone, condition, is_deleting
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.reconcile import pods, volumes
from controlplane.reconcile.base import Controller, Key, Record, SetStatus, Update, Write

# Both names, as provisioners of any age look for them.
_PROVISIONER = (
    "volume.beta.kubernetes.io/storage-provisioner",
    "volume.kubernetes.io/storage-provisioner",
)
_IN_TREE = "kubernetes.io/"
_IS_DEFAULT = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)


def _reconcile(key: Key, reads: Reads, _now: datetime) -> Iterator[Write]:
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, key.namespace, key.name)
    if claim is None:
        return
    if volumes.BIND_COMPLETED in annotations(claim):
        yield from _keep(claim, reads)
    elif volumes.volume_name(claim):
        yield from _take_named(claim, reads)
    elif not is_deleting(claim):
        yield from _find(claim, reads)


# Not bound yet


def _find(claim: Object, reads: Reads) -> Iterator[Write]:
    class_name = volumes.class_of(claim)
    storage = reads.get(STORAGE_CLASSES, "", class_name) if class_name else None
    waits = _waits(claim, storage)
    found = volumes.candidates(claim, reads.list(PERSISTENT_VOLUMES))
    if found and (not waits or volumes.is_reserved_for(found[0], claim)):
        yield from _bind(claim, found[0])
        return
    default = _default_class(claim, reads)
    if default is not None:
        body = clone(claim)
        body["spec"]["storageClassName"] = default
        yield Update(PERSISTENT_VOLUME_CLAIMS, body)  # and look again
        return
    if waits:
        yield _wait(claim, reads)
    elif class_name:
        yield from _ask_for_one(claim, storage, class_name)
    else:
        text = "no persistent volumes available for this claim and no storage class is set"
        yield Record(claim, "Normal", "FailedBinding", text)
    yield from _set_phase(claim, "Pending")


def _wait(claim: Object, reads: Reads) -> Record:
    """Whom the claim waits for: a pod to come, or one to be placed."""
    meta = claim["metadata"]
    names = [
        pod["metadata"]["name"]
        for pod in reads.list(PODS, meta["namespace"])
        if _is_unplaced(pod) and meta["name"] in _claims_of(pod)
    ]
    if not names:
        text = "waiting for first consumer to be created before binding"
        return Record(claim, "Normal", "WaitForFirstConsumer", text)
    noun = "pods" if len(names) > 1 else "pod"
    text = f"waiting for {noun} {','.join(names)} to be scheduled"
    return Record(claim, "Normal", "WaitForPodScheduled", text)


def _is_unplaced(pod: Object) -> bool:
    """Tried, and for now without a node."""
    found = condition(pod, "PodScheduled") or {}
    return found.get("status") == "False" and pods.is_active(pod)


def _claims_of(pod: Object) -> frozenset[str]:
    found = []
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("persistentVolumeClaim"):
            found.append(volume["persistentVolumeClaim"]["claimName"])
        elif volume.get("ephemeral"):
            found.append(f"{pod['metadata']['name']}-{volume['name']}")
    return frozenset(found)


def _default_class(claim: Object, reads: Reads) -> str | None:
    """
    What a claim that was made before there was a default class gets now (KEP-3333).

    "" is a choice too: no class. Of several defaults the newest counts, as at admission.
    """
    if volumes.has_class(claim):
        return None
    found = [
        item
        for item in reads.list(STORAGE_CLASSES)
        if any(annotations(item).get(key) == "true" for key in _IS_DEFAULT)
    ]
    found.sort(key=lambda item: str(item["metadata"]["name"]))
    newest = max(
        found, key=lambda item: item["metadata"].get("creationTimestamp", ""), default=None
    )
    return str(newest["metadata"]["name"]) if newest is not None else None


def _waits(claim: Object, storage: Object | None) -> bool:
    if storage is None or volumes.SELECTED_NODE in annotations(claim):
        return False
    return bool(storage.get("volumeBindingMode") == "WaitForFirstConsumer")


def _ask_for_one(claim: Object, storage: Object | None, class_name: str) -> Iterator[Write]:
    if storage is None:
        text = f'storageclass.storage.k8s.io "{class_name}" not found'
        yield Record(claim, "Warning", "ProvisioningFailed", text)
        return
    name = storage["provisioner"]
    if name.startswith(_IN_TREE):
        text = f"no volume plugin matched name: {name}"
        yield Record(claim, "Warning", "ProvisioningFailed", text)
        return
    text = (
        "Waiting for a volume to be created either by the external provisioner"
        f" '{name}' or manually by the system administrator. If volume creation is"
        " delayed, please verify that the provisioner is running and correctly registered."
    )
    yield Record(claim, "Normal", "ExternalProvisioning", text)
    given = annotations(claim)
    if any(given.get(annotation) != name for annotation in _PROVISIONER):
        body = clone(claim)
        body["metadata"]["annotations"] = {**given, **dict.fromkeys(_PROVISIONER, name)}
        yield Update(PERSISTENT_VOLUME_CLAIMS, body)


def _take_named(claim: Object, reads: Reads) -> Iterator[Write]:
    name = volumes.volume_name(claim)
    volume = reads.get(PERSISTENT_VOLUMES, "", name)
    if volume is None:
        yield from _set_phase(claim, "Pending")  # until it is made
    elif volume["spec"].get("claimRef") is None:
        why = volumes.mismatch(volume, claim)
        if why:
            text = f'Cannot bind to requested volume "{name}": {why}'
            yield Record(claim, "Warning", "VolumeMismatch", text)
            yield from _set_phase(claim, "Pending")
        else:
            yield from _bind(claim, volume)
    elif volumes.is_reserved_for(volume, claim):
        yield from _bind(claim, volume)
    else:
        text = f'volume "{name}" already bound to a different claim.'
        yield Record(claim, "Warning", "FailedBinding", text)
        yield from _set_phase(claim, "Pending")


def _bind(claim: Object, volume: Object) -> Iterator[Write]:
    """What is missing of the binding, in the order that survives a crash."""
    yield from _reserve(volume, claim)
    name = volume["metadata"]["name"]
    body = clone(claim)
    notes = body["metadata"].setdefault("annotations", {})
    if not volumes.volume_name(claim):
        body["spec"]["volumeName"] = name
        notes[volumes.BOUND_BY_CONTROLLER] = "yes"
    notes.setdefault(volumes.BIND_COMPLETED, "yes")
    if body != claim:
        yield Update(PERSISTENT_VOLUME_CLAIMS, body)  # the status follows in the next pass
    else:
        yield from _mark_bound(claim, volume)


def _reserve(volume: Object, claim: Object) -> Iterator[Write]:
    wanted, held = volumes.reference(claim), volume["spec"].get("claimRef") or {}
    if all(held.get(field) == wanted[field] for field in ("namespace", "name", "uid")):
        return
    body = clone(volume)
    body["spec"]["claimRef"] = wanted
    if not volumes.is_reserved_for(volume, claim):
        notes = body["metadata"].setdefault("annotations", {})
        notes[volumes.BOUND_BY_CONTROLLER] = "yes"
    yield Update(PERSISTENT_VOLUMES, body)


# Bound


def _keep(claim: Object, reads: Reads) -> Iterator[Write]:
    name = volumes.volume_name(claim)
    if not name:
        text = "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"
        yield from _lose(claim, "ClaimLost", text)
        return
    volume = reads.get(PERSISTENT_VOLUMES, "", name)
    if volume is None:
        text = "Bound claim has lost its PersistentVolume. Data on the volume is lost!"
        yield from _lose(claim, "ClaimLost", text)
    elif volume["spec"].get("claimRef") is None or volumes.is_reserved_for(volume, claim):
        yield from _bind(claim, volume)
    else:
        text = "Two claims are bound to the same volume, this one is bound incorrectly"
        yield from _lose(claim, "ClaimMisbound", text)


def _lose(claim: Object, reason: str, text: str) -> Iterator[Write]:
    if volumes.phase(claim) != "Lost":
        yield from _set_phase(claim, "Lost")
        yield Record(claim, "Warning", reason, text)


def _mark_bound(claim: Object, volume: Object) -> Iterator[Write]:
    old, spec = claim.get("status") or {}, volume["spec"]
    status = {**old, "phase": "Bound", "accessModes": spec.get("accessModes") or []}
    if volumes.phase(claim) != "Bound":  # later it is what a resize made of it
        status["capacity"] = spec.get("capacity") or {}
        attributes = spec.get("volumeAttributesClassName")
        if attributes:
            status["currentVolumeAttributesClassName"] = attributes
    if status != old:
        yield SetStatus(PERSISTENT_VOLUME_CLAIMS, claim, status)


def _set_phase(claim: Object, phase: str) -> Iterator[Write]:
    old = claim.get("status") or {}
    kept = {k: v for k, v in old.items() if k not in ("accessModes", "capacity")}
    status = {**kept, "phase": phase}
    if status != old:
        yield SetStatus(PERSISTENT_VOLUME_CLAIMS, claim, status)


# Whom a change touches


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource == STORAGE_CLASSES:
        yield from _unbound(reads, change.name)
        yield from _unbound(reads, "")  # it may be the default now
        return
    if change.resource == PODS:
        if change.new is not None and _is_unplaced(change.new):
            for name in _claims_of(change.new):
                yield Key(change.namespace, name)
        return
    for volume in (change.old, change.new):
        held = volume["spec"].get("claimRef") if volume is not None else None
        if held:
            yield Key(held.get("namespace", ""), held.get("name", ""))
    new = change.new
    if new is not None and not new["spec"].get("claimRef"):
        yield from _unbound(reads, volumes.class_of(new), change.name)


def _unbound(reads: Reads, class_name: str, volume: str = "") -> Iterator[Key]:
    """The claims of a class, or on a volume, that are not bound yet."""
    for claim in reads.list(PERSISTENT_VOLUME_CLAIMS):
        named = volumes.volume_name(claim)
        if volumes.is_bound(claim):
            if not volume or named != volume:
                continue
        elif named != volume and volumes.class_of(claim) != class_name:
            continue
        yield Key(claim["metadata"]["namespace"], claim["metadata"]["name"])


_BOTH = frozenset({PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES})

CLAIM_BINDER = Controller(
    name="persistentvolume-controller",
    primary=PERSISTENT_VOLUME_CLAIMS,
    reads=frozenset({PERSISTENT_VOLUMES, PODS, STORAGE_CLASSES}),
    writes=_BOTH,
    shares=_BOTH,
    reconcile=_reconcile,
    keys_for=_keys_for,
)
