"""What probes and hooks find out about a container."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from grpclib.server import Server

from node.cri.base import ExecResult
from node.cri.generated import health_pb2
from node.kubelet.actions import Target, perform, port_of


class Shell:
    """A runtime of which only exec is asked."""

    def __init__(self, result: ExecResult | Exception) -> None:
        self._result = result

    async def exec_sync(self, container_id: str, command: list[str], limit: float) -> ExecResult:
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


def target(runtime: Any = None, limit: float = 5) -> Target:
    spec = {"ports": [{"name": "web", "containerPort": 8080}]}
    return Target(runtime=runtime, container_id="x", container=spec, ip="127.0.0.1", limit=limit)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (ExecResult(stdout=b"fine", stderr=b"", exit_code=0), ""),
        (ExecResult(stdout=b"", stderr=b"bad", exit_code=1), "bad"),
        (ExecResult(stdout=b"", stderr=b"", exit_code=9), "command failed with exit code 9"),
        (TimeoutError(), 'command timed out: "a b" timed out after 5s'),
    ],
)
async def test_a_command_succeeds_with_exit_code_zero(
    result: ExecResult | Exception, text: str
) -> None:
    assert await perform({"exec": {"command": ["a", "b"]}}, target(Shell(result))) == text


@pytest.mark.parametrize(("port", "number"), [(80, 80), ("web", 8080), ("81", 81), ("no", 0)])
def test_ports_have_names(port: int | str, number: int) -> None:
    assert port_of(port, {"ports": [{"name": "web", "containerPort": 8080}]}) == number


Handler = Callable[[web.Request], Any]


@pytest_asyncio.fixture
async def site() -> AsyncIterator[int]:
    async def serve(request: web.Request) -> web.Response:
        match request.path:
            case "/ok":
                return web.Response(text=request.headers.get("X-Test", ""))
            case "/moved":
                return web.Response(status=302, headers={"Location": "/ok"})
            case "/away":
                return web.Response(status=302, headers={"Location": "http://example.invalid/"})
            case "/loop":
                return web.Response(status=302, headers={"Location": "/loop"})
            case "/slow":
                await asyncio.sleep(30)
            case _:
                pass
        return web.Response(status=500)

    app = web.Application()
    app.router.add_get("/{path:.*}", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    server = web.TCPSite(runner, "127.0.0.1", 0)
    await server.start()
    yield int(runner.addresses[0][1])
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/ok", ""),
        ("ok", ""),
        ("/moved", ""),
        ("/away", ""),
        ("/loop", "stopped after 10 redirects"),
        ("/broken", "HTTP probe failed with statuscode: 500"),
        ("/slow", "context deadline exceeded"),
    ],
)
async def test_http_probes_follow_the_rules(site: int, path: str, text: str) -> None:
    found = await perform({"httpGet": {"path": path, "port": site}}, target(limit=0.5))
    assert (text in found) if text else (found == "")


async def test_a_closed_port_is_a_failure(unused_tcp_port: int) -> None:
    assert "connect" in await perform({"tcpSocket": {"port": unused_tcp_port}}, target())


async def test_an_open_port_is_a_success(site: int) -> None:
    assert await perform({"tcpSocket": {"port": site}}, target()) == ""


class Health:
    """The health service with the status that it is given."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __mapping__(self) -> dict[str, Any]:
        import grpclib.const

        handler = grpclib.const.Handler(
            self._check,
            grpclib.const.Cardinality.UNARY_UNARY,
            health_pb2.HealthCheckRequest,
            health_pb2.HealthCheckResponse,
        )
        return {"/grpc.health.v1.Health/Check": handler}

    async def _check(self, stream: Any) -> None:
        request = await stream.recv_message()
        wanted = self._status if request.service in ("", "db") else 3
        await stream.send_message(health_pb2.HealthCheckResponse(status=wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "service", "text"),
    [
        (1, "db", ""),
        (2, "", 'service unhealthy (responded with "NOT_SERVING")'),
        (1, "other", 'service unhealthy (responded with "SERVICE_UNKNOWN")'),
    ],
)
async def test_grpc_probes_speak_the_health_protocol(
    status: int, service: str, text: str, unused_tcp_port: int
) -> None:
    server = Server([Health(status)])
    await server.start("127.0.0.1", unused_tcp_port)
    action = {"grpc": {"port": unused_tcp_port, "service": service}}
    assert await perform(action, target()) == text
    server.close()
    await server.wait_closed()
