"""The watch of one ConfigMap, on a server that answers as an API does."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from operators.helm import watch
from operators.helm.watch import Watcher
from tests.fakes.operators_config import config as told

PATH = "/api/v1/namespaces/n/configmaps/ca"
KUBECONFIG = """
current-context: c
contexts: [{{name: c, context: {{cluster: c, user: u}}}}]
clusters: [{{name: c, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
users: [{{name: u, user: {{token: secret}}}}]
"""


class Api:
    """Each watch gets the next of ``answers``: events, then its end; None: it is refused."""

    def __init__(self) -> None:
        self.answers: list[list[Any] | None] = []
        self.asked: asyncio.Queue[web.Request] = asyncio.Queue()
        self._open: list[asyncio.Queue[Any]] = []

    def tell(self, event: Any) -> None:
        """To all that watch."""
        for events in self._open:
            events.put_nowait(event)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        told: asyncio.Queue[Any] = asyncio.Queue()
        self._open.append(told)
        self.asked.put_nowait(request)
        answer = web.StreamResponse()
        events = self.answers.pop(0) if self.answers else []
        if events is None:
            return web.Response(status=500)
        await answer.prepare(request)
        for event in events:
            await answer.write(json.dumps(event).encode() + b"\n")
        while not self.answers:
            await answer.write(json.dumps(await told.get()).encode() + b"\n")
        return answer


def event(kind: str, version: int) -> dict[str, Any]:
    return {"type": kind, "object": {"metadata": {"resourceVersion": str(version)}}}


@asynccontextmanager
async def watching(api: Api, folder: Path) -> AsyncIterator[tuple[Watcher, asyncio.Queue[str]]]:
    application = web.Application()
    application.router.add_get("/api/v1/namespaces/n/configmaps", api.watch)
    runner = web.AppRunner(application, shutdown_timeout=0.1, handler_cancellation=True)
    try:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        (folder / "kubeconfig").write_text(KUBECONFIG.format(port=port))
        woken: asyncio.Queue[str] = asyncio.Queue()
        watcher = Watcher(told(kubeconfig=folder / "kubeconfig"), woken.put_nowait)
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            task = tasks.create_task(watcher.run())
            await asyncio.sleep(0)
            yield watcher, woken
            task.cancel()
    finally:
        await runner.cleanup()


async def test_what_comes_wakes_the_chart_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    api = Api()
    async with watching(api, tmp_path) as (watcher, woken):
        watcher.wait_for("n/web", PATH)
        watcher.wait_for("n/web", PATH)
        request = await api.asked.get()
        assert request.query["fieldSelector"] == "metadata.name=ca"
        assert request.headers["Authorization"] == "Bearer secret"
        api.tell({"type": "BOOKMARK", "object": {}})
        api.tell(event("ADDED", 7))
        assert await woken.get() == "n/web"
        # The look that follows found no more than this: it watches on for what is new.
        watcher.wait_for("n/web", PATH)
        await api.asked.get()
        api.tell(event("ADDED", 7))
        api.tell(event("MODIFIED", 8))
        assert await woken.get() == "n/web"
        assert woken.empty()


async def test_a_watch_that_fails_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "FIRST_PAUSE", 0.01)
    api = Api()
    api.answers = [None, [{"nothing": "known"}, "?"], [], None, [event("DELETED", 9)]]
    async with watching(api, tmp_path) as (watcher, woken):
        watcher.wait_for("n/web", PATH)
        assert await woken.get() == "n/web"
        assert api.asked.qsize() == 5


async def test_a_chart_that_waits_no_more_is_not_woken(tmp_path: Path) -> None:
    api = Api()
    async with watching(api, tmp_path) as (watcher, woken):
        watcher.wait_for("n/web", PATH)
        watcher.wait_for("n/other", PATH)
        await api.asked.get()
        await api.asked.get()
        watcher.wait_for("n/web", "")
        api.tell(event("ADDED", 7))
        assert await woken.get() == "n/other"
        assert woken.empty()
