from typing import Any

import pytest

from controlplane.objects.errors import StatusError
from controlplane.objects.strategic import strategic_patch
from tests.unit.objects_rules.schemas import DEPLOYMENT, POD_SPEC


def containers(*names: str) -> list[dict[str, Any]]:
    return [{"name": name} for name in names]


def patched(spec: Any, patch: Any) -> Any:
    return strategic_patch(spec, patch, POD_SPEC)


def test_items_of_a_keyed_list_merge_by_their_key() -> None:
    spec = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "1"}]}
    after = patched(spec, {"containers": [{"name": "b", "image": "2"}]})
    assert after == {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}
    assert spec["containers"][1]["image"] == "1"


def test_a_new_item_comes_before_those_that_only_the_server_has() -> None:
    after = patched({"containers": containers("a", "b")}, {"containers": containers("c")})
    assert after == {"containers": containers("c", "a", "b")}


def test_an_order_is_kept_between_patched_items_and_woven_with_the_others() -> None:
    spec = {"containers": containers("a", "b", "c")}
    order = containers("c", "a", "d")
    after = patched(spec, {"$setElementOrder/containers": order, "containers": containers("d")})
    assert after == {"containers": containers("b", "c", "a", "d")}


def test_items_are_deleted_by_a_directive() -> None:
    spec = {"containers": containers("a", "b")}
    after = patched(spec, {"containers": [{"name": "a", "$patch": "delete"}]})
    assert after == {"containers": containers("b")}


def test_a_list_is_replaced_by_a_directive() -> None:
    spec = {"containers": containers("a", "b")}
    after = patched(spec, {"containers": [{"$patch": "replace"}, {"name": "z"}]})
    assert after == {"containers": containers("z")}


def test_a_map_is_replaced_or_emptied_by_a_directive() -> None:
    spec = {"nodeSelector": {"a": "1"}}
    assert patched(spec, {"nodeSelector": {"$patch": "replace", "b": "2"}}) == {
        "nodeSelector": {"b": "2"}
    }
    assert patched(spec, {"nodeSelector": {"$patch": "delete"}}) == {"nodeSelector": {}}


def test_null_removes_and_absent_nulls_are_dropped() -> None:
    after = patched({"nodeName": "n"}, {"nodeName": None, "nodeSelector": {"a": None, "b": "1"}})
    assert after == {"nodeSelector": {"b": "1"}}


def test_lists_without_a_strategy_are_replaced() -> None:
    spec = {"tolerations": [{"key": "a"}]}
    assert patched(spec, {"tolerations": [{"key": "b"}]}) == {"tolerations": [{"key": "b"}]}


def test_primitive_lists_merge_as_sets() -> None:
    before = {"metadata": {"finalizers": ["a", "b"]}}
    after = strategic_patch(before, {"metadata": {"finalizers": ["c", "b"]}}, DEPLOYMENT)
    assert after == {"metadata": {"finalizers": ["c", "a", "b"]}}
    removed = strategic_patch(
        before, {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a"]}}, DEPLOYMENT
    )
    assert removed == {"metadata": {"finalizers": ["b"]}}


def test_retained_keys_clear_the_others() -> None:
    before = {"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}}
    patch = {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}
    assert strategic_patch(before, patch, DEPLOYMENT) == {
        "spec": {"strategy": {"type": "Recreate"}}
    }


def test_a_retained_key_must_cover_the_patch() -> None:
    patch = {"spec": {"strategy": {"$retainKeys": [], "type": "Recreate"}}}
    with pytest.raises(StatusError, match="invalid patch format of retainKeys"):
        strategic_patch({"spec": {"strategy": {}}}, patch, DEPLOYMENT)


def test_nested_keyed_lists_merge_too() -> None:
    spec = {"containers": [{"name": "a", "env": [{"name": "X", "value": "1"}]}]}
    after = patched(spec, {"containers": [{"name": "a", "env": [{"name": "Y", "value": "2"}]}]})
    assert after["containers"][0]["env"] == [
        {"name": "Y", "value": "2"},
        {"name": "X", "value": "1"},
    ]


@pytest.mark.parametrize(
    ("patch", "text"),
    [
        ({"containers": [{"image": "x"}]}, "does not contain declared merge key: name"),
        ({"containers": [{"name": "a", "$patch": "mix"}]}, "unknown patch type: mix in map"),
        ({"$setElementOrder/containers": "x"}, "invalid patch format of setElementOrder list"),
        ({"$deleteFromPrimitiveList/x": "x"}, "invalid patch format of primitive list"),
        (
            {"$setElementOrder/containers": containers("b"), "containers": containers("a")},
            "The order in patch list",
        ),
        ([], "invalid JSON document"),
    ],
)
def test_a_malformed_patch_is_refused(patch: Any, text: str) -> None:
    with pytest.raises(StatusError, match=text.replace("$", r"\$")) as raised:
        patched({"containers": containers("a"), "x": ["x"]}, patch)
    assert raised.value.code == 400


def test_fields_without_a_schema_merge_plainly() -> None:
    after = strategic_patch(
        {"spec": {"extra": {"a": {"b": 1}, "l": [1]}}},
        {"spec": {"extra": {"a": {"c": 2}, "l": [2]}}},
        DEPLOYMENT,
    )
    assert after == {"spec": {"extra": {"a": {"b": 1, "c": 2}, "l": [2]}}}
