"""Amounts of storage: "1Gi" and the like to bytes. Pure. Source: the API concept "Quantity"."""

import re
from decimal import ROUND_CEILING, Decimal

_FORM = re.compile(r"([+-]?[0-9.]+)([eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i)?$")
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}


def parse(text: str) -> int:
    """Bytes, rounded up. Raises ValueError."""
    found = _FORM.match(str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is no quantity")
    number, suffix = Decimal(found[1]), found[2] or ""
    if suffix in _BINARY:
        exact = number * 2 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        exact = number.scaleb(_DECIMAL[suffix])
    else:
        exact = number.scaleb(int(suffix[1:]))
    return int(exact.to_integral_value(ROUND_CEILING))


def text(size: int) -> str:
    """The shortest way to write this many bytes exactly."""
    for suffix, power in reversed(_BINARY.items()):
        if size and size % 2**power == 0:
            return f"{size >> power}{suffix}"
    return str(size)
