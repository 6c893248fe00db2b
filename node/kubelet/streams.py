"""
exec, attach and port-forward for those who come by WebSocket or with a raw upgrade.

A WebSocket client speaks one of the channel protocols (a byte for the channel, then data);
behind it we speak SPDY to the runtime, because only there can standard input end. Whoever
asks for SPDY itself, or for a tunnel, is joined to the runtime's own server byte by byte.
Source: KEP-4006 and the remote command protocols of the API.
"""

import asyncio
import base64
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from node.kubelet import spdy

STDIN, STDOUT, STDERR, ERROR, RESIZE = range(5)
_CLOSE = 255  # v5: the channel named in the next byte ends
CHANNEL_PROTOCOLS = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "v3.channel.k8s.io",
    "v2.channel.k8s.io",
    "channel.k8s.io",
    "base64.channel.k8s.io",
)
TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    stdin: bool
    stdout: bool
    stderr: bool
    tty: bool


class _Channels:
    """The WebSocket side: frames in the client's own dialect."""

    def __init__(self, socket: web.WebSocketResponse, protocol: str) -> None:
        self._socket = socket
        self._is_text = "base64" in protocol
        self.has_status = protocol.startswith(("v4", "v5"))
        self.has_close = protocol.startswith("v5")

    async def send(self, channel: int, data: bytes) -> None:
        with contextlib.suppress(ConnectionError, RuntimeError):
            if self._is_text:
                await self._socket.send_str(f"{channel}{base64.b64encode(data).decode()}")
            else:
                await self._socket.send_bytes(bytes([channel]) + data)

    def parse(self, data: bytes | str) -> tuple[int, bytes]:
        if self._is_text or isinstance(data, str):
            text = data if isinstance(data, str) else data.decode()
            return int(text[:1] or "0"), base64.b64decode(text[1:])
        return (data[0], data[1:]) if data else (STDIN, b"")


async def remote_command(request: web.Request, url: str, wanted: Wanted) -> web.StreamResponse:
    """Serve an exec or attach whose streaming URL is known."""
    if request.headers.get("Upgrade", "").lower() != "websocket":
        return await relay(request, url)
    socket = web.WebSocketResponse(protocols=CHANNEL_PROTOCOLS, heartbeat=None, max_msg_size=0)
    await socket.prepare(request)
    channels = _Channels(socket, socket.ws_protocol or "channel.k8s.io")
    # Tells the client that it is connected: an empty message, as kubelet sends it.
    await channels.send(STDOUT if wanted.stdout else ERROR, b"")
    try:
        connection = await spdy.connect(url, "v4.channel.k8s.io")
    except (OSError, spdy.SpdyError, asyncio.IncompleteReadError) as err:
        await channels.send(ERROR, _failure(str(err), channels))
        await socket.close()
        return socket
    try:
        await _serve(socket, channels, connection, wanted)
    finally:
        connection.close()  # also when the client has gone and this is cancelled
    await socket.close()
    return socket


async def _serve(
    socket: web.WebSocketResponse,
    channels: _Channels,
    connection: spdy.Connection,
    wanted: Wanted,
) -> None:
    async with asyncio.TaskGroup() as group:
        pump = group.create_task(connection.pump())
        streams = {ERROR: await connection.open({"streamtype": "error"})}
        names = {STDIN: "stdin", STDOUT: "stdout", STDERR: "stderr", RESIZE: "resize"}
        chosen = {
            STDIN: wanted.stdin,
            STDOUT: wanted.stdout,
            STDERR: wanted.stderr and not wanted.tty,
            RESIZE: wanted.tty,
        }
        for channel, name in names.items():
            if chosen[channel]:
                streams[channel] = await connection.open({"streamtype": name})
        outputs = [
            group.create_task(_output(channels, channel, streams[channel]))
            for channel in (STDOUT, STDERR)
            if channel in streams
        ]
        inputs = group.create_task(_input(socket, channels, streams))
        ended = group.create_task(_status(streams[ERROR]))
        # The client may leave first: then nobody waits for the end of the command.
        await asyncio.wait({ended, inputs}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            await asyncio.wait(outputs or {ended}, timeout=5)
            if status := ended.result():
                await channels.send(ERROR, _said(status, channels))
        for task in (pump, inputs, ended, *outputs):
            task.cancel()


async def _output(channels: _Channels, channel: int, stream: spdy.Stream) -> None:
    while piece := await stream.read():
        await channels.send(channel, piece)


async def _status(stream: spdy.Stream) -> bytes:
    whole = b""
    while piece := await stream.read():
        whole += piece
    return whole


async def _input(
    socket: web.WebSocketResponse, channels: _Channels, streams: Mapping[int, spdy.Stream]
) -> None:
    async for message in socket:
        if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
            continue
        channel, data = channels.parse(message.data)
        with contextlib.suppress(ConnectionError):
            if channel == _CLOSE and channels.has_close:
                if data and data[0] in streams:
                    await streams[data[0]].close()
            elif channel in (STDIN, RESIZE) and channel in streams and data:
                await streams[channel].write(data)


def _said(status: bytes, channels: _Channels) -> bytes:
    """v4 and v5 get the Status; the older ones only a text, and only for a failure."""
    if channels.has_status:
        return status
    try:
        parsed = json.loads(status)
    except ValueError:
        return status
    return b"" if parsed.get("status") == "Success" else str(parsed.get("message", "")).encode()


def _failure(message: str, channels: _Channels) -> bytes:
    if not channels.has_status:
        return message.encode()
    body = {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": message,
        "code": 500,
    }
    return json.dumps(body).encode()


# -- joined byte by byte


class _Incoming:
    """Takes over what the HTTP server would parse: the bytes after the upgrade."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = 0

    def feed_data(self, data: bytes, _size: int = 0) -> tuple[bool, bytes]:
        self._queue.put_nowait(bytes(data))
        self._waiting += len(data)
        if self._waiting > 16 * _CHUNK:
            self._transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._queue.put_nowait(b"")

    async def read(self) -> bytes:
        data = await self._queue.get()
        self._waiting -= len(data)
        if self._waiting < _CHUNK:
            with contextlib.suppress(RuntimeError):
                self._transport.resume_reading()
        return data


class Hijacked(web.StreamResponse):
    """A response that was written to the connection by hand."""

    async def prepare(self, _request: web.BaseRequest) -> Any:
        return None

    async def write_eof(self, _data: bytes = b"") -> None:
        return None


async def relay(request: web.Request, url: str) -> web.StreamResponse:
    """Join the client to the runtime's streaming server; both speak the same protocol."""
    transport = request.transport
    if transport is None:
        return web.Response(status=400)
    incoming = _Incoming(transport)
    request.protocol.set_parser(incoming)  # type: ignore[arg-type]
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    path = where.path + (f"?{where.query}" if where.query else "")
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {where.netloc}"]
    lines += [f"{k}: {v}" for k, v in request.headers.items() if k.lower() not in _NOT_RELAYED]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
    try:
        async with asyncio.TaskGroup() as group:
            back = group.create_task(_to_client(reader, request, transport))
            there = group.create_task(_to_runtime(incoming, writer))
            await asyncio.wait({back, there}, return_when=asyncio.FIRST_COMPLETED)
            if there.done() and not back.done():
                await asyncio.wait({back}, timeout=5)
            there.cancel()
            back.cancel()
    finally:
        writer.close()
        transport.close()
    response = Hijacked()
    response.force_close()
    return response


_NOT_RELAYED = frozenset({"host", "authorization", "content-length"})


async def _to_client(
    reader: asyncio.StreamReader, request: web.Request, transport: asyncio.Transport
) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(_CHUNK):
            transport.write(data)
            await request.protocol._drain_helper()


async def _to_runtime(incoming: _Incoming, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await incoming.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def tunnel(request: web.Request, url: str) -> web.StreamResponse:
    """Port-forward of kubectl: SPDY bytes inside binary WebSocket messages."""
    socket = web.WebSocketResponse(protocols=(TUNNEL,), max_msg_size=0)
    await socket.prepare(request)
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    head = [
        f"POST {where.path} HTTP/1.1",
        f"Host: {where.netloc}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        "X-Stream-Protocol-Version: portforward.k8s.io",
        "Content-Length: 0",
    ]
    writer.write(("\r\n".join(head) + "\r\n\r\n").encode())
    try:
        answer = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer.split(b"\r\n")[0]:
            await socket.close(code=1011, message=answer[:100])
            return socket
        async with asyncio.TaskGroup() as group:
            back = group.create_task(_to_socket(reader, socket))
            there = group.create_task(_from_socket(socket, writer))
            await asyncio.wait({back, there}, return_when=asyncio.FIRST_COMPLETED)
            back.cancel()
            there.cancel()
    finally:
        writer.close()
    await socket.close()
    return socket


async def _to_socket(reader: asyncio.StreamReader, socket: web.WebSocketResponse) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError):
        while data := await reader.read(_CHUNK):
            await socket.send_bytes(data)


async def _from_socket(socket: web.WebSocketResponse, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        async for message in socket:
            if message.type is WSMsgType.BINARY:
                writer.write(message.data)
                await writer.drain()
