"""Operators between numbers, strings, lists, times: each by the types of its operands."""

import math
from typing import Any

from controlplane.objects.cel.values import (
    CelError,
    Duration,
    Timestamp,
    Uint,
    is_number,
    no_overload,
    overflow,
)


def add(a: Any, b: Any) -> Any:
    match a, b:
        case (str(), str()) | (bytes(), bytes()):
            return a + b
        case (list(), list()):
            return [*a, *b]
        case (Timestamp(), Duration()):
            return Timestamp(a.nanos + b.nanos)
        case (Duration(), Timestamp()):
            return Timestamp(a.nanos + b.nanos)
        case (Duration(), Duration()):
            return Duration(overflow(a.nanos + b.nanos))
        case _:
            return _numbers(a, b, lambda x, y: x + y)


def subtract(a: Any, b: Any) -> Any:
    match a, b:
        case (Timestamp(), Timestamp()):
            return Duration(overflow(a.nanos - b.nanos))
        case (Timestamp(), Duration()):
            return Timestamp(a.nanos - b.nanos)
        case (Duration(), Duration()):
            return Duration(overflow(a.nanos - b.nanos))
        case _:
            return _numbers(a, b, lambda x, y: x - y)


def multiply(a: Any, b: Any) -> Any:
    return _numbers(a, b, lambda x, y: x * y)


def divide(a: Any, b: Any) -> Any:
    if isinstance(a, float) and isinstance(b, float):
        if b == 0:
            return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, a * (b or 1.0))
        return a / b
    return _numbers(a, b, _quotient)


def remainder(a: Any, b: Any) -> Any:
    if isinstance(a, float):
        raise no_overload()
    return _numbers(a, b, _remainder)


def negate(a: Any) -> Any:
    match a:
        case bool() | Uint():
            raise no_overload()
        case int():
            return overflow(-a)
        case float():
            return -a
        case Duration():
            return Duration(overflow(-a.nanos))
        case _:
            raise no_overload()


def _quotient(a: int, b: int) -> int:
    """Towards zero."""
    if b == 0:
        raise CelError("division by zero")
    found = abs(a) // abs(b)
    return found if (a < 0) == (b < 0) else -found


def _remainder(a: int, b: int) -> int:
    """With the sign of the first."""
    if b == 0:
        raise CelError("modulus by zero")
    found = abs(a) % abs(b)
    return -found if a < 0 else found


def _numbers(a: Any, b: Any, operation: Any) -> Any:
    if not (is_number(a) and is_number(b)):
        raise no_overload()
    if isinstance(a, float) and isinstance(b, float):
        try:
            return operation(a, b)
        except OverflowError:
            return math.inf
    if isinstance(a, Uint) and isinstance(b, Uint):
        return Uint(overflow(operation(int(a), int(b)), "uint"))
    if isinstance(a, float | Uint) or isinstance(b, float | Uint):
        raise no_overload()
    return overflow(operation(a, b))
