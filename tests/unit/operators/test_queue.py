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
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.run())
        yield made
        task.cancel()


async def test_many_events_for_a_key_cost_one_look() -> None:
    looks: list[str] = []
    last = asyncio.Event()

    async def look(key: str) -> None:
        looks.append(key)
        if key == "b":
            last.set()

    made = Queue("test", look, workers=1)
    for key in ("a", "a", "a", "b"):
        made.add(key)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.run())
        await last.wait()
        task.cancel()
    assert looks == ["a", "b"]


async def test_a_key_is_never_looked_at_by_two() -> None:
    begun: asyncio.Queue[int] = asyncio.Queue()
    release = asyncio.Event()
    at_once = 0

    async def look(key: str) -> None:
        nonlocal at_once
        at_once += 1
        begun.put_nowait(at_once)
        await release.wait()
        at_once -= 1

    async with running(look) as made:
        made.add("a")
        assert await begun.get() == 1
        made.add("a")  # while it runs: once more afterwards
        release.set()
        assert await begun.get() == 1


async def test_a_failure_comes_again_and_does_not_stop_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(queue, "FIRST_DELAY", 0.01)
    looks: asyncio.Queue[str] = asyncio.Queue()
    failures = iter([ValueError("no"), asyncio.CancelledError()])

    async def look(key: str) -> None:
        looks.put_nowait(key)
        if error := next(failures, None):
            raise error

    async with running(look, workers=1) as made:
        made.add("a")
        assert [await looks.get() for _ in range(3)] == ["a", "a", "a"]
        made.add("b")
        assert await looks.get() == "b"


async def test_a_look_may_ask_for_another_one() -> None:
    looks: asyncio.Queue[str] = asyncio.Queue()

    async def look(key: str) -> float | None:
        looks.put_nowait(key)
        return 0.0 if looks.qsize() < 2 else None

    async with running(look) as made:
        made.add("a")
        assert [await looks.get() for _ in range(2)] == ["a", "a"]
