"""Logs, exec, attach and port-forward through the kubelet's own API, on a real containerd."""

import asyncio
import base64
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from node.kubelet import spdy
from node.kubelet.base import PODS
from node.kubelet.server import KubeletServer
from tests.host.kubelet.conftest import Node, pod, until

pytestmark = pytest.mark.root


@dataclass
class Kubectl:
    """What the API server does for kubectl: HTTP and WebSockets to the kubelet."""

    node: Node
    url: str
    session: aiohttp.ClientSession

    async def get(self, path: str, **query: str) -> tuple[int, str]:
        async with self.session.get(f"{self.url}{path}", params=query) as answer:
            return answer.status, await answer.text()

    async def logs(self, name: str, **query: str) -> str:
        status, text = await self.get(f"/containerLogs/default/{name}/c", **query)
        assert status == 200, text
        return text

    def socket(self, path: str, protocol: str, **query: Any) -> Any:
        params = [(k, v) for k, vs in query.items() for v in (vs if isinstance(vs, list) else [vs])]
        return self.session.ws_connect(f"{self.url}{path}", protocols=[protocol], params=params)


@pytest_asyncio.fixture
async def kubectl(node: Node) -> AsyncIterator[Kubectl]:
    assert node.kubelet is not None
    server = KubeletServer(node.kubelet, node.runtime, lambda: datetime.now(UTC), secure=False)
    port = await server.start("127.0.0.1", 0, None)
    async with aiohttp.ClientSession() as session:
        yield Kubectl(node, f"http://127.0.0.1:{port}", session)
    await server.stop()


async def collect(socket: Any) -> dict[int, bytes]:
    out: dict[int, bytes] = {}
    async with asyncio.timeout(15):
        async for message in socket:
            data = message.data
            if isinstance(data, str):
                out[int(data[0])] = out.get(int(data[0]), b"") + base64.b64decode(data[1:])
            else:
                out[data[0]] = out.get(data[0], b"") + data[1:]
    return out


async def test_exec_separates_the_outputs_and_tells_the_exit_code(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("ex"))
    await kubectl.node.ready("ex")
    command = ["sh", "-c", "echo out; echo err >&2; exit 7"]
    async with kubectl.socket(
        "/exec/default/ex/c", "v5.channel.k8s.io", command=command, output="1", error="1"
    ) as socket:
        got = await collect(socket)
    assert (got[1], got[2]) == (b"out\n", b"err\n")
    status = json.loads(got[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]


async def test_exec_hands_stdin_over_and_v5_can_end_it(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("in"))
    await kubectl.node.ready("in")
    data = os.urandom(300_000)
    async with kubectl.socket(
        "/exec/default/in/c", "v5.channel.k8s.io", command=["cat"], input="1", output="1"
    ) as socket:
        reader = asyncio.get_running_loop().create_task(collect(socket))
        for start in range(0, len(data), 32768):
            await socket.send_bytes(b"\0" + data[start : start + 32768])
        await socket.send_bytes(bytes([255, 0]))
        got = await reader
    assert got[1] == data
    assert json.loads(got[3])["status"] == "Success"


async def test_exec_speaks_the_old_base64_protocol(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("old"))
    await kubectl.node.ready("old")
    async with kubectl.socket(
        "/exec/default/old/c", "base64.channel.k8s.io", command=["echo", "hi"], output="1"
    ) as socket:
        got = await collect(socket)
    assert got[1] == b"hi\n"


async def test_a_terminal_has_a_size(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("tty"))
    await kubectl.node.ready("tty")
    command = ["sh", "-c", "read x; until stty size | grep '33 99'; do sleep 0.05; done"]
    async with kubectl.socket(
        "/exec/default/tty/c",
        "v4.channel.k8s.io",
        command=command,
        input="1",
        output="1",
        tty="1",
    ) as socket:
        # containerd drops a size that comes before the process has started.
        await socket.send_bytes(b"\0go\n")
        while b"go" not in await socket.receive_bytes():
            pass
        await socket.send_bytes(b"\4" + json.dumps({"Width": 99, "Height": 33}).encode())
        got = await collect(socket)
    assert b"33 99" in got[1], got


async def test_exec_in_what_is_not_there_is_not_found(kubectl: Kubectl) -> None:
    status, text = await kubectl.get("/exec/default/nobody/c", command="true")
    assert (status, text) == (404, 'pod "nobody" does not exist')


async def test_attach_sees_the_output_of_the_container(kubectl: Kubectl) -> None:
    command = "read line; echo got $line; sleep 30"
    container = {"stdin": True}
    kubectl.node.api.put(PODS, pod("att", command, container=container))
    await kubectl.node.ready("att")
    async with kubectl.socket(
        "/attach/default/att/c", "v5.channel.k8s.io", input="1", output="1", error="1"
    ) as socket:
        await socket.send_bytes(b"\0hello\n")
        async with asyncio.timeout(10):
            text = b""
            while b"got hello" not in text:
                text += (await socket.receive_bytes())[1:]


async def test_logs_can_be_cut_and_followed(kubectl: Kubectl) -> None:
    command = "for i in 1 2 3 4 5; do echo line$i; done; sleep 0.3; echo bad >&2; "
    command += "until [ -e /tmp/go ]; do sleep 0.05; done; echo last"
    kubectl.node.api.put(PODS, pod("lg", command, spec={"restartPolicy": "Never"}))
    await kubectl.node.ready("lg")
    await until_logged(kubectl, "lg", "bad")
    assert await kubectl.logs("lg", tailLines="2") == "line5\nbad\n"
    assert await kubectl.logs("lg", limitBytes="7") == "line1\nl"
    assert await kubectl.logs("lg", stream="Stderr") == "bad\n"
    stamped = await kubectl.logs("lg", tailLines="1", timestamps="true")
    assert stamped.endswith("Z bad\n")
    later = stamped.split(" ")[0]
    assert await kubectl.logs("lg", sinceTime=later) == "bad\n"
    follower = asyncio.get_running_loop().create_task(
        kubectl.logs("lg", follow="true", tailLines="1")
    )
    await kubectl.node.runtime.exec_sync(container_id(kubectl, "lg"), ["touch", "/tmp/go"], 5)
    assert await asyncio.wait_for(follower, 10) == "bad\nlast\n"


async def test_previous_shows_the_container_before(kubectl: Kubectl) -> None:
    command = "if [ -e /data/again ]; then echo second; sleep 30; fi; "
    command += "touch /data/again; echo first; exit 1"
    volumes = [{"name": "d", "emptyDir": {}}]
    mounts = {"volumeMounts": [{"name": "d", "mountPath": "/data"}]}
    kubectl.node.api.put(PODS, pod("pv", command, spec={"volumes": volumes}, container=mounts))
    await kubectl.node.api.until(
        lambda: kubectl.node.status("pv")["containerStatuses"][0]["restartCount"] == 1
    )
    await until_logged(kubectl, "pv", "second")
    assert await kubectl.logs("pv") == "second\n"
    assert await kubectl.logs("pv", previous="true") == "first\n"


async def test_spdy_clients_are_joined_to_the_runtime(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("sp"))
    await kubectl.node.ready("sp")
    url = f"{kubectl.url}/exec/default/sp/c?command=echo&command=hey&output=1"
    connection = await spdy.connect(url, "v4.channel.k8s.io")
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.pump())
        errors = await connection.open({"streamtype": "error"})
        output = await connection.open({"streamtype": "stdout"})
        async with asyncio.timeout(10):
            assert await output.read() == b"hey\n"
            assert b"Success" in await errors.read()
        connection.close()


async def test_a_port_is_forwarded_through_a_tunnel(kubectl: Kubectl) -> None:
    command = "echo pong > /tmp/index.html; httpd -f -p 8080 -h /tmp"
    kubectl.node.api.put(PODS, pod("pf", command))
    status = await kubectl.node.ready("pf")
    await listening(status["podIP"], 8080)
    url = f"{kubectl.url}/portForward/default/pf"
    connection = await spdy.connect(url, "portforward.k8s.io")
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.pump())
        about = {"port": "8080", "requestid": "0"}
        await connection.open({"streamtype": "error", **about})
        data = await connection.open({"streamtype": "data", **about})
        await data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
        text = b""
        async with asyncio.timeout(10):
            while b"pong" not in text:
                text += await data.read()
        connection.close()


class _Tunnel:
    """The write side of a WebSocket that carries SPDY."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._waiting = b""

    def write(self, data: bytes) -> None:
        self._waiting += data

    async def drain(self) -> None:
        data, self._waiting = self._waiting, b""
        await self._socket.send_bytes(data)


async def test_kubectl_forwards_a_port_inside_a_websocket(kubectl: Kubectl) -> None:
    command = "echo pong > /tmp/index.html; httpd -f -p 8080 -h /tmp"
    kubectl.node.api.put(PODS, pod("tn", command))
    status = await kubectl.node.ready("tn")
    await listening(status["podIP"], 8080)
    protocol = "SPDY/3.1+portforward.k8s.io"
    async with (
        kubectl.socket("/portForward/default/tn", protocol) as socket,
        asyncio.timeout(10),
        asyncio.TaskGroup() as group,
    ):
        reader = asyncio.StreamReader()
        connection = spdy.Connection(reader, _Tunnel(socket))  # type: ignore[arg-type]
        group.create_task(connection.pump())
        about = {"port": "8080", "requestid": "0"}
        await connection.open({"streamtype": "error", **about})
        data = await connection.open({"streamtype": "data", **about})
        await data.write(b"GET /index.html HTTP/1.0\r\n\r\n")
        text = b""
        while b"pong" not in text:
            reader.feed_data(await socket.receive_bytes())
            await asyncio.sleep(0)
            while not data.received.empty():
                text += await data.read()
        reader.feed_eof()


async def test_stats_and_pods_are_served(kubectl: Kubectl) -> None:
    kubectl.node.api.put(PODS, pod("st"))
    await kubectl.node.ready("st")
    _, summary = await kubectl.get("/stats/summary")
    _, metrics = await kubectl.get("/metrics/resource")
    _, pods = await kubectl.get("/pods")
    (shown,) = [p for p in json.loads(summary)["pods"] if p["podRef"]["name"] == "st"]
    assert shown["containers"][0]["memory"]["workingSetBytes"] > 0
    assert 'pod_memory_working_set_bytes{pod="st",namespace="default"}' in metrics
    assert json.loads(pods)["items"][0]["metadata"]["name"] == "st"
    assert await kubectl.get("/healthz") == (200, "ok")


def container_id(kubectl: Kubectl, name: str) -> str:
    status = kubectl.node.status(name)["containerStatuses"][0]
    return str(status["containerID"]).removeprefix("containerd://")


async def until_logged(kubectl: Kubectl, name: str, text: str) -> None:
    async def logged() -> bool:
        return text in await kubectl.logs(name)

    await until(logged)


async def listening(host: str, port: int) -> None:
    async def open_() -> bool:
        try:
            _, writer = await asyncio.open_connection(host, port)
        except OSError:
            return False
        writer.close()
        return True

    await until(open_)
