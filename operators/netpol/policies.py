"""
The NetworkPolicies of one namespace, asked for when a pod of it is about to start.

A watch may lag behind, and a policy that was made just before the pod must hold from
its first packet on. The connection stays open for some seconds only. This is the one
request that operators make in their own process: a pod waits for it.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp

from operators.config import read_kubeconfig
from operators.lease import trust

SECONDS = 3.0
_PATH = "/apis/networking.k8s.io/v1/namespaces/{}/networkpolicies"


class NoAnswer(Exception):
    """The API server did not answer, or not with a list."""


class Listing:
    """Who asks while a request for the same namespace is under way shares the next one."""

    def __init__(self, kubeconfig: Path) -> None:
        self._kubeconfig = kubeconfig
        self._session: aiohttp.ClientSession | None = None
        self._server = ""
        self._next: dict[str, asyncio.Future[list[dict[str, Any]]]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, namespace: str) -> list[dict[str, Any]]:
        """Begun after this was called, so that it shows all that was written before."""
        waiting = self._next.get(namespace)
        if waiting is not None:
            return await asyncio.shield(waiting)
        waiting = asyncio.get_running_loop().create_future()
        self._next[namespace] = waiting
        lock = self._locks.setdefault(namespace, asyncio.Lock())
        try:
            async with lock:
                del self._next[namespace]
                found = await self._ask(namespace)
            waiting.set_result(found)
        except BaseException as err:
            waiting.set_exception(err if isinstance(err, NoAnswer) else NoAnswer(str(err)))
            with contextlib.suppress(NoAnswer):
                waiting.result()  # nobody else may want to know
            raise
        finally:
            if not lock.locked():
                self._locks.pop(namespace, None)
        return found

    async def close(self) -> None:
        if self._session:
            await self._session.close()
            self._session = None

    async def _ask(self, namespace: str) -> list[dict[str, Any]]:
        try:
            async with asyncio.timeout(SECONDS):
                session = self._session or await self._open()
                address = self._server + _PATH.format(namespace)
                async with session.get(address) as answer:
                    answer.raise_for_status()
                    body = await answer.json(content_type=None)
        except (aiohttp.ClientError, OSError, ValueError, TimeoutError) as err:
            await self.close()  # certificates may have been renewed
            raise NoAnswer(str(err) or "no answer in time") from err
        found: list[dict[str, Any]] = body.get("items") or []
        return found

    async def _open(self) -> aiohttp.ClientSession:
        credentials = read_kubeconfig(self._kubeconfig)
        headers = {"Accept": "application/json"}
        if token := credentials.bearer():
            headers["Authorization"] = f"Bearer {token}"
        self._server = credentials.server.rstrip("/")
        context = trust(credentials) if credentials.server.startswith("https:") else False
        connector = aiohttp.TCPConnector(ssl=context, limit=4)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers)
        return self._session
