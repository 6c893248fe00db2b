"""
Helm's ways of giving values: files over files, then ``--set`` and ``--set-string``.

Pure. Source: the documentation of Helm, "The Format and Limitations of --set", and how
the program takes what that leaves open; tests/unit/operators compares with it.
"""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

_Kind = TypeVar("_Kind", dict[str, Any], list[Any])
_LITERALS = {"true": True, "false": False, "null": None}
_LARGEST_INDEX = 65536
_DEEPEST = 30


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Maps are merged, everything else is replaced; null stays, to delete a default later."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        if isinstance(under, Mapping) and isinstance(value, Mapping):
            merged[key] = merge(under, value)
        else:
            merged[key] = value
    return merged


def put(values: dict[str, Any], path: str, text: str, *, as_string: bool = False) -> None:
    """
    ``--set path=text``: changes ``values``.

    ``path``: ``a.b[0].c``; a backslash takes the meaning from the next character, in
    ``text`` too, where a comma begins another path and braces hold a list.
    Raises ValueError where this cannot be read, or leads through what is no map or list.
    """
    reader = _Reader(f"{path}={text}", as_string=as_string)
    while reader.left():
        _put(values, reader, depth=0)


class _Reader:
    def __init__(self, text: str, *, as_string: bool) -> None:
        self._text = text
        self._at = 0
        self._as_string = as_string

    def left(self) -> bool:
        return self._at < len(self._text)

    def until(self, stops: str) -> tuple[str, str]:
        """What comes before the first of the stops, and that one; "": the end came first."""
        found = ""
        while self.left():
            character = self._text[self._at]
            self._at += 1
            if character in stops:
                return found, character
            if character == "\\":
                character = self._text[self._at : self._at + 1]
                self._at += 1
            found += character
        return found, ""

    def passes(self, character: str) -> bool:
        """Whether this comes next; then it is passed."""
        here = self._text[self._at : self._at + 1] == character
        self._at += here
        return here

    def value(self) -> Any:
        if not self.passes("{"):
            return self._scalar(self.until(",")[0])
        items = []
        while True:
            text, stop = self.until(",}")
            if not stop:
                raise ValueError("list must terminate with '}'")
            items.append(self._scalar(text))
            if stop == "}":
                self.passes(",")
                return items

    def _scalar(self, text: str) -> Any:
        if self._as_string:
            return text
        if text.lower() in _LITERALS:
            return _LITERALS[text.lower()]
        # A zero in front makes it a string, as in a telephone number.
        return int(text) if re.fullmatch(r"0|[1-9]\d*|[+-]\d+", text, re.ASCII) else text


def _put(place: dict[str, Any], reader: _Reader, *, depth: int) -> None:
    name, stop = reader.until("=[,.")
    match stop:
        case "=":
            _set(place, name, reader.value())
        case ".":
            if depth == _DEEPEST:
                raise ValueError(f"value name nested level is greater than {_DEEPEST}")
            inner = _within(place.get(name, {}), dict, name)
            if not reader.left():
                return
            _put(inner, reader, depth=depth + 1)
            if not inner:
                raise ValueError(f"key map {name!r} has no value")
            _set(place, name, inner)
        case "[":
            items = _within(place.get(name, []), list, name)
            _set(place, name, items)
            _put_item(items, reader, depth=depth)
        case _ if name or stop:
            raise ValueError(f"key {name!r} has no value")
        case _:
            return


def _set(place: dict[str, Any], name: str, value: Any) -> None:
    if name:  # Helm reads what comes behind an empty name and lets it go
        place[name] = value


def _put_item(items: list[Any], reader: _Reader, *, depth: int) -> None:
    index = _index(reader)
    seen = items[index] if index < len(items) else None
    rest, stop = reader.until("[.=")
    if rest:
        raise ValueError(f"unexpected data at end of array index: {rest!r}")
    value: Any
    match stop:
        case "":
            return
        case "=":
            value = reader.value()
        case ".":
            value = seen if isinstance(seen, dict) else {}
            _put(value, reader, depth=depth)
        case _:
            value = _within([] if seen is None else seen, list, f"[{index}]")
            _put_item(value, reader, depth=depth)
    items.extend([None] * (index + 1 - len(items)))
    items[index] = value


def _index(reader: _Reader) -> int:
    text, stop = reader.until("]")
    if not stop or not re.fullmatch(r"[+-]?\d+", text, re.ASCII):
        raise ValueError(f"error parsing index: {text!r}")
    if not 0 <= int(text) <= _LARGEST_INDEX:
        raise ValueError(f"index of {text} is not between 0 and {_LARGEST_INDEX}")
    return int(text)


def _within(found: Any, kind: type[_Kind], name: str) -> _Kind:
    """What the path leads through; nothing that is there is thrown away for it."""
    if not isinstance(found, kind):
        raise ValueError(f"{name}: {kind.__name__} is needed, {type(found).__name__} is there")
    return found
