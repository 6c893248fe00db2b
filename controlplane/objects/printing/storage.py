"""Volumes, claims, classes, and what CSI drivers register."""

from collections.abc import Iterable
from datetime import datetime

from controlplane.objects import quantity
from controlplane.objects.printing.cells import (
    NONE,
    UNSET,
    Cells,
    Object,
    Printer,
    age,
    columns,
    name,
    spec,
    status,
)

_SHORT_MODES = {
    "ReadWriteOnce": "RWO",
    "ReadOnlyMany": "ROX",
    "ReadWriteMany": "RWX",
    "ReadWriteOncePod": "RWOP",
}
_DEFAULT_CLASS = "storageclass.kubernetes.io/is-default-class"


def _modes(given: Iterable[str] | None) -> str:
    listed = list(given or ())
    return ",".join(short for mode, short in _SHORT_MODES.items() if mode in listed)


def _size(amounts: Object | None) -> str:
    found = (amounts or {}).get("storage")
    return quantity.canonical(found) if found is not None else ""


def _class(obj: Object) -> str:
    beta = "volume.beta.kubernetes.io/storage-class"
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    return annotations.get(beta) or spec(obj).get("storageClassName") or ""


def _phase(obj: Object) -> str:
    deleting = (obj.get("metadata") or {}).get("deletionTimestamp")
    return "Terminating" if deleting else status(obj).get("phase") or ""


def _volume(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    claim = inner.get("claimRef") or {}
    return [
        name(obj),
        _size(inner.get("capacity")),
        _modes(inner.get("accessModes")),
        inner.get("persistentVolumeReclaimPolicy") or "",
        _phase(obj),
        f"{claim.get('namespace', '')}/{claim.get('name', '')}" if claim else "",
        _class(obj),
        inner.get("volumeAttributesClassName") or UNSET,
        status(obj).get("reason") or "",
        age(obj, now),
        inner.get("volumeMode") or UNSET,
    ]


def _claim(obj: Object, now: datetime) -> Cells:
    inner, state = spec(obj), status(obj)
    bound = bool(inner.get("volumeName"))
    return [
        name(obj),
        _phase(obj),
        inner.get("volumeName") or "",
        _size(state.get("capacity")) if bound else "",
        _modes(state.get("accessModes")) if bound else "",
        _class(obj),
        inner.get("volumeAttributesClassName") or UNSET,
        age(obj, now),
        inner.get("volumeMode") or UNSET,
    ]


def _storage_class(obj: Object, now: datetime) -> Cells:
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    default = " (default)" if annotations.get(_DEFAULT_CLASS) == "true" else ""
    return [
        name(obj) + default,
        obj.get("provisioner", ""),
        obj.get("reclaimPolicy") or "Delete",
        obj.get("volumeBindingMode") or UNSET,
        bool(obj.get("allowVolumeExpansion")),
        age(obj, now),
    ]


def _attachment(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    volume = (inner.get("source") or {}).get("persistentVolumeName") or ""
    attached = bool(status(obj).get("attached"))
    return [
        name(obj),
        inner.get("attacher", ""),
        volume,
        inner.get("nodeName", ""),
        attached,
        age(obj, now),
    ]


def _csi_node(obj: Object, now: datetime) -> Cells:
    return [name(obj), len(spec(obj).get("drivers") or ()), age(obj, now)]


def _csi_driver(obj: Object, now: datetime) -> Cells:
    inner = spec(obj)
    attach = inner.get("attachRequired")
    tokens = ",".join(t.get("audience", "") for t in inner.get("tokenRequests") or ())
    return [
        name(obj),
        attach is None or bool(attach),
        bool(inner.get("podInfoOnMount")),
        bool(inner.get("storageCapacity")),
        tokens or UNSET,
        bool(inner.get("requiresRepublish")),
        ",".join(inner.get("volumeLifecycleModes") or ()) or NONE,
        age(obj, now),
    ]


def _csi_capacity(obj: Object, now: datetime) -> Cells:
    amount = obj.get("capacity")
    shown = quantity.canonical(amount) if amount is not None else UNSET
    return [name(obj), obj.get("storageClassName", ""), shown, age(obj, now)]


def _attributes_class(obj: Object, now: datetime) -> Cells:
    return [name(obj), obj.get("driverName", ""), age(obj, now)]


PERSISTENT_VOLUME = Printer(
    columns(
        "Name",
        "Capacity",
        "Access Modes",
        "Reclaim Policy",
        "Status",
        "Claim",
        "StorageClass",
        "VolumeAttributesClass",
        "Reason",
        "Age",
        "VolumeMode*",
    ),
    _volume,
)
CLAIM = Printer(
    columns(
        "Name",
        "Status",
        "Volume",
        "Capacity",
        "Access Modes",
        "StorageClass",
        "VolumeAttributesClass",
        "Age",
        "VolumeMode*",
    ),
    _claim,
)
STORAGE_CLASS = Printer(
    columns(
        "Name", "Provisioner", "ReclaimPolicy", "VolumeBindingMode", "AllowVolumeExpansion", "Age"
    ),
    _storage_class,
)
VOLUME_ATTACHMENT = Printer(
    columns("Name", "Attacher", "PV", "Node", "Attached?", "Age"), _attachment
)
CSI_NODE = Printer(columns("Name", "Drivers#", "Age"), _csi_node)
CSI_DRIVER = Printer(
    columns(
        "Name",
        "AttachRequired?",
        "PodInfoOnMount?",
        "StorageCapacity?",
        "TokenRequests",
        "RequiresRepublish?",
        "Modes",
        "Age",
    ),
    _csi_driver,
)
CSI_CAPACITY = Printer(columns("Name", "StorageClassName", "Capacity", "Age"), _csi_capacity)
ATTRIBUTES_CLASS = Printer(columns("Name", "DriverName", "Age"), _attributes_class)
