import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from operators import queue
from operators.queue import Queue


@asynccontextmanager
async def running(
    reconcile: Callable[[str], Awaitable[float | None]], workers: int = 4
) -> AsyncIterator[Queue]:
    made = Queue("test", reconcile, workers=workers)
    async with asyncio.TaskGroup() as tasks:  # time moves on too fast for a time limit
        task = tasks.create_task(made.run())
        yield made
        task.cancel()


class Clock:
    """Time of the loop that a test moves on: timers that are due then run."""

    def __init__(self, loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch) -> None:
        self._offset = 0.0
        self._loop = loop
        real = loop.time
        monkeypatch.setattr(loop, "time", lambda: real() + self._offset)

    async def forward(self, seconds: float) -> None:
        self._offset += seconds
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(asyncio.get_running_loop(), monkeypatch)


async def test_an_object_that_flaps_costs_a_bounded_number_of_looks(clock: Clock) -> None:
    looks: list[str] = []

    async def look(key: str) -> None:
        looks.append(key)

    async with running(look) as made:
        for _ in range(600):  # a minute, ten times a second
            made.add("flapping")
            await clock.forward(0.1)
    most = queue.BURST + 6 + 60 / queue.LONGEST_INTERVAL
    assert len(looks) <= most
    assert len(looks) >= 60 / queue.LONGEST_INTERVAL - 1


async def test_the_last_event_of_a_storm_is_looked_at(clock: Clock) -> None:
    state, seen = 0, []

    async def look(key: str) -> None:
        seen.append(state)

    async with running(look) as made:
        for number in range(1, 101):
            state = number
            made.add("a")
            await clock.forward(0.1)
        await clock.forward(queue.LONGEST_INTERVAL)
    assert seen[-1] == 100


async def test_a_storm_of_one_key_does_not_slow_another(clock: Clock) -> None:
    looks: list[str] = []

    async def look(key: str) -> None:
        looks.append(key)

    async with running(look, workers=1) as made:
        for _ in range(50):
            made.add("flapping")
            await clock.forward(0.1)
        looks.clear()
        made.add("calm")
        await clock.forward(0)
        assert "calm" in looks


async def test_a_key_that_rested_is_new_again(clock: Clock) -> None:
    looks: list[str] = []

    async def look(key: str) -> None:
        looks.append(key)

    async with running(look) as made:
        for _ in range(100):
            made.add("a")
            await clock.forward(0.1)
        await clock.forward(queue.LONGEST_INTERVAL)  # the last look of the storm
        await clock.forward(60)
        looks.clear()
        for _ in range(queue.BURST):
            made.add("a")
            await clock.forward(0)
        assert len(looks) == queue.BURST


async def test_keys_are_looked_at_in_the_order_in_which_they_came() -> None:
    looks: list[str] = []
    last = asyncio.Event()

    async def look(key: str) -> None:
        looks.append(key)
        if len(looks) == 100:
            last.set()

    async with running(look, workers=1) as made:
        keys = [f"k{number}" for number in range(100)]
        for key in keys:
            made.add(key)
        await last.wait()
    assert looks == keys


async def test_failures_come_again_ever_later(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def look(key: str) -> None:
        raise ValueError("no")

    async with running(look) as made:
        made.add("a")
        for _ in range(12):
            await clock.forward(queue.LONGEST_DELAY + 1)
        assert made.failures == made.looks == 12
    delays = [record.args[3] for record in caplog.records if isinstance(record.args, tuple)]
    assert delays[:4] == [1.0, 2.0, 4.0, 8.0]
    assert delays[-1] == queue.LONGEST_DELAY


async def test_nothing_is_kept_of_keys_that_rested(clock: Clock) -> None:
    async def look(key: str) -> None:
        return None

    async with running(look) as made:
        for number in range(100):
            made.add(f"k{number}")
            await clock.forward(0.01)
        await clock.forward(60)
        made.add("last")
        await clock.forward(0)
        assert list(made._paces) == ["last"]
        assert made.depth == 0
        assert made._timers == {}


async def test_a_look_that_always_asks_for_another_does_not_spin(clock: Clock) -> None:
    looks: list[str] = []

    async def look(key: str) -> float:
        looks.append(key)
        return 0.0

    async with running(look) as made:
        made.add("a")
        for _ in range(600):
            await clock.forward(0.1)
    assert len(looks) <= queue.BURST + 6 + 60 / queue.LONGEST_INTERVAL
