from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.objects import facts, openapi, openapi_prose
from controlplane.objects.kinds import Kind, Kinds
from controlplane.objects.schema import Schemas
from controlplane.objects.structural import compile_schema

BUILTIN = facts.builtin_kinds()
UPSTREAM = Path.home() / "go/pkg/mod/k8s.io/kubernetes@v1.36.3/api/openapi-spec/v3"
MODEL = "#/components/schemas/"


def gadget(schema: dict[str, Any] | None) -> tuple[list[Kind], Schemas]:
    kind = Kind(
        group="example.com",
        version="v1",
        kind="Gadget",
        plural="gadgets",
        singular="gadget",
        namespaced=True,
        custom=True,
        verbs=frozenset({"get", "list", "create", "patch", "update", "delete"}),
        subresources=frozenset({"status"}),
    )
    metadata = facts.schema_by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    schemas = facts.load_schemas()
    gvk = (kind.group, kind.version, kind.kind)
    schemas.set(kind, compile_schema(schema, gvk=gvk, metadata=metadata))
    return [*BUILTIN, kind], schemas


def document(group: str, version: str) -> dict[str, Any]:
    made = openapi.group_version_document(group, version, BUILTIN, facts.load_schemas())
    assert made is not None
    found: dict[str, Any] = orjson.loads(made)
    return found


def custom_models(schema: dict[str, Any] | None, *, v2: bool = False) -> dict[str, Any]:
    kinds, schemas = gadget(schema)
    if v2:
        models: dict[str, Any] = orjson.loads(openapi.v2_document(kinds, schemas))["definitions"]
        return models
    made = openapi.group_version_document("example.com", "v1", kinds, schemas)
    assert made is not None
    models = orjson.loads(made)["components"]["schemas"]
    return models


def test_index_names_a_document_with_a_hash_for_each_group_and_version() -> None:
    paths = orjson.loads(openapi.index(BUILTIN, facts.load_schemas()))["paths"]
    assert paths["api/v1"]["serverRelativeURL"].startswith("/openapi/v3/api/v1?hash=")
    assert {"apis/apps/v1", "apis/autoscaling/v1", "apis/autoscaling/v2"} <= paths.keys()
    for path, entry in paths.items():
        _, group, version = f"/{path}".rsplit("/", 2) if path != "api/v1" else ("", "", "v1")
        digest = openapi.group_version_hash(group, version, BUILTIN, facts.load_schemas())
        assert entry["serverRelativeURL"].endswith(f"?hash={digest}")


def test_hash_changes_with_the_schema_of_a_custom_resource() -> None:
    digests = {
        openapi.group_version_hash("example.com", "v1", *gadget(schema))
        for schema in (None, {"type": "object"}, {"type": "object", "description": "new"})
    }
    assert len(digests) == 3


def test_unknown_versions_have_no_document() -> None:
    assert openapi.group_version_document("apps", "v2", BUILTIN, facts.load_schemas()) is None


def test_patches_take_the_parameters_that_kubectl_looks_for() -> None:
    paths = document("apps", "v1")["paths"]
    patch = paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"]
    assert {p["name"] for p in patch["parameters"]} == {
        "dryRun",
        "fieldManager",
        "fieldValidation",
        "force",
    }
    assert patch["x-kubernetes-group-version-kind"] == {
        "group": "apps",
        "kind": "Deployment",
        "version": "v1",
    }


def test_every_patch_that_names_a_kind_takes_them() -> None:
    # kubectl asks the first PATCH of the kind that it meets, in no certain order.
    for methods in document("", "v1")["paths"].values():
        operation = methods.get("patch", {})
        kind = operation.get("x-kubernetes-group-version-kind", {}).get("kind", "")
        if kind and not kind.endswith("Options"):
            names = {parameter["name"] for parameter in operation["parameters"]}
            assert {"fieldValidation", "dryRun"} <= names, operation["operationId"]


def test_every_reference_has_its_model() -> None:
    for group, version in dict.fromkeys((kind.group, kind.version) for kind in BUILTIN):
        made = document(group, version)
        names = made["components"]["schemas"].keys()
        assert {ref.removeprefix(MODEL) for ref in _refs(made)} <= names


def _refs(node: Any) -> set[str]:
    if isinstance(node, dict):
        inner = [_refs(value) for value in node.values()]
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*inner)
    if isinstance(node, list):
        return set().union(*(_refs(value) for value in node))
    return set()


def test_models_are_those_of_upstream() -> None:
    if not UPSTREAM.is_dir():
        pytest.skip("the Go module cache has no k8s.io/kubernetes v1.36.3")
    compared = 0
    for group, version in dict.fromkeys((kind.group, kind.version) for kind in BUILTIN):
        name = f"apis__{group}__{version}" if group else f"api__{version}"
        theirs = orjson.loads((UPSTREAM / f"{name}_openapi.json").read_bytes())
        models = theirs["components"]["schemas"]
        ours = document(group, version)["components"]["schemas"]
        assert models.keys() <= ours.keys()
        for name, model in models.items():
            assert _essence(ours[name]) == _essence(model), name
            compared += 1
    assert compared > 1000


def _essence(node: Any) -> Any:
    """Without prose, and without what means the same as nothing."""
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if len(node.get("allOf", ())) == 1:
        node |= node.pop("allOf")[0]
    for name in ("description", "enum", "x-kubernetes-group-version-kind"):
        if not isinstance(node.get(name), dict):
            node.pop(name, None)
    node.pop("x-kubernetes-unions", None)
    if node.get("default") in ({}, "", 0, False):
        del node["default"]
    if node.get("x-kubernetes-list-type") == "atomic":
        del node["x-kubernetes-list-type"]
    if node.get("x-kubernetes-map-type") == "granular":
        del node["x-kubernetes-map-type"]
    if "required" in node and isinstance(node["required"], list):
        node["required"] = sorted(node["required"])
    return {name: _essence(value) for name, value in node.items()}


SCHEMA = {
    "type": "object",
    "description": "A gadget is a thing.",
    "properties": {
        "spec": {
            "type": "object",
            "description": "What it shall be.",
            "required": ["size", "note"],
            "properties": {
                "size": {"type": "integer", "minimum": 0, "default": 1},
                "note": {"type": "string", "nullable": True, "maxLength": 5},
                "port": {"x-kubernetes-int-or-string": True},
                "names": {"type": "array", "items": {"type": "string"}},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                "kind": {"oneOf": [{"minLength": 1}], "type": "string", "enum": ["a", "b"]},
            },
        }
    },
}


def test_custom_resources_are_published_as_their_definition_says() -> None:
    models = custom_models(SCHEMA)
    model = models["com.example.v1.Gadget"]
    assert model["description"] == "A gadget is a thing."
    assert model["properties"]["spec"] == SCHEMA["properties"]["spec"]  # type: ignore[index]
    assert {"apiVersion", "kind", "metadata"} <= model["properties"].keys()
    assert model["properties"]["metadata"]["description"] == "Standard object's metadata."
    items = models["com.example.v1.GadgetList"]["properties"]["items"]
    assert items["items"] == {"$ref": f"{MODEL}com.example.v1.Gadget"}


def test_version_two_leaves_open_what_it_cannot_say() -> None:
    spec = custom_models(SCHEMA, v2=True)["com.example.v1.Gadget"]["properties"]["spec"]
    assert spec["required"] == ["size"]
    assert spec["properties"]["note"] == {"maxLength": 5}
    assert spec["properties"]["free"] == {"x-kubernetes-preserve-unknown-fields": True}
    assert "oneOf" not in spec["properties"]["kind"]


def test_resources_without_a_schema_are_open_objects() -> None:
    model = custom_models(None)["com.example.v1.Gadget"]
    assert model.keys() == {"type", "x-kubernetes-group-version-kind"}


def test_embedded_objects_have_an_identity() -> None:
    embedded = {"type": "object", "x-kubernetes-embedded-resource": True}
    root = {"type": "object", "properties": {"template": embedded}}
    template = custom_models(root)["com.example.v1.Gadget"]["properties"]["template"]
    assert template["properties"].keys() == {"apiVersion", "kind", "metadata"}
    assert template["required"] == ["kind", "apiVersion"]


def test_descriptions_come_from_the_installed_client() -> None:
    model = document("", "v1")["components"]["schemas"]["io.k8s.api.core.v1.ContainerPort"]
    assert model["description"] == "ContainerPort represents a network port in a single container."
    assert "0 < x < 65536" in model["properties"]["containerPort"]["description"]


def test_without_the_client_there_are_no_descriptions(tmp_path: Path) -> None:
    for folder in (None, tmp_path, tmp_path / "missing"):
        prose = openapi_prose.Descriptions(folder)
        assert prose.of("io.k8s.api.core.v1.ContainerPort") == ("", {})


def test_version_two_in_protobuf_has_every_model() -> None:
    kinds = list(Kinds(BUILTIN))[:1]
    made = openapi.v2_document(kinds, facts.load_schemas())
    encoded = openapi.v2_protobuf(made)
    # Field 1 of the document is the version, a string of three bytes.
    assert encoded.startswith(b"\x0a\x032.0")
    for name in orjson.loads(made)["definitions"]:
        assert name.encode() in encoded
