"""The cache outside the control plane: what is wanted stays known, whatever breaks."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from controlplane.api.local import LocalClient
from controlplane.client.base import (
    EVERYTHING,
    Change,
    Object,
    ObjectList,
    Selection,
    Unreachable,
    WatchEvent,
)
from controlplane.client.cache import Cache
from controlplane.client.http import HttpClient
from controlplane.objects.errors import StatusError, expired, no_such_path
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CONFIG_MAPS, PODS, SECRETS
from tests.fakes.api_server import ADMIN, Served, listening, serving

SECONDS = 5.0


def config_map(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "labels": labels}}


async def until(cache: Cache, resource: Resource, condition: Callable[[], bool]) -> None:
    """Wait on the feed, not on the clock."""
    changed = asyncio.Event()
    unsubscribe = cache.subscribe((resource,), lambda _change: changed.set())
    try:
        async with asyncio.timeout(SECONDS):
            while not condition():
                changed.clear()
                if condition():
                    break
                await changed.wait()
    finally:
        unsubscribe()


def names(cache: Cache, resource: Resource = CONFIG_MAPS) -> list[str]:
    return [obj["metadata"]["name"] for obj in cache.list(resource)]


@asynccontextmanager
async def following(cache: Cache) -> AsyncIterator[Cache]:
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(cache.run())
        try:
            async with asyncio.timeout(SECONDS):
                await cache.synced()
            yield cache
        finally:
            running.cancel()


async def test_what_is_and_what_changes_is_known() -> None:
    async with listening() as served, HttpClient(served.url) as client:
        await client.create(CONFIG_MAPS, config_map("a"))
        async with following(Cache(client, [(CONFIG_MAPS, EVERYTHING)])) as cache:
            assert names(cache) == ["a"]
            await client.create(CONFIG_MAPS, config_map("b"))
            await until(cache, CONFIG_MAPS, lambda: names(cache) == ["a", "b"])
            await client.delete(CONFIG_MAPS, "default", "a")
            await until(cache, CONFIG_MAPS, lambda: names(cache) == ["b"])
            assert cache.get(CONFIG_MAPS, "default", "a") is None


async def test_selections_come_and_go() -> None:
    async with serving() as served:
        for name in ("a", "b", "both"):
            await served.client.create(CONFIG_MAPS, config_map(name, new=str(name != "a")))
        one = Selection(namespace="default", fields="metadata.name=both")
        some = Selection(labels="new=True")
        async with following(Cache(served.client, [(CONFIG_MAPS, one)])) as cache:
            assert names(cache) == ["both"]
            cache.want(CONFIG_MAPS, some)
            async with asyncio.timeout(SECONDS):
                await cache.synced(CONFIG_MAPS)
            assert names(cache) == ["b", "both"]
            told: list[Change] = []
            cache.subscribe((CONFIG_MAPS,), told.append)
            told.clear()
            cache.unwant(CONFIG_MAPS, some)
            assert names(cache) == ["both"]
            assert [(change.name, change.new) for change in told] == [("b", None)]


async def test_objects_leave_a_selection() -> None:
    async with serving() as served:
        await served.client.create(CONFIG_MAPS, config_map("a", app="web"))
        selection = Selection(labels="app=web")
        async with following(Cache(served.client, [(CONFIG_MAPS, selection)])) as cache:
            body = {"metadata": {"labels": {"app": "db"}}}
            await served.client.patch(CONFIG_MAPS, "default", "a", body=body)
            await until(cache, CONFIG_MAPS, lambda: names(cache) == [])


async def test_pods_are_known_by_node_and_owner() -> None:
    reference = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "u"}
    pod = {
        "metadata": {"name": "p", "namespace": "default", "ownerReferences": [reference]},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]},
    }
    async with serving() as served:
        await served.client.create(PODS, pod)
        async with following(Cache(served.client, [(PODS, EVERYTHING)])) as cache:
            assert [obj["metadata"]["name"] for obj in cache.on_node("n1")] == ["p"]
            assert [obj["metadata"]["name"] for obj in cache.owned(PODS, "u")] == ["p"]
            assert cache.owned(CONFIG_MAPS, "u") == []


class Breaking:
    """A client whose next calls fail as the test says; the rest is a real server's."""

    def __init__(self, served: Served) -> None:
        self._client = LocalClient(served.parts, ADMIN)
        self.failures: list[Exception] = []
        self.lists = 0
        self.broken = asyncio.Event()

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        self.lists += 1
        if self.failures and isinstance(self.failures[0], Unreachable) and self.lists == 1:
            raise self.failures.pop(0)
        return await self._client.list(resource, selection)

    async def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        if self.failures:
            raise self.failures.pop(0)
        if not self.broken.is_set():
            self.broken.set()
        async for event in self._client.watch(resource, selection, after=after):
            yield event

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


async def instantly(_seconds: float) -> None:
    await asyncio.sleep(0)


async def test_it_goes_on_after_the_server_was_away() -> None:
    async with serving() as served:
        client = Breaking(served)
        client.failures = [Unreachable("away"), Unreachable("away"), StatusError(503, "", "busy")]
        cache = Cache(client, [(CONFIG_MAPS, EVERYTHING)], sleep=instantly)
        async with following(cache):
            await served.client.create(CONFIG_MAPS, config_map("a"))
            await until(cache, CONFIG_MAPS, lambda: names(cache) == ["a"])
        assert client.failures == []
        assert client.lists == 2


async def test_an_expired_watch_lists_again_and_tells_only_differences() -> None:
    async with serving() as served:
        await served.client.create(CONFIG_MAPS, config_map("kept"))
        client = Breaking(served)
        client.failures = [expired("too old resource version")]
        told: list[tuple[str, Object | None]] = []
        cache = Cache(client, [(CONFIG_MAPS, EVERYTHING)], sleep=instantly)
        cache.subscribe((CONFIG_MAPS,), lambda change: told.append((change.name, change.new)))
        async with following(cache):
            async with asyncio.timeout(SECONDS):
                await client.broken.wait()
        assert client.lists == 2
        assert [name for name, _ in told] == ["kept"]


async def test_a_kind_that_is_not_served_yet_is_asked_for_again() -> None:
    async with serving() as served:
        client = Breaking(served)
        client.failures = [no_such_path()]
        async with following(Cache(client, [(SECRETS, EVERYTHING)], sleep=instantly)) as cache:
            async with asyncio.timeout(SECONDS):
                await client.broken.wait()
            assert cache.is_synced(SECRETS)
