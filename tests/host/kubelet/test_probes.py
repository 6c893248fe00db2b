"""Probes on a real containerd: what they do to readiness and to the container."""

from typing import Any

import pytest

from node.kubelet.base import PODS
from tests.host.kubelet.conftest import Node, pod

pytestmark = pytest.mark.root


def probe(**more: Any) -> dict[str, Any]:
    return {"periodSeconds": 1, "failureThreshold": 1, **more}


async def test_readiness_follows_its_probe(node: Node) -> None:
    command = ["test", "-e", "/tmp/ready"]
    container = {"readinessProbe": probe(exec={"command": command})}
    node.api.put(PODS, pod("rd", container=container))
    await node.api.until(lambda: "running" in node.status("rd")["containerStatuses"][0]["state"])
    assert node.status("rd")["containerStatuses"][0]["ready"] is False
    id_ = node.status("rd")["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    await node.runtime.exec_sync(id_, ["touch", "/tmp/ready"], 5)
    await node.ready("rd", 5)
    await node.runtime.exec_sync(id_, ["rm", "/tmp/ready"], 5)
    await node.api.until(lambda: not node.status("rd")["containerStatuses"][0]["ready"], 5)
    assert node.api.events("Unhealthy")[0]["message"].startswith("Readiness probe failed: ")


async def test_a_container_that_fails_its_liveness_probe_is_restarted(node: Node) -> None:
    container = {"livenessProbe": probe(tcpSocket={"port": 9})}
    node.api.put(PODS, pod("lv", container=container))
    await node.api.until(lambda: node.status("lv")["containerStatuses"][0]["restartCount"] >= 1)
    (killing, *_) = node.api.events("Killing")
    assert killing["message"] == "Container c failed liveness probe, will be restarted"


async def test_http_probes_reach_the_container(node: Node) -> None:
    command = "mkdir /tmp/w; echo ok > /tmp/w/ok; httpd -f -p 8080 -h /tmp/w"
    container = {
        "ports": [{"name": "web", "containerPort": 8080}],
        "startupProbe": probe(httpGet={"path": "/ok", "port": "web"}, failureThreshold=30),
        "readinessProbe": probe(httpGet={"path": "/ok", "port": 8080}),
        "livenessProbe": probe(httpGet={"path": "/ok", "port": 8080}),
    }
    node.api.put(PODS, pod("ht", command, container=container))
    status = await node.ready("ht")
    assert status["containerStatuses"][0]["started"] is True


async def test_a_failed_post_start_hook_restarts_the_container(node: Node) -> None:
    lifecycle = {"postStart": {"exec": {"command": ["false"]}}}
    node.api.put(PODS, pod("hk", container={"lifecycle": lifecycle}))
    await node.api.until(lambda: node.status("hk")["containerStatuses"][0]["restartCount"] >= 1)
    assert node.api.events("FailedPostStartHook")
