"""What the server itself sets, keeps and refuses when objects are written."""

import asyncio
from typing import Any

import pytest

from controlplane.client.base import Object, PatchType
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import (
    CERTIFICATE_SIGNING_REQUESTS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    JOBS,
    LEASES,
    NAMESPACES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    SECRETS,
    SERVICES,
)
from tests.fakes.api_server import NOW, Served, serving


def named(name: str, **fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default"}, **fields}


def pod(name: str, **fields: Any) -> dict[str, Any]:
    containers = [{"name": "c", "image": "busybox", **fields}]
    body = named(name, spec={"containers": containers})
    body["metadata"]["labels"] = {"app": "web"}
    return body


def service(name: str, **spec: Any) -> dict[str, Any]:
    return named(name, spec={"ports": [{"port": 80}], **spec})


async def bind(served: Served, name: str, node: str = "n1") -> None:
    body = named(name, target={"kind": "Node", "name": node})
    await served.client.create(PODS, body, subresource="binding", name=name)


def resources(**amounts: str) -> dict[str, Any]:
    return {"resources": {"requests": amounts, "limits": amounts}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "BestEffort"),
        (resources(cpu="1"), "Burstable"),
        (resources(cpu="1", memory="1Gi"), "Guaranteed"),
        ({"resources": {"requests": {"cpu": "1"}}}, "Burstable"),
        ({"resources": {"requests": {"cpu": "0"}}}, "BestEffort"),
    ],
)
async def test_pods_begin_pending_with_their_quality_of_service(
    fields: dict[str, Any], expected: str
) -> None:
    async with serving() as served:
        made = await served.client.create(
            PODS, {**pod("p", **fields), "status": {"phase": "Running"}}
        )
    assert made["status"] == {"phase": "Pending", "qosClass": expected}
    assert made["metadata"]["generation"] == 1
    assert made["metadata"]["creationTimestamp"] == "2026-01-02T03:04:05Z"


async def test_the_generation_counts_changes_of_the_spec_only() -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    async with serving() as served:
        await served.client.create(DEPLOYMENTS, named("d", spec=spec))
        generations = []
        changed: Object = {}
        for body in (
            {"metadata": {"labels": {"x": "y"}}},
            {"status": {"replicas": 5}},
            {"spec": {"replicas": 5}},
            {"metadata": {"annotations": {"x": "y"}}},
        ):
            changed = await served.client.patch(DEPLOYMENTS, "default", "d", body=body)
            generations.append(changed["metadata"]["generation"])
        assert generations == [1, 1, 2, 3]
        assert "replicas" not in changed["status"]


async def test_what_the_server_sets_cannot_be_changed() -> None:
    async with serving() as served:
        made = await served.client.create(CONFIG_MAPS, named("a"))
        metadata = {"creationTimestamp": "2000-01-01T00:00:00Z", "generation": 9, "selfLink": "x"}
        changed = await served.client.patch(
            CONFIG_MAPS, "default", "a", body={"metadata": metadata, "data": {"k": "v"}}
        )
    before, after = made["metadata"], changed["metadata"]
    assert after["creationTimestamp"] == before["creationTimestamp"]
    assert "generation" not in after
    assert "selfLink" not in after


async def test_another_uid_is_a_conflict() -> None:
    async with serving() as served:
        await served.client.create(CONFIG_MAPS, named("a"))
        with pytest.raises(StatusError, match="Precondition failed: UID in precondition: other"):
            await served.client.patch(
                CONFIG_MAPS, "default", "a", body={"metadata": {"uid": "other"}}
            )


async def test_concurrent_patches_all_count() -> None:
    async with serving() as served:
        await served.client.create(CONFIG_MAPS, named("a"))
        async with asyncio.TaskGroup() as tasks:
            for n in range(40):
                body = {"data": {str(n): "x"}}
                tasks.create_task(served.client.patch(CONFIG_MAPS, "default", "a", body=body))
        found = await served.client.get(CONFIG_MAPS, "default", "a")
    assert len(found["data"]) == 40


async def test_leases_need_a_version_to_be_updated_and_may_be_created_by_update() -> None:
    async with serving() as served:
        made = await served.client.update(LEASES, named("l", spec={"holderIdentity": "a"}))
        with pytest.raises(StatusError, match="must be specified for an update"):
            await served.client.update(LEASES, named("l", spec={"holderIdentity": "b"}))
        made = await served.client.update(LEASES, {**made, "spec": {"holderIdentity": "b"}})
    assert made["spec"]["holderIdentity"] == "b"


async def test_string_data_becomes_data() -> None:
    async with serving() as served:
        made = await served.client.create(SECRETS, named("s", stringData={"k": "v"}))
        changed = await served.client.patch(
            SECRETS, "default", "s", body={"stringData": {"k": "w"}}
        )
    assert (made["data"], changed["data"]) == ({"k": "dg=="}, {"k": "dw=="})
    assert "stringData" not in changed


async def test_a_job_selects_its_own_pods() -> None:
    spec = {"template": {"spec": {**pod("x")["spec"], "restartPolicy": "Never"}}}
    async with serving() as served:
        made = await served.client.create(JOBS, named("j", spec=spec))
    uid = made["metadata"]["uid"]
    assert made["spec"]["selector"]["matchLabels"] == {"batch.kubernetes.io/controller-uid": uid}
    assert made["spec"]["template"]["metadata"]["labels"] == {
        "controller-uid": uid,
        "batch.kubernetes.io/controller-uid": uid,
        "job-name": "j",
        "batch.kubernetes.io/job-name": "j",
    }


async def test_a_namespace_goes_when_it_is_finalized() -> None:
    async with serving() as served:
        made = await served.client.create(NAMESPACES, {"metadata": {"name": "n"}})
        assert made["spec"] == {"finalizers": ["kubernetes"]}
        assert made["metadata"]["labels"] == {"kubernetes.io/metadata.name": "n"}
        marked = await served.client.delete(NAMESPACES, "", "n")
        assert marked["status"]["phase"] == "Terminating"
        await served.client.update(NAMESPACES, {**marked, "spec": {}}, subresource="finalize")
        with pytest.raises(StatusError, match="not found"):
            await served.client.get(NAMESPACES, "", "n")


# Services


async def test_services_get_an_address_and_keep_it() -> None:
    async with serving() as served:
        made = await served.client.create(SERVICES, service("s"))
        address = made["spec"]["clusterIP"]
        assert address.startswith("10.43.")
        assert made["spec"]["clusterIPs"] == [address]
        body = service("s", selector={"app": "web"})
        updated = await served.client.update(SERVICES, body)
    assert updated["spec"]["clusterIP"] == address
    assert updated["spec"]["ipFamilies"] == ["IPv4"]


async def test_an_address_is_given_once() -> None:
    async with serving() as served:
        await served.client.create(SERVICES, service("a", clusterIP="10.43.0.7"))
        with pytest.raises(StatusError) as error:
            await served.client.create(SERVICES, service("b", clusterIP="10.43.0.7"))
        assert error.value.code == 422
        assert error.value.message == (
            'Service "b" is invalid: spec.clusterIPs: Invalid value: ["10.43.0.7"]: '
            "failed to allocate IP 10.43.0.7: provided IP is already allocated"
        )
        await served.client.delete(SERVICES, "default", "a")
        again = await served.client.create(SERVICES, service("b", clusterIP="10.43.0.7"))
    assert again["spec"]["clusterIP"] == "10.43.0.7"


async def test_addresses_outside_the_network_are_refused() -> None:
    async with serving() as served:
        with pytest.raises(StatusError, match=r"The range of valid IPs is 10\.43\.0\.0/16"):
            await served.client.create(SERVICES, service("a", clusterIP="10.44.0.7"))


async def test_concurrent_services_never_share_a_port() -> None:
    async with serving() as served:
        async with asyncio.TaskGroup() as tasks:
            made = [
                tasks.create_task(served.client.create(SERVICES, service(f"s{n}", type="NodePort")))
                for n in range(50)
            ]
        ports = [task.result()["spec"]["ports"][0]["nodePort"] for task in made]
    assert len(set(ports)) == 50
    assert all(30000 <= port <= 32767 for port in ports)


async def test_one_port_in_two_protocols_has_one_node_port() -> None:
    ports = [{"name": p.lower(), "port": 53, "protocol": p} for p in ("UDP", "TCP")]
    async with serving() as served:
        made = await served.client.create(
            SERVICES, named("dns", spec={"type": "NodePort", "ports": ports})
        )
    assert len({port["nodePort"] for port in made["spec"]["ports"]}) == 1


async def test_a_changed_type_gives_back_what_it_no_longer_needs() -> None:
    async with serving() as served:
        made = await served.client.create(SERVICES, service("s", type="NodePort"))
        plain = await served.client.update(
            SERVICES, {**made, "spec": {**made["spec"], "type": "ClusterIP"}}
        )
        assert "nodePort" not in plain["spec"]["ports"][0]
        spec = {**plain["spec"], "type": "ExternalName", "externalName": "example.com"}
        external = await served.client.update(SERVICES, {**plain, "spec": spec})
    assert "clusterIP" not in external["spec"]


async def test_headless_services_have_no_address() -> None:
    async with serving() as served:
        made = await served.client.create(
            SERVICES, service("s", clusterIP="None", selector={"app": "web"})
        )
    assert made["spec"]["clusterIPs"] == ["None"]


async def test_two_families_are_refused() -> None:
    async with serving() as served:
        with pytest.raises(StatusError, match="not configured for dual-stack services"):
            await served.client.create(SERVICES, service("s", ipFamilyPolicy="RequireDualStack"))


# Pods: binding, eviction, deletion


async def test_a_pod_is_bound_once() -> None:
    async with serving() as served:
        await served.client.create(PODS, pod("p"))
        await bind(served, "p")
        found = await served.client.get(PODS, "default", "p")
        assert found["spec"]["nodeName"] == "n1"
        scheduled = found["status"]["conditions"][0]
        assert (scheduled["type"], scheduled["status"]) == ("PodScheduled", "True")
        with pytest.raises(StatusError, match='pod p is already assigned to node "n1"'):
            await bind(served, "p", "n2")


async def test_a_pod_without_a_node_is_deleted_at_once() -> None:
    async with serving() as served:
        await served.client.create(PODS, pod("p"))
        await served.client.delete(PODS, "default", "p")
        with pytest.raises(StatusError, match="not found"):
            await served.client.get(PODS, "default", "p")


async def test_a_grace_period_is_only_shortened() -> None:
    async with serving() as served:
        await served.client.create(PODS, pod("p"))
        await bind(served, "p")
        seen = []
        marked: Object = {}
        for seconds in (60, 90, 10):
            marked = await served.client.delete(
                PODS, "default", "p", options={"gracePeriodSeconds": seconds}
            )
            seen.append(marked["metadata"]["deletionGracePeriodSeconds"])
    assert seen == [60, 60, 10]
    assert marked["metadata"]["deletionTimestamp"] == "2026-01-02T03:04:15Z"
    assert NOW.second == 5


async def evicting(served: Served, budget: dict[str, Any]) -> StatusError | None:
    await served.client.create(PODS, pod("p"))
    await bind(served, "p")
    ready = [{"type": "Ready", "status": "True"}]
    status = {"status": {"phase": "Running", "conditions": ready}}
    await served.client.patch(PODS, "default", "p", body=status, subresource="status")
    spec = {"selector": {"matchLabels": {"app": "web"}}, "minAvailable": 1}
    await served.client.create(POD_DISRUPTION_BUDGETS, named("b", spec=spec))
    await served.client.patch(
        POD_DISRUPTION_BUDGETS, "default", "b", body={"status": budget}, subresource="status"
    )
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", **named("p")}
    try:
        await served.client.create(PODS, eviction, subresource="eviction", name="p")
    except StatusError as error:
        return error
    return None


async def test_an_eviction_waits_for_its_budget() -> None:
    async with serving() as served:
        status = {"observedGeneration": 1, "desiredHealthy": 1, "currentHealthy": 1}
        refused = await evicting(served, status)
    assert refused is not None
    assert (refused.code, refused.reason) == (429, "TooManyRequests")
    assert refused.message == "Cannot evict pod as it would violate the pod's disruption budget."
    assert refused.details is not None
    assert refused.details["causes"][0] == {
        "reason": "DisruptionBudget",
        "message": "The disruption budget b needs 1 healthy pods and has 1 currently",
    }


async def test_an_eviction_takes_one_off_its_budget() -> None:
    async with serving() as served:
        status = {"observedGeneration": 1, "disruptionsAllowed": 1, "desiredHealthy": 1}
        assert await evicting(served, status) is None
        budget: Object = await served.client.get(POD_DISRUPTION_BUDGETS, "default", "b")
        marked = await served.client.get(PODS, "default", "p")
    assert budget["status"]["disruptionsAllowed"] == 0
    assert list(budget["status"]["disruptedPods"]) == ["p"]
    assert marked["metadata"]["deletionTimestamp"]
    target = next(c for c in marked["status"]["conditions"] if c["type"] == "DisruptionTarget")
    assert (target["status"], target["reason"]) == ("True", "EvictionByEvictionAPI")


async def test_apply_conflicts_name_the_field_and_its_owner() -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "1"}}
    async with serving() as served:

        async def apply(manager: str, value: str, **options: str) -> Object:
            body["data"] = {"k": value}
            return await served.client.patch(
                CONFIG_MAPS, "default", "a", body=body, type=PatchType.APPLY,
                options={"fieldManager": manager, **options},
            )  # fmt: skip

        await apply("one", "1")
        with pytest.raises(StatusError, match=r'conflict with "one": \.data\.k'):
            await apply("two", "2")
        forced = await apply("two", "2", force="true")
    assert forced["data"] == {"k": "2"}
    assert [entry["manager"] for entry in forced["metadata"]["managedFields"]] == ["two"]


async def test_an_approval_changes_nothing_else_and_says_when() -> None:
    spec = {"request": "LS0t", "signerName": "example.com/x", "usages": ["client auth"]}
    decision = {"type": "Approved", "status": "True", "reason": "Good", "message": "yes"}
    async with serving() as served:
        client = served.client
        made = await client.create(
            CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": "r"}, "spec": spec}
        )
        assert made["spec"]["username"] == "admin"
        status = {"conditions": [decision], "certificate": "LS0t"}
        body = {"spec": {"username": "other"}, "status": status}
        approved = await client.patch(
            CERTIFICATE_SIGNING_REQUESTS, "", "r", body=body, subresource="approval"
        )
        body = {"status": {"conditions": [], "certificate": "LS0t"}}
        issued = await client.patch(
            CERTIFICATE_SIGNING_REQUESTS, "", "r", body=body, subresource="status"
        )
    assert approved["spec"] == made["spec"]
    at = "2026-01-02T03:04:05Z"
    expected = {**decision, "lastUpdateTime": at, "lastTransitionTime": at}
    assert approved["status"] == {"conditions": [expected]}
    assert issued["status"] == {"conditions": [expected], "certificate": "LS0t"}


async def test_a_decision_can_stand_beside_other_conditions_and_is_not_taken_back() -> None:
    spec = {"request": "LS0t", "signerName": "example.com/x", "usages": ["client auth"]}
    noted = {"type": "Noted", "status": "True", "reason": "", "message": ""}
    decision = {"type": "Approved", "status": "True", "reason": "Good", "message": ""}
    async with serving() as served:
        client = served.client
        await client.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": "r"}, "spec": spec})

        async def approve(*conditions: dict[str, str]) -> list[str]:
            body = {"status": {"conditions": list(conditions)}}
            answer = await client.patch(
                CERTIFICATE_SIGNING_REQUESTS, "", "r", body=body, subresource="approval"
            )
            return [c["type"] for c in answer["status"]["conditions"]]

        assert await approve(noted) == ["Noted"]
        assert await approve(noted, decision) == ["Noted", "Approved"]
        with pytest.raises(StatusError, match='may not remove a condition of type "Approved"'):
            await approve(noted)
        with pytest.raises(StatusError, match="mutually exclusive"):
            await approve(noted, decision, {**decision, "type": "Denied"})
