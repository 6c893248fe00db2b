"""How many pods a budget lets go."""

from typing import Any

from controlplane.controllers.disruption import DISRUPTION
from controlplane.objects.meta import condition
from controlplane.objects.resources import POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS
from tests.fakes.reads import World
from tests.fakes.running import Running, running

WEB = {"app": "web"}


def world_of(pods: int, replicas: int, **spec: Any) -> World:
    world = World()
    meta = {"name": "web", "namespace": "default"}
    owner = world.put(REPLICA_SETS, {"metadata": meta, "spec": {"replicas": replicas}})
    for number in range(pods):
        world.put(PODS, pod(f"p{number}", owner["metadata"]["uid"]))
    budget = {"metadata": meta, "spec": {"selector": {"matchLabels": WEB}, **spec}}
    world.put(POD_DISRUPTION_BUDGETS, budget)
    return world


def pod(name: str, owner: str) -> dict[str, Any]:
    reference = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "web",
        "uid": owner,
        "controller": True,
    }
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "labels": WEB,
            "ownerReferences": [reference],
        },
        "spec": {},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def status(run: Running) -> dict[str, Any]:
    found = run.world.get(POD_DISRUPTION_BUDGETS, "default", "web")
    assert found is not None
    return dict(found["status"])


async def test_a_minimum_leaves_the_rest() -> None:
    async with running(DISRUPTION, world=world_of(3, 3, minAvailable=2)) as run:
        found = status(run)
        assert (found["disruptionsAllowed"], found["currentHealthy"]) == (1, 3)
        run.world.change(PODS, "default", "p0", status={"conditions": []})
        await run.settle()
        found = status(run)
        assert found["disruptionsAllowed"] == 0
        allowed = condition({"status": found}, "DisruptionAllowed")
        assert allowed is not None
        assert (allowed["status"], allowed["reason"]) == ("False", "InsufficientPods")


async def test_percentages_compare_with_what_the_workload_wants() -> None:
    async with running(DISRUPTION, world=world_of(3, 4, maxUnavailable="50%")) as run:
        found = status(run)
        assert (found["expectedPods"], found["desiredHealthy"]) == (4, 2)
        assert found["disruptionsAllowed"] == 1
        run.world.change(REPLICA_SETS, "default", "web", spec={"replicas": 2})
        await run.settle()
        assert status(run)["desiredHealthy"] == 1


async def test_an_evicted_pod_counts_as_lost_until_it_is_gone_or_clearly_stays() -> None:
    async with running(DISRUPTION, world=world_of(3, 3, minAvailable=2)) as run:
        evicted = {"p0": "2026-01-01T00:00:00Z"}
        run.world.change(
            POD_DISRUPTION_BUDGETS, "default", "web", status={"disruptedPods": evicted}
        )
        await run.settle()
        assert status(run)["disruptionsAllowed"] == 0
        await run.advance(120)
        assert status(run)["disruptionsAllowed"] == 1
        assert run.clock.timers == 0


async def test_pods_without_a_workload_cannot_be_compared_with_one() -> None:
    world = world_of(1, 1, maxUnavailable=1)
    world.change(PODS, "default", "p0", metadata={"ownerReferences": None})
    async with running(DISRUPTION, world=world) as run:
        failed = condition({"status": status(run)}, "DisruptionAllowed")
        assert failed is not None
        assert failed["reason"] == "SyncFailed"
        assert failed["message"] == 'found no controller ref for pod "p0"'
