"""Plans over simulated nodes behind the real API, with time that costs none."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from operators.upgrade.base import Drained
from tests.fakes.operators_balancer import virtually
from tests.fakes.upgrade_agent import BROKEN, LOST, V1, V2, V3
from tests.fakes.upgrade_nodes import World, world

CHECK = {"name": "web", "http": {"url": "http://web.default"}}
HOUR, DAY = 3600.0, 86400.0


def run(work: Callable[[World], Awaitable[None]]) -> None:
    async def main() -> None:
        async with world() as made:
            await work(made)

    virtually(main)


async def fleet(made: World, agents: int = 3, **more: Any) -> None:
    await made.add("s0", server=True)
    for number in range(agents):
        await made.add(f"a{number:03}", **more)


def test_a_fleet_is_upgraded_servers_first_and_within_its_bounds() -> None:
    async def work(made: World) -> None:
        await fleet(made, 6)
        await made.plan(concurrency=2, drain={"enabled": True}, healthChecks=[CHECK])
        await made.live(DAY, until=made.complete)
        status = await made.status()
        assert (status["phase"], status["progress"]) == ("Complete", "7/7")
        assert {agent.running for agent in made.agents.values()} == {V2}
        assert made.started[0] == "s0"
        assert made.most == 2
        assert not await made.cordoned()

    run(work)


@pytest.mark.timeout(600)
def test_five_hundred_nodes_cost_few_calls_each() -> None:
    async def work(made: World) -> None:
        await fleet(made, 499)
        made.step_seconds = 60.0
        await made.plan(concurrency="20%", drain={"enabled": True}, healthChecks=[CHECK])
        await made.live(3 * DAY, until=made.complete)
        assert (await made.status())["progress"] == "500/500"
        calls = made.api.calls
        assert calls["patch", "nodes"] == 500 * 5
        assert calls["create", "events"] <= 500 * 2 + 20
        assert calls["patch", "upgradeplans"] <= 500
        assert sum(calls.values()) <= 500 * 9
        assert made.most <= 100

    run(work)


def test_at_rest_nothing_is_asked_and_nothing_written() -> None:
    async def work(made: World) -> None:
        await fleet(made)
        await made.plan()
        await made.live(DAY, until=made.complete)
        await made.stop()
        made.start()
        await asyncio.sleep(60)
        before = made.api.calls.copy()
        looks = made.others.looks.copy()
        await asyncio.sleep(30 * DAY)
        assert (made.api.calls, made.others.looks) == (before, looks)

    run(work)


def test_canaries_and_windows_hold_behind_the_api_too() -> None:
    async def work(made: World) -> None:
        await fleet(made, 4)
        # It is a Thursday, midnight.
        window = {"days": ["th", "fr"], "startTime": "03:00", "endTime": "04:00"}
        canaries = [{"name": "first", "count": 1, "soakSeconds": 600}]
        await made.plan(window=window, canaries=canaries, concurrency=4)
        await made.live(2 * HOUR)
        assert ((await made.status())["phase"], made.started) == ("Waiting", [])
        await made.live(1.1 * HOUR)
        assert made.started == ["s0"]
        assert (await made.status())["phase"] == "Soaking"
        await made.live(2 * DAY, until=made.complete)
        assert made.started[:2] == ["s0", "a000"]
        assert (await made.status())["phase"] == "Complete"

    run(work)


def test_a_node_that_never_comes_back_pauses_the_plan_with_the_reason() -> None:
    async def work(made: World) -> None:
        await fleet(made)
        made.agents["a001"].conduct = LOST
        await made.plan()
        await made.live(DAY)
        status = await made.status()
        assert status["phase"] == "Paused"
        assert "a001 Lost: did not come back" in status["message"]
        assert (await made.phases())["a002"] == "Pending"

    run(work)


def test_a_broken_version_takes_all_nodes_back() -> None:
    async def work(made: World) -> None:
        await fleet(made, 4)
        made.agents["a002"].conduct = BROKEN
        await made.plan(failurePolicy="RollbackAll")
        await made.live(DAY)
        status = await made.status()
        assert status["phase"] == "Failed"
        assert {agent.running for agent in made.agents.values()} == {V1}
        assert [entry["outcome"] for entry in status["history"]] == ["RolledBack"]
        assert not await made.cordoned()

    run(work)


def test_deleting_a_plan_half_way_leaves_no_node_behind() -> None:
    async def work(made: World) -> None:
        await fleet(made, 3)
        made.others.drained["a000"] = Drained(done=False, message="web-0", retry_at=None)
        await made.plan(drain={"enabled": True})
        await made.live(HOUR)
        assert await made.cordoned() == {"a000"}
        await made.delete()
        await made.live(HOUR)
        assert not await made.cordoned()
        assert made.agents["a000"].running == V1
        assert made.agents["s0"].running == V2

    run(work)


def test_a_channel_is_followed_and_asked_when_it_is_due() -> None:
    async def work(made: World) -> None:
        await fleet(made)
        await made.plan(channel="/usb/channel", channelIntervalMinutes=360)
        await made.live(2 * HOUR)
        assert (await made.status())["phase"] == "Complete"
        assert made.others.looks["channel"] == 1
        made.others.version = V3
        await made.live(5 * HOUR)
        status = await made.status()
        assert {agent.running for agent in made.agents.values()} == {V3}
        assert [entry["version"] for entry in status["history"]] == [V3, V2]
        assert made.others.looks["channel"] == 2

    run(work)


@pytest.mark.parametrize("after", [False, True], ids=["before", "behind"])
@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 9, 12, 16])
def test_an_operator_that_is_killed_at_any_write_goes_on(number: int, after: bool) -> None:
    async def work(made: World) -> None:
        await fleet(made, 2)
        made.api.kill_at, made.api.after = number, after
        await made.plan(drain={"enabled": True}, healthChecks=[CHECK], soakSeconds=5)
        await made.live(HOUR, until=lambda: _killed(made))
        await made.stop()
        made.api.kill_at = None
        await made.live(DAY, until=made.complete)
        assert (await made.status())["progress"] == "3/3"
        assert all(agent.told.count("Trial") == 1 for agent in made.agents.values())
        assert not await made.cordoned()

    run(work)


async def _killed(made: World) -> bool:
    return (made.api.kill_at is not None and made.api.kill_at < 0) or await made.complete()


def test_an_api_that_refuses_now_and_then_changes_nothing_in_the_end() -> None:
    async def work(made: World) -> None:
        await fleet(made, 2)
        codes = itertools.cycle([409, 0, 500, 0, 0, 429, 0, 0, 0, 404])
        made.api.fault = lambda: next(codes)
        await made.plan(drain={"enabled": True}, healthChecks=[CHECK], soakSeconds=5)
        await made.live(DAY, until=made.complete)
        assert (await made.status())["progress"] == "3/3"
        assert all(agent.told.count("Trial") == 1 for agent in made.agents.values())
        assert not await made.cordoned()

    run(work)


def test_an_older_plan_that_comes_to_choose_a_node_waits_for_the_younger_ones_work() -> None:
    async def work(made: World) -> None:
        await fleet(made, 2)
        await made.plan("older", version=V3, nodeSelector={"matchLabels": {"none": "here"}})
        await asyncio.sleep(2)
        await made.plan("younger", healthChecks=[CHECK])
        made.others.passing["s0"] = False
        await made.live(200)
        assert made.agents["s0"].phase == "Trial"
        await made.change("older", nodeSelector=None)
        made.others.passing.clear()
        await made.live(HOUR)
        assert {agent.running for agent in made.agents.values()} == {V3}
        assert made.agents["s0"].told.count("Committed") == 2
        assert (await made.status("younger"))["counts"]["skipped"] == 3

    run(work)


def test_one_server_alone_is_upgraded_by_an_operator_that_goes_down_with_it() -> None:
    async def work(made: World) -> None:
        await made.add("s0", server=True)
        await made.plan(drain={"enabled": True}, healthChecks=[CHECK])

        async def switching() -> bool:
            return made.agents["s0"].phase == "Switching"

        await made.live(HOUR, until=switching)
        await made.stop()
        assert not await made.cordoned()
        await made.live(HOUR, until=made.complete)
        assert (await made.status())["phase"] == "Complete"
        assert made.others.looks["drain"] == 0

    run(work)
