"""
The walks of server-side apply over an object and its schema: what is set, merge, prune.

See :mod:`controlplane.objects.apply` for the rules that use them and
:mod:`controlplane.objects.comparison` for what counts as one field.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.objects import fieldsets
from controlplane.objects.comparison import (
    DEDUCED,
    NotTyped,
    child,
    element,
    is_granular_list,
    is_granular_map,
)
from controlplane.objects.fieldsets import Node, Set
from controlplane.objects.meta import clone
from controlplane.objects.schema import Schema, Type

Object = Mapping[str, Any]
Steps = tuple[str, ...]


def set_of(schema: Schema, obj: Object, *, strict: bool = True) -> Set:
    """
    The fields that an object sets, as the applier of it would own them.

    Raises :class:`NotTyped` for what does not fit; unknown fields and doubled items
    only where it is ``strict``, since stored objects may have them.
    """
    return _set_of(schema, obj, (), strict) or {}


def _set_of(schema: Schema, value: Any, path: Steps, strict: bool) -> Node | None:
    """None where the path owns nothing by itself: a struct, an empty list."""
    if is_granular_map(schema, value):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise NotTyped(path, f"expected map, got {_kind(value)}")
        return _set_of_map(schema, value, path, strict)
    if schema.type is Type.LIST:
        if value is not None and not isinstance(value, list):
            raise NotTyped(path, f"expected list, got {_kind(value)}")
        if is_granular_list(schema):
            return _set_of_list(schema, value or [], path, strict)
    return {}


def _set_of_map(schema: Schema, value: Object, path: Steps, strict: bool) -> Node | None:
    node: Node = {}
    for key, inner in value.items():
        found, named = child(schema, key)
        step = f"f:{key}"
        if found is None:
            if strict:
                raise NotTyped((*path, step), "field not declared in schema")
            found = DEDUCED
        below = _set_of(found, inner, (*path, step), strict)
        if inner is None or inner == {} or not named:
            node[step] = fieldsets.as_member(below)
        elif below is not None:
            node[step] = below
    return node or None


def _set_of_list(schema: Schema, items: list[Any], path: Steps, strict: bool) -> Node | None:
    node: Node = {}
    for item in items:
        step = element(schema, item, path)
        if step in node:
            if strict:
                raise NotTyped(path, f"duplicate entries for key {fieldsets.show((step,))}")
            node[step] = {}
        else:
            node[step] = fieldsets.as_member(_set_of(schema.items, item, (*path, step), strict))
    return node or None


def merge(schema: Schema, live: Object, applied: Object) -> dict[str, Any]:
    """
    A new object: what is applied wins, what is not mentioned stays; null removes a leaf.

    Where a schema says nothing of what may be there, null is a value as any other.
    """
    return _merge_maps(schema, live, applied, ())


def _merge(schema: Schema, old: Any, new: Any, path: Steps) -> Any:
    if isinstance(old, dict) and isinstance(new, dict) and is_granular_map(schema, new):
        return _merge_maps(schema, old, new, path) if old or new else {}
    if isinstance(old, list) and isinstance(new, list) and is_granular_list(schema):
        return _merge_lists(schema, old, new, path)
    return _without_nulls(schema, new)


def _without_nulls(schema: Schema, value: Any) -> Any:
    if not isinstance(value, dict):
        return clone(value)
    result = {}
    for key, below in value.items():
        found = child(schema, key)[0] or DEDUCED
        if below is not None or _is_free(found):
            result[key] = _without_nulls(found, below)
    return result


def _is_free(schema: Schema) -> bool:
    return schema.type is Type.ANY and schema.preserve_unknown


def _merge_maps(schema: Schema, old: Object, new: Object, path: Steps) -> dict[str, Any]:
    result = dict(old)
    for key, value in new.items():
        found, _ = child(schema, key)
        found = found or DEDUCED
        if value is None:
            _merge_null(found, result, key)
        elif key in result:
            result[key] = _merge(found, result[key], value, (*path, f"f:{key}"))
        else:
            result[key] = _without_nulls(found, value)
    return result


def _merge_null(schema: Schema, result: dict[str, Any], key: str) -> None:
    """What is owned piece by piece has nothing to lose: null is no more than empty there."""
    old = result.get(key)
    pieces = (isinstance(old, dict) and is_granular_map(schema, old)) or (
        isinstance(old, list) and is_granular_list(schema)
    )
    if not pieces:
        result.pop(key, None)
        if schema.nullable or _is_free(schema):
            result[key] = None


def _merge_lists(schema: Schema, old: list[Any], new: list[Any], path: Steps) -> list[Any]:
    """
    The applied order, with the items that are only live kept between their neighbours.

    An item that is live twice is replaced by the applied one, not merged with it.
    """
    before = [element(schema, item, path) for item in old]
    after = [element(schema, item, path) for item in new]
    wanted = dict(zip(after, new, strict=True))
    if len(wanted) < len(new):
        twice = next(step for step in after if after.count(step) > 1)
        raise NotTyped(path, f"duplicate entries for key {fieldsets.show((twice,))}")
    known = {step: item for step, item in zip(before, old, strict=True) if before.count(step) == 1}
    result = []
    for step, index in _woven(before, after):
        if step in wanted:
            item = wanted[step]
            where = (*path, step)
            merged = _merge(schema.items, known[step], item, where) if step in known else None
            result.append(_without_nulls(schema.items, item) if merged is None else merged)
        else:
            result.append(old[index])
    return result


def _woven(before: list[str], after: list[str]) -> list[tuple[str, int]]:
    """The merged order: pairs of an element and, for what is only live, its index there."""
    wanted, live, done = set(after), set(before), set()
    shared = [step for step in after if step in live]
    order: list[tuple[str, int]] = []
    left = right = at = 0
    while left < len(before) or right < len(after):
        if left < len(before):
            step = before[left]
            if step not in wanted:
                order.append((step, left))
                left += 1
                continue
            if step in done or (at < len(shared) and step != shared[at]):
                left += 1  # taken at its place in the applied order
                continue
        if right < len(after):
            step = after[right]
            order.append((step, -1))
            done.add(step)
            right += 1
            if at < len(shared) and step == shared[at]:
                at += 1
    return order


def pruned(schema: Schema, merged: dict[str, Any], *, last: Set, owned: Set) -> dict[str, Any]:
    """
    The object without what its applier owned (``last``) and nobody owns now (``owned``).

    Removing an item takes everything in it, so what others own in there, and what
    nobody ever owned, is put back.
    """
    if not fieldsets.difference(last, owned):
        return merged
    last = _with_structs(schema, last)
    owned = _with_structs(schema, owned)
    everything = _with_structs(schema, set_of(schema, merged, strict=False))
    first = _remove_fields(schema, merged, last)
    kept = _with_structs(schema, set_of(schema, first, strict=False))
    doomed = fieldsets.difference(everything, fieldsets.union(kept, owned))
    second = _remove_fields(schema, merged, doomed)
    kept = _with_structs(schema, set_of(schema, second, strict=False))
    doomed = fieldsets.intersection(fieldsets.difference(everything, kept), last)
    return _remove_fields(schema, merged, doomed)


def _remove_fields(schema: Schema, obj: dict[str, Any], doomed: Set) -> dict[str, Any]:
    return _remove(schema, obj, doomed) or {}


def _remove(schema: Schema, value: Any, doomed: Set) -> Any:
    """None where nothing is left."""
    if isinstance(value, dict) and is_granular_map(schema, value):
        result = dict(value)
        for key in value:
            node = doomed.get(f"f:{key}")
            if node is None:
                continue
            found, _ = child(schema, key)
            left = None
            if not fieldsets.is_member(node):
                left = _remove(found or DEDUCED, value[key], node)
            if left is None:
                del result[key]
            else:
                result[key] = left
        return result or None
    if isinstance(value, list) and is_granular_list(schema):
        items = [_remove_item(schema, item, doomed) for item in value]
        return [item for item in items if item is not None] or None
    return None


def _remove_item(schema: Schema, item: Any, doomed: Set) -> Any:
    node = doomed.get(element(schema, item, ()))
    if node is None:
        return item
    return None if fieldsets.is_member(node) else _remove(schema.items, item, node)


def _with_structs(schema: Schema, fields: Set) -> Node:
    """Also name the structs on the way, which nobody owns by name."""
    result: Node = {}
    for step, node in fields.items():
        if step == fieldsets.SELF or not node:
            result[step] = node
            continue
        found, named = _below(schema, step)
        below = _with_structs(found, node)
        result[step] = fieldsets.as_member(below) if named else below
    return result


def _below(schema: Schema, step: str) -> tuple[Schema, bool]:
    if step.startswith("f:"):
        found, named = child(schema, step[2:])
        return found or DEDUCED, named
    return (schema.items if schema.type is Type.LIST else DEDUCED), False


def _kind(value: object) -> str:
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
    return names.get(type(value), "map" if isinstance(value, dict) else "null")
