"""
Quantities of resources: ``500m``, ``1Gi``, ``12e6``.

Every quantity is a whole number of nanos, because the API rounds anything finer
up to one nano; so exact arithmetic is integer arithmetic. The notation (binary,
decimal, exponent) travels along, since the canonical text depends on it.
Source: the API's "Quantity" (resource.Quantity of the API machinery).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

BINARY = "BinarySI"
DECIMAL = "DecimalSI"
EXPONENT = "DecimalExponent"

_NANO = 10**9
_MAX = 2**63 - 1
_DECIMAL_SUFFIXES = {
    "n": -9,
    "u": -6,
    "m": -3,
    "": 0,
    "k": 3,
    "M": 6,
    "G": 9,
    "T": 12,
    "P": 15,
    "E": 18,
}
_DECIMAL_NAMES = {exponent: suffix for suffix, exponent in _DECIMAL_SUFFIXES.items()}
_BINARY_NAMES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_BINARY_SUFFIXES = {name: 10 * index for index, name in enumerate(_BINARY_NAMES) if name}
_PARTS = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
# No resource needs more; an exponent without a bound is a way to eat all memory.
_LONGEST = 1024  # signs; Python refuses to read numbers of a few thousand digits
_LARGEST_EXPONENT = 64

_WRONG_FORMAT = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
_WRONG_SUFFIX = "unable to parse quantity's suffix"

Text = str | int | float


class QuantityError(ValueError):
    """The text is not a quantity; the message is the API's."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """An exact amount; compare and add ``nanos``."""

    nanos: int
    format: str = DECIMAL
    # Set where the text as written already counts as canonical.
    text: str = ""

    def __str__(self) -> str:
        return self.text or _format(self.nanos, self.format)


@lru_cache(maxsize=4096)
def parse(text: Text) -> Quantity:
    """Raise :class:`QuantityError` for what is not a quantity."""
    written = str(text).strip()
    found = _PARTS.fullmatch(written)
    if not found or not (found[2] or found[3]) or len(written) > _LONGEST:
        raise QuantityError(_WRONG_FORMAT)
    sign, whole, fraction, suffix = found[1], found[2].lstrip("0"), found[3] or "", found[4]
    base, exponent, form = _suffix(suffix)
    mantissa = int((whole or "0") + fraction)
    nanos = _nanos(mantissa, len(fraction), base, exponent)
    if form == BINARY:
        nanos = min(nanos, _MAX * _NANO)
        if 0 < nanos < _NANO:
            form = DECIMAL
    keep = _is_written_well(whole, fraction, exponent, form)
    return Quantity(-nanos if sign == "-" else nanos, form, written if keep else "")


def _suffix(suffix: str) -> tuple[int, int, str]:
    if (exponent := _DECIMAL_SUFFIXES.get(suffix)) is not None:
        return 10, exponent, DECIMAL
    if (exponent := _BINARY_SUFFIXES.get(suffix)) is not None:
        return 2, exponent, BINARY
    if len(suffix) > 1 and suffix[0] in "eE":
        try:
            exponent = int(suffix[1:])
        except ValueError:
            raise QuantityError(_WRONG_SUFFIX) from None
        if abs(exponent) <= _LARGEST_EXPONENT:
            return 10, exponent, EXPONENT
    raise QuantityError(_WRONG_SUFFIX)


def _nanos(mantissa: int, decimals: int, base: int, exponent: int) -> int:
    """Away from zero where it is finer than a nano."""
    scale = 9 - decimals
    if base == 2:
        mantissa <<= exponent
    else:
        scale += exponent
    factor: int = 10 ** abs(scale)
    return mantissa * factor if scale >= 0 else -(-mantissa // factor)


def _is_written_well(whole: str, fraction: str, exponent: int, form: str) -> bool:
    """Whether the API keeps the text as it was written."""
    digits = whole + fraction
    if not whole or len(digits) > 15:
        return False
    if form == BINARY:
        room = 14 - len(whole) - exponent * 3 // 10
        return not fraction and room >= 0 and int(digits) & 7 != 0
    scale = exponent - len(fraction)
    return scale >= -9 and scale % 3 == 0 and not digits.endswith("000")


def _format(nanos: int, form: str) -> str:
    if nanos == 0:
        return "0"
    if form == BINARY and nanos % _NANO == 0 and abs(nanos) >= 1024 * _NANO:
        return _format_binary(nanos // _NANO)
    exponent = -9
    while nanos % 1000 == 0 and (exponent < 18 or form == EXPONENT):
        nanos //= 1000
        exponent += 3
    if form == EXPONENT:
        return f"{nanos}e{exponent}" if exponent else str(nanos)
    return f"{nanos}{_DECIMAL_NAMES[exponent]}"


def _format_binary(value: int) -> str:
    index = 0
    while value % 1024 == 0 and index < len(_BINARY_NAMES) - 1:
        value //= 1024
        index += 1
    return f"{value}{_BINARY_NAMES[index]}"


def canonical(text: Text) -> str:
    """The text as the API gives it back: ``1024Mi`` → ``1Gi``, ``0.5`` → ``500m``."""
    return str(parse(text))


def is_quantity(text: object) -> bool:
    if isinstance(text, bool) or not isinstance(text, str | int | float):
        return False
    try:
        parse(text)
    except QuantityError:
        return False
    return True


def nanos(text: Text) -> int:
    return parse(text).nanos


def milli(text: Text) -> int:
    """Thousandths, rounded away from zero."""
    return _round_up(parse(text).nanos, 10**6)


def value(text: Text) -> int:
    """Whole units, rounded away from zero."""
    return _round_up(parse(text).nanos, _NANO)


def _round_up(nanos: int, unit: int) -> int:
    return -(-nanos // unit) if nanos >= 0 else nanos // unit


def compare(a: Text, b: Text) -> int:
    """Negative, zero or positive, as ``a`` is less than, equal to or greater than ``b``."""
    left, right = parse(a).nanos, parse(b).nanos
    return (left > right) - (left < right)


def add(a: Text, b: Text) -> str:
    """The sum, in the notation of ``a`` (of ``b`` where ``a`` is zero)."""
    return _combine(parse(a), parse(b), 1)


def subtract(a: Text, b: Text) -> str:
    """The difference, in the notation of ``a`` (of ``b`` where ``a`` is zero)."""
    return _combine(parse(a), parse(b), -1)


def _combine(a: Quantity, b: Quantity, sign: int) -> str:
    form = a.format if a.nanos else b.format
    return _format(a.nanos + sign * b.nanos, form)


def total(texts: "list[Text] | tuple[Text, ...]") -> str:
    """The sum of many, in the notation of the first that is not zero; ``0`` for none."""
    parsed = [parse(text) for text in texts]
    form = next((q.format for q in parsed if q.nanos), DECIMAL)
    return _format(sum(q.nanos for q in parsed), form)


def of_bytes(count: int) -> str:
    """A number of bytes, in binary notation."""
    return _format(count * _NANO, BINARY)


def of_milli(count: int) -> str:
    """A number of thousandths (of a CPU, say), in decimal notation."""
    return _format(count * 10**6, DECIMAL)
