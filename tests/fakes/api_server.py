"""
An API server on a memory store, as tests need one: real verbs, real HTTP if wanted.

``serving()`` gives the parts with a running cache; ``listening()`` adds a
listener on a free port of the loopback address.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from controlplane.api.app import ApiServer, Around
from controlplane.api.base import MASTERS_GROUP, User
from controlplane.api.cache import ObjectCache
from controlplane.api.call import Network, Parts
from controlplane.api.local import LocalClient
from controlplane.api.present import presenter
from controlplane.api.server import Listener
from controlplane.objects.facts import builtin_kinds, load_schemas
from controlplane.objects.kinds import Kinds
from controlplane.store.memory import MemoryStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ADMIN = User(name="admin", groups=(MASTERS_GROUP,))


@dataclass(frozen=True)
class Served:
    parts: Parts
    api: ApiServer
    client: LocalClient
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def serving(*, history_bytes: int = 4 << 20, **changes: Any) -> AsyncIterator[Served]:
    """``changes``: parts that are not the default ones."""
    kinds = Kinds(builtin_kinds())
    cache = ObjectCache(kinds, present=presenter(kinds), history_bytes=history_bytes)
    store = MemoryStore()
    parts = Parts(
        kinds=kinds,
        schemas=load_schemas(),
        store=store,
        cache=cache,
        clock=lambda: NOW,
        network=Network(loopback=True),
    )
    parts = replace(parts, **changes)
    await cache.load(parts.store)
    feed = asyncio.ensure_future(cache.follow(parts.store))
    api = ApiServer(parts, Around(address="127.0.0.1:6443"))
    try:
        yield Served(parts, api, LocalClient(parts, ADMIN, manager="tests"))
    finally:
        await api.stop()
        feed.cancel()
        with suppress(asyncio.CancelledError):
            await feed
        await parts.store.close()


@asynccontextmanager
async def listening(**changes: Any) -> AsyncIterator[Served]:
    async with serving(**changes) as served:
        listener = Listener(served.api, tls=None)
        await listener.start("127.0.0.1", 0)
        try:
            yield replace(served, port=listener.port)
        finally:
            await listener.stop()
