"""Charts that wait: for other charts, for a maintenance window, for calmer times; and drift."""

from pathlib import Path
from typing import Any

import pytest

from operators.helm.base import HelmError
from tests.fakes.operators_helm import FOLDER, KEY, World

NIGHT = {"days": ["sa", "su"], "startTime": "22:00", "endTime": "23:00", "timeZone": "UTC"}
FRIDAY = {"days": ["fri"], "startTime": "03:00", "endTime": "04:00"}
DRIFT = ("True", "Drifted", "Deployment web: /spec/replicas")


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubeconfig")


def on(*names: str) -> list[dict[str, str]]:
    return [{"name": name} for name in names]


async def test_a_chart_waits_until_what_it_depends_on_is_ready(world: World) -> None:
    world.put(dependsOn=on("db"))
    assert await world.settle() is None
    assert world.ready == ("False", "DependencyNotReady")
    assert world.condition("Ready")["message"] == "HelmChart kube-system/db is not there"
    world.put("db")
    assert await world.settle() is None
    assert world.condition("Ready")["message"] == "HelmChart kube-system/db is not ready"
    assert world.helm.calls == []

    await world.settle("db")
    assert await world.settle() is None
    assert world.helm.calls == ["install", "install"]
    assert world.ready == ("True", "Deployed")


async def test_a_dependency_that_changed_is_not_ready_as_it_is_wanted_now(world: World) -> None:
    world.put("db")
    await world.settle("db")
    world.put(dependsOn=on("db"))
    await world.settle()
    world.put("db", values={"next": True})
    world.put(values={"next": True})
    await world.settle()
    assert world.ready == ("False", "DependencyNotReady")
    # What runs as wanted does not wait: only a change does.
    world.put(values=None)
    await world.settle()
    assert world.ready == ("True", "Deployed")


async def test_charts_that_wait_for_each_other_are_refused(world: World) -> None:
    world.put("a", dependsOn=on("b"))
    world.put("b", dependsOn=on("x", "c"))
    world.put("c", dependsOn=[{"name": "a", "namespace": "kube-system"}])
    await world.settle("a")
    failed = world.condition("Failed", "a")
    assert (failed["status"], failed["reason"]) == ("True", "DependencyCycle")
    assert failed["message"].endswith(
        "kube-system/a → kube-system/b → kube-system/c → kube-system/a"
    )
    world.put("self", dependsOn=on("self"))
    await world.settle("self")
    assert world.condition("Failed", "self")["reason"] == "DependencyCycle"
    assert world.helm.calls == []


async def test_a_circle_elsewhere_is_only_waited_for(world: World) -> None:
    world.put("b", dependsOn=on("c"))
    world.put("c", dependsOn=on("b"))
    world.put(dependsOn=on("b"))
    assert await world.settle() is None
    assert world.ready == ("False", "DependencyNotReady")


async def test_an_upgrade_waits_for_its_window_and_a_first_install_does_not(world: World) -> None:
    world.put(maintenanceWindow=NIGHT)
    await world.settle()
    world.put(values={"next": True})
    # Friday, 3:04: not longer than an hour, for the clock may be set meanwhile.
    assert await world.settle() == 3600.0
    assert world.ready == ("False", "WaitingForWindow")
    assert world.condition("Ready")["message"].endswith("2026-01-03T22:00:00Z")
    world.seconds = 42 * 3600
    assert await world.settle() == pytest.approx(55 * 60 + 56)
    world.seconds = 43 * 3600
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade"]


async def test_what_began_in_a_window_is_finished_outside_of_it(world: World) -> None:
    world.put(maintenanceWindow=FRIDAY, failurePolicy="retry")
    await world.settle()
    world.put(values={"next": True})
    world.helm.failures = [HelmError("ReleaseError", "no")]
    assert await world.settle() == 10.0
    world.seconds += 7200
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade", "upgrade"]


async def test_a_deletion_waits_for_no_window(world: World) -> None:
    world.put(maintenanceWindow=NIGHT)["metadata"]["deletionTimestamp"] = "now"
    world.put()["metadata"]["finalizers"] = ["wrangler.cattle.io/on-helm-chart-remove"]
    await world.settle()
    assert world.api.objects[f"{FOLDER}/web"]["metadata"]["finalizers"] == []


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({"maintenanceWindow": {"days": ["mo"]}}, "InvalidMaintenanceWindow", "startTime"),
        (
            {"driftDetection": {"mode": "detect", "interval": "often"}},
            "InvalidDriftDetectionInterval",
            "often",
        ),
    ],
)
async def test_what_is_no_window_and_no_interval_is_refused(
    world: World, spec: dict[str, Any], reason: str, words: str
) -> None:
    world.put()
    await world.settle()
    world.put(**spec, values={"next": True})
    await world.settle()
    failed = world.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", reason)
    assert words in failed["message"]


@pytest.mark.parametrize("failing", [False, True])
async def test_a_chart_that_changes_all_the_time_is_attempted_less_and_less(
    world: World, failing: bool
) -> None:
    world.put(failurePolicy="retry")
    if failing:
        world.helm.failures = [HelmError("ReleaseError", "no") for _ in range(1000)]
    number, calls = 0, []
    while world.seconds < 2 * 3600:
        number += 1
        world.put(values={"number": number})
        await world.settle()
        world.seconds += 15
        calls.append(len(world.helm.calls))
    assert calls[-1] < 9 + 10 + 2 * 3600 / 300
    assert world.ready == ("False", "TooManyUpgrades")
    world.helm.failures = []
    world.seconds += await world.settle() or 0.0
    assert await world.settle() is None
    assert world.ready == ("True", "Deployed")
    assert world.helm.jobs[-1].values == (f'{{"number": {number}}}',)


async def test_after_a_short_storm_the_last_state_comes_soon(world: World) -> None:
    for number in range(200):  # ten changes a second
        world.put(values={"number": number})
        await world.settle()
        world.seconds += 0.1
    again = await world.settle()
    assert again is not None
    assert again <= 30.0
    world.seconds += again
    assert await world.settle() is None
    assert world.helm.jobs[-1].values == ('{"number": 199}',)
    # Who changes it now and then later on never waits.
    for number in range(20):
        world.seconds += 700
        world.put(values={"later": number})
        assert await world.settle() is None


async def test_drift_is_looked_for_only_on_request(world: World) -> None:
    world.put()
    await world.settle()
    assert await world.settle() is None
    assert world.checker.checks == 0
    world.put(driftDetection={"mode": "detect", "interval": "10m"})
    assert await world.settle() == 600.0
    assert world.condition("Drifted")["status"] == "False"
    world.checker.said = [DRIFT, DRIFT]
    await world.settle()
    await world.settle()
    assert world.condition("Drifted")["message"] == DRIFT[2]
    assert world.api.events.count("Drifted") == 1
    assert world.helm.calls == ["install"]
    assert world.ready == ("True", "Deployed")
    world.put(driftDetection=None)
    assert await world.settle() is None
    assert world.condition("Drifted") == {}


async def test_drift_is_corrected_by_an_upgrade_to_the_same(world: World) -> None:
    world.put(driftDetection={"mode": "correct"})
    await world.settle()
    world.checker.said = [DRIFT]
    assert await world.settle() is None
    assert world.helm.calls == ["install", "upgrade"]
    drifted = world.condition("Drifted")
    assert (drifted["status"], drifted["reason"]) == ("False", "Corrected")
    assert drifted["message"] == f"revision 2 put right: {DRIFT[2]}"
    assert world.api.events[-2:] == ["Deployed", "DriftCorrected"]
    await world.settle()
    assert world.helm.calls == ["install", "upgrade"]


async def test_a_correction_waits_for_the_window(world: World) -> None:
    world.put(driftDetection={"mode": "correct"}, maintenanceWindow=NIGHT)
    await world.settle()
    world.checker.said = [DRIFT, DRIFT]
    assert await world.settle() == 3600.0
    assert world.helm.calls == ["install"]
    assert world.condition("Drifted")["status"] == "True"


async def test_drift_that_nobody_can_tell_is_unknown(world: World) -> None:
    world.put(driftDetection={"mode": "correct"})
    await world.settle()
    world.checker.said = [("Unknown", "CheckFailed", "no answer")]
    assert await world.settle() is None
    assert world.condition("Drifted")["status"] == "Unknown"
    assert world.helm.calls == ["install"]


async def test_a_correction_that_fails_comes_again_later_each_time(world: World) -> None:
    world.put(driftDetection={"mode": "correct"})
    await world.settle()
    world.checker.said = [DRIFT] * 9
    world.helm.failures = [HelmError("RepoError", "no network")] * 2
    assert await world.settle() == 10.0
    assert world.ready == ("False", "RepoError")
    assert world.helm.jobs[-1].force_conflicts
    world.seconds += 5.0
    assert await world.settle() == 5.0
    world.seconds += 5.0
    assert await world.settle() == 20.0
    world.seconds += 20.0
    assert await world.settle() is None
    assert world.helm.calls == ["install", *["upgrade"] * 3]
    assert world.ready == ("True", "Deployed")


async def test_drift_that_went_by_itself_leaves_no_failure(world: World) -> None:
    world.put(driftDetection={"mode": "correct"})
    await world.settle()
    world.checker.said = [DRIFT]
    world.helm.failures = [HelmError("RepoError", "no network")]
    await world.settle()
    assert world.ready == ("False", "RepoError")
    assert await world.settle() is None
    assert world.ready == ("True", "Deployed")
    assert world.status["failure"] is None


async def test_authorities_are_watched_only_while_a_chart_waits(world: World) -> None:
    path = "/api/v1/namespaces/kube-system/configmaps/ca"
    world.put(chartContent="", chart="https://r/web.tgz", repoCAConfigMap={"name": "ca"})
    await world.settle()
    assert world.ready == ("False", "Waiting")
    assert world.waits == {KEY: path}
    world.api.objects[path] = {"metadata": {"uid": "a", "resourceVersion": "1"}, "data": {}}
    world.helm.failures = [HelmError("RepoError", "unknown authority")]
    assert await world.settle() == 10.0
    assert world.waits == {KEY: path}
    world.api.objects[path]["metadata"]["resourceVersion"] = "2"
    assert await world.settle() is None
    assert world.waits == {KEY: ""}
    assert world.helm.calls == ["install", "install"]
