"""An API that refuses, conflicts, breaks and is silent: every chart comes to what it says."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from operators.client import ApiError
from operators.helm.base import HelmError
from tests.fakes.operators_helm import PATH, World

FAULTS = [
    ApiError(409, "Conflict", "the object has been modified"),
    ApiError(429, "TooManyRequests", "later"),
    ApiError(500, "InternalError", "broken"),
    ApiError(0, "", "timed out"),
]
REQUESTS = 24  # more than a look makes


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubeconfig")


def once_at(number: int, fault: ApiError) -> Iterator[ApiError | None]:
    return itertools.chain(itertools.repeat(None, number), iter([fault]))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.code))
async def test_a_fault_at_any_request_of_an_install_is_no_second_install(
    tmp_path: Path, fault: ApiError
) -> None:
    for number in range(REQUESTS):
        world = World(tmp_path / "kubeconfig")
        world.put()
        world.api.faults = once_at(number, fault)
        await world.queued()
        assert world.ready == ("True", "Deployed"), number
        assert world.helm.calls == ["install"], number


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.code))
async def test_a_write_whose_answer_is_lost_is_not_lost(tmp_path: Path, fault: ApiError) -> None:
    for number in range(6):
        world = World(tmp_path / "kubeconfig")
        world.put()
        world.api.after = once_at(number, fault)
        await world.queued()
        assert world.ready == ("True", "Deployed"), number
        assert world.helm.calls == ["install"], number


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.code))
async def test_a_fault_at_any_request_of_a_rollback_leads_to_one(
    tmp_path: Path, fault: ApiError
) -> None:
    for number in range(REQUESTS):
        world = World(tmp_path / "kubeconfig")
        world.put(failurePolicy="rollback")
        await world.queued()
        world.put(values={"bad": True})
        world.helm.failures = [HelmError("ReleaseError", "not ready")]
        world.api.faults = once_at(number, fault)
        await world.queued()
        assert world.ready == ("False", "RolledBack"), number
        assert world.helm.calls == ["install", "upgrade", "rollback 1"], number


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.code))
async def test_a_fault_at_any_request_of_a_deletion_does_not_keep_the_chart(
    tmp_path: Path, fault: ApiError
) -> None:
    for number in range(REQUESTS):
        world = World(tmp_path / "kubeconfig")
        world.put()
        await world.queued()
        world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
        world.api.faults = once_at(number, fault)
        await world.queued()
        assert world.api.objects[PATH]["metadata"]["finalizers"] == [], number
        assert world.revisions() == {}, number


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: str(fault.code))
async def test_a_process_that_dies_at_any_request_goes_on_in_the_next(
    tmp_path: Path, fault: ApiError
) -> None:
    for number in range(REQUESTS):
        world = World(tmp_path / "kubeconfig")
        world.put()
        await world.queued()
        world.put(values={"next": True})
        world.helm.failures = [HelmError("WorkerDied", "killed")]
        world.api.faults = once_at(number, fault)
        try:
            await world.settle()
        except ApiError:
            world.restart()
        await world.queued()
        assert world.ready == ("True", "Deployed"), number
        # An interrupted upgrade goes on as an upgrade; nothing is uninstalled for it.
        assert world.helm.calls == ["install", "upgrade", "upgrade"], number


async def test_an_api_that_fails_half_of_the_time_is_enough(world: World) -> None:
    world.put()
    pattern = [
        FAULTS[1],
        None,
        None,
        FAULTS[2],
        None,
        None,
        None,
        FAULTS[3],
        None,
        None,
        None,
        None,
    ]
    world.api.faults = itertools.cycle([*pattern, *[None] * REQUESTS])
    for number in range(5):
        world.put(values={"number": number})
        await world.queued()
        assert world.ready == ("True", "Deployed")
    assert world.helm.calls == ["install", *["upgrade"] * 4]
