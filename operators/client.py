"""
How operators read and write objects beyond what they watch.

Requests go to :mod:`operators.writer`, which is started for the first one and let
go when none came for a while. An object is its JSON; a path is the API's.
"""

import asyncio
import json
import logging
from collections.abc import Mapping
from typing import Any, Protocol

from operators.config import Config

LOG = logging.getLogger(__name__)

LINGER_SECONDS = 5.0
ANSWER_SECONDS = 90.0
LONGEST_ANSWER = 64 * 2**20  # bytes; a list of releases is ten secrets of up to 1.5 MiB

MERGE_PATCH = "application/merge-patch+json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"


class ApiError(Exception):
    """``code``: the HTTP status, 0 where the server did not answer."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason


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


class WriterClient:
    """A :class:`Client` on the official Python client, in a process that comes and goes."""

    def __init__(self, config: Config) -> None:
        self._argv = [config.python, "-m", "operators.writer", str(config.kubeconfig)]
        self._environment = {"PATH": config.path, "PYTHONPATH": str(config.program_dir)}
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
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
        if self._farewell:
            self._farewell.cancel()
        async with self._lock:
            await self._end()

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
        async with self._lock:
            answer = await self._exchange(json.dumps(request).encode() + b"\n")
        found = answer["body"]
        if 200 <= answer["code"] < 300:
            return found
        status = found if isinstance(found, dict) else {}
        raise ApiError(answer["code"], status.get("reason", ""), status.get("message", str(found)))

    async def _exchange(self, line: bytes) -> dict[str, Any]:
        process = self._process or await self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line)
            await process.stdin.drain()
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await process.stdout.readline()
        except BaseException:
            # Half an exchange may be under way: nothing more can be asked of this process.
            await self._kill()
            raise
        if not answer:
            await self._kill()
            raise ApiError(0, "", "the program that speaks to the API ended unexpectedly")
        self._linger()
        found: dict[str, Any] = json.loads(answer)
        return found

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=self._environment,
            limit=LONGEST_ANSWER,
        )
        return self._process

    def _linger(self) -> None:
        if self._farewell:
            self._farewell.cancel()
        loop = asyncio.get_running_loop()
        self._farewell = loop.call_later(LINGER_SECONDS, self._let_go)

    def _let_go(self) -> None:
        # Not in the middle of an exchange: the timer starts anew after each.
        if self._process and not self._lock.locked():
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    async def _end(self) -> None:
        if self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()
            self._process = None

    async def _kill(self) -> None:
        if self._process:
            if self._process.returncode is None:
                self._process.kill()
            await self._process.wait()
            self._process = None
