"""
An API server on a memory store, as tests need one: real verbs, real HTTP if wanted.

``serving()`` gives the parts with a running cache; ``listening()`` adds a
listener on a free port of the loopback address; ``defining()`` has custom resources served.
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
from controlplane.api.customresources.serve import CustomKinds
from controlplane.api.local import LocalClient
from controlplane.api.present import presenter
from controlplane.api.server import Listener
from controlplane.controllers import customresources
from controlplane.objects.facts import builtin_kinds, load_schemas, schema_by_name
from controlplane.objects.kinds import Kinds
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.store.memory import MemoryStore

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
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


def follow_definitions(served: Served) -> None:
    """Kinds are served as soon as their definition says that it is established."""
    parts = served.parts
    CustomKinds(
        parts.kinds,
        parts.schemas,
        metadata=schema_by_name(_META),
        changed=served.api.kinds_changed,
    ).follow(parts.cache)


@asynccontextmanager
async def defining(served: Served) -> AsyncIterator[None]:
    """The same, with the controller that establishes definitions."""
    follow_definitions(served)
    loop = Loop(
        [customresources.CONTROLLER],
        client=served.client,
        reads=served.parts.cache,
        feed=served.parts.cache,
        clock=LoopClock(lambda: NOW),
        kinds=served.parts.kinds,
    )
    task = asyncio.ensure_future(loop.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
