"""The policies of a namespace, asked of a server: shared, begun late enough, or not answered."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from operators.netpol.denials import parse
from operators.netpol.policies import Listing, NoAnswer


class Server:
    """An API with one policy; it answers when ``go`` is set."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.go = asyncio.Event()
        self.status = 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.asked.append(head.split()[1].decode())
                await self.go.wait()
                body = json.dumps({"items": [{"n": len(self.asked)}]})
                reply = f"HTTP/1.1 {self.status} x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
                writer.write(reply.encode())
        writer.close()


@contextlib.asynccontextmanager
async def served(folder: Path) -> AsyncIterator[tuple[Server, Listing]]:
    made = Server()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    path = folder / "kubeconfig"
    path.write_text(
        "current-context: x\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
        f"clusters: [{{name: x, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n"
        "users: [{name: x, user: {token: t}}]\n"
    )
    listing = Listing(path)
    try:
        yield made, listing
    finally:
        await listing.close()
        server.close()


async def test_who_asks_while_another_is_answered_shares_the_next_answer(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, listing):
        first = asyncio.ensure_future(listing.of("a"))
        while not server.asked:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        others = [asyncio.ensure_future(listing.of("a")) for _ in range(5)]
        await asyncio.sleep(0)
        server.go.set()
        assert await first == [{"n": 1}]
        assert await asyncio.gather(*others) == [[{"n": 2}]] * 5
        assert server.asked == ["/apis/networking.k8s.io/v1/namespaces/a/networkpolicies"] * 2


async def test_an_error_is_no_answer_to_all_who_wait(tmp_path: Path) -> None:
    async with served(tmp_path) as (server, listing):
        server.status = 500
        server.go.set()
        found = await asyncio.gather(*(listing.of("a") for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in found] == [NoAnswer] * 3
        server.status = 200
        assert len(await listing.of("a")) == 1


async def test_a_server_that_is_away_is_no_answer(tmp_path: Path) -> None:
    listing = Listing(tmp_path / "kubeconfig")
    with pytest.raises(NoAnswer):
        await listing.of("a")


def test_packets_are_read_for_the_log() -> None:
    four = bytes.fromhex("4500003c000040004006000a0a2a00020a2a0003") + bytes.fromhex("c0000050")
    assert parse(four) == ("TCP", "10.42.0.2", "10.42.0.3", 80)
    six = (
        bytes.fromhex("6000000000083a40")
        + bytes.fromhex("fd" + "00" * 14 + "02")
        + bytes.fromhex("fd" + "00" * 14 + "03")
    )
    assert parse(six) == ("ICMPv6", "fd00::2", "fd00::3", 0)
    assert parse(b"") is None
