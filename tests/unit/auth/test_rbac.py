"""Roles, bindings, masters, and how a refusal reads."""

from typing import Any

import pytest

from controlplane.api.authorize import Chain, Masters, forbidden_error
from controlplane.api.base import Attributes, Decision, NonResourceRule, ResourceRule, User
from controlplane.api.rbac import Rbac, aggregate
from controlplane.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from tests.unit.auth.fake_objects import Objects

JANE = User(name="jane", groups=("devs", "system:authenticated"))


def rule(verbs: str, resources: str, *, groups: str = "", names: str = "") -> dict[str, Any]:
    made: dict[str, Any] = {
        "verbs": verbs.split(","),
        "apiGroups": groups.split(","),
        "resources": resources.split(","),
    }
    if names:
        made["resourceNames"] = names.split(",")
    return made


def give(
    objects: Objects, *rules: dict[str, Any], namespace: str = "", subject: str = "User jane"
) -> None:
    kind, name = subject.split()
    where = {"namespace": namespace} if namespace else {}
    role_kind = "Role" if namespace else "ClusterRole"
    objects.put(
        ROLES if namespace else CLUSTER_ROLES,
        {"metadata": {"name": "r", **where}, "rules": list(rules)},
    )
    objects.put(
        ROLE_BINDINGS if namespace else CLUSTER_ROLE_BINDINGS,
        {
            "metadata": {"name": "b", **where},
            "roleRef": {"kind": role_kind, "name": "r"},
            "subjects": [{"kind": kind, "name": name, "namespace": "ns"}],
        },
    )


def ask(verb: str, what: str, *, namespace: str = "ns", name: str = "", group: str = "") -> Any:
    resource, _, subresource = what.partition("/")
    return Attributes(
        user=JANE,
        verb=verb,
        group=group,
        resource=resource,
        subresource=subresource,
        namespace=namespace,
        name=name,
    )


@pytest.mark.parametrize(
    ("given", "asked", "allowed"),
    [
        (rule("get", "pods"), ask("get", "pods"), True),
        (rule("get", "pods"), ask("list", "pods"), False),
        (rule("*", "pods"), ask("list", "pods"), True),
        (rule("get", "pods"), ask("get", "pods/log"), False),
        (rule("get", "pods/log"), ask("get", "pods/log"), True),
        (rule("get", "*/log"), ask("get", "pods/log"), True),
        (rule("get", "*"), ask("get", "pods/log"), True),
        (rule("get", "pods"), ask("get", "pods", group="metrics.k8s.io"), False),
        (rule("get", "pods", groups="*"), ask("get", "pods", group="metrics.k8s.io"), True),
        (rule("get", "pods", names="a,b"), ask("get", "pods", name="b"), True),
        (rule("get", "pods", names="a,b"), ask("get", "pods", name="c"), False),
        (rule("list", "pods", names="a"), ask("list", "pods"), False),
    ],
)
def test_a_rule_allows_what_it_names(given: dict[str, Any], asked: Any, allowed: bool) -> None:
    objects = Objects()
    give(objects, given)
    decision, _ = Rbac(objects).authorize(asked)
    assert (decision is Decision.ALLOW) is allowed


@pytest.mark.parametrize(
    ("url", "path", "allowed"),
    [
        ("/healthz", "/healthz", True),
        ("/healthz/*", "/healthz/etcd", True),
        ("/healthz", "/healthz/etcd", False),
        ("*", "/metrics", True),
    ],
)
def test_a_rule_allows_paths(url: str, path: str, allowed: bool) -> None:
    objects = Objects()
    give(objects, {"verbs": ["get"], "nonResourceURLs": [url]})
    decision, _ = Rbac(objects).authorize(Attributes(user=JANE, verb="get", path=path))
    assert (decision is Decision.ALLOW) is allowed


@pytest.mark.parametrize("subject", ["User jane", "Group devs"])
def test_a_role_counts_in_its_namespace_only(subject: str) -> None:
    objects = Objects()
    give(objects, rule("get", "pods"), namespace="ns", subject=subject)
    rbac = Rbac(objects)
    assert rbac.authorize(ask("get", "pods"))[0] is Decision.ALLOW
    assert rbac.authorize(ask("get", "pods", namespace="other"))[0] is Decision.NO_OPINION
    assert rbac.authorize(ask("get", "pods", namespace=""))[0] is Decision.NO_OPINION


def test_a_service_account_is_a_user_of_its_long_name() -> None:
    objects = Objects()
    give(objects, rule("get", "pods"), subject="ServiceAccount bot")
    asked = Attributes(
        user=User(name="system:serviceaccount:ns:bot"), verb="get", resource="pods", namespace="x"
    )
    decision, reason = Rbac(objects).authorize(asked)
    assert decision is Decision.ALLOW
    assert reason == (
        'RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "r" to ServiceAccount "bot/ns"'
    )


def test_the_reason_names_binding_role_and_subject() -> None:
    objects = Objects()
    give(objects, rule("get", "pods"), namespace="ns", subject="Group devs")
    _, reason = Rbac(objects).authorize(ask("get", "pods"))
    assert reason == 'RBAC: allowed by RoleBinding "b/ns" of Role "r" to Group "devs"'


def test_changes_count_from_the_next_question() -> None:
    objects = Objects()
    rbac = Rbac(objects)
    asked = ask("get", "pods")
    assert rbac.authorize(asked)[0] is Decision.NO_OPINION
    give(objects, rule("get", "pods"))
    assert rbac.authorize(asked)[0] is Decision.ALLOW
    objects.put(CLUSTER_ROLES, {"metadata": {"name": "r"}, "rules": None})
    assert rbac.authorize(asked)[0] is Decision.NO_OPINION
    give(objects, rule("get", "pods"))
    give(objects, rule("get", "pods"), subject="User joe")
    assert rbac.authorize(asked)[0] is Decision.NO_OPINION
    give(objects, rule("get", "pods"))
    objects.remove(CLUSTER_ROLES, "", "r")
    assert rbac.authorize(asked) == (
        Decision.NO_OPINION,
        'RBAC: clusterrole.rbac.authorization.k8s.io "r" not found',
    )
    objects.remove(CLUSTER_ROLE_BINDINGS, "", "b")
    assert rbac.authorize(asked) == (Decision.NO_OPINION, "")


def test_lists_the_rules_of_a_user() -> None:
    objects = Objects()
    give(objects, rule("get", "pods", names="a"), {"verbs": ["get"], "nonResourceURLs": ["/x"]})
    assert list(Rbac(objects).rules(JANE, "ns")) == [
        ResourceRule(verbs=("get",), api_groups=("",), resources=("pods",), resource_names=("a",)),
        NonResourceRule(verbs=("get",), urls=("/x",)),
    ]


@pytest.mark.parametrize(
    ("owned", "wanted", "holds"),
    [
        (rule("get,list", "pods"), rule("get", "pods"), True),
        (rule("get", "pods"), rule("get,list", "pods"), False),
        (rule("*", "*", groups="*"), rule("*", "*", groups="*"), True),
        (rule("get", "pods"), rule("*", "pods"), False),
        (rule("get", "pods", names="a"), rule("get", "pods"), False),
        (rule("get", "pods", names="a"), rule("get", "pods", names="a"), True),
        (rule("get", "pods"), rule("get", "pods", names="a"), True),
        (rule("get", "*/scale"), rule("get", "deployments/scale"), True),
    ],
)
def test_nobody_holds_more_than_given(
    owned: dict[str, Any], wanted: dict[str, Any], holds: bool
) -> None:
    objects = Objects()
    give(objects, owned)
    assert Rbac(objects).holds(JANE, "ns", wanted) is holds


def test_aggregates_the_rules_of_selected_roles_once() -> None:
    def role(name: str, *rules: dict[str, Any], **labels: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "labels": labels}, "rules": list(rules)}

    one, two = rule("get", "pods"), rule("get", "services")
    edit = {
        "metadata": {"name": "edit", "labels": {"to": "admin"}},
        "aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"to": "edit"}}]},
        "rules": [two],
    }
    roles = [edit, role("a", one, to="edit"), role("b", one, two, to="edit"), role("c", two)]
    assert aggregate(edit, roles) == [one, two]


def test_masters_may_everything_even_without_roles() -> None:
    chain = Chain([Masters(), Rbac(Objects())])
    root = User(name="root", groups=("system:masters",))
    asked = Attributes(user=root, verb="delete", resource="nodes", name="n")
    assert chain.authorize(asked)[0] is Decision.ALLOW
    assert chain.authorize(Attributes(user=JANE, verb="get", path="/x"))[0] is Decision.NO_OPINION


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            ask("list", "pods"),
            'pods is forbidden: User "jane" cannot list resource "pods" in API group "" '
            'in the namespace "ns"',
        ),
        (
            ask("get", "nodes", namespace="", name="n1"),
            'nodes "n1" is forbidden: User "jane" cannot get resource "nodes" in API group "" '
            "at the cluster scope",
        ),
        (
            ask("update", "deployments/scale", group="apps", name="web"),
            'deployments.apps "web" is forbidden: User "jane" cannot update resource '
            '"deployments/scale" in API group "apps" in the namespace "ns"',
        ),
        (
            Attributes(user=JANE, verb="get", path="/metrics"),
            'forbidden: User "jane" cannot get path "/metrics"',
        ),
    ],
)
def test_a_refusal_reads_as_kubectl_users_know_it(asked: Attributes, message: str) -> None:
    error = forbidden_error(asked)
    assert (error.code, error.reason, error.message) == (403, "Forbidden", message)
    assert forbidden_error(asked, "because").message == f"{message}: because"
