"""
An API server that misbehaves: a proxy before the real one, for the operators and their Helm.

It hands requests on, watches too, but for those that a rule picks: they get an
error, or no answer, or an answer that is lost on the way though the server did what was
asked. A rule may also hold a request until the test has seen to something else.
"""

import asyncio
import functools
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from operators.config import Credentials, read_kubeconfig

PATIENCE = 40.0  # seconds
_NOT_HANDED_ON = frozenset({"Host", "Content-Length", "Transfer-Encoding", "Connection"})
_REASONS = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    410: "Expired",
    429: "TooManyRequests",
    500: "InternalError",
    503: "ServiceUnavailable",
    504: "Timeout",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of one request."""

    code: int = 0  # 0: the connection ends without an answer
    retry_after: int | None = None  # seconds
    done: bool = False  # the server did it all the same
    after: float = 0.0  # seconds until this answer, or none


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    path: str  # without the query
    watch: bool


Rule = Callable[[Request], Fault | None]


def nothing(_: Request) -> Fault | None:
    return None


@dataclass
class Hold:
    """One request that waits at the proxy; the server knows nothing of it yet."""

    picks: Callable[[Request], bool]
    lost: bool  # it is never handed on
    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def wait(self, what: str) -> None:
        assert self.reached.wait(PATIENCE), f"no such request came: {what}"

    def let_go(self) -> None:
        self.released.set()


class Faults:
    """What the proxy is to do; set from the test, read in its thread."""

    def __init__(self) -> None:
        self.rule: Rule = nothing
        self.hold: Hold | None = None
        self.made = 0  # how many requests a rule has picked

    @contextmanager
    def holding(self, picks: Callable[[Request], bool], *, lost: bool = True) -> Iterator[Hold]:
        """The first request that is picked is held, and lost or handed on when it is let go."""
        self.hold = hold = Hold(picks, lost)
        try:
            yield hold
        finally:
            self.hold = None
            hold.let_go()


class _Proxy:
    def __init__(self, faults: Faults, found: Credentials, folder: Path) -> None:
        self._faults = faults
        self._server = found.server
        self._tls = ssl.create_default_context(cadata=found.ca)
        pair = folder / "client.pem"
        pair.write_text(found.certificate + found.key)
        self._tls.load_cert_chain(pair)
        self.session: aiohttp.ClientSession | None = None
        self.serving = threading.Event()
        self.port = 0
        self.end: Callable[[], object] = self.serving.clear

    async def run(self) -> None:
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        self.end = functools.partial(loop.call_soon_threadsafe, ended.set)
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self.handle)
        # A watch ends at the server too when whoever watched has died.
        how: dict[str, Any] = {"access_log": None, "handler_cancellation": True}
        runner = web.AppRunner(app, shutdown_timeout=0.1, **how)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            timeout=timeout, auto_decompress=False, connector=aiohttp.TCPConnector(limit=0)
        ) as self.session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.port = runner.addresses[0][1]
            self.serving.set()
            await ended.wait()
            await runner.cleanup()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        asked = Request(
            method=request.method, path=request.path, watch="watch" in request.rel_url.query
        )
        body = await request.read()
        if await self._held(asked):
            return _lost(request)
        fault = self._faults.rule(asked)
        if fault is None:
            return await self._hand_on(request, body)
        self._faults.made += 1
        if fault.done:
            await self._done(request, body)
        await asyncio.sleep(fault.after)
        return _answer(fault) if fault.code else _lost(request)

    async def _held(self, asked: Request) -> bool:
        """Whether it is lost."""
        hold = self._faults.hold
        if hold is None or hold.reached.is_set() or not hold.picks(asked):
            return False
        hold.reached.set()
        await asyncio.to_thread(hold.released.wait, PATIENCE)
        return hold.lost

    def _send(self, request: web.Request, body: bytes) -> Any:
        assert self.session is not None
        headers = {k: v for k, v in request.headers.items() if k not in _NOT_HANDED_ON}
        url = f"{self._server}{request.raw_path}"
        return self.session.request(
            request.method, url, data=body or None, headers=headers, ssl=self._tls
        )

    async def _done(self, request: web.Request, body: bytes) -> None:
        async with self._send(request, body) as answer:
            await answer.read()

    async def _hand_on(self, request: web.Request, body: bytes) -> web.StreamResponse:
        async with self._send(request, body) as answer:
            headers = {k: v for k, v in answer.headers.items() if k not in _NOT_HANDED_ON}
            response = web.StreamResponse(status=answer.status, headers=headers)
            await response.prepare(request)
            try:
                async for part in answer.content.iter_any():
                    await response.write(part)
                await response.write_eof()
            except (aiohttp.ClientError, ConnectionError):
                pass  # one of the two has gone
            return response


def _lost(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _answer(fault: Fault) -> web.Response:
    status = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "code": fault.code,
        "reason": _REASONS[fault.code],
        "message": f"this is a fault: {_REASONS[fault.code]}",
    }
    headers = {} if fault.retry_after is None else {"Retry-After": str(fault.retry_after)}
    return web.json_response(status, status=fault.code, headers=headers)


@contextmanager
def misbehaving(kubeconfig: Path) -> Iterator[Faults]:
    """
    The kubeconfig leads to a proxy from here on, and back to the server at the end.

    Whoever has read it before keeps to what it said.
    """
    before, faults = kubeconfig.read_text(), Faults()
    with TemporaryDirectory() as folder:
        proxy = _Proxy(faults, read_kubeconfig(kubeconfig), Path(folder))
        thread = threading.Thread(target=asyncio.run, args=(proxy.run(),))
        thread.start()
        assert proxy.serving.wait(PATIENCE)
        kubeconfig.write_text(_leading_to(f"http://127.0.0.1:{proxy.port}"))
        try:
            yield faults
        finally:
            kubeconfig.write_text(before)
            proxy.end()
            thread.join()


def _leading_to(server: str) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "faults",
            "contexts": [{"name": "faults", "context": {"cluster": "faults", "user": "faults"}}],
            "clusters": [{"name": "faults", "cluster": {"server": server}}],
            "users": [{"name": "faults", "user": {}}],
        }
    )
