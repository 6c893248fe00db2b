"""
Strategic merge patch: a merge patch that knows which lists are sets and which are keyed.

The schema says for each list whether it merges and by which key. Directives
inside the patch say the rest: ``$patch`` (replace, delete), ``$retainKeys``,
``$deleteFromPrimitiveList/<field>``, ``$setElementOrder/<field>``. Custom
resources have no such facts and are refused by the caller (415).
Source: the API's "Strategic Merge Patch" and its preserve-order proposal.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.meta import clone
from controlplane.objects.schema import Schema, Type

_DIRECTIVE = "$patch"
_RETAIN = "$retainKeys"
_DELETE_FROM = "$deleteFromPrimitiveList"
_ORDER = "$setElementOrder"

_BAD_PRIMITIVE_LIST = "invalid patch format of primitive list"
_BAD_RETAIN_KEYS = "invalid patch format of retainKeys"
_BAD_ORDER = "invalid patch format of setElementOrder list"


def strategic_patch(obj: Mapping[str, Any], patch: object, schema: Schema) -> dict[str, Any]:
    """A new object; 400 for a malformed patch, 422 for a list within a list."""
    if not isinstance(patch, dict):
        raise bad_request("invalid JSON document")
    return _merge_map(clone(obj), clone(patch), schema)


def _merge_map(
    original: dict[str, Any], patch: dict[str, Any], schema: Schema | None
) -> dict[str, Any]:
    """Both arguments are ours to change."""
    if _DIRECTIVE in patch:
        return _directed(patch)
    _retain(original, patch)
    _merge_ordered(original, patch, schema)
    for key, value in patch.items():
        if key.startswith(_DELETE_FROM):
            _delete_from(original, _field_of(key, _DELETE_FROM), value)
        else:
            _merge_field(original, key, value, _child(schema, key))
    return original


def _merge_field(original: dict[str, Any], key: str, value: Any, schema: Schema | None) -> None:
    if value is None:
        original.pop(key, None)
        return
    old = original.get(key)
    if isinstance(old, dict) and isinstance(value, dict):
        original[key] = value if _replaces(schema) else _merge_map(old, value, schema)
    elif isinstance(old, list) and isinstance(value, list):
        original[key] = _merge_list(old, value, schema)
    else:
        value, keep = _without_directives(value)
        if keep:
            original[key] = value
        else:
            original.pop(key, None)


def _directed(patch: dict[str, Any]) -> dict[str, Any]:
    match patch.pop(_DIRECTIVE):
        case "replace":
            return patch
        case "delete":
            return {}
        case other:
            raise bad_request(f"unknown patch type: {other} in map: {_go(patch)}")


def _retain(original: dict[str, Any], patch: dict[str, Any]) -> None:
    """Fields that the patch does not list are cleared: how a union changes its member."""
    if _RETAIN not in patch:
        return
    listed = patch.pop(_RETAIN)
    if not isinstance(listed, list):
        raise bad_request(_BAD_RETAIN_KEYS)
    for key, value in patch.items():
        special = key.startswith((_DELETE_FROM, _ORDER))
        if value is not None and not special and key not in listed:
            raise bad_request(_BAD_RETAIN_KEYS)
    for key in [key for key in original if key not in listed]:
        del original[key]


def _merge_ordered(original: dict[str, Any], patch: dict[str, Any], schema: Schema | None) -> None:
    """Merge the lists that an order was given for, and take both out of the patch."""
    for directive in [key for key in patch if key.startswith(_ORDER)]:
        key, order = _field_of(directive, _ORDER), patch.pop(directive)
        if not isinstance(order, list):
            raise bad_request(_BAD_ORDER)
        old, new = original.get(key), patch.pop(key, None)
        if any(given is not None and not isinstance(given, list) for given in (old, new)):
            raise bad_request(_BAD_ORDER)
        child = _child(schema, key)
        merge_key = child.merge_key if child else ""
        _check_order(new or [], order, merge_key)
        if old is None and new is None:
            continue
        if new is None:
            merged = old
        elif old is None:
            merged, _ = _without_directives(new)
        else:
            merged = _merge_list(clone(old), new, child)
        original[key] = _arrange(merged or [], order, old or [], merge_key)


def _check_order(items: Sequence[Any], order: Sequence[Any], merge_key: str) -> None:
    """The items of the patch must appear in the order given, deletions aside."""
    if not items or not order:
        return
    wanted = iter(_key(item, merge_key) for item in order)
    for item in items:
        if isinstance(item, dict) and _DIRECTIVE in item:
            continue
        key = _key(item, merge_key)
        if not any(key == candidate for candidate in wanted):
            raise bad_request(
                f"The order in patch list:\n{_go(list(items))}\n doesn't match {_ORDER} list:\n"
                f"{_go(list(order))}\n"
            )


def _merge_list(old: list[Any], new: list[Any], schema: Schema | None) -> list[Any]:
    if schema is None or "merge" not in schema.patch_strategy:
        return new
    if not old and not new:
        return old
    if any(isinstance(item, list) for item in (*old, *new)):
        raise _unprocessable("lists of lists are not supported")
    if len({isinstance(item, dict) for item in (*old, *new)}) > 1:
        raise bad_request(f"list element types are not identical: {_go([old, new])}")
    if not isinstance((old or new)[0], dict):
        return _arrange(_unique((*old, *new)), new, old, "")
    if not schema.merge_key:
        raise bad_request(f"cannot merge lists without merge key for {schema.name}")
    old, new = _without_special(old, new, schema.merge_key)
    merged = _merge_items(list(old), new, schema)
    return _arrange(merged, new, old, schema.merge_key)


def _without_special(old: list[Any], new: list[Any], merge_key: str) -> tuple[list[Any], list[Any]]:
    """Carry out ``$patch: delete`` and ``$patch: replace`` items, and leave them out."""
    plain: list[Any] = []
    replace = False
    for item in new:
        match item.get(_DIRECTIVE):
            case None:
                plain.append(item)
            case "delete":
                key = _key(item, merge_key)
                old = [o for o in old if o.get(merge_key) != key]
            case "replace":
                replace = True
            case "merge":
                raise bad_request("merging lists cannot yet be specified in the patch")
            case other:
                raise bad_request(f"unknown patch type: {other} in map: {_go(item)}")
    return (plain, []) if replace else (old, plain)


def _merge_items(merged: list[Any], new: list[Any], schema: Schema) -> list[Any]:
    where: dict[Any, int] = {}
    for index, item in enumerate(merged):
        where.setdefault(_hashable(item.get(schema.merge_key)), index)
    for item in new:
        key = _hashable(_key(item, schema.merge_key))
        if key in where:
            merged[where[key]] = _merge_map(merged[where[key]], item, schema.items)
        else:
            where[key] = len(merged)
            merged.append(_without_nulls(item))
    return merged


def _arrange(
    merged: list[Any], order: Sequence[Any], server: Sequence[Any], merge_key: str
) -> list[Any]:
    """
    Patched items in the patch's order, the others in the server's, woven together.

    A server item comes first only where the server had both and had it first.
    """
    ranks = _ranks(order, merge_key)
    server_ranks = _ranks(server, merge_key)
    patched = [item for item in merged if _rank(item, ranks, merge_key) is not None]
    others = [item for item in merged if _rank(item, ranks, merge_key) is None]
    patched.sort(key=lambda item: _rank(item, ranks, merge_key) or 0)
    result: list[Any] = []
    while others and patched:
        left = _rank(others[0], server_ranks, merge_key)
        right = _rank(patched[0], server_ranks, merge_key)
        first = left is not None and right is not None and left < right
        result.append((others if first else patched).pop(0))
    return result + others + patched


def _ranks(items: Iterable[Any], merge_key: str) -> dict[Any, int]:
    ranks: dict[Any, int] = {}
    for index, item in enumerate(items):
        ranks.setdefault(_hashable(_key(item, merge_key)), index)
    return ranks


def _rank(item: Any, ranks: Mapping[Any, int], merge_key: str) -> int | None:
    return ranks.get(_hashable(_key(item, merge_key)))


def _delete_from(original: dict[str, Any], key: str, doomed: object) -> None:
    if doomed is None:
        return
    if not isinstance(doomed, list):
        raise bad_request(_BAD_PRIMITIVE_LIST)
    old = original.get(key)
    if isinstance(old, list):
        original[key] = [item for item in old if item not in doomed]


def _field_of(key: str, prefix: str) -> str:
    found, slash, field = key.partition("/")
    if not slash or found != prefix:
        raise bad_request(_BAD_PRIMITIVE_LIST if prefix == _DELETE_FROM else _BAD_ORDER)
    return field


def _child(schema: Schema | None, key: str) -> Schema | None:
    """None for what the schema does not know: it merges as a plain merge patch does."""
    if schema is None:
        return None
    if schema.type is Type.MAP:
        return schema.items
    field = schema.fields.get(key)
    return field.schema if field else None


def _replaces(schema: Schema | None) -> bool:
    return schema is not None and "replace" in schema.patch_strategy


def _key(item: Any, merge_key: str) -> Any:
    if not merge_key:
        return item
    if not isinstance(item, dict):
        raise bad_request("expected a map[string]interface {}, but received another type")
    if merge_key not in item:
        raise bad_request(f"map: {_go(item)} does not contain declared merge key: {merge_key}")
    return item[merge_key]


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else (type(value), value)


def _unique(items: Iterable[Any]) -> list[Any]:
    return list({_hashable(item): item for item in items}.values())


def _without_directives(value: Any) -> tuple[Any, bool]:
    """The value as it is stored, nulls dropped; False where the patch only meant to delete it."""
    if isinstance(value, dict):
        if _DIRECTIVE in value:
            return None, False
        result = {}
        for key, inner in value.items():
            if inner is None or key == _RETAIN or key.startswith((_ORDER, _DELETE_FROM)):
                continue
            inner, keep = _without_directives(inner)
            if keep:
                result[key] = inner
        return result, True
    if isinstance(value, list):
        pairs = [_without_directives(item) for item in value]
        return [item for item, keep in pairs if keep], True
    return value, True


def _without_nulls(item: dict[str, Any]) -> Any:
    value, _ = _without_directives(item)
    return value


def _unprocessable(text: str) -> StatusError:
    return StatusError(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
        details={"causes": [{"reason": "UnexpectedServerResponse", "message": text}]},
    )


def _go(value: object) -> str:
    """A value as Go prints it, since the API's messages do."""
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{_go(value[key])}' for key in sorted(value))}]"
    if isinstance(value, list):
        return f"[{' '.join(map(_go, value))}]"
    if isinstance(value, bool):
        return str(value).lower()
    return "<nil>" if value is None else str(value)
