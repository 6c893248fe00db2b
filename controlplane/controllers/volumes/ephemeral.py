"""
Pod → PersistentVolumeClaim: generic ephemeral volumes.

The claim belongs to the pod and goes with it; a claim of that name that belongs to somebody
else is left alone and the pod told so. Source: KEP-1698.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import clone, controller_reference, is_controlled_by, is_deleting
from controlplane.objects.resources import PERSISTENT_VOLUME_CLAIMS, PODS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Controller, Create, Key, Record, Write


def _reconcile(key: Key, reads: Reads, _now: datetime) -> Iterator[Write]:
    pod = reads.get(PODS, key.namespace, key.name)
    if pod is None or is_deleting(pod) or pods.is_finished(pod):
        return
    for volume in pod["spec"].get("volumes") or ():
        if volume.get("ephemeral"):
            yield from _ensure(pod, volume, reads)


def _ensure(pod: Object, volume: Mapping[str, Any], reads: Reads) -> Iterator[Write]:
    namespace = pod["metadata"]["namespace"]
    name = f"{pod['metadata']['name']}-{volume['name']}"
    claim = reads.get(PERSISTENT_VOLUME_CLAIMS, namespace, name)
    if claim is None:
        yield _creation(pod, volume, name)
    elif not is_controlled_by(claim, pod):
        yield _failed(
            pod,
            volume,
            f'PVC "{namespace}/{name}" was not created for pod'
            f' "{namespace}/{pod["metadata"]["name"]}" (pod is not owner)',
        )


def _creation(pod: Object, volume: Mapping[str, Any], name: str) -> Create:
    template = volume["ephemeral"].get("volumeClaimTemplate") or {}
    given = template.get("metadata") or {}
    metadata = {
        "name": name,
        "namespace": pod["metadata"]["namespace"],
        "ownerReferences": [controller_reference(pod, "v1", "Pod")],
    }
    metadata |= {field: given[field] for field in ("annotations", "labels") if given.get(field)}

    def refused(err: StatusError) -> Iterable[Write]:
        if err.code != 409 and not pods.is_namespace_going(err):
            yield _failed(pod, volume, f"create PVC {name}: {err.message}")

    body = {"metadata": metadata, "spec": clone(template.get("spec") or {})}
    return Create(PERSISTENT_VOLUME_CLAIMS, body, on_failure=refused)


def _failed(pod: Object, volume: Mapping[str, Any], why: str) -> Record:
    return Record(pod, "Warning", "FailedBinding", f"ephemeral volume {volume['name']}: {why}")


def _keys_for(change: Change, _reads: Reads) -> Iterator[Key]:
    """A claim that is gone is made anew if its pod is still there."""
    old = change.old
    if change.new is None and old is not None:
        for owner in old["metadata"].get("ownerReferences") or ():
            if owner["kind"] == "Pod":
                yield Key(change.namespace, owner["name"])


EPHEMERAL = Controller(
    name="ephemeral-volume-controller",
    primary=PODS,
    reads=frozenset({PERSISTENT_VOLUME_CLAIMS}),
    writes=frozenset({PERSISTENT_VOLUME_CLAIMS}),
    shares=frozenset({PERSISTENT_VOLUME_CLAIMS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
