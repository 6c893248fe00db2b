"""Pods that have to go: because of their own limits, or because the node is short."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.host.pressure import MemoryAlarm
from node.kubelet import usage
from node.kubelet.base import PODS
from node.kubelet.evict import Reading
from node.kubelet.evictor import Evictor
from node.kubelet.usage import FileSystem
from tests.host.kubelet.conftest import Node, pod, until

pytestmark = pytest.mark.root

PLENTY = FileSystem(
    capacity=100 << 30, available=50 << 30, used=50 << 30, inodes=1000, inodes_free=900
)
CALM = Reading(memory=4 << 30, memory_available=2 << 30, nodefs=PLENTY, imagefs=None)
FULL = replace(PLENTY, available=1 << 30)


@dataclass
class Keeper:
    """Has no images that nobody needs."""

    asked: list[int | None] = field(default_factory=list)

    async def reclaim(self, wanted: int | None) -> int:
        self.asked.append(wanted)
        return 0


@dataclass
class Machine:
    """What the evictor sees of it; ``reading`` may be changed at any time."""

    evictor: Evictor
    keeper: Keeper
    told: list[frozenset[str]] = field(default_factory=list)
    reading: Reading = CALM

    def see(self, reading: Reading) -> None:
        self.reading = reading
        self.evictor.wake()


@asynccontextmanager
async def watched(node: Node) -> AsyncIterator[Machine]:
    assert node.kubelet is not None
    keeper = Keeper()
    made: list[Machine] = []
    evictor = Evictor(
        node.kubelet,
        node.runtime,
        keeper,  # type: ignore[arg-type]
        data_dir=node.config.data_dir,
        clock=lambda: datetime.now(UTC),
        look=lambda _data, _images: made[0].reading,
    )
    made.append(Machine(evictor, keeper))
    evictor.on_change.append(lambda: made[0].told.append(evictor.held))
    node.kubelet.held = lambda: evictor.held
    task = asyncio.get_running_loop().create_task(evictor.run())
    try:
        yield made[0]
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def writer(name: str, **more: Any) -> dict[str, Any]:
    """Writes 2 MiB, and stays."""
    script = "dd if=/dev/zero of=$WHERE/f bs=1M count=2; trap 'exit 0' TERM; sleep 3600 & wait"
    container = {"env": [{"name": "WHERE", "value": more.pop("where")}], **more.pop("container")}
    return pod(name, script, container=container, **more)


async def test_a_pod_that_overfills_an_empty_dir_is_evicted(node: Node) -> None:
    volumes = [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]
    mount = {"volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}
    node.api.put(
        PODS, writer("filler", where="/scratch", container=mount, spec={"volumes": volumes})
    )
    node.api.put(PODS, pod("neighbour"))
    await node.ready("filler")
    await node.ready("neighbour")
    assert node.kubelet is not None
    worker = node.kubelet.worker_of("default", "filler")
    assert worker is not None
    folder = node.config.pods_dir / worker.uid / "volumes" / "kubernetes.io~empty-dir" / "scratch"
    await until(lambda: size_of(folder / "f") == 2 << 20)
    async with watched(node):
        status = await node.phase("filler", "Failed")
    text = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". '
    assert (status["reason"], status["message"]) == ("Evicted", text)
    await node.api.until(lambda: node.api.events("Evicted"))
    (event,) = node.api.events("Evicted")
    assert (event["type"], event["message"]) == ("Warning", text)
    assert "DisruptionTarget" not in {c["type"] for c in status["conditions"]}
    assert node.kubelet.counters.evictions == {"emptydirfs.limit": 1}
    assert node.status("neighbour")["phase"] == "Running"


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


async def test_what_a_container_logs_counts_against_its_limit(node: Node) -> None:
    limits = {"resources": {"limits": {"ephemeral-storage": "64Ki"}}}
    script = "yes | head -c 200000; trap 'exit 0' TERM; sleep 3600 & wait"
    node.api.put(PODS, pod("chatty", script, container=limits))
    await node.ready("chatty")
    await until(lambda: usage.of_tree(node.config.logs).used > 256 << 10)
    async with watched(node):
        status = await node.phase("chatty", "Failed")
    assert status["message"] == (
        "Pod ephemeral local storage usage exceeds the total limit of containers 64Ki. "
    )


async def test_short_of_memory_the_greediest_goes_and_new_ones_are_kept_out(node: Node) -> None:
    asked = {"resources": {"requests": {"memory": "64Mi"}}}
    node.api.put(PODS, pod("modest", container=asked))
    node.api.put(PODS, pod("greedy"))
    await node.ready("modest")
    await node.ready("greedy")
    async with watched(node) as machine:
        machine.see(replace(CALM, memory_available=50 << 20))
        await node.api.until(lambda: node.api.events("Evicted"))
        machine.see(CALM)
        status = await node.phase("greedy", "Failed")
        assert machine.evictor.held == {"MemoryPressure"}
        assert machine.told == [{"MemoryPressure"}]
        node.api.put(PODS, pod("latecomer"))
        refused = await node.phase("latecomer", "Failed")
        node.api.put(PODS, pod("welcome", container=asked))
        await node.ready("welcome")
    assert status["message"].startswith(
        "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. "
        "Container c was using "
    )
    (target,) = [c for c in status["conditions"] if c["type"] == "DisruptionTarget"]
    assert target["reason"] == "TerminationByKubelet"
    assert (refused["reason"], refused["message"]) == (
        "Evicted",
        "Pod was rejected: The node had condition: [MemoryPressure]. ",
    )
    assert node.status("modest")["phase"] == "Running"
    (event,) = node.api.events("EvictionThresholdMet")
    assert event["message"] == "Attempting to reclaim memory"


async def test_of_a_full_disk_images_go_first_and_pods_only_if_that_is_not_enough(
    node: Node,
) -> None:
    node.api.put(PODS, pod("victim"))
    await node.ready("victim")
    async with watched(node) as machine:

        async def is_enough(wanted: int | None) -> int:
            machine.keeper.asked.append(wanted)
            machine.reading = CALM
            return 1

        machine.keeper.reclaim = is_enough  # type: ignore[method-assign]
        machine.see(replace(CALM, nodefs=FULL))
        await until(lambda: machine.keeper.asked)
        assert machine.keeper.asked == [14 << 30], "to 15 % of 100 GiB"
        assert not node.api.events("Evicted")
        del machine.keeper.reclaim
        machine.see(replace(CALM, nodefs=FULL))
        await node.api.until(lambda: node.api.events("Evicted"))
        machine.see(CALM)
        status = await node.phase("victim", "Failed")
    assert status["message"].startswith(
        "The node was low on resource: ephemeral-storage. Threshold quantity: 5Gi, available: 1Gi."
    )
    assert machine.evictor.held == {"DiskPressure"}


def test_the_kernel_tells_when_memory_is_short() -> None:
    alarm = MemoryAlarm()
    try:
        assert alarm.works
        assert alarm.silence() is False
    finally:
        alarm.close()


def test_a_kernel_that_tells_nothing_is_looked_after(tmp_path: Path) -> None:
    alarm = MemoryAlarm(tmp_path / "no-psi", tmp_path / "no-cgroup")
    assert not alarm.works
    alarm.close()
