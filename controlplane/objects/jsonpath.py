"""
JSONPath, as printer columns of custom resources and kubectl use it.

Fields, quoted keys, indexes, slices, wildcards, recursive descent and filters
with one comparison. A path is compiled once and cached. Functions, unions and
script expressions are refused. Source: the API's "JSONPath Support".
"""

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

_STEP = re.compile(
    r"""
      \.\.(?P<deep>[\w\-]+|\*)
    | \.(?P<field>(?:\\.|[^.\[\]\\{}])+)
    | \[(?P<star>\*)\]
    | \[(?P<slice>-?\d*:-?\d*(?::\d*)?)\]
    | \[(?P<index>-?\d+)\]
    | \[(?P<quoted>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\]
    | \[\?\((?P<filter>(?:"[^"]*"|'[^']*'|[^)"'])*)\)\]
    """,
    re.VERBOSE,
)
_FILTER = re.compile(
    r"""\s*@(?P<path>[^=!<>\s]*)\s*(?:(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>.+?))?\s*"""
)
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda a, b: bool(a == b),
    "!=": lambda a, b: bool(a != b),
    "<": lambda a, b: bool(a < b),
    ">": lambda a, b: bool(a > b),
    "<=": lambda a, b: bool(a <= b),
    ">=": lambda a, b: bool(a >= b),
}

Step = Callable[[Any], Iterable[Any]]
Path = Callable[[Any], list[Any]]


class JSONPathError(ValueError):
    """The text is no path that we know."""


@lru_cache(maxsize=1024)
def compile_path(text: str) -> Path:
    """
    A function from a value to the list of what the path finds in it.

    ``text`` with or without braces: ``.status.conditions[?(@.type=="Ready")].status``.
    """
    steps = tuple(_steps(text.strip().removeprefix("{").removesuffix("}").removeprefix("$")))

    def find(value: Any) -> list[Any]:
        found = [value]
        for step in steps:
            found = [result for item in found for result in step(item)]
        return found

    return find


def _steps(text: str) -> Iterator[Step]:
    if text and text[0] not in ".[":
        text = "." + text
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if not found:
            if text[at:] == ".":
                return
            raise JSONPathError(f"unrecognized JSONPath at {text[at:]!r}")
        kind, value = str(found.lastgroup), found[str(found.lastgroup)]
        yield _MAKERS[kind](value)
        at = found.end()


def _field(name: str) -> Step:
    if name == "*":
        return _children
    name = re.sub(r"\\(.)", r"\1", name)

    def step(value: Any) -> Iterable[Any]:
        if isinstance(value, dict) and name in value:
            yield value[name]

    return step


def _quoted(text: str) -> Step:
    return _field(text[1:-1]) if text[1:-1] != "*" else _field(r"\*")


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _deep(name: str) -> Step:
    inner = _field(name)

    def step(value: Any) -> Iterable[Any]:
        yield from inner(value)
        for below in _children(value):
            yield from step(below)

    return step


def _index(text: str) -> Step:
    index = int(text)

    def step(value: Any) -> Iterable[Any]:
        if isinstance(value, list) and -len(value) <= index < len(value):
            yield value[index]

    return step


def _slice(text: str) -> Step:
    span = slice(*(int(part) if part else None for part in text.split(":")))
    if span.step == 0:
        raise JSONPathError("a slice needs a positive step")
    return lambda value: value[span] if isinstance(value, list) else ()


def _filter(text: str) -> Step:
    found = _FILTER.fullmatch(text)
    if not found:
        raise JSONPathError(f"unrecognized filter {text!r}")
    path = compile_path(found["path"] or ".")
    operator, literal = found["operator"], found["value"]
    if operator is None:
        return lambda value: (item for item in _children(value) if path(item))
    compare, wanted = _COMPARE[operator], _literal(literal)

    def step(value: Any) -> Iterable[Any]:
        for item in _children(value):
            results = path(item)
            if results and _holds(compare, results[0], wanted):
                yield item

    return step


def _holds(compare: Callable[[Any, Any], bool], a: Any, b: Any) -> bool:
    try:
        return compare(a, b)
    except TypeError:  # values of two types have no order
        return False


def _literal(text: str) -> Any:
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if "." in text else int(text)
    except ValueError:
        raise JSONPathError(f"unrecognized value {text!r} in a filter") from None


_MAKERS: dict[str, Callable[[str], Step]] = {
    "deep": _deep,
    "field": _field,
    "star": lambda _text: _children,
    "slice": _slice,
    "index": _index,
    "quoted": _quoted,
    "filter": _filter,
}
