"""
How many pods the scheduler places in a second, on 1 and on 100 nodes.

Decisions alone, as the loop makes them between two waits; the API's part is measured elsewhere.
Run it: ``python -m tests.bench.bench_scheduler``.
"""

import sys
import time
from typing import Any

from controlplane.scheduler.cycle import Placed, Planner
from controlplane.scheduler.snapshot import View, node_info, pod_info
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


def run() -> dict[str, float]:
    """Results by name, in pods a second."""
    return {
        "scheduler.1_node": _place_all(1, 400),
        "scheduler.100_nodes": _place_all(100, 1000),
    }


if __name__ == "__main__":
    for name, value in run().items():
        sys.stdout.write(f"{name}: {value:,.0f} pods/s\n")
