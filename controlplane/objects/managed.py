"""
``metadata.managedFields``: who owns which field, kept up to date by every write.

:func:`track` runs on every create, update and patch, so it must cost next to
nothing when nothing or little differs: the stored sets are used as they are and
only the differing paths are touched. Apply has its own rules, in
:mod:`controlplane.objects.apply`. Source: KEP-555, "Server-Side Apply" in the
API documentation.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from controlplane.objects import fieldsets
from controlplane.objects.comparison import NotTyped, compare
from controlplane.objects.fieldsets import Path, Set
from controlplane.objects.meta import rfc3339
from controlplane.objects.schema import Schema

APPLY = "Apply"
UPDATE = "Update"
ANCIENT = "ancient-changes"
_MOST_UPDATERS = 10

# The server's own, owned by nobody.
_UNOWNED_METADATA = frozenset(
    {
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    }
)
_UNOWNED = fieldsets.of_paths(
    frozenset(
        {("apiVersion",), ("kind",), ("metadata",)}
        | {("metadata", name) for name in _UNOWNED_METADATA}
    )
)

Object = Mapping[str, Any]
Identity = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One manager's share of an object."""

    manager: str
    operation: str
    api_version: str
    subresource: str = ""
    time: str = ""
    fields: Set

    @property
    def identity(self) -> Identity:
        """An applier is the same whichever version it applies."""
        version = "" if self.operation == APPLY else self.api_version
        return self.operation, self.manager, version, self.subresource


def track(
    live: Object | None,
    new: dict[str, Any],
    *,
    schema: Schema,
    manager: str,
    api_version: str,
    now: datetime,
    subresource: str = "",
    reset: frozenset[Path] = frozenset(),
) -> None:
    """
    Write ``new.metadata.managedFields`` for a create (``live`` None), update or patch.

    ``reset`` are the paths that this endpoint takes from the live object, such
    as ``("status",)``: nobody comes to own them here. ``new`` shares the sets
    of ``live`` that did not change. A client that sends an empty list turns
    tracking off; one that sends none keeps what the live object has.
    """
    metadata = new.setdefault("metadata", {})
    raw = _source(live, metadata, subresource)
    metadata.pop("managedFields", None)
    if live is not None and not raw:
        return
    try:
        entries = decode(raw)
        comparison = compare(schema, owned_part(live or {}), owned_part(new))
    except NotTyped:
        # An object that does not fit its schema is refused elsewhere.
        if raw:
            metadata["managedFields"] = raw
        return
    if not (comparison.added or comparison.modified or comparison.removed):
        if raw:
            metadata["managedFields"] = raw
        return
    comparison = comparison.without(fieldsets.of_paths(reset))
    mine = Entry(
        manager=manager or "unknown",
        operation=UPDATE,
        api_version=api_version,
        subresource=subresource,
        time=rfc3339(now),
        fields=fieldsets.difference(comparison.changed, _UNOWNED),
    )
    entries = [taken_from(entry, comparison.changed, comparison.removed) for entry in entries]
    store(metadata, _capped(_with_mine(entries, mine)))


def taken_from(entry: Entry, changed: Set, removed: Set) -> Entry:
    """What an entry has left after others changed and removed fields."""
    fields = entry.fields
    if changed:
        fields = fieldsets.difference(fields, changed)
    if removed:
        fields = fieldsets.difference(fields, removed)
    return entry if fields == entry.fields else replace(entry, fields=fields)


def owned_part(obj: Object) -> dict[str, Any]:
    """The object without what nobody owns."""
    part = {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
    if metadata := obj.get("metadata"):
        part["metadata"] = {k: v for k, v in metadata.items() if k not in _UNOWNED_METADATA}
    return part


def without_unowned(fields: Set) -> Set:
    return fieldsets.difference(fields, _UNOWNED)


def decode(raw: Iterable[Mapping[str, Any]] | None) -> list[Entry]:
    """The entries of an object; none at all where any of them cannot be understood."""
    entries = []
    for item in raw or ():
        if item.get("operation") not in (APPLY, UPDATE) or item.get("fieldsType") != "FieldsV1":
            return []
        if not item.get("apiVersion"):
            return []
        entries.append(
            Entry(
                manager=item.get("manager", ""),
                operation=item["operation"],
                api_version=item["apiVersion"],
                subresource=item.get("subresource", ""),
                time=item.get("time") or "",
                fields=item.get("fieldsV1") or {},
            )
        )
    return entries


def store(metadata: dict[str, Any], entries: Iterable[Entry]) -> None:
    """Write the entries that own something, sorted as the API sorts them."""
    kept = sorted((entry for entry in entries if entry.fields), key=_order)
    if kept:
        metadata["managedFields"] = [_encode(entry) for entry in kept]
    else:
        metadata.pop("managedFields", None)


def _encode(entry: Entry) -> dict[str, Any]:
    encoded: dict[str, Any] = {
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": _sorted(entry.fields),
        "subresource": entry.subresource,
    }
    return {key: value for key, value in encoded.items() if value != ""}


def _sorted(fields: Set) -> dict[str, Any]:
    """As upstream writes sets: clients compare them as text."""
    return {step: _sorted(fields[step]) for step in sorted(fields)}


def _order(entry: Entry) -> tuple[str, ...]:
    return entry.operation, entry.time, entry.manager, entry.api_version, entry.subresource


def _source(live: Object | None, metadata: Object, subresource: str) -> Sequence[Any]:
    """Whose list counts: a request to a subresource cannot change it."""
    held: Sequence[Any] = ((live or {}).get("metadata") or {}).get("managedFields") or []
    sent = metadata.get("managedFields")
    if subresource or sent is None:
        return held
    if sent in ([], [{}]):
        return []
    return sent if sent is held or sent == held or _is_sound(sent) else held


def _is_sound(sent: Sequence[Any]) -> bool:
    """Whether what a client sent can be worked with."""
    return bool(decode(sent)) and all(fieldsets.is_set(item.get("fieldsV1") or {}) for item in sent)


def _with_mine(entries: list[Entry], mine: Entry) -> list[Entry]:
    """Join what this write changed with what the same manager owned before."""
    if not mine.fields:
        return entries
    for index, entry in enumerate(entries):
        if entry.identity == mine.identity:
            fields = fieldsets.union(entry.fields, mine.fields)
            entries[index] = replace(mine, fields=fields)
            return entries
    return [*entries, mine]


def _capped(entries: list[Entry]) -> list[Entry]:
    """Merge the oldest updaters of each version into one, so that the list stays short."""
    updaters = [entry for entry in entries if entry.operation == UPDATE and entry.fields]
    surplus = len(updaters) - _MOST_UPDATERS
    if surplus <= 0:
        return entries
    first: dict[str, Entry] = {}
    merged: dict[str, Entry] = {}
    gone: set[Identity] = set()
    for entry in sorted(updaters, key=lambda entry: (entry.time, entry.identity)):
        version = entry.api_version
        if surplus == 0:
            break
        if version not in first:
            first[version] = entry
            continue
        base = merged.get(version) or first[version]
        fields = fieldsets.union(entry.fields, base.fields)
        merged[version] = replace(entry, manager=ANCIENT, subresource="", fields=fields)
        gone |= {entry.identity, first[version].identity}
        surplus -= 1
    return [entry for entry in entries if entry.identity not in gone] + list(merged.values())
