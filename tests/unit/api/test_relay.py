"""Logs, exec and proxy through the server, with a kubelet that speaks real HTTP."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from controlplane.client.base import Object
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from tests.fakes.api_server import Served, listening


class Kubelet:
    """Answers logs, echoes streams and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.port = 0

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        if request.query.get("follow"):
            log = web.StreamResponse()
            await log.prepare(request)
            await log.write(b"line 1\n")
            await asyncio.Event().wait()
        if request.path.startswith("/containerLogs/"):
            return web.Response(text="line 1\nline 2\n")
        if request.path.startswith("/exec/"):
            socket = web.WebSocketResponse(protocols=("v5.channel.k8s.io",), compress=False)
            await socket.prepare(request)
            async for message in socket:
                await socket.send_bytes(message.data)
            return socket
        if request.path.startswith("/attach/"):
            return web.Response(status=404, text="no such container")
        if request.path.startswith("/page"):
            return web.Response(
                body=b'<a href="/next">next</a> <img src="http://else/x">',
                content_type="text/html",
            )
        return web.json_response(
            {"path": request.path_qs, "method": request.method, "body": await request.text()}
        )


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[Served, Kubelet]]:
    """A server that knows one node, one running pod and one service, all on one fake."""
    kubelet = Kubelet()
    runner = web.ServerRunner(web.Server(kubelet.handle, handler_cancellation=True))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    kubelet.port = runner.addresses[0][1]
    try:
        async with listening() as served:
            for resource, body in objects(kubelet.port):
                await served.client.create(resource, body)
            status = {"status": {"podIP": "127.0.0.1", "phase": "Running"}}
            await served.client.patch(PODS, "default", "p", body=status, subresource="status")
            yield served, kubelet
    finally:
        await runner.cleanup()


def objects(port: int) -> list[tuple[Resource, Object]]:
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}]
    endpoint = {"kubeletEndpoint": {"Port": port}}
    metadata = {"name": "p", "namespace": "default"}
    containers = [{"name": "c", "image": "i", "ports": [{"name": "web", "containerPort": port}]}]
    labels = {"kubernetes.io/service-name": "s"}
    node = {
        "metadata": {"name": "n1"},
        "status": {"addresses": addresses, "daemonEndpoints": endpoint},
    }
    service = {
        "metadata": {"name": "s", "namespace": "default"},
        "spec": {"ports": [{"name": "web", "port": 80}]},
    }
    return [
        (NODES, node),
        (PODS, {"metadata": metadata, "spec": {"nodeName": "n1", "containers": containers}}),
        (SERVICES, service),
        (
            ENDPOINT_SLICES,
            {
                "metadata": {"name": "s-1", "namespace": "default", "labels": labels},
                "addressType": "IPv4",
                "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
                "ports": [{"name": "web", "port": port}],
            },
        ),
    ]


POD = "/api/v1/namespaces/default/pods/p"


async def test_logs_come_from_the_node_with_the_options() -> None:
    async with (
        cluster() as (served, kubelet),
        aiohttp.ClientSession() as http,
        http.get(f"{served.url}{POD}/log?tailLines=2&container=c&bad=1") as answer,
    ):
        assert await answer.text() == "line 1\nline 2\n"
        assert answer.content_type == "text/plain"
        assert kubelet.asked == ["/containerLogs/default/p/c?tailLines=2"]


async def test_a_log_that_is_followed_ends_when_the_server_stops() -> None:
    async with (
        cluster() as (served, _),
        aiohttp.ClientSession() as http,
        http.get(f"{served.url}{POD}/log?follow=true") as answer,
    ):
        assert await answer.content.readline() == b"line 1\n"
        await served.api.stop()  # the listener, which would cut it off at last, still runs
        async with asyncio.timeout(10):
            with pytest.raises(aiohttp.ClientError):
                await answer.read()


async def test_exec_passes_frames_both_ways() -> None:
    async with cluster() as (served, kubelet), aiohttp.ClientSession() as http:
        url = f"{served.url}{POD}/exec?command=sh&command=-c&stdin=true&stdout=true"
        async with http.ws_connect(url, protocols=("v5.channel.k8s.io",)) as socket:
            assert socket.protocol == "v5.channel.k8s.io"
            for size in (1, 1000, 300_000):
                await socket.send_bytes(b"\0" + b"x" * size)
                async with asyncio.timeout(5):
                    message = await socket.receive()
                assert message.data == b"\0" + b"x" * size
        assert kubelet.asked == ["/exec/default/p/c?input=1&output=1&command=sh&command=-c"]


async def test_a_kubelets_refusal_becomes_a_status() -> None:
    async with cluster() as (served, _), aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await http.ws_connect(f"{served.url}{POD}/attach?stdout=true")
        assert error.value.status == 404


async def test_other_upgrades_pass_byte_by_byte() -> None:
    """SPDY, as kubectl falls back to: after the 101 the server only copies."""
    said = asyncio.Event()

    async def spdy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"POST /portForward/default/p HTTP/1.1\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\nhello")
        writer.write(await reader.readexactly(3))
        await writer.drain()
        said.set()
        writer.close()

    backend = await asyncio.start_server(spdy, "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    async with backend, cluster() as (served, _):
        endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}
        await served.client.patch(NODES, "", "n1", body=endpoint, subresource="status")
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(
            f"POST {POD}/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: portforward.k8s.io\r\n"
            "Content-Length: 0\r\n\r\n".encode()
        )
        async with asyncio.timeout(5):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 101")
            assert await reader.readexactly(5) == b"hello"
            writer.write(b"\x00\xff\n")
            assert await reader.readexactly(3) == b"\x00\xff\n"
            await said.wait()
            assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/namespaces/default/pods/p:web/proxy/a/b?c=d",
        "/api/v1/namespaces/default/services/s/proxy/a/b?c=d",
        "/api/v1/namespaces/default/services/http:s:web/proxy/a/b?c=d",
        "/api/v1/nodes/n1/proxy/a/b?c=d",
    ],
)
async def test_the_proxy_reaches_pods_services_and_nodes(path: str) -> None:
    async with (
        cluster() as (served, _),
        aiohttp.ClientSession() as http,
        http.post(served.url + path, data="body") as answer,
    ):
        assert await answer.json() == {"path": "/a/b?c=d", "method": "POST", "body": "body"}


async def test_links_in_pages_are_rewritten() -> None:
    prefix = "/api/v1/namespaces/default/pods/p:web/proxy"
    async with (
        cluster() as (served, _),
        aiohttp.ClientSession() as http,
        http.get(f"{served.url}{prefix}/page") as answer,
    ):
        text = await answer.text()
    assert text == f'<a href="{prefix}/next">next</a> <img src="http://else/x">'


async def test_a_proxy_path_without_a_slash_is_redirected() -> None:
    prefix = "/api/v1/namespaces/default/pods/p:web/proxy"
    async with (
        cluster() as (served, _),
        aiohttp.ClientSession() as http,
        http.get(served.url + prefix, allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers["Location"]) == (301, f"{prefix}/")


async def test_a_container_must_be_named_where_there_are_several() -> None:
    async with cluster() as (served, _), aiohttp.ClientSession() as http:
        containers = [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]
        body = {
            "metadata": {"name": "two", "namespace": "default"},
            "spec": {"containers": containers},
        }
        await served.client.create(PODS, body)
        async with http.get(f"{served.url}/api/v1/namespaces/default/pods/two/log") as answer:
            status = await answer.json()
    assert status["message"] == (
        "a container name must be specified for pod two, choose one of: [a b]"
    )


async def test_an_answer_that_breaks_off_is_not_taken_for_whole() -> None:
    async def breaking(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nline\r\n")
        await writer.drain()
        writer.close()

    backend = await asyncio.start_server(breaking, "127.0.0.1", 0)
    port = backend.sockets[0].getsockname()[1]
    async with backend, cluster() as (served, _), aiohttp.ClientSession() as http:
        endpoint = {"status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}}
        await served.client.patch(NODES, "", "n1", body=endpoint, subresource="status")
        with pytest.raises(aiohttp.ClientError):
            async with http.get(f"{served.url}{POD}/log") as answer:
                await answer.read()


async def test_a_namespace_may_be_called_proxy() -> None:
    async with cluster() as (served, kubelet), aiohttp.ClientSession() as http:
        spec = {"nodeName": "n1", "containers": [{"name": "c", "image": "i"}]}
        metadata = {"name": "proxy", "namespace": "proxy"}
        await served.client.create(PODS, {"metadata": metadata, "spec": spec})
        status = {"status": {"podIP": "127.0.0.1"}}
        await served.client.patch(PODS, "proxy", "proxy", body=status, subresource="status")
        path = f"/api/v1/namespaces/proxy/pods/proxy:{kubelet.port}/proxy/proxy/x"
        async with http.get(served.url + path) as answer:
            assert (await answer.json())["path"] == "/proxy/x"
