"""One suite over every Client: in the process, and over HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.api.local import LocalClient
from controlplane.client.base import Client, Object, PatchType, Selection, Unreachable
from controlplane.client.http import HttpClient
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS
from tests.fakes.api_server import ADMIN, listening

SECONDS = 5.0


def config_map(name: str, *, labels: dict[str, str] | None = None, **data: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels or {}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


@pytest.fixture(params=["local", "http"])
async def client(request: pytest.FixtureRequest) -> AsyncIterator[Client]:
    async with listening() as served:
        if request.param == "local":
            yield LocalClient(served.parts, ADMIN, manager="conformance")
        else:
            async with HttpClient(served.url, agent="conformance") as http:
                yield http


async def test_created_objects_can_be_read(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", key="value"))
    found = await client.get(CONFIG_MAPS, "default", "a")
    assert found == made
    assert found["data"] == {"key": "value"}
    assert found["metadata"]["uid"]
    assert found["kind"] == "ConfigMap"


async def test_managed_fields_name_the_client(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", key="value"))
    assert [entry["manager"] for entry in made["metadata"]["managedFields"]] == ["conformance"]


async def test_absent_objects_are_not_found(client: Client) -> None:
    with pytest.raises(StatusError) as error:
        await client.get(CONFIG_MAPS, "default", "nothing")
    assert (error.value.code, error.value.reason) == (404, "NotFound")
    assert error.value.message == 'configmaps "nothing" not found'


async def test_a_second_create_is_refused(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a"))
    with pytest.raises(StatusError) as error:
        await client.create(CONFIG_MAPS, config_map("a"))
    assert error.value.reason == "AlreadyExists"


async def test_lists_select_by_labels_and_fields(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a", labels={"app": "web"}))
    await client.create(CONFIG_MAPS, config_map("b", labels={"app": "db"}))
    by_label = await client.list(CONFIG_MAPS, Selection(labels="app in (web)"))
    by_field = await client.list(CONFIG_MAPS, Selection(fields="metadata.name=b"))
    assert [obj["metadata"]["name"] for obj in by_label.items] == ["a"]
    assert [obj["metadata"]["name"] for obj in by_field.items] == ["b"]


async def test_lists_are_of_one_namespace_or_all(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a"))
    other = config_map("b")
    other["metadata"] = {"name": "b", "namespace": "other"}
    await client.create(CONFIG_MAPS, other)
    listed = await client.list(CONFIG_MAPS, Selection(namespace="other"))
    assert [obj["metadata"]["name"] for obj in listed.items] == ["b"]
    assert len((await client.list(CONFIG_MAPS)).items) == 2


async def test_an_old_version_cannot_be_written(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", key="1"))
    await client.update(CONFIG_MAPS, {**made, "data": {"key": "2"}})
    with pytest.raises(StatusError) as error:
        await client.update(CONFIG_MAPS, {**made, "data": {"key": "3"}})
    assert (error.value.code, error.value.reason) == (409, "Conflict")
    assert (await client.get(CONFIG_MAPS, "default", "a"))["data"] == {"key": "2"}


async def test_an_update_that_changes_nothing_keeps_the_version(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a", key="1"))
    same = await client.update(CONFIG_MAPS, made)
    assert same["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        (PatchType.MERGE, {"data": {"b": "2"}}),
        (PatchType.STRATEGIC, {"data": {"b": "2"}}),
        (PatchType.JSON, [{"op": "add", "path": "/data/b", "value": "2"}]),
    ],
)
async def test_patches_change_a_part(client: Client, type_: PatchType, body: object) -> None:
    await client.create(CONFIG_MAPS, config_map("a", a="1"))
    patched = await client.patch(CONFIG_MAPS, "default", "a", body=body, type=type_)
    assert patched["data"] == {"a": "1", "b": "2"}


async def test_apply_creates_and_then_changes(client: Client) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}}
    options = {"fieldManager": "me"}
    applied: Object = {}
    for value in ("1", "2"):
        body["data"] = {"a": value}
        applied = await client.patch(
            CONFIG_MAPS, "default", "a", body=body, type=PatchType.APPLY, options=options
        )
        assert applied["data"] == {"a": value}
    assert applied["metadata"]["managedFields"][0]["operation"] == "Apply"


async def test_a_dry_run_changes_nothing(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a", a="1"))
    options = {"dryRun": "All"}
    shown = await client.patch(
        CONFIG_MAPS, "default", "a", body={"data": {"a": "2"}}, options=options
    )
    assert shown["data"] == {"a": "2"}
    assert (await client.get(CONFIG_MAPS, "default", "a"))["data"] == {"a": "1"}


async def test_deleted_objects_are_gone(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a"))
    answer = await client.delete(CONFIG_MAPS, "default", "a")
    assert answer["status"] == "Success"
    with pytest.raises(StatusError, match="not found"):
        await client.get(CONFIG_MAPS, "default", "a")


async def test_a_namesake_is_not_deleted(client: Client) -> None:
    await client.create(CONFIG_MAPS, config_map("a"))
    with pytest.raises(StatusError) as error:
        await client.delete(
            CONFIG_MAPS, "default", "a", options={"preconditions": {"uid": "another"}}
        )
    assert error.value.reason == "Conflict"


async def test_finalizers_keep_an_object_until_they_are_gone(client: Client) -> None:
    body = config_map("a")
    body["metadata"] = {"name": "a", "namespace": "default", "finalizers": ["example.com/wait"]}
    await client.create(CONFIG_MAPS, body)
    marked = await client.delete(CONFIG_MAPS, "default", "a")
    assert marked["metadata"]["deletionTimestamp"]
    await client.patch(CONFIG_MAPS, "default", "a", body={"metadata": {"finalizers": None}})
    with pytest.raises(StatusError, match="not found"):
        await client.get(CONFIG_MAPS, "default", "a")


async def test_a_pod_is_deleted_gracefully(client: Client) -> None:
    await client.create(PODS, pod("p"))
    node = {"apiVersion": "v1", "kind": "Binding", "target": {"name": "n1"}}
    await client.create(
        PODS, {**node, "metadata": {"name": "p", "namespace": "default"}},
        subresource="binding", name="p",
    )  # fmt: skip
    marked = await client.delete(PODS, "default", "p")
    assert marked["spec"]["nodeName"] == "n1"
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    await client.delete(PODS, "default", "p", options={"gracePeriodSeconds": 0})
    with pytest.raises(StatusError, match="not found"):
        await client.get(PODS, "default", "p")


async def test_status_and_spec_are_written_apart(client: Client) -> None:
    made = await client.create(NODES, {"metadata": {"name": "n1"}, "spec": {"unschedulable": True}})
    changed = {
        **made,
        "spec": {},
        "status": {"nodeInfo": made["status"]["nodeInfo"], "phase": "Running"},
    }
    after = await client.update(NODES, changed, subresource="status")
    assert after["spec"] == {"unschedulable": True}
    assert after["status"]["phase"] == "Running"
    again = await client.patch(NODES, "", "n1", body={"status": {"phase": "Pending"}})
    assert again["status"]["phase"] == "Running"


async def test_scale_is_read_and_written_as_a_scale(client: Client) -> None:
    await client.create(DEPLOYMENTS, deployment("d"))
    scale = await client.patch(
        DEPLOYMENTS, "default", "d", body={"spec": {"replicas": 4}}, subresource="scale"
    )
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    found = await client.get(DEPLOYMENTS, "default", "d")
    assert found["spec"]["replicas"] == 4
    assert found["metadata"]["generation"] == 2


async def test_a_watch_tells_every_change_after_a_version(client: Client) -> None:
    start = (await client.list(CONFIG_MAPS)).resource_version
    await client.create(CONFIG_MAPS, config_map("a", a="1"))
    await client.patch(CONFIG_MAPS, "default", "a", body={"data": {"a": "2"}})
    await client.delete(CONFIG_MAPS, "default", "a")
    # Watching from version 0 would begin with what is: go on after the empty list.
    after = start if start != "0" else "1"
    expected = ["ADDED", "MODIFIED", "DELETED"] if start != "0" else ["MODIFIED", "DELETED"]
    told = await take(client, Selection(), after=after, count=len(expected))
    assert [type_ for type_, _ in told] == expected


async def test_a_watch_sees_objects_enter_and_leave_a_selection(client: Client) -> None:
    made = await client.create(CONFIG_MAPS, config_map("a"))
    after = made["metadata"]["resourceVersion"]
    for labels in ({"app": "web"}, {"app": "web", "more": "1"}, {"app": None}):
        await client.patch(CONFIG_MAPS, "default", "a", body={"metadata": {"labels": labels}})
    told = await take(client, Selection(labels="app=web"), after=after, count=3)
    assert [type_ for type_, _ in told] == ["ADDED", "MODIFIED", "DELETED"]
    versions = [int(obj["metadata"]["resourceVersion"]) for _, obj in told]
    assert versions == sorted(set(versions))
    assert told[2][1]["metadata"]["labels"]["app"] == "web"


async def test_an_unknown_resource_is_not_found(client: Client) -> None:
    from controlplane.objects.kinds import Resource

    with pytest.raises(StatusError) as error:
        await client.list(Resource("example.com", "v1", "things", True))
    assert error.value.code == 404


async def test_nobody_listening_is_unreachable() -> None:
    async with HttpClient("http://127.0.0.1:1") as http:
        with pytest.raises(Unreachable):
            await http.get(PODS, "default", "p")


async def take(
    client: Client, selection: Selection, *, after: str, count: int
) -> list[tuple[str, Object]]:
    told: list[tuple[str, Object]] = []
    async with asyncio.timeout(SECONDS):
        async for event in client.watch(CONFIG_MAPS, selection, after=after):
            if event.type != "BOOKMARK":
                told.append((event.type, event.object))
            if len(told) == count:
                break
    return told


def pod(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "busybox"}]},
    }


def deployment(name: str) -> dict[str, Any]:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod("x")["spec"]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }
