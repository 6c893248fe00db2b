from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplane.objects import facts, walk
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kinds
from controlplane.objects.schema import Field, Schema, Type

KINDS = Kinds(facts.builtin_kinds())
UPSTREAM = Path.home() / "go/pkg/mod/k8s.io/api@v0.36.3/testdata/HEAD"
STRING = Schema(type=Type.STRING)


def schema_of(api_version: str, kind: str) -> Schema:
    found = KINDS.by_kind(api_version, kind)
    assert found is not None
    return facts.schema_of(found)


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}


def refused(obj: dict[str, Any], *, strict: bool = False) -> str:
    with pytest.raises(StatusError) as caught:
        walk.decode(obj, schema_of(obj["apiVersion"], obj["kind"]), strict=strict)
    assert caught.value.code == 400
    return str(caught.value).removeprefix(
        f'{obj["kind"]} in version "v1" cannot be handled as a {obj["kind"]}: '
    )


def test_objects_of_every_kind_come_out_as_upstream_writes_them() -> None:
    if not UPSTREAM.is_dir():
        pytest.skip("the Go module cache has no test data of k8s.io/api v0.36.3")
    compared = 0
    for kind in facts.builtin_kinds():
        path = UPSTREAM / f"{kind.group or 'core'}.{kind.version}.{kind.kind}.json"
        if path.exists():
            obj = orjson.loads(path.read_bytes())
            assert walk.decode(obj, facts.schema_of(kind), strict=True) == (obj, [])
            compared += 1
    assert compared > 60


def test_unknown_fields_are_dropped_with_a_warning_that_has_their_path() -> None:
    obj = deployment(foo=1, template={"spec": {"containers": [{"name": "a", "bar": 2}]}})
    out, warnings = walk.decode(obj, schema_of("apps/v1", "Deployment"), strict=False)
    assert warnings == [
        'unknown field "spec.foo"',
        'unknown field "spec.template.spec.containers[0].bar"',
    ]
    assert "foo" not in out["spec"]
    assert "bar" not in out["spec"]["template"]["spec"]["containers"][0]


def test_unknown_fields_are_refused_when_strict() -> None:
    assert refused(deployment(foo=1, bar=2), strict=True) == (
        'strict decoding error: unknown field "spec.foo", unknown field "spec.bar"'
    )


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (
            {"replicas": "x"},
            "cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas"
            " of type int32",
        ),
        (
            {"replicas": 1.5},
            "cannot unmarshal number 1.5 into Go struct field DeploymentSpec.spec.replicas"
            " of type int32",
        ),
        (
            {"replicas": 2**31},
            "cannot unmarshal number 2147483648 into Go struct field"
            " DeploymentSpec.spec.replicas of type int32",
        ),
        (
            {"template": {"spec": {"containers": {}}}},
            "cannot unmarshal object into Go struct field PodSpec.spec.template.spec.containers"
            " of type []v1.Container",
        ),
        (
            {"template": {"spec": {"containers": [{"env": [{"value": 1}]}]}}},
            "cannot unmarshal number into Go struct field"
            " EnvVar.spec.template.spec.containers.env.value of type string",
        ),
        (
            {"template": {"metadata": {"labels": {"a": True}}}},
            "cannot unmarshal bool into Go struct field ObjectMeta.spec.template.metadata.labels"
            " of type string",
        ),
    ],
)
def test_wrong_types_are_refused_in_the_words_of_upstream(spec: dict[str, Any], text: str) -> None:
    assert refused(deployment(**spec)) == f"json: {text}"


def test_what_is_no_quantity_is_refused() -> None:
    container = {"name": "a", "resources": {"limits": {"cpu": "lots"}}}
    text = refused(deployment(template={"spec": {"containers": [container]}}))
    assert text.startswith("quantities must match the regular expression")


def test_what_is_no_base64_is_refused_with_the_byte() -> None:
    obj = {"apiVersion": "v1", "kind": "Secret", "data": {"a": "YWJj!"}}
    assert refused(obj) == "illegal base64 data at input byte 4"


def test_quantities_times_and_base64_get_their_canonical_form() -> None:
    lease = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"creationTimestamp": "2026-01-02T04:04:05.9+01:00"},
        "spec": {"renewTime": "2026-01-02T03:04:05Z"},
    }
    out, _ = walk.decode(lease, schema_of("coordination.k8s.io/v1", "Lease"), strict=True)
    assert out["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"
    assert out["spec"]["renewTime"] == "2026-01-02T03:04:05.000000Z"
    quota = {"spec": {"hard": {"cpu": "1000m", "pods": 4}}}
    out, _ = walk.decode(quota, schema_of("v1", "ResourceQuota"), strict=True)
    assert out["spec"]["hard"] == {"cpu": "1", "pods": "4"}
    secret = {"data": {"a": "YWJj\nZGVm"}}
    out, _ = walk.decode(secret, schema_of("v1", "Secret"), strict=True)
    assert out["data"] == {"a": "YWJjZGVm"}


def test_nulls_and_what_is_empty_go_but_explicit_zeros_of_pointers_stay() -> None:
    obj = deployment(replicas=0, paused=False, minReadySeconds=None)
    obj["metadata"] = {"name": "a", "labels": {}, "annotations": None, "creationTimestamp": None}
    out, _ = walk.decode(obj, schema_of("apps/v1", "Deployment"), strict=True)
    assert out["metadata"] == {"name": "a"}
    assert out["spec"]["replicas"] == 0
    assert "paused" not in out["spec"]


def test_what_upstream_always_writes_is_there() -> None:
    out, _ = walk.decode({"spec": {}}, schema_of("apps/v1", "StatefulSet"), strict=True)
    assert out["status"] == {"replicas": 0, "availableReplicas": 0}
    assert out["spec"]["template"] == {"metadata": {}, "spec": {}}
    assert out["spec"]["serviceName"] == ""


def test_null_in_a_map_is_the_zero_value() -> None:
    obj = {"metadata": {"labels": {"a": None}}}
    out, _ = walk.decode(obj, schema_of("v1", "ConfigMap"), strict=True)
    assert out["metadata"]["labels"] == {"a": ""}


def test_unknown_fields_are_found_in_the_schemas_of_a_definition() -> None:
    inner = {"type": "object", "nonsense": 1}
    schema = {"type": "array", "items": inner}
    crd = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}
    found = schema_of("apiextensions.k8s.io/v1", "CustomResourceDefinition")
    _, warnings = walk.decode(crd, found, strict=False)
    assert warnings == ['unknown field "spec.versions[0].schema.openAPIV3Schema.items.nonsense"']


def _field(name: str, schema: Schema) -> Field:
    return Field(name=name, ref=lambda: schema)


def _object(**fields: Schema) -> Schema:
    return Schema(
        type=Type.OBJECT, fields={name: _field(name, schema) for name, schema in fields.items()}
    )


def test_custom_resources_are_pruned_and_nothing_else() -> None:
    free = Schema(type=Type.OBJECT, preserve_unknown=True)
    root = _object(spec=_object(size=Schema(type=Type.INTEGER), free=free))
    obj = {
        "apiVersion": "example.com/v1",
        "kind": "Gadget",
        "metadata": {"name": "a"},
        "spec": {"size": None, "colour": "red", "free": {"any": []}},
    }
    out, warnings = walk.decode(obj, root, strict=False)
    assert warnings == ['unknown field "spec.colour"']
    assert out["spec"] == {"size": None, "free": {"any": []}}
    assert out["metadata"] == {"name": "a"}
    assert walk.prune(obj, root) == out


def test_wrong_metadata_of_custom_resources_is_refused() -> None:
    metadata = facts.schema_by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta")
    root = _object(spec=Schema(type=Type.INTEGER), metadata=metadata)
    obj = {"kind": "Gadget", "apiVersion": "a/v1", "spec": "x", "metadata": {"labels": {"a": 1}}}
    with pytest.raises(StatusError) as caught:
        walk.decode(obj, root, strict=False)
    assert str(caught.value) == (
        'Gadget in version "v1" cannot be handled as a Gadget: json: cannot unmarshal number'
        " into Go struct field ObjectMeta.labels of type string"
    )


def test_pruning_leaves_everything_else_as_it_is() -> None:
    obj: dict[str, Any] = {
        "spec": {"replicas": None, "foo": 1, "template": {"metadata": {"labels": {}}}}
    }
    assert walk.prune(obj, schema_of("apps/v1", "Deployment")) == {
        "spec": {"replicas": None, "template": {"metadata": {"labels": {}}}}
    }


def test_embedded_objects_keep_their_own_identity() -> None:
    embedded = Schema(type=Type.OBJECT, embedded=True, fields=_object(spec=STRING).fields)
    root = _object(template=embedded)
    obj = {"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {}, "spec": "x", "no": 1}}
    out, warnings = walk.decode(obj, root, strict=False)
    assert warnings == ['unknown field "template.no"']
    assert out["template"].keys() == {"apiVersion", "kind", "metadata", "spec"}


@pytest.mark.parametrize(
    ("raw", "found"),
    [
        (b'{"a":1,"b":{"a":2}}', []),
        (b'{"spec":{"replicas":1,"replicas":2}}', ['duplicate field "spec.replicas"']),
        (b'{"c":[{"x":1,"x":2}]}', ['duplicate field "c[0].x"']),
        (
            b"spec:\n  a: 1\n  b: 2\n  a: 3\n",
            ['yaml: unmarshal errors:\n  line 4: key "a" already set in map'],
        ),
        (b"spec:\n  a: 1\n", []),
        (b"a: &a [1]\nb: &b [*a, *a]\nc: [*b, *b]\n", []),
        (b"a: &a\n  b: *a\n", []),
        (b'{"a":{"x":1,"x":2},"a":{"y":{}}}', ['duplicate field "a"']),
        (b"{broken", []),
    ],
)
def test_duplicate_fields_are_found(raw: bytes, found: list[str]) -> None:
    assert walk.duplicate_fields(raw) == found


def test_bottomless_objects_are_refused() -> None:
    inner: dict[str, Any] = {}
    for _ in range(900):
        inner = {"properties": {"a": inner}}
    version = {"name": "v1", "schema": {"openAPIV3Schema": inner}}
    obj = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [version]},
    }
    assert refused(obj) == "json: exceeded max depth"
