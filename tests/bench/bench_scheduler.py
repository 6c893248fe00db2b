"""
How many pods the scheduler places in a second, on 1 and on 100 nodes.

Decisions alone, as the loop makes them between two waits; and, on one node, with all that
follows: binding, events and the cache of a real API on a store in memory.
Run it: ``python -m tests.bench.bench_scheduler``.
"""

import asyncio
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from controlplane.objects.resources import NAMESPACES, NODES, PODS
from controlplane.reconcile.clock import LoopClock
from controlplane.scheduler.cycle import Placed, Planner
from controlplane.scheduler.loop import Scheduler
from controlplane.scheduler.snapshot import View, node_info, pod_info
from tests.fakes.api_server import serving
from tests.fakes.reads import World
from tests.unit.scheduler.objects import node, pod


def _place_all(nodes: int, pods: int, **fields: Any) -> float:
    """Pods a second."""
    view = View()
    for number in range(nodes):
        view.set_node(node_info(node(f"n{number}", cpu="64", memory="256Gi", more={"pods": "500"})))
    planner = Planner(view, World())
    wanted = [pod(f"p{number}", cpu="10m", memory="16Mi", **fields) for number in range(pods)]
    start = time.perf_counter()
    for item in wanted:
        outcome = planner.place(item)
        assert isinstance(outcome, Placed)
        item["spec"]["nodeName"] = outcome.node
        view.put_pod(pod_info(item))
    return pods / (time.perf_counter() - start)


async def _through_api(pods: int) -> float:
    """Pods a second from the start of the scheduler to the last binding."""
    async with serving() as served:
        client, cache = served.client, served.parts.cache
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
        made = node(cpu="64", memory="256Gi", more={"pods": "500"})
        created = await client.create(NODES, made)
        await client.update(NODES, {**created, "status": made["status"]}, subresource="status")
        for number in range(pods):
            body = pod(f"p{number}", cpu="10m", memory="16Mi")
            del body["metadata"]["uid"]
            await client.create(PODS, body)
        clock = LoopClock(lambda: datetime.now(UTC))
        scheduler = Scheduler(client=client, reads=cache, feed=cache, clock=clock)
        start = time.perf_counter()
        task = asyncio.ensure_future(scheduler.run())
        while scheduler.counters.scheduled < pods:
            await cache.wait_for(cache.revision + 1)
        seconds = time.perf_counter() - start
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        return pods / seconds


def run() -> dict[str, float]:
    """Results by name, in pods a second."""
    return {
        "scheduler.1_node": _place_all(1, 400),
        "scheduler.100_nodes": _place_all(100, 1000),
        "scheduler.api_1_node": asyncio.run(_through_api(400)),
    }


if __name__ == "__main__":
    for name, value in run().items():
        sys.stdout.write(f"{name}: {value:,.0f} pods/s\n")
