"""
Sets of field paths, in the form in which ``managedFields`` stores them.

A set is the ``fieldsV1`` tree itself: a key is a path element (``f:<field>``,
``k:<keys of a list item>``, ``v:<value of a list item>``, ``i:<index>``), an
empty node is a member, a node with ``.`` is a member that has members below. So
reading one costs nothing, and what a write does not touch is shared, not copied.
An empty root is the empty set; the root itself is never a member.
Source: KEP-555, structured-merge-diff's serialisation.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

Set = Mapping[str, Any]
Node = dict[str, Any]
Path = tuple[str, ...]

SELF = "."


def is_member(node: Set) -> bool:
    """Of a node that is in a set."""
    return not node or SELF in node


def is_set(value: Any) -> bool:
    """Whether a value is a set in this form, as far as anybody looks into it."""
    return isinstance(value, dict) and all(
        _is_element(step) and is_set(node) for step, node in value.items()
    )


def _is_element(step: str) -> bool:
    kind, rest = step[:2], step[2:]
    if kind == "f:" or step == SELF:
        return True
    if kind == "i:":
        return rest.isdecimal()
    try:
        value = orjson.loads(rest)
    except orjson.JSONDecodeError:
        return False
    return isinstance(value, dict) if kind == "k:" else kind == "v:"


def as_member(node: Set | None) -> Node:
    if not node:
        return {}
    return dict(node) if SELF in node else {SELF: {}, **node}


def graft(root: Node, path: Iterable[str], node: Node) -> None:
    """Put a node into a tree under construction, whose nodes are all our own."""
    *parents, last = path
    for step in parents:
        below = root.get(step)
        if below is None:
            below = root[step] = {}
        elif not below:
            below[SELF] = {}
        root = below
    root[last] = _union(root[last], node) if last in root else node


def union(a: Set, b: Set) -> Set:
    if not a:
        return b
    return _merged(a, b) if b else a


def _merged(a: Set, b: Set) -> Node:
    result = dict(a)
    for step, node in b.items():
        result[step] = _union(result[step], node) if step in result else node
    return result


def _union(a: Set, b: Set) -> Node:
    if not a:
        return as_member(b)
    return _merged(a, b) if b else as_member(a)


def difference(a: Set, b: Set) -> Node:
    """The paths of ``a`` that are not in ``b``; what is below a path of ``b`` stays."""
    return _difference(a, b, whole=False)


def without(a: Set, b: Set) -> Node:
    """The paths of ``a`` that are neither in ``b`` nor below a path of ``b``."""
    return _difference(a, b, whole=True)


def _difference(a: Set, b: Set, whole: bool) -> Node:
    result: Node = {}
    for step, node in a.items():
        other = b.get(step)
        if other is None:
            result[step] = node
        elif step != SELF and (left := _subtract(node, other, whole)) is not None:
            result[step] = left
    return result


def _subtract(a: Set, b: Set, whole: bool) -> Node | None:
    taken = is_member(b)
    if taken and whole:
        return None
    keep = is_member(a) and not taken
    below = _difference(a, b, whole)
    below.pop(SELF, None)
    if below:
        return {SELF: {}, **below} if keep else below
    return {} if keep else None


def intersection(a: Set, b: Set) -> Node:
    result: Node = {}
    for step, node in a.items():
        if step == SELF or step not in b:
            continue
        other = b[step]
        both = is_member(node) and is_member(other)
        below = intersection(node, other)
        if below:
            result[step] = {SELF: {}, **below} if both else below
        elif both:
            result[step] = {}
    return result


def paths(tree: Set) -> Iterator[Path]:
    """The members, each as its path elements; a parent comes before what is below it."""
    for step, node in tree.items():
        if step == SELF:
            continue
        if is_member(node):
            yield (step,)
        for below in paths(node):
            yield (step, *below)


@lru_cache(maxsize=256)
def of_paths(fields: frozenset[Path]) -> Set:
    """The set of paths that are field names only: ``{("metadata", "name"), ("status",)}``."""
    root: Node = {}
    for path in sorted(fields):
        graft(root, [f"f:{name}" for name in path], {})
    return root


def show(path: Iterable[str]) -> str:
    """As error messages name a path: ``.spec.containers[name="web"].image``."""
    return "".join(map(_shown, path))


def _shown(element: str) -> str:
    kind, rest = element[:2], element[2:]
    match kind:
        case "f:":
            return f".{rest}"
        case "k:":
            keys = orjson.loads(rest)
            return "[" + ",".join(f"{k}={_json(v)}" for k, v in sorted(keys.items())) + "]"
        case "v:":
            return f"[={rest}]"
        case _:
            return f"[{rest}]"


@lru_cache(maxsize=4096)
def key_element(keys: tuple[tuple[str, Any], ...]) -> str:
    """Of the item of a keyed list; ``keys`` sorted by name."""
    return "k:" + _json(dict(keys))


def value_element(value: Any) -> str:
    """Of the item of a list that is a set."""
    return "v:" + _json(value)


def _json(value: Any) -> str:
    """As Go writes it, which also escapes what HTML would read."""
    text = orjson.dumps(value).decode()
    if any(sign in text for sign in "<>&"):
        for sign in "<>&":
            text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
