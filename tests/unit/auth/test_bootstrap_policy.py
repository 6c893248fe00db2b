"""The RBAC objects of a first start and of the next ones."""

import copy
import time
from typing import Any

import pytest

from controlplane.api.base import Attributes, Decision, User
from controlplane.api.bootstrap_policy import ensure_policy, node_rules, policy
from controlplane.api.rbac import Rbac
from controlplane.objects.resources import CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES
from tests.unit.auth.fake_objects import Objects, Writer


@pytest.fixture
async def objects() -> Objects:
    objects = Objects()
    await ensure_policy(Writer(objects), objects)
    objects.writes.clear()
    return objects


def may(objects: Objects, user: User, verb: str, resource: str, **more: str) -> bool:
    asked = Attributes(user=user, verb=verb, resource=resource, **more)
    return Rbac(objects).authorize(asked)[0] is Decision.ALLOW


def user(name: str, *groups: str) -> User:
    return User(name=name, groups=groups)


async def test_a_second_start_writes_nothing(objects: Objects) -> None:
    await ensure_policy(Writer(objects), objects)
    assert objects.writes == []


async def test_every_binding_points_to_a_role(objects: Objects) -> None:
    for binding in objects.list(CLUSTER_ROLE_BINDINGS):
        assert objects.get(CLUSTER_ROLES, "", binding["roleRef"]["name"]) is not None


async def test_objects_carry_the_marks_of_defaults(objects: Objects) -> None:
    metadata: Any = objects.get(CLUSTER_ROLES, "", "system:node")
    assert metadata["metadata"]["labels"] == {"kubernetes.io/bootstrapping": "rbac-defaults"}
    assert metadata["metadata"]["annotations"] == {
        "rbac.authorization.kubernetes.io/autoupdate": "true"
    }


async def test_admin_edit_and_view_are_aggregated_from_the_start(objects: Objects) -> None:
    def rules(name: str) -> list[Any]:
        role: Any = objects.get(CLUSTER_ROLES, "", name)
        return list(role["rules"])

    view, edit, admin = rules("view"), rules("edit"), rules("admin")
    assert all(rule in edit for rule in view)
    assert all(rule in admin for rule in edit)
    assert len(view) < len(edit) < len(admin)
    metrics = {"verbs": ["get", "list", "watch"], "apiGroups": ["metrics.k8s.io"]}
    assert metrics | {"resources": ["pods", "nodes"]} in view


async def test_users_get_what_upstream_gives_them(objects: Objects) -> None:
    anonymous = user("system:anonymous", "system:unauthenticated")
    somebody = user("jane", "system:authenticated")
    assert may(objects, anonymous, "get", "", path="/version")
    assert may(objects, anonymous, "get", "", path="/healthz")
    assert not may(objects, anonymous, "get", "", path="/api")
    assert may(objects, somebody, "get", "", path="/apis/apps/v1")
    assert not may(objects, somebody, "get", "", path="/metrics")
    assert may(
        objects, somebody, "create", "selfsubjectaccessreviews", group="authorization.k8s.io"
    )
    assert not may(objects, somebody, "list", "pods", namespace="default")


async def test_our_own_parts_get_what_they_need(objects: Objects) -> None:
    operators, node = user("system:pinnace-operators"), user("system:node:a", "system:nodes")
    assert may(objects, operators, "delete", "secrets", namespace="x", name="y")
    assert may(objects, node, "watch", "endpointslices", group="discovery.k8s.io")
    assert may(objects, node, "list", "services")
    assert not may(objects, node, "list", "secrets")


async def test_what_was_taken_away_comes_back_and_additions_stay(objects: Objects) -> None:
    role: Any = copy.deepcopy(objects.get(CLUSTER_ROLES, "", "system:discovery"))
    extra = {"verbs": ["get"], "nonResourceURLs": ["/extra"]}
    role["rules"] = [extra]
    objects.put(CLUSTER_ROLES, role)
    binding: Any = copy.deepcopy(objects.get(CLUSTER_ROLE_BINDINGS, "", "system:discovery"))
    joe = {"kind": "User", "name": "joe"}
    binding["subjects"] = [joe]
    objects.put(CLUSTER_ROLE_BINDINGS, binding)
    await ensure_policy(Writer(objects), objects)
    assert {name for _, _, name in objects.writes} == {"system:discovery"}
    role = objects.get(CLUSTER_ROLES, "", "system:discovery")
    assert role["rules"][0] == extra
    assert "/apis/*" in role["rules"][1]["nonResourceURLs"]
    binding = objects.get(CLUSTER_ROLE_BINDINGS, "", "system:discovery")
    assert [s["name"] for s in binding["subjects"]] == ["joe", "system:authenticated"]


async def test_a_binding_to_another_role_is_made_anew(objects: Objects) -> None:
    binding: Any = copy.deepcopy(objects.get(CLUSTER_ROLE_BINDINGS, "", "system:discovery"))
    binding["roleRef"]["name"] = "cluster-admin"
    objects.put(CLUSTER_ROLE_BINDINGS, binding)
    await ensure_policy(Writer(objects), objects)
    assert [verb for verb, _, _ in objects.writes] == ["delete", "create"]
    binding = objects.get(CLUSTER_ROLE_BINDINGS, "", "system:discovery")
    assert binding["roleRef"]["name"] == "system:discovery"


async def test_an_object_that_opted_out_is_left_alone(objects: Objects) -> None:
    role: Any = copy.deepcopy(objects.get(CLUSTER_ROLES, "", "system:discovery"))
    role["metadata"]["annotations"]["rbac.authorization.kubernetes.io/autoupdate"] = "false"
    role["rules"] = []
    objects.put(CLUSTER_ROLES, role)
    await ensure_policy(Writer(objects), objects)
    assert objects.writes == []


def test_has_all_the_names_of_upstream() -> None:
    roles, bindings = policy()
    names = {body["metadata"]["name"] for _, body in roles}
    assert {
        "cluster-admin",
        "admin",
        "edit",
        "view",
        "system:kubelet-api-admin",
        "system:node-bootstrapper",
        "system:auth-delegator",
        "system:monitoring",
        "extension-apiserver-authentication-reader",
        "system:controller:deployment-controller",
    } <= names
    ours = {"system:pinnace-agent", "system:pinnace-operators", "system:aggregated-metrics-reader"}
    counts = [sum(b["metadata"]["name"] not in ours for _, b in part) for part in (roles, bindings)]
    assert counts == [76, 57]


def test_the_data_is_read_quickly() -> None:
    begin = time.perf_counter()
    policy()
    assert node_rules()
    assert time.perf_counter() - begin < 0.5
