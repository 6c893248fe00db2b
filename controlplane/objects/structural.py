"""
Structural schemas: what a CustomResourceDefinition says of its fields becomes a Schema.

:func:`structural_errors` refuses what Kubernetes refuses (KEP-1111: a type for
each field, no ``$ref``, value validations only within logical junctors);
:func:`compile_schema` makes of the rest the one structure that all walks use.
Rules in CEL (``x-kubernetes-validations``) are evaluated by :mod:`controlplane.objects.cel`.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from controlplane.objects.errors import FieldError, forbidden_field, invalid_value, required
from controlplane.objects.schema import Field, Rules, Schema, Type

JSON = Mapping[str, Any]
JUNCTORS = ("allOf", "anyOf", "oneOf")
PLAIN_TYPES = {
    "string": Type.STRING,
    "integer": Type.INTEGER,
    "number": Type.NUMBER,
    "boolean": Type.BOOLEAN,
}
# What a schema within allOf, anyOf, oneOf and not must leave to the one around it.
NOT_IN_JUNCTORS = (
    "description",
    "type",
    "default",
    "additionalProperties",
    "nullable",
    "title",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
)
NOT_SUPPORTED = ("$ref", "$schema", "id", "definitions", "dependencies", "patternProperties")
ANYTHING = Schema(type=Type.ANY)
INT_OR_STRING = Schema(type=Type.INT_OR_STRING)


def structural_errors(schema: JSON, path: str) -> list[FieldError]:
    """What makes a schema non-structural; ``path`` is where it stands in the definition."""
    errors = list(_node_errors(schema, path, "root"))
    if schema.get("type") not in (None, "", "object"):
        errors.append(invalid_value(f"{path}.type", schema["type"], "must be object at the root"))
    return errors


def _node_errors(schema: JSON, path: str, place: str) -> Iterable[FieldError]:
    yield from _keyword_errors(schema, path)
    yield from _type_errors(schema, path, place)
    yield from _list_errors(schema, path)
    for name, inner in (schema.get("properties") or {}).items():
        yield from _node_errors(inner, f"{path}.properties[{name}]", "field")
    extra = schema.get("additionalProperties")
    if isinstance(extra, Mapping):
        yield from _node_errors(extra, f"{path}.additionalProperties", "map")
    items = schema.get("items")
    if isinstance(items, Mapping):
        yield from _node_errors(items, f"{path}.items", "array")
    for junctor in JUNCTORS:
        for index, inner in enumerate(schema.get(junctor) or ()):
            yield from _junctor_errors(inner, schema, f"{path}.{junctor}[{index}]")
    if isinstance(schema.get("not"), Mapping):
        yield from _junctor_errors(schema["not"], schema, f"{path}.not")


def _keyword_errors(schema: JSON, path: str) -> Iterable[FieldError]:
    for word in NOT_SUPPORTED:
        if schema.get(word):
            yield forbidden_field(f"{path}.{word}", f"{word} is not supported")
    if schema.get("uniqueItems"):
        detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic"
        yield forbidden_field(f"{path}.uniqueItems", detail)
    if isinstance(schema.get("items"), list):
        detail = "items must be a schema object and not an array"
        yield forbidden_field(f"{path}.items", detail)
    if schema.get("properties") and schema.get("additionalProperties"):
        detail = "additionalProperties and properties are mutual exclusive"
        yield forbidden_field(f"{path}.additionalProperties", detail)
    if schema.get("additionalProperties") is False:
        detail = "additionalProperties cannot be set to false"
        yield forbidden_field(f"{path}.additionalProperties", detail)


def _type_errors(schema: JSON, path: str, place: str) -> Iterable[FieldError]:
    kind = schema.get("type")
    free = schema.get("x-kubernetes-int-or-string") or schema.get(
        "x-kubernetes-preserve-unknown-fields"
    )
    if not kind and place == "root":
        yield required(f"{path}.type", "must not be empty at the root")
    elif not kind and not free:
        where = {"array": "array items", "map": "object fields"}.get(place, "object fields")
        yield required(f"{path}.type", f"must not be empty for specified {where}")
    elif kind == "array" and not schema.get("items"):
        yield required(f"{path}.items", "must be specified")
    elif kind and kind not in (*PLAIN_TYPES, "object", "array"):
        known = "array, boolean, integer, number, object, string"
        yield FieldError(
            "FieldValueNotSupported",
            f"{path}.type",
            f'Unsupported value: "{kind}": supported values: {known}',
        )
    if schema.get("x-kubernetes-embedded-resource") and kind != "object":
        detail = "must be object if x-kubernetes-embedded-resource is true"
        yield invalid_value(f"{path}.type", kind or "", detail)


def _list_errors(schema: JSON, path: str) -> Iterable[FieldError]:
    list_type = schema.get("x-kubernetes-list-type")
    keys = schema.get("x-kubernetes-list-map-keys") or ()
    if list_type and schema.get("type") != "array":
        yield invalid_value(
            f"{path}.type", schema.get("type", ""), "must be array if x-kubernetes-list-type is set"
        )
    if list_type not in (None, "atomic", "set", "map"):
        yield invalid_value(
            f"{path}.x-kubernetes-list-type", list_type, "must be one of atomic, set, map"
        )
    if list_type == "map" and not keys:
        detail = "must not be empty if x-kubernetes-list-type is map"
        yield required(f"{path}.x-kubernetes-list-map-keys", detail)
    items = schema.get("items")
    if list_type != "map" or not isinstance(items, Mapping):
        return
    for key in keys:
        found = (items.get("properties") or {}).get(key)
        if found is None:
            detail = "entries must all be names of item properties"
            yield invalid_value(f"{path}.x-kubernetes-list-map-keys", key, detail)
        elif key not in (items.get("required") or ()) and "default" not in found:
            detail = (
                "this property is in x-kubernetes-list-map-keys, so it must have a default "
                "or be a required property"
            )
            yield required(f"{path}.items.properties[{key}].default", detail)


def _junctor_errors(schema: JSON, around: JSON, path: str) -> Iterable[FieldError]:
    int_or_string = around.get("x-kubernetes-int-or-string")
    for word in NOT_IN_JUNCTORS:
        if schema.get(word) and not (word == "type" and int_or_string):
            yield forbidden_field(f"{path}.{word}", "must be empty to be structural")
    for name, inner in (schema.get("properties") or {}).items():
        known = (around.get("properties") or {}).get(name)
        if known is None and not around.get("x-kubernetes-preserve-unknown-fields"):
            outer = path.rpartition(".")[0]
            yield required(
                f"{outer}.properties[{name}]", f"because it is defined in {path}.properties[{name}]"
            )
        else:
            yield from _junctor_errors(inner, known or {}, f"{path}.properties[{name}]")


def uses_cel(schema: JSON) -> bool:
    """Whether any rule in it is written in CEL."""
    if schema.get("x-kubernetes-validations"):
        return True
    inner = [*(schema.get("properties") or {}).values()]
    inner += [schema.get("items"), schema.get("additionalProperties")]
    return any(uses_cel(one) for one in inner if isinstance(one, Mapping))


def has_rules(schema: Schema) -> bool:
    """As :func:`uses_cel`, of a compiled schema; found out once for each part of it."""
    return _has_rules(schema, set())


def _has_rules(schema: Schema, seen: set[int]) -> bool:
    if id(schema) in seen:
        return False
    seen.add(id(schema))
    if schema.rules is not None and schema.rules.validations:
        return True
    inner = [field.schema for name, field in schema.fields.items() if name != "metadata"]
    if schema.items_ref is not None:
        inner.append(schema.items)
    return any(_has_rules(one, seen) for one in inner)


def compile_schema(schema: JSON | None, *, gvk: tuple[str, str, str], metadata: Schema) -> Schema:
    """
    The Schema of a custom resource in one version: group, version, kind.

    Without a schema (only ``preserveUnknownFields`` allows it) everything is kept.
    ``metadata`` is the schema of ObjectMeta.
    """
    root = dict(schema or {"type": "object", "x-kubernetes-preserve-unknown-fields": True})
    compiled = compile_node(root)
    return Schema(
        type=Type.OBJECT,
        name=".".join([*reversed(gvk[0].split(".")), gvk[1], gvk[2]]),
        fields={**compiled.fields, **_object_fields(metadata)},
        preserve_unknown=compiled.preserve_unknown,
        gvks=(gvk,),
        rules=compiled.rules,
        description=compiled.description,
    )


def _object_fields(metadata: Schema) -> dict[str, Field]:
    text = Schema(type=Type.STRING)
    return {
        "apiVersion": Field(name="apiVersion", ref=lambda: text),
        "kind": Field(name="kind", ref=lambda: text),
        "metadata": Field(name="metadata", ref=lambda: metadata),
    }


def compile_node(schema: JSON) -> Schema:
    """One node below the root; also what stands within a logical junctor."""
    preserve = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    shared: dict[str, Any] = {
        "nullable": bool(schema.get("nullable")),
        "rules": _rules(schema),
        "description": schema.get("description", ""),
        "enum": tuple(schema.get("enum") or ()),
        "format": schema.get("format", ""),
    }
    kind = schema.get("type")
    if schema.get("x-kubernetes-int-or-string"):
        return Schema(type=Type.INT_OR_STRING, **shared)
    if kind == "array":
        return Schema(
            type=Type.LIST,
            items_ref=_lazily(schema.get("items") or {}),
            list_type=schema.get("x-kubernetes-list-type") or "atomic",
            map_keys=tuple(schema.get("x-kubernetes-list-map-keys") or ()),
            **shared,
        )
    if kind == "object":
        return _compile_object(schema, shared, preserve)
    if kind in PLAIN_TYPES:
        return Schema(type=PLAIN_TYPES[kind], **shared)
    return Schema(type=Type.ANY, preserve_unknown=preserve, **shared)


def _compile_object(schema: JSON, shared: Mapping[str, Any], preserve: bool) -> Schema:
    atomic = schema.get("x-kubernetes-map-type") == "atomic"
    extra = schema.get("additionalProperties")
    if extra and not schema.get("properties"):
        items = _lazily(extra) if isinstance(extra, Mapping) else (lambda: ANYTHING)
        return Schema(type=Type.MAP, items_ref=items, atomic=atomic, **shared)
    needed = frozenset(schema.get("required") or ())
    fields = {
        name: _field(name, inner, required_=name in needed)
        for name, inner in (schema.get("properties") or {}).items()
    }
    # A required field that has no schema of its own is still required.
    for name in needed - fields.keys():
        fields[name] = Field(name=name, ref=lambda: ANYTHING, required=True)
    return Schema(
        type=Type.OBJECT,
        fields=fields,
        atomic=atomic,
        preserve_unknown=preserve,
        embedded=bool(schema.get("x-kubernetes-embedded-resource")),
        **shared,
    )


def _field(name: str, schema: JSON, *, required_: bool) -> Field:
    return Field(
        name=name,
        ref=_lazily(schema),
        required=required_,
        # A null where none may be is no default, as upstream prunes it.
        has_default=schema.get("default") is not None
        or ("default" in schema and bool(schema.get("nullable"))),
        default=schema.get("default"),
    )


class _Lazily:
    """A schema that is compiled when it is first asked for, once."""

    __slots__ = ("_compiled", "_make")

    def __init__(self, schema: JSON) -> None:
        self._make = partial(compile_node, schema)
        self._compiled: Schema | None = None

    def __call__(self) -> Schema:
        if self._compiled is None:
            self._compiled = self._make()
        return self._compiled


def _lazily(schema: JSON) -> _Lazily:
    return _Lazily(schema)


def _rules(schema: JSON) -> Rules | None:
    said: dict[str, Any] = {
        "minimum": schema.get("minimum"),
        "maximum": schema.get("maximum"),
        "exclusive_minimum": schema.get("exclusiveMinimum"),
        "exclusive_maximum": schema.get("exclusiveMaximum"),
        "multiple_of": schema.get("multipleOf"),
        "min_length": schema.get("minLength"),
        "max_length": schema.get("maxLength"),
        "pattern": schema.get("pattern"),
        "min_items": schema.get("minItems"),
        "max_items": schema.get("maxItems"),
        "min_properties": schema.get("minProperties"),
        "max_properties": schema.get("maxProperties"),
        "all_of": tuple(schema.get("allOf") or ()),
        "any_of": tuple(schema.get("anyOf") or ()),
        "one_of": tuple(schema.get("oneOf") or ()),
        "not_": schema.get("not"),
        "validations": tuple(schema.get("x-kubernetes-validations") or ()),
    }
    # By identity for False: a minimum of 0 is a rule.
    given = {
        key: value
        for key, value in said.items()
        if value is not None and value is not False and value not in ((), "")
    }
    return Rules(**given) if given else None
