"""
Is a custom resource what its schema says? Types, required fields, and OpenAPI's value rules.

Texts are those of the API server's own validator, since people search for them.
Source: OpenAPI 3.0 "Schema Object" within the limits of structural schemas.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from controlplane.objects.errors import (
    FieldError,
    duplicate,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.formats import matches
from controlplane.objects.schema import Field, Rules, Schema, Type
from controlplane.objects.structural import compile_node
from controlplane.objects.walk import prune

NAMES = {
    Type.OBJECT: "object",
    Type.MAP: "object",
    Type.LIST: "array",
    Type.STRING: "string",
    Type.INTEGER: "integer",
    Type.NUMBER: "number",
    Type.BOOLEAN: "boolean",
}
# Never checked against the schema: the API server has rules of its own for these.
OWN_RULES = ("apiVersion", "kind", "metadata")


def value_errors(obj: Mapping[str, Any], schema: Schema) -> list[FieldError]:
    """All that is wrong with a custom resource, its metadata left out; empty: valid."""
    return list(_object(obj, schema, "", skip=OWN_RULES)) + list(_rules(obj, schema, ""))


def default_errors(value: Any, schema: Schema, path: str) -> list[FieldError]:
    """What is wrong with a default: it neither fits nor, pruned, stays what it is."""
    if value is None:
        return []  # as if it had been left out; upstream prunes it
    errors = list(_value(value, schema, path))
    around = Schema(type=Type.OBJECT, fields={"": Field(name="", ref=lambda: schema)})
    if not errors and prune({"": value}, around)[""] != value:
        errors.append(invalid_value(path, value, "must not have unknown fields"))
    return errors


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _value(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    if value is None:
        if not schema.nullable and schema.type is not Type.ANY:
            yield _wrong_type(path, NAMES.get(schema.type, "string"), "null")
        return
    if not _has_type(value, schema.type):
        found = _type_name(value)
        if schema.type is Type.INT_OR_STRING:
            yield _wrong_type(path, "integer,string", found)
        else:
            yield _wrong_type(path, NAMES[schema.type], found)
        return
    if schema.enum and value not in schema.enum:
        yield not_supported(path, value, map(str, schema.enum))
    yield from _inner(value, schema, path)
    yield from _rules(value, schema, path)


def _inner(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    match schema.type:
        case Type.OBJECT:
            skip = OWN_RULES if schema.embedded else ()
            yield from _object(value, schema, path, skip=skip)
        case Type.MAP:
            items = schema.items
            for key, inner in value.items():
                yield from _value(inner, items, _join(path, key))
        case Type.LIST:
            items = schema.items
            for index, inner in enumerate(value):
                yield from _value(inner, items, f"{path}[{index}]")
            yield from _duplicates(value, schema, path)
        case Type.STRING | Type.INTEGER | Type.NUMBER if schema.format:
            if not matches(schema.format, value):
                text = f"{path} in body must be of type {schema.format}: {_show(value)}"
                yield _invalid(path, value, text)
        case _:
            pass


def _object(
    value: Mapping[str, Any], schema: Schema, path: str, *, skip: tuple[str, ...]
) -> Iterator[FieldError]:
    for name, field in schema.fields.items():
        if name in skip:
            continue
        if name in value:
            yield from _value(value[name], field.schema, _join(path, name))
        elif field.required:
            yield required(_join(path, name))


def _duplicates(value: list[Any], schema: Schema, path: str) -> Iterator[FieldError]:
    if schema.list_type not in ("set", "map"):
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        mark = item
        if schema.list_type == "map" and isinstance(item, Mapping):
            mark = {key: item.get(key) for key in schema.map_keys}
        if mark in seen:
            yield duplicate(f"{path}[{index}]", mark)
        seen.append(mark)


def _has_type(value: Any, wanted: Type) -> bool:
    match wanted:
        case Type.OBJECT | Type.MAP:
            return isinstance(value, Mapping)
        case Type.LIST:
            return isinstance(value, list)
        case Type.STRING:
            return isinstance(value, str)
        case Type.INTEGER:
            whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
            return whole and not isinstance(value, bool)
        case Type.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)
        case Type.BOOLEAN:
            return isinstance(value, bool)
        case Type.INT_OR_STRING:
            return isinstance(value, int | str) and not isinstance(value, bool)
        case _:
            return True


def _type_name(value: Any) -> str:
    match value:
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case _:
            return "object"


def _wrong_type(path: str, wanted: str, found: str) -> FieldError:
    text = f'Invalid value: "{found}": {path} in body must be of type {wanted}: "{found}"'
    return FieldError("FieldValueTypeInvalid", path, text)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ",".join(f'"{key}":{_show(inner)}' for key, inner in value.items())
        return f"{{{inner}}}"
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


def _invalid(path: str, value: Any, text: str) -> FieldError:
    return FieldError("FieldValueInvalid", path, f"Invalid value: {_show(value)}: {text}")


def _rules(value: Any, schema: Schema, path: str) -> Iterator[FieldError]:
    rules = schema.rules
    if rules is None or value is None:
        return
    match value:
        case bool():
            pass
        case str():
            yield from _string_rules(value, rules, path)
        case int() | float():
            yield from _number_rules(value, rules, path)
        case list():
            yield from _size_rules(value, (rules.min_items, rules.max_items), path, "items")
        case Mapping():
            bounds = (rules.min_properties, rules.max_properties)
            yield from _size_rules(value, bounds, path, "properties")
        case _:
            pass
    yield from _junctors(value, rules, path)


def _string_rules(value: str, rules: Rules, path: str) -> Iterator[FieldError]:
    if rules.min_length is not None and len(value) < rules.min_length:
        text = f"{path} in body should be at least {rules.min_length} chars long"
        yield _invalid(path, value, text)
    if rules.max_length is not None and len(value) > rules.max_length:
        text = f"Too long: may not be more than {rules.max_length} bytes"
        yield FieldError("FieldValueTooLong", path, text)
    if rules.pattern and not pattern(rules.pattern).search(value):
        yield _invalid(path, value, f"{path} in body should match '{rules.pattern}'")


def _number_rules(value: float, rules: Rules, path: str) -> Iterator[FieldError]:
    low, high = rules.minimum, rules.maximum
    if low is not None and (value < low or (rules.exclusive_minimum and value == low)):
        more = "greater than" if rules.exclusive_minimum else "greater than or equal to"
        yield _invalid(path, value, f"{path} in body should be {more} {low}")
    if high is not None and (value > high or (rules.exclusive_maximum and value == high)):
        less = "less than" if rules.exclusive_maximum else "less than or equal to"
        yield _invalid(path, value, f"{path} in body should be {less} {high}")
    if rules.multiple_of and value % rules.multiple_of:
        yield _invalid(path, value, f"{path} in body should be a multiple of {rules.multiple_of}")


def _size_rules(
    value: Any, bounds: tuple[int | None, int | None], path: str, noun: str
) -> Iterator[FieldError]:
    low, high = bounds
    size = len(value)
    if low is not None and size < low:
        yield _invalid(path, size, f"{path} in body should have at least {low} {noun}")
    if high is not None and size > high:
        text = f"Too many: {size}: must have at most {high} items"
        yield FieldError("FieldValueTooMany", path, text)


def _junctors(value: Any, rules: Rules, path: str) -> Iterator[FieldError]:
    if rules.all_of and not all(_satisfies(value, one) for one in rules.all_of):
        yield _invalid(path, value, f'"{path}" must validate all the schemas (allOf)')
    if rules.any_of and not any(_satisfies(value, one) for one in rules.any_of):
        yield _invalid(path, value, f'"{path}" must validate at least one schema (anyOf)')
    if rules.one_of:
        found = sum(_satisfies(value, one) for one in rules.one_of)
        if found != 1:
            tail = "Found none valid" if not found else f"Found {found} valid alternatives"
            text = f'"{path}" must validate one and only one schema (oneOf). {tail}'
            yield _invalid(path, value, text)
    if rules.not_ is not None and _satisfies(value, rules.not_):
        yield _invalid(path, value, f'"{path}" must not validate the schema (not)')


def _satisfies(value: Any, schema: Mapping[str, Any]) -> bool:
    """Within a logical junctor: a schema without types, which says only what it says."""
    if "type" in schema:  # int-or-string's own anyOf
        return not any(True for _ in _value(value, compile_node(schema), ""))
    if schema.get("enum") and value not in schema["enum"]:
        return False
    if isinstance(value, Mapping):
        if any(name not in value for name in schema.get("required") or ()):
            return False
        for name, inner in (schema.get("properties") or {}).items():
            if name in value and not _satisfies(value[name], inner):
                return False
    items = schema.get("items")
    if isinstance(value, list) and isinstance(items, Mapping):
        return all(_satisfies(item, items) for item in value)
    return not any(True for _ in _rules(value, compile_node(schema), ""))


POSIX = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:upper:]": "A-Z",
    "[:space:]": r"\t\n\v\f\r ",
    "[:xdigit:]": "0-9A-Fa-f",
    "[:word:]": "0-9A-Za-z_",
}


@lru_cache(maxsize=512)
def pattern(text: str) -> re.Pattern[str]:
    """A pattern in RE2's syntax as Python's; ``re.error`` for what is neither."""
    for name, members in POSIX.items():
        text = text.replace(name, members)
    text = re.sub(r"(?<!\\)((?:\\\\)*)\\z", r"\1\\Z", text)
    return re.compile(_dollar_is_the_end(text), re.ASCII)


def _dollar_is_the_end(text: str) -> str:
    """Python's ``$`` also matches before a last line feed; RE2's does not."""
    out: list[str] = []
    in_class = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = True
        elif char == "[":
            in_class = True
        elif char == "]":
            in_class = False
        elif char == "$" and not in_class:
            char = r"\Z"
        out.append(char)
    return "".join(out)


def pattern_errors(schemas: Iterable[tuple[str, str]]) -> list[FieldError]:
    """Patterns that do not compile; each with the path where it stands."""
    errors: list[FieldError] = []
    for path, text in schemas:
        try:
            pattern(text)
        except re.error as err:
            why = f"must be a valid regular expression, but isn't: {err}"
            errors.append(_invalid(path, text, why))
    return errors
