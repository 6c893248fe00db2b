"""metrics.k8s.io over real HTTP, from kubelets that speak real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from controlplane import assemble
from controlplane.api.authorize import Chain, Masters
from controlplane.api.metrics_api import kubelets
from controlplane.api.metrics_api.sample import Count, Sample, Use, between, duration
from controlplane.api.metrics_api.serve import MetricsApi
from controlplane.config import Config
from controlplane.objects.resources import NAMESPACES, NODES, PODS
from controlplane.pki.ensure import ensure_pki
from controlplane.store.memory import MemoryStore
from tests.fakes.api_server import NOW, Served, listening
from tests.unit.api.test_access import Allowed, Names

TOP = "/apis/metrics.k8s.io/v1beta1"
SECOND = 1_000_000_000


class Kubelet:
    """Each container has used a tenth of a core more, the node half of one, at each question."""

    def __init__(self) -> None:
        self.uid, self.asked, self.broken = "", 0, False

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.path == "/stats/summary"
        self.asked += 1
        if self.broken:
            return web.Response(status=500, text="no runtime")

        def figures(cpu: int, memory: int) -> dict[str, Any]:
            return {
                "cpu": {"usageCoreNanoSeconds": cpu},
                "memory": {"workingSetBytes": memory},
            }

        container = {"name": "c", **figures(self.asked * SECOND // 100, 3 << 20)}
        pod = {"podRef": {"name": "p", "namespace": "default", "uid": self.uid}}
        body = {
            "node": {"nodeName": "n1", **figures(self.asked * SECOND // 20, 64 << 20)},
            "pods": [{**pod, "containers": [container]}],
        }
        return web.json_response(body)


@asynccontextmanager
async def cluster(**changes: Any) -> AsyncIterator[tuple[Served, Kubelet]]:
    kubelet = Kubelet()
    runner = web.ServerRunner(web.Server(kubelet.handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made: list[Served] = []
    api = MetricsApi(lambda: made[0].parts)
    try:
        async with listening(aggregators=(api,), **changes) as served:
            made.append(served)
            await fill(served, runner.addresses[0][1])
            pod = await served.client.get(PODS, "default", "p")
            kubelet.uid = pod["metadata"]["uid"]
            yield served, kubelet
    finally:
        await runner.cleanup()


async def fill(served: Served, port: int) -> None:
    client = served.client
    await client.create(NAMESPACES, {"metadata": {"name": "default"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    nodes: dict[str, dict[str, Any]] = {"n1": {}, "away": {"conditions": []}}
    for name, more in nodes.items():
        await client.create(NODES, {"metadata": {"name": name, "labels": {"on": name}}})
        body = {"status": {**status, **more}}
        await client.patch(NODES, "", name, body=body, subresource="status")
    for name in ("p", "waits"):
        meta = {"name": name, "namespace": "default", "labels": {"app": name}}
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
        await client.create(PODS, {"metadata": meta, "spec": spec})
    body = {"status": {"phase": "Running"}}
    await client.patch(PODS, "default", "p", body=body, subresource="status")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kubelets, "SHORTEST_SECONDS", 0.1)


async def fetch(served: Served, path: str, accept: str = "application/json") -> Any:
    async with aiohttp.ClientSession() as session:
        headers = {"Accept": accept}
        async with session.get(f"{served.url}{path}", headers=headers) as answer:
            return await answer.json()


async def test_nodes_have_a_rate_and_say_over_which_window() -> None:
    async with cluster() as (served, kubelet):
        found = await fetch(served, f"{TOP}/nodes")
        assert found["kind"] == "NodeMetricsList"
        (node,) = found["items"]  # the other one is not ready
        assert node["metadata"]["name"] == "n1"
        assert node["metadata"]["labels"] == {"on": "n1"}
        assert node["usage"]["memory"] == "65536Ki"
        window = float(node["window"].rstrip("s"))
        cores = int(node["usage"]["cpu"].rstrip("n")) / SECOND
        assert window >= 0.09
        assert cores == pytest.approx(0.05 / window, rel=0.02)
        assert kubelet.asked == 2


async def test_pods_are_selected_and_those_that_do_not_run_are_missing() -> None:
    async with cluster() as (served, _):
        found = await fetch(served, f"{TOP}/pods")
        assert [p["metadata"]["name"] for p in found["items"]] == ["p"]
        (container,) = found["items"][0]["containers"]
        assert container["name"] == "c"
        assert container["usage"]["memory"] == "3072Ki"
        for query, count in (("labelSelector=app%3Dp", 1), ("labelSelector=app%3Dx", 0)):
            found = await fetch(served, f"{TOP}/namespaces/default/pods?{query}")
            assert len(found["items"]) == count
        found = await fetch(served, f"{TOP}/pods?fieldSelector=metadata.name%3Dq")
        assert found["items"] == []
        assert (await fetch(served, f"{TOP}/namespaces/other/pods"))["items"] == []
        one = await fetch(served, f"{TOP}/namespaces/default/pods/p")
        assert one["kind"] == "PodMetrics"
        missing = await fetch(served, f"{TOP}/namespaces/default/pods/waits")
        assert missing["code"] == 404
        assert missing["message"] == 'podmetrics.metrics.k8s.io "default/waits" not found'


async def test_an_answer_is_kept_and_shared_by_those_who_ask_at_once() -> None:
    async with cluster() as (served, kubelet):
        paths = (f"{TOP}/nodes", f"{TOP}/pods", f"{TOP}/nodes/n1")
        await asyncio.gather(*(fetch(served, path) for path in paths))
        assert kubelet.asked == 2


async def test_a_kubelet_that_fails_is_left_out() -> None:
    async with cluster() as (served, kubelet):
        kubelet.broken = True
        assert (await fetch(served, f"{TOP}/nodes"))["items"] == []
        assert (await fetch(served, f"{TOP}/nodes/n1"))["code"] == 404
        kubelet.broken = False
        assert len((await fetch(served, f"{TOP}/nodes"))["items"]) == 1


async def test_it_is_discovered_and_only_read() -> None:
    async with cluster() as (served, _):
        names = [group["name"] for group in (await fetch(served, "/apis"))["groups"]]
        assert "metrics.k8s.io" in names
        group = await fetch(served, "/apis/metrics.k8s.io")
        assert group["preferredVersion"]["groupVersion"] == "metrics.k8s.io/v1beta1"
        resources = (await fetch(served, TOP))["resources"]
        assert {(r["name"], r["kind"]) for r in resources} == {
            ("nodes", "NodeMetrics"),
            ("pods", "PodMetrics"),
        }
        assert (await fetch(served, f"{TOP}/pods?watch=1"))["code"] == 405
        assert (await fetch(served, f"{TOP}/namespaces/default/nodes"))["code"] == 404
        table = await fetch(served, f"{TOP}/nodes", "application/json;as=Table;g=meta.k8s.io;v=v1")
        assert table["rows"][0]["cells"][0] == "n1"


def test_what_started_or_started_anew_between_two_samples_counts_whole() -> None:
    first = Sample(10.0, Count(SECOND, 1), {("u", "old"): Count(5 * SECOND, 1)})
    later = {("u", "old"): Count(SECOND, 2), ("u", "new"): Count(2 * SECOND, 3)}
    found = between(first, Sample(12.0, Count(2 * SECOND, 4), later))
    assert found.node == Use(SECOND // 2, 4)
    assert found.pods == {"u": {"old": Use(SECOND // 2, 2), "new": Use(SECOND, 3)}}
    assert found.window == 2.0


def test_windows_are_written_as_go_writes_durations() -> None:
    assert [duration(s) for s in (1.0, 1.0034, 10.25, 60.5)] == [
        "1s",
        "1.003s",
        "10.25s",
        "1m0.5s",
    ]


async def test_one_needs_the_right_to_read_metrics_of_pods() -> None:
    allowed = Allowed("jane list pods")
    rights = {"authenticators": (Names(),), "authorizer": Chain((Masters(), allowed))}
    headers = {"Authorization": "Bearer jane"}
    async with cluster(**rights) as (served, kubelet), aiohttp.ClientSession() as session:
        async with session.get(f"{served.url}{TOP}/pods", headers=headers) as answer:
            assert answer.status == 200
        async with session.get(f"{served.url}{TOP}/nodes", headers=headers) as answer:
            assert answer.status == 403
            assert (await answer.json())["message"] == (
                'nodes.metrics.k8s.io is forbidden: User "jane" cannot list resource "nodes" '
                'in API group "metrics.k8s.io" at the cluster scope'
            )
        assert {asked.group for asked in allowed.seen} == {"metrics.k8s.io"}
        assert kubelet.asked == 2


def config(folder: Path, *disable: str) -> Config:
    return Config(
        data_dir=folder / "data",
        bind_address="127.0.0.1",
        https_port=6443,
        advertise_address="192.0.2.7",
        tls_sans=(),
        cluster_cidr=IPv4Network("10.42.0.0/16"),
        service_cidr=IPv4Network("10.43.0.0/16"),
        node_port_range=(30000, 32767),
        cluster_dns=IPv4Address("10.43.0.10"),
        cluster_domain="cluster.local",
        node_name="edge-1",
        node_ips=("192.0.2.7",),
        disable=frozenset(disable),
        write_kubeconfig=folder / "pinnace.yaml",
        write_kubeconfig_mode=0o600,
        token="",
        datastore_endpoint="",
    )


async def test_it_is_not_there_where_it_is_disabled(tmp_path: Path) -> None:
    pki = await asyncio.to_thread(ensure_pki, config(tmp_path), NOW)
    served = [
        assemble.parts(assemble.foundation(told, pki, MemoryStore())).aggregators
        for told in (config(tmp_path), config(tmp_path, "metrics-server"))
    ]
    assert [len(aggregators) for aggregators in served] == [1, 0]
