"""The scheduler over a world: binding, waiting for the right event, preemption, idleness."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

from controlplane.client.base import Client, Object
from controlplane.objects.errors import conflict
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import condition
from controlplane.objects.resources import (
    EVENTS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.scheduler.loop import Scheduler
from tests.fakes.clock import FakeClock
from tests.fakes.reads import World, WorldClient
from tests.unit.scheduler.objects import node, pod


class Running:
    def __init__(self) -> None:
        self.world, self.clock = World(), FakeClock()
        client = cast(Client, WorldClient(self.world))
        self.scheduler = Scheduler(
            client=client, reads=self.world, feed=self.world, clock=self.clock
        )

    async def settle(self) -> None:
        for _ in range(200):
            await asyncio.sleep(0)

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()

    def where(self, name: str = "p1") -> str:
        found = self.world.get(PODS, "default", name)
        assert found is not None
        return str(found["spec"].get("nodeName", ""))

    def events(self) -> list[str]:
        return [e["reason"] for e in self.world.list(EVENTS)]


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    made = Running()
    task = asyncio.ensure_future(made.scheduler.run())
    try:
        await made.settle()
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_pod_is_bound_and_the_event_says_where() -> None:
    async with running() as run:
        run.world.put(NODES, node())
        run.world.put(PODS, pod())
        await run.settle()
        assert run.where() == "n1"
        (event,) = run.world.list(EVENTS)
        assert event["message"] == "Successfully assigned default/p1 to n1"
        assert len(run.scheduler.queue) == 0


async def test_a_pod_that_fits_nowhere_waits_for_an_event_that_helps() -> None:
    async with running() as run:
        run.world.put(NODES, node(cpu="1"))
        run.world.put(PODS, pod(cpu="2"))
        await run.settle()
        found = run.world.get(PODS, "default", "p1")
        assert found is not None
        scheduled = condition(found, "PodScheduled")
        assert scheduled is not None
        assert (scheduled["status"], scheduled["reason"]) == ("False", "Unschedulable")
        assert scheduled["message"].startswith("0/1 nodes are available: 1 Insufficient cpu.")
        assert run.events() == ["FailedScheduling"]
        await run.advance(3600)
        assert run.scheduler.counters.unschedulable == 1
        assert run.clock.timers == 0
        run.world.change(NODES, "", "n1", status={"allocatable": {"cpu": "2"}})
        await run.settle()
        assert run.where() == "n1"


async def test_a_heartbeat_of_a_node_wakes_nobody() -> None:
    async with running() as run:
        run.world.put(NODES, node(cpu="1"))
        run.world.put(PODS, pod(cpu="2"))
        await run.settle()
        await run.advance(60)
        run.world.change(NODES, "", "n1", status={"conditions": [{"type": "Ready"}]})
        await run.settle()
        assert run.scheduler.counters.unschedulable == 1


async def test_helpful_events_in_quick_succession_are_taken_up_after_the_back_off() -> None:
    async with running() as run:
        run.world.put(NODES, node(cpu="2"))
        run.world.put(PODS, pod("a", cpu="2"))
        await run.settle()
        run.world.put(PODS, pod("b", cpu="2"))
        await run.settle()
        run.world.remove(PODS, "default", "a")
        await run.settle()
        assert run.where("b") == ""
        await run.advance(1)
        assert run.where("b") == "n1"


async def test_many_pods_fill_a_node_exactly() -> None:
    async with running() as run:
        run.world.put(NODES, node(cpu="10"))
        for number in range(15):
            run.world.put(PODS, pod(f"p{number}", cpu="1"))
        await run.settle()
        placed = [p for p in run.world.list(PODS) if p["spec"].get("nodeName")]
        assert len(placed) == 10


async def test_gated_and_foreign_pods_are_left_alone() -> None:
    async with running() as run:
        run.world.put(NODES, node())
        run.world.put(PODS, pod("gated", schedulingGates=[{"name": "g"}]))
        run.world.put(PODS, pod("foreign", schedulerName="other"))
        await run.settle()
        assert run.where("gated") == run.where("foreign") == ""
        run.world.change(PODS, "default", "gated", spec={"schedulingGates": None})
        await run.settle()
        assert run.where("gated") == "n1"


async def test_an_important_pod_displaces_a_lesser_one() -> None:
    async with running() as run:
        run.world.put(NODES, node(cpu="2"))
        run.world.put(PODS, pod("low", cpu="2"))
        await run.settle()
        run.world.put(PODS, pod("vip", cpu="2", priority=1000))
        await run.settle()
        low = run.world.get(PODS, "default", "low")
        vip = run.world.get(PODS, "default", "vip")
        assert low is not None
        assert vip is not None
        assert low["metadata"]["deletionTimestamp"]
        target = condition(low, "DisruptionTarget")
        assert target is not None
        assert target["reason"] == "PreemptionByScheduler"
        assert vip["status"]["nominatedNodeName"] == "n1"
        run.world.remove(PODS, "default", "low")
        await run.advance(1)
        assert run.where("vip") == "n1"


async def test_a_refused_binding_is_taken_back_and_tried_again() -> None:
    async with running() as run:
        left = [1]

        def refuse(verb: str, resource: Resource, body: Object) -> None:
            if resource == PODS and body.get("kind") == "Binding" and left[0]:
                left[0] -= 1
                raise conflict("pods", "p1")

        run.world.refuse = refuse
        run.world.put(NODES, node(cpu="1"))
        run.world.put(PODS, pod(cpu="1"))
        await run.settle()
        assert run.where() == ""
        await run.advance(1)
        assert run.where() == "n1"


async def test_a_pod_waits_until_its_claim_is_provisioned_on_the_chosen_node() -> None:
    async with running() as run:
        storage: dict[str, Any] = {
            "metadata": {"name": "local"},
            "provisioner": "rancher.io/local-path",
            "volumeBindingMode": "WaitForFirstConsumer",
        }
        run.world.put(STORAGE_CLASSES, storage)
        claim = {
            "metadata": {"name": "data", "namespace": "default"},
            "spec": {"storageClassName": "local"},
        }
        run.world.put(PERSISTENT_VOLUME_CLAIMS, claim)
        run.world.put(NODES, node())
        volume = {"name": "v", "persistentVolumeClaim": {"claimName": "data"}}
        run.world.put(PODS, pod(volumes=[volume]))
        await run.settle()
        found = run.world.get(PERSISTENT_VOLUME_CLAIMS, "default", "data")
        assert found is not None
        assert found["metadata"]["annotations"] == {"volume.kubernetes.io/selected-node": "n1"}
        assert run.where() == ""
        fields = {"spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}
        run.world.change(PERSISTENT_VOLUME_CLAIMS, "default", "data", **fields)
        await run.settle()
        assert run.where() == "n1"
