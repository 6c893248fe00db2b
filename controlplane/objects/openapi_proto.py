"""
The OpenAPI v2 document in protobuf, which older clients ask for and nothing else.

The messages are those of gnostic's ``OpenAPIv2.proto``; the tables give the number of
each field that our documents have. What has no field of its own there is an
extension, whose value is YAML text: JSON is YAML.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import orjson

Node = Mapping[str, Any]

_SCHEMA_TEXTS = {"$ref": 1, "format": 2, "title": 3, "description": 4, "pattern": 13}
_SCHEMA_DOUBLES = {"multipleOf": 6, "maximum": 7, "minimum": 9}
_SCHEMA_NUMBERS = {
    "exclusiveMaximum": 8,
    "exclusiveMinimum": 10,
    "maxLength": 11,
    "minLength": 12,
    "maxItems": 14,
    "minItems": 15,
    "uniqueItems": 16,
    "maxProperties": 17,
    "minProperties": 18,
}
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "options": 6, "head": 7, "patch": 8}


def encode_v2(document: Node) -> bytes:
    info = document["info"]
    paths = b"".join(
        _message(2, _text(1, path) + _message(2, _path_item(item)))
        for path, item in document["paths"].items()
    )
    definitions = b"".join(
        _message(1, _text(1, name) + _message(2, _schema(schema)))
        for name, schema in document["definitions"].items()
    )
    return b"".join(
        (
            _text(1, document["swagger"]),
            _message(2, _text(1, info["title"]) + _text(2, info["version"])),
            _message(8, paths),
            _message(9, definitions),
            _security(document),
        )
    )


def _security(document: Node) -> bytes:
    required = b"".join(
        _message(12, b"".join(_message(1, _text(1, name)) for name in requirement))
        for requirement in document.get("security", ())
    )
    defined = b"".join(
        _message(1, _text(1, name) + _message(2, _message(2, _api_key(scheme))))
        for name, scheme in document.get("securityDefinitions", {}).items()
    )
    return required + _message(13, defined)


def _api_key(scheme: Node) -> bytes:
    fields = {"type": 1, "name": 2, "in": 3, "description": 4}
    return b"".join(_text(number, scheme.get(name, "")) for name, number in fields.items())


def _path_item(item: Node) -> bytes:
    parts = [
        _message(number, _operation(item[method]))
        for method, number in _METHODS.items()
        if method in item
    ]
    parts += [_message(9, _parameter(parameter)) for parameter in item.get("parameters", ())]
    return b"".join(parts)


def _operation(operation: Node) -> bytes:
    responses = b"".join(
        _message(1, _text(1, code) + _message(2, _message(1, _response(response))))
        for code, response in operation["responses"].items()
    )
    return b"".join(
        (
            *(_text(1, tag) for tag in operation.get("tags", ())),
            _text(5, operation.get("operationId", "")),
            *(_text(6, media) for media in operation.get("produces", ())),
            *(_text(7, media) for media in operation.get("consumes", ())),
            *(_message(8, _parameter(one)) for one in operation.get("parameters", ())),
            _message(9, responses),
            *(_text(10, scheme) for scheme in operation.get("schemes", ())),
            _extensions(13, operation),
        )
    )


def _response(response: Node) -> bytes:
    encoded = _text(1, response["description"])
    if "schema" in response:
        encoded += _message(2, _message(1, _schema(response["schema"])))
    return encoded


def _parameter(parameter: Node) -> bytes:
    """Wrapped as an item that is a parameter, not a reference."""
    if parameter["in"] == "body":
        body = (
            _text(2, parameter["name"])
            + _text(3, "body")
            + _number(4, parameter.get("required", False))
            + _message(5, _schema(parameter["schema"]))
        )
        return _message(1, _message(1, body))
    common = (
        _number(1, parameter.get("required", False))
        + _text(2, parameter["in"])
        + _text(4, parameter["name"])
    )
    unique = parameter.get("uniqueItems", False)
    if parameter["in"] == "path":
        return _message(
            1, _message(2, _message(4, common + _text(5, parameter["type"]) + _number(19, unique)))
        )
    return _message(
        1, _message(2, _message(3, common + _text(6, parameter["type"]) + _number(20, unique)))
    )


def _schema(schema: Node) -> bytes:
    parts = [
        _text(number, schema[name]) for name, number in _SCHEMA_TEXTS.items() if name in schema
    ]
    parts += [
        _tag(number, 1) + struct.pack("<d", schema[name])
        for name, number in _SCHEMA_DOUBLES.items()
        if name in schema
    ]
    parts += [
        _number(number, schema[name]) for name, number in _SCHEMA_NUMBERS.items() if name in schema
    ]
    parts += [write(schema[name]) for name, write in _SCHEMA_PARTS.items() if name in schema]
    parts.append(_extensions(31, schema))
    return b"".join(parts)


def _additional(value: Any) -> bytes:
    if isinstance(value, Mapping):
        return _message(21, _message(1, _schema(value)))
    return _message(21, _tag(2, 0) + bytes([bool(value)]))


def _properties(value: Node) -> bytes:
    named = (
        _message(1, _text(1, name) + _message(2, _schema(schema))) for name, schema in value.items()
    )
    return _message(25, b"".join(named))


_SCHEMA_PARTS: dict[str, Callable[[Any], bytes]] = {
    "default": lambda value: _message(5, _any(value)),
    "required": lambda value: b"".join(_text(19, name) for name in value),
    "enum": lambda value: b"".join(_message(20, _any(one)) for one in value),
    "additionalProperties": _additional,
    "type": lambda value: _message(22, _text(1, value)),
    "items": lambda value: _message(23, _message(1, _schema(value))),
    "properties": _properties,
}


def _extensions(number: int, node: Node) -> bytes:
    return b"".join(
        _message(number, _text(1, name) + _message(2, _any(value)))
        for name, value in node.items()
        if name.startswith("x-")
    )


def _any(value: Any) -> bytes:
    return _text(2, orjson.dumps(value).decode() + "\n")


def _message(number: int, content: bytes) -> bytes:
    return _tag(number, 2) + _varint(len(content)) + content


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode()) if text else b""


def _number(number: int, value: int) -> bytes:
    return _tag(number, 0) + _varint(int(value)) if value else b""


def _tag(number: int, wire: int) -> bytes:
    return _varint(number << 3 | wire)


def _varint(value: int) -> bytes:
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
