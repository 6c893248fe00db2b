"""What is in use stays until it is not."""

from typing import Any

from controlplane.controllers.protection import PROTECTION
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTRIBUTES_CLASSES,
)
from tests.fakes.reads import World
from tests.fakes.running import running


def leaving(
    world: World,
    resource: Resource,
    prefix: str,
    *,
    status: dict[str, Any] | None = None,
    **metadata: Any,
) -> None:
    meta: dict[str, Any] = {
        "name": "x",
        "finalizers": [f"kubernetes.io/{prefix}-protection"],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        **metadata,
    }
    if resource.namespaced:
        meta["namespace"] = "default"
    world.put(resource, {"metadata": meta, "status": status or {}})


def pod(*volumes: dict[str, Any], node: str = "pi", phase: str = "Running") -> dict[str, Any]:
    spec = {"nodeName": node, "volumes": list(volumes)} if node else {"volumes": list(volumes)}
    meta = {"name": "p", "namespace": "default", "uid": "uid-p"}
    return {"metadata": meta, "spec": spec, "status": {"phase": phase}}


CLAIM = {"name": "v", "persistentVolumeClaim": {"claimName": "x"}}


def is_there(world: World, resource: Resource, name: str = "x") -> bool:
    return world.get(resource, "default" if resource.namespaced else "", name) is not None


async def test_a_claim_goes_with_the_last_pod_that_uses_it() -> None:
    world = World()
    leaving(world, PERSISTENT_VOLUME_CLAIMS, "pvc")
    world.put(PODS, pod(CLAIM))
    async with running(*PROTECTION, world=world) as run:
        assert is_there(world, PERSISTENT_VOLUME_CLAIMS)
        world.remove(PODS, "default", "p")
        await run.settle()
        assert not is_there(world, PERSISTENT_VOLUME_CLAIMS)


async def test_a_finished_pod_still_uses_its_claim_and_an_unbound_one_does_not() -> None:
    world = World()
    leaving(world, PERSISTENT_VOLUME_CLAIMS, "pvc")
    world.put(PODS, pod(CLAIM, phase="Succeeded"))
    async with running(*PROTECTION, world=world) as run:
        assert is_there(world, PERSISTENT_VOLUME_CLAIMS)
        world.put(PODS, pod(CLAIM, node=""))
        await run.settle()
        assert not is_there(world, PERSISTENT_VOLUME_CLAIMS)


async def test_a_pods_own_claim_may_go_once_the_pod_is_over() -> None:
    world = World()
    own = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "uid-p", "controller": True}
    leaving(world, PERSISTENT_VOLUME_CLAIMS, "pvc", name="p-v", ownerReferences=[own])
    world.put(PODS, pod({"name": "v", "ephemeral": {}}))
    async with running(*PROTECTION, world=world) as run:
        assert is_there(world, PERSISTENT_VOLUME_CLAIMS, "p-v")
        world.change(PODS, "default", "p", status={"phase": "Succeeded"})
        await run.settle()
        assert not is_there(world, PERSISTENT_VOLUME_CLAIMS, "p-v")


async def test_a_bound_volume_stays_until_it_is_released() -> None:
    world = World()
    leaving(world, PERSISTENT_VOLUMES, "pv", status={"phase": "Bound"})
    async with running(*PROTECTION, world=world) as run:
        assert is_there(world, PERSISTENT_VOLUMES)
        world.change(PERSISTENT_VOLUMES, "", "x", status={"phase": "Released"})
        await run.settle()
        assert not is_there(world, PERSISTENT_VOLUMES)


async def test_a_class_stays_while_a_claim_names_it() -> None:
    world = World()
    leaving(world, VOLUME_ATTRIBUTES_CLASSES, "vac")
    claim = {"metadata": {"name": "c", "namespace": "default"}}
    world.put(PERSISTENT_VOLUME_CLAIMS, {**claim, "spec": {"volumeAttributesClassName": "x"}})
    async with running(*PROTECTION, world=world) as run:
        assert is_there(world, VOLUME_ATTRIBUTES_CLASSES)
        world.change(
            PERSISTENT_VOLUME_CLAIMS, "default", "c", spec={"volumeAttributesClassName": None}
        )
        await run.settle()
        assert not is_there(world, VOLUME_ATTRIBUTES_CLASSES)


async def test_what_is_not_being_deleted_keeps_its_finalizer() -> None:
    world = World()
    meta = {"name": "x", "finalizers": ["kubernetes.io/pv-protection"]}
    world.put(PERSISTENT_VOLUMES, {"metadata": meta})
    async with running(*PROTECTION, world=world):
        found = world.get(PERSISTENT_VOLUMES, "", "x")
        assert found is not None
        assert found["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]
