"""
How fast the API server answers, beside a bare aiohttp server in the same process and run.

Client and server share one event loop and one core, so the numbers are lower
bounds; the baseline has the same handicap. ``python -m tests.bench.bench_api``
"""

import asyncio
import gc
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from controlplane.api.encoding import encode
from controlplane.client.http import HttpClient
from controlplane.objects.resources import PODS
from tests.fakes.api_server import Served, listening

Row = tuple[str, float, str, str]
_CLIENTS = 8
_LAYERS = [{"name": f"E{n}", "value": f"value-{n}"} for n in range(12)]


def pod(name: str) -> dict[str, Any]:
    """About as long as a real one is once defaults and managed fields are in."""
    probe = {"httpGet": {"path": "/health", "port": 8080}, "periodSeconds": 10}
    container = {
        "name": "main",
        "image": "registry.example.com/team/application:1.2.3",
        "env": _LAYERS,
        "ports": [{"containerPort": 8080}],
        "readinessProbe": probe,
        "livenessProbe": probe,
        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
    }
    labels = {"app": name.rsplit("-", 1)[0], "tier": "bench", "version": "1"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {"containers": [container]},
    }


class Measure:
    """Repeats a call from several clients at once; rate and the 99th percentile."""

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds

    async def run(self, call: Callable[[int], Awaitable[object]]) -> list[Row]:
        times: list[float] = []
        end = time.perf_counter() + self._seconds
        numbers = iter(range(10_000_000))

        async def one() -> None:
            while (began := time.perf_counter()) < end:
                await call(next(numbers))
                times.append(time.perf_counter() - began)

        began = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(_CLIENTS)))
        took = time.perf_counter() - began
        times.sort()
        return [
            (f"{self._name} rate", len(times) / took, "1/s", f"{_CLIENTS} clients"),
            (f"{self._name} p99", times[int(len(times) * 0.99)] * 1000, "ms", ""),
        ]


async def _get(http: aiohttp.ClientSession, url: str) -> None:
    async with http.get(url) as answer:
        assert answer.status == 200
        await answer.read()


async def _bare(body: bytes, seconds: float, name: str) -> list[Row]:
    """The same number of bytes from a server that does nothing else."""

    async def handle(_request: web.BaseRequest) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": "application/json"})

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        async with aiohttp.ClientSession() as http:
            return await Measure(name, seconds).run(lambda _: _get(http, url))
    finally:
        await runner.cleanup()


async def _fill(served: Served, count: int) -> list[Row]:
    """Memory by the growth of the process; the store keeps a copy of its own, as SQLite's cache."""
    gc.collect()
    before = _resident()
    for number in range(count):
        await served.client.create(PODS, pod(f"web-{number:05}"))
    gc.collect()
    kilobytes = (_resident() - before) / 1024
    size = served.parts.cache.statistics()["bytes"] / served.parts.cache.statistics()["objects"]
    return [
        ("pod as bytes", size, "B", ""),
        (
            "1,000 pods, everything",
            kilobytes / count * 1000 / 1024,
            "MiB",
            "with history and store",
        ),
        ("1,000 pods in the cache", _cache_only(served, count), "MiB", ""),
    ]


def _cache_only(served: Served, count: int) -> float:
    from controlplane.api.entry import Entry

    values = [(e.key, encode(orjson.loads(e.data))) for e in served.parts.cache.span("/core/pods/")]
    gc.collect()
    before = _resident()
    from controlplane.api.encoding import splice

    kept = [Entry(key, splice(v, 1), revision=1, created=1) for key, v in values]
    gc.collect()
    grown = _resident() - before
    assert len(kept) == len(values)
    return grown / 2**20 / count * 1000


def _resident() -> int:
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a pseudo file
        return int(statm.read().split()[1]) * 4096


async def _fan_out(served: Served, watchers: int, changes: int) -> list[Row]:
    """Every change of one object to every watcher; until the last has the last."""
    seen = 0
    done = asyncio.Event()

    async def watch(after: str) -> None:
        nonlocal seen
        async with HttpClient(served.url) as client:
            count = 0
            async for event in client.watch(PODS, after=after):
                if event.type != "BOOKMARK":
                    count += 1
                    seen += 1
                if count == changes:
                    break
            if seen == watchers * changes:
                done.set()

    after = (await served.client.list(PODS)).resource_version
    tasks = [asyncio.ensure_future(watch(after)) for _ in range(watchers)]
    while served.parts.cache.statistics()["watches"] < watchers:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)
    began = time.perf_counter()
    for number in range(changes):
        body = {"metadata": {"annotations": {"n": str(number)}}}
        await served.client.patch(PODS, "default", "web-00000", body=body)
    await done.wait()
    took = time.perf_counter() - began
    await asyncio.gather(*tasks)
    return [(f"watch fan-out to {watchers}", watchers * changes / took, "events/s", "")]


async def _measure(seconds: float, pods: int) -> list[Row]:
    rows: list[Row] = []
    async with listening() as served, aiohttp.ClientSession() as http:
        rows += await _fill(served, pods)
        path = f"{served.url}/api/v1/namespaces/default/pods"
        async with http.get(f"{path}/web-00000") as answer:
            one = await answer.read()
        async with http.get(path) as answer:
            many = await answer.read()
        rows += await _bare(one, seconds, "bare aiohttp, one pod")
        rows += await Measure("GET", seconds).run(lambda _: _get(http, f"{path}/web-00000"))
        rows += await _bare(many, seconds, f"bare aiohttp, {pods} pods")
        rows += await Measure(f"LIST {pods}", seconds).run(lambda _: _get(http, path))
        selected = f"{path}?labelSelector=app%3Dweb&limit=500"
        rows += await Measure("LIST 500 selected", seconds).run(lambda _: _get(http, selected))
        async with HttpClient(served.url) as client:
            rows += await Measure("CREATE", seconds).run(
                lambda n: client.create(PODS, pod(f"new-{n}"))
            )
            rows += await Measure("PATCH", seconds).run(
                lambda n: client.patch(
                    PODS,
                    "default",
                    f"web-{n % pods:05}",
                    body={"status": {"message": str(n)}},
                    subresource="status",
                )
            )
        rows += await _fan_out(served, 100, 50)
    return rows


def run(seconds: float = 1.0, pods: int = 1000) -> list[Row]:
    """Name, value, unit and note of each thing measured."""
    return asyncio.run(_measure(seconds, pods))


if __name__ == "__main__":
    for name, value, unit, note in run():
        sys.stdout.write(f"{name:40} {value:12,.1f} {unit:9} {note}\n")
