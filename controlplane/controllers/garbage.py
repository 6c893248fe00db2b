"""
Garbage collection: what has lost its last owner goes too.

Every kind takes part, custom ones included. Nothing is scanned: a deletion
brings back what it owned (by the index of owners in Reads), a change of owners or of the
finalizers that mean "wait for my dependents" brings back the object itself.
Source: the API concepts "Garbage Collection" and "Owners and Dependents".
"""

import enum
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.kinds import Kind, Kinds, Resource
from controlplane.objects.meta import FOREGROUND, ORPHAN, finalizers, is_deleting, owners, uid_of
from controlplane.objects.resources import NAMESPACES
from controlplane.reconcile.base import Controller, Delete, Key, Patch, Record, Write
from controlplane.reconcile.ownership import set_owners

Reference = Mapping[str, Any]

# Written all the time by those who own them; their owners do not change afterwards.
_HEARTBEATS = frozenset({"leases", "events"})


def make(kinds: Kinds) -> Controller:
    return Controller(
        name="garbage-collector-controller",
        primary=NAMESPACES,
        reads=frozenset(),
        writes=frozenset(),
        reconcile=partial(_reconcile, kinds),
        keys_for=partial(_keys_for, kinds),
        every_kind=True,
    )


def _stored(kinds: Kinds) -> Iterator[Resource]:
    seen: set[str] = set()
    for kind in kinds:
        if kind.storage_key and kind.storage_key not in seen and "delete" in kind.verbs:
            seen.add(kind.storage_key)
            yield kind.resource


# -- who is touched by a change


def _keys_for(kinds: Kinds, change: Change, reads: Reads) -> Iterator[Key]:
    if change.load_new is None:
        yield from _after_deletion(kinds, change, reads)
        return
    if change.load_old is not None and change.resource.plural in _HEARTBEATS:
        return
    new = change.new
    if new is None or not (owners(new) or is_deleting(new)):
        return
    if change.load_old is not None and _same_ties(change.old, new):
        return
    yield Key(change.namespace, change.name, change.resource)
    old = change.old if change.load_old is not None else None
    if old is not None and owners(old) != owners(new):
        yield from _deleting_owners(kinds, change.namespace, old, reads)


def _same_ties(old: Object | None, new: Object) -> bool:
    return (
        old is not None
        and is_deleting(old) == is_deleting(new)
        and owners(old) == owners(new)
        and finalizers(old) == finalizers(new)
    )


def _after_deletion(kinds: Kinds, change: Change, reads: Reads) -> Iterator[Key]:
    old = change.old
    if old is None:
        return
    uid = uid_of(old)
    for resource in _stored(kinds):
        for item in reads.owned(resource, uid):
            yield _key(resource, item)
    yield from _deleting_owners(kinds, change.namespace, old, reads)


def _deleting_owners(kinds: Kinds, namespace: str, old: Object, reads: Reads) -> Iterator[Key]:
    """Those that may have waited for what is no longer theirs, or no longer in their way."""
    for reference in owners(old):
        kind = _kind_of(kinds, reference)
        if kind is None:
            continue
        owner = reads.get(kind.resource, namespace if kind.namespaced else "", reference["name"])
        if owner is not None and is_deleting(owner):
            yield _key(kind.resource, owner)


def _key(resource: Resource, item: Object) -> Key:
    meta = item["metadata"]
    return Key(meta.get("namespace", ""), meta["name"], resource)


def _kind_of(kinds: Kinds, reference: Reference) -> Kind | None:
    return kinds.by_kind(reference.get("apiVersion", ""), reference.get("kind", ""))


# -- what to do about an object


def _reconcile(kinds: Kinds, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    if key.resource is None:
        return
    item = reads.get(key.resource, key.namespace, key.name)
    if item is None:
        return
    if is_deleting(item):
        if ORPHAN in finalizers(item):
            yield from _orphan(kinds, key.resource, item, reads)
        elif FOREGROUND in finalizers(item):
            yield from _wait_for_dependents(kinds, key.resource, item, reads)
    if owners(item) and not (is_deleting(item) and not finalizers(item)):
        yield from _check_owners(kinds, key.resource, item, reads)


def _dependents(kinds: Kinds, item: Object, reads: Reads) -> Iterator[tuple[Resource, Object]]:
    for resource in _stored(kinds):
        for dependent in reads.owned(resource, uid_of(item)):
            yield resource, dependent


def _orphan(kinds: Kinds, resource: Resource, item: Object, reads: Reads) -> Iterator[Write]:
    uid = uid_of(item)
    for kind, dependent in _dependents(kinds, item, reads):
        yield set_owners(kind, dependent, [r for r in owners(dependent) if r["uid"] != uid])
    yield _without_finalizer(resource, item, ORPHAN)


def _wait_for_dependents(
    kinds: Kinds, resource: Resource, item: Object, reads: Reads
) -> Iterator[Write]:
    blocked = False
    uid = uid_of(item)
    for kind, dependent in _dependents(kinds, item, reads):
        reference = next(r for r in owners(dependent) if r["uid"] == uid)
        if not reference.get("blockOwnerDeletion"):
            continue
        blocked = True
        if not is_deleting(dependent):
            yield from _check_owners(kinds, kind, dependent, reads)
    if not blocked:
        yield _without_finalizer(resource, item, FOREGROUND)


def _without_finalizer(resource: Resource, item: Object, name: str) -> Patch:
    meta = item["metadata"]
    body = {
        "metadata": {
            "uid": meta["uid"],
            "resourceVersion": meta["resourceVersion"],
            "finalizers": [f for f in finalizers(item) if f != name],
        }
    }
    return Patch(resource, meta.get("namespace", ""), meta["name"], body)


class _State(enum.Enum):
    """Of an owner, as its dependent sees it."""

    SOLID = enum.auto()
    ABSENT = enum.auto()
    WAITING = enum.auto()  # deleted in the foreground: it waits for this dependent
    UNKNOWN = enum.auto()  # of a kind that is not served: no reason to delete anything


def _state(kinds: Kinds, item: Object, reference: Reference, reads: Reads) -> _State:
    kind = _kind_of(kinds, reference)
    if kind is None:
        return _State.UNKNOWN
    namespace = item["metadata"].get("namespace", "")
    if kind.namespaced and not namespace:
        return _State.UNKNOWN  # a cluster's object cannot be owned by a namespace's
    owner = reads.get(kind.resource, namespace if kind.namespaced else "", reference["name"])
    if owner is None or uid_of(owner) != reference["uid"]:
        return _State.ABSENT
    if is_deleting(owner) and FOREGROUND in finalizers(owner):
        return _State.WAITING
    return _State.SOLID


def _check_owners(kinds: Kinds, resource: Resource, item: Object, reads: Reads) -> Iterator[Write]:
    states = [(reference, _state(kinds, item, reference, reads)) for reference in owners(item)]
    found = {state for _, state in states}
    if _State.UNKNOWN in found:
        yield from _explain(kinds, item, states)
        return
    if _State.SOLID in found:
        kept = [reference for reference, state in states if state is _State.SOLID]
        if len(kept) < len(states):
            yield set_owners(resource, item, kept)
        return
    blocking = any(reference.get("blockOwnerDeletion") for reference in owners(item))
    if _State.WAITING in found and blocking and _in_circle(kinds, item, reads):
        # Each would wait for the next for ever.
        unblocked: list[Reference] = [
            {**reference, "blockOwnerDeletion": False} for reference in owners(item)
        ]
        yield set_owners(resource, item, unblocked)
    if not is_deleting(item):
        yield Delete(resource, item, _propagation(kinds, item, reads, found))


def _in_circle(kinds: Kinds, item: Object, reads: Reads) -> bool:
    """Whether the owners that wait lead back to the object itself."""
    seen: set[str] = set()
    left = [item]
    while left:
        for reference in owners(left.pop()):
            uid = reference["uid"]
            if uid == uid_of(item):
                return True
            if uid in seen or _state(kinds, item, reference, reads) is not _State.WAITING:
                continue
            seen.add(uid)
            kind = _kind_of(kinds, reference)
            if kind is not None:
                namespace = item["metadata"].get("namespace", "") if kind.namespaced else ""
                owner = reads.get(kind.resource, namespace, reference["name"])
                left += [owner] if owner is not None else []
    return False


def _propagation(kinds: Kinds, item: Object, reads: Reads, states: set[_State]) -> str:
    if _State.WAITING in states and next(_dependents(kinds, item, reads), None) is not None:
        return "Foreground"  # its owner waits, so it shall wait for its own dependents
    if ORPHAN in finalizers(item):
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers(item) else "Background"


def _explain(kinds: Kinds, item: Object, states: list[tuple[Reference, _State]]) -> Iterator[Write]:
    for reference, state in states:
        kind = _kind_of(kinds, reference)
        if state is _State.UNKNOWN and kind is not None:
            text = (
                f"ownerRef [{reference['apiVersion']}/{reference['kind']}, namespace: , name: "
                f'{reference["name"]}, uid: {reference["uid"]}] does not exist in namespace ""'
            )
            yield Record(item, "Warning", "OwnerRefInvalidNamespace", text)
