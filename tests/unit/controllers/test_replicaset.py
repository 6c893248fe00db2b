"""As many pods as asked for, the right ones kept, and a status that says so."""

from typing import Any

from controlplane.client.base import Object
from controlplane.controllers.replicaset import REPLICASET, REPLICATIONCONTROLLER
from controlplane.objects.errors import forbidden
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import condition, controller_of
from controlplane.objects.resources import EVENTS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS
from tests.fakes.reads import World
from tests.fakes.running import Running, running

LABELS = {"app": "web"}
TEMPLATE = {"metadata": {"labels": LABELS}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


def replica_set(replicas: int = 2, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": TEMPLATE,
            **spec,
        },
    }


def pod(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "default", "labels": LABELS},
        "spec": {"containers": [{"name": "c"}]},
        **fields,
    }


def status(run: Running) -> dict[str, Any]:
    return dict(run.world.objects["apps", "replicasets", "default", "web"]["status"])


def ready(since: str = "2026-01-01T00:00:00Z") -> dict[str, Any]:
    listed = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
    return {"phase": "Running", "conditions": listed}


async def test_missing_pods_are_made_from_the_template() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(5))
        await run.settle()
        made = run.world.list(PODS)
        assert len(made) == 5
        assert all(p["metadata"]["labels"] == LABELS for p in made)
        reference = controller_of(made[0])
        assert reference is not None
        assert reference["kind"] == "ReplicaSet"
        assert reference["blockOwnerDeletion"] is True
        counts = {k: v for k, v in status(run).items() if k != "conditions"}
        assert counts == {"replicas": 5, "fullyLabeledReplicas": 5, "observedGeneration": 1}


async def test_a_pod_that_goes_is_replaced() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(2))
        await run.settle()
        run.world.remove(PODS, "default", run.world.list(PODS)[0]["metadata"]["name"])
        await run.settle()
        assert len(run.world.list(PODS)) == 2


async def test_failed_pods_do_not_count() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(1))
        await run.settle()
        name = run.world.list(PODS)[0]["metadata"]["name"]
        run.world.change(PODS, "default", name, status={"phase": "Failed"})
        await run.settle()
        assert len(run.world.list(PODS)) == 2


async def test_pods_that_are_not_ready_go_first() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(3))
        await run.settle()
        names = [p["metadata"]["name"] for p in run.world.list(PODS)]
        for name in names[:2]:
            run.world.change(PODS, "default", name, status=ready())
        run.world.change(REPLICA_SETS, "default", "web", spec={"replicas": 2})
        await run.settle()
        assert [p["metadata"]["name"] for p in run.world.list(PODS)] == names[:2]


async def test_the_cheapest_pod_goes_first() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(3))
        await run.settle()
        names = [p["metadata"]["name"] for p in run.world.list(PODS)]
        costs = dict(zip(names, ("5", "-1", "7"), strict=True))
        for name, cost in costs.items():
            key = "controller.kubernetes.io/pod-deletion-cost"
            run.world.change(PODS, "default", name, metadata={"annotations": {key: cost}})
        run.world.change(REPLICA_SETS, "default", "web", spec={"replicas": 2})
        await run.settle()
        assert names[1] not in [p["metadata"]["name"] for p in run.world.list(PODS)]


async def test_orphans_are_adopted_and_strangers_released() -> None:
    world = World()
    world.put(PODS, pod("orphan"))
    async with running(REPLICASET, world=world) as run:
        world.put(REPLICA_SETS, replica_set(1))
        await run.settle()
        (only,) = world.list(PODS)
        assert controller_of(only) is not None
        world.change(PODS, "default", "orphan", metadata={"labels": {"app": "other"}})
        await run.settle()
        released = world.get(PODS, "default", "orphan")
        assert released is not None
        assert controller_of(released) is None
        assert len(world.list(PODS)) == 2


async def test_a_pod_of_another_owner_is_left_alone() -> None:
    world = World()
    theirs = pod("theirs")
    theirs["metadata"]["ownerReferences"] = [
        {"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "x", "controller": True}
    ]
    world.put(PODS, theirs)
    async with running(REPLICASET, world=world) as run:
        world.put(REPLICA_SETS, replica_set(1))
        await run.settle()
        assert len(world.list(PODS)) == 2


async def test_a_pod_is_available_only_after_min_ready_seconds() -> None:
    async with running(REPLICASET) as run:
        run.world.put(REPLICA_SETS, replica_set(1, minReadySeconds=10))
        await run.settle()
        name = run.world.list(PODS)[0]["metadata"]["name"]
        run.world.change(PODS, "default", name, status=ready())
        await run.settle()
        assert status(run)["readyReplicas"] == 1
        assert "availableReplicas" not in status(run)
        await run.advance(10)
        assert status(run)["availableReplicas"] == 1
        assert run.clock.timers == 0


async def test_what_cannot_be_created_is_a_condition_until_it_can() -> None:
    world = World()

    def refuse(verb: str, resource: Resource, body: Object) -> None:
        if (verb, resource) == ("create", PODS):
            raise forbidden("pods", "web-", "exceeded quota: q")

    world.refuse = refuse
    async with running(REPLICASET, world=world) as run:
        world.put(REPLICA_SETS, replica_set(2))
        await run.settle()
        found = condition({"status": status(run)}, "ReplicaFailure")
        assert found is not None
        assert found["reason"] == "FailedCreate"
        assert "exceeded quota" in found["message"]
        assert "FailedCreate" in {e["reason"] for e in world.list(EVENTS)}
        world.refuse = None
        await run.advance(10)
        assert len(world.list(PODS)) == 2
        assert condition({"status": status(run)}, "ReplicaFailure") is None


async def test_a_refusal_in_other_words_does_not_change_the_status_again() -> None:
    world = World()
    attempts = 0

    def refuse(verb: str, resource: Resource, body: Object) -> None:
        nonlocal attempts
        if (verb, resource) == ("create", PODS):
            attempts += 1
            raise forbidden("pods", f"web-{attempts}", "exceeded quota: q")

    world.refuse = refuse
    world.put(REPLICA_SETS, replica_set(1))
    async with running(REPLICASET, world=world) as run:
        await run.advance(1)
        first, tried = status(run), attempts
        await run.advance(60)
        assert attempts > tried
        assert status(run) == first


async def test_replication_controllers_select_by_a_plain_map() -> None:
    async with running(REPLICATIONCONTROLLER) as run:
        body = replica_set(2)
        body["spec"]["selector"] = LABELS
        run.world.put(REPLICATION_CONTROLLERS, body)
        await run.settle()
        assert len(run.world.list(PODS)) == 2
        events = [e["message"] for e in run.world.list(EVENTS)]
        assert len([m for m in events if m.startswith("Created pod: web-")]) == 2
