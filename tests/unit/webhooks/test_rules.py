"""Which requests a webhook is asked about."""

from typing import Any

import pytest

from controlplane.api.base import AdmissionRequest, Operation, User
from controlplane.api.webhooks.rules import Hook, hooks_of, is_exempt, kind_for
from controlplane.objects.errors import StatusError
from controlplane.objects.facts import builtin_kinds
from controlplane.objects.kinds import Kind
from tests.fakes.reads import World

KINDS = {(kind.api_version, kind.kind): kind for kind in builtin_kinds()}
SCALER = [KINDS["autoscaling/v1", "HorizontalPodAutoscaler"]]
SCALER += [KINDS["autoscaling/v2", "HorizontalPodAutoscaler"]]


def request(
    kind: Kind, subresource: str = "", operation: Operation = Operation.CREATE, **changes: Any
) -> AdmissionRequest:
    fields: dict[str, Any] = {"object": {"metadata": {}}, "old": None, "namespace": "a", **changes}
    return AdmissionRequest(
        operation=operation,
        kind=kind,
        subresource=subresource,
        name="x",
        user=User(name="somebody"),
        options={},
        dry_run=False,
        reads=World(),
        **fields,
    )


def hook(rule: dict[str, Any], **settings: Any) -> Hook:
    whole = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], **rule}
    return Hook(configuration="c", name="h", settings={"rules": [whole], **settings})


@pytest.mark.parametrize(
    ("resource", "subresource", "expected"),
    [
        ("pods", "", True),
        ("pods", "status", False),
        ("pods/status", "status", True),
        ("pods/status", "", False),
        ("pods/*", "exec", True),
        ("pods/*", "", True),
        ("*", "", True),
        ("*", "status", False),
        ("*/*", "status", True),
        ("*/status", "status", True),
        ("services", "", False),
    ],
)
def test_a_rule_names_a_resource_and_its_parts(
    resource: str, subresource: str, expected: bool
) -> None:
    pods = KINDS["v1", "Pod"]
    found = kind_for(hook({"resources": [resource]}), request(pods, subresource), [pods])
    assert (found is pods) is expected


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"operations": ["CREATE"]}, True),
        ({"operations": ["UPDATE", "DELETE"]}, False),
        ({"apiGroups": [""]}, True),
        ({"apiGroups": ["apps"]}, False),
        ({"apiVersions": ["v1"]}, True),
        ({"apiVersions": ["v2"]}, False),
        ({"scope": "Namespaced"}, True),
        ({"scope": "Cluster"}, False),
        ({"scope": "*"}, True),
    ],
)
def test_every_part_of_a_rule_must_fit(rule: dict[str, Any], expected: bool) -> None:
    pods = KINDS["v1", "Pod"]
    found = kind_for(hook({"resources": ["pods"], **rule}), request(pods), [pods])
    assert (found is pods) is expected


@pytest.mark.parametrize(("policy", "expected"), [("Equivalent", SCALER[1]), ("Exact", None)])
def test_another_version_of_the_same_objects_counts_unless_exact(
    policy: str, expected: Kind | None
) -> None:
    rule = {"resources": ["horizontalpodautoscalers"], "apiVersions": ["v2"]}
    asked = request(SCALER[0])
    assert kind_for(hook(rule, matchPolicy=policy), asked, SCALER) is expected


def test_objects_of_the_cluster_have_no_namespace_to_select() -> None:
    node = KINDS["v1", "Node"]
    one = hook({"resources": ["nodes"]}, namespaceSelector={"matchLabels": {"a": "b"}})
    assert kind_for(one, request(node, namespace=""), [node]) is node


def test_a_namespace_is_selected_by_its_own_labels() -> None:
    kind = KINDS["v1", "Namespace"]
    one = hook({"resources": ["namespaces"]}, namespaceSelector={"matchLabels": {"a": "b"}})
    body = {"metadata": {"name": "x", "labels": {"a": "b"}}}
    assert kind_for(one, request(kind, object=body, namespace=""), [kind]) is kind
    other = request(kind, object={"metadata": {"name": "x"}}, namespace="")
    assert kind_for(one, other, [kind]) is None


def test_a_namespace_that_is_not_there_is_not_found() -> None:
    pods = KINDS["v1", "Pod"]
    one = hook({"resources": ["pods"]}, namespaceSelector={"matchLabels": {"a": "b"}})
    with pytest.raises(StatusError, match='namespaces "a" not found'):
        kind_for(one, request(pods), [pods])


def test_configurations_go_by_name_and_are_exempt_themselves() -> None:
    def configuration(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "webhooks": [{"name": f"{name}.1"}, {"name": "2"}]}

    found = hooks_of([configuration("b"), configuration("a")])
    assert [one.key for one in found] == [("a", "a.1"), ("a", "2"), ("b", "b.1"), ("b", "2")]
    group = "admissionregistration.k8s.io/v1"
    assert is_exempt(request(KINDS[group, "ValidatingWebhookConfiguration"]))
    assert not is_exempt(request(KINDS["v1", "Pod"]))
