"""Jobs with pods whose fate the test decides."""

from typing import Any

import pytest

from controlplane.controllers.job import indexes
from controlplane.controllers.job.controller import JOB
from controlplane.objects.meta import condition, is_true
from controlplane.objects.resources import EVENTS, JOBS, PODS
from tests.fakes.running import Running, running

LABELS = {"job-name": "work"}


def job(**spec: Any) -> dict[str, Any]:
    pod = {"containers": [{"name": "c"}], "restartPolicy": spec.pop("restartPolicy", "Never")}
    return {
        "metadata": {"name": "work", "namespace": "default"},
        "spec": {
            "parallelism": 1,
            "completions": 1,
            "backoffLimit": 6,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": pod},
            **spec,
        },
    }


def get(run: Running) -> dict[str, Any]:
    return run.world.objects["batch", "jobs", "default", "work"]


def running_pods(run: Running) -> list[str]:
    return [
        p["metadata"]["name"]
        for p in run.world.list(PODS)
        if (p.get("status") or {}).get("phase") not in ("Succeeded", "Failed")
    ]


async def end(run: Running, name: str, phase: str, exit_code: int = 0) -> None:
    at = run.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    terminated = {"exitCode": exit_code, "finishedAt": at}
    containers = [{"name": "c", "state": {"terminated": terminated}}]
    status = {"phase": phase, "containerStatuses": containers}
    run.world.change(PODS, "default", name, status=status)
    await run.settle()


async def end_all(run: Running, phase: str) -> None:
    for name in running_pods(run):
        await end(run, name, phase)


def ended(run: Running) -> tuple[str, str] | None:
    for type_ in ("Complete", "Failed"):
        found = condition(get(run), type_)
        if found is not None:
            return type_, found["reason"]
    return None


async def test_a_job_runs_to_completion() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(parallelism=2, completions=3))
        await run.settle()
        assert len(running_pods(run)) == 2
        assert get(run)["status"]["active"] == 2
        await end_all(run, "Succeeded")
        assert len(running_pods(run)) == 1
        await end_all(run, "Succeeded")
        status = get(run)["status"]
        assert ended(run) == ("Complete", "CompletionsReached")
        assert is_true(get(run), "SuccessCriteriaMet")
        assert status["succeeded"] == 3
        assert status["completionTime"]
        assert all(not p["metadata"]["finalizers"] for p in run.world.list(PODS))
        assert "Job completed" in [e["message"] for e in run.world.list(EVENTS)]


async def test_failures_are_retried_later_and_later_and_then_given_up() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(backoffLimit=2))
        await run.settle()
        await end_all(run, "Failed")
        assert running_pods(run) == []
        await run.advance(10)
        await end_all(run, "Failed")
        await run.advance(19)
        assert running_pods(run) == []
        await run.advance(1)
        await end_all(run, "Failed")
        assert ended(run) == ("Failed", "BackoffLimitExceeded")
        assert get(run)["status"]["failed"] == 3
        assert run.clock.timers == 0


async def test_a_pod_counts_once_though_it_disappears() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(completions=2))
        await run.settle()
        (name,) = running_pods(run)
        await end(run, name, "Succeeded")
        run.world.remove(PODS, "default", name)
        await run.settle()
        assert get(run)["status"]["succeeded"] == 1
        await end_all(run, "Succeeded")
        assert get(run)["status"]["succeeded"] == 2


async def test_restarts_in_place_count_too() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(backoffLimit=2, restartPolicy="OnFailure"))
        await run.settle()
        (name,) = running_pods(run)
        statuses = [{"name": "c", "restartCount": 2}]
        fields = {"phase": "Running", "containerStatuses": statuses}
        run.world.change(PODS, "default", name, status=fields)
        await run.settle()
        assert ended(run) == ("Failed", "BackoffLimitExceeded")


async def test_a_deadline_ends_the_job() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(activeDeadlineSeconds=30))
        await run.settle()
        await run.advance(30)
        assert ended(run) == ("Failed", "DeadlineExceeded")
        assert running_pods(run) == []


async def test_a_suspended_job_has_no_pods_and_can_go_on() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job())
        await run.settle()
        run.world.change(JOBS, "default", "work", spec={"suspend": True})
        await run.settle()
        assert running_pods(run) == []
        assert is_true(get(run), "Suspended")
        assert "startTime" not in get(run)["status"]
        run.world.change(JOBS, "default", "work", spec={"suspend": False})
        await run.settle()
        assert len(running_pods(run)) == 1
        assert not is_true(get(run), "Suspended")
        assert not get(run)["status"].get("failed")


async def test_a_finished_job_expires() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(ttlSecondsAfterFinished=60))
        await run.settle()
        await end_all(run, "Succeeded")
        await run.advance(59)
        assert not get(run)["metadata"].get("deletionTimestamp")
        await run.advance(1)
        assert get(run)["metadata"]["deletionTimestamp"]
        assert get(run)["metadata"]["finalizers"] == ["foregroundDeletion"]


async def test_a_work_queue_is_done_when_one_succeeded_and_none_runs() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(parallelism=2, completions=None))
        await run.settle()
        first, second = running_pods(run)
        await end(run, first, "Succeeded")
        assert ended(run) is None
        assert running_pods(run) == [second]
        await end(run, second, "Succeeded")
        assert ended(run) == ("Complete", "CompletionsReached")


async def test_an_indexed_job_gives_each_pod_its_index() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job(parallelism=3, completions=3, completionMode="Indexed"))
        await run.settle()
        made = run.world.list(PODS)
        assert sorted(p["spec"]["hostname"] for p in made) == ["work-0", "work-1", "work-2"]
        env = made[0]["spec"]["containers"][0]["env"]
        assert env[0]["name"] == "JOB_COMPLETION_INDEX"
        one = next(p for p in made if indexes.of_pod(p) == 1)
        await end(run, one["metadata"]["name"], "Failed")
        await run.advance(10)
        assert sorted(indexes.completed(run.world.list(PODS))) == [0, 1, 2]
        await end_all(run, "Succeeded")
        assert get(run)["status"]["completedIndexes"] == "0-2"
        assert ended(run) == ("Complete", "CompletionsReached")


async def test_an_index_that_fails_too_often_does_not_stop_the_others() -> None:
    async with running(JOB) as run:
        body = job(parallelism=2, completions=2, completionMode="Indexed", backoffLimitPerIndex=0)
        body["spec"]["backoffLimit"] = 2**31 - 1
        run.world.put(JOBS, body)
        await run.settle()
        zero = next(p for p in run.world.list(PODS) if indexes.of_pod(p) == 0)
        await end(run, zero["metadata"]["name"], "Failed")
        assert ended(run) is None
        await end_all(run, "Succeeded")
        assert ended(run) == ("Failed", "FailedIndexes")
        assert get(run)["status"]["failedIndexes"] == "0"
        assert get(run)["status"]["completedIndexes"] == "1"


@pytest.mark.parametrize(
    ("action", "outcome"),
    [("FailJob", ("Failed", "PodFailurePolicy")), ("Ignore", None)],
)
async def test_the_policy_decides_what_a_failure_means(action: str, outcome: Any) -> None:
    rule = {"action": action, "onExitCodes": {"operator": "In", "values": [42]}}
    async with running(JOB) as run:
        run.world.put(JOBS, job(backoffLimit=0, podFailurePolicy={"rules": [rule]}))
        await run.settle()
        (name,) = running_pods(run)
        await end(run, name, "Failed", 42)
        assert ended(run) == outcome
        if action == "Ignore":
            assert len(running_pods(run)) == 1
            assert not get(run)["status"].get("failed")


async def test_a_success_policy_ends_the_job_early() -> None:
    async with running(JOB) as run:
        policy = {"rules": [{"succeededIndexes": "0"}]}
        body = job(parallelism=3, completions=3, completionMode="Indexed", successPolicy=policy)
        run.world.put(JOBS, body)
        await run.settle()
        zero = next(p for p in run.world.list(PODS) if indexes.of_pod(p) == 0)
        await end(run, zero["metadata"]["name"], "Succeeded")
        assert ended(run) == ("Complete", "SuccessPolicy")
        assert running_pods(run) == []


async def test_pods_of_a_job_that_is_gone_are_let_go() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job())
        await run.settle()
        run.world.remove(JOBS, "default", "work")
        await run.settle()
        assert all(not p["metadata"]["finalizers"] for p in run.world.list(PODS))


def test_indexes_are_written_as_ranges() -> None:
    assert indexes.text_of({0, 2, 3, 4, 7}) == "0,2-4,7"
    assert indexes.parse("0,2-4,7", 4) == {0, 2, 3}
    assert indexes.parse("", 4) == set()


async def test_a_pod_that_no_longer_matches_is_let_go_and_not_counted_any_more() -> None:
    async with running(JOB) as run:
        run.world.put(JOBS, job())
        await run.settle()
        (name,) = running_pods(run)
        assert run.world.objects["", "pods", "default", name]["metadata"]["finalizers"]
        run.world.change(PODS, "default", name, metadata={"labels": None})
        await run.settle()
        left = run.world.objects["", "pods", "default", name]["metadata"]
        assert not left.get("ownerReferences")
        assert not left.get("finalizers")
