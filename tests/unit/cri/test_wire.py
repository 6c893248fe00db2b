"""The blocking client of gRPC against a real server: grpclib's, in a thread."""

import asyncio
import contextlib
import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Cardinality, Handler, Status
from grpclib.exceptions import GRPCError
from grpclib.server import Server
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node.cri.generated.health_pb2 import HealthCheckRequest as Text
from node.cri.store import chained, varint
from node.cri.wire import NOT_FOUND, CallFailed, Connection

MIB = 1 << 20


class Service:
    """``Echo`` answers what it was sent, ``Fail`` with an error, ``Stream`` each message."""

    def __mapping__(self) -> dict[str, Handler]:
        def handler(method: Any, kind: Cardinality) -> Handler:
            return Handler(method, kind, Text, Text)

        return {
            "/t.T/Echo": handler(self.echo, Cardinality.UNARY_UNARY),
            "/t.T/Fail": handler(self.fail, Cardinality.UNARY_UNARY),
            "/t.T/Lease": handler(self.lease, Cardinality.UNARY_UNARY),
            "/t.T/Stream": handler(self.stream, Cardinality.STREAM_STREAM),
        }

    async def echo(self, stream: Any) -> None:
        await stream.send_message(await stream.recv_message())

    async def fail(self, stream: Any) -> None:
        raise GRPCError(Status.NOT_FOUND, (await stream.recv_message()).service)

    async def lease(self, stream: Any) -> None:
        await stream.recv_message()
        await stream.send_message(Text(service=stream.metadata.get("lease", "none")))

    async def stream(self, stream: Any) -> None:
        async for message in stream:
            if message.service == "stop":
                raise GRPCError(Status.ALREADY_EXISTS, "stopped")
            await stream.send_message(Text(service=str(len(message.service))))


async def serve(path: Path, ready: threading.Event, stop: list[Any]) -> None:
    server, done = Server([Service()]), asyncio.Event()
    stop.append((asyncio.get_running_loop(), done))
    await server.start(path=str(path))
    ready.set()
    await done.wait()
    server.close()
    await server.wait_closed()


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    path, ready = tmp_path_factory.mktemp("w") / "s", threading.Event()
    stop: list[Any] = []
    thread = threading.Thread(target=lambda: asyncio.run(serve(path, ready, stop)))
    thread.start()
    assert ready.wait(10)
    with contextlib.closing(Connection(path, {"namespace": "t"})) as made:
        yield made
    loop, done = stop[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(10)


def echoed(connection: Connection, text: str) -> str:
    request = Text(service=text).SerializeToString()
    return Text.FromString(connection.call("/t.T/Echo", request)).service


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 65_535, 65_536, 5 * MIB])
def test_messages_of_any_size_come_back(connection: Connection, size: int) -> None:
    assert echoed(connection, "x" * size) == "x" * size


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(st.characters(codec="utf-8"), max_size=300))
def test_calls_follow_each_other_on_one_connection(connection: Connection, text: str) -> None:
    assert echoed(connection, text) == text


def test_a_failure_has_the_servers_words(connection: Connection) -> None:
    request = Text(service="nicht da: \N{LATIN SMALL LETTER U WITH DIAERESIS}, 100 %")
    with pytest.raises(CallFailed, match="nicht da: \xfc, 100 %") as caught:
        connection.call("/t.T/Fail", request.SerializeToString())
    assert caught.value.status == NOT_FOUND
    with pytest.raises(CallFailed):
        connection.call("/t.T/Nowhere", b"")
    assert echoed(connection, "still there") == "still there"


def test_metadata_goes_along_as_it_is_now(connection: Connection) -> None:
    def lease() -> str:
        return Text.FromString(connection.call("/t.T/Lease", b"")).service

    assert lease() == "none"
    connection.metadata["lease"] = "l1"
    assert lease() == "l1"
    del connection.metadata["lease"]
    assert lease() == "none"


def test_many_messages_are_on_their_way_at_once(connection: Connection) -> None:
    call = connection.open("/t.T/Stream")
    for size in range(40):
        message = Text(service="x" * (size << 13)).SerializeToString()
        call.send([message[:5], memoryview(message)[5:]])
    answers = [call.receive() for _ in range(40)]
    assert [Text.FromString(a or b"").service for a in answers] == [str(n << 13) for n in range(40)]
    call.finish()
    assert call.receive() is None


def test_an_end_from_the_other_side_stops_the_sending(connection: Connection) -> None:
    call = connection.open("/t.T/Stream")
    call.send([Text(service="stop").SerializeToString()])
    for _ in range(20):
        call.send([Text(service="x" * MIB).SerializeToString()])
        if call.ended:
            break
    with pytest.raises(CallFailed, match="stopped"):
        list(call.rest())
    assert echoed(connection, "next") == "next"


def test_a_call_that_was_left_is_forgotten(connection: Connection) -> None:
    call = connection.open("/t.T/Stream")
    call.send([Text(service="x").SerializeToString()])
    assert echoed(connection, "next") == "next"
    assert call.ended


@pytest.mark.parametrize(
    ("value", "written"), [(0, b"\0"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")]
)
def test_lengths_are_written_as_protobuf_does(value: int, written: bytes) -> None:
    assert varint(value) == written


def test_the_name_of_layers_on_each_other_is_that_of_the_specification() -> None:
    assert chained("", "sha256:aa") == "sha256:aa"
    both = hashlib.sha256(b"sha256:aa sha256:bb").hexdigest()
    assert chained("sha256:aa", "sha256:bb") == f"sha256:{both}"
