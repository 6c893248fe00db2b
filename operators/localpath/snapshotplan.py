"""
What VolumeSnapshots and their contents say, and are to say. Pure.

One process is what upstream splits into snapshot-controller and csi-snapshotter: the names,
finalizers and events are theirs. Source: kubernetes-csi/external-snapshotter, API v1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from operators.localpath import quantity
from operators.localpath.base import PROVISIONER, Copied, Object, StorageError

GROUP = "/apis/snapshot.storage.k8s.io/v1"
API_VERSION = "snapshot.storage.k8s.io/v1"
CONTENTS = f"{GROUP}/volumesnapshotcontents"
CLASSES = f"{GROUP}/volumesnapshotclasses"
NODE = "localpath.pinnace.dev/node"
DEFAULT_CLASS = "snapshot.storage.kubernetes.io/is-default-class"
BOUND = "snapshot.storage.kubernetes.io/volumesnapshot-bound-protection"
CONTENT_BOUND = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"
Body = Mapping[str, Any]


def path_of(snapshot: Body) -> str:
    metadata = snapshot["metadata"]
    return f"{GROUP}/namespaces/{metadata['namespace']}/volumesnapshots/{metadata['name']}"


def key_of(snapshot: Body) -> str:
    return f"{snapshot['metadata']['namespace']}/{snapshot['metadata']['name']}"


def is_deleting(body: Body) -> bool:
    return "deletionTimestamp" in body["metadata"]


def wants_look(snapshot: Body) -> bool:
    status = snapshot.get("status") or {}
    if is_deleting(snapshot):
        return BOUND in (snapshot["metadata"].get("finalizers") or ())
    return not status.get("readyToUse")


def content_name(snapshot: Body) -> str:
    """Of one that is made for it; one that was there before is named by the source."""
    given = snapshot["spec"]["source"].get("volumeSnapshotContentName")
    return str(given or f"snapcontent-{snapshot['metadata']['uid']}")


def kept_name(snapshot: Body) -> str:
    """Of the copy on the disk."""
    return f"snapshot-{snapshot['metadata']['uid']}"


def choose_class(snapshot: Body, classes: Sequence[Body]) -> Body | None:
    """None: it is of another driver. Raises :class:`StorageError`: it may be made later."""
    wanted = snapshot["spec"].get("volumeSnapshotClassName")
    if wanted:
        found = [c for c in classes if c["metadata"]["name"] == wanted]
        if not found:
            raise StorageError(f'volumesnapshotclass.snapshot.storage.k8s.io "{wanted}" not found')
        return found[0] if found[0]["driver"] == PROVISIONER else None
    found = [c for c in classes if c["driver"] == PROVISIONER and _is_default(c)]
    if len(found) != 1:
        raise StorageError(
            f"{len(found) or 'no'} default snapshot classes of {PROVISIONER} were found"
        )
    return found[0]


def _is_default(snapshot_class: Body) -> bool:
    notes = snapshot_class["metadata"].get("annotations") or {}
    return bool(notes.get(DEFAULT_CLASS) == "true")


def content(snapshot: Body, snapshot_class: Body, *, volume: str, node: str) -> Object:
    metadata = snapshot["metadata"]
    return {
        "apiVersion": API_VERSION,
        "kind": "VolumeSnapshotContent",
        "metadata": {
            "name": content_name(snapshot),
            "finalizers": [CONTENT_BOUND],
            "annotations": {NODE: node},
        },
        "spec": {
            "deletionPolicy": snapshot_class["deletionPolicy"],
            "driver": PROVISIONER,
            "source": {"volumeHandle": volume},
            "sourceVolumeMode": "Filesystem",
            "volumeSnapshotClassName": snapshot_class["metadata"]["name"],
            "volumeSnapshotRef": {
                "apiVersion": API_VERSION,
                "kind": "VolumeSnapshot",
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
        },
    }


def is_bound_to(body: Body, snapshot: Body) -> bool:
    """A content that waits for its snapshot by name has no uid yet."""
    reference, metadata = body["spec"]["volumeSnapshotRef"], snapshot["metadata"]
    return (
        reference.get("name") == metadata["name"]
        and reference.get("namespace") == metadata["namespace"]
        and reference.get("uid") in {None, "", metadata["uid"]}
    )


def handle_of(body: Body) -> tuple[str, str]:
    """Node and name of a content's copy; ("", ""): it has none of ours yet."""
    handle = (body.get("status") or {}).get("snapshotHandle")
    handle = handle or body["spec"]["source"].get("snapshotHandle") or ""
    node, _, name = str(handle).partition("/")
    if name:
        return node, name
    uid = body["spec"]["volumeSnapshotRef"].get("uid") or ""
    node = (body["metadata"].get("annotations") or {}).get(NODE, "")
    return (node, f"snapshot-{uid}") if node and uid else ("", "")


def content_status(handle: str, copied: Copied, size: int) -> Object:
    """A merge patch. ``size``: bytes that a volume made of it must have."""
    return {
        "status": {
            "snapshotHandle": handle,
            "creationTime": int(copied.created * 10**9),
            "readyToUse": True,
            "restoreSize": size,
            "error": None,
        }
    }


def snapshot_status(name: str, created: str, size: int) -> Object:
    """A merge patch. ``created``: RFC 3339."""
    return {
        "status": {
            "boundVolumeSnapshotContentName": name,
            "creationTime": created,
            "readyToUse": True,
            "restoreSize": quantity.text(size),
            "error": None,
        }
    }


def error_status(body: Body, message: str, now: str) -> Object | None:
    """A merge patch; None: it says so already."""
    status = body.get("status") or {}
    if (status.get("error") or {}).get("message") == message:
        return None
    return {"status": {"error": {"message": message, "time": now}, "readyToUse": False}}


def without(body: Body, finalizer: str) -> Object | None:
    """A merge patch that takes a finalizer off; None: it is not there."""
    found = list(body["metadata"].get("finalizers") or ())
    if finalizer not in found:
        return None
    found.remove(finalizer)
    version = body["metadata"]["resourceVersion"]
    return {"metadata": {"finalizers": found or None, "resourceVersion": version}}


def with_finalizer(body: Body, finalizer: str) -> Object | None:
    """A merge patch that puts a finalizer on; None: it is there."""
    found = list(body["metadata"].get("finalizers") or ())
    if finalizer in found:
        return None
    version = body["metadata"]["resourceVersion"]
    return {"metadata": {"finalizers": [*found, finalizer], "resourceVersion": version}}
