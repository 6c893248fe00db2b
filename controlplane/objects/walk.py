"""
Walks over an object along its schema: decode, prune, and say what is wrong.

:func:`decode` is what the write path uses. The other functions answer one question
each; they track paths and are for the few objects that something is wrong with.
Texts follow upstream's decoder, because kubectl shows them and tests match them.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.objects.decoders import (
    JSON_SCHEMA,
    MismatchError,
    decode_custom,
    decoder,
    json_type,
)
from controlplane.objects.duplicates import duplicate_fields
from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.facts import is_builtin, schema_by_name
from controlplane.objects.schema import Schema, Type

__all__ = [
    "decode",
    "duplicate_fields",
    "prune",
    "prune_empty",
    "strict_error",
    "type_error",
    "unknown_fields",
]

_ROOT = frozenset({"apiVersion", "kind", "metadata"})


def decode(
    obj: Mapping[str, Any], schema: Schema, *, strict: bool
) -> tuple[dict[str, Any], list[str]]:
    """
    The object as it is stored, and a warning for each field that was dropped as unknown.

    Nulls, unknown fields and what is empty and omitted when empty are gone; structs
    and scalars that upstream always writes are there. Null lists and times that
    upstream would write as ``null`` are left out. Parts of ``obj`` may be shared
    with the result: the caller gives it up.

    StatusError 400: a value of the wrong type, or with ``strict`` an unknown field.
    """
    unknown: list[str] = []
    try:
        out = _decode(obj, schema, unknown)
    except MismatchError as err:
        raise _cannot_be_handled(obj, schema, str(err) or type_error(obj, schema)) from err
    except RecursionError as err:
        raise _cannot_be_handled(obj, schema, "json: exceeded max depth") from err
    if not unknown:
        return out, []
    found = unknown_fields(obj, schema)
    if strict and found:
        raise strict_error(obj, found)
    return out, found


def _decode(obj: Any, schema: Schema, unknown: list[str]) -> dict[str, Any]:
    out: dict[str, Any]
    if is_builtin(schema):
        out = decoder(schema)(obj, unknown)
    else:
        out = decode_custom(obj, schema, unknown, root=True)
    return out


def strict_error(obj: Mapping[str, Any], found: list[str]) -> StatusError:
    """``found``: the texts of unknown and duplicate fields."""
    return _cannot_be_handled(obj, None, f"strict decoding error: {', '.join(found)}")


def _cannot_be_handled(obj: Any, schema: Schema | None, why: str) -> StatusError:
    kind = obj.get("kind", "") if isinstance(obj, Mapping) else ""
    api_version = obj.get("apiVersion", "") if isinstance(obj, Mapping) else ""
    wanted = schema.gvks[0][2] if schema is not None and schema.gvks else kind
    version = str(api_version).rpartition("/")[2]
    return bad_request(f'{kind} in version "{version}" cannot be handled as a {wanted}: {why}')


def prune_empty(obj: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """As :func:`decode`, for what the server itself put together; unknown fields just go."""
    try:
        return _decode(obj, schema, [])
    except MismatchError as err:
        raise _cannot_be_handled(obj, schema, str(err) or type_error(obj, schema)) from err


def prune(obj: Mapping[str, Any], schema: Schema) -> dict[str, Any]:
    """Without the fields that the schema does not know; nothing else changes."""
    pruned: dict[str, Any] = _pruned(obj, schema, root=True)
    return pruned


def _pruned(value: Any, schema: Schema, *, root: bool = False) -> Any:
    if schema.type is Type.OBJECT and isinstance(value, Mapping):
        fields, implied = schema.fields, _implied(schema, root=root)
        return {
            key: _pruned(item, fields[key].schema) if key in fields else item
            for key, item in value.items()
            if key in fields or schema.preserve_unknown or key in implied
        }
    if schema.type is Type.LIST and isinstance(value, list):
        return [_pruned(item, schema.items) for item in value]
    if schema.type is Type.MAP and isinstance(value, dict):
        return {key: _pruned(item, schema.items) for key, item in value.items()}
    return value


def _implied(schema: Schema, *, root: bool) -> frozenset[str]:
    """Fields that an object has although its schema need not say so."""
    return _ROOT if (root and not is_builtin(schema)) or schema.embedded else frozenset()


def unknown_fields(obj: Mapping[str, Any], schema: Schema) -> list[str]:
    """``unknown field "spec.containers[0].foo"`` for each, in the order of the object."""
    return [f'unknown field "{path}"' for path in _unknown(obj, schema, "", root=True)]


def _unknown(value: Any, schema: Schema, path: str, *, root: bool = False) -> Iterator[str]:
    match schema.type:
        case Type.OBJECT if isinstance(value, dict):
            yield from _unknown_of_object(value, schema, path, root=root)
        case Type.LIST if isinstance(value, list):
            for index, item in enumerate(value):
                yield from _unknown(item, schema.items, f"{path}[{index}]")
        case Type.MAP if isinstance(value, dict):
            for key, item in value.items():
                yield from _unknown(item, schema.items, f"{path}.{key}")
        case Type.ANY if schema.name.startswith(f"{JSON_SCHEMA}Or"):
            yield from _unknown_of_schemas(value, path)
        case _:
            return


def _unknown_of_object(
    value: dict[str, Any], schema: Schema, path: str, *, root: bool
) -> Iterator[str]:
    implied = _implied(schema, root=root)
    for key, item in value.items():
        here = f"{path}.{key}" if path else key
        field = schema.fields.get(key)
        if field is not None:
            yield from _unknown(item, field.schema, here)
        elif not schema.preserve_unknown and key not in implied:
            yield here


def _unknown_of_schemas(value: Any, path: str) -> Iterator[str]:
    schema = schema_by_name(JSON_SCHEMA)
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, schema, f"{path}[{index}]")
    else:
        yield from _unknown(value, schema, path)


def type_error(obj: Any, schema: Schema) -> str:
    """
    The first value of the wrong type, as Go's JSON decoder puts it; empty: there is none.

    ``json: cannot unmarshal string into Go struct field PodSpec.spec.hostname of type int32``
    """
    start = _Place("", "")
    if is_builtin(schema):
        return next(_mismatches(obj, schema, start), "")
    # Values of custom resources are validated; only their metadata is decoded.
    for name, value in obj.items() if isinstance(obj, Mapping) else ():
        field = schema.fields.get(name)
        if field is not None and is_builtin(field.schema):
            return next(_mismatches(value, field.schema, start), "")
    return ""


class _Place:
    """Where in the Go types a value is: the innermost struct, and the fields down to it."""

    __slots__ = ("path", "struct")

    def __init__(self, struct: str, path: str) -> None:
        self.struct = struct
        self.path = path

    def wrong(self, value: Any, schema: Schema) -> str:
        shown = json_type(value)
        if schema.type not in (Type.INTEGER, Type.INT_OR_STRING):
            shown = shown.partition(" ")[0]
        target = f"Go struct field {self.struct}.{self.path}" if self.path else "Go value"
        return f"json: cannot unmarshal {shown} into {target} of type {go_type(schema)}"


def _mismatches(value: Any, schema: Schema, place: _Place) -> Iterator[str]:
    if value is None:
        return
    if schema.type is Type.OBJECT and isinstance(value, dict):
        struct = schema.name.rpartition(".")[2]
        for key, item in value.items():
            if field := schema.fields.get(key):
                path = ".".join(part for part in (place.path, _embedding(schema, key), key) if part)
                yield from _mismatches(item, field.schema, _Place(struct, path))
    elif schema.type is Type.LIST and isinstance(value, list):
        for item in value:
            yield from _mismatches(item, schema.items, place)
    elif schema.type is Type.MAP and isinstance(value, dict):
        for item in value.values():
            yield from _mismatches(item, schema.items, place)
    else:
        yield from _mismatch(value, schema, place)


def _embedding(schema: Schema, key: str) -> str:
    """The Go type that is embedded for the sake of a field: Go's decoder names it too."""
    for _, ref in schema.inlined:
        if key in ref().fields:
            return ref().name.rpartition(".")[2]
    return ""


def _mismatch(value: Any, schema: Schema, place: _Place) -> Iterator[str]:
    if schema.type in (Type.OBJECT, Type.LIST, Type.MAP):
        yield place.wrong(value, schema)
        return
    try:
        decoder(schema)(value, [])
    except MismatchError as err:
        yield str(err) or place.wrong(value, schema)


_GO_TYPES = {
    Type.STRING: "string",
    Type.INTEGER: "int32",
    Type.NUMBER: "float64",
    Type.BOOLEAN: "bool",
    Type.BYTES: "[]uint8",
    Type.QUANTITY: "resource.Quantity",
    # Go decodes these as what they are on the wire.
    Type.INT_OR_STRING: "int32",
    Type.TIME: "string",
    Type.MICRO_TIME: "string",
    Type.DURATION: "v1.Duration",
    Type.FIELDS_V1: "v1.FieldsV1",
    Type.ANY: "runtime.RawExtension",
}


def go_type(schema: Schema) -> str:
    """``int32``, ``[]v1.Container``, ``map[string]string``."""
    match schema.type:
        case Type.LIST if not schema.name:
            return f"[]{go_type(schema.items)}"
        case Type.MAP if schema.items.type is Type.QUANTITY:
            return "v1.ResourceList"
        case Type.MAP:
            return f"map[string]{go_type(schema.items)}"
        case Type.INTEGER:
            return "int64" if schema.format == "int64" else "int32"
        case _ if schema.name and schema.type in (Type.OBJECT, Type.STRING, Type.LIST):
            return ".".join(schema.name.split(".")[-2:])
        case _:
            return _GO_TYPES.get(schema.type, "")
