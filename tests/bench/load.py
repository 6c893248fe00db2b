"""
A client of a running node, in a process of its own and over real TLS.

``python -m tests.bench.load KUBECONFIG WHAT SECONDS`` prints rows as JSON;
``WHAT`` is ``pods`` (from the request to Ready) or ``api`` (rates beside a bare
aiohttp server with the same certificate, which also has a process of its own).
"""

import asyncio
import json
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from controlplane.client.base import Selection
from controlplane.client.http import HttpClient, from_kubeconfig
from controlplane.objects.resources import PODS
from tests.bench.bench_api import Measure, Row, pod

NAMESPACE = "default"
IMAGE = "pinnace.dev/hello:1"
ONE_AT_A_TIME = 5
AT_ONCE = 20
LISTED = 1000
WATCHERS = 100
CHANGES = 50


# Pods


def _runnable(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": IMAGE}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "bench"}},
        "spec": {"containers": [container], "terminationGracePeriodSeconds": 0},
    }


class _Pods:
    """Follows the pods of the namespace; its state is when each was first seen Ready."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._ready: dict[str, asyncio.Future[float]] = {}

    async def follow(self, after: str) -> None:
        chosen = Selection(namespace=NAMESPACE)
        async for event in self._client.watch(PODS, chosen, after=after):
            conditions = event.object.get("status", {}).get("conditions") or []
            name = event.object["metadata"].get("name", "")
            ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
            if ready and name in self._ready and not self._ready[name].done():
                self._ready[name].set_result(time.perf_counter())

    async def start(self, name: str) -> float:
        """Seconds from the request to Ready."""
        self._ready[name] = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        await self._client.create(PODS, _runnable(name))
        return await asyncio.wait_for(self._ready[name], 120) - began


async def _pods(client: HttpClient) -> list[Row]:
    pods = _Pods(client)
    after = (await client.list(PODS)).resource_version
    following = asyncio.ensure_future(pods.follow(after))
    await pods.start("warm")
    alone = [await pods.start(f"one-{number}") for number in range(ONE_AT_A_TIME)]
    began = time.perf_counter()
    many = await asyncio.gather(*(pods.start(f"many-{number}") for number in range(AT_ONCE)))
    took = time.perf_counter() - began
    following.cancel()
    note = "from the request to Ready, image preloaded"
    return [
        ("one pod, median", statistics.median(alone) * 1000, "ms", note),
        (f"{AT_ONCE} pods at once, the last", took * 1000, "ms", note),
        (f"{AT_ONCE} pods at once, median", statistics.median(many) * 1000, "ms", note),
    ]


# The API


def _context(tls: dict[str, str]) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=tls["ca"])
    context.load_cert_chain(tls["certificate"], tls["key"])
    return context


def _server_of(kubeconfig: Path) -> str:
    server: str = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"]
    return server


async def _bare(certificate: str, key: str, folder: str) -> None:
    """Serves ``one`` and ``many`` from a folder until it is killed; prints its port."""
    bodies = {f"/{name}": (Path(folder) / name).read_bytes() for name in ("one", "many")}

    async def handle(request: web.BaseRequest) -> web.Response:
        return web.Response(body=bodies[request.path], content_type="application/json")

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    runner = web.ServerRunner(web.Server(handle, access_log=None))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    sys.stdout.write(f"{runner.addresses[0][1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


@asynccontextmanager
async def _beside(folder: Path) -> AsyncIterator[str]:
    """A bare server with the certificate of the API server; its address."""
    tls_dir = folder / "data" / "server" / "tls"
    pair = [str(tls_dir / f"serving-kube-apiserver.{end}") for end in ("crt", "key")]
    argv = [sys.executable, "-m", "tests.bench.load", "bare", *pair, str(folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as server:  # noqa: ASYNC220
        assert server.stdout is not None
        port = await asyncio.to_thread(server.stdout.readline)
        try:
            yield f"https://127.0.0.1:{port.strip()}"
        finally:
            server.kill()


async def _read(http: aiohttp.ClientSession, url: str) -> bytes:
    async with http.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.read()


def _reading(http: aiohttp.ClientSession, url: str) -> Callable[[int], Awaitable[bytes]]:
    return lambda _: _read(http, url)


def _times(rows: list[Row], bare: list[Row]) -> list[Row]:
    """The rate with its share of what the bare server does."""
    (name, rate, unit, note), *rest = rows
    return [(name, rate, unit, f"{rate / bare[0][1]:.2f} of a bare aiohttp server; {note}"), *rest]


async def _reads(
    server: str, http: aiohttp.ClientSession, folder: Path, seconds: float
) -> tuple[list[Row], list[Row]]:
    """Rows, and those of the bare server with one pod. ``folder``: of the node."""
    path = f"{server}/api/v1/namespaces/{NAMESPACE}/pods"
    urls = {"one": f"{path}/web-00000", "many": f"{path}?labelSelector=tier%3Dbench"}
    for name, url in urls.items():
        (folder / name).write_bytes(await _read(http, url))
    bare = {}
    async with _beside(folder) as address:
        for name in urls:
            title = "bare aiohttp, " + ("one pod" if name == "one" else f"{LISTED:,} pods")
            call = _reading(http, f"{address}/{name}")
            bare[name] = await Measure(title, seconds).run(call)
    rows = []
    for name, title in (("one", "GET"), ("many", f"LIST {LISTED:,} pods")):
        got = await Measure(title, seconds).run(_reading(http, urls[name]))
        rows += [*bare[name], *_times(got, bare[name])]
    return rows, bare["one"]


def _idle_pod(name: str) -> dict[str, Any]:
    """As long as a real one, but nobody's: neither scheduler nor kubelet sees it."""
    made = pod(name)
    made["spec"]["schedulerName"] = "nobody"
    return made


async def _fan_out(client: HttpClient, server: str, http: aiohttp.ClientSession) -> list[Row]:
    """Every change of one object to every watcher; until the last has the last."""
    after = (await client.list(PODS)).resource_version
    url = f"{server}/api/v1/namespaces/{NAMESPACE}/pods?watch=1&resourceVersion={after}"
    open_watches, all_open = 0, asyncio.Event()

    async def watch() -> None:
        nonlocal open_watches
        async with http.get(url) as answer:
            assert answer.status == 200
            open_watches += 1
            if open_watches == WATCHERS:
                all_open.set()
            seen = 0
            while seen < CHANGES:
                seen += (await answer.content.readany()).count(b"\n")

    watching = [asyncio.ensure_future(watch()) for _ in range(WATCHERS)]
    await asyncio.wait_for(all_open.wait(), 60)
    began = time.perf_counter()
    for number in range(CHANGES):
        body = {"metadata": {"annotations": {"fan-out": str(number)}}}
        await client.patch(PODS, NAMESPACE, "web-00000", body=body)
    await asyncio.wait_for(asyncio.gather(*watching), 120)
    took = time.perf_counter() - began
    rate = WATCHERS * CHANGES / took
    return [(f"watch fan-out to {WATCHERS}", rate, "1/s", "events, the reading included")]


async def _api(client: HttpClient, kubeconfig: Path, seconds: float) -> list[Row]:
    tls_dir, folder = kubeconfig.parent / "data" / "server" / "tls", kubeconfig.parent
    pair = {end: str(tls_dir / f"client-admin.{end}") for end in ("crt", "key")}
    tls = {"ca": str(tls_dir / "server-ca.crt"), "certificate": pair["crt"], "key": pair["key"]}
    for number in range(LISTED):
        await client.create(PODS, _idle_pod(f"web-{number:05}"))
    connector = aiohttp.TCPConnector(limit=0, ssl=_context(tls))
    timeout = aiohttp.ClientTimeout(total=None)
    server = _server_of(kubeconfig)

    async def patch(number: int) -> None:
        body = {"metadata": {"annotations": {"n": str(number)}}}
        await client.patch(PODS, NAMESPACE, f"web-{number % LISTED:05}", body=body)

    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as http:
        rows, bare = await _reads(server, http, folder, seconds)
        patched = await Measure("PATCH", seconds).run(patch)
        created = await Measure("CREATE", seconds).run(
            lambda n: client.create(PODS, _idle_pod(f"new-{n}"))
        )
        rows += [*_times(created, bare), *_times(patched, bare)]
        rows += await _fan_out(client, server, http)
    return rows


async def _main(kubeconfig: Path, what: str, seconds: float) -> list[Row]:
    async with from_kubeconfig(kubeconfig, agent="bench") as client:
        return await (_pods(client) if what == "pods" else _api(client, kubeconfig, seconds))


def main() -> None:
    if sys.argv[1] == "bare":
        asyncio.run(_bare(*sys.argv[2:5]))
        return
    rows = asyncio.run(_main(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
    sys.stdout.write(json.dumps(rows) + "\n")


if __name__ == "__main__":
    main()
