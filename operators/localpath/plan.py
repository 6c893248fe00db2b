"""
What is to be done with a claim or a volume, and what its PersistentVolume says. Pure.

Source: local-path-provisioner's README; sig-storage-lib-external-provisioner for which claims
and volumes are a provisioner's.
"""

import math
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from operators.localpath import pattern, places, quantity
from operators.localpath.base import (
    ENFORCED_BY,
    FINALIZER,
    IMAGE,
    PROVISIONED_BY,
    PROVISIONER,
    SELECTED_NODE,
    UNENFORCED,
    Made,
    Object,
    Order,
    Refused,
    Source,
    Volume,
)
from operators.localpath.paths import Configuration, Paths

CLAIM_PROVISIONERS = (
    "volume.kubernetes.io/storage-provisioner",
    "volume.beta.kubernetes.io/storage-provisioner",
)
CLAIM_NODE = "volume.kubernetes.io/selected-node"
CLASS = "volume.beta.kubernetes.io/storage-class"
HOSTNAME = "kubernetes.io/hostname"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool
_NODE_MODES = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})
Body = Mapping[str, Any]


# Claims


def notes_of(body: Body) -> Mapping[str, str]:
    found: Mapping[str, str] = body["metadata"].get("annotations") or {}
    return found


def is_for_us(claim: Body) -> bool:
    notes = notes_of(claim)
    named = next((notes[name] for name in CLAIM_PROVISIONERS if name in notes), None)
    return named == PROVISIONER


def wants_volume(claim: Body) -> bool:
    """It has none, and this provisioner was asked; perhaps a node has to be chosen first."""
    waits = not claim["spec"].get("volumeName") and is_for_us(claim)
    return waits and "deletionTimestamp" not in claim["metadata"]


def wants_more(claim: Body) -> bool:
    """It is bound, and asks for more than it has."""
    status = claim.get("status") or {}
    held = (status.get("capacity") or {}).get("storage")
    if status.get("phase") != "Bound" or held is None or not is_for_us(claim):
        return False
    return requested(claim) > quantity.parse(held) and (
        "deletionTimestamp" not in claim["metadata"]
    )


def requested(claim: Body) -> int:
    return quantity.parse(requested_text(claim))


def requested_text(claim: Body) -> str:
    asked = (claim["spec"].get("resources") or {}).get("requests") or {}
    return str(asked.get("storage", "0"))


def class_of(claim: Body) -> str:
    old = notes_of(claim).get(CLASS)
    return str(old if old is not None else claim["spec"].get("storageClassName") or "")


def volume_name(claim: Body) -> str:
    return f"pvc-{claim['metadata']['uid']}"


def waits_for_consumer(storage_class: Body) -> bool:
    return bool(storage_class.get("volumeBindingMode") == "WaitForFirstConsumer")


def check(claim: Body, paths: Paths) -> None:
    """What no node could do. Raises :class:`Refused`, in upstream's words where it has some."""
    spec = claim["spec"]
    if spec.get("volumeMode") == "Block":
        raise Refused(f"{PROVISIONER} does not support block volume provisioning")
    if spec.get("selector") is not None and not paths.shared:
        raise Refused("claim.Spec.Selector is not supported")
    if not paths.shared and not set(spec.get("accessModes") or ()) <= _NODE_MODES:
        raise Refused(
            "NodePath only supports ReadWriteOnce and ReadWriteOncePod (1.22+) access modes"
        )


def data_source(claim: Body) -> tuple[str, str] | None:
    """Kind and name of what the volume begins with. Raises :class:`Refused` for other kinds."""
    spec = claim["spec"]
    found = spec.get("dataSourceRef") or spec.get("dataSource")
    if not found:
        return None
    kind, group = found["kind"], found.get("apiGroup") or ""
    if (kind, group) not in {
        ("VolumeSnapshot", "snapshot.storage.k8s.io"),
        ("PersistentVolumeClaim", ""),
    }:
        raise Refused(f"a dataSource of kind {group}/{kind} is not supported")
    if found.get("namespace") not in {None, "", claim["metadata"]["namespace"]}:
        raise Refused("a dataSourceRef to another namespace is not supported")
    return kind, found["name"]


def order(
    claim: Body,
    storage_class: Body,
    configuration: Configuration,
    *,
    node: str,
    source: Source | None,
) -> Order:
    """
    The volume of a claim on a node.

    Raises :class:`~operators.localpath.base.Unfit` where the node has no path for it, and
    :class:`Refused` otherwise.
    """
    name, metadata = volume_name(claim), claim["metadata"]
    told: Mapping[str, str] = storage_class.get("parameters") or {}
    paths = configuration.of_class(storage_class["metadata"]["name"])
    check(claim, paths)
    if source and requested(claim) < source.size:
        raise Refused(
            f"requested size {requested(claim)} is less than {source.size}, that of its source"
        )
    return Order(
        name=name,
        claim=f"{metadata['namespace']}/{metadata['name']}",
        uid=metadata["uid"],
        node="" if paths.shared else node,
        base=paths.choose(node, told.get("nodePath", ""), crc32(name.encode())),
        folder=_folder(claim, storage_class),
        size=requested(claim),
        user=_pattern("userPattern", claim, storage_class),
        group=_pattern("groupPattern", claim, storage_class),
        mode=_pattern("permPattern", claim, storage_class),
        enforce=told.get("enforce", "auto"),
        overcommit=overcommit(storage_class),
        shared=bool(paths.shared),
        source=source,
    )


def overcommit(storage_class: Body) -> float:
    """How often free space may be promised. Raises :class:`Refused`."""
    text = (storage_class.get("parameters") or {}).get("overcommit", "1")
    if text == "unlimited":
        return math.inf
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise Refused(f'overcommit must be a number above 0 or "unlimited", not {text!r}')
    return found


def _told(name: str, storage_class: Body) -> str | None:
    """A parameter, or an annotation of the class."""
    parameters: Mapping[str, str] = storage_class.get("parameters") or {}
    return parameters.get(name, notes_of(storage_class).get(name))


def _folder(claim: Body, storage_class: Body) -> str:
    metadata, name = claim["metadata"], volume_name(claim)
    template = (storage_class.get("parameters") or {}).get("pathPattern")
    if template is None:
        return f"{name}_{metadata['namespace']}_{metadata['name']}"
    try:
        rendered = pattern.render(template, name, claim)
    except Refused as err:
        raise Refused(f"failed to create path from pattern {template}: {err}") from err
    unsafe = _told("allowUnsafePathPattern", storage_class) in _TRUE
    prefix = f"{metadata['namespace']}/{metadata['name']}/"
    if not unsafe and not rendered.startswith(prefix):
        raise Refused(
            f"failed to create path from pattern {template}: pathPattern must start with"
            f" {{{{ .PVC.Namespace }}}}/{{{{ .PVC.Name }}}}/: {rendered}"
        )
    return places.clean(rendered.lstrip("/") if unsafe else rendered)


def _pattern(name: str, claim: Body, storage_class: Body) -> str:
    template = _told(name, storage_class)
    if template is None:
        return ""
    try:
        return pattern.render(template, volume_name(claim), claim).strip()
    except Refused as err:
        what = name.removesuffix("Pattern")
        raise Refused(f"failed to create {what} from pattern {template}: {err}") from err


# Volumes


def persistent_volume(
    claim: Body, storage_class: Body, wanted: Order, made: Made, *, labels: Mapping[str, str]
) -> Object:
    """``labels``: of the node."""
    metadata, spec = claim["metadata"], claim["spec"]
    notes = {
        PROVISIONED_BY: PROVISIONER,
        SELECTED_NODE: wanted.node,
        ENFORCED_BY: made.enforced_by,
    }
    if made.image:
        notes[IMAGE] = made.image
    policy = storage_class.get("reclaimPolicy") or "Delete"
    body: Object = {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": wanted.name, "annotations": notes},
        "spec": {
            "accessModes": list(spec.get("accessModes") or ()),
            "capacity": {"storage": requested_text(claim)},
            "claimRef": {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
                "resourceVersion": metadata.get("resourceVersion", ""),
            },
            "persistentVolumeReclaimPolicy": policy,
            "storageClassName": class_of(claim),
            "volumeMode": "Filesystem",
            **_volume_source(claim, storage_class, str(wanted.base / wanted.folder)),
        },
    }
    if policy == "Delete":
        body["metadata"]["finalizers"] = [FINALIZER]
    if storage_class.get("mountOptions"):
        body["spec"]["mountOptions"] = list(storage_class["mountOptions"])
    if wanted.node:
        body["spec"]["nodeAffinity"] = _affinity(storage_class, wanted.node, labels)
    return body


def _volume_source(claim: Body, storage_class: Body, path: str) -> Object:
    kind = notes_of(claim).get("volumeType")
    kind = kind or notes_of(storage_class).get("defaultVolumeType") or "hostPath"
    match kind.lower():
        case "local":
            return {"local": {"path": path}}
        case "hostpath":
            return {"hostPath": {"path": path, "type": "DirectoryOrCreate"}}
        case _:
            raise Refused(
                "failed to create persistent volume source:"
                f' "{kind}" is not a recognised volume type'
            )


def check_type(claim: Body, storage_class: Body) -> None:
    """Before anything is made. Raises :class:`Refused`."""
    _volume_source(claim, storage_class, "")


def affinity_key(storage_class: Body) -> str:
    return (storage_class.get("parameters") or {}).get("nodeAffinityKey") or HOSTNAME


def _affinity(storage_class: Body, node: str, labels: Mapping[str, str]) -> Object:
    key = affinity_key(storage_class)
    wanted = {"key": key, "operator": "In", "values": [labels.get(key, node)]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [wanted]}]}}


def volume_of(body: Body) -> Volume | None:
    """None: not made by this provisioner, or no folder of a node."""
    metadata, spec, notes = body["metadata"], body["spec"], notes_of(body)
    if notes.get(PROVISIONED_BY) != PROVISIONER:
        return None
    kinds = [spec[kind]["path"] for kind in ("hostPath", "local") if spec.get(kind)]
    if len(kinds) != 1:
        return None
    reference = spec.get("claimRef") or {}
    return Volume(
        name=metadata["name"],
        uid=metadata["uid"],
        version=metadata.get("resourceVersion", ""),
        path=kinds[0],
        node=notes.get(SELECTED_NODE, ""),
        affinity=_affinity_of(spec),
        image=notes.get(IMAGE),
        enforced_by=notes.get(ENFORCED_BY, UNENFORCED),
        phase=(body.get("status") or {}).get("phase") or "",
        policy=spec.get("persistentVolumeReclaimPolicy") or "Retain",
        size=quantity.parse((spec.get("capacity") or {}).get("storage", "0")),
        class_name=spec.get("storageClassName") or "",
        claim=f"{reference.get('namespace', '')}/{reference.get('name', '')}",
        claim_uid=reference.get("uid", ""),
        deleting="deletionTimestamp" in metadata,
        finalizers=tuple(metadata.get("finalizers") or ()),
    )


def _affinity_of(spec: Body) -> tuple[str, str]:
    terms = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms") or ()
    for term in terms:
        for wanted in term.get("matchExpressions") or ():
            if wanted.get("operator") == "In" and len(wanted.get("values") or ()) == 1:
                return wanted["key"], wanted["values"][0]
    return "", ""


def lies_on(volume: Volume, node: str, labels: Mapping[str, str]) -> bool:
    """By what the provisioner wrote down; of older ones, by the affinity."""
    if volume.node:
        return volume.node == node
    key, value = volume.affinity
    return bool(key) and (labels.get(key) == value or value == node)


def wants_removal(volume: Volume) -> bool:
    if volume.phase != "Released" or volume.policy != "Delete":
        return False
    return not volume.deleting or FINALIZER in volume.finalizers


def wanted_finalizers(volume: Volume) -> list[str] | None:
    """None: as they are. It is there to keep what Delete will remove from being forgotten."""
    has = FINALIZER in volume.finalizers
    if volume.policy == "Delete":
        if has or volume.deleting or volume.phase != "Bound":
            return None
        return [*volume.finalizers, FINALIZER]
    return [name for name in volume.finalizers if name != FINALIZER] if has else None


def grown_status(claim: Body, text: str) -> Object:
    """A merge patch of the claim's status: what resizer and kubelet leave behind."""
    return {
        "status": {
            "capacity": {"storage": text},
            "allocatedResources": {"storage": text},
            "allocatedResourceStatuses": None,
            "conditions": _without_resize(claim) or None,
        }
    }


def resize_condition(claim: Body, type_: str, message: str, now: str) -> Object | None:
    """A merge patch that says how a resize stands; None: that is said already."""
    conditions = (claim.get("status") or {}).get("conditions") or ()
    found = [c for c in conditions if c["type"] in _RESIZING]
    if [(c["type"], c.get("message", "")) for c in found] == [(type_, message)]:
        return None
    told = {"type": type_, "status": "True", "message": message, "lastTransitionTime": now}
    return {"status": {"conditions": [*_without_resize(claim), told]}}


_RESIZING = frozenset(
    {"Resizing", "FileSystemResizePending", "ControllerResizeError", "NodeResizeError"}
)


def _without_resize(claim: Body) -> list[Any]:
    conditions = (claim.get("status") or {}).get("conditions") or ()
    return [condition for condition in conditions if condition["type"] not in _RESIZING]
