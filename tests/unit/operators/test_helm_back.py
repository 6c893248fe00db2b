"""Charts that fail: how often they are tried, and how they go back to what worked."""

from pathlib import Path

import pytest

from operators.helm.base import HelmError
from tests.fakes.operators_api import Died
from tests.fakes.operators_helm import PATH, SECRETS, TARGET, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubeconfig")


def bad(reason: str = "ReleaseError", message: str = "not ready") -> HelmError:
    return HelmError(reason, message)


async def rolled_back(world: World) -> None:
    world.put(failurePolicy="rollback")
    await world.settle()
    world.put(values={"bad": True})
    world.helm.failures = [bad()]
    assert await world.settle() is None


async def test_an_upgrade_that_fails_goes_back_and_says_why(world: World) -> None:
    await rolled_back(world)
    assert world.helm.calls == ["install", "upgrade", "rollback 1"]
    assert all(job.wait for job in world.helm.jobs)
    assert world.revisions() == {"1": "superseded", "2": "failed", "3": "deployed"}
    assert world.ready == ("False", "RolledBack")
    assert world.condition("Failed")["message"] == "not ready; rolled back to revision 1"
    assert world.status["release"]["revision"] == 3
    assert world.api.events[-2:] == ["JobFailed", "RolledBack"]


async def test_what_was_rolled_back_is_not_tried_again_even_after_a_restart(world: World) -> None:
    await rolled_back(world)
    world.api.writes.clear()
    world.seconds += 10_000
    world.restart()
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "rollback 1"]
    assert world.api.writes == []


async def test_without_its_status_a_chart_still_knows_that_it_was_rolled_back(world: World) -> None:
    await rolled_back(world)
    del world.api.objects[PATH]["status"]
    world.restart()
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "rollback 1"]
    assert world.condition("Failed")["message"] == "failed it is; revision 3 is a rollback"


@pytest.mark.parametrize(
    "change", [{"values": {"bad": False}}, {"timeout": "9m"}, {"failurePolicy": "retry"}]
)
async def test_a_changed_chart_is_tried_again(world: World, change: dict[str, object]) -> None:
    await rolled_back(world)
    world.put(**change)
    assert await world.settle() is None
    assert world.helm.calls[-1] == "upgrade"
    assert world.ready == ("True", "Deployed")
    assert world.condition("Failed")["status"] == "False"


async def test_the_old_values_are_an_upgrade_too(world: World) -> None:
    world.put(failurePolicy="rollback", values={"good": True})
    await world.settle()
    world.put(values={"good": False})
    world.helm.failures = [bad()]
    await world.settle()
    world.put(values={"good": True})
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "rollback 1", "upgrade"]
    assert world.ready == ("True", "Deployed")


async def test_a_first_install_that_fails_is_uninstalled_and_left(world: World) -> None:
    world.put(failurePolicy="rollback")
    world.helm.failures = [bad()]
    assert await world.settle() is None
    world.restart()
    world.seconds += 10_000
    assert await world.settle() is None
    assert world.helm.calls == ["install", "uninstall"]
    assert world.revisions() == {}
    assert world.condition("Failed")["reason"] == "RolledBack"

    world.put(values={"good": True})
    assert await world.settle() is None
    assert world.helm.calls == ["install", "uninstall", "install"]
    assert world.ready == ("True", "Deployed")


async def test_nothing_is_rolled_back_where_nothing_was_released(world: World) -> None:
    world.put(failurePolicy="rollback")
    await world.settle()
    world.put(values={"next": True})
    world.helm.failures = [bad("RepoError", "no network")]
    assert await world.settle() == 10.0
    world.seconds += 10.0
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "upgrade"]


async def test_a_rollback_that_fails_comes_again_later_each_time(world: World) -> None:
    world.put(failurePolicy="rollback")
    await world.settle()
    world.put(values={"bad": True})
    world.helm.failures = [bad(), bad(message="worse"), bad(message="worse")]
    assert await world.settle() == 20.0
    assert world.condition("Failed")["message"] == (
        "not ready; the rollback to revision 1 failed: worse"
    )
    world.seconds += 20.0
    assert await world.settle() == 40.0
    world.seconds += 40.0
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", *["rollback 1"] * 3]
    assert world.ready == ("False", "RolledBack")


async def test_an_interrupted_upgrade_goes_on_and_uninstalls_nothing(world: World) -> None:
    world.put()
    await world.settle()
    world.put(values={"next": True})
    world.helm.put(TARGET, 2, "pending-upgrade", labels_of_next(world))
    world.restart()
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade"]
    assert world.ready == ("True", "Deployed")


def labels_of_next(world: World) -> dict[str, str]:
    """As the worker writes them for the second revision of what is wanted now."""
    return {"pinnace.dev/helm-revision": "2", "helmcharts.helm.cattle.io/configHash": "other"}


@pytest.mark.parametrize(
    ("policy", "last"), [("reinstall", "uninstall"), ("rollback", "rollback 1")]
)
async def test_what_is_interrupted_each_time_has_failed(
    world: World, policy: str, last: str
) -> None:
    world.put(failurePolicy=policy)
    await world.settle()
    world.put(values={"bad": True})
    world.helm.failures = [bad("WorkerDied", "killed")] * 3
    while last not in world.helm.calls:
        world.seconds += await world.look() or 0.0
    assert world.helm.calls[:5] == ["install", "upgrade", "upgrade", "upgrade", last]


async def test_a_restart_does_not_begin_to_count_anew(world: World) -> None:
    world.put()
    world.helm.failures = [bad("RepoError", "no network") for _ in range(100)]
    waits = []
    for _ in range(14):
        again = await world.settle()
        assert again is not None
        waits.append(again)
        world.restart()
        assert await world.settle() == pytest.approx(again, abs=1.0)
        world.seconds += again
    assert waits[:6] == [10.0, 20.0, 40.0, 80.0, 160.0, 320.0]
    assert all(wait == 360.0 for wait in waits[6:])


async def test_failures_that_look_the_same_are_not_all_written(world: World) -> None:
    world.put()
    world.helm.failures = [bad("RepoError", "no network") for _ in range(100)]
    for _ in range(10):
        world.seconds += await world.settle() or 0.0
    world.api.writes.clear()
    for _ in range(20):
        world.seconds += await world.settle() or 0.0
    assert len(world.api.writes) == 2
    assert world.status["failure"]["attempts"] == 30


@pytest.mark.parametrize("restarts", [True, False])
async def test_no_more_than_one_attempt_in_five_minutes_after_ten_failures(
    world: World, restarts: bool
) -> None:
    world.put()
    world.helm.failures = [bad("RepoError", "no network") for _ in range(1000)]
    while len(world.helm.calls) < 10:
        world.seconds += await world.settle() or 0.0
    began, calls = world.seconds, len(world.helm.calls)
    while world.seconds < began + 36_000:
        # Somebody wakes it all the time, or the process is restarted again and again.
        if restarts:
            world.restart()
        await world.settle()
        world.seconds += 120
    made = len(world.helm.calls) - calls
    assert made <= 36_000 / 300
    assert restarts or made > 36_000 / 500


async def test_another_credential_is_tried_at_once(world: World) -> None:
    path = f"{SECRETS}/login"
    world.api.objects[path] = {"metadata": {"uid": "a", "resourceVersion": "1"}, "data": {}}
    world.put(chartContent="", chart="oci://r/web", authSecret={"name": "login"})
    world.helm.failures = [bad("RepoError", "401")]
    assert await world.settle() == 10.0
    world.api.objects[path]["metadata"]["resourceVersion"] = "2"
    assert await world.settle() is None
    assert world.helm.calls == ["install", "install"]

    # But it is no reason to upgrade what is there.
    world.api.objects[path]["metadata"]["resourceVersion"] = "3"
    assert await world.settle() is None
    assert world.helm.calls == ["install", "install"]


async def test_abort_leaves_it_to_a_person(world: World) -> None:
    world.put(failurePolicy="abort")
    world.helm.failures = [bad()]
    await world.settle()
    world.seconds += 1000
    assert await world.settle() is None
    assert world.helm.calls == ["install"]
    assert world.ready == ("False", "Aborted")


async def test_a_clock_that_went_back_makes_nobody_wait_for_long(world: World) -> None:
    world.put()
    world.helm.failures = [bad("RepoError", "no network")]
    assert await world.settle() == 10.0
    world.seconds -= 10_000_000
    world.restart()
    assert await world.settle() == 10.0


async def test_what_somebody_else_began_is_waited_for_and_then_healed(world: World) -> None:
    world.put(timeout="60s", failurePolicy="retry")
    # By a clock that is far ahead of this one.
    ahead = str(int(world.now.timestamp()) + 10**8)
    world.helm.put(TARGET, 1, "pending-install", {"modifiedAt": ahead})
    assert await world.settle() == 60.0
    assert world.ready == ("False", "Waiting")
    world.seconds += 60.0
    assert await world.settle() is None
    assert world.helm.calls == ["upgrade"]
    assert world.revisions() == {"1": "failed", "2": "deployed"}


@pytest.mark.parametrize("data", [{}, {"release": "?"}, {"release": "bm90aGluZw=="}])
async def test_a_record_that_is_none_is_removed(world: World, data: dict[str, str]) -> None:
    world.put()
    await world.settle()
    label = {"owner": "helm", "name": "web", "version": "2", "status": "deployed"}
    world.api.objects[world.helm.path(TARGET, 2)] = {"metadata": {"labels": label}, "data": data}
    # What runs is left alone until there is something to do.
    assert await world.settle() is None
    assert world.ready == ("True", "Deployed")
    assert world.condition("Ready")["message"] == "release web: revision 2"
    world.put(values={"next": True})
    world.helm.failures = [bad("StorageError", "already exists")]
    await world.settle()
    world.seconds += 10.0
    assert await world.settle() is None
    assert world.ready == ("True", "Deployed")
    assert "RecordRemoved" in world.api.events


async def test_an_interrupted_revision_whose_record_is_none_is_begun_again(world: World) -> None:
    world.put()
    label = {"owner": "helm", "name": "web", "version": "1", "status": "pending-install"}
    label |= {"pinnace.dev/helm-revision": "1"}
    world.api.objects[world.helm.path(TARGET, 1)] = {"metadata": {"labels": label}}
    assert await world.settle() is None
    assert world.helm.calls == ["install"]
    assert world.ready == ("True", "Deployed")


async def test_objects_of_removed_versions_are_named_anew(world: World) -> None:
    world.put()
    await world.settle()
    manifest = "---\napiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: a}\n"
    path = world.helm.path(TARGET, 1)
    labels = world.api.objects[path]["metadata"]["labels"]
    world.helm.put(TARGET, 1, "deployed", labels, manifest=manifest)
    world.put(values={"next": True})
    world.helm.failures = [bad("ReleaseError", 'no matches for kind "PodDisruptionBudget"')]
    before = world.api.objects[path]["data"]["release"]
    await world.settle()
    assert world.api.objects[path]["data"]["release"] != before
    assert world.helm.calls == ["install", "upgrade", "upgrade"]


async def test_a_rollback_of_ours_that_was_interrupted_is_begun_again_at_once(
    world: World,
) -> None:
    world.put(failurePolicy="rollback")
    await world.settle()
    world.put(values={"bad": True})
    world.helm.failures = [bad(), Died()]
    with pytest.raises(Died):
        await world.settle()
    world.restart()
    assert world.revisions()["3"] == "pending-rollback"
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "rollback 1", "rollback 1"]
    assert world.ready == ("False", "RolledBack")
    assert world.condition("Failed")["message"] == "not ready; rolled back to revision 1"


@pytest.mark.parametrize("policy", ["reinstall", "retry", "rollback"])
async def test_a_machine_that_stops_in_an_upgrade_goes_on_with_it(
    world: World, policy: str
) -> None:
    world.put(failurePolicy=policy)
    await world.settle()
    world.put(values={"next": True})
    world.helm.failures = [Died()]
    with pytest.raises(Died):
        await world.settle()
    world.restart()
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "upgrade"]
    assert world.ready == ("True", "Deployed")


async def test_a_chart_that_stops_the_machine_each_time_is_given_up_for_longer_and_longer(
    world: World,
) -> None:
    world.put()
    world.helm.failures = [Died() for _ in range(50)]
    for _ in range(50):
        try:
            world.seconds += await world.settle() or 0.0
        except Died:
            world.seconds += 5.0
            world.restart()
    # Not once at each start of the machine.
    assert world.seconds > 3600
