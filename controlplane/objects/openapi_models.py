"""
Schemas as OpenAPI models, in version 3 for the documents of a group and in version 2.

Only what clients use is written: types, formats, required fields, enums, defaults, the
``x-kubernetes-`` extensions that merge and apply need, and descriptions.
"""

import enum
from collections.abc import Mapping
from typing import Any

import orjson

from controlplane.objects.facts import is_builtin, schema_by_name
from controlplane.objects.openapi_prose import Descriptions
from controlplane.objects.schema import Field, Rules, Schema, Type

Node = dict[str, Any]


class Flavour(enum.Enum):
    V2 = "#/definitions/"
    V3 = "#/components/schemas/"


_PLAIN: dict[Type, Node] = {
    Type.STRING: {"type": "string"},
    Type.INTEGER: {"type": "integer"},
    Type.NUMBER: {"type": "number"},
    Type.BOOLEAN: {"type": "boolean"},
    Type.BYTES: {"type": "string", "format": "byte"},
    Type.QUANTITY: {"type": "string"},
    Type.INT_OR_STRING: {"x-kubernetes-int-or-string": True},
    Type.TIME: {"type": "string", "format": "date-time"},
    Type.MICRO_TIME: {"type": "string", "format": "date-time"},
    Type.DURATION: {"type": "string"},
    Type.FIELDS_V1: {"type": "object"},
    Type.ANY: {},
}
# Types that are a model of their own although they are scalars.
_MODELS_V3: dict[Type, Node] = {
    Type.QUANTITY: {"oneOf": [{"type": "string"}, {"type": "number"}]},
    Type.INT_OR_STRING: {
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    },
}
_MODELS_V2: dict[Type, Node] = {
    Type.QUANTITY: {"type": "string"},
    Type.INT_OR_STRING: {"type": "string", "format": "int-or-string"},
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


class Models:
    """
    Collects the models that a document needs, each once, as encoded JSON.

    A decoded document of all kinds would take tens of megabytes; the encoded parts
    take a tenth.
    """

    def __init__(self, flavour: Flavour, prose: Descriptions) -> None:
        self._flavour = flavour
        self._prose = prose
        self._made: dict[str, orjson.Fragment] = {}
        self._waiting: list[str] = []

    def ref(self, schema: Schema) -> Node:
        """A reference to the model of a named schema, which the document will then have."""
        if schema.name not in self._made and schema.name not in self._waiting:
            if is_builtin(schema):
                self._waiting.append(schema.name)
            else:
                self.add(schema.name, self._model(schema))
        return {"$ref": f"{self._flavour.value}{schema.name}"}

    def add(self, name: str, model: Node) -> Node:
        self._made[name] = orjson.Fragment(orjson.dumps(model))
        return {"$ref": f"{self._flavour.value}{name}"}

    def all(self) -> Mapping[str, orjson.Fragment]:
        while self._waiting:
            name = self._waiting.pop()
            if name not in self._made:
                # Noted first, because models refer to themselves.
                self._made[name] = orjson.Fragment(b"{}")
                self.add(name, self._model(schema_by_name(name)))
        return dict(sorted(self._made.items()))

    def _model(self, schema: Schema) -> Node:
        text, fields = self._prose.of(schema.name) if is_builtin(schema) else ("", {})
        if schema.type is Type.OBJECT:
            model = self._object(schema, fields)
        else:
            special = _MODELS_V3 if self._flavour is Flavour.V3 else _MODELS_V2
            model = dict(special.get(schema.type, _PLAIN[schema.type]))
            if schema.name.endswith(".RawExtension"):
                model["type"] = "object"
        text = text or schema.description
        if text:
            model["description"] = text
        if schema.gvks:
            model["x-kubernetes-group-version-kind"] = [
                {"group": group, "kind": kind, "version": version}
                for group, version, kind in schema.gvks
            ]
        return model

    def _object(self, schema: Schema, prose: Mapping[str, str]) -> Node:
        node: Node = {"type": "object"}
        hidden = self._flavour is Flavour.V2 and (schema.preserve_unknown or schema.nullable)
        if schema.fields and not hidden:
            node["properties"] = {
                field.name: self._field(field, prose.get(field.name, ""))
                for field in schema.fields.values()
            }
            required = sorted(field.name for field in schema.fields.values() if field.required)
            if required:
                node["required"] = required
        if schema.atomic:
            node["x-kubernetes-map-type"] = "atomic"
        return node | self._extensions(schema)

    def _field(self, field: Field, text: str) -> Node:
        schema = field.schema
        node = self.node(schema)
        text = text or schema.description
        more: Node = {}
        if text:
            more["description"] = text
        if field.has_default and (self._flavour is Flavour.V3 or is_builtin(schema)):
            more["default"] = field.default
        if more and "$ref" in node and self._flavour is Flavour.V3:
            node = {"allOf": [{"$ref": node.pop("$ref")}], **node}
        return node | more

    def node(self, schema: Schema) -> Node:
        """Where a schema is used: a reference to it, or itself."""
        if schema.name and schema.type not in (Type.STRING, Type.LIST) and is_builtin(schema):
            return self.ref(schema) | self._marks(schema)
        match schema.type:
            case Type.OBJECT:
                node = self._object(schema, {})
            case Type.LIST:
                node = self._list(schema)
            case Type.MAP:
                node = {"type": "object", "additionalProperties": self.node(schema.items)}
                node |= self._extensions(schema)
                if schema.atomic:
                    node["x-kubernetes-map-type"] = "atomic"
            case _:
                node = dict(_PLAIN[schema.type])
                if schema.format:
                    node["format"] = schema.format
                node |= self._extensions(schema)
        if schema.description:
            node["description"] = schema.description
        return node

    def _list(self, schema: Schema) -> Node:
        node: Node = {"type": "array", "items": self.node(schema.items)}
        node["x-kubernetes-list-type"] = schema.list_type
        if schema.map_keys:
            node["x-kubernetes-list-map-keys"] = list(schema.map_keys)
        if schema.merge_key:
            node["x-kubernetes-patch-merge-key"] = schema.merge_key
        return node | self._marks(schema) | self._extensions(schema)

    def _marks(self, schema: Schema) -> Node:
        """What a field says of the type it refers to."""
        if schema.patch_strategy:
            return {"x-kubernetes-patch-strategy": ",".join(sorted(schema.patch_strategy))}
        return {}

    def _extensions(self, schema: Schema) -> Node:
        node: Node = {}
        if schema.enum:
            node["enum"] = list(schema.enum)
        if schema.preserve_unknown:
            node["x-kubernetes-preserve-unknown-fields"] = True
        if schema.embedded:
            node["x-kubernetes-embedded-resource"] = True
        if schema.nullable and self._flavour is Flavour.V3:
            node["nullable"] = True
        if schema.rules is not None:
            node |= self._rules(schema.rules)
        return node

    def _rules(self, rules: Rules) -> Node:
        names = _RULES if self._flavour is Flavour.V2 else _RULES | _JUNCTORS
        node: Node = {}
        for ours, theirs in names.items():
            value = getattr(rules, ours)
            if value is not None and value is not False and value not in ("", ()):
                node[theirs] = list(value) if isinstance(value, tuple) else value
        return node


def list_model(models: Models, schema: Schema, kind: tuple[str, str, str]) -> Node:
    """The list of a custom resource, which has no schema of its own; group, version, kind."""
    group, version, name = kind
    text = {"type": "string"}
    metadata = schema_by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")
    model = {
        "description": f"{name} is a list of {schema.name.rpartition('.')[2]}",
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": text,
            "kind": text,
            "metadata": models.ref(metadata),
            "items": {"type": "array", "items": models.ref(schema)},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "kind": name, "version": version}],
    }
    return models.add(".".join([*reversed(group.split(".")), version, name]), model)
