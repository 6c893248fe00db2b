"""What counts towards a quota, and that nothing gets past one."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from controlplane.api.admission.resource_quota import ResourceQuota
from controlplane.api.base import Operation
from controlplane.objects import quotas
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import (
    CONFIG_MAPS,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    RESOURCE_QUOTAS,
    SERVICES,
)
from tests.unit.auth.fake_objects import Objects, Writer
from tests.unit.auth.test_admission import admit, pod, refusal, request

NOW = datetime(2027, 3, 1, 12, tzinfo=UTC)


def limited(spec: dict[str, Any], used: dict[str, str] | None = None) -> Objects:
    objects = Objects()
    status = {"hard": spec["hard"], "used": used} if used is not None else {}
    metadata = {"namespace": "ns", "name": "q", "resourceVersion": "1"}
    objects.put(RESOURCE_QUOTAS, {"metadata": metadata, "spec": spec, "status": status})
    return objects


def plugin(objects: Objects) -> ResourceQuota:
    writer = Writer(objects)
    return ResourceQuota(lambda: writer, lambda: NOW)


def used(objects: Objects) -> Any:
    return objects.list(RESOURCE_QUOTAS)[0]["status"]["used"]


def sized(cpu: str, **more: Any) -> dict[str, Any]:
    resources = {"requests": {"cpu": cpu}, "limits": {"cpu": cpu}}
    return pod(containers=[{"name": "c", "resources": resources}], **more)


def test_a_pod_is_charged_before_it_is_written() -> None:
    hard = {"pods": "2", "requests.cpu": "1"}
    objects = limited({"hard": hard}, {"pods": "0", "requests.cpu": "0"})
    admit(plugin(objects), request(PODS, sized("600m"), objects=objects))
    assert used(objects) == {"pods": "1", "requests.cpu": "600m"}
    message = refusal(plugin(objects), request(PODS, sized("600m"), objects=objects))
    assert message == (
        'pods "web" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: '
        "requests.cpu=600m, limited: requests.cpu=1"
    )
    assert used(objects) == {"pods": "1", "requests.cpu": "600m"}


def test_two_at_once_do_not_take_the_last_place() -> None:
    objects = limited({"hard": {"configmaps": "1"}}, {"configmaps": "0"})
    quota = plugin(objects)

    async def both() -> list[Any]:
        asked = [request(CONFIG_MAPS, {"metadata": {"name": n}}, objects=objects) for n in "ab"]
        tries = [quota.validate(one) for one in asked]
        return await asyncio.gather(*tries, return_exceptions=True)

    results = asyncio.run(both())
    assert [isinstance(result, StatusError) for result in results] == [False, True]


def test_a_quota_that_changed_meanwhile_is_read_again() -> None:
    objects = limited({"hard": {"configmaps": "5"}}, {"configmaps": "0"})

    class Racing(Writer):
        async def update(self, resource: Any, body: Any, *, subresource: str = "") -> Any:
            if not objects.writes:
                status = {"hard": {"configmaps": "5"}, "used": {"configmaps": "3"}}
                seen: Any = objects.list(RESOURCE_QUOTAS)[0]
                metadata = seen["metadata"] | {"resourceVersion": "2"}
                objects.put(RESOURCE_QUOTAS, seen | {"metadata": metadata, "status": status})
                objects.writes.append(("race", "", ""))
            return await super().update(resource, body, subresource=subresource)

    racing = ResourceQuota(lambda: Racing(objects), lambda: NOW)
    admit(racing, request(CONFIG_MAPS, {"metadata": {"name": "a"}}, objects=objects))
    assert used(objects) == {"configmaps": "4"}


def test_a_dry_run_charges_nothing() -> None:
    objects = limited({"hard": {"configmaps": "1"}}, {"configmaps": "0"})
    asked = request(CONFIG_MAPS, {"metadata": {"name": "a"}}, objects=objects)
    asked.dry_run = True
    admit(plugin(objects), asked)
    assert used(objects) == {"configmaps": "0"}


def test_what_nobody_counted_yet_is_counted_at_once() -> None:
    objects = limited({"hard": {"pods": "1"}})
    objects.put(PODS, {"metadata": {"namespace": "ns", "name": "a"}, "spec": {}})
    message = refusal(plugin(objects), request(PODS, pod(), objects=objects))
    assert "requested: pods=1, used: pods=1, limited: pods=1" in message


def test_a_pod_must_say_what_a_quota_limits() -> None:
    objects = limited({"hard": {"limits.memory": "1Gi", "requests.cpu": "1"}}, {})
    assert refusal(plugin(objects), request(PODS, pod(), objects=objects)) == (
        'pods "web" is forbidden: failed quota: q: must specify limits.memory for: c; '
        "requests.cpu for: c"
    )


@pytest.mark.parametrize(
    ("scopes", "spec", "counts"),
    [
        (["Terminating"], {"activeDeadlineSeconds": 5}, True),
        (["Terminating"], {}, False),
        (["NotTerminating"], {}, True),
        (["BestEffort"], {}, True),
        (["NotBestEffort"], {}, False),
        (["PriorityClass"], {"priorityClassName": "high"}, True),
        (["BestEffort", "Terminating"], {}, False),
    ],
)
def test_scopes_decide_which_pods_count(
    scopes: list[str], spec: dict[str, Any], counts: bool
) -> None:
    objects = limited({"hard": {"pods": "5"}, "scopes": scopes}, {"pods": "0"})
    admit(plugin(objects), request(PODS, pod(**spec), objects=objects))
    assert used(objects) == {"pods": "1" if counts else "0"}


def test_a_selector_names_priority_classes() -> None:
    term = {"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}
    quota = {"spec": {"hard": {}, "scopeSelector": {"matchExpressions": [term]}}}
    assert quotas.in_scope(quota, "pods", pod(priorityClassName="high"))
    assert not quotas.in_scope(quota, "pods", pod(priorityClassName="low"))
    assert not quotas.in_scope(quota, "services", {})


def test_an_update_is_charged_for_the_difference() -> None:
    hard = {"services.nodeports": "2", "services": "5"}
    objects = limited({"hard": hard}, {"services.nodeports": "0", "services": "1"})

    def service(kind: str) -> dict[str, Any]:
        return {"metadata": {"name": "s"}, "spec": {"type": kind, "ports": [{}, {}]}}

    asked = request(
        SERVICES,
        service("NodePort"),
        old=service("ClusterIP"),
        objects=objects,
        operation=Operation.UPDATE,
    )
    admit(plugin(objects), asked)
    assert used(objects) == {"services.nodeports": "2", "services": "1"}


def test_claims_count_for_their_class_too() -> None:
    spec = {"storageClassName": "fast", "resources": {"requests": {"storage": "2Gi"}}}
    claim = {"metadata": {"name": "c"}, "spec": spec}
    assert quotas.usage("persistentvolumeclaims", claim, NOW) == {
        "count/persistentvolumeclaims": "1",
        "persistentvolumeclaims": "1",
        "requests.storage": "2Gi",
        "fast.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
        "fast.storageclass.storage.k8s.io/requests.storage": "2Gi",
    }
    name = "fast.storageclass.storage.k8s.io/requests.storage"
    objects = limited({"hard": {name: "1Gi"}}, {name: "0"})
    asked = request(PERSISTENT_VOLUME_CLAIMS, claim, objects=objects)
    assert f"exceeded quota: q, requested: {name}=2Gi" in refusal(plugin(objects), asked)


def test_pods_that_ended_cost_their_count_only() -> None:
    assert quotas.usage("pods", {"status": {"phase": "Succeeded"}}, NOW) == {"count/pods": "1"}
    metadata = {"deletionTimestamp": "2027-03-01T12:00:00Z", "deletionGracePeriodSeconds": 30}
    going = {"metadata": metadata}
    assert "pods" in quotas.usage("pods", going, NOW)
    assert "pods" not in quotas.usage("pods", going, NOW + timedelta(minutes=1))


def test_extended_resources_and_huge_pages_count_as_requests() -> None:
    requests = {"example.com/gpu": "2", "hugepages-2Mi": "4Mi"}
    container = {"name": "c", "resources": {"requests": requests, "limits": requests}}
    cost = quotas.usage("pods", pod(containers=[container]), NOW)
    assert cost["requests.example.com/gpu"] == "2"
    assert (cost["hugepages-2Mi"], cost["requests.hugepages-2Mi"]) == ("4Mi", "4Mi")
    assert quotas.counted("pods", ["requests.example.com/gpu", "requests.storage", "pods"]) == [
        "requests.example.com/gpu",
        "pods",
    ]


def test_a_quota_names_the_kinds_it_looks_at() -> None:
    names = ["count/deployments.apps", "requests.cpu", "secrets", "requests.storage"]
    assert quotas.kinds_of(names) == {
        "deployments.apps",
        "pods",
        "secrets",
        "persistentvolumeclaims",
    }


def test_a_total_sums_what_is_in_scope() -> None:
    quota = {"spec": {"hard": {"pods": "9", "requests.cpu": "9", "secrets": "1"}}}
    pods = [sized("250m"), sized("750m"), {"status": {"phase": "Failed"}}]
    assert quotas.total(quota, "pods", pods, NOW) == {"pods": "2", "requests.cpu": "1"}
