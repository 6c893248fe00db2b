"""Quotas over the real API: what is over is refused, what is given back can be used again."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.api.admission.resource_quota import ResourceQuota
from controlplane.api.local import LocalClient
from controlplane.controllers import resource_quota
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import CONFIG_MAPS, NAMESPACES, RESOURCE_QUOTAS
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from tests.fakes.api_server import ADMIN, Served, serving

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def config_map(name: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "a"}}


async def used(served: Served, wanted: str) -> None:
    def is_used() -> bool:
        quota = served.parts.cache.get(RESOURCE_QUOTAS, "a", "few") or {}
        return bool((quota.get("status") or {}).get("used") == {"configmaps": wanted})

    await until(served, is_used)


async def until(served: Served, holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():
            await served.parts.cache.wait_for(served.parts.cache.revision + 1)


async def test_a_quota_refuses_what_is_over_and_counts_what_is_deleted() -> None:
    found: list[LocalClient] = []
    admission = ResourceQuota(lambda: found[0], lambda: NOW)
    async with serving(admissions=(admission,)) as served, asyncio.TaskGroup() as tasks:
        found.append(LocalClient(served.parts, ADMIN))
        client, cache = served.client, served.parts.cache
        kinds = served.parts.kinds
        clock = LoopClock(lambda: NOW)
        loop = Loop(
            [resource_quota.make(kinds)],
            client=client,
            reads=cache,
            feed=cache,
            clock=clock,
            kinds=kinds,
        )
        running = tasks.create_task(loop.run())
        await client.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}
        )
        metadata = {"name": "few", "namespace": "a"}
        spec = {"hard": {"configmaps": "1"}}
        body = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": spec}
        await client.create(RESOURCE_QUOTAS, body)
        await used(served, "0")
        await client.create(CONFIG_MAPS, config_map("one"))
        await used(served, "1")
        with pytest.raises(StatusError, match="exceeded quota: few") as caught:
            await client.create(CONFIG_MAPS, config_map("two"))
        assert caught.value.code == 403
        await client.delete(CONFIG_MAPS, "a", "one")
        await used(served, "0")
        await client.create(CONFIG_MAPS, config_map("two"))
        running.cancel()
