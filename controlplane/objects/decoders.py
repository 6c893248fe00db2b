"""
The way in for every written object, compiled from its schema.

What the Go types of upstream do to a body as a side effect of decoding and encoding
it, ours must do on purpose: unknown fields and nulls go, empty values go where the
field is omitted when empty, structs that are always there appear, quantities and
times get their canonical spelling. This runs on each write, so that each type
becomes one function and each of its fields one step, made when it is first met.

Custom resources have no Go types: of them only unknown fields go.
"""

import binascii
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from controlplane.objects.facts import is_builtin, schema_by_name
from controlplane.objects.schema import Field, Schema, Type

# A value and the list that unknown fields are noted in; returns what is kept.
Decoder = Callable[[Any, list[str]], Any]
Step = tuple[Decoder | None, bool]  # None: a plain string. Keep it even when it is empty?

_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
_MICROS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:[.,](\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", re.ASCII
)
JSON_SCHEMA = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps"
_CUSTOM_ROOT = frozenset({"apiVersion", "kind", "metadata"})
_INT32 = 2**31
_INT64 = 2**63


class MismatchError(ValueError):
    """
    A value has another type than its field.

    The message is empty where it needs the path; :func:`controlplane.objects.walk.type_error`
    finds that out, because tracking paths would cost every good object.
    """


def decoder(schema: Schema) -> Decoder:
    """The one of a built-in type; made once."""
    found = _DECODERS.get(id(schema))
    if found is None:
        # The schema is kept along, so that its id stays its own.
        found = _DECODERS[id(schema)] = (schema, _make(schema))
    return found[1]


_DECODERS: dict[int, tuple[Schema, Decoder]] = {}


def _make(schema: Schema) -> Decoder:
    match schema.type:
        case Type.OBJECT:
            return object_decoder(schema)
        case Type.LIST:
            return _list_decoder(schema)
        case Type.MAP:
            return _map_decoder(schema)
        case Type.ANY if schema.name.startswith(f"{JSON_SCHEMA}Or"):
            return _schema_or_other
        case Type.INTEGER:
            return _int64 if schema.format == "int64" else _int32
        case _:
            return _SCALARS[schema.type]


# One loop without calls for plain fields: splitting it costs a third of the speed.
def object_decoder(schema: Schema) -> Decoder:  # noqa: C901
    fields = schema.fields
    zeros = _zeros(schema)
    steps: dict[str, Step] = {}

    def decode(value: Any, unknown: list[str]) -> Any:  # noqa: C901
        if type(value) is not dict:
            raise MismatchError
        out: dict[str, Any] = {}
        for key, item in value.items():
            step = steps.get(key)
            if step is None:
                field = fields.get(key)
                if field is None:
                    unknown.append(key)
                    continue
                step = steps[key] = _step(field)
            if item is None:
                continue
            convert, keep = step
            if convert is not None:
                item = convert(item, unknown)
            elif type(item) is not str:
                raise MismatchError
            if item or keep:
                out[key] = item
        for key, zero in zeros:
            if key not in out:
                out[key] = zero({}, unknown) if callable(zero) else zero
        return out

    return decode


def _step(field: Field) -> Step:
    schema = field.schema
    keep = field.pointer or not field.omit_empty
    return (None if schema.type is Type.STRING else decoder(schema)), keep


def _zeros(schema: Schema) -> tuple[tuple[str, Any], ...]:
    always = (_always(field) for field in schema.fields.values() if not field.omit_empty)
    return tuple(zero for zero in always if zero[1] is not None)


def _always(field: Field) -> tuple[str, Any]:
    """What is written for an absent field that is not omitted; None: left out, as null is."""
    if field.pointer:
        return field.name, None
    schema = field.schema
    if schema.type is Type.OBJECT:
        return field.name, decoder(schema)
    return field.name, ZEROS.get(schema.type)


ZEROS: dict[Type, Any] = {
    Type.STRING: "",
    Type.INTEGER: 0,
    Type.NUMBER: 0,
    Type.BOOLEAN: False,
    Type.QUANTITY: "0",
    Type.INT_OR_STRING: 0,
}


def _list_decoder(schema: Schema) -> Decoder:
    item_schema = schema.items
    if item_schema.type is Type.STRING:
        return _strings
    decode = _item_decoder(item_schema)

    def decode_list(value: Any, unknown: list[str]) -> Any:
        if type(value) is not list:
            raise MismatchError
        return [decode(item, unknown) for item in value]

    return decode_list


def _item_decoder(schema: Schema) -> Decoder:
    """A null within a list or a map is the zero value of its type."""
    decode = decoder(schema)
    # Decoding an empty one makes a new one each time.
    empty: Any = {Type.OBJECT: {}, Type.MAP: {}, Type.LIST: [], Type.BYTES: ""}.get(schema.type)
    zero = ZEROS.get(schema.type)

    def decode_item(value: Any, unknown: list[str]) -> Any:
        if value is not None:
            return decode(value, unknown)
        return decode(empty, unknown) if empty is not None else zero

    return decode_item


def _map_decoder(schema: Schema) -> Decoder:
    item_schema = schema.items
    if item_schema.type is Type.STRING:
        return _string_map
    decode = _item_decoder(item_schema)

    def decode_map(value: Any, unknown: list[str]) -> Any:
        if type(value) is not dict:
            raise MismatchError
        return {key: decode(item, unknown) for key, item in value.items()}

    return decode_map


def _strings(value: Any, _unknown: list[str]) -> Any:
    if type(value) is not list:
        raise MismatchError
    for item in value:
        if type(item) is not str:
            return [_string(item) for item in value]
    return value


def _string_map(value: Any, _unknown: list[str]) -> Any:
    if type(value) is not dict:
        raise MismatchError
    for item in value.values():
        if type(item) is not str:
            return {key: _string(item) for key, item in value.items()}
    return value


def _string(value: Any) -> str:
    if value is None:
        return ""
    if type(value) is not str:
        raise MismatchError
    return value


def _int32(value: Any, _unknown: list[str]) -> Any:
    if type(value) is int and -_INT32 <= value < _INT32:
        return value
    raise MismatchError


def _int64(value: Any, _unknown: list[str]) -> Any:
    if type(value) is int and -_INT64 <= value < _INT64:
        return value
    raise MismatchError


def _number(value: Any, _unknown: list[str]) -> Any:
    if type(value) is int or type(value) is float:
        return value
    raise MismatchError


def _boolean(value: Any, _unknown: list[str]) -> Any:
    if type(value) is bool:
        return value
    raise MismatchError


def _bytes(value: Any, _unknown: list[str]) -> Any:
    if type(value) is not str:
        raise MismatchError
    try:
        binascii.a2b_base64(value, strict_mode=True)
    except (binascii.Error, ValueError):
        return _loose_bytes(value)
    return value


def _loose_bytes(value: str) -> str:
    """Go's decoder skips line breaks, nothing else."""
    text = value.replace("\r", "").replace("\n", "")
    try:
        return binascii.b2a_base64(
            binascii.a2b_base64(text, strict_mode=True), newline=False
        ).decode()
    except (binascii.Error, ValueError) as err:
        at = _illegal_byte(value)
        raise MismatchError(f"illegal base64 data at input byte {at}") from err


def _illegal_byte(value: str) -> int:
    match = re.match(r"[A-Za-z0-9+/\r\n]*", value)
    return match.end() if match and match.end() < len(value) else max(0, len(value) // 4 * 4)


def _quantity(value: Any, _unknown: list[str]) -> Any:
    from controlplane.objects.quantity import QuantityError, canonical

    if isinstance(value, bool | list | dict):
        raise MismatchError(_NOT_A_QUANTITY)
    try:
        return canonical(value)
    except QuantityError as err:
        raise MismatchError(str(err)) from err


_NOT_A_QUANTITY = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)


def _int_or_string(value: Any, _unknown: list[str]) -> Any:
    if type(value) is str:
        return value
    if type(value) is int and -_INT32 <= value < _INT32:
        return value
    raise MismatchError


def _time(value: Any, _unknown: list[str]) -> Any:
    if type(value) is str and _SECONDS.fullmatch(value):
        return value
    return _parse_time(value, "2006-01-02T15:04:05Z07:00").strftime("%Y-%m-%dT%H:%M:%SZ")


def _micro_time(value: Any, _unknown: list[str]) -> Any:
    if type(value) is str and _MICROS.fullmatch(value):
        return value
    moment = _parse_time(value, "2006-01-02T15:04:05.000000Z07:00")
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _parse_time(value: Any, layout: str) -> datetime:
    """``layout``: how Go would describe it, for the message."""
    if type(value) is not str:
        raise MismatchError
    if match := _RFC3339.fullmatch(value):
        whole, fraction, zone = match.groups()
        micros = f"{fraction or '0':0<6}"[:6]
        offset = "+00:00" if zone == "Z" else zone
        try:
            return datetime.fromisoformat(f"{whole}.{micros}{offset}").astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise MismatchError(f'parsing time "{value}" as "{layout}": cannot parse "{value}" as "2006"')


def _schema_or_other(value: Any, unknown: list[str]) -> Any:
    """A JSON schema, or the boolean or the list that may stand in its place."""
    decode = decoder(schema_by_name(JSON_SCHEMA))
    if type(value) is dict:
        return decode(value, unknown)
    if type(value) is list:
        return [decode(item, unknown) if type(item) is dict else item for item in value]
    return value


def _any(value: Any, _unknown: list[str]) -> Any:
    return value


def _duration(value: Any, _unknown: list[str]) -> Any:
    if type(value) is not str:
        raise MismatchError
    return value


_SCALARS: dict[Type, Decoder] = {
    Type.STRING: lambda value, _unknown: _string(value),
    Type.NUMBER: _number,
    Type.BOOLEAN: _boolean,
    Type.BYTES: _bytes,
    Type.QUANTITY: _quantity,
    Type.INT_OR_STRING: _int_or_string,
    Type.TIME: _time,
    Type.MICRO_TIME: _micro_time,
    Type.DURATION: _duration,
    Type.FIELDS_V1: _any,
    Type.ANY: _any,
}


def json_type(value: Any) -> str:
    """As Go's JSON decoder calls a value in its errors."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return f"number {value}"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def decode_custom(value: Any, schema: Schema, unknown: list[str], *, root: bool = False) -> Any:
    """Without the unknown fields; parts in which nothing is unknown are not copied."""
    match schema.type:
        case Type.OBJECT if type(value) is dict:
            return _custom_object(value, schema, unknown, root=root)
        case Type.LIST if type(value) is list:
            items = schema.items
            return [decode_custom(item, items, unknown) for item in value]
        case Type.MAP if type(value) is dict:
            items = schema.items
            return {key: decode_custom(item, items, unknown) for key, item in value.items()}
        case _:
            return value


def _custom_object(
    value: dict[str, Any], schema: Schema, unknown: list[str], *, root: bool
) -> dict[str, Any]:
    out: dict[str, Any] = {}
    fields = schema.fields
    implied = root or schema.embedded
    for key, item in value.items():
        field = fields.get(key)
        if field is not None:
            inner = field.schema
            if not is_builtin(inner):
                out[key] = decode_custom(item, inner, unknown)
            elif item is not None:
                out[key] = decoder(inner)(item, unknown)
        elif schema.preserve_unknown or (implied and key in _CUSTOM_ROOT):
            out[key] = item
        else:
            unknown.append(key)
    return out
