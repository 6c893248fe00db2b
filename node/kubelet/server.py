"""
The kubelet's HTTPS API on port 10250: logs, exec, attach, port-forward, stats, metrics, pods.

The API server gets in, which has authorised the user before it asks, and whoever it says may
(:mod:`node.kubelet.authorize`).
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from controlplane.client.base import Object
from controlplane.objects import meta
from node.cri.base import Runtime, RuntimeFailure
from node.kubelet import exposition, logs, spec, stats, streams
from node.kubelet.authorize import Authorizer
from node.kubelet.base import Clock, Settings, all_containers
from node.kubelet.run import Kubelet
from node.kubelet.view import Seen
from node.kubelet.worker import Worker

_TRUE = frozenset({"1", "true", "t", "T", "True", "TRUE"})
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def tls_context(agent_dir: Path) -> ssl.SSLContext:
    """Blocks: reads the certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(agent_dir / "serving-kubelet.crt", agent_dir / "serving-kubelet.key")
    context.load_verify_locations(agent_dir / "client-ca.crt")
    context.verify_mode = ssl.CERT_OPTIONAL  # others come with a token
    return context


@web.middleware
async def _say_what_the_runtime_says(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RuntimeFailure as err:
        return web.Response(status=500, text=str(err))


class KubeletServer:
    """Serves one kubelet. ``secure`` False is for tests: no certificates are asked for."""

    def __init__(
        self,
        kubelet: Kubelet,
        runtime: Runtime,
        clock: Clock,
        *,
        authorizer: Authorizer | None = None,
        secure: bool = True,
    ) -> None:
        self._kubelet = kubelet
        self._runtime = runtime
        self._clock = clock
        self._authorizer = authorizer or Authorizer(None, "", time.monotonic)
        self._secure = secure
        self._runner: web.AppRunner | None = None
        self.on_start: Callable[[ssl.SSLContext], None] = lambda _context: None

    def app(self) -> web.Application:
        middlewares = [_say_what_the_runtime_says]
        if self._secure:
            middlewares.insert(0, self._only_who_may)
        app = web.Application(middlewares=middlewares)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/stats/summary", self._summary)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/metrics/resource", self._resources)
        app.router.add_get("/metrics/cadvisor", self._cadvisor)
        app.router.add_get("/metrics/probes", self._probes)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        for verb, handler in (("exec", self._exec), ("attach", self._attach)):
            for path in ("{namespace}/{pod}/{container}", "{namespace}/{pod}/{uid}/{container}"):
                app.router.add_route("*", f"/{verb}/{path}", handler)
        app.router.add_route("*", "/run/{namespace}/{pod}/{container}", self._run_command)
        for path in ("{namespace}/{pod}", "{namespace}/{pod}/{uid}"):
            app.router.add_route("*", f"/portForward/{path}", self._port_forward)
        return app

    @web.middleware
    async def _only_who_may(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        return await self._authorizer.refusal(request) or await handler(request)

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> int:
        """Listen; the port, for those who asked for any (0)."""
        self._runner = web.AppRunner(self.app(), access_log=None, handler_cancellation=True)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host or None, port, ssl_context=context)
        await site.start()
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def run(self, stop: asyncio.Event, agent_dir: Path, host: str, port: int) -> None:
        """Serve until ``stop``."""
        context = await asyncio.to_thread(tls_context, agent_dir)
        await self.start(host, port, context)
        self.on_start(context)
        try:
            await stop.wait()
        finally:
            await self.stop()

    # -- what is asked

    async def _healthz(self, _request: web.Request) -> web.Response:
        if error := self._kubelet.runtime_error:
            return web.Response(status=500, text=error)
        return web.Response(text="ok")

    async def _pods(self, _request: web.Request) -> web.Response:
        items = [
            {**worker.pod, "status": worker.status} for worker in self._kubelet.workers.values()
        ]
        body = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    async def _summary(self, request: web.Request) -> web.Response:
        brief = request.query.get("only_cpu_and_memory") in _TRUE
        body = await stats.summary(self._kubelet, self._runtime, self._clock(), brief=brief)
        return web.Response(body=orjson.dumps(body), content_type="application/json")

    # What only Prometheus asks for is loaded when it does: most nodes never need it.

    async def _metrics(self, _request: web.Request) -> web.Response:
        from node.kubelet import metrics

        return _page(await metrics.own(self._kubelet))

    async def _resources(self, _request: web.Request) -> web.Response:
        from node.kubelet import metrics

        return _page(await metrics.resources(self._kubelet, self._runtime, self._clock()))

    async def _cadvisor(self, _request: web.Request) -> web.Response:
        from node.kubelet import cadvisor

        return _page(await cadvisor.metrics(self._kubelet, self._runtime, self._clock()))

    async def _probes(self, _request: web.Request) -> web.Response:
        from node.kubelet import metrics

        return _page(metrics.probes(self._kubelet))

    def _worker(self, request: web.Request) -> Worker:
        info = request.match_info
        worker = self._kubelet.worker_of(info["namespace"], info["pod"])
        if worker is None or info.get("uid", worker.uid) != worker.uid:
            raise web.HTTPNotFound(text=f'pod "{info["pod"]}" does not exist')
        return worker

    def _container(self, request: web.Request) -> tuple[Worker, Seen]:
        """The running container that is named; 404 otherwise."""
        worker, name = self._worker(request), request.match_info["container"]
        seen = worker.view.latest(name)
        if seen is None or not seen.running:
            raise web.HTTPNotFound(
                text=f'unable to upgrade connection: container not found ("{name}")'
            )
        return worker, seen

    async def _exec(self, request: web.Request) -> web.StreamResponse:
        _, seen = self._container(request)
        wanted = _wanted(request)
        url = await self._runtime.exec_url(
            seen.status.id,
            request.query.getall("command", []),
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr and not wanted.tty,
            tty=wanted.tty,
        )
        return await streams.remote_command(request, url, wanted)

    async def _attach(self, request: web.Request) -> web.StreamResponse:
        worker, seen = self._container(request)
        wanted = _wanted(request)
        container = _spec_of(worker.pod, seen.status.name)
        tty = bool(container.get("tty"))
        wanted = streams.Wanted(
            stdin=wanted.stdin, stdout=wanted.stdout, stderr=wanted.stderr, tty=tty
        )
        url = await self._runtime.attach_url(
            seen.status.id,
            stdin=wanted.stdin,
            stdout=wanted.stdout,
            stderr=wanted.stderr and not tty,
            tty=tty,
        )
        return await streams.remote_command(request, url, wanted)

    async def _run_command(self, request: web.Request) -> web.Response:
        _, seen = self._container(request)
        command = request.query.getall("cmd", [])
        done = await self._runtime.exec_sync(seen.status.id, command, 0)
        return web.Response(body=done.stdout + done.stderr)

    async def _port_forward(self, request: web.Request) -> web.StreamResponse:
        worker = self._worker(request)
        sandbox = worker.view.sandbox
        if sandbox is None:
            raise web.HTTPNotFound(text="the pod has no sandbox")
        ports = [int(p) for p in request.query.getall("port", request.query.getall("ports", []))]
        url = await self._runtime.port_forward_url(sandbox.id, ports)
        offered = request.headers.get("Sec-WebSocket-Protocol", "")
        if streams.TUNNEL in [p.strip() for p in offered.split(",")]:
            return await streams.tunnel(request, url)
        return await streams.relay(request, url)

    # -- logs

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        worker, name = self._worker(request), request.match_info["container"]
        if not any(c["name"] == name for c in all_containers(worker.pod)):
            text = f'container "{name}" not found in pod "{request.match_info["pod"]}"'
            raise web.HTTPNotFound(text=text)
        try:
            wanted = self._log_options(request.query)
        except ValueError as err:
            raise web.HTTPUnprocessableEntity(text=str(err)) from err
        seen = self._logged(worker, name, request)
        path = Path(seen.status.log_path) if seen.status.log_path else self._path(worker, seen)
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        id_ = seen.status.id

        def running() -> bool:
            now = next((c for c in worker.view.containers if c.status.id == id_), None)
            return now is not None and now.running

        async for piece in logs.read(path, wanted, running):
            await response.write(piece)
        await response.write_eof()
        return response

    def _path(self, worker: Worker, seen: Seen) -> Path:
        settings: Settings = self._kubelet.settings
        return spec.log_path(worker.pod, settings, seen.status.name, seen.status.attempt)

    def _logged(self, worker: Worker, name: str, request: web.Request) -> Seen:
        pod = request.match_info["pod"]
        if request.query.get("previous") in _TRUE:
            seen = worker.view.previous(name)
            latest = worker.view.latest(name)
            if seen is None and latest is not None and latest.exited:
                seen = latest if latest.status.attempt else None
            if seen is None:
                text = f'previous terminated container "{name}" in pod "{pod}" not found'
                raise web.HTTPBadRequest(text=text)
            return seen
        seen = worker.view.latest(name)
        if seen is None:
            reason = _waiting_reason(worker.status, name)
            text = f'container "{name}" in pod "{pod}" is waiting to start: {reason}'
            raise web.HTTPBadRequest(text=text)
        return seen

    def _log_options(self, query: Mapping[str, str]) -> logs.Wanted:
        since = None
        if "sinceSeconds" in query:
            since = self._clock() - timedelta(seconds=int(query["sinceSeconds"]))
        elif "sinceTime" in query:
            since = meta.parse_time(query["sinceTime"])
        return logs.Wanted(
            follow=query.get("follow") in _TRUE,
            tail=int(query["tailLines"]) if "tailLines" in query else None,
            since=since,
            timestamps=query.get("timestamps") in _TRUE,
            limit=int(query["limitBytes"]) if "limitBytes" in query else None,
            stream=query.get("stream", "All"),
        )


def _page(text: str) -> web.Response:
    return web.Response(body=text.encode(), headers={"Content-Type": exposition.CONTENT_TYPE})


def _wanted(request: web.Request) -> streams.Wanted:
    """kubelet's own parameter names, or those of the API's pods/exec."""

    def said(*names: str) -> bool:
        return any(request.query.get(name) in _TRUE for name in names)

    return streams.Wanted(
        stdin=said("input", "stdin"),
        stdout=said("output", "stdout"),
        stderr=said("error", "stderr"),
        tty=said("tty"),
    )


def _spec_of(pod: Object, name: str) -> Mapping[str, Any]:
    return next((c for c in all_containers(pod) if c["name"] == name), {})


def _waiting_reason(status: Mapping[str, Any], name: str) -> str:
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for item in status.get(kind, ()):
            if item["name"] == name:
                waiting = item["state"].get("waiting") or {}
                return str(waiting.get("reason", "ContainerCreating"))
    return "ContainerCreating"
