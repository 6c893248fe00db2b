"""
Who owns an object: controller references, adoption and release.

An object has at most one controller. A controller takes over objects that match its
selector and have none, and lets go of its own that match no longer.
Source: the API concept "Owners and Dependents"; upstream's controller_ref_manager.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from controlplane.client.base import Object
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import (
    controller_of,
    controller_reference,
    finalizers,
    is_deleting,
)
from controlplane.reconcile.base import Patch


def claim(
    owner: Object,
    resource: Resource,
    candidates: Iterable[Object],
    matches: Callable[[Mapping[str, str]], bool],
    *,
    finalizer: str = "",
) -> tuple[list[Object], list[Patch]]:
    """
    The candidates that belong to the owner, and what to write so that it shows.

    An orphan to be adopted already counts as owned. Nothing is adopted by, or
    released from, an owner that is being deleted: the garbage collector decides then.
    What is let go loses ``finalizer`` too: nobody else would take it off.
    """
    owned: list[Object] = []
    patches: list[Patch] = []
    leaving = is_deleting(owner)
    uid = owner["metadata"]["uid"]
    for item in candidates:
        meta = item["metadata"]
        reference = controller_of(item)
        fits = matches(meta.get("labels") or {})
        if reference is not None:
            if reference["uid"] != uid:
                continue
            if fits or leaving:
                owned.append(item)
            else:
                patches.append(_release(resource, item, uid, finalizer))
        elif fits and not leaving and not is_deleting(item):
            owned.append(item)
            patches.append(_adopt(resource, item, owner))
    return owned, patches


def _adopt(resource: Resource, item: Object, owner: Object) -> Patch:
    others = [
        reference
        for reference in item["metadata"].get("ownerReferences") or ()
        if reference["uid"] != owner["metadata"]["uid"]
    ]
    return set_owners(resource, item, [*others, controller_reference(owner)])


def _release(resource: Resource, item: Object, uid: str, finalizer: str) -> Patch:
    references = item["metadata"]["ownerReferences"]
    patch = set_owners(resource, item, [r for r in references if r["uid"] != uid])
    if finalizer not in finalizers(item):
        return patch
    kept = [f for f in finalizers(item) if f != finalizer]
    return replace(patch, body={"metadata": {**patch.body["metadata"], "finalizers": kept}})


def set_owners(resource: Resource, item: Object, references: list[Mapping[str, Any]]) -> Patch:
    """Replace all owner references, unless the object has changed since it was read."""
    meta = item["metadata"]
    body = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "ownerReferences": references,
        }
    }
    return Patch(resource, meta.get("namespace", ""), meta["name"], body)
