"""
Reads objects that clients send as ``application/vnd.kubernetes.protobuf``.

kubectl and client-go encode built-in kinds that way. The schemas carry the field
numbers, so that there are no generated messages: bytes become the same dict that the
JSON body would have given. Unknown fields are skipped, as protobuf wants it.
Source: the protobuf encoding guide; the envelope is described in the API concepts,
"Alternate representations of resources".
"""

import base64
import struct
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from controlplane.objects.decoders import JSON_SCHEMA
from controlplane.objects.errors import StatusError, bad_request
from controlplane.objects.facts import schema_by_name, schema_of_body
from controlplane.objects.schema import Schema, Type

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Takes the value from the wire (an integer, or bytes of any other wire type).
Read = Callable[[Any], Any]


class _WireError(ValueError):
    """The bytes are no protobuf message of this type."""


class _Slot:
    """One field of a message, by its number."""

    __slots__ = ("map", "message", "name", "read", "repeated", "wire")

    def __init__(self, name: str, schema: Schema) -> None:
        self.name = name
        self.repeated = schema.type is Type.LIST and not schema.name
        self.map = schema.type is Type.MAP
        item = schema.items if self.repeated or self.map else schema
        # A message may come in parts, which add up.
        self.message = item if item.type is Type.OBJECT else None
        self.wire = _wire(item)
        self.read = _reader(item)


class _Message:
    """The slots of a type, made when a number is first met."""

    __slots__ = ("_fields", "_inlined", "slots")

    def __init__(self, schema: Schema) -> None:
        self._fields = {field.number: field for field in schema.fields.values() if field.number}
        self._inlined = dict(schema.inlined)
        self.slots: dict[int, _Slot | None] = {}

    def slot(self, number: int) -> _Slot | None:
        if number not in self.slots:
            self.slots[number] = self._make(number)
        return self.slots[number]

    def _make(self, number: int) -> _Slot | None:
        if number in self._inlined:
            return _Slot("", self._inlined[number]())
        field = self._fields.get(number)
        return _Slot(field.name, field.schema) if field is not None else None


_MESSAGES: dict[str, _Message] = {}


def _message_of(schema: Schema) -> _Message:
    if schema.name not in _MESSAGES:
        _MESSAGES[schema.name] = _Message(schema)
    return _MESSAGES[schema.name]


def decode(data: bytes) -> dict[str, Any]:
    """
    The object in an envelope, with ``apiVersion`` and ``kind`` first.

    It has the empty values that protobuf clients always send; :func:`walk.decode`
    drops them. StatusError 400: no envelope, an unknown kind, broken bytes.
    """
    if not data.startswith(MAGIC):
        raise bad_request(
            "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
        )
    try:
        api_version, kind, raw = _envelope(data[len(MAGIC) :])
    except (ValueError, struct.error) as err:
        raise bad_request(f"the body of the request is no protobuf envelope: {err}") from err
    schema = schema_of_body(api_version, kind)
    if schema is None:
        raise bad_request(f'no kind "{kind}" is registered for version "{api_version}"')
    try:
        body = _decode_message(raw, schema)
    except StatusError:
        raise
    except (ValueError, RecursionError, struct.error, OverflowError) as err:
        why = "too deeply nested" if isinstance(err, RecursionError) else str(err)
        version = api_version.rpartition("/")[2]
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: {why}'
        ) from err
    return {"apiVersion": api_version, "kind": kind, **body}


def _envelope(data: bytes) -> tuple[str, str, bytes]:
    """``apiVersion``, ``kind`` and the object's own bytes of a runtime.Unknown."""
    api_version, kind, raw = "", "", b""
    for number, wire, value in _fields(data):
        if wire != _LENGTH:
            continue
        if number == 1:
            for inner, inner_wire, text in _fields(value):
                if inner_wire == _LENGTH and inner == 1:
                    api_version = text.decode()
                elif inner_wire == _LENGTH and inner == 2:
                    kind = text.decode()
        elif number == 2:
            raw = value
    return api_version, kind, raw


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of each field; bytes stay bytes."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        if number == 0:
            raise _WireError("illegal tag 0")
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
        else:
            size, at = _size(data, at, wire)
            if at + size > end:
                raise _WireError("unexpected EOF")
            value = data[at : at + size]
            at += size
        yield number, wire, value


def _size(data: bytes, at: int, wire: int) -> tuple[int, int]:
    if wire == _LENGTH:
        return _varint(data, at)
    if wire == _FIXED64:
        return 8, at
    if wire == _FIXED32:
        return 4, at
    raise _WireError(f"illegal wireType {wire}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    try:
        while True:
            byte = data[at]
            at += 1
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                return result & 0xFFFFFFFFFFFFFFFF, at
            shift += 7
            if shift > 63:
                raise _WireError("integer overflow")
    except IndexError:
        raise _WireError("unexpected EOF") from None


def _decode_message(data: bytes, schema: Schema) -> dict[str, Any]:
    out: dict[str, Any] = {}
    _fill(out, data, _message_of(schema))
    return out


def _fill(out: dict[str, Any], data: bytes, message: _Message) -> None:
    for number, wire, value in _fields(data):
        slot = message.slots.get(number) or message.slot(number)
        if slot is None:
            continue
        if slot.map:
            _add_entry(out.setdefault(slot.name, {}), value, wire, slot)
        elif slot.repeated:
            _append(out.setdefault(slot.name, []), value, wire, slot)
        elif wire != slot.wire:
            raise _WireError(f"wrong wireType = {wire} for field {slot.name}")
        elif slot.message is not None:
            part = out.setdefault(slot.name, {}) if slot.name else out
            _fill(part, value, _message_of(slot.message))
        elif (read := slot.read(value)) is not None:
            out[slot.name] = read


def _append(items: list[Any], value: Any, wire: int, slot: _Slot) -> None:
    if wire == slot.wire:
        items.append(slot.read(value))
    elif wire == _LENGTH and slot.wire == _VARINT:
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            items.append(slot.read(number))
    elif wire == _LENGTH and slot.wire == _FIXED64:
        items.extend(slot.read(value[at : at + 8]) for at in range(0, len(value), 8))
    else:
        raise _WireError(f"wrong wireType = {wire} for field {slot.name}")


def _add_entry(entries: dict[str, Any], value: Any, wire: int, slot: _Slot) -> None:
    if wire != _LENGTH:
        raise _WireError(f"wrong wireType = {wire} for field {slot.name}")
    key = ""
    raw: Any = 0 if slot.wire == _VARINT else b""
    for number, inner, part in _fields(value):
        if number == 1 and inner == _LENGTH:
            key = part.decode()
        elif number == 2:
            if inner != slot.wire:
                raise _WireError(f"wrong wireType = {inner} for field {slot.name}")
            raw = part
    entries[key] = slot.read(raw)


def _wire(schema: Schema) -> int:
    if schema.type in (Type.INTEGER, Type.BOOLEAN):
        return _VARINT
    return _FIXED64 if schema.type is Type.NUMBER else _LENGTH


def _reader(schema: Schema) -> Read:
    if schema.type is Type.OBJECT:
        return lambda value: _decode_message(value, schema)
    if schema.type is Type.LIST:
        return lambda value: [part.decode() for number, _, part in _fields(value) if number == 1]
    if schema.type is Type.ANY:
        return _READ_ANY.get(schema.name.rpartition(".")[2], _raw_json)
    return _READ[schema.type]


def _integer(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _double(value: bytes) -> float:
    number: float = struct.unpack("<d", value)[0]
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _inner(value: bytes) -> dict[int, Any]:
    """A small message whose numbers mean the same everywhere; the last of each counts."""
    return {number: part for number, _, part in _fields(value)}


def _quantity(value: bytes) -> str:
    text: bytes = _inner(value).get(1, b"")
    return text.decode() or "0"


def _int_or_string(value: bytes) -> Any:
    parts = _inner(value)
    if parts.get(1, 0) == 1:
        return parts.get(3, b"").decode()
    return _integer(parts.get(2, 0))


def _moment(value: bytes) -> datetime | None:
    parts = _inner(value)
    seconds, nanos = _integer(parts.get(1, 0)), _integer(parts.get(2, 0))
    if not seconds and not nanos:
        return None
    return _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)


def _time(value: bytes) -> str | None:
    moment = _moment(value)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None


def _micro_time(value: bytes) -> str | None:
    moment = _moment(value)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if moment else None


def _duration(value: bytes) -> str:
    """As Go prints it: ``1h0m0.5s``."""
    nanos = _integer(_inner(value).get(1, 0))
    sign, nanos = ("-", -nanos) if nanos < 0 else ("", nanos)
    seconds, fraction = divmod(nanos, 10**9)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{seconds}{f'.{fraction:09}'.rstrip('0') if fraction else ''}s"
    if hours or minutes:
        text = f"{minutes}m{text}"
    return f"{sign}{hours}h{text}" if hours else f"{sign}{text}"


def _raw_json(value: bytes) -> Any:
    raw: bytes = _inner(value).get(1, b"")
    if not raw:
        return None
    return decode(raw) if raw.startswith(MAGIC) else orjson.loads(raw)


def _json_schema(value: bytes) -> dict[str, Any]:
    return _decode_message(value, schema_by_name(JSON_SCHEMA))


def _schema_or_bool(value: bytes) -> Any:
    parts = _inner(value)
    return _json_schema(parts[2]) if 2 in parts else bool(parts.get(1, 0))


def _schema_or_array(value: bytes) -> Any:
    parts = list(_fields(value))
    for number, _, part in parts:
        if number == 1:
            return _json_schema(part)
    return [_json_schema(part) for number, _, part in parts if number == 2]


def _schema_or_strings(value: bytes) -> Any:
    parts = list(_fields(value))
    for number, _, part in parts:
        if number == 1:
            return _json_schema(part)
    return [part.decode() for number, _, part in parts if number == 2]


_READ: dict[Type, Read] = {
    Type.STRING: bytes.decode,
    Type.INTEGER: _integer,
    Type.NUMBER: _double,
    Type.BOOLEAN: bool,
    Type.BYTES: _base64,
    Type.QUANTITY: _quantity,
    Type.INT_OR_STRING: _int_or_string,
    Type.TIME: _time,
    Type.MICRO_TIME: _micro_time,
    Type.DURATION: _duration,
    Type.FIELDS_V1: _raw_json,
}
_READ_ANY: dict[str, Read] = {
    "JSONSchemaPropsOrBool": _schema_or_bool,
    "JSONSchemaPropsOrArray": _schema_or_array,
    "JSONSchemaPropsOrStringArray": _schema_or_strings,
}
