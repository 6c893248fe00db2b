"""Restarts: of the kubelet, of containerd; nothing of a pod may be started twice."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from node.kubelet.base import PODS
from node.kubelet.housekeeping import Housekeeper
from node.kubelet.preload import Preloader
from tests.host.cri.containerd import Containerd
from tests.host.kubelet.conftest import Node, config, pod, until

pytestmark = pytest.mark.root


@pytest.fixture
def own_containerd() -> Iterator[Containerd]:
    made = Containerd(Path(tempfile.mkdtemp(prefix="ctd-")) / "c")
    made.prepare()
    made.start()
    try:
        made.import_images()
        yield made
    finally:
        made.stop()
        shutil.rmtree(made.root.parent, ignore_errors=True)


@pytest_asyncio.fixture
async def own_node(own_containerd: Containerd) -> AsyncIterator[Node]:
    folder = Path(tempfile.mkdtemp(prefix="klet-"))
    made = Node(own_containerd, config(folder, own_containerd))
    await made.start()
    yield made
    await made.stop()
    shutil.rmtree(folder, ignore_errors=True)


async def test_a_restarted_kubelet_adopts_what_runs(node: Node) -> None:
    readiness = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    node.api.put(PODS, pod("keep", container={"readinessProbe": readiness}))
    before = (await node.ready("keep"))["containerStatuses"][0]
    await node.stop()
    writes = len(node.api.writes)
    kubelet = await node.start()
    await until(lambda: kubelet.workers and next(iter(kubelet.workers.values())).view.alive)
    await asyncio.sleep(0.3)  # time in which a wrong step would be taken
    after = node.status("keep")["containerStatuses"][0]
    assert after["containerID"] == before["containerID"]
    assert after["restartCount"] == 0
    assert after["ready"] is True
    assert len(node.api.writes) == writes, "nothing changed, so nothing is written"


async def test_a_pod_deleted_meanwhile_is_stopped_at_the_next_start(node: Node) -> None:
    node.api.put(PODS, pod("lost"))
    await node.ready("lost")
    await node.stop()
    node.api.remove(PODS, "default", "lost")
    await node.start()

    async def gone() -> bool:
        return not await node.runtime.sandboxes({"io.kubernetes.pod.name": "lost"})

    await until(gone, 20)


async def test_containers_survive_a_crash_of_containerd(own_node: Node) -> None:
    node = own_node
    node.api.put(PODS, pod("steady"))
    before = (await node.ready("steady"))["containerStatuses"][0]["containerID"]
    kubelet = node.kubelet
    assert kubelet is not None
    node.containerd.crash()
    await until(lambda: kubelet.runtime_error)
    await asyncio.to_thread(node.containerd.start)
    await until(lambda: not kubelet.runtime_error)
    # Still under our eyes: a death is noticed and repaired.
    await node.runtime.exec_sync(before.removeprefix("containerd://"), ["kill", "-9", "1"], 5)
    await node.runtime.stop_container(before.removeprefix("containerd://"), 0)
    await node.api.until(lambda: node.status("steady")["containerStatuses"][0]["restartCount"] == 1)
    after = node.status("steady")["containerStatuses"][0]
    assert after["lastState"]["terminated"]["containerID"] == before


async def test_a_sandbox_that_dies_is_replaced(node: Node) -> None:
    node.api.put(PODS, pod("phoenix"))
    first = await node.ready("phoenix")
    (sandbox,) = await node.runtime.sandboxes({"io.kubernetes.pod.name": "phoenix"})
    node.containerd.ctr("-n", "k8s.io", "tasks", "kill", "-s", "KILL", sandbox.id)

    def reborn() -> bool:
        status = node.status("phoenix")
        new = status["containerStatuses"][0]
        old = first["containerStatuses"][0]
        return bool(new["ready"] and new["containerID"] != old["containerID"])

    await node.api.until(reborn)
    assert node.status("phoenix")["containerStatuses"][0]["restartCount"] == 1


async def test_images_that_are_used_or_came_with_the_appliance_are_never_removed(
    own_node: Node,
) -> None:
    node, pause = own_node, "registry.test/pause:1"
    node.containerd.ctr("-n", "k8s.io", "images", "label", pause, "io.cri-containerd.pinned=pinned")
    node.api.put(PODS, pod("user"))
    await node.ready("user")
    assert node.kubelet is not None
    socket = node.containerd.socket
    record = node.config.data_dir / "images.json"
    loader = Preloader(node.config.images_dir, socket, record, node.runtime)
    assert pause in await loader.pinned()  # newer ones name it by its content, too
    keeper = Housekeeper(node.kubelet, node.runtime, lambda: datetime.now(UTC), kept=loader.pinned)
    assert await keeper.reclaim(0) == 0
    assert await keeper.reclaim(None) == 1
    left = {tag for image in await node.runtime.images() for tag in image.tags}
    assert left == {"registry.test/busybox:1", pause}
    await node.stop()
    await node.start()
    node.api.put(PODS, pod("another"))
    await node.ready("another")
