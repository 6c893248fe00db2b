"""Whatever happens in whatever order: a list plus its watch is the list of later."""

import asyncio
import random
from typing import Any

import pytest

from controlplane.client.base import Client, ObjectList, Selection
from controlplane.client.http import HttpClient
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import CONFIG_MAPS
from tests.fakes.api_server import listening

# Each selects the object that ends the test: red, in the namespace a.
SELECTIONS = (
    Selection(),
    Selection(namespace="a"),
    Selection(labels="color=red"),
    Selection(namespace="a", labels="color in (red,blue)"),
    Selection(labels="color!=blue", fields="metadata.namespace=a"),
    Selection(labels="color", fields="metadata.name!=n1"),
)
Name = tuple[str, str]


def view(listed: ObjectList) -> dict[Name, str]:
    return {name_of(obj): obj["metadata"]["resourceVersion"] for obj in listed.items}


def name_of(obj: Any) -> Name:
    return obj["metadata"]["namespace"], obj["metadata"]["name"]


async def write(client: Client, chance: random.Random, steps: int) -> None:
    for _ in range(steps):
        namespace, name = chance.choice("ab"), f"n{chance.randrange(5)}"
        metadata = {"name": name, "namespace": namespace}
        labels = {"color": chance.choice(("red", "blue", "green"))}
        try:
            match chance.randrange(4):
                case 0:
                    body = {"metadata": {**metadata, "labels": labels}}
                    await client.create(CONFIG_MAPS, body)
                case 1:
                    await client.delete(CONFIG_MAPS, namespace, name)
                case _:
                    change = {"metadata": {"labels": labels}, "data": {"k": str(chance.random())}}
                    await client.patch(CONFIG_MAPS, namespace, name, body=change)
        except StatusError as error:
            if error.reason not in ("NotFound", "AlreadyExists", "Conflict"):
                raise


async def follow(client: Client, selection: Selection) -> dict[Name, str]:
    """The view after the last revision: kept by the watch alone, checked on the way."""
    listed = await client.list(CONFIG_MAPS, selection)
    known, seen = view(listed), int(listed.resource_version)
    async for event in client.watch(CONFIG_MAPS, selection, after=listed.resource_version or "0"):
        if event.type == "BOOKMARK":
            continue
        name, version = name_of(event.object), event.object["metadata"]["resourceVersion"]
        assert int(version) > seen
        seen = int(version)
        if event.type == "DELETED":
            del known[name]
        else:
            assert (name in known) is (event.type == "MODIFIED")
            known[name] = version
        if name == ("a", "end"):
            del known[name]
            return known
    raise AssertionError("the watch ended early")


@pytest.mark.parametrize("seed", range(3))
async def test_a_list_and_its_watch_agree_with_a_later_list(seed: int) -> None:
    chance = random.Random(seed)
    async with listening() as served, HttpClient(served.url) as client:
        await write(served.client, chance, 10)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            views = []
            for selection in SELECTIONS:
                views.append(tasks.create_task(follow(client, selection)))
                await write(served.client, chance, 20)
            await asyncio.gather(*(write(client, random.Random(n), 50) for n in range(4)))
            expected = [view(await client.list(CONFIG_MAPS, s)) for s in SELECTIONS]
            await client.create(
                CONFIG_MAPS,
                {"metadata": {"name": "end", "namespace": "a", "labels": {"color": "red"}}},
            )
        for found, wanted in zip(views, expected, strict=True):
            assert found.result() == wanted
