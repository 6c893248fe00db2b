"""
OpenAPI models of custom resources, from their compiled schemas.

Version 3 says what the definition says. Version 2 cannot: kubectl's old validator trips
over fields of unknown or nullable objects, so that those are left open there, and logical
junctors have no form in it. Source: the documentation of CustomResourceDefinition,
"Publish Validation Schema in OpenAPI".
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.objects.facts import is_builtin
from controlplane.objects.schema import Field, Rules, Schema, Type

Node = dict[str, Any]

_IDENTITY = frozenset({"apiVersion", "kind", "metadata"})
_PLAIN: dict[Type, Node] = {
    Type.STRING: {"type": "string"},
    Type.INTEGER: {"type": "integer"},
    Type.NUMBER: {"type": "number"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.INT_OR_STRING: {"x-kubernetes-int-or-string": True},
}
_RULES = {
    "minimum": "minimum",
    "maximum": "maximum",
    "exclusive_minimum": "exclusiveMinimum",
    "exclusive_maximum": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "pattern": "pattern",
    "min_items": "minItems",
    "max_items": "maxItems",
    "unique_items": "uniqueItems",
    "min_properties": "minProperties",
    "max_properties": "maxProperties",
    "validations": "x-kubernetes-validations",
}
_JUNCTORS = {"all_of": "allOf", "any_of": "anyOf", "one_of": "oneOf", "not_": "not"}


class CustomModel:
    """
    Writes one custom resource's model.

    ``identity`` has the properties that every object has (apiVersion, kind, metadata);
    ``refer`` makes the reference to a built-in type.
    """

    def __init__(
        self, *, v2: bool, identity: Mapping[str, Node], refer: Callable[[Schema], Node]
    ) -> None:
        self._v2 = v2
        self._identity = identity
        self._refer = refer

    def root(self, schema: Schema) -> Node:
        unspecified = not schema.description and schema.fields.keys() <= _IDENTITY
        if schema.preserve_unknown and (self._v2 or unspecified):
            # One more property, and kubectl takes all others for unknown.
            return {"type": "object"}
        node = self._node(schema)
        node["properties"] = node.get("properties", {}) | self._identity
        return node

    def _node(self, schema: Schema) -> Node:
        if is_builtin(schema) and schema.type is Type.OBJECT:
            return self._refer(schema)
        node = self._shape(schema)
        if self._v2 and (schema.nullable or (schema.preserve_unknown and _is_open(schema))):
            for name in ("type", "items", "properties"):
                node.pop(name, None)
        if schema.embedded and not (self._v2 and schema.preserve_unknown):
            node["properties"] = node.get("properties", {}) | self._identity
            needed = node.get("required", [])
            more = [name for name in ("kind", "apiVersion") if name not in needed]
            node["required"] = [*needed, *more]
        if schema.description:
            node["description"] = schema.description
        return node | self._rest(schema)

    def _shape(self, schema: Schema) -> Node:
        match schema.type:
            case Type.OBJECT:
                return self._object(schema)
            case Type.LIST:
                node = {"type": "array", "items": self._node(schema.items)}
                if schema.list_type != "atomic":  # what a list is when nothing was said
                    node["x-kubernetes-list-type"] = schema.list_type
                if schema.map_keys:
                    node["x-kubernetes-list-map-keys"] = list(schema.map_keys)
                return node
            case Type.MAP:
                return {"type": "object", "additionalProperties": self._node(schema.items)}
            case _:
                return dict(_PLAIN.get(schema.type, {}))

    def _object(self, schema: Schema) -> Node:
        node: Node = {"type": "object"}
        # Fields that are only required have no schema of their own.
        shown = {
            field.name: self._field(field)
            for field in schema.fields.values()
            if not (field.required and field.schema == _ANYTHING)
        }
        if shown:
            node["properties"] = shown
        required = [
            field.name
            for field in schema.fields.values()
            if field.required and not (self._v2 and field.schema.nullable)
        ]
        if required:
            node["required"] = required
        return node

    def _field(self, field: Field) -> Node:
        node = self._node(field.schema)
        if field.has_default:
            node["default"] = field.default
        return node

    def _rest(self, schema: Schema) -> Node:
        node: Node = {}
        for name, value in (
            ("format", schema.format),
            ("enum", list(schema.enum)),
            ("x-kubernetes-preserve-unknown-fields", schema.preserve_unknown),
            ("x-kubernetes-embedded-resource", schema.embedded),
            ("x-kubernetes-map-type", "atomic" if schema.atomic else ""),
            ("nullable", schema.nullable and not self._v2),
        ):
            if value:
                node[name] = value
        if schema.rules is not None:
            node |= self._rules(schema.rules)
        return node

    def _rules(self, rules: Rules) -> Node:
        names = _RULES if self._v2 else _RULES | _JUNCTORS
        node: Node = {}
        for ours, theirs in names.items():
            value = getattr(rules, ours)
            if value is not None and value is not False and value not in ("", ()):
                node[theirs] = list(value) if isinstance(value, tuple) else value
        return node


_ANYTHING = Schema(type=Type.ANY)


def _is_open(schema: Schema) -> bool:
    return schema.type in (Type.OBJECT, Type.LIST, Type.ANY)
