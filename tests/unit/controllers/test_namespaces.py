"""What each namespace gets when it comes, and how it goes."""

import base64
from typing import Any

from controlplane.controllers import kubernetes_service, namespace, root_ca, token_secret
from controlplane.controllers.clusterrole import CLUSTERROLE
from controlplane.controllers.serviceaccount import SERVICEACCOUNT
from controlplane.objects.meta import condition
from controlplane.objects.resources import (
    CLUSTER_ROLES,
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    NAMESPACES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    SERVICES,
)
from tests.fakes.reads import KINDS, World
from tests.fakes.running import running


def space(name: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"finalizers": ["kubernetes"]}}


def named(name: str, namespace: str = "a", **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": namespace, **fields}, "spec": {}}


async def test_a_terminating_namespace_loses_pods_first_and_itself_last() -> None:
    world = World()
    world.put(NAMESPACES, space())
    pod = named("p")
    pod["spec"] = {"nodeName": "n1"}
    world.put(PODS, pod)
    world.put(CONFIG_MAPS, named("c"))
    world.put(CONFIG_MAPS, named("other", "b"))
    async with running(namespace.make(KINDS), world=world) as run:
        await run.client.delete(NAMESPACES, "", "a")
        await run.settle()
        assert world.get(CONFIG_MAPS, "a", "c") is not None
        found = world.get(NAMESPACES, "", "a")
        assert found is not None
        left = condition(found, "NamespaceContentRemaining")
        assert left is not None
        assert left["message"] == (
            "Some resources are remaining: configmaps. has 1 resource instances, "
            "pods. has 1 resource instances"
        )
        world.remove(PODS, "a", "p")
        await run.settle()
        assert world.get(CONFIG_MAPS, "a", "c") is None
        assert world.get(NAMESPACES, "", "a") is None
        assert world.get(CONFIG_MAPS, "b", "other") is not None


async def test_content_with_finalizers_is_named_and_waited_for() -> None:
    world = World()
    world.put(NAMESPACES, space())
    world.put(CONFIG_MAPS, named("c", finalizers=["example.com/hold"]))
    async with running(namespace.make(KINDS), world=world) as run:
        await run.client.delete(NAMESPACES, "", "a")
        await run.settle()
        found = world.get(NAMESPACES, "", "a")
        assert found is not None
        held = condition(found, "NamespaceFinalizersRemaining")
        assert held is not None
        assert "example.com/hold in 1 resource instances" in held["message"]
        world.change(CONFIG_MAPS, "a", "c", metadata={"finalizers": None})
        await run.settle()
        assert world.get(NAMESPACES, "", "a") is None


async def test_each_namespace_has_a_default_account_and_the_root_ca() -> None:
    async with running(SERVICEACCOUNT, root_ca.make("PEM")) as run:
        world = run.world
        world.put(NAMESPACES, space())
        await run.settle()
        assert world.get(SERVICE_ACCOUNTS, "a", "default") is not None
        world.remove(SERVICE_ACCOUNTS, "a", "default")
        world.change(CONFIG_MAPS, "a", "kube-root-ca.crt", data={"ca.crt": "forged"})
        await run.settle()
        assert world.get(SERVICE_ACCOUNTS, "a", "default") is not None
        published = world.get(CONFIG_MAPS, "a", "kube-root-ca.crt")
        assert published is not None
        assert published["data"] == {"ca.crt": "PEM"}


async def test_a_token_secret_is_filled_in_and_goes_with_its_account() -> None:
    made = token_secret.make(lambda account, secret: f"token-of-{account['metadata']['uid']}", "CA")
    async with running(made) as run:
        world = run.world
        world.put(SERVICE_ACCOUNTS, named("robot") | {"metadata": named("robot")["metadata"]})
        account = world.get(SERVICE_ACCOUNTS, "a", "robot")
        assert account is not None
        annotations = {"kubernetes.io/service-account.name": "robot"}
        body = named("t", annotations=annotations)
        world.put(SECRETS, {**body, "type": "kubernetes.io/service-account-token"})
        await run.settle()
        secret = world.get(SECRETS, "a", "t")
        assert secret is not None
        data = {k: base64.b64decode(v).decode() for k, v in secret["data"].items()}
        uid = account["metadata"]["uid"]
        assert data == {"token": f"token-of-{uid}", "ca.crt": "CA", "namespace": "a"}
        world.remove(SERVICE_ACCOUNTS, "a", "robot")
        await run.settle()
        assert world.get(SECRETS, "a", "t") is None


async def test_the_api_server_is_a_service_and_stays_one() -> None:
    made = kubernetes_service.make("10.43.0.1", "192.168.1.2", 6443)
    async with running(made) as run:
        world = run.world
        world.put(NAMESPACES, space("default"))
        await run.settle()
        service = world.get(SERVICES, "default", "kubernetes")
        assert service is not None
        assert service["spec"]["clusterIP"] == "10.43.0.1"
        (slice_,) = world.list(ENDPOINT_SLICES)
        assert slice_["endpoints"][0]["addresses"] == ["192.168.1.2"]
        world.remove(ENDPOINTS, "default", "kubernetes")
        world.change(SERVICES, "default", "kubernetes", spec={"sessionAffinity": "None"})
        await run.settle()
        assert world.get(ENDPOINTS, "default", "kubernetes") is not None
        world.writes.clear()
        world.change(SERVICES, "default", "kubernetes", metadata={"annotations": {"a": "b"}})
        await run.settle()
        assert world.writes == []


async def test_aggregated_roles_follow_what_they_select() -> None:
    def role(name: str, verb: str, **labels: str) -> dict[str, Any]:
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": [verb]}]
        return {"metadata": {"name": name, "labels": labels}, "rules": rules}

    async with running(CLUSTERROLE) as run:
        world = run.world
        selector = {"matchLabels": {"to": "view"}}
        total = role("view", "x")
        total |= {"aggregationRule": {"clusterRoleSelectors": [selector]}, "rules": []}
        world.put(CLUSTER_ROLES, total)
        world.put(CLUSTER_ROLES, role("a", "get", to="view"))
        world.put(CLUSTER_ROLES, role("b", "list", to="edit"))
        await run.settle()

        def verbs() -> list[str]:
            found = world.get(CLUSTER_ROLES, "", "view")
            assert found is not None
            return [rule["verbs"][0] for rule in found["rules"]]

        assert verbs() == ["get"]
        world.change(CLUSTER_ROLES, "", "b", metadata={"labels": {"to": "view"}})
        await run.settle()
        assert verbs() == ["get", "list"]
        world.remove(CLUSTER_ROLES, "", "a")
        await run.settle()
        assert verbs() == ["list"]
