"""The cache: bytes in the order of their keys, indexes, history, and who is told."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson

from controlplane.api.cache import ObjectCache
from controlplane.api.encoding import encode
from controlplane.client.base import Change
from controlplane.objects.facts import builtin_kinds
from controlplane.objects.kinds import Kinds
from controlplane.objects.resources import CONFIG_MAPS, PODS
from controlplane.store.memory import MemoryStore


def pod(name: str, *, node: str = "", owner: str = "", **labels: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "default", "labels": labels}
    if owner:
        metadata["ownerReferences"] = [{"uid": owner, "kind": "ReplicaSet", "name": "r"}]
    spec = {"nodeName": node} if node else {}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


@asynccontextmanager
async def cached(**options: Any) -> AsyncIterator[tuple[MemoryStore, ObjectCache]]:
    store, cache = MemoryStore(), ObjectCache(Kinds(builtin_kinds()), **options)
    await cache.load(store)
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(cache.follow(store))
        try:
            yield store, cache
        finally:
            following.cancel()


async def put(
    store: MemoryStore, cache: ObjectCache, obj: dict[str, Any], expected: int = 0
) -> int:
    key = f"/core/pods/default/{obj['metadata']['name']}"
    if expected:
        revision = await store.update(key, encode(obj), expected=expected)
    else:
        revision = await store.create(key, encode(obj))
    await cache.wait_for(revision)
    return revision


async def test_objects_carry_their_revision() -> None:
    async with cached() as (store, cache):
        revision = await put(store, cache, pod("a"))
        found = cache.get(PODS, "default", "a")
        assert found is not None
        assert found["metadata"]["resourceVersion"] == str(revision)


async def test_lists_are_in_the_order_of_keys() -> None:
    async with cached() as (store, cache):
        for name in ("c", "a", "b-1", "b"):
            await put(store, cache, pod(name))
        names = [obj["metadata"]["name"] for obj in cache.list(PODS, "default")]
        assert names == sorted(names) == ["a", "b", "b-1", "c"]
        assert cache.list(PODS, "defaul") == []


async def test_a_cache_that_starts_late_knows_the_same() -> None:
    async with cached() as (store, early):
        for name in ("b", "a"):
            await put(store, early, pod(name, node="n1", owner="u"))
        late = ObjectCache(Kinds(builtin_kinds()))
        await late.load(store)
        assert late.list(PODS) == early.list(PODS)
        assert late.owned(PODS, "u") == early.owned(PODS, "u")
        assert late.revision == early.revision


async def test_indexes_follow_changes() -> None:
    async with cached() as (store, cache):
        first = await put(store, cache, pod("a", owner="u1"))
        assert [obj["metadata"]["name"] for obj in cache.owned(PODS, "u1")] == ["a"]
        second = await put(store, cache, pod("a", node="n1", owner="u2"), first)
        assert cache.owned(PODS, "u1") == []
        assert [obj["metadata"]["name"] for obj in cache.on_node("n1")] == ["a"]
        revision = await store.delete("/core/pods/default/a", expected=second)
        await cache.wait_for(revision)
        assert cache.owned(PODS, "u2") == []
        assert cache.on_node("n1") == []
        assert cache.get(PODS, "default", "a") is None


async def test_subscribers_hear_of_what_is_and_what_changes() -> None:
    heard: list[tuple[str, str, bool, bool]] = []

    def deliver(change: Change) -> None:
        shown = cache.get(PODS, change.namespace, change.name)
        assert shown == change.new
        heard.append((change.namespace, change.name, change.old is None, change.new is None))

    async with cached() as (store, cache):
        first = await put(store, cache, pod("a"))
        unsubscribe = cache.subscribe((PODS, CONFIG_MAPS), deliver)
        assert heard == [("default", "a", True, False)]
        second = await put(store, cache, pod("a", node="n1"), first)
        await cache.wait_for(await store.delete("/core/pods/default/a", expected=second))
        assert heard[1:] == [("default", "a", False, False), ("default", "a", False, True)]
        unsubscribe()
        await put(store, cache, pod("b"))
        assert len(heard) == 3


async def test_history_forgets_the_oldest_and_moves_the_floor_of_its_kind_only() -> None:
    async with cached(history_bytes=4000) as (store, cache):
        revision = await put(store, cache, pod("a"))
        await cache.wait_for(await store.create("/core/configmaps/default/c", encode(pod("c"))))
        for number in range(30):
            revision = await put(store, cache, pod("a", number=str(number)), revision)
        line = cache.bucket("/core/pods").line
        assert 0 < line.floor < revision
        assert [o.revision for o in line.since(revision - 3)] == [
            revision - 2,
            revision - 1,
            revision,
        ]
        assert cache.bucket("/core/secrets").line.floor == 0


async def test_a_cache_left_behind_catches_up_by_difference() -> None:
    store, cache = MemoryStore(), ObjectCache(Kinds(builtin_kinds()))
    await store.create("/core/pods/default/gone", encode(pod("gone")))
    await store.create("/core/pods/default/kept", encode(pod("kept")))
    await cache.load(store)
    await store.delete("/core/pods/default/gone", expected=1)
    await store.create("/core/pods/default/new", encode(pod("new")))
    await store.compact(store.statistics().revision)
    told: list[tuple[str, bool]] = []
    cache.subscribe((PODS,), lambda change: told.append((change.name, change.new is None)))
    told.clear()
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(cache.follow(store))
        async with asyncio.timeout(5):
            await cache.wait_for(store.statistics().revision)
        following.cancel()
    assert sorted(told) == [("gone", True), ("new", False)]
    assert [obj["metadata"]["name"] for obj in cache.list(PODS)] == ["kept", "new"]


async def test_decoded_objects_are_kept_within_a_budget() -> None:
    async with cached(decoded_bytes=300) as (store, cache):
        for name in ("a", "b", "c", "d"):
            await put(store, cache, pod(name))
        entry = cache.entry("/core/pods/default/a")
        assert entry is not None
        assert cache.load_object(entry) is cache.load_object(entry)
        for name in ("b", "c", "d"):
            cache.get(PODS, "default", name)
        fresh = cache.load_object(entry)
        assert fresh == orjson.loads(entry.data)
