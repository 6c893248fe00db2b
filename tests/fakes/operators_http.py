"""The Client of the operators on plain HTTP, to an API server in this process."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp

from controlplane.deploy.definitions import ensure_crds
from operators.client import MERGE_PATCH, ApiError
from tests.fakes.api_server import Served, defining, listening

Object = dict[str, Any]


class HttpClient:
    """``asked``: (verb, path with query) of each request, in order."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.url = url
        self.asked: list[tuple[str, str]] = []
        self._session = session

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        return await self._ask("GET", path, params=query)

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[Object]:
        found = await self._ask("GET", path, params=query)
        return [item["metadata"] for item in found["items"]]

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        return await self._ask("POST", path, json=body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        return await self._ask("PUT", path, json=body)

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        headers = {"Content-Type": MERGE_PATCH}
        return await self._ask("PATCH", path, json=patch, headers=headers)

    async def delete(self, path: str) -> None:
        await self._ask("DELETE", path)

    async def _ask(self, method: str, path: str, **more: Any) -> Object:
        self.asked.append((method, path))
        async with self._session.request(method, self.url + path, **more) as answer:
            found = await answer.json(content_type=None)
        status = found if isinstance(found, dict) else {}
        if answer.status >= 300:
            reason, message = status.get("reason", ""), status.get("message", str(found))
            raise ApiError(answer.status, reason, message, status.get("details"))
        return status


def kubeconfig(folder: Path, url: str) -> Path:
    path = folder / "kubeconfig"
    path.write_text(
        "current-context: x\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\n"
        f"clusters: [{{name: x, cluster: {{server: '{url}'}}}}]\n"
        "users: [{name: x, user: {token: t}}]\n"
    )
    return path


@asynccontextmanager
async def asking(url: str) -> AsyncIterator[HttpClient]:
    async with aiohttp.ClientSession() as session:
        yield HttpClient(session, url)


@asynccontextmanager
async def api() -> AsyncIterator[tuple[Served, HttpClient]]:
    """An API server on a memory store, without controllers, and a client of it."""
    async with listening() as served, asking(served.url) as client:
        yield served, client


@asynccontextmanager
async def custom(*kinds: tuple[str, str]) -> AsyncIterator[tuple[Served, HttpClient]]:
    """The same with the definitions of a node; ``kinds`` (apiVersion, kind) are served by then."""
    async with api() as (served, client), defining(served):
        parts = served.parts
        await ensure_crds(served.client)
        async with asyncio.timeout(20):
            while not all(parts.kinds.by_kind(*kind) for kind in kinds):
                await parts.cache.wait_for(parts.cache.revision + 1)
        yield served, client
