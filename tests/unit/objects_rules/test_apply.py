from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.objects import managed
from controlplane.objects.apply import LAST_APPLIED, apply
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import clone
from controlplane.objects.schema import Schema, Type
from tests.unit.objects_rules.schemas import (
    ANY,
    DEPLOYMENT,
    INTEGER,
    STRING,
    keyed,
    listed,
    mapped,
    obj,
    set_of,
)

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)


def deployment(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}


def applied(
    live: Any, new: Any, manager: str, *, schema: Schema = DEPLOYMENT, **more: Any
) -> dict[str, Any]:
    version = new.get("apiVersion", "v1")
    arguments: dict[str, Any] = {"schema": schema, "api_version": version, "now": NOW, **more}
    return apply(live, new, manager=manager, **arguments)


def tracked(live: Any, new: Any, manager: str, now: datetime = NOW, **more: Any) -> dict[str, Any]:
    result: dict[str, Any] = clone(new)
    arguments: dict[str, Any] = {"schema": DEPLOYMENT, "api_version": "apps/v1", **more}
    managed.track(live, result, manager=manager, now=now, **arguments)
    return result


def fields(of: Any, manager: str, operation: str = "Apply") -> Any:
    for entry in of["metadata"].get("managedFields", []):
        if (entry["manager"], entry["operation"]) == (manager, operation):
            return entry["fieldsV1"]
    return None


def web(**more: Any) -> dict[str, Any]:
    return {"template": {"spec": {"containers": [{"name": "web", **more}]}}}


NGINX = 'k:{"name":"web"}'


def test_an_apply_creates_and_owns_what_it_says() -> None:
    after = applied(None, deployment(replicas=1, **web(image="nginx")), "me")
    assert after["spec"]["replicas"] == 1
    assert after["metadata"]["managedFields"] == [
        {
            "manager": "me",
            "operation": "Apply",
            "apiVersion": "apps/v1",
            "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:spec": {
                    "f:replicas": {},
                    "f:template": {
                        "f:spec": {"f:containers": {NGINX: {".": {}, "f:name": {}, "f:image": {}}}}
                    },
                }
            },
        }
    ]


def test_a_field_that_is_no_longer_applied_is_removed() -> None:
    first = applied(None, deployment(replicas=1, paused=True), "me")
    after = applied(first, deployment(paused=True), "me")
    assert after["spec"] == {"paused": True}


def test_a_field_that_another_applier_shares_stays() -> None:
    first = applied(None, deployment(replicas=1), "me")
    second = applied(first, deployment(replicas=1), "other")
    after = applied(second, deployment(), "me")
    assert after["spec"] == {"replicas": 1}
    assert fields(after, "me") == {"f:spec": {}}
    assert fields(after, "other") == {"f:spec": {"f:replicas": {}}}


def test_a_change_to_what_another_owns_is_a_conflict() -> None:
    live = tracked(None, deployment(replicas=1), "kubectl")
    with pytest.raises(StatusError) as raised:
        applied(live, deployment(replicas=2), "me")
    assert raised.value.code == 409
    assert raised.value.message == (
        'Apply failed with 1 conflict: conflict with "kubectl" using apps/v1: .spec.replicas'
    )
    assert raised.value.body()["details"] == {
        "causes": [
            {
                "reason": "FieldManagerConflict",
                "message": 'conflict with "kubectl" using apps/v1',
                "field": ".spec.replicas",
            }
        ]
    }


def test_several_conflicts_are_listed_by_manager() -> None:
    live = applied(None, deployment(replicas=1, **web(image="a")), "one")
    live = tracked(live, {**live, "status": {"replicas": 1}}, "two", subresource="status")
    new = {**deployment(replicas=2, **web(image="b")), "status": {"replicas": 2}}
    with pytest.raises(StatusError) as raised:
        applied(live, new, "me")
    assert raised.value.message == (
        "Apply failed with 3 conflicts: "
        'conflicts with "one":\n- .spec.replicas\n'
        '- .spec.template.spec.containers[name="web"].image\n'
        'conflicts with "two" with subresource "status" using apps/v1:\n- .status.replicas'
    )


def test_force_takes_the_field_over() -> None:
    live = tracked(None, deployment(replicas=1, paused=True), "kubectl")
    after = applied(live, deployment(replicas=2), "me", force=True)
    assert after["spec"] == {"replicas": 2, "paused": True}
    assert fields(after, "kubectl", "Update") == {"f:spec": {"f:paused": {}, ".": {}}}
    assert fields(after, "me") == {"f:spec": {"f:replicas": {}}}


def test_the_same_value_is_owned_together() -> None:
    live = tracked(None, deployment(replicas=1), "kubectl")
    after = applied(live, deployment(replicas=1), "me")
    assert fields(after, "kubectl", "Update") == fields(live, "kubectl", "Update")
    assert fields(after, "me") == {"f:spec": {"f:replicas": {}}}


def test_the_applier_may_always_change_its_own_field() -> None:
    first = applied(None, deployment(replicas=1), "me")
    assert applied(first, deployment(replicas=2), "me")["spec"] == {"replicas": 2}


def test_a_repeated_apply_changes_nothing_not_even_the_time() -> None:
    new = deployment(replicas=1, **web(image="nginx"))
    first = applied(None, new, "me")
    assert applied(first, new, "me", now=LATER) == first


def test_fields_from_before_the_first_apply_get_an_owner() -> None:
    live = deployment(replicas=1, paused=True)
    with pytest.raises(StatusError, match='conflict with "before-first-apply" using apps/v1'):
        applied(live, deployment(replicas=2), "me")
    after = applied(live, deployment(replicas=2), "me", force=True)
    assert fields(after, "before-first-apply", "Update")["f:spec"]["f:paused"] == {}


def test_keyed_lists_merge_and_keep_what_others_added() -> None:
    live = applied(None, deployment(**web(image="a")), "me")
    with_sidecar = clone(live)
    with_sidecar["spec"]["template"]["spec"]["containers"].append({"name": "sidecar"})
    live = tracked(live, with_sidecar, "injector")
    after = applied(live, deployment(**web(image="b")), "me")
    assert after["spec"]["template"]["spec"]["containers"] == [
        {"name": "web", "image": "b"},
        {"name": "sidecar"},
    ]


def test_an_item_that_is_no_longer_applied_goes_unless_another_applies_it_too() -> None:
    first = applied(None, deployment(**web(image="a")), "me")
    nothing = deployment(template={"spec": {}})
    assert applied(first, nothing, "me").get("spec") is None
    shared = applied(first, deployment(**web(args=["x"])), "other")
    after = applied(shared, nothing, "me")
    assert after["spec"]["template"]["spec"]["containers"] == [{"name": "web", "args": ["x"]}]


def test_keys_that_are_left_out_take_their_default() -> None:
    ports = [{"containerPort": 80, "name": "http"}]
    first = applied(None, deployment(**web(ports=ports)), "me")
    named = 'k:{"containerPort":80,"protocol":"TCP"}'
    path = fields(first, "me")["f:spec"]["f:template"]["f:spec"]["f:containers"][NGINX]
    assert path["f:ports"] == {named: {".": {}, "f:containerPort": {}, "f:name": {}}}
    defaulted = clone(first)
    defaulted["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"] = "TCP"
    udp = [{"containerPort": 80, "protocol": "UDP"}, {"containerPort": 80, "name": "web"}]
    after = applied(defaulted, deployment(**web(ports=udp)), "me")
    assert after["spec"]["template"]["spec"]["containers"][0]["ports"] == [
        {"containerPort": 80, "protocol": "UDP"},
        {"containerPort": 80, "protocol": "TCP", "name": "web"},
    ]


def test_atomic_structs_and_maps_are_owned_as_a_whole() -> None:
    live = applied(None, deployment(selector={"matchLabels": {"a": "1"}}), "one")
    assert fields(live, "one") == {"f:spec": {"f:selector": {}}}
    with pytest.raises(StatusError, match=r"conflict with \"one\": \.spec\.selector"):
        applied(live, deployment(selector={"matchLabels": {"b": "1"}}), "two")


def test_sets_merge_by_value() -> None:
    one = {"metadata": {"name": "x", "finalizers": ["a/a"]}}
    two = {"metadata": {"name": "x", "finalizers": ["b/b"]}}
    live = applied(applied(None, one, "one"), two, "two")
    assert live["metadata"]["finalizers"] == ["a/a", "b/b"]
    assert fields(live, "two") == {"f:metadata": {"f:finalizers": {'v:"b/b"': {}}}}
    after = applied(live, {"metadata": {"name": "x"}}, "one")
    assert after["metadata"]["finalizers"] == ["b/b"]


def test_labels_are_owned_one_by_one() -> None:
    one = {"metadata": {"name": "x", "labels": {"a": "1"}}}
    two = {"metadata": {"name": "x", "labels": {"b": "2"}}}
    live = applied(applied(None, one, "one"), two, "two")
    assert live["metadata"]["labels"] == {"a": "1", "b": "2"}
    after = applied(live, {"metadata": {"name": "x"}}, "two")
    assert after["metadata"]["labels"] == {"a": "1"}


def test_order_is_the_applied_one_with_live_items_in_between() -> None:
    schema = obj(items=keyed(obj(name=STRING), "name"))

    def items(*names: str) -> dict[str, Any]:
        return {"items": [{"name": name} for name in names]}

    live = items("a", "b", "c", "d")
    for wanted, expected in [
        (("c", "a"), ["b", "c", "d", "a"]),
        (("x", "b"), ["a", "x", "b", "c", "d"]),
        (("d", "y"), ["a", "b", "c", "d", "y"]),
    ]:
        after = applied(live, items(*wanted), "me", schema=schema)
        assert [item["name"] for item in after["items"]] == expected


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (deployment(bogus=1), ".spec.bogus: field not declared in schema"),
        (
            deployment(template={"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}),
            '.spec.template.spec.containers: duplicate entries for key [name="a"]',
        ),
        (
            deployment(template={"spec": {"containers": [{"image": "a"}]}}),
            "associative list with keys has an element that omits all key fields",
        ),
        (deployment(template="x"), ".spec.template: expected map, got string"),
        (
            {"apiVersion": "apps/v1", "metadata": {"managedFields": [{}]}},
            "metadata.managedFields must be nil",
        ),
    ],
)
def test_what_does_not_fit_the_schema_is_refused(new: Any, text: str) -> None:
    with pytest.raises(StatusError) as raised:
        applied(None, new, "me")
    assert raised.value.code == 400
    assert text in raised.value.message


def test_another_version_than_that_of_the_endpoint_is_refused() -> None:
    with pytest.raises(StatusError, match="Specified patch version: apps/v1, expected: apps/v2"):
        applied(None, deployment(), "me", api_version="apps/v2")


def test_schemaless_objects_have_granular_maps_and_atomic_lists() -> None:
    one = {"metadata": {"name": "x"}, "spec": {"a": {"b": 1}, "l": [1]}}
    two = {"metadata": {"name": "x"}, "spec": {"a": {"c": 2}}}
    live = applied(applied(None, one, "one", schema=ANY), two, "two", schema=ANY)
    assert live["spec"] == {"a": {"b": 1, "c": 2}, "l": [1]}
    with pytest.raises(StatusError, match=r"\.spec\.l$"):
        applied(live, {"spec": {"l": [2]}}, "three", schema=ANY)
    after = applied(live, {"metadata": {"name": "x"}}, "one", schema=ANY)
    assert after["spec"] == {"a": {"c": 2}}


def test_null_in_a_configuration_removes_the_field() -> None:
    live = tracked(None, deployment(replicas=1, paused=True), "other")
    after = applied(live, deployment(replicas=None), "me", force=True)
    assert after["spec"] == {"paused": True}


def test_null_is_a_value_where_the_schema_says_nothing() -> None:
    schema = obj(values=Schema(type=Type.OBJECT, preserve_unknown=True), text=STRING)
    one = {"values": {"a": None, "b": {"c": None, "d": 1}}, "text": None}
    live = applied(None, one, "me", schema=schema)
    assert live["values"] == one["values"]
    assert "text" not in live
    two = {"values": {"a": 1, "b": {"c": None, "d": None}}}
    after = applied(live, two, "me", schema=schema)
    assert after["values"] == two["values"]
    assert applied(after, {"values": {}}, "me", schema=schema).get("values", {}) == {}


def test_what_the_endpoint_resets_is_owned_by_nobody() -> None:
    new = {**deployment(replicas=1), "status": {"replicas": 1}}
    after = applied(None, new, "me", reset=frozenset({("status",)}))
    assert "f:status" not in fields(after, "me")


def test_kubectl_takes_over_what_it_applied_from_the_client_side() -> None:
    last = '{"apiVersion":"apps/v1","kind":"Deployment","spec":{"replicas":1}}'
    live = deployment(replicas=1, paused=False)
    live["metadata"]["annotations"] = {LAST_APPLIED: last}
    live = tracked(None, live, "kubectl-client-side-apply")
    after = applied(live, deployment(replicas=2), "kubectl")
    assert after["spec"]["replicas"] == 2
    assert '"replicas":2' in after["metadata"]["annotations"][LAST_APPLIED]
    with pytest.raises(StatusError, match=r"\.spec\.paused"):
        applied(live, deployment(paused=True), "kubectl")
    with pytest.raises(StatusError):
        applied(live, deployment(replicas=2), "me")


def test_an_apply_leaves_its_arguments_alone() -> None:
    live = applied(None, deployment(replicas=1, **web(image="a")), "me")
    new = deployment(**web(image="b"))
    before = clone([live, new])
    applied(live, new, "me")
    assert [live, new] == before


NESTED = obj(
    items=keyed(obj(name=STRING, value=set_of(STRING)), "name"),
    struct=obj(name=STRING, value=INTEGER),
)


def nested(live: Any, new: Any, manager: str) -> dict[str, Any]:
    return applied(live, new, manager, schema=NESTED)


def updated(live: Any, new: Any) -> dict[str, Any]:
    kept = {**new, "metadata": live["metadata"]}
    return tracked(live, kept, "controller", schema=NESTED, api_version="v1")


def test_an_item_that_others_apply_keeps_what_is_theirs_and_nobodys() -> None:
    live = nested(None, {"items": [{"name": "a"}, {"name": "b", "value": ["c"]}]}, "one")
    live = nested(live, {"items": [{"name": "b", "value": ["d"]}]}, "two")
    live = updated(live, {"items": [{"name": "a"}, {"name": "b", "value": ["c", "d", "e"]}]})
    after = nested(live, {"items": [{"name": "a"}]}, "one")
    assert after["items"] == [{"name": "a"}, {"name": "b", "value": ["d", "e"]}]


def test_an_item_that_one_applied_goes_with_what_updates_put_into_it() -> None:
    live = nested(None, {"items": [{"name": "a"}, {"name": "b", "value": ["c"]}]}, "one")
    live = nested(live, {"items": [{"name": "a", "value": ["b"]}]}, "two")
    live = updated(
        live, {"items": [{"name": "a", "value": ["b"]}, {"name": "b", "value": ["c", "d"]}]}
    )
    after = nested(live, {"items": [{"name": "a"}]}, "one")
    assert after["items"] == [{"name": "a", "value": ["b"]}]


@pytest.mark.parametrize("wanted", [{}, {"struct": {}}, {"struct": None}])
def test_a_struct_keeps_what_others_set_in_it(wanted: Any) -> None:
    live = nested(None, {"struct": {"name": "a"}}, "one")
    live = updated(live, {"struct": {"name": "a", "value": 1}})
    assert nested(live, wanted, "one")["struct"] == {"value": 1}


def test_what_an_update_took_over_stays() -> None:
    live = nested(None, {"struct": {"name": "a"}}, "one")
    live = updated(live, {"struct": {"name": "b", "value": 1}})
    assert nested(live, {"struct": None}, "one")["struct"] == {"name": "b", "value": 1}


SPEC = obj(
    name=STRING,
    count=INTEGER,
    tags=set_of(STRING),
    flat=listed(STRING),
    labels=mapped(STRING),
    items=keyed(obj(name=STRING, value=STRING), "name"),
)
ROOT = obj(metadata=obj(name=STRING, managedFields=listed(ANY)), spec=SPEC)
NAMES = st.sampled_from("abc")
CONFIGURATIONS = st.fixed_dictionaries(
    {
        "spec": st.fixed_dictionaries(
            {},
            optional={
                "name": NAMES,
                "count": st.integers(0, 2),
                "tags": st.lists(NAMES, unique=True, max_size=3),
                "flat": st.lists(NAMES, max_size=3),
                "labels": st.dictionaries(NAMES, NAMES, max_size=3),
                "items": st.lists(
                    st.fixed_dictionaries({"name": NAMES}, optional={"value": NAMES}),
                    unique_by=lambda item: item["name"],
                    max_size=3,
                ),
            },
        )
    }
)


def _set(value: Any) -> Any:
    """What an applied configuration sets; empty containers own nothing."""
    if isinstance(value, dict):
        return {key: _set(v) for key, v in value.items() if v not in ({}, [])}
    return value


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_the_only_applier_gets_exactly_what_it_applies(first: Any, second: Any) -> None:
    live = applied(None, first, "me", schema=ROOT)
    after = applied(live, second, "me", schema=ROOT)
    assert _set(after.get("spec", {})) == _set(second["spec"])


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_an_apply_is_idempotent(first: Any, second: Any) -> None:
    live = applied(None, first, "one", schema=ROOT)
    after = applied(live, second, "two", schema=ROOT, force=True)
    assert applied(after, second, "two", schema=ROOT, now=LATER) == after


@given(CONFIGURATIONS, CONFIGURATIONS)
def test_an_applier_that_lets_go_leaves_what_the_other_applied(first: Any, second: Any) -> None:
    live = applied(None, first, "one", schema=ROOT)
    both = applied(live, second, "two", schema=ROOT, force=True)
    after = applied(both, {"spec": {}}, "one", schema=ROOT)
    assert _set(after.get("spec", {})) == _set(second["spec"])
