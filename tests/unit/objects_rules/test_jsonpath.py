from typing import Any

import pytest

from controlplane.objects.jsonpath import JSONPathError, compile_path

OBJECT = {
    "metadata": {"annotations": {"example.com/a": "x"}},
    "spec": {"items": [{"name": "a", "n": 1}, {"name": "b", "n": 2}], "on": True},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True"},
            {"type": "Synced", "status": "False"},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.on", [True]),
        ("{.spec.on}", [True]),
        ("$.spec.on", [True]),
        ("spec.on", [True]),
        (".spec.items[0].name", ["a"]),
        (".spec.items[-1].name", ["b"]),
        (".spec.items[9].name", []),
        (".spec.items[*].name", ["a", "b"]),
        (".spec.items[0:1].name", ["a"]),
        (".spec['on']", [True]),
        (r".metadata.annotations.example\.com/a", ["x"]),
        ("['metadata']['annotations']['example.com/a']", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type == 'Synced')].status", ["False"]),
        (".spec.items[?(@.n>1)].name", ["b"]),
        (".spec.items[?(@.n!=1)].name", ["b"]),
        (".spec.items[?(@.missing)].name", []),
        (".spec.*", [OBJECT["spec"]["items"], True]),  # type: ignore[index]
        ("..name", ["a", "b"]),
        (".missing.deeper", []),
    ],
)
def test_a_path_finds_values(path: str, found: Any) -> None:
    assert compile_path(path)(OBJECT) == found


@pytest.mark.parametrize("path", [".a[", ".a[?(b)]", ".a[x]", ".a[?(@.b==c)]", ".a[::0]"])
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(JSONPathError):
        compile_path(path)
