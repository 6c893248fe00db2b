from pathlib import Path

import pytest

from operators.helm.base import HelmError, Job, Release
from operators.helm.plan import FINALIZER, MANAGED_BY, UNMANAGED
from operators.helm.status import is_ready
from tests.fakes.operators_helm import PATH, TARGET, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "kubeconfig")


async def test_the_finalizer_comes_before_the_install(world: World) -> None:
    world.put()
    assert await world.look() is None
    assert world.helm.calls == ["install"]
    assert world.api.writes[0] == ("merge", PATH)
    assert world.api.objects[PATH]["metadata"]["finalizers"] == [FINALIZER]
    assert (
        world.condition("Ready")["message"]
        == "release web: chart hello-0.1.0, app version 1, revision 1"
    )
    assert world.api.events == ["ApplyJob", "Deployed"]


async def test_another_look_writes_nothing(world: World) -> None:
    world.put()
    await world.look()
    world.api.writes.clear()
    await world.look()
    assert (world.helm.calls, world.api.writes) == (["install"], [])


async def test_a_failure_comes_again_later_each_time(world: World) -> None:
    world.put(failurePolicy="retry")
    world.helm.failures = [HelmError("KubeError", "away")] * 3
    assert await world.look() == 10.0
    assert world.condition("Failed")["message"] == "away"
    # Woken too early, as by its own status: it waits on.
    world.seconds = 4.0
    assert await world.look() == 6.0
    world.seconds = 10.0
    assert await world.look() == 20.0
    world.seconds = 30.0
    assert await world.look() == 40.0
    world.seconds = 70.0
    assert await world.look() is None
    assert world.helm.calls == ["install", "upgrade", "upgrade", "upgrade"]
    assert world.condition("Failed")["status"] == "False"


async def test_it_gives_up_at_the_limit_until_the_chart_changes(world: World) -> None:
    world.put(backOffLimit=0)
    world.helm.failures = [HelmError("KubeError", "away")]
    assert await world.look() is None
    assert world.condition("Failed")["reason"] == "BackoffLimitExceeded"
    world.seconds = 1000.0
    assert await world.look() is None
    assert world.helm.calls == ["install"]

    world.api.objects[PATH]["spec"]["values"] = {"a": 1}
    await world.look()
    assert world.helm.calls == ["install", "uninstall", "install"]


async def test_a_permanent_error_is_not_tried_again(world: World) -> None:
    world.put()
    world.helm.failures = [HelmError("ChartLoadError", "no chart", permanent=True)]
    assert await world.look() is None
    assert await world.look() is None
    assert world.helm.calls == ["install"]
    assert world.condition("Failed")["reason"] == "ChartLoadError"


async def test_what_is_unmanaged_is_not_touched(world: World) -> None:
    world.put()["metadata"]["annotations"] = {UNMANAGED: "true"}
    await world.look()
    assert (world.helm.calls, world.api.writes) == ([], [])


async def test_a_deleted_chart_is_uninstalled_and_let_go(world: World) -> None:
    world.put()
    await world.look()
    metadata = world.api.objects[PATH]["metadata"]
    metadata |= {"deletionTimestamp": "now", "finalizers": ["other", FINALIZER]}
    await world.look()
    assert world.helm.calls == ["install", "uninstall"]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == ["other"]


async def test_a_chart_in_a_namespace_that_goes_is_let_go(world: World) -> None:
    world.put()
    await world.look()
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    world.api.objects["/api/v1/namespaces/kube-system"]["metadata"]["deletionTimestamp"] = "now"
    await world.look()
    assert world.helm.calls == ["install"]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == []


async def test_a_missing_secret_is_waited_for_without_an_attempt(world: World) -> None:
    world.put(valuesSecrets=[{"name": "s", "keys": ["k"]}])
    assert await world.look() is None
    assert world.condition("Ready")["reason"] == "Waiting"
    assert world.helm.calls == []


async def test_a_chart_that_is_gone_is_no_work(world: World) -> None:
    assert await world.look() is None


async def test_a_chart_of_another_manager_is_not_touched(world: World) -> None:
    world.put()["metadata"]["annotations"] = {MANAGED_BY: "rke2-helm-controller"}
    await world.look()
    assert (world.helm.calls, world.api.writes) == ([], [])
    world.put()["metadata"]["annotations"] = {MANAGED_BY: "helm-controller"}
    await world.look()
    assert world.helm.calls == ["install"]


async def test_the_status_tells_the_release_and_its_last_revisions(world: World) -> None:
    for number in range(7):
        world.put(values={"number": number})
        await world.look()
    release = {"name": "web", "namespace": "kube-system", "driver": "secret", "revision": 7}
    release |= {"status": "deployed", "chart": "hello-0.1.0", "appVersion": "1"}
    assert world.status["release"] == release
    assert [entry["revision"] for entry in world.status["history"]] == [3, 4, 5, 6, 7]
    assert [entry["status"] for entry in world.status["history"]] == ["superseded"] * 4 + [
        "deployed"
    ]
    assert {entry["chart"] for entry in world.status["history"]} == {"hello-0.1.0"}
    assert "jobName" not in world.status


async def test_a_revision_that_a_person_made_is_told_from_its_record(world: World) -> None:
    world.put()
    await world.look()
    record = world.api.objects[world.helm.path(TARGET, 1)]
    labels = dict(record["metadata"]["labels"])
    record["metadata"]["labels"]["status"] = "superseded"
    chart = {"metadata": {"name": "hello", "version": "9.9.9"}}
    world.helm.put(TARGET, 2, "deployed", labels | {"version": "2"}, chart=chart)
    await world.look()
    assert world.condition("Ready")["message"] == "release web: chart hello-9.9.9, revision 2"
    assert [entry["chart"] for entry in world.status["history"]] == ["hello-0.1.0", "hello-9.9.9"]
    world.api.writes.clear()
    await world.look()
    assert (world.helm.calls, world.api.writes) == (["install"], [])


async def test_a_release_that_a_person_uninstalled_is_installed_at_the_next_look(
    world: World,
) -> None:
    world.put()
    await world.look()
    del world.api.objects[world.helm.path(TARGET, 1)]
    await world.look()
    assert world.helm.calls == ["install", "install"]
    assert world.ready == ("True", "Deployed")


async def test_what_is_suspended_is_left_alone_but_for_its_deletion(world: World) -> None:
    world.put()
    await world.look()
    world.put(suspend=True, values={"a": 1})
    await world.look()
    assert world.condition("Suspended")["status"] == "True"
    assert world.helm.calls == ["install"]
    world.api.writes.clear()
    await world.look()
    assert world.api.writes == []

    world.put(suspend=False)
    await world.look()
    assert world.condition("Suspended") == {}
    assert world.helm.calls == ["install", "upgrade"]
    assert world.api.events == [
        "ApplyJob",
        "Deployed",
        "SuspendJob",
        "ResumeJob",
        "ApplyJob",
        "Deployed",
    ]

    world.put(suspend=True)["metadata"]["deletionTimestamp"] = "now"
    await world.look()
    assert world.helm.calls == ["install", "upgrade", "uninstall"]


async def test_an_unsupported_version_is_told_in_the_words_of_helm_controller(
    world: World,
) -> None:
    world.put(helmVersion="v2")
    await world.look()
    failed = world.condition("Failed")
    assert (failed["status"], failed["reason"]) == ("True", "Unsupported version")
    assert failed["message"] == "Only Helm v3 charts are supported"
    assert world.condition("JobCreated")["status"] == "False"
    await world.look()
    assert (world.api.events, world.helm.calls) == (["UnsupportedVersion"], [])


async def test_the_driver_cannot_be_changed(world: World) -> None:
    world.put(driver="configmap")
    await world.look()
    assert world.helm.path(TARGET, 1) not in world.api.objects
    world.put(driver="secret")
    await world.look()
    assert world.condition("Failed")["reason"] == "DriverImmutable"
    assert world.helm.calls == ["install"]

    # It is found where it is when it is removed.
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    await world.look()
    assert world.helm.calls == ["install", "uninstall"]


async def test_an_uninstall_that_fails_comes_again_later(world: World) -> None:
    world.put()
    await world.look()
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    world.helm.failures = [HelmError("UninstallError", "stuck")]
    assert await world.look() == 10.0
    assert world.condition("Failed")["message"] == "stuck"
    assert await world.look() == 10.0
    world.seconds = 10.0
    assert await world.look() is None
    assert world.helm.calls == ["install", "uninstall", "uninstall"]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == []


async def test_an_uninstall_that_always_fails_keeps_the_chart_for_a_while_only(
    world: World,
) -> None:
    world.put()
    await world.look()
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    world.helm.failures = [HelmError("UninstallError", "stuck")] * 9
    while again := await world.look():
        world.seconds += again
    assert world.helm.calls == ["install", *["uninstall"] * 5]
    assert world.api.objects[PATH]["metadata"]["finalizers"] == []
    assert world.condition("Failed")["message"] == "stuck"
    assert world.revisions() == {"1": "deployed"}


@pytest.mark.parametrize(
    ("server_side", "applied", "expected"),
    [("auto", "ssa", True), ("auto", "csa", False), ("auto", "", False), ("true", "csa", True)],
)
async def test_conflicts_are_forced_only_where_there_can_be_some(
    world: World, server_side: str, applied: str, expected: bool
) -> None:
    world.put(forceConflicts=True, serverSide=server_side)
    world.helm.put(TARGET, 1, "deployed", {}, apply_method=applied)
    await world.look()
    assert world.helm.jobs[-1].force_conflicts is expected


async def test_two_charts_do_not_fight_over_one_release(world: World) -> None:
    world.put(targetNamespace="kube-system")
    await world.look()
    elsewhere = PATH.replace("kube-system", "other")
    body = {"metadata": {"name": "web", "namespace": "other", "uid": "o", "resourceVersion": "1"}}
    body |= {"spec": {"chartContent": "b3RoZXI=", "targetNamespace": "kube-system"}}
    world.api.objects[elsewhere] = body
    await world.charts.reconcile("other/web")
    conditions = world.api.objects[elsewhere]["status"]["conditions"]
    [ready] = [found for found in conditions if found["type"] == "Ready"]
    assert ready["reason"] == "ReleaseTaken"
    assert ready["message"] == "release kube-system/web is that of HelmChart kube-system/web"
    assert world.helm.calls == ["install"]

    # What nobody claims any more is taken over.
    del world.api.objects[PATH]
    await world.charts.reconcile("other/web")
    assert world.helm.calls == ["install", "upgrade"]


async def test_a_chart_that_is_nobodys_any_more_can_go_without_an_uninstall(world: World) -> None:
    world.put()
    await world.look()
    metadata = world.api.objects[PATH]["metadata"]
    metadata |= {"annotations": {UNMANAGED: ""}, "deletionTimestamp": "now"}
    await world.look()
    assert world.api.objects[PATH]["metadata"]["finalizers"] == []
    assert world.helm.calls == ["install"]


async def test_a_release_that_came_with_its_chart_is_removed_with_it(world: World) -> None:
    world.put()
    await world.look()
    # As after a restore of what another manager had installed.
    world.api.objects[PATH]["metadata"]["finalizers"] = []
    await world.look()
    assert world.api.objects[PATH]["metadata"]["finalizers"] == [FINALIZER]
    assert world.helm.calls == ["install"]


async def test_a_chart_says_that_it_is_being_uninstalled(world: World) -> None:
    world.put()
    await world.look()
    world.api.objects[PATH]["metadata"]["deletionTimestamp"] = "now"
    await world.look()
    assert world.ready == ("False", "Uninstalling")
    assert world.api.events[-1] == "RemoveJob"


async def test_a_chart_that_changed_while_helm_was_at_work_is_not_ready(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.put()
    install = world.helm.install

    async def changed(job: Job) -> Release:
        world.put(values={"next": True})
        return await install(job)

    monkeypatch.setattr(world.helm, "install", changed)
    await world.look()
    assert world.condition("Ready")["observedGeneration"] == 1
    assert not is_ready(world.api.objects[PATH])
    await world.look()
    assert world.helm.calls == ["install", "upgrade"]
    assert is_ready(world.api.objects[PATH])
