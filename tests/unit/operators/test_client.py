"""Requests to an API server that is busy, breaks off, keeps silent or is not there."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from operators import client, writer
from operators.client import ApiError, WriterClient
from operators.config import PATH, Credentials
from tests.fakes.operators_config import config

ROOT = Path(__file__).parent.parent.parent.parent
POD = "/api/v1/namespaces/default/pods"
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass
class Flaky:
    """An API server that answers as it is told to, in order; then with what it was sent."""

    url: str = ""
    answers: list[Answer] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)  # method, Authorization

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.can_read_body else {"kind": "Thing"}
        self.seen.append((request.method, request.headers.get("Authorization", "")))
        if self.answers:
            return await self.answers.pop(0)(request)
        return web.json_response(body)


@pytest.fixture
async def server() -> AsyncIterator[Flaky]:
    made = Flaky()
    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/{path:.*}", made.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


def says(code: int, **headers: str) -> Answer:
    async def answer(_: web.Request) -> web.Response:
        status = {"kind": "Status", "reason": "Because", "message": "so it is"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.json_response(status, status=code, headers=named)

    return answer


async def breaks_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def credentials(url: str, **changes: Any) -> Credentials:
    nothing: dict[str, Any] = dict.fromkeys(("ca", "certificate", "key", "token"), "")
    return Credentials(server=url, insecure=False, **(nothing | changes))


@dataclass
class Asked:
    code: int
    pauses: list[float]


async def ask(url: str, method: str, path: str = POD, **more: Any) -> Asked:
    api = writer.connect(credentials(url, **more))
    pauses: list[float] = []
    request = {
        "method": method,
        "path": path,
        "query": None,
        "body": None if method == "GET" else {"kind": "Thing"},
        "headers": {"Accept": "application/json", "Content-Type": "application/json"},
    }
    answer = await asyncio.to_thread(writer.perform, api, request, pauses.append)
    return Asked(answer["code"], pauses)


@pytest.mark.parametrize("code", [429, 503])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_who_is_told_to_come_again_does(server: Flaky, code: int, method: str) -> None:
    server.answers = [says(code, Retry_After="2")]
    assert await ask(server.url, method) == Asked(200, [2.0])
    assert [seen for seen, _ in server.seen] == [method, method]


async def test_a_server_that_stays_busy_is_not_asked_for_ever(server: Flaky) -> None:
    server.answers = [says(429, Retry_After="1") for _ in range(20)]
    asked = await ask(server.url, "POST")
    assert asked.code == 429
    assert len(server.seen) == 1 + len(writer.PAUSES)


async def test_a_server_that_wants_an_hour_does_not_get_it_here(server: Flaky) -> None:
    server.answers = [says(503, Retry_After="3600")]
    assert await ask(server.url, "GET") == Asked(503, [])


async def test_a_disruption_budget_is_no_busy_server(server: Flaky) -> None:
    server.answers = [says(429, Retry_After="1")]
    assert await ask(server.url, "POST", f"{POD}/a/eviction") == Asked(429, [])


@pytest.mark.parametrize("code", [500, 502, 504])
async def test_a_failure_is_asked_again_only_where_that_does_no_harm(
    server: Flaky, code: int
) -> None:
    server.answers = [says(code)]
    assert (await ask(server.url, "GET")).code == 200
    server.answers = [says(code)]
    assert await ask(server.url, "POST") == Asked(code, [])


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 422])
async def test_a_refusal_is_an_answer(server: Flaky, code: int) -> None:
    server.answers = [says(code)]
    assert await ask(server.url, "GET") == Asked(code, [])


async def test_a_connection_that_breaks_off_may_have_done_it(server: Flaky) -> None:
    server.answers = [breaks_off]
    assert await ask(server.url, "POST") == Asked(0, [])
    assert len(server.seen) == 1
    server.answers = [breaks_off]
    assert (await ask(server.url, "GET")).code == 200


async def test_where_nobody_listens_nothing_was_done_and_all_is_asked_again(
    server: Flaky,
) -> None:
    asked = await ask("http://127.0.0.1:1", "POST")
    assert asked == Asked(0, list(writer.PAUSES))


async def test_a_token_in_a_file_is_read_for_each_request(server: Flaky, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("old\n")
    api = writer.connect(credentials(server.url, token_file=str(token)))
    request: dict[str, Any] = {"method": "GET", "path": POD, "query": None, "headers": {}}
    request["body"] = None
    await asyncio.to_thread(writer.perform, api, request)
    token.write_text("new\n")
    await asyncio.to_thread(writer.perform, api, request)
    assert [said for _, said in server.seen] == ["Bearer old", "Bearer new"]


# The process


@pytest.fixture
def kubeconfig(server: Flaky, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(
        "current-context: a\n"
        "contexts: [{name: a, context: {cluster: a, user: a}}]\n"
        f"clusters: [{{name: a, cluster: {{server: '{server.url}'}}}}]\n"
        "users: [{name: a, user: {token: t}}]\n"
    )
    return path


@pytest.fixture
async def asking(kubeconfig: Path) -> AsyncIterator[WriterClient]:
    told = config(kubeconfig=kubeconfig, python=sys.executable, program_dir=ROOT, path=PATH)
    made = WriterClient(told)
    yield made
    await made.close()


async def test_requests_are_answered_side_by_side(server: Flaky, asking: WriterClient) -> None:
    begun, held = asyncio.Event(), asyncio.Event()

    async def waits(_: web.Request) -> web.Response:
        begun.set()
        await held.wait()
        return web.json_response({"kind": "Slow"})

    server.answers = [waits]
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        slow = tasks.create_task(asking.get(POD))
        await begun.wait()
        assert await asking.create(POD, {"kind": "Quick"}) == {"kind": "Quick"}
        assert not slow.done()
        held.set()
    assert slow.result() == {"kind": "Slow"}


async def test_a_refusal_has_its_reason(server: Flaky, asking: WriterClient) -> None:
    server.answers = [says(403)]
    with pytest.raises(ApiError, match="so it is") as refused:
        await asking.delete(f"{POD}/a")
    assert (refused.value.code, refused.value.reason) == (403, "Because")


async def test_a_large_answer_comes_whole(server: Flaky, asking: WriterClient) -> None:
    thing = {"kind": "Thing", "data": "x" * 3_000_000}
    assert await asking.create(POD, thing) == thing


async def test_a_writer_that_is_killed_is_told_and_replaced(
    server: Flaky, asking: WriterClient
) -> None:
    async def kills(_: web.Request) -> web.Response:
        [pid] = _children()
        os.kill(pid, 9)
        return web.json_response({})

    server.answers = [kills]
    with pytest.raises(ApiError, match="ended unexpectedly"):
        await asking.create(POD, {"kind": "Thing"})
    assert await asking.create(POD, {"kind": "Thing"}) == {"kind": "Thing"}


async def test_a_writer_that_keeps_silent_is_given_up(
    server: Flaky, asking: WriterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asking.get(POD)
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.2)
    held = asyncio.Event()

    async def waits(_: web.Request) -> web.Response:
        await held.wait()
        return web.json_response({})

    server.answers = [waits]
    with pytest.raises(ApiError, match="no answer within"):
        await asking.get(POD)
    held.set()


async def test_the_process_is_let_go_when_there_is_nothing_to_say(
    server: Flaky, asking: WriterClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "LINGER_SECONDS", 0.0)
    await asking.get(POD)
    [pid] = _children()
    handle = os.pidfd_open(pid)
    try:
        # Readable when the process has ended.
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().add_reader(handle, ended.set_result, None)
        async with asyncio.timeout(20):
            await ended
        asyncio.get_running_loop().remove_reader(handle)
    finally:
        os.close(handle)
    assert await asking.get(POD) == {"kind": "Thing"}


async def test_who_may_not_act_may_still_look(server: Flaky, kubeconfig: Path) -> None:
    told = config(kubeconfig=kubeconfig, python=sys.executable, program_dir=ROOT, path=PATH)
    asking = WriterClient(told, may_act=lambda: False)
    with pytest.raises(ApiError) as refused:
        await asking.create(POD, {})
    assert refused.value.reason == "NotLeader"
    assert await asking.get(POD) == {"kind": "Thing"}
    assert [method for method, _ in server.seen] == ["GET"]
    await asking.close()


def _children() -> list[int]:
    own = os.getpid()
    words = Path(f"/proc/{own}/task/{own}/children").read_text().split()
    return [int(p) for p in words if b"operators.writer" in Path(f"/proc/{p}/cmdline").read_bytes()]
