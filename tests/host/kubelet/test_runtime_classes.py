"""Pods that ask for another runtime than the default one."""

from typing import Any

import pytest

from node.kubelet.base import PODS, RUNTIME_CLASSES
from tests.host.kubelet.conftest import Node, pod

pytestmark = pytest.mark.root


def put_class(node: Node, name: str, handler: str) -> None:
    node.api.put(RUNTIME_CLASSES, {"metadata": {"name": name}, "handler": handler})


def asking(name: str, runtime_class: str) -> dict[str, Any]:
    return pod(name, spec={"runtimeClassName": runtime_class})


async def test_the_handler_of_the_class_runs_the_pod(node: Node) -> None:
    put_class(node, "plain", "runc")
    node.api.put(PODS, asking("classed", "plain"))
    await node.ready("classed")
    (sandbox,) = await node.runtime.sandboxes({"io.kubernetes.pod.name": "classed"})
    assert sandbox.runtime_handler == "runc"


async def test_a_handler_that_the_runtime_does_not_know_is_told(node: Node) -> None:
    put_class(node, "odd", "nobody")
    node.api.put(PODS, asking("lost", "odd"))
    await node.api.until(lambda: node.api.events("FailedCreatePodSandBox"))
    text = node.api.events("FailedCreatePodSandBox")[0]["message"]
    assert 'no runtime for "nobody" is configured' in text


async def test_a_class_that_is_gone_is_named_and_may_come_back(node: Node) -> None:
    node.api.put(PODS, asking("early", "late"))
    await node.api.until(lambda: node.api.events("FailedCreatePodSandBox"))
    text = node.api.events("FailedCreatePodSandBox")[0]["message"]
    assert 'failed to get sandbox runtime: RuntimeClass.node.k8s.io "late" not found' in text
    put_class(node, "late", "runc")
    await node.ready("early")
