"""
Label selectors: parsed once, matched often.

A selector comes as text (``app=web,tier in (a,b),!old``), or as a LabelSelector
object (``matchLabels``, ``matchExpressions``). Compiled selectors are immutable
and cached, since controllers ask with the same few all the time. What selects
by fields is in :mod:`controlplane.objects.field_selectors`, what selects nodes
in :mod:`controlplane.objects.node_selectors`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from controlplane.objects.errors import bad_request
from controlplane.objects.validation import names

_OPERATORS = ("=", "==", "!=", "in", "notin", "<", ">")
_TOKEN = re.compile(r"[ \t\r\n]*(==|!=|[=!(),><]|[^ \t\r\n=!(),><]+)")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_END = ""


@dataclass(frozen=True, slots=True)
class Requirement:
    """``operator``: in, notin, exists, !, gt, lt; equality is ``in`` with one value."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case operator:
                return self._compares(value, operator)

    def _compares(self, value: str | None, operator: str) -> bool:
        if value is None or not is_int64(value):
            return False
        (bound,) = self.values
        return int(value) > int(bound) if operator == "gt" else int(value) < int(bound)


@dataclass(frozen=True, slots=True)
class Selector:
    """All of the requirements; none at all matches everything."""

    equal: tuple[tuple[str, str], ...] = ()  # the common case, apart so that it is fast
    others: tuple[Requirement, ...] = ()
    nothing: bool = False

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        if self.nothing:
            return False
        labels = labels or {}
        for key, value in self.equal:
            if labels.get(key) != value:
                return False
        return all(requirement.matches(labels) for requirement in self.others)

    @property
    def empty(self) -> bool:
        """Whether it matches everything."""
        return not (self.nothing or self.equal or self.others)


NOTHING = Selector(nothing=True)
EVERYTHING = Selector()


def is_int64(text: str) -> bool:
    return bool(_INTEGER.fullmatch(text)) and -(2**63) <= int(text) < 2**63


@lru_cache(maxsize=2048)
def parse(text: str) -> Selector:
    """The selector of a URL; 400 with the API's text for what cannot be understood."""
    try:
        return _build(_Parser(text).requirements())
    except _Refused as refused:
        raise bad_request(str(refused)) from None


def of_object(selector: Mapping[str, Any] | None) -> Selector:
    """
    Compile a LabelSelector: none selects nothing, an empty one everything.

    An operator that does not exist raises 400; the rest was validated on its way in.
    """
    if selector is None:
        return NOTHING
    labels = selector.get("matchLabels") or {}
    expressions = selector.get("matchExpressions") or ()
    return _of_parts(
        tuple(sorted(labels.items())),
        tuple(
            (e.get("key", ""), e.get("operator", ""), tuple(e.get("values") or ()))
            for e in expressions
        ),
    )


def of_labels(labels: Mapping[str, str] | None) -> Selector:
    """Compile a plain map (``Service.spec.selector``): none and empty select everything."""
    return _of_parts(tuple(sorted((labels or {}).items())), ())


_Expression = tuple[str, str, tuple[str, ...]]
_OBJECT_OPERATORS = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@lru_cache(maxsize=2048)
def _of_parts(
    labels: tuple[tuple[str, str], ...], expressions: tuple[_Expression, ...]
) -> Selector:
    requirements = [Requirement(key, "in", frozenset((value,))) for key, value in labels]
    for key, operator, values in expressions:
        if operator not in _OBJECT_OPERATORS:
            raise bad_request(f'"{operator}" is not a valid label selector operator')
        requirements.append(Requirement(key, _OBJECT_OPERATORS[operator], frozenset(values)))
    return _build(requirements)


def _build(requirements: list[Requirement]) -> Selector:
    equal: list[tuple[str, str]] = []
    others: list[Requirement] = []
    for requirement in requirements:
        if requirement.operator == "in" and len(requirement.values) == 1:
            (value,) = requirement.values
            equal.append((requirement.key, value))
        else:
            others.append(requirement)
    return Selector(tuple(sorted(equal)), tuple(others))


def to_text(selector: Mapping[str, Any] | None) -> str:
    """A LabelSelector as ``kubectl get -l`` takes it; ``<none>`` and ``<error>`` as kubectl."""
    if selector is None:
        return "<none>"
    parts: list[tuple[str, str]] = [
        (key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()
    ]
    for expression in selector.get("matchExpressions") or ():
        key, values = expression["key"], ",".join(sorted(expression.get("values") or ()))
        match expression.get("operator"):
            case "In":
                parts.append((key, f"{key} in ({values})"))
            case "NotIn":
                parts.append((key, f"{key} notin ({values})"))
            case "Exists":
                parts.append((key, key))
            case "DoesNotExist":
                parts.append((key, f"!{key}"))
            case _:
                return "<error>"
    return ",".join(text for _, text in sorted(parts, key=lambda part: part[0])) or "<none>"


class _Refused(Exception):
    """The text is no selector; the message is the API's."""


class _Parser:
    """
    Reads ``<requirement>,<requirement>…``; ``in`` and ``notin`` are also good names.

    Its mutable state is the position in the list of tokens.
    """

    def __init__(self, text: str) -> None:
        self._tokens = [*_tokens(text), _END]
        self._at = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        while self._peek() != _END:
            if not _is_name(self._peek()) and self._peek() != "!":
                raise _Refused(
                    f"found '{self._peek()}', expected: !, identifier, or 'end of string'"
                )
            try:
                found.append(self._requirement())
            except _Refused as refused:
                raise _Refused(f"unable to parse requirement: {refused}") from None
            self._separator()
        return found

    def _separator(self) -> None:
        if self._peek() == _END:
            return
        sign = self._next()
        if sign != ",":
            raise _Refused(f"found '{sign}', expected: ',' or 'end of string'")
        elif not _is_name(self._peek()) and self._peek() != "!":
            raise _Refused(f"found '{self._peek()}', expected: identifier after ','")

    def _requirement(self) -> Requirement:
        negated = self._peek() == "!"
        if negated:
            self._next()
        key = self._next()
        if not _is_name(key):
            raise _Refused(f"found '{key}', expected: identifier")
        _check("<nil>", key, names.qualified_name(key))
        if negated:
            return Requirement(key, "!")
        if self._peek() in (_END, ","):
            return Requirement(key, "exists")
        return self._binary(key, self._next())

    def _binary(self, key: str, operator: str) -> Requirement:
        if operator not in _OPERATORS:
            raise _Refused(f"found '{operator}', expected: {_EXPECTED}")
        values = self._values() if operator in ("in", "notin") else frozenset((self._value(),))
        for index, value in enumerate(sorted(values)):
            if operator in "<>" and not is_int64(value):
                raise _Refused(
                    f'values[{index}]: Invalid value: "{value}": '
                    "for 'Gt', 'Lt' operators, the value must be an integer"
                )
            _check(f"values[{index}][{key}]", value, names.label_value(value))
        return Requirement(key, _COMPILED[operator], values)

    def _value(self) -> str:
        if self._peek() in (_END, ","):
            return ""
        sign = self._next()
        if not _is_name(sign):
            raise _Refused(f"found '{sign}', expected: identifier")
        return sign

    def _values(self) -> frozenset[str]:
        sign = self._next()
        if sign != "(":
            raise _Refused(f"found '{sign}' expected: '('")
        values: set[str] = set()
        while True:
            values.add(self._next() if _is_name(self._peek()) else "")
            sign = self._next()
            if sign == ")":
                return frozenset(values)
            if sign != ",":
                raise _Refused(f"found '{sign}', expected: ',' or ')'")

    def _peek(self) -> str:
        return self._tokens[self._at]

    def _next(self) -> str:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token


_EXPECTED = "in, notin, =, ==, !=, gt, lt"
_COMPILED = {
    "=": "in",
    "==": "in",
    "in": "in",
    "!=": "notin",
    "notin": "notin",
    ">": "gt",
    "<": "lt",
}


def _tokens(text: str) -> Iterator[str]:
    return (found[1] for found in _TOKEN.finditer(text))


def _is_name(token: str) -> bool:
    return token != _END and token[0] not in "=!(),><"


def _check(path: str, value: str, complaints: list[str]) -> None:
    if complaints:
        raise _Refused(f'{path}: Invalid value: "{value}": {"; ".join(complaints)}')
