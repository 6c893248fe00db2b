"""The framer, against the published constants and a peer written for the test."""

import asyncio
import struct
import zlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from node.kubelet import spdy


def test_the_dictionary_is_that_of_the_draft() -> None:
    known = spdy.dictionary()
    assert (len(known), zlib.adler32(known)) == (1423, 0xE3C6A7C2)


class Peer:
    """Reads frames as a server does and answers what a test says."""

    def __init__(self) -> None:
        self.frames: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
        self.writer: asyncio.StreamWriter | None = None
        self._unpack = zlib.decompressobj(zdict=spdy.dictionary())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/refuse" in head:
            writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope")
            writer.close()
            return
        assert b"Upgrade: SPDY/3.1" in head
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: SPDY/3.1\r\n\r\n")
        self.writer = writer
        try:
            while True:
                first, second = struct.unpack(">II", await reader.readexactly(8))
                body = await reader.readexactly(second & 0xFFFFFF)
                await self.frames.put((first, second >> 24, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def headers(self, body: bytes) -> dict[str, str]:
        raw = self._unpack.decompress(body[10:])
        (count,) = struct.unpack(">I", raw[:4])
        fields, offset = [], 4
        for _ in range(2 * count):
            (length,) = struct.unpack(">I", raw[offset : offset + 4])
            fields.append(raw[offset + 4 : offset + 4 + length].decode())
            offset += 4 + length
        return dict(zip(fields[::2], fields[1::2], strict=True))

    def send(self, first: int, flags: int, body: bytes) -> None:
        assert self.writer is not None
        self.writer.write(struct.pack(">II", first, flags << 24 | len(body)) + body)


@pytest_asyncio.fixture
async def peer() -> AsyncIterator[tuple[Peer, str]]:
    made = Peer()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield made, f"http://127.0.0.1:{port}/exec/token"
    server.close()


async def test_streams_are_opened_with_compressed_headers(peer: tuple[Peer, str]) -> None:
    server, url = peer
    connection = await spdy.connect(url, "v4.channel.k8s.io")
    await connection.open({"streamType": "error"})
    await connection.open({"streamtype": "stdin"})
    for number, kind in ((1, "error"), (3, "stdin")):
        first, _, body = await server.frames.get()
        assert first == 0x80030001
        assert struct.unpack(">I", body[:4])[0] == number
        assert server.headers(body) == {"streamtype": kind}
    connection.close()


async def test_data_flows_both_ways_and_input_can_end(peer: tuple[Peer, str]) -> None:
    server, url = peer
    connection = await spdy.connect(url, "v4.channel.k8s.io")
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.pump())
        stream = await connection.open({"streamtype": "stdin"})
        await server.frames.get()
        await stream.write(b"in")
        await stream.close()
        assert await server.frames.get() == (1, 0, b"in")
        assert await server.frames.get() == (1, spdy.FIN, b"")
        server.send(1, 0, b"out")
        server.send(1, spdy.FIN, b"")
        assert await stream.read() == b"out"
        assert await stream.read() == b""
        assert await stream.read() == b""
        connection.close()


async def test_a_ping_is_answered_and_a_reset_ends_a_stream(peer: tuple[Peer, str]) -> None:
    server, url = peer
    connection = await spdy.connect(url, "v4.channel.k8s.io")
    async with asyncio.TaskGroup() as group:
        group.create_task(connection.pump())
        stream = await connection.open({"streamtype": "stdout"})
        await server.frames.get()
        ping = struct.pack(">I", 2)
        server.send(0x80030006, 0, ping)
        assert await server.frames.get() == (0x80030006, 0, ping)
        server.send(0x80030003, 0, struct.pack(">II", 1, 5))
        assert await stream.read() == b""
        connection.close()


async def test_a_refused_upgrade_says_why(peer: tuple[Peer, str]) -> None:
    _, url = peer
    with pytest.raises(spdy.SpdyError, match="nope"):
        await spdy.connect(url.replace("/exec/", "/refuse/"), "v4.channel.k8s.io")
