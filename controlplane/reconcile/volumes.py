"""
Which volume may be bound to which claim, for the binder and for the scheduler alike.

Both bind: the binder as soon as it can, the scheduler where the class waits for the first
consumer. They must agree on what fits. Source: the API concept "Persistent Volumes".
"""

from collections.abc import Iterable
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import quantity, selectors
from controlplane.objects.meta import annotations, is_deleting, labels

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
_OLD_CLASS = "volume.beta.kubernetes.io/storage-class"


def phase(item: Object) -> str:
    """Of a claim or a volume; "" before anybody looked at it."""
    return str((item.get("status") or {}).get("phase") or "")


def class_of(item: Object) -> str:
    """The storage class of a claim or a volume; the annotation of old manifests goes first."""
    old = annotations(item).get(_OLD_CLASS)
    return str(old if old is not None else item["spec"].get("storageClassName") or "")


def has_class(claim: Object) -> bool:
    """Whether the claim says anything of a class; "" says that it wants none."""
    named = claim["spec"].get("storageClassName") is not None
    return named or _OLD_CLASS in annotations(claim)


def volume_name(claim: Object) -> str:
    return claim["spec"].get("volumeName") or ""


def is_bound(claim: Object) -> bool:
    """Completely: the binder needs to do nothing more."""
    return bool(volume_name(claim)) and BIND_COMPLETED in annotations(claim)


def requested(claim: Object) -> int:
    asked = (claim["spec"].get("resources") or {}).get("requests") or {}
    return quantity.nanos(asked.get("storage", "0"))


def capacity(volume: Object) -> int:
    return quantity.nanos((volume["spec"].get("capacity") or {}).get("storage", "0"))


def is_reserved_for(volume: Object, claim: Object) -> bool:
    """By its claimRef; without a uid there, for whichever claim has the name."""
    reference, meta = volume["spec"].get("claimRef"), claim["metadata"]
    return (
        reference is not None
        and reference.get("name") == meta["name"]
        and reference.get("namespace") == meta["namespace"]
        and reference.get("uid", "") in ("", meta["uid"])
    )


def mismatch(volume: Object, claim: Object) -> str:
    """Why the volume, asked for by name, does not satisfy the claim; "" if it does."""
    wanted, offered = claim["spec"], volume["spec"]
    if capacity(volume) < requested(claim):
        return "requested PV is too small"
    if class_of(volume) != class_of(claim):
        return "storageClassName does not match"
    if not _same(offered, wanted, "volumeAttributesClassName", ""):
        return "volumeAttributesClassName does not match"
    if not _same(offered, wanted, "volumeMode", "Filesystem"):
        return "incompatible volumeMode"
    if not _has_modes(volume, claim):
        return "incompatible accessMode"
    return ""


def candidates(claim: Object, volumes: Iterable[Object]) -> list[Object]:
    """
    The volumes that could be bound to the claim, the best first.

    What is reserved for the claim goes before all others; of the others, those with the
    fewest access modes, then the smallest.
    """
    found = [volume for volume in volumes if _fits(volume, claim)]
    found.sort(
        key=lambda volume: (
            not is_reserved_for(volume, claim),
            len(volume["spec"].get("accessModes") or ()),
            capacity(volume),
        )
    )
    return found


def reference(claim: Object) -> dict[str, Any]:
    """The claimRef of a volume that is bound to the claim."""
    meta = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def _fits(volume: Object, claim: Object) -> bool:
    if is_deleting(volume) or not _has_modes(volume, claim) or capacity(volume) < requested(claim):
        return False
    wanted, offered = claim["spec"], volume["spec"]
    if not _same(offered, wanted, "volumeMode", "Filesystem"):
        return False
    if not _same(offered, wanted, "volumeAttributesClassName", ""):
        return False
    if is_reserved_for(volume, claim):
        return True
    if offered.get("claimRef") is not None or phase(volume) != "Available":
        return False
    selector = wanted.get("selector")
    return class_of(volume) == class_of(claim) and (
        selector is None or selectors.of_object(selector).matches(labels(volume))
    )


def _has_modes(volume: Object, claim: Object) -> bool:
    offered = volume["spec"].get("accessModes") or ()
    return set(claim["spec"].get("accessModes") or ()) <= set(offered)


def _same(a: Object, b: Object, field: str, default: str) -> bool:
    return bool((a.get(field) or default) == (b.get(field) or default))
