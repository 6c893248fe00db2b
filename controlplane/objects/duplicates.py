"""
Fields that a body has twice: parsers keep one silently, field validation must tell.

Texts as upstream: of JSON the path of the field, of YAML the line of the key.
"""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any


def duplicate_fields(raw: bytes) -> list[str]:
    """``duplicate field "spec.replicas"``; empty also where the body does not parse."""
    if raw.lstrip()[:1] in (b"{", b"["):
        return _of_json(raw)
    return _of_yaml(raw)


def _of_json(raw: bytes) -> list[str]:
    # By identity, with the object itself, which keeps its identity from being used again.
    doubles: dict[int, tuple[dict[str, Any], list[str]]] = {}

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(found)
        if len(value) != len(found):
            counts = Counter(key for key, _ in found)
            doubles[id(value)] = (value, [key for key, count in counts.items() if count > 1])
        return value

    try:
        tree = json.loads(raw, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return []
    if not doubles:
        return []
    twice = {at: keys for at, (_, keys) in doubles.items()}
    return [f'duplicate field "{path}"' for path in _paths(tree, "", twice)]


def _paths(value: Any, path: str, doubles: dict[int, list[str]]) -> Iterator[str]:
    if isinstance(value, dict):
        for key in doubles.get(id(value), ()):
            yield f"{path}.{key}" if path else key
        for key, item in value.items():
            yield from _paths(item, f"{path}.{key}" if path else key, doubles)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _paths(item, f"{path}[{index}]", doubles)


def _of_yaml(raw: bytes) -> list[str]:
    import yaml  # nearly a megabyte, and most bodies are JSON

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        node = yaml.compose(raw, loader)
    except (yaml.YAMLError, RecursionError):
        return []
    lines = [
        f"  line {line}: key {json.dumps(key)} already set in map"
        for line, key in _keys(node, set())
    ]
    return ["yaml: unmarshal errors:\n" + "\n".join(lines)] if lines else []


def _keys(node: Any, walked: set[int]) -> Iterator[tuple[int, str]]:
    """``walked``: the nodes that were visited, because an alias is the same node again."""
    if node is None or node.id == "scalar" or id(node) in walked:
        return
    walked.add(id(node))
    if node.id == "sequence":
        for item in node.value:
            yield from _keys(item, walked)
        return
    seen: set[str] = set()
    for key, value in node.value:
        if key.id == "scalar":
            if key.value in seen:
                yield key.start_mark.line + 1, key.value
            seen.add(key.value)
        yield from _keys(value, walked)
