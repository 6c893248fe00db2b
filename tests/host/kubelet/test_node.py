"""The Node object, its Lease, and preloaded images, on a real containerd."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from node.cri.client import CriClient
from node.kubelet.base import LEASES, NODES, PODS
from node.kubelet.node import NodeAgent
from node.kubelet.preload import Preloader
from node.kubelet.recorder import EventRecorder
from tests.fakes.ociimage import write_image
from tests.host.cri.containerd import Containerd
from tests.host.kubelet.api import Api, ApiClient
from tests.host.kubelet.conftest import Node, config, pod, until

pytestmark = pytest.mark.root


@dataclass
class Clock:
    now: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Machine:
    agent: NodeAgent
    api: Api
    clock: Clock
    stop: asyncio.Event

    @property
    def node(self) -> dict[str, Any]:
        return self.api._objects[NODES, "", "n1"]

    def condition(self, kind: str) -> dict[str, Any]:
        return next(c for c in self.node["status"]["conditions"] if c["type"] == kind)


@pytest_asyncio.fixture
async def machine(containerd: Containerd, tmp_path: Path) -> AsyncIterator[Machine]:
    (tmp_path / "data").mkdir()
    api, clock = Api(), Clock()
    runtime = CriClient(containerd.socket)
    recorder = EventRecorder(ApiClient(api), "n1", clock)
    agent = NodeAgent(config(tmp_path, containerd), ApiClient(api), runtime, recorder, clock=clock)
    made = Machine(agent, api, clock, asyncio.Event())
    task = asyncio.get_running_loop().create_task(agent.run(made.stop))
    await asyncio.wait_for(agent.ready.wait(), 10)
    await api.until(lambda: (LEASES, "kube-node-lease", "n1") in api._objects)
    yield made
    made.stop.set()
    await task
    await runtime.close()


async def test_a_node_registers_with_what_it_has(machine: Machine) -> None:
    labels, status = machine.node["metadata"]["labels"], machine.node["status"]
    assert labels["kubernetes.io/hostname"] == "n1"
    assert labels["node-role.kubernetes.io/control-plane"] == "true"
    assert status["addresses"] == [
        {"type": "InternalIP", "address": "127.0.0.1"},
        {"type": "Hostname", "address": "n1"},
    ]
    assert status["capacity"]["pods"] == "110"
    assert status["capacity"]["memory"].endswith("Ki")
    assert status["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://")
    assert status["nodeInfo"]["kubeletVersion"] == "v1.36.3+pinnace1"
    names = [name for image in status["images"] for name in image["names"]]
    assert "registry.test/busybox:1" in names
    assert machine.condition("Ready")["reason"] == "KubeletReady"
    assert machine.condition("DiskPressure")["status"] == "False"


async def test_the_lease_says_that_it_lives(machine: Machine) -> None:
    lease = machine.api._objects[LEASES, "kube-node-lease", "n1"]
    assert lease["spec"]["holderIdentity"] == "n1"
    assert lease["spec"]["leaseDurationSeconds"] == 40
    assert lease["metadata"]["ownerReferences"][0]["uid"] == machine.node["metadata"]["uid"]


async def test_a_heartbeat_writes_the_lease_and_nothing_else(machine: Machine) -> None:
    renewed = machine.api._objects[LEASES, "kube-node-lease", "n1"]["spec"]["renewTime"]
    machine.api.writes.clear()
    machine.clock.now += timedelta(seconds=10)
    machine.agent.runtime_changed()
    lease = LEASES, "kube-node-lease", "n1"
    await machine.api.until(lambda: machine.api._objects[lease]["spec"]["renewTime"] != renewed)
    assert machine.api.writes == [("update", "leases")]


def is_renewed(machine: Machine, before: str) -> bool:
    lease = machine.api._objects[LEASES, "kube-node-lease", "n1"]
    return bool(lease["spec"]["renewTime"] != before)


async def test_heartbeats_alone_are_written_twice_a_day(machine: Machine) -> None:
    lease = LEASES, "kube-node-lease", "n1"
    for hours in (1, 11):
        machine.api.writes.clear()
        renewed = machine.api._objects[lease]["spec"]["renewTime"]
        machine.clock.now = datetime(2026, 3, 1, hours, tzinfo=UTC)
        machine.agent.runtime_changed()
        await machine.api.until(partial(is_renewed, machine, renewed))
        assert machine.api.writes == [("update", "leases")]
    machine.clock.now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    machine.agent.runtime_changed()
    await machine.api.until(
        lambda: machine.condition("Ready")["lastHeartbeatTime"] == "2026-03-01T12:00:00Z"
    )
    assert machine.condition("Ready")["lastTransitionTime"] == "2026-03-01T00:00:00Z"


@pytest.fixture
def short_folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pre-"))
    yield made
    shutil.rmtree(made)


async def test_preloaded_images_are_imported_pinned_and_not_twice(
    containerd: Containerd, short_folder: Path
) -> None:
    folder, record = short_folder / "images", short_folder / "record.json"
    folder.mkdir()
    write_image(folder / "one.tar", "registry.test/one:1", {"x": b"1"})
    runtime, ready = CriClient(containerd.socket), asyncio.Event()
    loader = Preloader(folder, containerd.socket, record, runtime)
    task = asyncio.get_running_loop().create_task(loader.run(ready))
    await asyncio.wait_for(ready.wait(), 10)
    assert await runtime.image("registry.test/one:1") is not None
    listed = containerd.ctr("-n", "k8s.io", "images", "ls").stdout.decode()
    assert "io.cri-containerd.pinned=pinned" in next(
        line for line in listed.splitlines() if line.startswith("registry.test/one:1")
    )
    write_image(folder / "two.part", "registry.test/two:1", {"x": b"2"})
    (folder / "two.part").rename(folder / "two.tar")

    async def has_two() -> bool:
        return await runtime.image("registry.test/two:1") is not None

    await until(has_two)
    await until(lambda: b"two.tar" in record.read_bytes())
    task.cancel()
    await runtime.remove_image("registry.test/one:1")
    await Preloader(folder, containerd.socket, record, runtime).load()
    assert await runtime.image("registry.test/one:1") is None, "the file was imported before"
    await runtime.close()


async def test_resources_change_in_place(node: Node) -> None:
    small = {"limits": {"cpu": "100m", "memory": "32Mi"}}
    node.api.put(PODS, pod("rs", container={"resources": small}))
    before = (await node.ready("rs"))["containerStatuses"][0]
    wanted = node.api.pod("rs")
    large = {"limits": {"cpu": "200m", "memory": "64Mi"}}
    wanted["spec"]["containers"][0]["resources"] = large
    node.api.put(PODS, wanted)
    await node.api.until(
        lambda: node.status("rs")["containerStatuses"][0]["resources"] == large, 10
    )
    after = node.status("rs")["containerStatuses"][0]
    assert after["containerID"] == before["containerID"]
    id_ = before["containerID"].removeprefix("containerd://")
    assert await asyncio.to_thread(memory_limit, node.containerd.cgroup, id_) == 64 << 20


def memory_limit(cgroup: str, container: str) -> int:
    top = Path("/sys/fs/cgroup")
    (folder,) = [
        path
        for root in (top / "memory", top)
        for path in root.glob(f"{cgroup.lstrip('/')}/kubepods/**/{container}")
        if (path / "memory.limit_in_bytes").exists() or (path / "memory.max").exists()
    ][:1]
    name = "memory.limit_in_bytes" if (folder / "memory.limit_in_bytes").exists() else "memory.max"
    return int((folder / name).read_text())


async def test_an_unsafe_sysctl_is_refused(node: Node) -> None:
    sysctls = [{"name": "kernel.msgmax", "value": "1"}]
    node.api.put(PODS, pod("sys", spec={"securityContext": {"sysctls": sysctls}}))
    status = await node.phase("sys", "Failed")
    assert status["reason"] == "SysctlForbidden"


async def test_a_taken_port_of_the_host_refuses_the_second_pod_and_outlives_a_restart(
    node: Node,
) -> None:
    ports = {"ports": [{"containerPort": 80, "hostPort": 18080, "protocol": "TCP"}]}
    node.api.put(PODS, pod("first", container=ports))
    await node.ready("first")
    await node.stop()
    node.api.put(PODS, pod("second", container=ports))
    await node.start()
    status = await node.phase("second", "Failed")
    text = "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
    assert (status["reason"], status["message"]) == ("NodePorts", f"Pod was rejected: {text}")
    await node.api.until(lambda: node.api.events("NodePorts"))
    assert node.api.events("NodePorts")[0]["message"] == text
    assert node.status("first")["phase"] == "Running"
    assert node.kubelet is not None
    assert node.kubelet.counters.rejections == {"NodePorts": 1}


async def test_a_critical_pod_displaces_others_and_begins_when_they_are_gone(node: Node) -> None:
    status = {"allocatable": {"cpu": "1", "memory": "1Gi", "pods": "10"}}
    node.api.put(NODES, {"metadata": {"name": "n1", "labels": {}}, "spec": {}, "status": status})

    def asking(name: str, cpu: str, **spec: Any) -> dict[str, Any]:
        container = {"resources": {"requests": {"cpu": cpu}}}
        return pod(name, container=container, spec=spec)

    for name, cpu in (("small", "200m"), ("large", "700m")):
        node.api.put(PODS, asking(name, cpu))
        await node.ready(name)
    node.api.put(PODS, asking("plain", "300m"))
    assert (await node.phase("plain", "Failed"))["reason"] == "OutOfcpu"
    node.api.put(PODS, asking("vital", "300m", priority=2_000_000_000))
    await node.ready("vital")
    gone = await node.phase("small", "Failed")
    text = "Preempted in order to admit critical pod"
    assert (gone["reason"], gone["message"]) == ("Preempting", text)
    (target,) = [c for c in gone["conditions"] if c["type"] == "DisruptionTarget"]
    assert target["reason"] == "TerminationByKubelet"
    assert node.status("large")["phase"] == "Running"
    node.api.put(PODS, asking("huge", "2", priority=2_000_000_000))
    assert (await node.phase("huge", "Failed"))["reason"] == "OutOfcpu"
