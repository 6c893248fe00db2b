"""
Built-in types as OpenAPI models, in version 3 for the documents of a group and in version 2.

Only what clients use is written: types, formats, required fields, enums, defaults, the
``x-kubernetes-`` extensions that merge and apply need, and descriptions.
"""

import enum
from collections.abc import Mapping
from typing import Any

import orjson

from controlplane.objects.facts import is_builtin, schema_by_name
from controlplane.objects.openapi_custom import CustomModel
from controlplane.objects.openapi_prose import Descriptions, Prose
from controlplane.objects.schema import Field, Schema, Type

Node = dict[str, Any]


_ANY_KIND = "io.k8s.api.core.v1.ConfigMap"


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
    Type.INT_OR_STRING: {"type": "string"},
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


class Models:
    """
    Collects the models that a document needs, each once, as encoded JSON.

    A decoded document of all kinds would take tens of megabytes; the encoded parts
    take a tenth.
    """

    def __init__(self, flavour: Flavour, prose: Descriptions) -> None:
        self._flavour = flavour
        self._descriptions = prose
        self._read: dict[str, Prose] = {}
        self._made: dict[str, orjson.Fragment] = {}
        self._waiting: list[str] = []

    def _prose(self, name: str) -> Prose:
        """Of a built-in type itself, and of its fields by name."""
        if name not in self._read:
            self._read[name] = self._descriptions.of(name)
        return self._read[name]

    def ref(self, schema: Schema) -> Node:
        """A reference to the model of a named schema, which the document will then have."""
        if schema.name not in self._made and schema.name not in self._waiting:
            if is_builtin(schema):
                self._waiting.append(schema.name)
            else:
                self.add(schema.name, self._custom(schema))
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

    def _custom(self, schema: Schema) -> Node:
        writer = CustomModel(
            v2=self._flavour is Flavour.V2, identity=self.identity(), refer=self.ref
        )
        return writer.root(schema) | _gvks(schema)

    def identity(self) -> dict[str, Node]:
        """The properties of every object, described as a built-in kind describes them."""
        schema = schema_by_name(_ANY_KIND)
        # As for every kind: the package describes the type, not the field.
        prose = {"metadata": "Standard object's metadata."} | dict(self._prose(_ANY_KIND)[1])
        return {
            name: self._field(schema.fields[name], prose.get(name, ""))
            for name in ("apiVersion", "kind", "metadata")
        }

    def _model(self, schema: Schema) -> Node:
        text, fields = self._prose(schema.name)
        if schema.type is Type.OBJECT:
            model = self._object(schema, fields)
        else:
            special = _MODELS_V3 if self._flavour is Flavour.V3 else _MODELS_V2
            model = dict(special.get(schema.type, _PLAIN[schema.type]))
            if schema.name.endswith(".RawExtension"):
                model["type"] = "object"
        if text:
            model["description"] = text
        return model | _gvks(schema)

    def _object(self, schema: Schema, prose: Mapping[str, str]) -> Node:
        node: Node = {"type": "object"}
        if schema.fields:
            node["properties"] = {
                field.name: self._field(field, prose.get(field.name, ""))
                for field in schema.fields.values()
            }
        required = sorted(field.name for field in schema.fields.values() if field.required)
        if required:
            node["required"] = required
        if schema.atomic:
            node["x-kubernetes-map-type"] = "atomic"
        return node

    def _field(self, field: Field, text: str) -> Node:
        schema = field.schema
        node = self.node(schema)
        # The package describes no field whose type is described; then that must do.
        text = text or (self._prose(schema.name)[0] if "$ref" in node else "")
        more: Node = {}
        if text:
            more["description"] = text
        if field.has_default:
            more["default"] = field.default
        if more and "$ref" in node and self._flavour is Flavour.V3:
            node = {"allOf": [{"$ref": node.pop("$ref")}], **node}
        return node | more

    def node(self, schema: Schema) -> Node:
        """Where a built-in type is used: a reference to it, or itself."""
        if schema.name and schema.type not in (Type.STRING, Type.LIST):
            return self.ref(schema) | self._marks(schema)
        if schema.type is Type.LIST:
            return self._list(schema)
        if schema.type is Type.MAP:
            node: Node = {"type": "object", "additionalProperties": self.node(schema.items)}
            if schema.atomic:
                node["x-kubernetes-map-type"] = "atomic"
            return node
        node = dict(_PLAIN[schema.type])
        if schema.format:
            node["format"] = schema.format
        if schema.enum:
            node["enum"] = list(schema.enum)
        return node

    def _list(self, schema: Schema) -> Node:
        node: Node = {"type": "array", "items": self.node(schema.items)}
        node["x-kubernetes-list-type"] = schema.list_type
        if schema.map_keys:
            node["x-kubernetes-list-map-keys"] = list(schema.map_keys)
        if schema.merge_key:
            node["x-kubernetes-patch-merge-key"] = schema.merge_key
        return node | self._marks(schema)

    def _marks(self, schema: Schema) -> Node:
        """What a field says of the type it refers to."""
        node: Node = {}
        if schema.patch_strategy:
            node["x-kubernetes-patch-strategy"] = ",".join(sorted(schema.patch_strategy))
        if schema.name and schema.type is Type.OBJECT:
            general = schema_by_name(schema.name).atomic
            if schema.atomic != general:
                node["x-kubernetes-map-type"] = "atomic" if schema.atomic else "granular"
        return node


def _gvks(schema: Schema) -> Node:
    if not schema.gvks:
        return {}
    found = [
        {"group": group, "kind": kind, "version": version} for group, version, kind in schema.gvks
    ]
    return {"x-kubernetes-group-version-kind": found}


def list_model(models: Models, schema: Schema, kind: tuple[str, str, str]) -> Node:
    """The list of a custom resource, which has no schema of its own; group, version, kind."""
    group, version, name = kind
    identity = models.identity()
    listing = schema_by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta")
    items = {"type": "array", "items": models.ref(schema)}
    single = schema.name.rpartition(".")[2]
    model = {
        "description": f"{name} is a list of {single}",
        "type": "object",
        "required": ["items"],
        "properties": identity | {"metadata": models.ref(listing), "items": items},
        "x-kubernetes-group-version-kind": [{"group": group, "kind": name, "version": version}],
    }
    return models.add(".".join([*reversed(group.split(".")), version, name]), model)
