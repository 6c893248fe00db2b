"""Nobody hands out more than they hold."""

from typing import Any

import pytest

from controlplane.api.admission.escalation import EscalationCheck
from controlplane.api.authorize import Chain, Masters
from controlplane.api.base import Operation, User
from controlplane.api.rbac import Rbac
from controlplane.objects.resources import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    ROLE_BINDINGS,
    ROLES,
)
from tests.unit.auth.fake_objects import Objects
from tests.unit.auth.test_admission import admit, refusal, request
from tests.unit.auth.test_rbac import give, rule

READ, WRITE = rule("get", "pods"), rule("delete", "pods")
MORE = rule("escalate,bind", "roles,clusterroles", groups="rbac.authorization.k8s.io")


def checked(*held: dict[str, Any]) -> tuple[EscalationCheck, Objects]:
    objects = Objects()
    give(objects, *held)
    rbac = Rbac(objects)
    return EscalationCheck(Chain([Masters(), rbac]), rbac), objects


def role(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": "new"}, "rules": list(rules)} | more


def test_a_role_holds_at_most_what_its_author_holds() -> None:
    plugin, _ = checked(READ)
    assert admit(plugin, request(ROLES, role(READ)))
    assert refusal(plugin, request(ROLES, role(READ, WRITE))) == (
        'roles.rbac.authorization.k8s.io "new" is forbidden: user "jane" '
        '(groups=["system:authenticated"]) is attempting to grant RBAC permissions not currently '
        'held:\n{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}'
    )


def test_a_binding_gives_at_most_what_its_author_holds() -> None:
    plugin, objects = checked(READ)
    objects.put(CLUSTER_ROLES, {"metadata": {"name": "wide"}, "rules": [WRITE]})
    objects.put(CLUSTER_ROLES, {"metadata": {"name": "narrow"}, "rules": [READ]})

    def binding(name: str) -> dict[str, Any]:
        reference = {"kind": "ClusterRole", "name": name}
        return {"metadata": {"name": "new"}, "roleRef": reference, "subjects": []}

    assert admit(plugin, request(ROLE_BINDINGS, binding("narrow"), objects=objects))
    for resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
        assert "not currently held" in refusal(
            plugin, request(resource, binding("wide"), objects=objects)
        )
    missing = refusal(plugin, request(ROLE_BINDINGS, binding("none")), 404)
    assert missing == 'clusterroles.rbac.authorization.k8s.io "none" not found'


def test_the_verbs_escalate_and_bind_lift_it() -> None:
    plugin, objects = checked(MORE)
    objects.put(CLUSTER_ROLES, {"metadata": {"name": "wide"}, "rules": [WRITE]})
    assert admit(plugin, request(ROLES, role(WRITE)))
    reference = {"kind": "ClusterRole", "name": "wide"}
    binding = {"metadata": {}, "roleRef": reference}
    assert admit(plugin, request(ROLE_BINDINGS, binding, objects=objects))


def test_masters_are_free() -> None:
    plugin, _ = checked()
    root = User(name="root", groups=("system:masters",))
    assert admit(plugin, request(ROLES, role(WRITE), user=root))


def test_aggregation_is_for_those_who_hold_everything() -> None:
    aggregated = role(aggregationRule={"clusterRoleSelectors": [{}]})
    plugin, _ = checked(READ)
    assert "must have cluster-admin privileges" in refusal(
        plugin, request(CLUSTER_ROLES, aggregated)
    )
    plugin, _ = checked(rule("*", "*", groups="*"), {"verbs": ["*"], "nonResourceURLs": ["*"]})
    assert admit(plugin, request(CLUSTER_ROLES, aggregated))


@pytest.mark.parametrize(("new", "free"), [([WRITE], True), ([WRITE, READ], False)])
def test_a_change_of_metadata_is_no_grant(new: list[dict[str, Any]], free: bool) -> None:
    plugin, _ = checked()
    asked = request(ROLES, role(*new), old=role(WRITE), operation=Operation.UPDATE)
    if free:
        assert admit(plugin, asked)
    else:
        assert "not currently held" in refusal(plugin, asked)
