"""
What is in use is not deleted: claims, volumes and volume attributes classes.

Admission gives each of them a finalizer when it is created; here it is taken off once
nobody uses the object. Without that, no namespace with a claim in it would ever go.
Source: the API concept "Storage Object in Use Protection"; KEP-3751 for classes.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import clone, finalizers, is_controlled_by, is_deleting
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTRIBUTES_CLASSES,
)
from controlplane.reconcile import pods
from controlplane.reconcile.base import Controller, Key, Update, Write

InUse = Callable[[Object, Reads], bool]


def _made(
    resource: Resource,
    prefix: str,
    in_use: InUse,
    *,
    reads: frozenset[Resource] = frozenset(),
    keys_for: Callable[[Change, Reads], Iterator[Key]] | None = None,
) -> Controller:
    finalizer = f"kubernetes.io/{prefix}-protection"

    def reconcile(key: Key, read: Reads, _now: datetime) -> Iterator[Write]:
        found = read.get(resource, key.namespace, key.name)
        if found is None or not is_deleting(found) or finalizer not in finalizers(found):
            return
        if in_use(found, read):
            return
        body = clone(found)
        body["metadata"]["finalizers"].remove(finalizer)
        yield Update(resource, body)

    more: dict[str, Any] = {} if keys_for is None else {"keys_for": keys_for}
    return Controller(
        name=f"{prefix}-protection-controller",
        primary=resource,
        reads=reads,
        writes=frozenset({resource}),
        shares=frozenset({resource}),
        reconcile=reconcile,
        **more,
    )


def _claims(pod: Object) -> Iterator[tuple[str, bool]]:
    """The claims that a pod names, and whether each is one of its own (generic ephemeral)."""
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        if "persistentVolumeClaim" in volume:
            yield volume["persistentVolumeClaim"]["claimName"], False
        elif "ephemeral" in volume:
            yield f"{pod['metadata']['name']}-{volume['name']}", True


def _is_over(pod: Object) -> bool:
    """The kubelet is done with the pod, so that its own claims may go before it does."""
    gone = is_deleting(pod) and pod["metadata"].get("deletionGracePeriodSeconds") == 0
    return gone or pods.is_finished(pod)


def _pod_uses(pod: Object, claim: Object) -> bool:
    # A pod that is not bound yet is refused by the kubelet once the claim is being deleted.
    if not pod["spec"].get("nodeName"):
        return False
    return any(
        name == claim["metadata"]["name"]
        and (not own or (not _is_over(pod) and is_controlled_by(claim, pod)))
        for name, own in _claims(pod)
    )


def _claim_in_use(claim: Object, reads: Reads) -> bool:
    return any(_pod_uses(pod, claim) for pod in reads.list(PODS, claim["metadata"]["namespace"]))


def _claims_of_pod(change: Change, _reads: Reads) -> Iterator[Key]:
    for pod in (change.old, change.new):
        if pod is not None:
            for name, _ in _claims(pod):
                yield Key(change.namespace, name)


def _volume_in_use(volume: Object, _reads: Reads) -> bool:
    return (volume.get("status") or {}).get("phase") == "Bound"


def _classes(user: Mapping[str, Any]) -> frozenset[str]:
    """The classes that a claim or a volume wants, has, or is on its way to."""
    spec, status = user.get("spec") or {}, user.get("status") or {}
    modifying = status.get("modifyVolumeStatus") or {}
    named = (
        spec.get("volumeAttributesClassName"),
        status.get("currentVolumeAttributesClassName"),
        modifying.get("targetVolumeAttributesClassName"),
    )
    return frozenset(name for name in named if name)


def _class_in_use(found: Object, reads: Reads) -> bool:
    name = found["metadata"]["name"]
    return any(
        name in _classes(user)
        for resource in (PERSISTENT_VOLUMES, PERSISTENT_VOLUME_CLAIMS)
        for user in reads.list(resource)
    )


def _classes_of_user(change: Change, _reads: Reads) -> Iterator[Key]:
    for user in (change.old, change.new):
        for name in _classes(user or {}):
            yield Key("", name)


PROTECTION = (
    _made(
        PERSISTENT_VOLUME_CLAIMS,
        "pvc",
        _claim_in_use,
        reads=frozenset({PODS}),
        keys_for=_claims_of_pod,
    ),
    _made(PERSISTENT_VOLUMES, "pv", _volume_in_use),
    _made(
        VOLUME_ATTRIBUTES_CLASSES,
        "vac",
        _class_in_use,
        reads=frozenset({PERSISTENT_VOLUMES, PERSISTENT_VOLUME_CLAIMS}),
        keys_for=_classes_of_user,
    ),
)
