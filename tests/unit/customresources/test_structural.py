"""Schemas of custom resources: which are refused, and what the others say of values."""

from typing import Any

import pytest

from controlplane.objects.definitions import definition_errors, kinds_of, version_priority
from controlplane.objects.schema import Schema, Type
from controlplane.objects.structural import compile_schema, structural_errors
from controlplane.objects.values import value_errors

METADATA = Schema(type=Type.OBJECT)


def compiled(spec: dict[str, Any]) -> Schema:
    root = {"type": "object", "properties": {"spec": spec}}
    assert structural_errors(root, "schema") == []
    return compile_schema(root, gvk=("example.dev", "v1", "Thing"), metadata=METADATA)


def found(spec_schema: dict[str, Any], spec: Any) -> list[str]:
    return [str(error) for error in value_errors({"spec": spec}, compiled(spec_schema))]


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        pytest.param({}, "s.type: Required value: must not be empty at the root", id="no-type"),
        pytest.param({"type": "string"}, "must be object at the root", id="root-is-no-object"),
        pytest.param(
            {"type": "object", "properties": {"a": {}}},
            "s.properties[a].type: Required value: must not be empty for specified object fields",
            id="field-without-type",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"$ref": "x", "type": "object"}}},
            "$ref is not supported",
            id="ref",
        ),
        pytest.param(
            {"type": "object", "properties": {"a": {"type": "array"}}},
            "s.properties[a].items: Required value: must be specified",
            id="array-without-items",
        ),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": {"type": "string"}},
                "additionalProperties": {"type": "string"},
            },
            "mutual exclusive",
            id="map-and-object",
        ),
        pytest.param(
            {
                "type": "object",
                "properties": {"a": {"type": "string", "anyOf": [{"description": "no"}]}},
            },
            "must be empty to be structural",
            id="junctor-with-more-than-values",
        ),
        pytest.param(
            {
                "type": "object",
                "properties": {
                    "a": {
                        "type": "array",
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["k"],
                        "items": {"type": "object", "properties": {"k": {"type": "string"}}},
                    }
                },
            },
            "must have a default or be a required property",
            id="optional-map-key",
        ),
    ],
)
def test_a_schema_that_is_not_structural_is_refused(schema: dict[str, Any], says: str) -> None:
    assert any(says in str(error) for error in structural_errors(schema, "s"))


TYPED = {
    "type": "object",
    "required": ["size"],
    "properties": {
        "size": {"type": "integer", "minimum": 0, "maximum": 9},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5},
        "mode": {"type": "string", "enum": ["a", "b"]},
        "port": {"x-kubernetes-int-or-string": True},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "at": {"type": "string", "format": "date-time"},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        pytest.param({}, ["spec.size: Required value"], id="required"),
        pytest.param(
            {"size": "1"},
            [
                'spec.size: Invalid value: "string": spec.size in body must be of type integer: '
                '"string"'
            ],
            id="type",
        ),
        pytest.param(
            {"size": -1},
            [
                "spec.size: Invalid value: -1: spec.size in body should be greater than or equal "
                "to 0"
            ],
            id="minimum-of-zero",
        ),
        pytest.param(
            {"size": 1, "name": "A"},
            ["spec.name: Invalid value: \"A\": spec.name in body should match '^[a-z]+$'"],
            id="pattern",
        ),
        pytest.param(
            {"size": 1, "name": "abcdef"},
            ["spec.name: Too long: may not be more than 5 bytes"],
            id="length",
        ),
        pytest.param(
            {"size": 1, "mode": "c"},
            ['spec.mode: Unsupported value: "c": supported values: "a", "b"'],
            id="enum",
        ),
        pytest.param(
            {"size": 1, "tags": ["x", "x"]},
            ['spec.tags[1]: Duplicate value: "x"'],
            id="set",
        ),
        pytest.param(
            {"size": 1, "at": "today"},
            ['spec.at: Invalid value: "today": spec.at in body must be of type date-time: "today"'],
            id="format",
        ),
        pytest.param(
            {"size": None},
            ['spec.size: Invalid value: "null": spec.size in body must be of type integer: "null"'],
            id="null",
        ),
        pytest.param({"size": 1, "port": "http", "free": {"a": [1]}}, [], id="valid"),
        pytest.param({"size": 1, "port": 80}, [], id="int-or-string"),
        pytest.param({"size": 2.0}, [], id="whole-float"),
    ],
)
def test_a_value_is_held_against_its_schema(spec: dict[str, Any], says: list[str]) -> None:
    assert found(TYPED, spec) == says


def test_the_end_of_a_pattern_is_not_before_a_line_feed() -> None:
    assert found(TYPED, {"size": 1, "name": "a\n"}) != []


def test_logical_junctors_are_evaluated() -> None:
    one = {
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
    }
    assert found(one, {"a": "x"}) == []
    both = found(one, {"a": "x", "b": "y"})
    assert len(both) == 1
    assert "Found 2 valid alternatives" in both[0]


def definition(**spec: Any) -> dict[str, Any]:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object"}},
    }
    names = {"plural": "things", "kind": "Thing"}
    full = {"group": "example.dev", "scope": "Namespaced", "names": names, "versions": [version]}
    return {"metadata": {"name": "things.example.dev"}, "spec": full | spec}


def test_a_complete_definition_has_no_errors() -> None:
    assert definition_errors(definition()) == []


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"group": "other.dev"}, "metadata.name", id="name"),
        pytest.param({"scope": "World"}, "spec.scope", id="scope"),
        pytest.param({"versions": []}, "spec.versions", id="no-version"),
        pytest.param(
            {"conversion": {"strategy": "Magic"}}, "spec.conversion.strategy", id="conversion"
        ),
        pytest.param(
            {"versions": [{"name": "v1", "served": True, "storage": True}]},
            "spec.versions[0].schema.openAPIV3Schema",
            id="no-schema",
        ),
    ],
)
def test_an_incomplete_definition_names_the_field(change: dict[str, Any], field: str) -> None:
    assert field in [error.field for error in definition_errors(definition(**change))]


def test_kinds_come_in_the_order_of_their_versions() -> None:
    version = definition()["spec"]["versions"][0]
    names = ["v1beta1", "v10", "foo1", "v2", "v1alpha1", "v1"]
    versions = [version | {"name": name, "storage": name == "v1"} for name in names]
    kinds = list(kinds_of(definition(versions=versions)))
    assert [k.version for k in kinds] == ["v10", "v2", "v1", "v1beta1", "v1alpha1", "foo1"]
    assert {k.storage_version for k in kinds} == {"example.dev/v1"}
    assert version_priority("v2") < version_priority("v1beta9")
