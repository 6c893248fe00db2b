"""Pods on a real containerd: what runs, in which order, with which environment."""

import pytest

from node.kubelet.base import PODS
from tests.host.kubelet.conftest import Node, pod

pytestmark = pytest.mark.root


async def test_a_pod_runs_and_is_reported_ready_with_its_address(node: Node) -> None:
    node.api.put(PODS, pod("web"))
    status = await node.ready("web")
    assert status["phase"] == "Running"
    assert status["podIP"].startswith("10.42.")
    assert status["hostIP"] == "127.0.0.1"
    (container,) = status["containerStatuses"]
    assert container["ready"] and container["started"] and container["restartCount"] == 0
    assert container["containerID"].startswith("containerd://")
    assert container["image"] == "registry.test/busybox:1"
    assert "running" in container["state"]


async def test_a_pod_that_ends_well_has_succeeded(node: Node) -> None:
    node.api.put(PODS, pod("job", "echo done", spec={"restartPolicy": "Never"}))
    status = await node.phase("job", "Succeeded")
    ended = status["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (0, "Completed")
    assert node.log("job") == "done"
