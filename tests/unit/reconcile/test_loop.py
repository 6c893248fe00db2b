"""What the loop promises to every controller."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from controlplane.client.base import Object, Reads
from controlplane.objects.errors import conflict, forbidden
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import CONFIG_MAPS, EVENTS, SECRETS
from controlplane.reconcile.base import Again, Controller, Create, Key, Record, Write
from controlplane.reconcile.loop import TwoOwners, describe, refuse_two_owners
from tests.fakes.reads import World
from tests.fakes.running import running


def secret(name: str, namespace: str = "default", **fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        **fields,
    }


def config_map(name: str) -> dict[str, Any]:
    return {**secret(name), "kind": "ConfigMap"}


def copy(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    """A ConfigMap for each Secret."""
    found = reads.get(SECRETS, key.namespace, key.name)
    if found is not None and reads.get(CONFIG_MAPS, key.namespace, key.name) is None:
        yield Create(CONFIG_MAPS, config_map(key.name))
        yield Record(found, "Normal", "Copied", f"Copied {key.name}")


COPIER = Controller(
    name="copier",
    primary=SECRETS,
    reads=frozenset({CONFIG_MAPS}),
    writes=frozenset({CONFIG_MAPS}),
    reconcile=copy,
    keys_for=lambda change, reads: [Key(change.namespace, change.name)],
)


async def test_what_exists_and_what_comes_is_reconciled() -> None:
    world = World()
    world.put(SECRETS, secret("before"))
    async with running(COPIER, world=world) as run:
        assert world.get(CONFIG_MAPS, "default", "before")
        world.put(SECRETS, secret("after"))
        await run.settle()
        assert world.get(CONFIG_MAPS, "default", "after")


async def test_a_change_to_another_kind_brings_its_key_back() -> None:
    async with running(COPIER) as run:
        run.world.put(SECRETS, secret("a"))
        await run.settle()
        run.world.remove(CONFIG_MAPS, "default", "a")
        await run.settle()
        assert run.world.get(CONFIG_MAPS, "default", "a")


async def test_nothing_is_scheduled_at_idle() -> None:
    async with running(COPIER) as run:
        run.world.put(SECRETS, secret("a"))
        await run.settle()
        passes = run.loop.counters["copier"].passes
        await run.advance(100_000)
        assert run.clock.timers == 0
        assert run.loop.counters["copier"].passes == passes


async def test_a_failure_comes_back_with_growing_delays() -> None:
    world, refused = World(), list[float]()
    async with running(COPIER, world=world) as run:

        def refuse(verb: str, resource: Resource, body: Object) -> None:
            if resource == CONFIG_MAPS:
                refused.append(run.clock.monotonic())
                raise forbidden("configmaps", "a", "not now")

        world.refuse = refuse
        world.put(SECRETS, secret("a"))
        await run.settle()
        for _ in range(1000):
            await run.advance(0.001)
        gaps = [b - a for a, b in itertools.pairwise(refused)]
        assert len(gaps) >= 4
        assert gaps[-1] > gaps[0]
        assert run.loop.counters["copier"].errors == len(refused)
        world.refuse = None
        await run.advance(10)
        assert world.get(CONFIG_MAPS, "default", "a")
        assert run.clock.timers == 0


async def test_a_conflict_comes_back_at_once() -> None:
    world, left = World(), [2]

    def refuse(verb: str, resource: Resource, body: Object) -> None:
        if resource == CONFIG_MAPS and left[0]:
            left[0] -= 1
            raise conflict("configmaps", "a")

    world.refuse = refuse
    async with running(COPIER, world=world) as run:
        world.put(SECRETS, secret("a"))
        await run.settle()
        assert world.get(CONFIG_MAPS, "default", "a")
        assert run.loop.counters["copier"].conflicts == 2


async def test_again_calls_once_more_without_a_change() -> None:
    calls: list[datetime] = []

    def reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        calls.append(now)
        if len(calls) == 1:
            yield Again(timedelta(seconds=30))

    async with running(replace(COPIER, reconcile=reconcile)) as run:
        run.world.put(SECRETS, secret("a"))
        await run.settle()
        await run.advance(29)
        assert len(calls) == 1
        await run.advance(1)
        assert len(calls) == 2
        assert run.clock.timers == 0


async def test_the_same_event_is_counted_up() -> None:
    def reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        found = reads.get(SECRETS, key.namespace, key.name)
        if found is not None:
            yield Record(found, "Warning", "Odd", "this is odd")

    async with running(replace(COPIER, reconcile=reconcile)) as run:
        run.world.put(SECRETS, secret("a"))
        for value in "xyz":
            await run.settle()
            run.world.change(SECRETS, "default", "a", data={"key": value})
        await run.settle()
        (event,) = run.world.list(EVENTS)
        assert event["count"] == 4
        assert event["involvedObject"]["name"] == "a"
        assert event["source"] == {"component": "copier"}


async def test_many_events_alike_are_combined_and_then_silenced() -> None:
    def reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
        found = reads.get(SECRETS, key.namespace, key.name)
        for number in range(40):
            if found is not None:
                yield Record(found, "Warning", "Odd", f"odd number {number}")

    async with running(replace(COPIER, reconcile=reconcile)) as run:
        run.world.put(SECRETS, secret("a"))
        await run.settle()
        events = run.world.list(EVENTS)
        combined = [e for e in events if e["message"].startswith("(combined from similar")]
        assert len(events) == 11
        assert [e["count"] for e in combined] == [15]  # 25 at once, 10 of them apart


def test_two_writers_of_a_kind_are_refused_unless_both_share_it() -> None:
    other = replace(COPIER, name="other")
    shares = frozenset({CONFIG_MAPS})
    with pytest.raises(TwoOwners, match="copier and other write configmaps"):
        refuse_two_owners([COPIER, replace(other, shares=shares)])
    refuse_two_owners([replace(COPIER, shares=shares), replace(other, shares=shares)])


def test_controllers_describe_themselves() -> None:
    assert "| copier | secrets | configmaps | configmaps |" in describe([COPIER])
