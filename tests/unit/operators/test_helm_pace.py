"""Objects that change all the time, and the few looks that come of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from operators.helm import handlers
from operators.helm.pace import Pace
from operators.helm.process import slots
from operators.queue import Queue


class Clock:
    """A loop's timers without its time: they fire when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers: list[Timer] = []

    def call_later(self, seconds: float, call: Any, key: str) -> "Timer":
        self.timers.append(Timer(self.now + seconds, call, key))
        return self.timers[-1]

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.timers if timer.at <= end]:
            timer = min(due, key=lambda found: found.at)
            self.timers.remove(timer)
            self.now = timer.at
            if not timer.cancelled:
                timer.call(timer.key)
        self.now = end


class Timer:
    def __init__(self, at: float, call: Any, key: str) -> None:
        self.at, self.call, self.key, self.cancelled = at, call, key, False

    def cancel(self) -> None:
        self.cancelled = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: made)
    return made


def test_ten_changes_a_second_are_one_look_in_two_seconds(clock: Clock) -> None:
    state, seen = 0, []
    pace = Pace(lambda key: seen.append((key, state)), gap=2.0)
    for number in range(600):  # a minute
        state = number
        pace.add("a")
        clock.advance(0.1)
    clock.advance(10)
    assert len(seen) == 31
    assert seen[0] == ("a", 0)
    assert seen[-1] == ("a", 599)
    assert clock.timers == []


def test_one_key_does_not_slow_another(clock: Clock) -> None:
    seen: list[str] = []
    pace = Pace(seen.append, gap=2.0)
    for key in ("a", "a", "b", "a", "c"):
        pace.add(key)
    assert seen == ["a", "b", "c"]
    clock.advance(2)
    assert seen == ["a", "b", "c", "a"]
    clock.advance(5)
    pace.add("b")
    assert seen[-1] == "b"


def test_what_is_closed_looks_no_more(clock: Clock) -> None:
    seen: list[str] = []
    pace = Pace(seen.append, gap=2.0)
    pace.add("a")
    pace.add("a")
    pace.close()
    clock.advance(5)
    assert seen == ["a"]


async def test_a_storm_of_events_is_a_handful_of_looks_through_all_parts() -> None:
    looks: list[int] = []
    latest = 0
    quiet = asyncio.Event()

    async def look(key: str) -> None:
        looks.append(latest)
        if latest == 500:
            quiet.set()

    queue = Queue("HelmChart", look)
    pace = Pace(queue.add, gap=0.05)
    seen = handlers.Seen(pace.add)
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(queue.run())
        for generation in range(1, 501):
            latest = generation
            seen.chart(chart("a", generation=generation), gone=False)
            await asyncio.sleep(0)
        await quiet.wait()
        task.cancel()
        pace.close()
    assert len(looks) < 50
    assert looks[-1] == 500


def chart(name: str, *, generation: int = 1, ready: bool = False, **spec: Any) -> dict[str, Any]:
    condition = {"type": "Ready", "status": str(ready), "observedGeneration": generation}
    return {
        "metadata": {"namespace": "n", "name": name, "uid": name, "generation": generation},
        "spec": spec,
        "status": {"conditions": [condition]},
    }


@pytest.fixture
def added() -> list[str]:
    return []


@pytest.fixture
def seen(added: list[str]) -> handlers.Seen:
    return handlers.Seen(added.append)


def test_what_is_written_in_a_status_is_no_news(seen: handlers.Seen, added: list[str]) -> None:
    seen.chart(chart("a"), gone=False)
    seen.chart(chart("a", ready=True), gone=False)
    assert added == ["n/a"]
    seen.chart(chart("a", generation=2), gone=False)
    assert added == ["n/a", "n/a"]


def test_the_annotation_that_asks_for_a_check_is_news(
    seen: handlers.Seen, added: list[str]
) -> None:
    asked = chart("a")
    for value in ("1", "1", "2"):
        asked["metadata"]["annotations"] = {"helm.pinnace.dev/check": value}
        seen.chart(asked, gone=False)
    assert added == ["n/a", "n/a"]


def test_a_chart_that_becomes_ready_wakes_those_that_wait_for_it(
    seen: handlers.Seen, added: list[str]
) -> None:
    seen.chart(chart("web", dependsOn=[{"name": "db"}]), gone=False)
    seen.chart(chart("db"), gone=False)
    added.clear()
    seen.chart(chart("db", ready=True), gone=False)
    assert added == ["n/web"]
    seen.chart(chart("db", ready=True), gone=False)
    assert added == ["n/web"]
    seen.chart(chart("db", ready=True), gone=True)
    assert added == ["n/web", "n/db", "n/web"]
    seen.chart(chart("web"), gone=False)
    added.clear()
    seen.chart(chart("db", ready=True), gone=False)
    assert added == ["n/db"]


def secret(name: str, namespace: str = "n", version: int = 1) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": str(version)}}


def test_a_secret_wakes_the_charts_that_name_it(seen: handlers.Seen, added: list[str]) -> None:
    seen.chart(chart("a", authSecret={"name": "login"}), gone=False)
    seen.chart(chart("b", dockerRegistrySecret={"name": "login"}), gone=False)
    seen.config(chart("c", valuesSecrets=[{"name": "login", "keys": ["k"]}]), gone=False)
    seen.chart(chart("d"), gone=False)
    added.clear()
    seen.secret(secret("login"), gone=False)
    seen.secret(secret("login", "other"), gone=False)
    seen.secret(secret("other"), gone=False)
    assert added == ["n/a", "n/b", "n/c"]
    seen.config(chart("c"), gone=True)
    added.clear()
    seen.secret(secret("login"), gone=True)
    assert added == ["n/a", "n/b"]


def test_a_secret_that_is_listed_again_is_no_news_unless_it_changed(
    seen: handlers.Seen, added: list[str]
) -> None:
    seen.chart(chart("a", authSecret={"name": "login"}), gone=False)
    added.clear()
    for version in (1, 1, 2, 2):
        seen.secret(secret("login", version=version), gone=False)
    assert added == ["n/a", "n/a"]


@pytest.mark.parametrize(
    ("total", "limit", "expected"),
    [
        ("MemTotal:         500000 kB", "max", 1),
        ("MemTotal:        1900000 kB", "max", 2),
        ("MemTotal:       65000000 kB", "max", 4),
        ("MemTotal:       65000000 kB", "536870912", 1),
        ("", "max", 1),
        ("MemTotal:       65000000 kB", None, 4),
    ],
)
def test_a_small_machine_does_one_thing_at_a_time(
    tmp_path: Path, total: str, limit: str | None, expected: int
) -> None:
    (tmp_path / "meminfo").write_text(f"{total}\nMemFree: 1 kB\n")
    if limit:
        (tmp_path / "memory.max").write_text(f"{limit}\n")
    assert slots(tmp_path / "meminfo", tmp_path / "memory.max") == expected
