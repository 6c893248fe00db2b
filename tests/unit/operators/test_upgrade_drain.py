"""Draining a node, against an API server: evictions, budgets, and who is left alone."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.client import ApiError
from operators.upgrade import drainplan
from operators.upgrade.base import Drained
from operators.upgrade.drain import NodeDrains
from tests.fakes.api_server import NOW as SERVER_NOW
from tests.fakes.operators_http import HttpClient, api

Object = dict[str, Any]
SINCE = datetime(2026, 1, 2, 3, 0, 0, tzinfo=UTC)
OWNED = {
    "apiVersion": "apps/v1",
    "kind": "ReplicaSet",
    "name": "web",
    "uid": "1",
    "controller": True,
}
FORCE = {"enabled": True, "force": True}


async def drain(client: Any, options: Object, *, after: float = 0) -> Drained:
    """``after`` so many seconds."""
    at = SINCE + timedelta(seconds=after)
    return await NodeDrains(client, now=lambda: at).drain("pi", options, since=SINCE)


async def add(client: HttpClient, name: str, *, node: str = "pi", **more: Any) -> Object:
    metadata = {"name": name, "labels": {"app": "web"}, **more.pop("metadata", {})}
    spec = {"containers": [{"name": "a", "image": "b"}], "nodeName": node, **more}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    return await client.create("/api/v1/namespaces/shop/pods", body)


async def managed(client: HttpClient, name: str, **more: Any) -> Object:
    metadata = {**more.pop("metadata", {}), "ownerReferences": [more.pop("owner", OWNED)]}
    return await add(client, name, metadata=metadata, **more)


async def begin(client: HttpClient) -> None:
    body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    await client.create("/api/v1/namespaces", body)


async def set_phase(client: HttpClient, name: str, phase: str, *, ready: bool = True) -> None:
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"phase": phase, "conditions": conditions}
    await client.merge(f"/api/v1/namespaces/shop/pods/{name}/status", {"status": status})


async def gone(client: HttpClient, name: str) -> None:
    """As a kubelet says it when the containers have ended."""
    await client.delete(f"/api/v1/namespaces/shop/pods/{name}?gracePeriodSeconds=0")


async def budget(client: HttpClient, allowed: int) -> None:
    path = "/apis/policy/v1/namespaces/shop/poddisruptionbudgets"
    body = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "web"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}},
    }
    await client.create(path, body)
    status = {
        "disruptionsAllowed": allowed,
        "currentHealthy": 2,
        "desiredHealthy": 2,
        "expectedPods": 2,
        "observedGeneration": 1,
    }
    await client.merge(f"{path}/web/status", {"status": status})


def evicted(client: HttpClient) -> list[str]:
    return [path.split("/")[-2] for verb, path in client.asked if path.endswith("/eviction")]


async def test_pods_of_the_node_are_evicted_and_waited_for() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        await managed(client, "other", node="elsewhere")
        first = await drain(client, FORCE)
        assert (first.done, first.message) == (False, "waits for pods to terminate: shop/a")
        assert first.retry_at == SINCE + timedelta(seconds=1)
        second = await drain(client, FORCE, after=10)
        assert second.retry_at == SINCE + timedelta(seconds=15)
        assert evicted(client) == ["a"], "asked once"
        await gone(client, "a")
        assert await drain(client, FORCE) == Drained(done=True, message="", retry_at=None)


async def test_a_budget_holds_pods_back_and_is_named() -> None:
    async with api() as (_, client):
        await begin(client)
        for name in ("a", "b"):
            await managed(client, name)
            await set_phase(client, name, "Running")
        await budget(client, 1)
        one_goes = await drain(client, FORCE)
        assert not one_goes.done
        held = evicted(client)[-1]
        assert one_goes.message.startswith(
            f'error when evicting pods/"{held}" -n "shop" (will retry after 5s): '
            "Cannot evict pod as it would violate the pod's disruption budget. "
            "The disruption budget web needs 2 healthy pods and has 2 currently"
        )
        assert one_goes.retry_at is not None
        later = await drain(client, FORCE, after=60)
        assert later.retry_at == SINCE + timedelta(seconds=90)
        latest = await drain(client, FORCE, after=600)
        assert latest.retry_at == SINCE + timedelta(seconds=660), "not ever more seldom"


async def test_without_evictions_no_budget_is_asked() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        await set_phase(client, "a", "Running")
        await budget(client, 0)
        assert "disruption budget" in (await drain(client, FORCE)).message
        options = {**FORCE, "disableEviction": True, "gracePeriodSeconds": 7}
        assert "terminate: shop/a" in (await drain(client, options)).message
        found = await client.get("/api/v1/namespaces/shop/pods/a")
        assert found["metadata"]["deletionGracePeriodSeconds"] == 7


async def test_the_grace_period_is_told() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        await managed(client, "b", terminationGracePeriodSeconds=42)
        await drain(client, {**FORCE, "gracePeriodSeconds": 5})
        found = await client.get("/api/v1/namespaces/shop/pods/a")
        assert found["metadata"]["deletionGracePeriodSeconds"] == 5
    async with api() as (_, client):
        await begin(client)
        await managed(client, "b", terminationGracePeriodSeconds=42)
        await drain(client, {**FORCE, "gracePeriodSeconds": -1})
        found = await client.get("/api/v1/namespaces/shop/pods/b")
        assert found["metadata"]["deletionGracePeriodSeconds"] == 42


EMPTY_DIR = [{"name": "data", "emptyDir": {}}]


async def test_a_pod_that_nobody_makes_again_stops_the_drain() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        await add(client, "alone")
        await managed(client, "data", volumes=EMPTY_DIR)
        found = await drain(client, {"enabled": True})
        assert found.message == (
            "cannot delete cannot delete Pods that declare no controller "
            "(use --force to override): shop/alone; cannot delete Pods with local storage "
            "(use --delete-emptydir-data to override): shop/data"
        )
        assert not found.failed
        assert not evicted(client), "nobody goes while somebody is refused"
        await drain(client, {**FORCE, "deleteEmptyDirData": True})
        assert sorted(evicted(client)) == ["a", "alone", "data"]


async def test_finished_pods_go_whatever_they_are() -> None:
    async with api() as (_, client):
        await begin(client)
        await add(client, "alone", volumes=EMPTY_DIR)
        await set_phase(client, "alone", "Succeeded")
        await drain(client, {"enabled": True})
        assert evicted(client) == ["alone"]


async def test_pods_of_daemonsets_and_mirror_pods_stay() -> None:
    daemon = {**OWNED, "kind": "DaemonSet", "name": "logs"}
    template = {
        "metadata": {"labels": {"app": "logs"}},
        "spec": {"containers": [{"name": "a", "image": "b"}]},
    }
    body = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "logs"},
        "spec": {"selector": {"matchLabels": {"app": "logs"}}, "template": template},
    }
    async with api() as (_, client):
        await begin(client)
        await client.create("/apis/apps/v1/namespaces/shop/daemonsets", body)
        await managed(client, "logs", owner=daemon, volumes=EMPTY_DIR)
        mirror = {"annotations": {"kubernetes.io/config.mirror": "x"}}
        await add(client, "static", metadata=mirror)
        assert (await drain(client, {"enabled": True})).done
        told = await drain(client, {"enabled": True, "ignoreDaemonSets": False})
        assert told.message.startswith(
            "cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore): shop/logs"
        )
        await client.delete("/apis/apps/v1/namespaces/shop/daemonsets/logs")
        lost = await drain(client, {"enabled": True})
        assert lost.message.startswith('cannot delete daemonsets.apps "logs" not found: shop/logs')
        await drain(client, {**FORCE, "deleteEmptyDirData": True})
        assert evicted(client) == ["logs"]


async def test_pods_are_chosen_by_labels_and_upgraders_never() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a", metadata={"labels": {"drain": "yes"}})
        await managed(client, "b")
        await managed(client, "job", metadata={"labels": {"upgrade.pinnace.dev/plan": "x"}})
        await managed(client, "suc", metadata={"labels": {"upgrade.cattle.io/controller": "x"}})
        ours = {"labels": {"app.kubernetes.io/name": "pinnace-operators"}}
        await managed(client, "ours", metadata=ours)
        chosen = {"matchExpressions": [{"key": "drain", "operator": "Exists"}]}
        await drain(client, {**FORCE, "podSelector": chosen})
        assert evicted(client) == ["a"]
        await drain(client, FORCE)
        assert sorted(evicted(client)) == ["a", "b"]


async def test_after_its_time_a_drain_has_failed() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        options = {**FORCE, "timeoutSeconds": 60}
        waits = await drain(client, options, after=59)
        assert waits.retry_at == SINCE + timedelta(seconds=60), "not later than its end"
        found = await drain(client, options, after=60)
        assert found == Drained(
            done=False,
            message='error when evicting pods/"a" -n "shop": global timeout reached: 60s',
            retry_at=None,
            failed=True,
        )
        await gone(client, "a")
        assert (await drain(client, options, after=61)).done, "done is done"


async def test_who_does_not_come_to_an_end_may_be_left() -> None:
    async with api() as (_, client):
        await begin(client)
        await managed(client, "a", terminationGracePeriodSeconds=0)
        options = {**FORCE, "gracePeriodSeconds": 30, "skipWaitForDeleteTimeout": 100}
        await drain(client, options)
        deleted = (SERVER_NOW + timedelta(seconds=30) - SINCE).total_seconds()
        assert not (await drain(client, options, after=deleted + 100)).done
        assert (await drain(client, options, after=deleted + 101)).done


async def test_a_pod_of_the_same_name_that_came_after_is_not_evicted() -> None:
    class Late(HttpClient):
        """What it is told of pods was true a while ago."""

        async def get(self, path: str, query: Any = None) -> Object:
            found = await super().get(path, query)
            for item in found.get("items") or ():
                item["metadata"]["uid"] = "of-before"
            return found

    async with api() as (_, client):
        await begin(client)
        await managed(client, "a")
        client.__class__ = Late
        found = await drain(client, FORCE)
        assert "precondition" in found.message.lower()
        assert not (await client.get("/api/v1/namespaces/shop/pods/a"))["metadata"].get(
            "deletionTimestamp"
        )


async def test_an_empty_node_costs_one_request() -> None:
    async with api() as (_, client):
        assert (await drain(client, FORCE)).done
        assert len(client.asked) == 1


class Refusing:
    """An API that lists one pod and refuses to let it go."""

    def __init__(self, err: ApiError) -> None:
        self._err = err

    async def get(self, path: str, query: Any = None) -> Object:
        metadata = {"name": "a", "namespace": "shop", "uid": "1", "ownerReferences": [OWNED]}
        return {"items": [{"metadata": metadata, "spec": {}}]}

    async def create(self, path: str, body: Any) -> Object:
        raise self._err


@pytest.mark.parametrize(
    ("err", "said", "seconds"),
    [
        (
            ApiError(429, "TooManyRequests", "Not now.", {"retryAfterSeconds": 12}),
            "(will retry after 12s): Not now.",
            12,
        ),
        (ApiError(500, "InternalError", "more than one budget"), ": more than one budget", 5),
        (ApiError(0, "", "no answer"), ": no answer", 5),
    ],
)
async def test_what_the_api_says_is_told(err: ApiError, said: str, seconds: int) -> None:
    found = await drain(Refusing(err), FORCE)
    assert found.message.endswith(
        f'error when evicting pods/"a" -n "shop" {said}'.replace(" :", ":")
    )
    assert found.retry_at == SINCE + timedelta(seconds=seconds)


async def test_who_is_gone_meanwhile_is_gone() -> None:
    found = await drain(Refusing(ApiError(404, "NotFound", "x")), FORCE)
    assert found.message == "waits for pods to terminate: shop/a"


def test_what_is_wrong_with_options_is_said_by_field() -> None:
    wrong = {"timeout": 5, "gracePeriodSeconds": "5", "podSelector": {"matchLabels": {"a b": "c"}}}
    assert drainplan.validate(wrong) == [
        "spec.drain.timeout: unknown field",
        f"spec.drain.gracePeriodSeconds: must be a number from -1 to {366 * 86400}",
        "spec.drain.podSelector.matchLabels.a b: 'a b' is no name of a label",
    ]
    assert drainplan.validate({**FORCE, "podSelector": {}}) == []
