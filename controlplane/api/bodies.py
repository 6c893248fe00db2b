"""
JSON and YAML that anybody may send: read without being eaten by it.

A few kilobytes of YAML can stand for gigabytes of objects (aliases of aliases), and
libyaml's composer recurses on the C stack, where too deep a body ends the whole
process. Both are looked for first, at little cost where there is nothing to find.
What is nested deeper than it could be written again is refused here, once for all.
"""

import re
from typing import Any

import orjson

from controlplane.objects.errors import bad_request

MOST_NODES = 1 << 20  # with every alias written out
MOST_TEXT = 16 << 20  # bytes, likewise
_DEEPEST = 250  # orjson writes a few levels more
# What opens a level without a line of its own; other levels need ever longer lines.
_OPENING = re.compile(rb"[\[{]|[-?:][ \t]+[-?\[{]")


def read_json(raw: bytes) -> Any:
    """400 for what cannot be read or is too deep."""
    try:
        return _loaded(raw)
    except orjson.JSONDecodeError as error:
        raise bad_request(f"couldn't get version/kind; json parse error: {error}") from None
    except (TypeError, RecursionError):
        raise bad_request(
            "couldn't get version/kind; json parse error: exceeded max depth"
        ) from None


def _loaded(raw: bytes) -> Any:
    value = orjson.loads(raw)
    if raw.count(b"[") + raw.count(b"{") > _DEEPEST:
        orjson.dumps(value)  # a TypeError where it is too deep
    return value


def read_yaml(raw: bytes) -> Any:
    """YAML, of which JSON is a part. 400 for what cannot be read, is too deep or too large."""
    if raw.lstrip()[:1] == b"{":
        try:
            return _loaded(raw)
        except orjson.JSONDecodeError:
            pass  # flow style YAML, perhaps
        except (TypeError, RecursionError):
            raise bad_request("error decoding YAML: exceeded max depth") from None
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        if len(_OPENING.findall(raw)) > _DEEPEST:
            _check_depth(yaml.parse(raw, loader))
        value = yaml.load(raw, loader)
        if b"*" in raw and b"&" in raw:
            _Expanded().add(value)
        return orjson.loads(orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS))
    except (yaml.YAMLError, TypeError, ValueError, RecursionError) as error:
        raise bad_request(f"error decoding YAML: {error}") from None


def _check_depth(events: Any) -> None:
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise ValueError("exceeded max depth")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Expanded:
    """
    How large a value is once every alias is written out; found in time of the value's own size.

    Its mutable state: the sizes of the collections by their ids, None while inside one.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, int] | None] = {}

    def add(self, value: Any) -> tuple[int, int]:
        """Nodes and bytes. ValueError where they are too many, or contain themselves."""
        if not isinstance(value, dict | list):
            return 1, len(value) if isinstance(value, str) else 0
        known = self._known.get(id(value), (0, 0))
        if known is None:
            raise ValueError("anchor contains itself")
        if known[0]:
            return known
        self._known[id(value)] = None
        nodes, text = 1, 0
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        for item in inner:
            more, longer = self.add(item)
            nodes, text = nodes + more, text + longer
        if nodes > MOST_NODES or text > MOST_TEXT:
            raise ValueError("document contains excessive aliasing")
        self._known[id(value)] = nodes, text
        return nodes, text
