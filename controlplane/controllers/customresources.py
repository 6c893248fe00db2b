"""
CustomResourceDefinition → its own status, and the end of its resources.

A definition is served once its names are accepted: no other established
definition of the group uses one of them for something else. One that is
deleted goes only after its last resource.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.definitions import CLEANUP_FINALIZER
from controlplane.objects.kinds import Resource
from controlplane.reconcile.base import Again, Controller, Delete, Key, SetStatus, Update, Write

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", False)
LOOK_AGAIN = timedelta(seconds=1)  # while resources with finalizers of their own are leaving


def reconcile(key: Key, reads: Reads, now: datetime) -> Iterable[Write]:
    crd = reads.get(DEFINITIONS, "", key.name)
    if crd is None:
        return ()
    if crd["metadata"].get("deletionTimestamp"):
        return _clean_up(crd, reads)
    status = _status(crd, reads, now)
    if status == crd.get("status"):
        return ()
    return (SetStatus(DEFINITIONS, crd, status),)


def _clean_up(crd: Object, reads: Reads) -> Iterator[Write]:
    finalizers = crd["metadata"].get("finalizers") or []
    if CLEANUP_FINALIZER not in finalizers:
        return
    spec = crd["spec"]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    namespaced = spec["scope"] == "Namespaced"
    resource = Resource(spec["group"], storage, spec["names"]["plural"], namespaced)
    left = reads.list(resource)
    for obj in left:
        if not obj["metadata"].get("deletionTimestamp"):
            yield Delete(resource, obj)
    if left:
        yield Again(LOOK_AGAIN)
        return
    metadata = {**crd["metadata"], "finalizers": [f for f in finalizers if f != CLEANUP_FINALIZER]}
    yield Update(DEFINITIONS, {**crd, "metadata": metadata})


def _status(crd: Object, reads: Reads, now: datetime) -> dict[str, Any]:
    spec = crd["spec"]
    old = crd.get("status") or {}
    conflict = _conflict(crd, reads)
    conditions = list(old.get("conditions") or [])
    if conflict:
        _set(conditions, ("NamesAccepted", "False", conflict[0], conflict[1]), now)
        if not _is_true(conditions, "Established"):
            why = ("Established", "False", "NotAccepted", "not all names are accepted")
            _set(conditions, why, now)
        accepted = old.get("acceptedNames") or {"plural": "", "kind": ""}
    else:
        _set(conditions, ("NamesAccepted", "True", "NoConflicts", "no conflicts found"), now)
        if not _is_true(conditions, "Established"):
            text = "the initial names have been accepted"
            _set(conditions, ("Established", "True", "InitialNamesAccepted", text), now)
        accepted = dict(spec["names"])
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    stored = list(old.get("storedVersions") or [])
    if storage not in stored:
        stored.append(storage)
    return {"conditions": conditions, "acceptedNames": accepted, "storedVersions": stored}


def _names(names: Mapping[str, Any]) -> set[str]:
    """What must be unique among the resources of a group, apart from the kinds."""
    given = {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or ())}
    return given - {""}


def _conflict(crd: Object, reads: Reads) -> tuple[str, str] | None:
    """Reason and message where another established definition has one of the names."""
    spec = crd["spec"]
    ours = _names(spec["names"])
    for other in reads.list(DEFINITIONS):
        if other["metadata"]["uid"] == crd["metadata"]["uid"]:
            continue
        if other["spec"]["group"] != spec["group"]:
            continue
        taken = (other.get("status") or {}).get("acceptedNames") or {}
        for name in sorted(ours & _names(taken)):
            return "NameConflict", f'"{name}" is already in use'
        kinds = {taken.get("kind"), taken.get("listKind")} - {None, ""}
        for key in ("kind", "listKind"):
            if spec["names"].get(key) in kinds:
                return f"{key[0].upper()}{key[1:]}Conflict", (
                    f'"{spec["names"][key]}" is already in use'
                )
    return None


def _is_true(conditions: Iterable[Mapping[str, Any]], kind: str) -> bool:
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


def _set(
    conditions: list[dict[str, Any]], wanted: tuple[str, str, str, str], now: datetime
) -> None:
    kind, status, reason, message = wanted
    entry = {
        "lastTransitionTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "message": message,
        "reason": reason,
        "status": status,
        "type": kind,
    }
    for index, found in enumerate(conditions):
        if found["type"] == kind:
            if found["status"] == status:
                entry["lastTransitionTime"] = found["lastTransitionTime"]
            conditions[index] = entry
            return
    conditions.append(entry)


def _same_group(change: Change, reads: Reads) -> Iterable[Key]:
    """A definition that goes, or gives names back, may let another have them."""
    changed = change.new or change.old
    if changed is None:
        return
    for other in reads.list(DEFINITIONS):
        if other["spec"]["group"] == changed["spec"]["group"]:
            yield Key("", other["metadata"]["name"])


CONTROLLER = Controller(
    name="crd-controller",
    primary=DEFINITIONS,
    reads=frozenset({DEFINITIONS}),
    writes=frozenset({DEFINITIONS}),
    reconcile=reconcile,
    keys_for=_same_group,
)
