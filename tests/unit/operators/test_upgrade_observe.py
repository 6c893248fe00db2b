"""When drains, Jobs, checks and channels are looked at, and what is kept of it."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from operators.upgrade.base import Drained, Offer, OfferError, Verdict
from operators.upgrade.observe import ASK_FIRST, CHECK_FIRST, CHECK_LONGEST, Observer, Tools
from operators.upgrade.spec import Plan, plan_of
from operators.upgrade.world import Decision
from tests.fakes.clock import START
from tests.fakes.upgrade_agent import V2

BOARDS = frozenset({"x86-64"})
PODS = {"name": "web", "pods": {"namespace": "default", "selector": {}}}


def plan(generation: int = 1, name: str = "fleet", **spec: Any) -> Plan:
    metadata = {"name": name, "uid": f"uid-{name}", "generation": generation}
    return plan_of({"metadata": metadata, "spec": {"version": V2, "source": "/usb", **spec}})


class World:
    """Answers as a test says; ``made``: which tools were needed at all."""

    def __init__(self) -> None:
        self.now = START
        self.made: list[str] = []
        self.keys: list[str] = []
        self.told: list[str] = []
        self.failure: OfferError | None = None
        self.passes = True
        self.left = Drained(done=True, message="", retry_at=None)
        self.during: Any = None  # what happens while somebody looks
        self.observer = Observer(
            Tools(
                channels=lambda: self._make("channels"),
                checks=lambda: self._make("checks"),
                drains=lambda: self._make("drains"),
                jobs=lambda: self._make("jobs"),
            ),
            now=lambda: self.now,
            add=self.keys.append,
            changed=self.told.append,
        )

    def _make(self, name: str) -> Any:
        self.made.append(name)
        return self

    async def offers(
        self, spec: Mapping[str, Any], boards: Sequence[str], *, serial: int = 0
    ) -> Mapping[str, Offer]:
        if self.failure is not None:
            raise self.failure
        return {b: Offer(version=V2, url=f"/usb/{b}", sha256="", size=0) for b in boards}

    async def verdict(self, checks: Any, *, node: str) -> Verdict:
        return Verdict(passed=self.passes, message="" if self.passes else "web: 503")

    async def drain(self, node: str, options: Any, *, since: datetime) -> Drained:
        if self.during is not None:
            self.during()
        return self.left

    async def ensure(self, plan: Any, node: str, version: str) -> Drained:
        return self.left

    async def remove(self, plan: str, node: str) -> None:
        raise NotImplementedError


async def test_nothing_is_made_before_somebody_needs_it() -> None:
    world = World()
    world.observer.want(plan(), Decision())
    world.observer.pod_changed("a0")
    assert (world.made, world.keys) == ([], [])
    world.observer.want(plan(), Decision(drains={"a0": START}))
    assert world.keys == ["drain a0"]
    assert await world.observer.look("drain a0") is None
    assert world.made == ["drains"]
    assert world.observer.drained["a0"].done
    assert world.told == ["fleet"]


async def test_the_same_wish_is_queued_once_and_a_wish_that_is_over_is_forgotten() -> None:
    world, drains = World(), Decision(drains={"a0": START})
    for _ in range(3):
        world.observer.want(plan(), drains)
    assert world.keys == ["drain a0"]
    await world.observer.look("drain a0")
    world.observer.want(plan(), Decision())
    assert world.observer.drained == {}
    assert await world.observer.look("drain a0") is None


async def test_a_new_drain_of_the_same_node_begins_without_what_was_seen_before() -> None:
    world = World()
    world.observer.want(plan(), Decision(drains={"a0": START}))
    await world.observer.look("drain a0")
    world.observer.want(plan(), Decision(drains={"a0": START + timedelta(hours=1)}))
    assert world.observer.drained == {}
    assert world.keys == ["drain a0", "drain a0"]


async def test_what_was_seen_for_nobody_any_more_is_not_kept() -> None:
    world = World()
    world.during = lambda: world.observer.want(plan(), Decision())
    world.observer.want(plan(), Decision(drains={"a0": START}))
    await world.observer.look("drain a0")
    assert world.observer.drained == {}


async def test_a_drain_is_looked_at_when_it_asks_to_be_and_when_a_pod_changes() -> None:
    world = World()
    again = world.now + timedelta(seconds=7)
    world.left = Drained(done=False, message="web-0", retry_at=again)
    world.observer.want(plan(), Decision(drains={"a0": START}))
    assert await world.observer.look("drain a0") == 7.0
    assert await world.observer.look("drain a0") == 7.0
    assert world.told == ["fleet"]  # once: nothing new came
    world.observer.pod_changed("a1")
    assert world.keys == ["drain a0"]
    world.observer.pod_changed("a0")
    assert world.keys == ["drain a0", "drain a0"]


async def test_checks_that_fail_are_looked_at_ever_later_and_pods_may_tell_earlier() -> None:
    world = World()
    world.passes = False
    checked = plan(healthChecks=[PODS])
    world.observer.want(checked, Decision(judge=["a0"]))
    waits = [await world.observer.look("check a0") or 0.0 for _ in range(7)]
    assert waits[0] == CHECK_FIRST
    assert waits == sorted(waits)
    assert waits[-1] == CHECK_LONGEST
    world.observer.pod_changed("anywhere")
    assert world.keys == ["check a0", "check a0"]


async def test_passing_counts_from_the_first_time_and_from_anew_after_a_break() -> None:
    world = World()
    world.observer.want(plan(healthChecks=[PODS], soakSeconds=100), Decision(judge=["a0"]))
    assert await world.observer.look("check a0") == CHECK_LONGEST
    world.now += timedelta(seconds=90)
    assert await world.observer.look("check a0") == 10.0
    assert world.observer.judged["a0"].since == START
    world.passes = False
    await world.observer.look("check a0")
    assert not world.observer.judged["a0"].verdict.passed
    world.passes = True
    await world.observer.look("check a0")
    world.now += timedelta(seconds=100)
    assert await world.observer.look("check a0") is None
    judged = world.observer.judged["a0"]
    assert (judged.at, judged.since) == (world.now, world.now - timedelta(seconds=100))


async def test_a_channel_that_fails_is_asked_ever_later_and_what_it_said_stays() -> None:
    world, asks = World(), Decision(ask=BOARDS)
    world.observer.want(plan(), asks)
    assert await world.observer.look("ask fleet") is None
    world.observer.want(plan(), Decision())
    world.failure = OfferError("ChannelUnreachable", "no route")
    world.observer.want(plan(), asks)
    assert await world.observer.look("ask fleet") == ASK_FIRST
    world.observer.want(plan(), Decision())  # the plan does not ask again: it is tried anyway
    assert await world.observer.look("ask fleet") == 2 * ASK_FIRST
    found = world.observer.found["uid-fleet", 1]
    assert found.offers is not None
    assert (found.reason, found.message) == ("ChannelUnreachable", "no route")
    world.failure = None
    assert await world.observer.look("ask fleet") is None
    assert world.observer.found["uid-fleet", 1].reason == ""


async def test_another_spec_is_asked_for_at_once_and_the_old_answer_goes() -> None:
    world = World()
    world.failure = OfferError("NoSuchVersion", "none")
    world.observer.want(plan(), Decision(ask=BOARDS))
    await world.observer.look("ask fleet")
    world.failure = None
    world.observer.want(plan(2), Decision(ask=BOARDS))
    assert world.keys == ["ask fleet", "ask fleet"]
    assert world.observer.found == {}
    await world.observer.look("ask fleet")
    assert set(world.observer.found) == {("uid-fleet", 2)}


async def test_of_a_plan_that_is_gone_nothing_is_kept() -> None:
    world = World()
    wishes = Decision(ask=BOARDS, drains={"a0": START}, jobs={"a1": V2})
    world.observer.want(plan(), wishes)
    other = replace(plan(name="other"))
    world.observer.want(other, Decision(drains={"b0": START}))
    for key in ("ask fleet", "drain a0", "job a1", "drain b0"):
        await world.observer.look(key)
    world.observer.gone("fleet", {"uid-other"})
    assert (world.observer.found, world.observer.jobs) == ({}, {})
    assert set(world.observer.drained) == {"b0"}
