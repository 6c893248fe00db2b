"""
A small SPDY/3.1 client: what containerd's streaming server speaks for exec and attach.

Only what those need: streams that we open, data both ways, half close, ping. There is no
flow control on either side (the server's library has none), so TCP's own is used.
Source: the SPDY/3.1 draft; the dictionary is its appendix.
"""

import asyncio
import struct
import zlib
from collections.abc import Mapping
from urllib.parse import urlsplit

SYN_STREAM, SYN_REPLY, RST_STREAM, PING, HEADERS = 1, 2, 3, 6, 8
FIN = 0x01
_VERSION = 3
_MAX_FRAME = 1 << 20
_BUFFERED = 64  # pieces that wait for a slow reader before we stop reading from the wire

_WORDS = (
    "options head post put delete trace accept accept-charset accept-encoding accept-language "
    "accept-ranges age allow authorization cache-control connection content-base "
    "content-encoding content-language content-length content-location content-md5 "
    "content-range content-type date etag expect expires from host if-match if-modified-since "
    "if-none-match if-range if-unmodified-since last-modified location max-forwards pragma "
    "proxy-authenticate proxy-authorization range referer retry-after server te trailer "
    "transfer-encoding upgrade user-agent vary via warning www-authenticate method get status"
)
_TEXT = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
    "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
    "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, "
    "Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,"
    "application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,"
    "sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def dictionary() -> bytes:
    words = [*_WORDS.split(), "200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie"]
    words += ["keep-alive", "origin"]
    return b"".join(_field(word.encode()) for word in words) + _TEXT.encode()


def _field(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


class SpdyError(Exception):
    """The server refused the upgrade, or broke the protocol."""


class Stream:
    """One that we opened. Reading ends at the server's FIN, a reset, or the connection's end."""

    def __init__(self, owner: "Connection", number: int) -> None:
        self._owner = owner
        self.number = number
        self.received: asyncio.Queue[bytes | None] = asyncio.Queue(_BUFFERED)
        self.replied = asyncio.Event()

    async def read(self) -> bytes:
        """The next piece; b"" at the end."""
        piece = await self.received.get()
        if piece is None:
            self.received.put_nowait(None)
            return b""
        return piece

    async def write(self, data: bytes) -> None:
        await self._owner.send_data(self.number, data)

    async def close(self) -> None:
        """Half close: the other side sees the end of input, and may still send."""
        await self._owner.send_data(self.number, b"", fin=True)


class Connection:
    """
    One upgraded connection. Its mutable state: the streams by number, both compressors.

    ``pump`` has to run in a task of the owner's for anything to be received.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._streams: dict[int, Stream] = {}
        self._next = 1
        known = dictionary()
        self._pack = zlib.compressobj(zdict=known)
        self._unpack = zlib.decompressobj(zdict=known)

    async def open(self, headers: Mapping[str, str]) -> Stream:
        number, self._next = self._next, self._next + 2
        stream = self._streams[number] = Stream(self, number)
        head = struct.pack(">IIBB", number, 0, 0, 0)
        self._control(SYN_STREAM, 0, head + self._block(headers))
        await self._writer.drain()
        return stream

    def _block(self, headers: Mapping[str, str]) -> bytes:
        pairs = [_field(k.lower().encode()) + _field(v.encode()) for k, v in headers.items()]
        raw = struct.pack(">I", len(pairs)) + b"".join(pairs)
        return self._pack.compress(raw) + self._pack.flush(zlib.Z_SYNC_FLUSH)

    def _control(self, kind: int, flags: int, body: bytes) -> None:
        head = struct.pack(">HHI", 0x8000 | _VERSION, kind, flags << 24 | len(body))
        self._writer.write(head + body)

    async def send_data(self, number: int, data: bytes, *, fin: bool = False) -> None:
        """Raise ConnectionError when the other side is gone."""
        for start in range(0, max(len(data), 1), _MAX_FRAME):
            piece = data[start : start + _MAX_FRAME]
            flags = FIN if fin and start + _MAX_FRAME >= len(data) else 0
            self._writer.write(struct.pack(">II", number, flags << 24 | len(piece)) + piece)
        await self._writer.drain()

    async def pump(self) -> None:
        """Receive until the connection ends; then every stream is at its end."""
        try:
            while True:
                first, second = struct.unpack(">II", await self._reader.readexactly(8))
                flags, length = second >> 24, second & 0xFFFFFF
                body = await self._reader.readexactly(length)
                if first & 0x80000000:
                    self._received(first & 0xFFFF, flags, body)
                else:
                    await self._data(first, flags, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            for stream in self._streams.values():
                _end(stream)

    async def _data(self, number: int, flags: int, body: bytes) -> None:
        stream = self._streams.get(number)
        if stream is None:
            return
        if body:
            await stream.received.put(body)
        if flags & FIN:
            await stream.received.put(None)

    def _received(self, kind: int, flags: int, body: bytes) -> None:
        """SETTINGS, GOAWAY, WINDOW_UPDATE mean nothing here: no flow control, the end is EOF."""
        number = struct.unpack(">I", body[:4])[0] if len(body) >= 4 else 0
        stream = self._streams.get(number)
        if kind in (SYN_REPLY, HEADERS):
            self._unpack.decompress(body[4:])  # keeps the context in step
            if stream is not None:
                stream.replied.set()
                if flags & FIN:
                    _end(stream)
        elif kind == RST_STREAM and stream is not None:
            _end(stream)
        elif kind == PING and number % 2 == 0:
            self._control(PING, 0, body)

    def close(self) -> None:
        self._writer.close()


def _end(stream: Stream) -> None:
    stream.replied.set()
    try:
        stream.received.put_nowait(None)
    except asyncio.QueueFull:
        # The reader is slow: it gets what waits, and then the end.
        stream.received._queue.append(None)  # type: ignore[attr-defined]


async def connect(url: str, protocol: str) -> Connection:
    """
    Upgrade the connection behind a CRI streaming URL; raise :class:`SpdyError`.

    ``protocol``: v4.channel.k8s.io, portforward.k8s.io.
    """
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port or 80)
    path = where.path + (f"?{where.query}" if where.query else "")
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {where.netloc}",
        "Connection: Upgrade",
        "Upgrade: SPDY/3.1",
        f"X-Stream-Protocol-Version: {protocol}",
        "Content-Length: 0",
        "",
        "",
    ]
    try:
        writer.write("\r\n".join(lines).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[0]
        if " 101 " not in f"{head} ":
            rest = (await reader.read(4096)).decode(errors="replace")
            raise SpdyError(rest.strip() or head)
    except BaseException:
        writer.close()
        raise
    return Connection(reader, writer)
