"""
Server-side apply: merge what a manager wants, drop what it no longer wants, refuse conflicts.

The applied configuration is all that its manager wants to own. Fields that it
owned before and does not mention now are removed, unless somebody else owns
them too; fields that others own cannot be changed without ``force``.
Source: KEP-555, "Server-Side Apply" in the API documentation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from controlplane.objects import fieldsets, managed
from controlplane.objects.comparison import DEDUCED, NotTyped, compare
from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.fieldsets import Path, Set
from controlplane.objects.managed import APPLY, UPDATE, Entry
from controlplane.objects.meta import clone, rfc3339
from controlplane.objects.ownership import merge, pruned, set_of
from controlplane.objects.schema import Schema, Type

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_BEFORE = "before-first-apply"
_MOST_ANNOTATIONS = 256 * 1024

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Conflict:
    entry: Entry
    fields: Set


def apply(  # noqa: PLR0913  (what every write names, and force)
    live: Object | None,
    applied: Object,
    *,
    schema: Schema,
    manager: str,
    api_version: str,
    now: datetime,
    subresource: str = "",
    force: bool = False,
    reset: frozenset[Path] = frozenset(),
) -> dict[str, Any]:
    """
    The object after the apply, with its ``managedFields``; ``live`` None: it is created.

    ``reset`` are the paths that this endpoint does not let anybody own. 409 with
    one ``FieldManagerConflict`` cause for each field that others own; 400 for
    a configuration that is of another version, sets managedFields, or does not
    fit the schema. Equal to ``live`` where nothing changed.
    """
    _check(applied, api_version)
    if schema.type is Type.ANY:
        schema = DEDUCED
    step = _Step(live or {}, applied, schema, manager, api_version, subresource, now, reset)
    try:
        return step.perform(force)
    except NotTyped as error:
        raise bad_request(_not_typed(applied, error)) from None


def _check(applied: Object, api_version: str) -> None:
    if (applied.get("metadata") or {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if (given := applied.get("apiVersion", api_version)) != api_version:
        raise bad_request(
            "Incorrect version specified in apply patch. "
            f"Specified patch version: {given}, expected: {api_version}"
        )


def _not_typed(applied: Object, error: NotTyped) -> str:
    metadata = applied.get("metadata") or {}
    name, namespace = metadata.get("name", ""), metadata.get("namespace", "")
    where = f"{namespace}/{name}" if namespace else f"/{name}"
    kind = f"{applied.get('apiVersion', '')}, Kind={applied.get('kind', '')}"
    return f"failed to create typed patch object ({where}; {kind}): {error}"


@dataclass(frozen=True, slots=True)
class _Step:
    """One apply; everything it needs to know."""

    live: Object
    applied: Object
    schema: Schema
    manager: str
    api_version: str
    subresource: str
    now: datetime
    reset: frozenset[Path]

    def perform(self, force: bool) -> dict[str, Any]:
        entries = self._entries()
        mine, others = self._mine(entries)
        ignored = fieldsets.of_paths(self.reset)
        wanted = managed.without_unowned(
            fieldsets.without(set_of(self.schema, self.applied), ignored)
        )
        merged = merge(self.schema, self.live, self.applied)
        if mine is not None:
            owned = wanted
            for entry in others:
                owned = fieldsets.union(owned, entry.fields)
            merged = pruned(self.schema, merged, last=mine.fields, owned=owned)
        before = managed.owned_part(self.live)
        comparison = compare(self.schema, before, managed.owned_part(merged)).without(ignored)
        others = self._settle(others, comparison.changed, force)
        others = [managed.taken_from(e, {}, comparison.removed) for e in others]
        return self._finish(merged, [*others, self._entry(mine, wanted, merged)])

    def _entries(self) -> list[Entry]:
        """What managers own; fields from before anybody applied get an owner of their own."""
        entries = managed.decode((self.live.get("metadata") or {}).get("managedFields"))
        if entries or not self.live:
            return entries
        there = compare(self.schema, {}, managed.owned_part(self.live)).added
        fields = fieldsets.without(there, fieldsets.of_paths(self.reset))
        before = Entry(
            manager=_BEFORE,
            operation=UPDATE,
            api_version=self.api_version,
            subresource=self.subresource,
            time=rfc3339(self.now),
            fields=managed.without_unowned(fields),
        )
        return [before]

    def _mine(self, entries: list[Entry]) -> tuple[Entry | None, list[Entry]]:
        identity = (APPLY, self.manager, "", self.subresource)
        mine = next((entry for entry in entries if entry.identity == identity), None)
        return mine, [entry for entry in entries if entry.identity != identity]

    def _settle(self, others: list[Entry], changed: Set, force: bool) -> list[Entry]:
        """Take the changed fields from their owners, where that is allowed."""
        conflicts = [
            _Conflict(entry, fields)
            for entry in others
            if (fields := fieldsets.intersection(entry.fields, changed))
        ]
        if conflicts and not force:
            allowed = self._allowed() if self.manager == "kubectl" else {}
            left = [
                _Conflict(conflict.entry, fields)
                for conflict in conflicts
                if (fields := fieldsets.difference(conflict.fields, allowed))
            ]
            if left:
                raise _refusal(left)
        return [managed.taken_from(entry, changed, {}) for entry in others]

    def _allowed(self) -> Set:
        """What ``kubectl apply`` set from the client's side and nobody changed since."""
        annotations = (self.live.get("metadata") or {}).get("annotations") or {}
        try:
            last = orjson.loads(annotations.get(LAST_APPLIED) or "")
        except orjson.JSONDecodeError:
            return {}
        if not isinstance(last, dict) or last.get("apiVersion") != self.api_version:
            return {}
        try:
            fields = set_of(self.schema, last)
            found = compare(self.schema, last, self.live)
        except NotTyped:
            return {}
        for changes in (found.modified, found.added, found.removed):
            fields = fieldsets.difference(fields, changes)
        return fields

    def _entry(self, mine: Entry | None, wanted: Set, merged: Object) -> Entry:
        entry = Entry(
            manager=self.manager,
            operation=APPLY,
            api_version=self.api_version,
            subresource=self.subresource,
            time=rfc3339(self.now),
            fields=wanted,
        )
        if mine is None or not mine.time or not self._is_unchanged(merged):
            return entry
        same = mine.fields == wanted and mine.api_version == self.api_version
        return replace(entry, time=mine.time) if same else entry

    def _is_unchanged(self, merged: Object) -> bool:
        return managed.owned_part(self.live) == managed.owned_part(merged)

    def _finish(self, merged: dict[str, Any], entries: list[Entry]) -> dict[str, Any]:
        metadata = dict(merged.get("metadata") or {})
        merged["metadata"] = metadata
        annotations = metadata.get("annotations") or {}
        if self.manager == "kubectl" and annotations.get(LAST_APPLIED):
            metadata["annotations"] = _with_last_applied(annotations, self.applied)
        managed.store(metadata, entries)
        return merged


def _with_last_applied(annotations: Mapping[str, str], applied: Object) -> dict[str, str]:
    """The annotation follows, so that client-side apply can take over again."""
    configuration = clone(dict(applied))
    inner = (configuration.get("metadata") or {}).get("annotations")
    if inner:
        inner.pop(LAST_APPLIED, None)
    text = orjson.dumps(configuration, option=orjson.OPT_SORT_KEYS).decode() + "\n"
    result = {**annotations, LAST_APPLIED: text}
    if sum(len(key) + len(value) for key, value in result.items()) > _MOST_ANNOTATIONS:
        del result[LAST_APPLIED]
    return result


def _refusal(conflicts: list[_Conflict]) -> StatusError:
    named = [
        (_show_manager(conflict.entry), fieldsets.show(path))
        for conflict in sorted(conflicts, key=lambda c: c.entry.identity)
        for path in fieldsets.paths(conflict.fields)
    ]
    if len(named) == 1:
        text = f"Apply failed with 1 conflict: conflict with {named[0][0]}: {named[0][1]}"
    else:
        lines = []
        for manager in dict.fromkeys(manager for manager, _ in named):
            lines.append(f"conflicts with {manager}:")
            lines += [f"- {path}" for owner, path in named if owner == manager]
        text = f"Apply failed with {len(named)} conflicts: " + "\n".join(lines)
    causes = [
        {
            "reason": "FieldManagerConflict",
            "message": f"conflict with {manager}",
            "field": path,
        }
        for manager, path in named
    ]
    return StatusError(409, "Conflict", text, details={"causes": causes})


def _show_manager(entry: Entry) -> str:
    text = f'"{entry.manager}"'
    if entry.subresource:
        text += f' with subresource "{entry.subresource}"'
    return f"{text} using {entry.api_version}" if entry.operation == UPDATE else text
