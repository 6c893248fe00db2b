"""Owners and dependents, of any kind."""

from typing import Any

from controlplane.controllers import garbage
from controlplane.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
)
from controlplane.reconcile.base import Controller
from tests.fakes.reads import KINDS, World
from tests.fakes.running import running

GARBAGE: Controller = garbage.make(KINDS)


def item(name: str, *owners: dict[str, Any], **meta: Any) -> dict[str, Any]:
    listed = [
        {
            "apiVersion": o["apiVersion"],
            "kind": o["kind"],
            "name": o["metadata"]["name"],
            "uid": o["metadata"]["uid"],
            "blockOwnerDeletion": True,
        }
        for o in owners
    ]
    return {
        "metadata": {"name": name, "namespace": "default", "ownerReferences": listed, **meta},
        "spec": {},
    }


async def test_dependents_go_with_their_last_owner() -> None:
    world = World()
    first, second = (world.put(SECRETS, item(name)) for name in ("a", "b"))
    world.put(CONFIG_MAPS, item("both", first, second))
    world.put(CONFIG_MAPS, item("one", first))
    async with running(GARBAGE, world=world) as run:
        world.remove(SECRETS, "default", "a")
        await run.settle()
        assert world.get(CONFIG_MAPS, "default", "one") is None
        kept = world.get(CONFIG_MAPS, "default", "both")
        assert kept is not None
        assert [r["name"] for r in kept["metadata"]["ownerReferences"]] == ["b"]
        world.remove(SECRETS, "default", "b")
        await run.settle()
        assert world.get(CONFIG_MAPS, "default", "both") is None


async def test_a_whole_chain_goes() -> None:
    world = World()
    top = world.put(DEPLOYMENTS, item("web"))
    middle = world.put(REPLICA_SETS, item("web-1", top))
    world.put(PODS, item("web-1-x", middle))
    async with running(GARBAGE, world=world) as run:
        world.remove(DEPLOYMENTS, "default", "web")
        await run.settle()
        assert world.list(REPLICA_SETS) == []
        assert world.list(PODS) == []


async def test_what_was_orphaned_before_the_start_goes_at_the_start() -> None:
    world = World()
    gone = world.put(SECRETS, item("gone"))
    world.put(CONFIG_MAPS, item("left", gone))
    world.remove(SECRETS, "default", "gone")
    async with running(GARBAGE, world=world):
        assert world.list(CONFIG_MAPS) == []


async def test_a_namesake_of_the_owner_is_not_the_owner() -> None:
    world = World()
    old = world.put(SECRETS, item("a"))
    world.put(CONFIG_MAPS, item("left", old))
    world.remove(SECRETS, "default", "a")
    world.put(SECRETS, item("a"))
    async with running(GARBAGE, world=world):
        assert world.list(CONFIG_MAPS) == []


async def test_a_foreground_deletion_waits_for_dependents_with_finalizers() -> None:
    world = World()
    owner = world.put(SECRETS, item("a"))
    world.put(CONFIG_MAPS, item("held", owner, finalizers=["example.com/hold"]))
    world.put(CONFIG_MAPS, item("free", owner))
    async with running(GARBAGE, world=world) as run:
        options = {"propagationPolicy": "Foreground"}
        await run.client.delete(SECRETS, "default", "a", options=options)
        await run.settle()
        assert [c["metadata"]["name"] for c in world.list(CONFIG_MAPS)] == ["held"]
        assert world.get(SECRETS, "default", "a") is not None
        world.change(CONFIG_MAPS, "default", "held", metadata={"finalizers": None})
        await run.settle()
        assert world.list(CONFIG_MAPS) == []
        assert world.list(SECRETS) == []


async def test_orphaning_leaves_the_dependents_without_an_owner() -> None:
    world = World()
    owner = world.put(SECRETS, item("a"))
    world.put(CONFIG_MAPS, item("kept", owner))
    async with running(GARBAGE, world=world) as run:
        options = {"propagationPolicy": "Orphan"}
        await run.client.delete(SECRETS, "default", "a", options=options)
        await run.settle()
        assert world.list(SECRETS) == []
        (kept,) = world.list(CONFIG_MAPS)
        assert kept["metadata"]["ownerReferences"] == []


async def test_an_owner_of_a_kind_that_is_not_served_deletes_nothing() -> None:
    world = World()
    stranger = {"apiVersion": "x.dev/v1", "kind": "Odd", "metadata": {"name": "o", "uid": "u"}}
    world.put(CONFIG_MAPS, item("kept", stranger))
    async with running(GARBAGE, world=world):
        assert len(world.list(CONFIG_MAPS)) == 1


async def test_a_cluster_scoped_object_is_not_judged_by_a_namespaced_owner() -> None:
    world = World()
    reference = {"apiVersion": "v1", "kind": "Secret", "name": "a", "uid": "u"}
    body = {"metadata": {"name": "n1", "ownerReferences": [reference]}, "spec": {}}
    world.put(NODES, body)
    async with running(GARBAGE, world=world):
        assert len(world.list(NODES)) == 1


async def test_a_circle_of_owners_that_wait_for_each_other_goes_as_a_whole() -> None:
    world = World()
    first = world.put(SECRETS, item("a"))
    second = world.put(SECRETS, item("b", first))
    third = world.put(SECRETS, item("c", second))
    ties = item("a", third)["metadata"]["ownerReferences"]
    world.change(SECRETS, "default", "a", metadata={"ownerReferences": ties})
    async with running(GARBAGE, world=world) as run:
        options = {"propagationPolicy": "Foreground"}
        await run.client.delete(SECRETS, "default", "a", options=options)
        await run.settle()
        assert world.list(SECRETS) == []


async def test_a_circle_that_was_stuck_before_the_start_goes_too() -> None:
    world = World()
    made = [world.put(SECRETS, item(name)) for name in "abc"]
    for one, owner in zip(made, [made[2], *made[:2]], strict=True):
        meta = one["metadata"]
        changed = {
            "ownerReferences": item(meta["name"], owner)["metadata"]["ownerReferences"],
            "finalizers": ["foregroundDeletion"],
            "deletionTimestamp": "2026-01-01T00:00:00Z",
        }
        world.change(SECRETS, "default", meta["name"], metadata=changed)
    async with running(GARBAGE, world=world):
        assert world.list(SECRETS) == []
