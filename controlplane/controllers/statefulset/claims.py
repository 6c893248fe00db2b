"""
The PersistentVolumeClaims of a StatefulSet's pods: made with them, kept or not by policy.

What deletes a claim is the garbage collector: the policy says which owners the claim has.
Source: KEP-1847 (persistentVolumeClaimRetentionPolicy).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from controlplane.client.base import Object, Reads
from controlplane.controllers.statefulset.identity import claim_name, ordinal, ordinals
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import controller_reference, is_deleting, name, owners, uid_of
from controlplane.objects.resources import PERSISTENT_VOLUME_CLAIMS
from controlplane.reconcile import pods
from controlplane.reconcile.base import Create, Patch, Record, Write
from controlplane.reconcile.ownership import set_owners

Reference = Mapping[str, Any]


def templates(owner: Object) -> Sequence[Object]:
    found: Sequence[Object] = owner["spec"].get("volumeClaimTemplates") or ()
    return found


def existing(owner: Object, number: int, reads: Reads) -> Iterator[Object]:
    for template in templates(owner):
        wanted = claim_name(owner, template, number)
        found = reads.get(PERSISTENT_VOLUME_CLAIMS, owner["metadata"]["namespace"], wanted)
        if found is not None:
            yield found


def leaving(owner: Object, number: int, reads: Reads) -> Object | None:
    """A claim that is being deleted: the pod cannot be made before it has gone."""
    return next((item for item in existing(owner, number, reads) if is_deleting(item)), None)


def is_stale(owner: Object, number: int, reads: Reads) -> bool:
    """Whether a claim still belongs to an earlier pod of the name, and goes along with it."""
    if not _policy(owner, "whenScaled"):
        return False
    pod_name = f"{name(owner)}-{number}"
    return any(
        reference["kind"] == "Pod" and reference["name"] == pod_name
        for item in existing(owner, number, reads)
        for reference in owners(item)
    )


def create(owner: Object, number: int, reads: Reads) -> Iterator[Write]:
    """Those that are missing."""
    pod = f"{name(owner)}-{number}"
    there = {name(item) for item in existing(owner, number, reads)}
    for template in templates(owner):
        wanted = claim_name(owner, template, number)
        if wanted not in there:
            yield _create(owner, template, wanted, pod)


def _create(owner: Object, template: Object, wanted: str, pod: str) -> Create:
    what = f"Pod {pod} in StatefulSet {name(owner)}"

    def made(_: Object) -> list[Write]:
        text = f"Create Claim {wanted} {what} success"
        return [Record(owner, "Normal", "SuccessfulCreate", text)]

    def refused(err: StatusError) -> list[Write]:
        if err.reason == "AlreadyExists" or pods.is_namespace_going(err):
            return []
        text = f"Create Claim {wanted} for {what} failed error: {err.message}"
        return [Record(owner, "Warning", "FailedCreate", text)]

    meta = template.get("metadata") or {}
    selected = (owner["spec"].get("selector") or {}).get("matchLabels") or {}
    body = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            **{key: meta[key] for key in ("annotations", "finalizers") if meta.get(key)},
            "name": wanted,
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **selected},
        },
        "spec": template["spec"],
    }
    return Create(PERSISTENT_VOLUME_CLAIMS, body, on_success=made, on_failure=refused)


# -- retention


def retain(owner: Object, pod: Object, reads: Reads) -> Iterator[Write]:
    """Give the pod's claims the owners that the policy wants."""
    for item in existing(owner, ordinal(pod), reads):
        yield from _retain(owner, pod, item)


def _retain(owner: Object, pod: Object, item: Object) -> Iterator[Write]:
    references = owners(item)
    ours = [r for r in references if _names(r, owner) or _names(r, pod)]
    known = {uid_of(owner), uid_of(pod)}
    if any(reference["uid"] not in known for reference in ours):
        return  # of an earlier set or pod: the garbage collector's, not to be touched
    others = [reference for reference in references if reference not in ours]
    wanted = _wanted(owner, pod)
    if wanted is not None and any(reference.get("controller") for reference in others):
        text = (
            f"PersistentVolumeClaim {name(item)} has a conflicting OwnerReference that acts as a "
            "manging controller, the retention policy is ignored for this claim"
        )
        if ours:
            yield Record(owner, "Warning", "ConflictingController", text)
            yield _write(item, others)
        return
    expected = [wanted] if wanted else []
    if [_plain(reference) for reference in ours] != [_plain(r) for r in expected]:
        yield _write(item, [*others, *expected])


def _policy(owner: Object, when: str) -> bool:
    """Whether claims are deleted then."""
    policy = owner["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    return bool(policy.get(when) == "Delete")


def _wanted(owner: Object, pod: Object) -> Reference | None:
    """The owner of the claim; None: the policy is to keep it whatever happens."""
    scaled, deleted = _policy(owner, "whenScaled"), _policy(owner, "whenDeleted")
    if not scaled and not deleted:
        return None
    if scaled and ordinal(pod) not in ordinals(owner):
        return controller_reference(pod, "v1", "Pod")
    return controller_reference(owner) if deleted else {}


def _names(reference: Reference, item: Object) -> bool:
    kind = item.get("kind") or "Pod"
    return bool(reference["kind"] == kind and reference["name"] == name(item))


def _plain(reference: Reference) -> tuple[Any, bool]:
    return reference["uid"], bool(reference.get("controller"))


def _write(item: Object, references: list[Reference]) -> Patch:
    return set_owners(PERSISTENT_VOLUME_CLAIMS, item, references)
