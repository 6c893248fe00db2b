"""Rules of custom resources, when they are defined and when resources are written."""

from typing import Any

import pytest

from controlplane.objects.cel.validations import rule_errors, validation_errors
from controlplane.objects.errors import FieldError
from controlplane.objects.facts import schema_by_name
from controlplane.objects.schema import Schema
from controlplane.objects.structural import compile_schema

METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
NUMBER = {"type": "integer"}


def schema(spec: dict[str, Any], *root_rules: dict[str, Any]) -> Schema:
    root: dict[str, Any] = {"type": "object", "properties": {"spec": spec}}
    root["x-kubernetes-validations"] = list(root_rules)
    gvk = ("example.com", "v1", "Door")
    return compile_schema(root, gvk=gvk, metadata=schema_by_name(METADATA))


def ruled(properties: dict[str, Any], *rules: dict[str, Any]) -> Schema:
    body = {"type": "object", "properties": properties, "x-kubernetes-validations": list(rules)}
    return schema(body)


def door(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "front", "labels": {"a": "b"}}
    return {
        "apiVersion": "example.com/v1",
        "kind": "Door",
        "metadata": metadata,
        "spec": spec,
    }


def told(found: list[FieldError]) -> list[str]:
    return [str(error) for error in found]


def test_a_rule_that_is_false_names_the_field_and_itself() -> None:
    rule = {"rule": "self.low <= self.high"}
    of = ruled({"low": NUMBER, "high": NUMBER}, rule)
    assert not validation_errors(door(low=1, high=2), None, of)
    (error,) = told(validation_errors(door(low=3, high=2), None, of))
    assert error == "spec: Invalid value: failed rule: self.low <= self.high"


def test_messages_and_reasons_are_those_of_the_rule() -> None:
    of = ruled(
        {"n": NUMBER},
        {"rule": "self.n > 1", "message": "too few", "reason": "FieldValueForbidden"},
        {"rule": "self.n > 1", "messageExpression": "'only %d'.format([self.n])"},
        {"rule": "self.n > 1", "messageExpression": "self.nope", "message": "fallback"},
        {"rule": "self.n > 1", "fieldPath": ".n"},
    )
    assert told(validation_errors(door(n=1), None, of)) == [
        "spec: Forbidden: too few",
        "spec: Invalid value: only 1",
        "spec: Invalid value: fallback",
        "spec.n: Invalid value: failed rule: self.n > 1",
    ]


def test_a_rule_of_a_change_needs_what_was_before() -> None:
    of = ruled({"driver": {"type": "string"}}, {"rule": "self.driver == oldSelf.driver"})
    assert not validation_errors(door(driver="a"), None, of)
    assert not validation_errors(door(driver="a"), door(driver="a"), of)
    assert told(validation_errors(door(driver="b"), door(driver="a"), of))


def test_an_optional_old_value_is_asked_for_at_creation_too() -> None:
    rule = {"rule": "oldSelf.hasValue() || self.n == 0", "optionalOldSelf": True}
    of = ruled({"n": NUMBER}, rule)
    assert told(validation_errors(door(n=1), None, of))
    assert not validation_errors(door(n=1), door(n=5), of)


def test_what_was_wrong_before_may_stay_as_it_is() -> None:
    of = ruled({"n": NUMBER}, {"rule": "self.n > 1"})
    assert not validation_errors(door(n=1), door(n=1), of)
    assert told(validation_errors(door(n=0), door(n=1), of))


def test_items_of_a_list_that_is_a_map_are_followed_by_their_key() -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "n": NUMBER},
        "x-kubernetes-validations": [{"rule": "self.n >= oldSelf.n"}],
    }
    items = {
        "type": "array",
        "items": item,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["name"],
    }
    of = ruled({"items": items})
    old = door(items=[{"name": "a", "n": 5}, {"name": "b", "n": 1}])
    new = door(items=[{"name": "b", "n": 2}, {"name": "a", "n": 4}, {"name": "c", "n": 0}])
    (error,) = told(validation_errors(new, old, of))
    assert error.startswith("spec.items[1]: ")


def test_values_are_what_the_schema_says() -> None:
    text = {"type": "string"}
    of = ruled(
        {
            "at": {**text, "format": "date-time"},
            "for": {**text, "format": "duration"},
            "size": {"type": "number"},
            "a-b": NUMBER,
            "namespace": text,
        },
        {"rule": "self.at < timestamp('2025-01-01T00:00:00Z')"},
        {"rule": "self.__for__ > duration('1m') && type(self.size) == double"},
        {"rule": "self.a__dash__b == 1 && self.__namespace__ == 'x'"},
    )
    good = {"at": "2024-01-01T00:00:00Z", "for": "1h", "size": 2, "a-b": 1, "namespace": "x"}
    assert not validation_errors(door(**good), None, of)


def test_of_the_metadata_a_rule_sees_the_name() -> None:
    spec = {"type": "object", "properties": {}}
    assert not validation_errors(
        door(), None, schema(spec, {"rule": "self.metadata.name == 'front'"})
    )
    hidden = schema(spec, {"rule": "has(self.metadata.labels)", "message": "hidden"})
    assert "hidden" in told(validation_errors(door(), None, hidden))[0]


def test_an_error_in_a_rule_refuses() -> None:
    of = ruled({"n": NUMBER, "m": NUMBER}, {"rule": "self.n / self.m > 0"})
    (error,) = told(validation_errors(door(n=1, m=0), None, of))
    assert "division by zero evaluating rule: self.n / self.m > 0" in error


def test_rules_that_would_run_for_long_are_ended() -> None:
    rule = {
        "rule": "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d >= 0))))"
    }
    of = ruled({"l": {"type": "array", "items": NUMBER}}, rule)
    (error,) = told(validation_errors(door(l=list(range(60))), None, of))
    assert "running out of cost budget" in error


@pytest.mark.parametrize(
    ("rule", "field", "words"),
    [
        ({"rule": "self.x >"}, "rule", "compilation failed: ERROR: <input>:1:9: Syntax error"),
        ({"rule": "other == 1"}, "rule", "undeclared reference to 'other'"),
        ({"rule": ""}, "rule", "rule is not specified"),
        ({"rule": "true", "messageExpression": "nope"}, "messageExpression", "undeclared"),
        ({"rule": "true", "reason": "Because"}, "reason", "Unsupported value"),
        ({"rule": "true &&\ntrue"}, "message", "must be specified if rule contains line breaks"),
    ],
)
def test_a_rule_is_checked_where_it_is_defined(
    rule: dict[str, Any], field: str, words: str
) -> None:
    inner = {"type": "object", "x-kubernetes-validations": [rule]}
    (error,) = rule_errors({"type": "object", "properties": {"spec": inner}}, "schema")
    assert error.field == f"schema.properties[spec].x-kubernetes-validations[0].{field}"
    assert words in str(error)
