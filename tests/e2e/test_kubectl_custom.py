"""Custom resources: defined, described, validated, applied, scaled, removed."""

import json
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import Node

DEFINITION = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: boats.e2e.example}
spec:
  group: e2e.example
  scope: Namespaced
  names: {plural: boats, singular: boat, kind: Boat, shortNames: [bt], categories: [fleet]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale:
        specReplicasPath: .spec.crew
        statusReplicasPath: .status.aboard
        labelSelectorPath: .status.selector
    additionalPrinterColumns:
    - {name: Crew, type: integer, jsonPath: .spec.crew}
    - {name: Port, type: string, jsonPath: .spec.port, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.port}]
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        description: A boat of the fleet.
        properties:
          spec:
            type: object
            required: [crew]
            properties:
              crew: {type: integer, minimum: 1, description: How many sail it.}
              most: {type: integer, default: 9}
              port: {type: string, enum: [Bremen, Kiel]}
              sails:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, area: {type: string}}
          status:
            type: object
            properties: {aboard: {type: integer}, selector: {type: string}}
"""
BOAT = """
apiVersion: e2e.example/v1
kind: Boat
metadata: {name: pinnace}
spec: {crew: 2, port: Kiel}
"""


@pytest.fixture(scope="module")
def boats(node: Node) -> Iterator[Space]:
    """The definition is established; each test makes its own boats."""
    node.apply(DEFINITION)
    node.kubectl("wait", "crd/boats.e2e.example", "--for=condition=Established", "--timeout=20s")
    node.kubectl("create", "namespace", "harbour")
    yield Space(node, "harbour")
    node.kubectl("delete", "namespace", "harbour", "--wait=false")
    node.kubectl("delete", "crd", "boats.e2e.example", "--timeout=20s")


@pytest.fixture
def boat(boats: Space) -> Iterator[Space]:
    boats.apply(BOAT)
    yield boats
    boats.kubectl("delete", "boat", "--all")


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.strip().splitlines()]


def test_a_new_kind_is_discovered_under_all_its_names(boat: Space) -> None:
    listed = rows(boat.kubectl("api-resources", "--api-group=e2e.example", "--no-headers"))
    assert listed == [["boats", "bt", "e2e.example/v1", "true", "Boat"]]
    for name in ("boats", "boat", "bt", "fleet", "boats.e2e.example", "boats.v1.e2e.example"):
        assert boat.kubectl("get", name, "-o", "name") == "boat.e2e.example/pinnace\n", name


def test_its_columns_are_shown(boat: Space) -> None:
    assert [row[:2] for row in rows(boat.kubectl("get", "boats"))] == [
        ["NAME", "CREW"],
        ["pinnace", "2"],
    ]
    assert rows(boat.kubectl("get", "boats", "-o", "wide"))[0] == ["NAME", "CREW", "PORT", "AGE"]


def test_defaults_are_filled_in(boat: Space) -> None:
    assert boat.get("boat", "pinnace")["spec"]["most"] == 9


def test_fields_that_were_declared_selectable_choose(boat: Space) -> None:
    assert boat.kubectl("get", "bt", "--field-selector=spec.port=Kiel", "-o", "name")
    assert not boat.kubectl("get", "bt", "--field-selector=spec.port=Bremen", "-o", "name")


def test_explain_and_describe_know_the_kind(boat: Space) -> None:
    shown = boat.kubectl("explain", "boat.spec")
    assert shown.startswith("GROUP:      e2e.example\nKIND:       Boat\nVERSION:    v1\n")
    assert "crew\t<integer> -required-\n    How many sail it.\n" in shown
    assert "enum: Bremen, Kiel" in shown
    assert "Crew:" in boat.kubectl("describe", "boat", "pinnace")


def test_apply_keeps_what_others_added_to_lists_by_key(boat: Space) -> None:
    sails = "{crew: 2, port: Kiel, sails: [{name: NAME}]}"
    for name in ("main", "jib"):
        spec = sails.replace("NAME", name)
        boat.apply(
            BOAT.replace("{crew: 2, port: Kiel}", spec), "--server-side", f"--field-manager={name}"
        )
    names = [sail["name"] for sail in boat.get("boat", "pinnace")["spec"]["sails"]]
    assert names == ["main", "jib"]


def test_client_side_apply_says_what_changed(boat: Space) -> None:
    assert boat.apply(BOAT) == "boat.e2e.example/pinnace unchanged\n"
    assert boat.apply(BOAT.replace("Kiel", "Bremen")) == "boat.e2e.example/pinnace configured\n"


def test_what_the_schema_forbids_is_refused_by_field(boats: Space) -> None:
    def refusal(spec: str) -> str:
        text = BOAT.replace("{crew: 2, port: Kiel}", spec)
        return boats.refused("apply", "-f", "-", "--validate=false", input=text)

    assert refusal("{crew: 0}") == (
        'The Boat "pinnace" is invalid: spec.crew: Invalid value: 0: spec.crew in body should be '
        "greater than or equal to 1"
    )
    assert refusal("{crew: 2, port: Rome}") == (
        'The Boat "pinnace" is invalid: spec.port: Unsupported value: "Rome": supported values: '
        '"Bremen", "Kiel"'
    )
    assert "spec.crew: Required value" in refusal("{port: Kiel}")
    assert 'spec.crew: Invalid value: "string": spec.crew in body must be of type integer' in (
        refusal("{crew: two}")
    )
    twice = refusal("{crew: 2, sails: [{name: a}, {name: a}]}")
    assert 'spec.sails[1]: Duplicate value: {"name":"a"}' in twice


def test_unknown_fields_are_refused_when_strict_and_pruned_otherwise(boats: Space) -> None:
    text = BOAT.replace("port: Kiel", "port: Kiel, wheels: 4")
    assert boats.refused("apply", "-f", "-", input=text) == (
        'Error from server (BadRequest): error when creating "STDIN": Boat in version "v1" '
        'cannot be handled as a Boat: strict decoding error: unknown field "spec.wheels"'
    )
    warned = boats.run("apply", "-f", "-", "--validate=warn", input=text)
    assert warned.stderr == 'Warning: unknown field "spec.wheels"\n'
    assert "wheels" not in boats.get("boat", "pinnace")["spec"]
    boats.kubectl("delete", "boat", "pinnace")


def test_status_is_written_only_through_its_subresource(boat: Space) -> None:
    patch = json.dumps({"spec": {"crew": 5}, "status": {"aboard": 3}})
    flags = ("--type=merge", "-p", patch)
    boat.kubectl("patch", "boat", "pinnace", *flags)
    found = boat.get("boat", "pinnace")
    assert (found["spec"]["crew"], found.get("status")) == (5, None)
    assert found["metadata"]["generation"] == 2
    boat.kubectl("patch", "boat", "pinnace", *flags, "--subresource=status")
    found = boat.get("boat", "pinnace")
    assert (found["status"], found["metadata"]["generation"]) == ({"aboard": 3}, 2)


def test_it_is_scaled(boat: Space) -> None:
    said = boat.kubectl("scale", "boat", "pinnace", "--replicas=4")
    assert said == "boat.e2e.example/pinnace scaled\n"
    assert boat.value("boat", "pinnace", path="{.spec.crew}") == "4"


def test_a_watch_and_a_wait_see_it_change(boat: Space) -> None:
    with boat.background("wait", "boat/pinnace", "--for=jsonpath={.spec.crew}=7") as waiting:
        boat.kubectl("patch", "boat", "pinnace", "--type=merge", "-p", '{"spec": {"crew": 7}}')
        assert waiting.wait(timeout=20) == 0


def test_removing_the_definition_removes_its_objects_and_its_kind(node: Node) -> None:
    other = DEFINITION.replace("boat", "raft").replace("Boat", "Raft").replace("bt", "rft")
    node.apply(other.replace("categories: [fleet]", "categories: []"))
    node.kubectl("wait", "crd/rafts.e2e.example", "--for=condition=Established", "--timeout=20s")
    node.apply(BOAT.replace("Boat", "Raft"), "--namespace=default")
    node.kubectl("delete", "crd", "rafts.e2e.example", "--timeout=20s")
    # kubectl still believes in the kind for a while, since it remembers what it discovered.
    done = node.kubectl("get", "rafts", "-A", check=False)
    assert done.stderr.endswith("the server could not find the requested resource\n")
    served = node.kubectl("get", "--raw", "/apis/e2e.example/v1").stdout
    assert "rafts" not in served


def test_rules_in_cel_are_checked_and_evaluated(node: Node) -> None:
    rule = '{type: integer, x-kubernetes-validations: [{rule: "self < 9"}], minimum: 1,'
    other = DEFINITION.replace("boat", "sail").replace("Boat", "Sail").replace("bt", "sl")
    other = other.replace("categories: [fleet]", "categories: []")
    ruled = other.replace("{type: integer, minimum: 1,", rule)
    done = node.kubectl("apply", "-f", "-", input=ruled.replace("self < 9", "self <"), check=False)
    assert "compilation failed: ERROR: <input>:1:7: Syntax error" in done.stderr
    node.apply(ruled)
    node.kubectl("wait", "crd/sails.e2e.example", "--for=condition=Established", "--timeout=20s")
    sail = BOAT.replace("Boat", "Sail")
    node.apply(sail, "--namespace=default")
    patch = ("patch", "sail", "pinnace", "--type=merge", "-p", '{"spec": {"crew": 12}}')
    done = node.kubectl("--namespace=default", *patch, check=False)
    assert "spec.crew: Invalid value: 12: failed rule: self < 9" in done.stderr
    node.kubectl("delete", "crd", "sails.e2e.example", "--timeout=20s")
