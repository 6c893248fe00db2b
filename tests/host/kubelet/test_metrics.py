"""What Prometheus and the summary API are told of pods and their volumes."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from node.host import mounts
from node.kubelet.base import CLAIMS, PODS, VOLUMES
from node.kubelet.server import KubeletServer
from tests.host.kubelet.conftest import Node, pod, until

pytestmark = pytest.mark.root

LINE = re.compile(r"([a-z_]+)(?:\{(.*)\})? (\S+)(?: \d+)?")
CLAIM = {"namespace": "default", "persistentvolumeclaim": "mine"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    subprocess.run(["mkfs.ext4", "-q", "-F", tmp_path / "image", "16M"], check=True)
    yield tmp_path
    for point in mounts.mounted_below(tmp_path):
        mounts.unmount(point, detach=True)


@asynccontextmanager
async def asking(node: Node) -> AsyncIterator[Any]:
    assert node.kubelet is not None
    server = KubeletServer(node.kubelet, node.runtime, lambda: datetime.now(UTC), secure=False)
    port = await server.start("127.0.0.1", 0, None)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask(path: str) -> str:
            async with session.get(path) as answer:
                assert answer.status == 200
                return await answer.text()

        try:
            yield ask
        finally:
            await server.stop()


def series(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every line must be one that Prometheus takes, in a family that was begun."""
    out: dict[str, list[tuple[dict[str, str], float]]] = {}
    begun = set()
    for line in text.splitlines():
        if line.startswith("#"):
            begun.add(line.split()[2])
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, labels, value = match.groups()
        assert name in begun, line
        pairs = dict(re.findall(r'([a-z_]+)="([^"]*)"', labels or ""))
        out.setdefault(name, []).append((pairs, float(value)))
    return out


def claimant() -> dict[str, Any]:
    volumes = [
        {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}},
        {"name": "scratch", "emptyDir": {}},
        {"name": "fast", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": "/"}},
    ]
    mounted = [
        {"name": "data", "mountPath": "/data"},
        {"name": "scratch", "mountPath": "/scratch"},
    ]
    script = "dd if=/dev/zero of=/scratch/f bs=1M count=2; trap 'exit 0' TERM; sleep 3600 & wait"
    more = {"resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}, "volumeMounts": mounted}
    return pod("user", script, spec={"volumes": volumes}, container=more)


def put_claim(node: Node, disk: Path) -> None:
    bound = {"spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}}
    node.api.put(CLAIMS, {"metadata": {"name": "mine", "namespace": "default"}, **bound})
    notes = {"localpath.pinnace.dev/image": str(disk / "image")}
    spec = {"hostPath": {"path": str(disk / "data")}}
    node.api.put(VOLUMES, {"metadata": {"name": "pv1", "annotations": notes}, "spec": spec})


async def test_a_claim_is_measured_by_its_own_file_system(node: Node, disk: Path) -> None:
    put_claim(node, disk)
    node.api.put(PODS, claimant())
    node.api.put(PODS, {**claimant(), "metadata": {"name": "other", "namespace": "default"}})
    await node.ready("user")
    await node.ready("other")
    async with asking(node) as ask:
        before = series(await ask("/metrics"))
        await asyncio.to_thread((disk / "data" / "big").write_bytes, bytes(4 << 20))
        after = series(await ask("/metrics"))
    for key in ("capacity_bytes", "inodes", "inodes_free", "inodes_used"):
        (labels, value), *rest = after[f"kubelet_volume_stats_{key}"]
        assert (labels, rest) == (CLAIM, []), "two pods share one claim"
        assert value > 0
    (_, capacity), *_ = after["kubelet_volume_stats_capacity_bytes"]
    assert 12 << 20 < capacity < 16 << 20
    used = [page["kubelet_volume_stats_used_bytes"][0][1] for page in (before, after)]
    assert used[1] - used[0] >= 4 << 20
    left = [page["kubelet_volume_stats_available_bytes"][0][1] for page in (before, after)]
    assert left[0] - left[1] >= 4 << 20
    assert after["kubelet_running_pods"] == [({}, 2)]
    assert after["kubelet_node_name"] == [({"node": "n1"}, 1)]
    assert after["kubelet_started_pods_total"] == [({}, 2)]


async def test_the_summary_shows_volumes_and_what_a_pod_takes_of_the_disk(
    node: Node, disk: Path
) -> None:
    put_claim(node, disk)
    node.api.put(PODS, claimant())
    await node.ready("user")
    async with asking(node) as ask:

        async def is_written() -> bool:
            (shown,) = json.loads(await ask("/stats/summary"))["pods"]
            by_name = {volume["name"]: volume for volume in shown["volume"]}
            return bool(by_name["scratch"]["usedBytes"] >= 2 << 20)

        await until(is_written)
        whole = json.loads(await ask("/stats/summary"))
        brief = json.loads(await ask("/stats/summary?only_cpu_and_memory=true"))
    (shown,) = whole["pods"]
    by_name = {volume["name"]: volume for volume in shown["volume"]}
    assert set(by_name) == {"data", "scratch", "fast"}
    assert by_name["data"]["pvcRef"] == {"name": "mine", "namespace": "default"}
    assert by_name["data"]["capacityBytes"] < 16 << 20
    assert by_name["fast"]["capacityBytes"] == 1 << 20
    assert shown["ephemeral-storage"]["usedBytes"] >= 2 << 20
    assert shown["containers"][0]["rootfs"]["capacityBytes"] > 0
    assert shown["containers"][0]["logs"]["usedBytes"] > 0
    assert whole["node"]["fs"]["capacityBytes"] > 0
    assert whole["node"]["runtime"]["imageFs"]["capacityBytes"] > 0
    assert whole["node"]["rlimit"]["maxpid"] > whole["node"]["rlimit"]["curproc"]
    assert "fs" not in brief["node"]
    assert "volume" not in brief["pods"][0]


async def test_containers_are_told_of_under_cadvisors_names(node: Node, disk: Path) -> None:
    put_claim(node, disk)
    node.api.put(PODS, claimant())
    await node.ready("user")
    async with asking(node) as ask:
        found = series(await ask("/metrics/cadvisor"))
    (labels, value), *_ = found["container_memory_working_set_bytes"]
    assert value > 0
    assert (labels["namespace"], labels["pod"], labels["container"]) == ("default", "user", "c")
    assert labels["image"]
    assert labels["id"].endswith(labels["name"])
    assert found["container_spec_cpu_quota"][0][1] == 50_000
    assert found["container_spec_memory_limit_bytes"][0][1] == 64 << 20
    assert "container_cpu_cfs_periods_total" in found
    assert "container_memory_cache" in found
    assert found["container_oom_events_total"][0][1] == 0
    interfaces = {pairs["interface"] for pairs, _ in found["container_network_receive_bytes_total"]}
    assert interfaces == {"eth0"}
    assert found["machine_memory_bytes"][0][1] > 1 << 20


async def test_probes_and_resources_are_told_of(node: Node) -> None:
    probe = {"exec": {"command": ["true"]}, "periodSeconds": 1}
    node.api.put(PODS, pod("probed", container={"readinessProbe": probe}))
    await node.ready("probed")
    async with asking(node) as ask:
        probes = series(await ask("/metrics/probes"))
        resources = series(await ask("/metrics/resource"))
    (labels, count), *_ = probes["prober_probe_total"]
    assert count >= 1
    assert (labels["pod"], labels["container"]) == ("probed", "c")
    assert (labels["probe_type"], labels["result"]) == ("Readiness", "successful")
    assert resources["resource_scrape_error"] == [({}, 0)]
    of_pod = {"pod": "probed", "namespace": "default"}
    assert resources["pod_cpu_usage_seconds_total"][0][0] == of_pod
    assert resources["container_start_time_seconds"][0][0] == {"container": "c", **of_pod}
    assert resources["node_memory_working_set_bytes"][0][1] > 0
