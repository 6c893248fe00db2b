"""
What a kubelet and a Prometheus ask: /healthz, /readyz and /metrics. Nothing of users' objects.

Alive is who can answer and, where it holds the Lease, still renews it. Ready is also who
waits for the Lease: it would act at once.
"""

import logging
import resource
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from operators import queue

LOG = logging.getLogger(__name__)
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PAGE = resource.getpagesize()
STOPPING_SECONDS = 30.0  # longer than anything takes to stop

Labels = Mapping[str, str]
Sample = tuple[str, str, Labels, float]  # name, type, labels, value


@dataclass(slots=True, kw_only=True)
class Vitals:
    """How this process is, as its parts say."""

    leader: Callable[[], bool] = lambda: True  # acts, or would
    lost_at: float | None = None  # when it should have stopped acting; None: it did
    ready: bool = False
    restarts: Mapping[str, int] = field(default_factory=dict)
    elsewhere: Mapping[str, str] = field(default_factory=dict)  # operator → who runs it instead

    @property
    def alive(self) -> bool:
        return self.lost_at is None or time.monotonic() - self.lost_at < STOPPING_SECONDS


async def serve(vitals: Vitals, address: tuple[str, int]) -> web.AppRunner:
    """The caller cleans up what is returned. Raises OSError."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/healthz", lambda _: _answer(ok=vitals.alive)),
            web.get("/livez", lambda _: _answer(ok=vitals.alive)),
            web.get("/readyz", lambda _: _answer(ok=vitals.ready)),
            web.get("/metrics", lambda _: _metrics(vitals)),
        ]
    )
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, *address).start()
    return runner


async def _answer(*, ok: bool) -> web.Response:
    return web.Response(text="ok" if ok else "not ok", status=200 if ok else 503)


async def _metrics(vitals: Vitals) -> web.Response:
    text = exposition([*_process(), *_operators(vitals)])
    return web.Response(body=text.encode(), headers={"Content-Type": METRICS_TYPE})


def exposition(samples: Iterable[Sample]) -> str:
    """Prometheus' text format, version 0.0.4."""
    lines: list[str] = []
    told: set[str] = set()
    for name, kind, labels, value in samples:
        if name not in told:
            told.add(name)
            lines.append(f"# TYPE {name} {kind}")
        inner = ",".join(f'{key}="{text}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value:g}" if inner else f"{name} {value:g}")
    return "\n".join(lines) + "\n"


def _operators(vitals: Vitals) -> Iterable[Sample]:
    yield "pinnace_operators_leader", "gauge", {}, float(vitals.leader())
    for name, restarts in vitals.restarts.items():
        yield "pinnace_operators_restarts_total", "counter", {"operator": name}, restarts
    queues = sorted(queue.alive(), key=lambda found: found.name)
    for metric, kind, field_ in (
        ("pinnace_queue_looks_total", "counter", "looks"),
        ("pinnace_queue_failures_total", "counter", "failures"),
        ("pinnace_queue_waiting", "gauge", "depth"),
    ):
        for found in queues:
            yield metric, kind, {"queue": found.name}, getattr(found, field_)


def _process() -> Iterable[Sample]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield "process_cpu_seconds_total", "counter", {}, usage.ru_utime + usage.ru_stime
    with suppress(OSError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield "process_resident_memory_bytes", "gauge", {}, pages * PAGE
    yield "process_uptime_seconds", "gauge", {}, time.monotonic() - _STARTED


_STARTED = time.monotonic()
