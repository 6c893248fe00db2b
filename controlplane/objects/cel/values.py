"""
The values of expressions, and how they compare.

JSON's values stand for themselves. An int is 64 bits with a sign, :class:`Uint` one
without; a bool is never a number. What cannot be done raises :class:`CelError`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

INT_LIMIT, UINT_LIMIT = 1 << 63, 1 << 64
_NANO = 10**9
_UNITS = {"h": 3600 * _NANO, "m": 60 * _NANO, "s": _NANO, "ms": 10**6, "us": 1000, "µs": 1000}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|μs|ns)")
_TIMESTAMP = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)"
)


class CelError(Exception):
    """The expression has no value; the text is the specification's where it has one."""


class Uint(int):
    """An unsigned integer."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    nanos: int

    def __str__(self) -> str:
        whole, rest = divmod(abs(self.nanos), _NANO)
        sign = "-" if self.nanos < 0 else ""
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        return f"{sign}{whole}{fraction}s"


@dataclass(frozen=True, slots=True, order=True)
class Timestamp:
    nanos: int  # since 1970

    def moment(self) -> datetime:
        """Without what is finer than a microsecond."""
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.nanos // 1000)

    def __str__(self) -> str:
        rest = self.nanos % _NANO
        fraction = f".{rest:09}".rstrip("0") if rest else ""
        moment = self.moment()
        return f"{moment.year:04}{moment:-%m-%dT%H:%M:%S}{fraction}Z"


@dataclass(frozen=True, slots=True)
class TypeValue:
    name: str


@dataclass(frozen=True, slots=True)
class Optional:
    """A value that may be missing."""

    value: Any = None
    present: bool = False


NONE = Optional()


def overflow(value: int, what: str = "int") -> int:
    """The value itself; raises where 64 bits do not hold it."""
    fits = 0 <= value < UINT_LIMIT if what == "uint" else -INT_LIMIT <= value < INT_LIMIT
    if not fits:
        raise CelError(f"{'unsigned ' if what == 'uint' else ''}integer overflow")
    return value


_TYPE_NAMES: dict[type, str] = {
    type(None): "null_type",
    bool: "bool",
    Uint: "uint",
    int: "int",
    float: "double",
    str: "string",
    bytes: "bytes",
    dict: "map",
    list: "list",
    tuple: "list",
    Duration: "google.protobuf.Duration",
    Timestamp: "google.protobuf.Timestamp",
    TypeValue: "type",
    Optional: "optional_type",
}


def type_name(value: Any) -> str:
    found = _TYPE_NAMES.get(type(value))
    return found or str(getattr(value, "cel_type", type(value).__name__))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def equal(a: Any, b: Any) -> bool:
    """Numbers across their types; of other types, only values of one type can be equal."""
    if is_number(a) and is_number(b):
        return bool(a == b)
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return len(a) == len(b) and all(k in b and equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return type_name(a) == type_name(b) and bool(a == b)


def compare(a: Any, b: Any) -> int:
    """-1, 0 or 1; raises for what has no order."""
    ordered = (is_number(a) and is_number(b)) or (
        type(a) is type(b) and isinstance(a, str | bytes | bool | Duration | Timestamp)
    )
    if not ordered and not (type(a) is type(b) and hasattr(a, "cel_order")):
        raise no_overload()
    if hasattr(a, "cel_order"):
        a, b = a.cel_order(), b.cel_order()
    return -1 if a < b else int(a > b)


def no_overload() -> CelError:
    return CelError("no such overload")


def contains(items: Sequence[Any], value: Any) -> bool:
    return any(equal(item, value) for item in items)


def parse_duration(text: str) -> Duration:
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return Duration(0)
    parts = _PART.findall(rest)
    if not parts or "".join(number + unit for number, unit in parts) != rest:
        raise CelError(f'invalid duration "{text}"')
    nanos = 0
    for number, unit in parts:
        whole, _, fraction = number.partition(".")
        factor = _UNITS.get(unit.replace("μ", "µ"), 1)
        nanos += int(whole or "0") * factor
        if fraction:
            nanos += int(fraction) * factor // 10 ** len(fraction)
    return Duration(overflow(sign * nanos))


def parse_timestamp(text: str) -> Timestamp:
    found = _TIMESTAMP.fullmatch(text)
    if found is None:
        raise CelError(f'invalid timestamp "{text}"')
    date, time, fraction, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{date}T{time}{'+00:00' if zone in 'Zz' else zone}")
    except ValueError as err:
        raise CelError(f'invalid timestamp "{text}"') from err
    whole = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return Timestamp(whole * _NANO + int((fraction or "").ljust(9, "0")))


def from_double(value: float, what: str) -> int:
    if math.isnan(value) or math.isinf(value):
        raise CelError("integer overflow")
    return overflow(int(value), what)
