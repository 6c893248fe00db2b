"""
ControllerRevisions: what the template of a DaemonSet or StatefulSet was, under a number.

A revision holds a strategic merge patch that brings its template back; ``kubectl rollout
undo`` sends it as it is. Going back gives the old revision the newest number instead of
making another one.
Source: the API documentation of ControllerRevision; upstream's controller/history.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.client.base import Object, Reads
from controlplane.objects import selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import annotations, controller_reference, labels, name, safe_hash
from controlplane.objects.resources import CONTROLLER_REVISIONS
from controlplane.reconcile.base import Create, Delete, SetStatus, Update, Write
from controlplane.reconcile.ownership import claim

HASH_LABEL = "controller-revision-hash"
# Only of use to the object that was applied, and as large as that.
_NOT_COPIED = frozenset({"kubectl.kubernetes.io/last-applied-configuration"})


@dataclass(frozen=True, slots=True)
class History:
    """The revision of the template as it is now, and the others by number."""

    now: Object
    old: Sequence[Object]

    def named(self, wanted: str | None) -> Object | None:
        return next((item for item in (self.now, *self.old) if name(item) == wanted), None)


def number_of(revision: Object) -> int:
    return int(revision.get("revision", 0))


def template_of(revision: Object) -> dict[str, Any]:
    """The pod template that the revision brings back."""
    template: Mapping[str, Any] = revision["data"]["spec"]["template"]
    return {key: value for key, value in template.items() if key != "$patch"}


def prepare(
    owner: Object, resource: Resource, reads: Reads, hash_label: str
) -> tuple[History | None, list[Write]]:
    """
    The history of ``owner``, and what to write first.

    None: the present template's revision is only being written; its change brings the key back.
    """
    selector = selectors.of_object(owner["spec"].get("selector"))
    found = reads.list(CONTROLLER_REVISIONS, owner["metadata"]["namespace"])
    owned, patches = claim(owner, CONTROLLER_REVISIONS, found, selector.matches)
    owned.sort(key=lambda item: (number_of(item), name(item)))
    data, writes = _data(owner), list[Write](patches)
    equal = [item for item in owned if item.get("data") == data]
    if not equal:
        number = number_of(owned[-1]) + 1 if owned else 1
        return None, [*writes, _create(owner, resource, number, hash_label)]
    present = equal[-1]
    old = [item for item in owned if item is not present]
    newest = number_of(old[-1]) if old else 0
    if number_of(present) <= newest:
        again = {**present, "revision": newest + 1}
        return None, [*writes, Update(CONTROLLER_REVISIONS, again)]
    return History(present, old), writes


def prune(old: Sequence[Object], is_live: Callable[[Object], bool], excess: int) -> Iterator[Write]:
    """Delete so many of those that no pod runs, the oldest first."""
    dead = [item for item in old if not is_live(item)]
    yield from (Delete(CONTROLLER_REVISIONS, item) for item in dead[: max(excess, 0)])


def of_pods(owned: Collection[Object]) -> frozenset[str]:
    """The values of the revision label that pods carry."""
    return frozenset(labels(pod).get(HASH_LABEL, "") for pod in owned)


def _data(owner: Object) -> dict[str, Any]:
    # kubectl compares bytes with what it would write itself: keys in order, resources always.
    template = owner["spec"]["template"]
    spec = dict(template["spec"])
    for field in ("containers", "initContainers"):
        if spec.get(field):
            spec[field] = [{"resources": {}, **container} for container in spec[field]]
    return {"spec": {"template": _sorted({**template, "spec": spec, "$patch": "replace"})}}


def _sorted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_sorted(item) for item in value]
    return value


def _create(owner: Object, resource: Resource, number: int, hash_label: str) -> Create:
    meta, status = owner["metadata"], owner.get("status") or {}
    collisions = status.get("collisionCount") or 0
    hashed = safe_hash({"template": owner["spec"]["template"], "collisions": collisions})
    template_labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}

    def refused(err: StatusError) -> list[Write]:
        if err.reason != "AlreadyExists":
            return []
        # The name belongs to somebody else: the count makes way for another one.
        return [SetStatus(resource, owner, {**status, "collisionCount": collisions + 1})]

    kept = {key: value for key, value in annotations(owner).items() if key not in _NOT_COPIED}
    body = {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta['name']}-{hashed}",
            "namespace": meta["namespace"],
            "labels": {**template_labels, hash_label: hashed},
            "annotations": kept,
            "ownerReferences": [controller_reference(owner)],
        },
        "data": _data(owner),
        "revision": number,
    }
    return Create(CONTROLLER_REVISIONS, body, on_failure=refused)
