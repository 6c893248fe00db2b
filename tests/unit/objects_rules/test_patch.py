from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.objects import patch
from controlplane.objects.errors import StatusError


def op(name: str, path: str, **more: Any) -> dict[str, Any]:
    return {"op": name, "path": path, **more}


@pytest.mark.parametrize(
    ("before", "operations", "after"),
    [
        ({"a": 1}, [op("add", "/b", value=2)], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [op("add", "/a/1", value=2)], {"a": [1, 2, 3]}),
        ({"a": [1]}, [op("add", "/a/-", value=2)], {"a": [1, 2]}),
        ({"a": [1]}, [op("add", "/a/1", value=2)], {"a": [1, 2]}),
        ({"a": [1, 2]}, [op("remove", "/a/0")], {"a": [2]}),
        ({"a": [1, 2]}, [op("remove", "/a/-1")], {"a": [1]}),
        ({"a": 1}, [op("replace", "/a", value=None)], {"a": None}),
        ({"a/b": 1, "~": 2}, [op("remove", "/a~1b"), op("remove", "/~0")], {}),
        ({"a": {"b": 1}}, [op("move", "/c", **{"from": "/a/b"})], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [op("copy", "/c", **{"from": "/a"})], {"a": {"b": 1}, "c": {"b": 1}}),
        ({"a": 1}, [op("test", "/a", value=1), op("add", "/b", value=1)], {"a": 1, "b": 1}),
        ({}, [op("test", "/a", value=None)], {}),
        ({"a": 1}, [op("replace", "", value={"b": 2})], {"b": 2}),
    ],
)
def test_operations_change_the_document_one_after_another(
    before: Any, operations: Any, after: Any
) -> None:
    assert patch.json_patch(before, operations) == after


@pytest.mark.parametrize(
    ("operation", "cause"),
    [
        (op("test", "/a", value=2), "testing value /a failed: test failed"),
        (op("test", "/a", value=True), "testing value /a failed: test failed"),
        (
            op("remove", "/b"),
            "error in remove for path: '/b': Unable to remove nonexistent key: b: missing value",
        ),
        (
            op("replace", "/b", value=1),
            "replace operation does not apply: doc is missing key: /b: missing value",
        ),
        (
            op("add", "/x/y", value=1),
            'add operation does not apply: doc is missing path: "/x": missing value',
        ),
        (
            op("add", "/l/5", value=1),
            "Unable to access invalid index: 5: invalid index referenced",
        ),
        (op("frobnicate", "/a"), "Unexpected kind: frobnicate"),
        (op("move", "/a/b", **{"from": "/a"}), None),
    ],
)
def test_an_operation_that_does_not_fit_is_unprocessable(operation: Any, cause: str | None) -> None:
    with pytest.raises(StatusError) as raised:
        patch.json_patch({"a": 1, "l": []}, [operation])
    assert (raised.value.code, raised.value.reason) == (422, "Invalid")
    assert raised.value.details is not None
    if cause:
        assert raised.value.details["causes"][0]["message"] == cause


def test_what_is_no_list_of_operations_is_a_bad_request() -> None:
    bodies: list[object] = [{}, [1], "x"]
    for body in bodies:
        with pytest.raises(StatusError) as raised:
            patch.json_patch({}, body)
        assert raised.value.code == 400


def test_a_failed_patch_leaves_the_object_alone() -> None:
    obj = {"a": {"b": 1}}
    with pytest.raises(StatusError):
        patch.json_patch(obj, [op("remove", "/a/b"), op("test", "/a/b", value=1)])
    assert obj == {"a": {"b": 1}}


def test_a_merge_patch_removes_with_null_and_replaces_lists() -> None:
    before = {"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1}
    after = patch.merge_patch(before, {"a": {"b": None, "d": {"e": None}}, "l": [3], "x": None})
    assert after == {"a": {"c": 2, "d": {}}, "l": [3]}
    assert before == {"a": {"b": 1, "c": 2}, "l": [1, 2], "x": 1}


def test_a_merge_patch_must_be_an_object() -> None:
    with pytest.raises(StatusError):
        patch.merge_patch({}, [1])


JSON = st.recursive(
    st.booleans() | st.integers(-3, 3) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=12,
)
OBJECTS = st.dictionaries(st.sampled_from("abcd"), JSON, max_size=4)


@given(OBJECTS, OBJECTS)
def test_the_merge_patch_of_a_difference_restores_it(old: Any, new: Any) -> None:
    assert patch.same(patch.merge_patch(old, patch.merge_diff(old, new)), new)


@given(OBJECTS)
def test_nothing_differs_from_itself(obj: Any) -> None:
    assert patch.merge_diff(obj, obj) == {}
