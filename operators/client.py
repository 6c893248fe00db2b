"""
How operators read and write objects beyond what they watch.

Requests go to :mod:`operators.writer`, which is started for the first one and let
go when none came for a while. An object is its JSON; a path is the API's. What can be asked
again without harm the writer asks again, for some seconds; the rest is the caller's to do.
"""

import asyncio
import itertools
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

from operators.config import Config

LOG = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
ANSWER_SECONDS = 90.0
AT_ONCE = 8  # requests that wait for an answer; the others wait for their turn

MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class ApiError(Exception):
    """
    ``code``: the HTTP status, 0 where the server was not asked or did not answer.

    ``details``: those of the Status, such as the causes of a refusal.
    """

    def __init__(
        self, code: int, reason: str, message: str, details: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.details: Mapping[str, Any] = details or {}


class Client(Protocol):
    """Requests to the API. Each raises :class:`ApiError`."""

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]: ...

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        """A list without spec, status and data: of each object, its metadata."""
        ...

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]: ...

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        """JSON merge patch, RFC 7386."""
        ...

    async def delete(self, path: str) -> None: ...


class _Writer(asyncio.SubprocessProtocol):
    """One process of :mod:`operators.writer`: who waits for which of its answers."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.SubprocessTransport | None = None
        self._part = bytearray()

    @property
    def usable(self) -> bool:
        return self.transport is not None and not self.ended.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.SubprocessTransport, transport)

    def send(self, line: bytes) -> None:
        if self.transport and (pipe := self.transport.get_pipe_transport(0)):
            cast(asyncio.WriteTransport, pipe).write(line)

    def say_goodbye(self) -> None:
        """It answers what it was asked, and ends."""
        if self.transport and (pipe := self.transport.get_pipe_transport(0)):
            pipe.close()

    def kill(self) -> None:
        if self.transport and self.transport.get_returncode() is None:
            self.transport.kill()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            answer = json.loads(bytes(self._part) + line)
            self._part = bytearray()
            asker = self.waiting.pop(answer["id"], None)
            if asker is not None and not asker.done():
                asker.set_result(answer)
        self._part += rest

    def connection_lost(self, exc: Exception | None) -> None:
        for asker in self.waiting.values():
            if not asker.done():
                asker.set_exception(
                    ApiError(0, "", "the program that speaks to the API ended unexpectedly")
                )
        self.waiting.clear()
        if self.transport:
            self.transport.close()
        if not self.ended.done():
            self.ended.set_result(None)


class WriterClient:
    """
    A :class:`Client` on the official Python client, in a process that comes and goes.

    ``may_act``: asked before each write; False is an :class:`ApiError` with reason NotLeader.
    """

    def __init__(self, config: Config, *, may_act: Callable[[], bool] = lambda: True) -> None:
        self._argv = [config.python, "-m", "operators.writer", str(config.kubeconfig)]
        self._environment = {"PATH": config.path, "PYTHONPATH": str(config.program_dir)}
        self._may_act = may_act
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._start = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._writer: _Writer | None = None
        self._leaving: set[_Writer] = set()  # told to end, and not yet ended
        self._farewell: asyncio.TimerHandle | None = None

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        found: dict[str, Any] = await self._ask("GET", path, query=query)
        return found

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[dict[str, Any]]:
        found = await self._ask("GET", path, query=query, headers={"Accept": METADATA_ONLY})
        return [item["metadata"] for item in found.get("items") or ()]

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = await self._ask("POST", path, body=body)
        return made

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = await self._ask("PUT", path, body=body)
        return made

    async def merge(self, path: str, patch: Mapping[str, Any]) -> dict[str, Any]:
        headers = {"Content-Type": MERGE_PATCH}
        made: dict[str, Any] = await self._ask("PATCH", path, body=patch, headers=headers)
        return made

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path)

    async def close(self) -> None:
        """At once: what was not answered yet may or may not have been done."""
        if self._farewell:
            self._farewell.cancel()
        async with self._start:
            if self._writer and self._writer.waiting:
                self._writer.kill()
            self._let_go()
            for writer in list(self._leaving):
                await writer.ended

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        request = {
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "headers": {
                "Accept": "application/json",
                "Content-Type": "application/json",
                **(headers or {}),
            },
        }
        async with self._turn:
            if method != "GET" and not self._may_act():
                raise ApiError(0, "NotLeader", "another process acts now")
            answer = await self._exchange(request)
        found = answer["body"]
        if 200 <= answer["code"] < 300:
            return found
        status = found if isinstance(found, dict) else {}
        reason, message = status.get("reason", ""), status.get("message", str(found))
        raise ApiError(answer["code"], reason, message, status.get("details"))

    async def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        writer = await self._begin()
        number = next(self._numbers)
        future = asyncio.get_running_loop().create_future()
        writer.waiting[number] = future
        writer.send(json.dumps({"id": number, **request}).encode() + b"\n")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer: dict[str, Any] = await future
        except TimeoutError as err:
            # It does not even keep to its own limits: nothing more can be expected of it.
            writer.kill()
            raise ApiError(0, "", f"no answer within {ANSWER_SECONDS:.0f} s") from err
        finally:
            writer.waiting.pop(number, None)
            self._linger(writer)
        return answer

    async def _begin(self) -> _Writer:
        async with self._start:
            if self._writer is None or not self._writer.usable:
                _, self._writer = await asyncio.get_running_loop().subprocess_exec(
                    _Writer, *self._argv, stderr=None, env=self._environment
                )
            return self._writer

    def _linger(self, writer: _Writer) -> None:
        if self._farewell:
            self._farewell.cancel()
        if not writer.waiting:
            loop = asyncio.get_running_loop()
            self._farewell = loop.call_later(LINGER_SECONDS, self._let_go_if_idle)

    def _let_go_if_idle(self) -> None:
        if self._writer and not self._writer.waiting:
            self._let_go()

    def _let_go(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None and not writer.ended.done():
            self._leaving.add(writer)
            writer.ended.add_done_callback(lambda _: self._leaving.discard(writer))
            writer.say_goodbye()
