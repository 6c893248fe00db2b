"""Path patterns: the part of Go's templates that they are made of."""

import pytest

from operators.localpath import pattern
from operators.localpath.base import Refused

CLAIM = {
    "metadata": {
        "namespace": "shop",
        "name": "data",
        "labels": {"app": "db", "example.com/tier": "back"},
        "annotations": {"owner": "ann"},
    }
}


@pytest.mark.parametrize(
    ("template", "rendered"),
    [
        ("{{ .PVC.Namespace }}/{{ .PVC.Name }}/", "shop/data/"),
        ("{{.PVC.namespace}}-{{.PVC.name}}", "shop-data"),
        ("{{ .PVName }}_x", "pvc-1_x"),
        ("{{ .PVC.Labels.app }}", "db"),
        ("{{ .PVC.annotations.owner }}", "ann"),
        ('{{ index .PVC.Labels "example.com/tier" }}', "back"),
        ("{{ index .PVC.Labels `nothing` }}", ""),
        ("a {{- .PVName -}} b", "apvc-1b"),
        ("1000", "1000"),
    ],
)
def test_a_pattern_is_filled_in(template: str, rendered: str) -> None:
    assert pattern.render(template, "pvc-1", CLAIM) == rendered


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        ("{{ .PVC.Labels.none }}", 'no entry "none" in its labels'),
        ("{{ if .PVName }}x{{ end }}", "is not supported in a pattern"),
        ("{{ .PVC.UID }}", "is not supported in a pattern"),
        ("{{ .PVName | printf }}", "is not supported in a pattern"),
        ("{{ .PVName ", "braces that do not match"),
    ],
)
def test_what_a_pattern_cannot_do_is_refused_by_name(template: str, complaint: str) -> None:
    with pytest.raises(Refused, match=complaint):
        pattern.render(template, "pvc-1", CLAIM)


def test_a_value_with_braces_is_not_a_template() -> None:
    claim = {"metadata": {**CLAIM["metadata"], "annotations": {"owner": "{{ .PVName }}"}}}
    with pytest.raises(Refused, match="braces"):
        pattern.render("{{ .PVC.Annotations.owner }}", "pvc-1", claim)
