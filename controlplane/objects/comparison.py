"""
Two objects compared as field ownership sees them: what was added, modified, removed.

Only what differs is walked; the rest costs one comparison at C speed. The
schema decides what is owned as a whole (atomic lists, maps and structs,
scalars) and what field by field. Where nothing is known (schemaless parts of
custom resources), maps are granular and lists are atomic.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.objects import fieldsets
from controlplane.objects.fieldsets import Node
from controlplane.objects.schema import Schema, Type

DEDUCED = Schema(type=Type.ANY, preserve_unknown=True)

Object = Mapping[str, Any]


class NotTyped(Exception):
    """A value that does not fit its schema: path and complaint."""

    def __init__(self, path: Iterable[str], complaint: str) -> None:
        self.path = tuple(path)
        super().__init__(f"{fieldsets.show(self.path)}: {complaint}")


@dataclass(slots=True)
class Comparison:
    """Three sets, of paths in either object."""

    added: Node = field(default_factory=dict)
    modified: Node = field(default_factory=dict)
    removed: Node = field(default_factory=dict)

    def without(self, ignored: fieldsets.Set) -> "Comparison":
        if not ignored:
            return self
        return Comparison(
            fieldsets.without(self.added, ignored),
            fieldsets.without(self.modified, ignored),
            fieldsets.without(self.removed, ignored),
        )

    @property
    def changed(self) -> fieldsets.Set:
        return fieldsets.union(self.modified, self.added)

    def _compare(self, schema: Schema, old: Any, new: Any, path: tuple[str, ...]) -> None:
        """``old`` and ``new`` are known to differ."""
        both_maps = _is_map_or_null(old) and _is_map_or_null(new)
        if both_maps and (old or new) and is_granular_map(schema, old or new):
            self.compare_maps(schema, old or {}, new or {}, path)
        elif is_granular_list(schema) and (old or new):
            self._compare_lists(schema, old or [], new or [], path)
        else:
            fieldsets.graft(self.modified, path, {})
            if is_granular_map(schema, new) and isinstance(new, dict):
                # Of a schemaless value that was no map before.
                fieldsets.graft(self.added, path, _all(schema, new, path, full=False))

    def compare_maps(self, schema: Schema, old: Object, new: Object, path: tuple[str, ...]) -> None:
        for key, value in new.items():
            if key in old:
                if (before := old[key]) != value:
                    below, _ = child(schema, key)
                    self._compare(below or DEDUCED, before, value, (*path, f"f:{key}"))
            else:
                below, _ = child(schema, key)
                where = (*path, f"f:{key}")
                fieldsets.graft(self.added, where, _all(below or DEDUCED, value, where, full=False))
        for key, value in old.items():
            if key not in new:
                below, _ = child(schema, key)
                where = (*path, f"f:{key}")
                fieldsets.graft(
                    self.removed, where, _all(below or DEDUCED, value, where, full=True)
                )

    def _compare_lists(
        self, schema: Schema, old: list[Any], new: list[Any], path: tuple[str, ...]
    ) -> None:
        before, after = _by_element(schema, old, path), _by_element(schema, new, path)
        for name, items in after.items():
            was, where = before.get(name), (*path, name)
            if was == items:
                continue
            if was is None:
                node = {} if len(items) > 1 else _item(schema.items, items[0], where, full=False)
                fieldsets.graft(self.added, where, node)
            elif len(was) > 1 or len(items) > 1:
                # An element that is there twice is owned as a whole.
                fieldsets.graft(self.modified, where, {})
            else:
                self._compare(schema.items, was[0], items[0], where)
        for name, items in before.items():
            if name not in after:
                where = (*path, name)
                fieldsets.graft(
                    self.removed, where, _item(schema.items, items[0], where, full=True)
                )


def compare(schema: Schema, old: Object, new: Object) -> Comparison:
    """Raises :class:`NotTyped` where an item of a keyed list has no key."""
    result = Comparison()
    result.compare_maps(_root(schema), old, new, ())
    return result


def _root(schema: Schema) -> Schema:
    return DEDUCED if schema.type is Type.ANY else schema


def is_granular_map(schema: Schema, value: Any) -> bool:
    """Whether the fields of this value are owned one by one."""
    match schema.type:
        case Type.OBJECT | Type.MAP:
            return not schema.atomic
        case Type.ANY:
            return schema.preserve_unknown and isinstance(value, dict)
        case _:
            return False


def is_granular_list(schema: Schema) -> bool:
    return schema.type is Type.LIST and schema.list_type in ("map", "set")


def child(schema: Schema, key: str) -> tuple[Schema | None, bool]:
    """The schema of a field (None: there is none), and whether it has a name in its parent's."""
    match schema.type:
        case Type.OBJECT:
            found = schema.fields.get(key)
            if found is not None:
                return found.schema, True
            return (DEDUCED, False) if schema.preserve_unknown else (None, False)
        case Type.MAP:
            return schema.items, False
        case _:
            return DEDUCED, False


def element(schema: Schema, item: Any, path: tuple[str, ...]) -> str:
    """The path element of an item of a granular list."""
    if schema.list_type == "set":
        if isinstance(item, dict | list):
            raise NotTyped(path, "only scalars can be items of a set")
        return fieldsets.value_element(item)
    if not isinstance(item, dict):
        raise NotTyped(path, "associative list with keys may not have non-map elements")
    keys = []
    fields = schema.items.fields
    for key in sorted(schema.map_keys):
        value = item.get(key)
        if value is None and (known := fields.get(key)) is not None and known.has_default:
            value = known.default
        if isinstance(value, dict | list):
            raise NotTyped(path, f"associative list with keys has a {key} that is no scalar")
        if value is not None:
            keys.append((key, value))
    if not keys:
        raise NotTyped(path, "associative list with keys has an element that omits all key fields")
    return fieldsets.key_element(tuple(keys))


def _is_map_or_null(value: Any) -> bool:
    return value is None or isinstance(value, dict)


def _by_element(schema: Schema, items: list[Any], path: tuple[str, ...]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for item in items:
        found.setdefault(element(schema, item, path), []).append(item)
    return found


def _item(schema: Schema, item: Any, path: tuple[str, ...], *, full: bool) -> Node:
    return fieldsets.as_member(_all(schema, item, path, full=full))


def _all(schema: Schema, value: Any, path: tuple[str, ...], *, full: bool) -> Node:
    """
    Everything at and below a path.

    A struct of the Go types is always there, so adding to it does not add the
    struct itself; ``full`` names it all the same, to take it from its owners.
    """
    if isinstance(value, dict) and value and is_granular_map(schema, value):
        node: Node = {}
        if full or schema.type is not Type.OBJECT or not schema.name:
            node[fieldsets.SELF] = {}
        for key, below in value.items():
            found, _ = child(schema, key)
            step = f"f:{key}"
            if isinstance(below, dict | list):
                node[step] = _all(found or DEDUCED, below, (*path, step), full=full)
            else:
                node[step] = {}
        return node
    if isinstance(value, list) and value and is_granular_list(schema):
        node = {fieldsets.SELF: {}}
        for item in value:
            step = element(schema, item, path)
            node[step] = _item(schema.items, item, (*path, step), full=full)
        return node
    return {}
