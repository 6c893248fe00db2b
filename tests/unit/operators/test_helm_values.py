from typing import Any

import pytest

from operators.helm.values import merge, put


def test_maps_are_merged_and_the_rest_is_replaced() -> None:
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 1}
    assert merge(below, {"a": {"c": [3], "e": None}}) == {
        "a": {"b": 1, "c": [3], "e": None},
        "d": 1,
    }
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": 1}


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("a", "1", {"a": 1}),
        ("a", "-5", {"a": -5}),
        ("a", "True", {"a": True}),
        ("a", "007", {"a": "007"}),
        ("a", "true", {"a": True}),
        ("a", "null", {"a": None}),
        ("a", "", {"a": ""}),
        ("a.b.c", "x", {"a": {"b": {"c": "x"}}}),
        (r"a\.b", "x", {"a.b": "x"}),
        ("a[1].b", "x", {"a": [None, {"b": "x"}]}),
        ("a[0][1]", "x", {"a": [[None, "x"]]}),
        ("a", "{x,2}", {"a": ["x", 2]}),
        ("a", r"x\,y", {"a": "x,y"}),
        ("a", "{}", {"a": [""]}),
        ("a", "{b,,2}", {"a": ["b", "", 2]}),
        ("a", r"{b\,c}", {"a": ["b,c"]}),
        ("a", "x\\", {"a": "x"}),
        ("a", "1,b.c=2", {"a": 1, "b": {"c": 2}}),
        ("a", "{1},b=2", {"a": [1], "b": 2}),
        ("a", "b=c", {"a": "b=c"}),
        ("a=b", "c", {"a": "b=c"}),
        ("", "c", {}),
        ("a[2]", "x", {"a": [None, None, "x"]}),
        ("a", "٣", {"a": "٣"}),
    ],
)
def test_set_reads_paths_and_literals(path: str, text: str, expected: dict[str, Any]) -> None:
    values: dict[str, Any] = {}
    put(values, path, text)
    assert values == expected


def test_set_string_keeps_what_looks_like_a_number() -> None:
    values: dict[str, Any] = {"a": {"b": 1}}
    put(values, "a.b", "2", as_string=True)
    assert values == {"a": {"b": "2"}}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("a[x]", "error parsing index"),
        ("a[99999999]", "not between"),
        ("a[-1]", "not between"),
        ("a[0]b", "unexpected data"),
        ("a,b", "key 'a' has no value"),
        ("text.b", "dict is needed, str is there"),
        ("text[0]", "list is needed, str is there"),
        ("nothing.b", "dict is needed, NoneType is there"),
        (".".join("a" * 40), "nested level"),
    ],
)
def test_a_path_that_is_none_is_an_error(path: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        put({"text": "kept", "nothing": None}, path, "1")


def test_a_list_that_does_not_end_is_an_error() -> None:
    with pytest.raises(ValueError, match="must terminate"):
        put({}, "a", "{b,c")
