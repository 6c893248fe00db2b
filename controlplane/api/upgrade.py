"""
Upgraded connections, byte by byte: WebSocket and SPDY streams to kubelets and pods.

The client's handshake is sent on as it came, so that whatever client and kubelet
agree upon (v5.channel.k8s.io, SPDY/3.1, a tunnel of one in the other) passes
unchanged and nothing is framed twice. From the switch on both sides are pipes,
each stopped while the other is slow.
"""

import asyncio
import ssl
from collections.abc import Iterable, Mapping
from contextlib import suppress

from aiohttp import web

from controlplane.api.targets import Target
from controlplane.objects.errors import StatusError, internal, unavailable

_CHUNK = 64 * 1024
_MOST_WAITING = 1 << 20
_MOST_HEAD = 64 * 1024
_CONNECT_SECONDS = 30.0
_DROPPED = frozenset({"host", "authorization", "content-length", "x-forwarded-for"})


class Finished(web.StreamResponse):
    """What aiohttp is told where nothing is left to send: the connection is closed next."""

    def __init__(self, status: int) -> None:
        super().__init__(status=status)
        self.force_close()

    @property
    def prepared(self) -> bool:
        return True

    async def prepare(self, request: web.BaseRequest) -> None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


def wants_upgrade(request: web.BaseRequest) -> bool:
    connection = request.headers.get("Connection", "").lower()
    return "upgrade" in connection and "Upgrade" in request.headers


async def relay_upgrade(
    request: web.BaseRequest,
    target: Target,
    path: str,
    *,
    tls: ssl.SSLContext | None,
    headers: Mapping[str, str] | None = None,
) -> web.StreamResponse:
    """
    Send the request on to ``path`` of the target and, once it switches protocols, be a pipe.

    ``headers`` are added. A target that does not switch answers instead: its
    refusal becomes a StatusError.
    """
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            reader, writer = await asyncio.open_connection(
                target.host, target.port, ssl=tls if target.scheme == "https" else None
            )
    except (OSError, TimeoutError) as error:
        raise unavailable(f"error dialing backend: {str(error) or 'timed out'}") from error
    try:
        writer.write(_head(request, target, path, headers or {}))
        head = await _read_head(reader)
        if not head.split(b"\r\n", 1)[0].split(b" ")[1:2] == [b"101"]:
            raise await _refusal(head, reader)
        await _pipe(request, head, reader, writer)
    finally:
        writer.close()
    return Finished(101)


def _head(request: web.BaseRequest, target: Target, path: str, headers: Mapping[str, str]) -> bytes:
    lines = [f"{request.method} {path} HTTP/1.1", f"Host: {target.host}:{target.port}"]
    lines += [f"{k}: {v}" for k, v in _passed(request.headers.items())]
    lines += [f"{key}: {value}" for key, value in headers.items()]
    if request.method == "POST":
        lines.append("Content-Length: 0")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _passed(headers: Iterable[tuple[str, str]]) -> Iterable[tuple[str, str]]:
    """Without our credentials, and without what a client may not say of itself."""
    for key, value in headers:
        lower = key.lower()
        if lower in _DROPPED or lower.startswith(("impersonate-", "x-remote-")):
            continue
        # Browsers send their token as a subprotocol, which is ours alone.
        if lower == "sec-websocket-protocol" and "base64url.bearer" in value:
            kept = [p for p in value.split(",") if "base64url.bearer" not in p]
            yield key, ",".join(kept).strip()
        else:
            yield key, value


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, TimeoutError) as error:
        raise unavailable(f"the backend did not answer: {error}") from error
    if len(head) > _MOST_HEAD:
        raise internal("the backend's answer is too long")
    return head


async def _refusal(head: bytes, reader: asyncio.StreamReader) -> StatusError:
    """What the backend said instead of switching."""
    first, _, rest = head.partition(b"\r\n")
    code = int(first.split(b" ")[1])
    fields = dict(line.lower().split(b": ", 1) for line in rest.split(b"\r\n") if b": " in line)
    length = int(fields.get(b"content-length", b"0") or 0)
    body = await reader.read(min(length, _MOST_HEAD)) if length else b""
    text = body.decode(errors="replace").strip() or first.decode(errors="replace")
    reason = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}.get(code, "InternalError")
    if code < 400:
        code, text = 500, f"unable to upgrade connection: {text}"
    return StatusError(code, reason, text)


class _FromClient:
    """
    Takes what aiohttp receives once the connection is upgraded, in place of its parser.

    Its mutable state: what waits for the backend, and whether the client is stopped.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._waiting = bytearray()
        self._changed = asyncio.Event()
        self._ended = False
        self._stopped = False

    def feed_data(self, data: bytes, _size: int = 0) -> tuple[bool, bytes]:
        self._waiting += data
        self._changed.set()
        if len(self._waiting) > _MOST_WAITING and not self._stopped:
            self._stopped = True
            self._transport.pause_reading()
        return False, b""

    def feed_eof(self) -> None:
        self._ended = True
        self._changed.set()

    async def send_to(self, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            data, self._waiting = self._waiting, bytearray()
            if data:
                writer.write(data)
                with suppress(OSError):
                    await writer.drain()
            if self._stopped:
                self._stopped = False
                self._transport.resume_reading()
            if self._ended and not self._waiting:
                return


async def _pipe(
    request: web.BaseRequest,
    head: bytes,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Until either side ends."""
    transport = request.transport
    if transport is None:
        return
    incoming = _FromClient(transport)
    request.protocol.set_parser(incoming)  # type: ignore[arg-type]
    transport.write(head)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(incoming.send_to(writer))
        receiving = group.create_task(_to_client(request, reader))
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        sending.cancel()
        receiving.cancel()


async def _to_client(request: web.BaseRequest, reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            transport = request.transport
            if transport is None or transport.is_closing():
                return
            transport.write(data)
            await request.writer.drain()
