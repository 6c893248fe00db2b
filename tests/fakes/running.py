"""Run controllers over a world until they have nothing more to do."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

from controlplane.client.base import Client
from controlplane.reconcile.base import Controller
from controlplane.reconcile.loop import Loop
from tests.fakes.clock import FakeClock
from tests.fakes.reads import KINDS, World, WorldClient


class Running:
    """A started loop with its world and clock."""

    def __init__(self, controllers: Sequence[Controller], world: World | None = None) -> None:
        self.world = world or World()
        self.clock = FakeClock()
        self.client = cast(Client, WorldClient(self.world))
        self.loop = Loop(
            controllers,
            client=self.client,
            reads=self.world,
            feed=self.world,
            clock=self.clock,
            kinds=KINDS,
        )

    async def settle(self) -> None:
        """Until nothing waits; events included."""
        async with asyncio.timeout(10):
            await self.loop.wait_idle()
            for _ in range(50):
                await asyncio.sleep(0)
            await self.loop.wait_idle()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await self.settle()


@asynccontextmanager
async def running(*controllers: Controller, world: World | None = None) -> AsyncIterator[Running]:
    made = Running(controllers, world)
    task = asyncio.ensure_future(made.loop.run())
    try:
        await asyncio.sleep(0)
        await made.settle()
        yield made
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
