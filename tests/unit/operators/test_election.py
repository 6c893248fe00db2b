import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from operators.client import ApiError
from operators.election import Elector, Told, claim, surrender

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def told(identity: str) -> Told:
    return Told(namespace="kube-system", name="lease", identity=identity)


class FakeLeases:
    """One Lease with a revision, as an API server keeps it; ``broken`` answers nothing."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.revision = 0
        self.broken = False
        self.before: Callable[[], None] = lambda: None

    async def get(self, namespace: str, name: str) -> dict[str, Any] | None:
        self._check()
        return self.lease

    async def create(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is not None:
            raise ApiError(409, "AlreadyExists", "there is one")
        return self.put(lease)

    async def replace(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        self._check()
        if self.lease is None:
            raise ApiError(404, "NotFound", "there is none")
        if lease["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "another one")
        return self.put(lease)

    def put(self, lease: Mapping[str, Any]) -> dict[str, Any]:
        self.revision += 1
        metadata = {**lease["metadata"], "resourceVersion": str(self.revision)}
        self.lease = {**lease, "metadata": metadata}
        return self.lease

    def _check(self) -> None:
        self.before()
        if self.broken:
            raise ApiError(0, "", "no answer")

    @property
    def spec(self) -> dict[str, Any]:
        assert self.lease is not None
        spec: dict[str, Any] = self.lease["spec"]
        return spec


class World:
    """A clock that sleepers move on."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.leases = FakeLeases()
        self.at: list[tuple[float, Callable[[], None]]] = []

    def clock(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        for when, what in list(self.at):
            if when <= self.seconds:
                self.at.remove((when, what))
                what()
        await asyncio.sleep(0)

    def after(self, seconds: float, what: Callable[[], None]) -> None:
        self.at.append((self.seconds + seconds, what))

    def elector(self, identity: str) -> Elector:
        return Elector(
            self.leases,
            told(identity),
            now=self.now,
            clock=self.clock,
            chance=lambda: 0.0,
            sleep=self.sleep,
        )


@pytest.fixture
def world() -> World:
    return World()


async def test_the_first_makes_the_lease(world: World) -> None:
    one = world.elector("one")
    await one.acquire()
    assert one.holds
    assert world.leases.spec["holderIdentity"] == "one"
    assert world.leases.spec["leaseTransitions"] == 0
    assert world.leases.spec["leaseDurationSeconds"] == 15


async def test_another_waits_until_the_lease_was_the_same_for_its_duration(world: World) -> None:
    await world.elector("one").acquire()
    two = world.elector("two")
    begun = world.seconds
    await two.acquire()
    assert world.seconds - begun >= 15
    assert world.leases.spec["holderIdentity"] == "two"
    assert world.leases.spec["leaseTransitions"] == 1


async def test_a_lease_that_is_renewed_is_never_taken(world: World) -> None:
    one, two = world.elector("one"), world.elector("two")
    await one.acquire()
    renewing = 0
    while renewing < 30:
        assert not await two._try(1.0)
        await world.sleep(2)
        assert await one._renew()
        renewing += 1
    assert world.leases.spec["holderIdentity"] == "one"


async def test_nobody_s_clock_is_compared(world: World) -> None:
    await world.elector("one").acquire()
    assert world.leases.lease is not None
    # Written a year ago by its holder's clock: the candidate waits all the same.
    world.leases.put(
        {**world.leases.lease, "spec": {**world.leases.spec, "renewTime": "2025-01-01T00:00:00Z"}}
    )
    two = world.elector("two")
    assert not await two._try(1.0)


async def test_the_holder_stops_before_another_may_begin(world: World) -> None:
    one = world.elector("one")
    await one.acquire()
    begun = world.seconds
    world.leases.broken = True
    await one.hold()
    assert not one.holds
    assert world.seconds - begun <= 10 + 2


async def test_a_short_outage_is_no_loss(world: World) -> None:
    one = world.elector("one")
    await one.acquire()

    def break_down() -> None:
        world.leases.broken = True

    def mend() -> None:
        world.leases.broken = False

    def steal() -> None:
        world.leases.put(
            {
                **(world.leases.lease or {}),
                "spec": {"holderIdentity": "x", "leaseDurationSeconds": 9},
            }
        )

    world.after(3, break_down)
    world.after(9, mend)
    world.after(30, steal)
    begun = world.seconds
    await one.hold()
    assert world.seconds - begun >= 30


async def test_who_slept_through_the_deadline_knows_it(world: World) -> None:
    one = world.elector("one")
    await one.acquire()
    world.seconds += 11  # the machine was suspended
    assert not one.holds


async def test_what_is_given_back_is_taken_at_once(world: World) -> None:
    one, two = world.elector("one"), world.elector("two")
    await one.acquire()
    assert not await two._try(1.0)
    await one.release()
    assert world.leases.spec["holderIdentity"] == ""
    begun = world.seconds
    await two.acquire()
    assert world.seconds == begun
    assert world.leases.spec["leaseTransitions"] == 1


async def test_who_does_not_hold_it_gives_nothing_back(world: World) -> None:
    one, two = world.elector("one"), world.elector("two")
    await one.acquire()
    await two.release()
    assert world.leases.spec["holderIdentity"] == "one"


async def test_two_that_come_at_once_do_not_both_get_it(world: World) -> None:
    one, two = world.elector("one"), world.elector("two")
    assert sum(await asyncio.gather(one._try(1.0), two._try(1.0))) == 1
    assert one.holds != two.holds


async def test_a_lease_that_was_removed_is_made_again(world: World) -> None:
    one = world.elector("one")
    await one.acquire()
    world.leases.lease = None
    assert await one._renew()
    assert world.leases.spec["holderIdentity"] == "one"


def test_what_others_keep_in_the_lease_stays() -> None:
    lease = {
        "metadata": {"name": "lease", "labels": {"a": "b"}},
        "spec": {"strategy": "OldestEmulationVersion"},
    }
    wanted = claim(lease, told("one"), age=0, now="t")
    assert wanted is not None
    assert wanted["spec"]["strategy"] == "OldestEmulationVersion"
    assert wanted["metadata"]["labels"] == {"a": "b"}
    assert surrender(wanted, told("one"), now="u")["spec"]["leaseDurationSeconds"] == 1


def test_the_same_identity_goes_on_where_it_was() -> None:
    spec = {
        "holderIdentity": "one",
        "acquireTime": "then",
        "leaseTransitions": 3,
        "leaseDurationSeconds": 15,
    }
    wanted = claim({"metadata": {}, "spec": spec}, told("one"), age=0, now="now")
    assert wanted is not None
    assert wanted["spec"]["acquireTime"] == "then"
    assert wanted["spec"]["leaseTransitions"] == 3
