"""
Namespace teardown: pods first, then everything else, then the namespace itself.

It works on every namespaced kind that is served, custom ones included, and goes
on whenever something in a terminating namespace disappears.
Source: the API concept "Namespaces", KEP-5080 (ordered namespace deletion).
"""

from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.kinds import Kinds, Resource
from controlplane.objects.meta import finalizers, is_deleting, with_condition
from controlplane.objects.resources import NAMESPACES, PODS
from controlplane.reconcile.base import Controller, Delete, Finalize, Key, SetStatus, Write

Contents = Mapping[Resource, list[Object]]

_FOUND = ("NamespaceDeletionDiscoveryFailure", "ResourcesDiscovered")
_PARSED = ("NamespaceDeletionGroupVersionParsingFailure", "ParsedGroupVersions")
_DELETED = ("NamespaceDeletionContentFailure", "ContentDeleted")


def make(kinds: Kinds) -> Controller:
    return Controller(
        name="namespace-controller",
        primary=NAMESPACES,
        reads=frozenset(),
        writes=frozenset(),
        reconcile=partial(_reconcile, kinds),
        keys_for=_keys_for,
        every_kind=True,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource.plural == NAMESPACES.plural and not change.resource.group:
        if change.load_new is not None:
            yield Key("", change.name)
        return
    # An update leaves as much to delete as there was before.
    if change.namespace and (change.load_new is None or change.load_old is None):
        namespace = reads.get(NAMESPACES, "", change.namespace)
        if namespace is not None and is_deleting(namespace):
            yield Key("", change.namespace)


def _reconcile(kinds: Kinds, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    namespace = reads.get(NAMESPACES, "", key.name)
    if namespace is None or not is_deleting(namespace):
        return
    if "kubernetes" not in ((namespace.get("spec") or {}).get("finalizers") or ()):
        return
    contents = _contents(kinds, reads, key.name)
    first = contents.get(PODS)
    for resource, items in {PODS: first}.items() if first else contents.items():
        for item in items:
            if not is_deleting(item):
                yield Delete(resource, item)
    status = _status(namespace, contents, now)
    # An empty namespace goes without a word, unless it has something to correct.
    if status != namespace.get("status") and (contents or _has_conditions(namespace)):
        yield SetStatus(NAMESPACES, namespace, status)
    elif not contents:
        yield Finalize(namespace)


def _has_conditions(namespace: Object) -> bool:
    return bool((namespace.get("status") or {}).get("conditions"))


def _contents(kinds: Kinds, reads: Reads, name: str) -> dict[Resource, list[Object]]:
    found: dict[Resource, list[Object]] = {}
    seen: set[str] = set()
    for kind in kinds:
        stored = kind.namespaced and kind.storage_key and "delete" in kind.verbs
        if not stored or kind.storage_key in seen:
            continue
        seen.add(kind.storage_key)
        items = reads.list(kind.resource, name)
        if items:
            found[kind.resource] = list(items)
    return found


def _status(namespace: Object, contents: Contents, now: datetime) -> dict[str, Any]:
    status = dict(namespace.get("status") or {})
    conditions = status.get("conditions") or []
    for condition in _conditions(contents):
        conditions = with_condition(conditions, condition, now)
    return {**status, "phase": "Terminating", "conditions": conditions}


def _conditions(contents: Contents) -> Iterator[dict[str, str]]:
    yield _made(*_FOUND, "All resources successfully discovered")
    yield _made(*_PARSED, "All legacy kube types successfully parsed")
    yield _made(*_DELETED, "All content successfully deleted, may be waiting on finalization")
    if contents:
        counted = [
            f"{resource.plural}.{resource.group} has {len(items)} resource instances"
            for resource, items in contents.items()
        ]
        text = f"Some resources are remaining: {', '.join(sorted(counted))}"
        yield _made("NamespaceContentRemaining", "SomeResourcesRemain", text, "True")
    else:
        text = "All content successfully removed"
        yield _made("NamespaceContentRemaining", "ContentRemoved", text)
    held = _finalizers(contents)
    if held:
        counted = [f"{name} in {count} resource instances" for name, count in sorted(held.items())]
        text = f"Some content in the namespace has finalizers remaining: {', '.join(counted)}"
        yield _made("NamespaceFinalizersRemaining", "SomeFinalizersRemain", text, "True")
    else:
        text = "All content-preserving finalizers finished"
        yield _made("NamespaceFinalizersRemaining", "ContentHasNoFinalizers", text)


def _finalizers(contents: Contents) -> dict[str, int]:
    held: dict[str, int] = {}
    for items in contents.values():
        for item in items:
            for name in finalizers(item):
                held[name] = held.get(name, 0) + 1
    return held


def _made(type_: str, reason: str, message: str, status: str = "False") -> dict[str, str]:
    return {"type": type_, "status": status, "reason": reason, "message": message}
