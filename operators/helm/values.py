"""
Helm's ways of giving values: files over files, then ``--set`` and ``--set-string``.

Pure. Source: the documentation of Helm, "The Format and Limitations of --set".
"""

import re
from collections.abc import Mapping
from typing import Any

_LITERALS = {"true": True, "false": False, "null": None}
_LARGEST_INDEX = 65536


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

    ``path``: ``a.b[0].c``; a backslash takes the meaning from the next character.
    Raises ValueError where the path is none.
    """
    steps = _steps(path)
    place: Any = values
    for step, following in zip(steps, [*steps[1:], None], strict=True):
        if following is None:
            _store(place, step, _value(text, as_string))
            return
        place = _descend(place, step, [] if isinstance(following, int) else {})


def _steps(path: str) -> list[str | int]:
    steps: list[str | int] = []
    for part in re.findall(r"(?:[^.\\]|\\.)+", path):
        found = re.fullmatch(r"((?:[^\[\\]|\\.)*)((?:\[\d+\])*)", part)
        if not found:
            raise ValueError(f"{path!r} is not a path of values")
        if found[1]:
            steps.append(re.sub(r"\\(.)", r"\1", found[1]))
        steps += [int(index) for index in re.findall(r"\d+", found[2])]
    if not steps or any(isinstance(s, int) and s > _LARGEST_INDEX for s in steps):
        raise ValueError(f"{path!r} is not a path of values")
    return steps


def _descend(place: Any, step: str | int, empty: Any) -> Any:
    if isinstance(step, int):
        while len(place) <= step:
            place.append(None)
        if not isinstance(place[step], type(empty)):
            place[step] = empty
    elif not isinstance(place.get(step), type(empty)):
        place[step] = empty
    return place[step]


def _store(place: Any, step: str | int, value: Any) -> None:
    if isinstance(step, int):
        while len(place) <= step:
            place.append(None)
    place[step] = value


def _value(text: str, as_string: bool) -> Any:
    if text.startswith("{") and text.endswith("}"):
        parts = re.findall(r"(?:[^,\\]|\\.)+", text[1:-1])
        return [_scalar(re.sub(r"\\(.)", r"\1", part), as_string) for part in parts]
    return _scalar(re.sub(r"\\(.)", r"\1", text), as_string)


def _scalar(text: str, as_string: bool) -> Any:
    if as_string:
        return text
    if text.lower() in _LITERALS:
        return _LITERALS[text.lower()]
    # A zero in front makes it a string, as in a telephone number.
    return int(text) if re.fullmatch(r"0|[1-9]\d*|[+-]\d+", text) else text
