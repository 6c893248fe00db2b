import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from operators import crew
from operators.crew import Crew


class Member:
    def __init__(self) -> None:
        self.registered: list[Any] = []
        self.end: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def register(self, registry: Any) -> None:
        self.registered.append(registry)

    async def run(self) -> None:
        await self.end


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "FIRST_DELAY", 0.01)


class Makers:
    """Every operator that was made, by name; ``refuse``: names that cannot be made."""

    def __init__(self) -> None:
        self.made: dict[str, list[Member]] = {"a": [], "b": []}
        self.refuse: set[str] = set()

    def __call__(self, name: str) -> Member:
        if name in self.refuse:
            raise ImportError(f"no {name}")
        self.made[name].append(Member())
        return self.made[name][-1]


@asynccontextmanager
async def running(makers: Makers) -> AsyncIterator[Crew]:
    made = Crew(("a", "b"), makers, lambda: 0.0)
    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(made.run())
        await made.begun()
        yield made
        task.cancel()


async def test_an_operator_that_fails_is_made_anew_and_the_other_works_on() -> None:
    makers = Makers()
    async with running(makers) as made:
        made.register("first")
        makers.made["a"][0].end.set_exception(ValueError("no"))
        await made.changed()
        made.register("second")
        assert len(makers.made["a"]) == 2
        assert makers.made["a"][1].registered == ["second"]
        # The same one as before, which now notes what the new watches see.
        assert len(makers.made["b"]) == 1
        assert makers.made["b"][0].registered == ["first", "second"]
        assert made.restarts == {"a": 1, "b": 0}


async def test_an_operator_that_returns_is_made_anew() -> None:
    makers = Makers()
    async with running(makers) as made:
        made.register("first")
        makers.made["a"][0].end.set_result(None)
        await made.changed()
        assert len(makers.made["a"]) == 2


async def test_an_operator_that_cancels_itself_is_made_anew() -> None:
    makers = Makers()
    async with running(makers) as made:
        made.register("first")
        makers.made["a"][0].end.cancel()
        await made.changed()
        assert len(makers.made["a"]) == 2


async def test_an_operator_that_cannot_be_made_keeps_no_other_from_working() -> None:
    makers = Makers()
    makers.refuse = {"a"}
    async with running(makers) as made:
        assert made.running.keys() == {"b"}
        made.register("first")
        makers.refuse = set()
        await made.changed()
        assert made.running.keys() == {"a", "b"}


async def test_an_operator_that_cannot_register_does_not_end_the_watches() -> None:
    makers = Makers()
    async with running(makers) as made:

        def refuse(registry: Any) -> None:
            raise TypeError("no")

        makers.made["a"][0].register = refuse  # type: ignore[method-assign]
        made.register("first")
        assert makers.made["b"][0].registered == ["first"]


async def test_the_end_is_everybody_s_end() -> None:
    makers = Makers()
    async with running(makers):
        pass
    assert makers.made["a"][0].end.cancelled()
    assert makers.made["b"][0].end.cancelled()
