from pathlib import Path

import pytest

from controlplane.generate.__main__ import generate
from controlplane.generate.packages import Checkouts
from controlplane.objects import facts
from controlplane.objects.kinds import Kinds
from controlplane.objects.schema import Schema, Type

DATA = Path(facts.__file__).parent / "data"
MODULES = Path.home() / "go/pkg/mod/k8s.io"
VERSION = "v0.36.3"


def _kinds() -> Kinds:
    return Kinds(facts.builtin_kinds())


def test_data_is_what_the_go_types_say() -> None:
    checkouts = Checkouts(
        api=MODULES / f"api@{VERSION}",
        apimachinery=MODULES / f"apimachinery@{VERSION}",
        apiextensions=MODULES / f"apiextensions-apiserver@{VERSION}",
        aggregator=MODULES / f"kube-aggregator@{VERSION}",
    )
    if not checkouts.api.is_dir():
        pytest.skip(f"the Go module cache has no k8s.io/api {VERSION}")
    generated = generate(checkouts)
    assert generated == {path.name: path.read_text() for path in DATA.glob("*.json")}


def test_every_kind_has_a_schema_with_metadata_and_its_gvk() -> None:
    for kind in facts.builtin_kinds():
        schema = facts.schema_of(kind)
        assert schema.type is Type.OBJECT
        assert schema.gvks == ((kind.group, kind.version, kind.kind),)
        assert {"apiVersion", "kind", "metadata"} <= schema.fields.keys()


def test_every_reachable_type_can_be_built() -> None:
    seen: dict[str, Schema] = {}

    def walk(schema: Schema) -> None:
        if schema.name in seen:
            return
        if schema.name:
            seen[schema.name] = schema
        for field in schema.fields.values():
            walk(field.schema)
        for _, ref in schema.inlined:
            walk(ref())
        if schema.items_ref:
            walk(schema.items)

    for kind in facts.builtin_kinds():
        walk(facts.schema_of(kind))
    assert len(seen) > 500
    assert all(facts.schema_by_name(name).type is schema.type for name, schema in seen.items())


def test_list_of_containers_merges_by_name() -> None:
    containers = facts.schema_by_name("io.k8s.api.core.v1.PodSpec").fields["containers"]
    assert containers.required
    assert containers.number == 2
    assert containers.schema.list_type == "map"
    assert containers.schema.map_keys == ("name",)
    assert containers.schema.merge_key == "name"
    assert containers.schema.patch_strategy == {"merge"}


def test_ports_default_to_tcp_and_know_their_enum() -> None:
    port = facts.schema_by_name("io.k8s.api.core.v1.ContainerPort")
    assert port.fields["protocol"].default == "TCP"
    assert port.fields["protocol"].schema.enum == ("SCTP", "TCP", "UDP")


def test_inlined_sources_are_fields_in_json_and_a_message_in_protobuf() -> None:
    volume = facts.schema_by_name("io.k8s.api.core.v1.Volume")
    assert volume.fields["configMap"].number == 0
    [(number, ref)] = volume.inlined
    assert (number, ref().name) == (2, "io.k8s.api.core.v1.VolumeSource")


def test_selectors_are_atomic() -> None:
    assert facts.schema_by_name("io.k8s.api.core.v1.SecretKeySelector").atomic
    spec = facts.schema_by_name("io.k8s.api.core.v1.PodSpec")
    assert spec.fields["nodeSelector"].schema.atomic


@pytest.mark.parametrize(
    ("api_version", "kind", "name"),
    [
        ("policy/v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
        ("autoscaling/v1", "Scale", "io.k8s.api.autoscaling.v1.Scale"),
        ("authentication.k8s.io/v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
        ("v1", "PodList", "io.k8s.api.core.v1.PodList"),
        ("apps/v1", "DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"),
    ],
)
def test_bodies_of_requests_have_schemas(api_version: str, kind: str, name: str) -> None:
    schema = facts.schema_of_body(api_version, kind)
    assert schema is not None
    assert schema.name == name


def test_unknown_bodies_have_none() -> None:
    assert facts.schema_of_body("v1", "Gadget") is None
    assert facts.schema_of_body("example.com/v1", "Pod") is None


def test_both_event_groups_share_their_objects() -> None:
    kinds = _kinds()
    core = kinds.by_kind("v1", "Event")
    events = kinds.by_kind("events.k8s.io/v1", "Event")
    assert core is not None
    assert events is not None
    assert core.storage_key == events.storage_key == "/core/events"
    assert core.volatile
    assert events.volatile
    assert events.storage_version == "v1"


def test_second_version_of_autoscaling_is_preferred() -> None:
    assert _kinds().versions("autoscaling") == ["v2", "v1"]


def test_pods_have_upstreams_subresources() -> None:
    pods = _kinds().by_resource("", "v1", "pods")
    assert pods is not None
    assert {"status", "log", "exec", "attach", "portforward", "eviction"} <= pods.subresources
    assert pods.short_names == ("po",)
    assert pods.categories == ("all",)
