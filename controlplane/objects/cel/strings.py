"""Functions of strings: cel-go's extension of version 2, which Kubernetes has."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.objects.cel.values import (
    CelError,
    Duration,
    Timestamp,
    TypeValue,
    is_number,
    no_overload,
)

_SPACES = " \t\n\v\f\r\x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # noqa: E501
_CLAUSE = re.compile(r"%(?:\.(\d+))?([sdfebxXo%]|$|.)", re.DOTALL)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise no_overload()
    return value


def of_double(value: float) -> str:
    """As Go prints it with %g: the shortest text that is this number."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    text = repr(value)
    return re.sub(r"e([+-])(\d)$", r"e\g<1>0\2", text)


def _char_at(value: str, index: int) -> str:
    if not 0 <= index <= len(_text(value)):
        raise CelError(f"index out of range: {index}")
    return value[index : index + 1]


def index_of(value: str, part: str, start: int = 0) -> int:
    if start < 0 or (start >= len(value) and part and start > 0):
        raise CelError(f"index out of range: {start}")
    return value.find(_text(part), start)


def last_index_of(value: str, part: str, *start: int) -> int:
    if not start:
        return value.rfind(_text(part))
    if not 0 <= start[0] < len(value):
        raise CelError(f"index out of range: {start[0]}")
    return value.rfind(part, 0, start[0] + len(part))


def _lower(value: str) -> str:
    return "".join(c.lower() if c.isascii() else c for c in _text(value))


def _upper(value: str) -> str:
    return "".join(c.upper() if c.isascii() else c for c in _text(value))


def _replace(value: str, old: str, new: str, limit: int = -1) -> str:
    return _text(value).replace(_text(old), _text(new), limit)


def _split(value: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        letters = list(_text(value))
        if 0 < limit < len(letters):
            return [*letters[: limit - 1], "".join(letters[limit - 1 :])]
        return letters
    return _text(value).split(separator, limit - 1 if limit > 0 else -1)


def _substring(value: str, start: int, end: int | None = None) -> str:
    stop = len(_text(value)) if end is None else end
    if not 0 <= start <= len(value):
        raise CelError(f"index out of range: {start}")
    if not 0 <= stop <= len(value):
        raise CelError(f"index out of range: {stop}")
    if start > stop:
        raise CelError(f"invalid substring range. start: {start}, end: {stop}")
    return value[start:stop]


def _trim(value: str) -> str:
    return _text(value).strip(_SPACES)


def _join(values: Any, separator: str = "") -> str:
    if not isinstance(values, list | tuple):
        raise no_overload()
    return separator.join(_text(value) for value in values)


def _starts_with(value: str, part: str) -> bool:
    return _text(value).startswith(_text(part))


def _ends_with(value: str, part: str) -> bool:
    return _text(value).endswith(_text(part))


def quote(value: str) -> str:
    escaped = _text(value).replace("\\", "\\\\").replace('"', '\\"')
    for char, name in zip("\a\b\f\n\r\t\v", "abfnrtv", strict=True):
        escaped = escaped.replace(char, f"\\{name}")
    return f'"{escaped}"'


def _format(text: str, arguments: Any) -> str:
    """``"%s has %d".format([a, b])``"""
    rest = list(arguments)

    def clause(found: "re.Match[str]") -> str:
        precision, verb = found.groups()
        if verb == "%":
            return "%"
        if not rest:
            raise CelError("index 0 out of range")
        if verb not in _CLAUSES:
            raise CelError(f'could not parse formatting clause: unrecognized formatting "{verb}"')
        return _CLAUSES[verb](rest.pop(0), 6 if precision is None else int(precision[:3]))

    made = _CLAUSE.sub(clause, _text(text))
    return made


def _as_string(value: Any, _precision: int) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case None:
            return "null"
        case float():
            return of_double(value)
        case list() | tuple():
            return f"[{', '.join(_as_string(item, 6) for item in value)}]"
        case Mapping():
            pairs = sorted((_as_string(k, 6), _as_string(v, 6)) for k, v in value.items())
            return f"{{{', '.join(f'{key}: {item}' for key, item in pairs)}}}"
        case bytes():
            return value.decode(errors="replace")
        case TypeValue():
            return value.name
        case int() | str() | Duration() | Timestamp():
            return str(value)
        case _:
            return str(value)


def _as_integer(value: Any, _precision: int) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if not is_number(value) or isinstance(value, float):
        raise CelError("decimal clause can only be used on integers")
    return str(value)


def _as_fixed(value: Any, precision: int) -> str:
    if not is_number(value):
        raise CelError("fixed-point clause can only be used on doubles")
    return f"{float(value):.{precision}f}"


def _as_scientific(value: Any, precision: int) -> str:
    if not is_number(value):
        raise CelError("scientific clause can only be used on doubles")
    return f"{float(value):.{precision}e}"


def _as_binary(value: Any, _precision: int) -> str:
    if not isinstance(value, int):
        raise CelError("binary clause can only be used on integers and bools")
    return f"{int(value):b}"


def _as_octal(value: Any, _precision: int) -> str:
    if not is_number(value) or isinstance(value, float):
        raise CelError("octal clause can only be used on integers")
    return f"{int(value):o}"


def _as_hex(value: Any, _precision: int) -> str:
    match value:
        case str():
            return value.encode().hex()
        case bytes():
            return value.hex()
        case int() if not isinstance(value, bool):
            return f"{int(value):x}"
        case _:
            raise CelError("hex clause can only be used on integers, byte buffers, and strings")


def _as_upper_hex(value: Any, precision: int) -> str:
    return _as_hex(value, precision).upper()


_CLAUSES: dict[str, Callable[[Any, int], str]] = {
    "s": _as_string,
    "d": _as_integer,
    "f": _as_fixed,
    "e": _as_scientific,
    "b": _as_binary,
    "o": _as_octal,
    "x": _as_hex,
    "X": _as_upper_hex,
}

METHODS: dict[str, Callable[..., Any]] = {
    "charAt": _char_at,
    "lowerAscii": _lower,
    "upperAscii": _upper,
    "replace": _replace,
    "split": _split,
    "substring": _substring,
    "trim": _trim,
    "join": _join,
    "startsWith": _starts_with,
    "endsWith": _ends_with,
    "format": _format,
}
