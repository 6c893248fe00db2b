from typing import Any

import pytest

from controlplane.objects import field_selectors, node_selectors, selectors
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Kind


def kind(group: str, name: str, plural: str, **more: Any) -> Kind:
    return Kind(
        group=group,
        version="v1",
        kind=name,
        plural=plural,
        singular=name.lower(),
        **{"namespaced": True, **more},
    )


POD = kind("", "Pod", "pods")


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("", {}, True),
        ("a=b", {"a": "b"}, True),
        ("a==b", {"a": "c"}, False),
        ("a=b,c=d", {"a": "b", "c": "d"}, True),
        ("a=b,c=d", {"a": "b"}, False),
        ("a!=b", {}, True),
        ("a != b", {"a": "b"}, False),
        ("a in (x, y)", {"a": "y"}, True),
        ("a in (x,y)", {}, False),
        ("a in ()", {"a": ""}, True),
        ("a in (x,)", {"a": ""}, True),
        ("a notin (x)", {}, True),
        ("a notin (x)", {"a": "x"}, False),
        ("a", {"a": ""}, True),
        ("!a", {"a": ""}, False),
        ("!a,b", {"b": "1"}, True),
        ("a>1", {"a": "2"}, True),
        ("a>1", {"a": "x"}, False),
        ("a<1", {"a": "0"}, True),
        ("in in (in,notin)", {"in": "notin"}, True),
        ("a=", {"a": ""}, True),
        ("example.com/a=b", {"example.com/a": "b"}, True),
    ],
)
def test_a_text_selects_by_labels(text: str, labels: dict[str, str], expected: bool) -> None:
    assert selectors.parse(text).matches(labels) is expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=b,", "found '', expected: identifier after ','"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a in x", "unable to parse requirement: found 'x' expected: '('"),
        ("a in (x y)", "unable to parse requirement: found 'y', expected: ',' or ')'"),
        ("=a", "found '=', expected: !, identifier, or 'end of string'"),
        (
            "a>x",
            'unable to parse requirement: values[0]: Invalid value: "x": '
            "for 'Gt', 'Lt' operators, the value must be an integer",
        ),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
    ],
)
def test_what_is_no_selector_is_a_bad_request(text: str, message: str) -> None:
    with pytest.raises(StatusError) as raised:
        selectors.parse(text)
    assert (raised.value.code, raised.value.message) == (400, message)


def test_a_bad_key_is_explained() -> None:
    with pytest.raises(StatusError, match='<nil>: Invalid value: "-a": name part must consist of'):
        selectors.parse("-a=b")


def test_no_label_selector_selects_nothing_and_an_empty_one_everything() -> None:
    assert not selectors.of_object(None).matches({"a": "b"})
    assert selectors.of_object({}).matches(None)
    assert selectors.of_object({}).empty


def test_a_label_selector_needs_all_of_its_parts() -> None:
    selector = selectors.of_object(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }
    )
    assert selector.matches({"app": "web", "tier": "b"})
    assert not selector.matches({"app": "web", "tier": "c"})
    assert not selector.matches({"app": "web", "tier": "b", "old": ""})


def test_a_label_selector_is_shown_as_kubectl_takes_it() -> None:
    selector = {
        "matchLabels": {"b": "1"},
        "matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["y", "x"]}],
    }
    assert selectors.to_text(selector) == "a notin (x,y),b=1"
    assert selectors.to_text({}) == "<none>"


def test_pods_are_selected_by_their_node_and_phase() -> None:
    pod = {
        "metadata": {"name": "p", "namespace": "n"},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running"},
    }
    fields = field_selectors.fields_of(POD, pod)
    assert field_selectors.parse("spec.nodeName=n1,status.phase!=Failed", POD).matches(fields)
    assert field_selectors.parse("spec.hostNetwork=false", POD).matches(fields)
    assert not field_selectors.parse("metadata.name==other", POD).matches(fields)
    assert field_selectors.parse("spec.host=n1", POD).exact("spec.nodeName") == "n1"


def test_fields_that_cannot_be_selected_by_are_refused_in_the_words_of_the_api() -> None:
    cases = [
        (POD, "spec.foo=1", "field label not supported: spec.foo"),
        (kind("batch", "Job", "jobs"), "x=1", 'field label "x" not supported for Job'),
        (
            kind("", "ConfigMap", "configmaps"),
            "x=1",
            '"x" is not a known field selector: only "metadata.name", "metadata.namespace"',
        ),
        (kind("example.com", "Foo", "foos", custom=True), "x=1", "field label not supported: x"),
        (POD, "abc", "invalid selector: 'abc'; can't understand 'abc'"),
    ]
    for of, text, message in cases:
        with pytest.raises(StatusError) as raised:
            field_selectors.parse(text, of)
        assert raised.value.message == message


def test_custom_resources_are_selected_by_their_selectable_fields() -> None:
    foo = kind("example.com", "Foo", "foos", custom=True, selectable_fields=(".spec.on", ".spec.n"))
    fields = field_selectors.fields_of(foo, {"metadata": {"name": "a"}, "spec": {"on": True}})
    assert field_selectors.parse("spec.on=true,spec.n=", foo).matches(fields)


def test_commas_in_values_are_escaped() -> None:
    (term,) = field_selectors.parse(r"metadata.name=a\,b\\\=", POD).terms
    assert term == ("metadata.name", True, r"a,b\=")
    with pytest.raises(StatusError, match="invalid escape sequence"):
        field_selectors.parse(r"metadata.name=a\b", POD)


def test_events_are_selected_by_the_names_of_either_group() -> None:
    core, new = kind("", "Event", "events"), kind("events.k8s.io", "Event", "events")
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"name": "p"},
        "source": {"component": "s"},
    }
    assert field_selectors.parse("involvedObject.name=p,source=s", core).matches(
        field_selectors.fields_of(core, event)
    )
    assert field_selectors.parse("regarding.name=p", new).matches(
        field_selectors.fields_of(new, event)
    )
    with pytest.raises(StatusError):
        field_selectors.parse("involvedObject.name=p", new)


NODE = {"metadata": {"name": "n1", "labels": {"zone": "a", "cpus": "4"}}}


@pytest.mark.parametrize(
    ("terms", "expected"),
    [
        (None, False),
        ([{}], False),
        ([{"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}], True),
        ([{"matchExpressions": [{"key": "cpus", "operator": "Gt", "values": ["3"]}]}], True),
        ([{"matchExpressions": [{"key": "cpus", "operator": "Lt", "values": ["3"]}]}], False),
        ([{"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["3"]}]}], True),
        ([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}], True),
        (
            [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]},
                {"matchExpressions": [{"key": "zone", "operator": "Exists"}]},
            ],
            True,
        ),
    ],
)
def test_one_term_that_matches_selects_the_node(terms: Any, expected: bool) -> None:
    assert node_selectors.node_selector_matches(terms, NODE) is expected


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "operator": "Equal", "value": "w"}, False),
        ({"key": "k", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "other", "operator": "Exists"}, False),
    ],
)
def test_tolerations_answer_taints(toleration: dict[str, str], expected: bool) -> None:
    taint = {"key": "k", "value": "v", "effect": "NoSchedule"}
    assert node_selectors.tolerates([toleration], taint) is expected
    assert (node_selectors.untolerated([taint], [toleration]) is None) is expected


def test_a_preference_keeps_no_pod_away() -> None:
    taint = {"key": "k", "effect": "PreferNoSchedule"}
    assert node_selectors.untolerated([taint], None) is None


def test_node_selector_and_affinity_must_both_match() -> None:
    spec = {
        "nodeSelector": {"zone": "a"},
        "affinity": {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {
                    "nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}
                    ]
                }
            }
        },
    }
    assert not node_selectors.required_affinity_matches(spec, NODE)
    assert node_selectors.required_affinity_matches({"nodeSelector": {"zone": "a"}}, NODE)
