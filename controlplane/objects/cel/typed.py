"""
Custom resources as expressions see them: each value as what its schema says it is.

A field is called by its name, escaped where that is no identifier.
Source: the documentation of x-kubernetes-validations.
"""

import base64
import re
from collections.abc import Mapping
from typing import Any

from controlplane.objects.cel.values import CelError, parse_duration, parse_timestamp
from controlplane.objects.schema import Schema, Type

_RESERVED = frozenset(
    "true false null in as break const continue else for function if import let loop package "
    "namespace return var void while".split()
)
_PARTS = {"__": "__underscores__", ".": "__dot__", "-": "__dash__", "/": "__slash__"}
_UNSPEAKABLE = re.compile(r"__|[.\-/]")
_IDENTIFIER = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
# Of the metadata these are for rules to see; the rest is the server's.
_METADATA = ("name", "generateName")


def escaped(name: str) -> str:
    """ "": an expression cannot name it."""
    if name in _RESERVED:
        return f"__{name}__"
    text = _UNSPEAKABLE.sub(lambda found: _PARTS[found.group()], name)
    return text if _IDENTIFIER.fullmatch(text) else ""


def seen(value: Any, schema: Schema, *, root: bool = False) -> Any:
    """``root``: a whole resource, with apiVersion, kind and metadata."""
    match schema.type:
        case Type.OBJECT if isinstance(value, Mapping):
            return _object(value, schema, root=root or schema.embedded)
        case Type.MAP if isinstance(value, Mapping):
            return {key: seen(inner, schema.items) for key, inner in value.items()}
        case Type.LIST if isinstance(value, list):
            return [seen(inner, schema.items) for inner in value]
        case Type.NUMBER if isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        case Type.INTEGER if isinstance(value, float) and value.is_integer():
            return int(value)
        case _ if isinstance(value, str):
            return _text(value, schema.format)
        case _:
            return value


def _object(value: Mapping[str, Any], schema: Schema, *, root: bool) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, inner in value.items():
        field = schema.fields.get(name)
        if root and name == "metadata" and isinstance(inner, Mapping):
            made[name] = {key: inner[key] for key in _METADATA if key in inner}
        elif field is not None and (called := escaped(name)):
            made[called] = seen(inner, field.schema)
        elif root and name in ("apiVersion", "kind"):
            made[name] = inner
    return made


def _text(value: str, form: str) -> Any:
    try:
        match form:
            case "date-time":
                return parse_timestamp(value)
            case "date":
                return parse_timestamp(f"{value}T00:00:00Z")
            case "duration":
                return parse_duration(value)
            case "byte":
                return base64.b64decode(value)
            case _:
                return value
    except (CelError, ValueError):  # the format's own check says so
        return value
