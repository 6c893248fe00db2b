"""
The functions of expressions: the standard ones, and Kubernetes's libraries.

Three tables by name: functions, methods (their first argument is what stands before
the dot) and those of a namespace, such as ``sets.contains``.
Source: "Common Expression Language in Kubernetes", its table of libraries.
"""

import base64
import functools
import itertools
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.objects.cel import authorizer, kinds, strings, times
from controlplane.objects.cel.arithmetic import add
from controlplane.objects.cel.values import (
    NONE,
    CelError,
    Duration,
    Optional,
    Timestamp,
    TypeValue,
    Uint,
    compare,
    contains,
    equal,
    from_double,
    is_number,
    no_overload,
    overflow,
    parse_duration,
    parse_timestamp,
    type_name,
)
from controlplane.objects.values import pattern

Function = Callable[..., Any]


def _size(value: Any) -> int:
    if isinstance(value, str | bytes | list | tuple | Mapping):
        return len(value)
    raise no_overload()


def _int(value: Any) -> int:
    match value:
        case bool():
            raise no_overload()
        case Timestamp():
            return value.nanos // 10**9
        case int():
            return overflow(int(value))
        case float():
            return from_double(value, "int")
        case str() if re.fullmatch(r"[+-]?\d{1,20}", value):
            return overflow(int(value))
        case str():
            raise CelError(f'strconv.ParseInt: parsing "{value}": invalid syntax')
        case _:
            raise no_overload()


def _uint(value: Any) -> Uint:
    match value:
        case bool():
            raise no_overload()
        case int():
            return Uint(overflow(int(value), "uint"))
        case float():
            return Uint(from_double(value, "uint"))
        case str() if re.fullmatch(r"\d{1,20}", value):
            return Uint(overflow(int(value), "uint"))
        case str():
            raise CelError(f'strconv.ParseUint: parsing "{value}": invalid syntax')
        case _:
            raise no_overload()


def _double(value: Any) -> float:
    if is_number(value):
        return float(value)
    if isinstance(value, str):
        try:
            return float(value.replace("_", "!"))
        except ValueError:
            text = f'strconv.ParseFloat: parsing "{value}": invalid syntax'
            raise CelError(text) from None
    raise no_overload()


def _string(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case float():
            return strings.of_double(value)
        case str() | int() | Timestamp() | Duration():
            return str(value)
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError as err:
                raise CelError("invalid UTF-8 in bytes, cannot convert to string") from err
        case _ if hasattr(value, "cel_type"):
            return str(value)
        case _:
            raise no_overload()


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise no_overload()


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "TRUE", "True", "t", "1", "T"):
        return True
    if value in ("false", "FALSE", "False", "f", "0", "F"):
        return False
    if isinstance(value, str):
        raise CelError(f'strconv.ParseBool: parsing "{value}": invalid syntax')
    raise no_overload()


def _duration(value: Any) -> Duration:
    if isinstance(value, Duration):
        return value
    if isinstance(value, str):
        return parse_duration(value)
    raise no_overload()


def _timestamp(value: Any) -> Timestamp:
    match value:
        case Timestamp():
            return value
        case str():
            return parse_timestamp(value)
        case bool():
            raise no_overload()
        case int():
            return Timestamp(value * 10**9)
        case _:
            raise no_overload()


def _dyn(value: Any) -> Any:
    return value


def _type(value: Any) -> TypeValue:
    return TypeValue(type_name(value))


def _matches(text: Any, expression: Any) -> bool:
    if not (isinstance(text, str) and isinstance(expression, str)):
        raise no_overload()
    return _compiled(expression).search(text) is not None


def _compiled(expression: str) -> "re.Pattern[str]":
    try:
        return pattern(expression)
    except re.error as err:
        raise CelError(f"error parsing regexp: {err}") from err


def _find(text: str, expression: str) -> str:
    found = _compiled(expression).search(text)
    return found.group() if found else ""


def _find_all(text: str, expression: str, limit: int = -1) -> list[str]:
    found = [match.group() for match in _compiled(expression).finditer(text)]
    return found if limit < 0 else found[:limit]


# Lists


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise no_overload()
    return list(value)


def _is_sorted(value: Any) -> bool:
    items = _items(value)
    return all(compare(a, b) <= 0 for a, b in itertools.pairwise(items))


def _sum(value: Any) -> Any:
    items = _items(value)
    if not items:
        return 0
    total = items[0]
    for item in items[1:]:
        total = add(total, item)
    return total


def _extreme(value: Any, sign: int) -> Any:
    items = _items(value)
    if not items:
        raise CelError(f"{'max' if sign > 0 else 'min'} called on empty list")
    best = items[0]
    for item in items[1:]:
        if compare(item, best) * sign > 0:
            best = item
    return best


def _min(value: Any) -> Any:
    return _extreme(value, -1)


def _max(value: Any) -> Any:
    return _extreme(value, 1)


def _index_of(value: Any, wanted: Any, start: int = 0) -> int:
    if isinstance(value, str):
        return strings.index_of(value, wanted, start)
    return next((at for at, item in enumerate(_items(value)) if equal(item, wanted)), -1)


def _last_index_of(value: Any, wanted: Any, *start: int) -> int:
    if isinstance(value, str):
        return strings.last_index_of(value, wanted, *start)
    return next((at for at, i in reversed(list(enumerate(_items(value)))) if equal(i, wanted)), -1)


def _slice(value: Any, start: int, end: int) -> list[Any]:
    items = _items(value)
    if not 0 <= start <= end <= len(items):
        raise CelError(f"cannot slice({start}, {end}), list is length {len(items)}")
    return items[start:end]


def _flatten(value: Any, depth: int = 1) -> list[Any]:
    found: list[Any] = []
    for item in _items(value):
        flat = isinstance(item, list | tuple) and depth > 0
        found += _flatten(item, depth - 1) if flat else [item]
    return found


def _reverse(value: Any) -> Any:
    return _items(value)[::-1]


def _distinct(value: Any) -> list[Any]:
    found: list[Any] = []
    for item in _items(value):
        if not contains(found, item):
            found.append(item)
    return found


def _sort(value: Any) -> list[Any]:
    return sorted(_items(value), key=functools.cmp_to_key(compare))


def _range(count: int) -> list[int]:
    if not 0 <= count <= 100_000:
        raise CelError("lists.range: the number is too large")
    return list(range(count))


def _contains_all(value: Any, others: Any) -> bool:
    return all(contains(_items(value), item) for item in _items(others))


def _equivalent(value: Any, others: Any) -> bool:
    return _contains_all(value, others) and _contains_all(others, value)


def _intersects(value: Any, others: Any) -> bool:
    return any(contains(_items(value), item) for item in _items(others))


def _contains(value: Any, part: Any) -> bool:
    if isinstance(value, str) and isinstance(part, str):
        return part in value
    if hasattr(value, "contains"):
        return bool(value.contains(part))
    raise no_overload()


# Numbers


def _greatest(*values: Any) -> Any:
    return _max(values[0] if len(values) == 1 and isinstance(values[0], list) else list(values))


def _least(*values: Any) -> Any:
    return _min(values[0] if len(values) == 1 and isinstance(values[0], list) else list(values))


def _real(value: Any) -> float:
    if not isinstance(value, float):
        raise no_overload()
    return value


def _ceil(value: Any) -> float:
    return float(math.ceil(_real(value)))


def _floor(value: Any) -> float:
    return float(math.floor(_real(value)))


def _round(value: Any) -> float:
    number = _real(value)
    return math.copysign(math.floor(abs(number) + 0.5), number)


def _trunc(value: Any) -> float:
    return float(math.trunc(_real(value)))


def _abs(value: Any) -> Any:
    if not is_number(value):
        raise no_overload()
    return abs(value) if isinstance(value, float) else overflow(abs(value))


def _sign(value: Any) -> Any:
    return type(value)((value > 0) - (value < 0))


def _is_nan(value: Any) -> bool:
    return math.isnan(_real(value))


def _is_inf(value: Any) -> bool:
    return math.isinf(_real(value))


# Optional values


def _optional_of(value: Any) -> Optional:
    return Optional(value, True)


def _optional_of_non_zero(value: Any) -> Optional:
    zero = value in (None, False, 0, 0.0, "", b"") or value in ([], {})
    return NONE if zero else Optional(value, True)


def _optional_none() -> Optional:
    return NONE


def _has_value(value: Any) -> bool:
    return _as_optional(value).present


def _value(value: Any) -> Any:
    if not _as_optional(value).present:
        raise CelError("optional.none() dereference")
    return value.value


def _or_value(value: Any, other: Any) -> Any:
    return value.value if _as_optional(value).present else other


def _or(value: Any, other: Any) -> Any:
    return value if _as_optional(value).present else other


def _as_optional(value: Any) -> Optional:
    if not isinstance(value, Optional):
        raise no_overload()
    return value


# Encodings


def _encode(value: bytes) -> str:
    return base64.b64encode(_bytes(value)).decode()


def _decode(value: str) -> bytes:
    try:
        return base64.b64decode(value + "=" * (-len(value) % 4), validate=True)
    except ValueError as err:
        raise CelError(f"illegal base64 data: {err}") from err


def _escape_key(value: str) -> str:
    return value.replace("~", "~0").replace("/", "~1")


FUNCTIONS: dict[str, Function] = {
    "size": _size,
    "int": _int,
    "uint": _uint,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
    "bool": _bool,
    "duration": _duration,
    "timestamp": _timestamp,
    "dyn": _dyn,
    "type": _type,
    "matches": _matches,
    **kinds.FUNCTIONS,
}

METHODS: dict[str, Function] = {
    "size": _size,
    "matches": _matches,
    "find": _find,
    "findAll": _find_all,
    "contains": _contains,
    "isSorted": _is_sorted,
    "sum": _sum,
    "min": _min,
    "max": _max,
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    "slice": _slice,
    "flatten": _flatten,
    "reverse": _reverse,
    "distinct": _distinct,
    "sort": _sort,
    "hasValue": _has_value,
    "value": _value,
    "orValue": _or_value,
    "or": _or,
    **strings.METHODS,
    **times.METHODS,
    **authorizer.METHODS,
    **kinds.METHODS,
}

NAMESPACED: dict[str, Function] = {
    "sets.contains": _contains_all,
    "sets.equivalent": _equivalent,
    "sets.intersects": _intersects,
    "lists.range": _range,
    "math.greatest": _greatest,
    "math.least": _least,
    "math.ceil": _ceil,
    "math.floor": _floor,
    "math.round": _round,
    "math.trunc": _trunc,
    "math.abs": _abs,
    "math.sign": _sign,
    "math.isNaN": _is_nan,
    "math.isInf": _is_inf,
    "optional.of": _optional_of,
    "optional.ofNonZeroValue": _optional_of_non_zero,
    "optional.none": _optional_none,
    "base64.encode": _encode,
    "base64.decode": _decode,
    "jsonpatch.escapeKey": _escape_key,
    "strings.quote": strings.quote,
    **kinds.NAMESPACED,
}
