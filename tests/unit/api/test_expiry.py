"""Events go when their time is up."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from controlplane.api.expiry import EventExpiry
from controlplane.objects.resources import EVENTS
from tests.fakes.api_server import Served, serving


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def event(name: str) -> dict[str, object]:
    about = {"kind": "Pod", "name": "p", "namespace": "default"}
    return {"metadata": {"name": name, "namespace": "default"}, "involvedObject": about}


@asynccontextmanager
async def expiring(clock: Clock, most: int = 100) -> AsyncIterator[Served]:
    async with serving() as served, asyncio.TaskGroup() as tasks:
        parts = served.parts
        expiry = EventExpiry(parts.store, parts.cache, monotonic=clock, seconds=10, most=most)
        running = tasks.create_task(expiry.run())
        try:
            yield served
        finally:
            running.cancel()


async def left(served: Served, count: int) -> list[str]:
    """The names once so many are left; each deletion moves the revision."""
    async with asyncio.timeout(5):
        while len(served.parts.cache.list(EVENTS)) > count:
            await served.parts.cache.wait_for(served.parts.cache.revision + 1)
    return [obj["metadata"]["name"] for obj in served.parts.cache.list(EVENTS)]


async def test_old_events_go_when_the_next_one_comes() -> None:
    clock = Clock()
    async with expiring(clock) as served:
        await served.client.create(EVENTS, event("old"))
        await asyncio.sleep(0)
        clock.now = 11
        await served.client.create(EVENTS, event("new"))
        assert await left(served, 1) == ["new"]


async def test_the_oldest_go_when_there_are_too_many() -> None:
    async with expiring(Clock(), most=2) as served:
        for name in "abcd":
            await served.client.create(EVENTS, event(name))
        assert await left(served, 2) == ["c", "d"]


async def test_expiry_goes_on_after_all_watches_were_ended() -> None:
    clock = Clock()
    async with expiring(clock) as served, asyncio.timeout(5):
        await served.client.create(EVENTS, event("old"))
        served.parts.cache.end_watches()
        await asyncio.sleep(0)
        clock.now = 11
        await served.client.create(EVENTS, event("new"))
        assert await left(served, 1) == ["new"]
