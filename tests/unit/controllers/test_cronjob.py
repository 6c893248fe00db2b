"""A Job at each scheduled time, once, and a record of what became of it."""

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from controlplane.controllers.cronjob import CRONJOB, SCHEDULED, _Times
from controlplane.objects.meta import owners
from controlplane.objects.resources import CRON_JOBS, EVENTS, JOBS
from controlplane.objects.validation import cron
from tests.fakes.clock import START
from tests.fakes.running import Running, running

MINUTE = 60
FIRST = int(START.timestamp()) // 60


def cron_job(schedule: str = "* * * * *", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "tick", "namespace": "default"},
        "spec": {
            "schedule": schedule,
            "timeZone": "Etc/UTC",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}},
            **spec,
        },
    }


def names(run: Running) -> list[str]:
    return [job["metadata"]["name"] for job in run.world.list(JOBS)]


def status(run: Running) -> dict[str, Any]:
    return dict(run.world.objects["batch", "cronjobs", "default", "tick"].get("status") or {})


def reasons(run: Running) -> set[str]:
    return {event["reason"] for event in run.world.list(EVENTS)}


async def end(run: Running, name: str, how: str = "Complete") -> None:
    ended: dict[str, Any] = {"conditions": [{"type": how, "status": "True"}]}
    if how == "Complete":
        ended["completionTime"] = run.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    run.world.change(JOBS, "default", name, status=ended)
    await run.settle()


async def test_a_job_comes_at_each_time_and_nothing_happens_in_between() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job())
        await run.settle()
        assert names(run) == []
        assert run.clock.timers == 1
        await run.advance(MINUTE + 0.2)
        assert names(run) == [f"tick-{FIRST + 1}"]
        (job,) = run.world.list(JOBS)
        assert job["metadata"]["annotations"] == {SCHEDULED: "2026-01-01T00:01:00Z"}
        assert job["metadata"]["labels"] == {"a": "b"}
        assert owners(job)[0]["kind"] == "CronJob"
        assert status(run)["lastScheduleTime"] == "2026-01-01T00:01:00Z"
        assert [item["name"] for item in status(run)["active"]] == names(run)
        before = run.world.revision
        await run.advance(30)
        assert run.world.revision == before
        await run.advance(MINUTE)
        assert names(run) == [f"tick-{FIRST + 1}", f"tick-{FIRST + 2}"]
        assert "SuccessfulCreate" in reasons(run)


async def test_a_job_that_ends_is_no_longer_active_and_success_is_noted() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job())
        await run.advance(MINUTE + 1)
        await end(run, names(run)[0])
        assert "active" not in status(run)
        assert status(run)["lastSuccessfulTime"] == "2026-01-01T00:01:01Z"
        told = {event["message"] for event in run.world.list(EVENTS)}
        assert f"Saw completed job: tick-{FIRST + 1}, condition: Complete" in told


async def test_a_job_of_a_cron_job_that_was_made_by_hand_is_noticed() -> None:
    async with running(CRONJOB) as run:
        made = run.world.put(CRON_JOBS, cron_job("0 0 1 1 *"))
        owner = {"kind": "CronJob", "name": "tick", "uid": made["metadata"]["uid"]}
        meta = {"name": "hand", "namespace": "default"}
        reference = {**owner, "apiVersion": "batch/v1", "controller": True}
        run.world.put(JOBS, {"metadata": {**meta, "ownerReferences": [reference]}, "spec": {}})
        await run.settle()
        assert reasons(run) == {"UnexpectedJob"}
        await end(run, "hand")
        assert status(run) == {"lastSuccessfulTime": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("policy", "expected"), [("Allow", [1, 2]), ("Forbid", [1]), ("Replace", [2])]
)
async def test_what_still_runs_decides_by_policy(policy: str, expected: list[int]) -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job(concurrencyPolicy=policy))
        await run.advance(MINUTE + 1)
        await run.advance(MINUTE)
        assert names(run) == [f"tick-{FIRST + number}" for number in expected]
        assert ("JobAlreadyActive" in reasons(run)) == (policy == "Forbid")


async def test_only_so_many_finished_jobs_are_kept() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job(successfulJobsHistoryLimit=1))
        for number in range(1, 5):
            await run.advance(MINUTE + 0.2)
            how = "Complete" if number % 2 else "Failed"
            await end(run, f"tick-{FIRST + number}", how)
        assert names(run) == [f"tick-{FIRST + 3}", f"tick-{FIRST + 4}"]
        assert "SuccessfulDelete" in reasons(run)


async def test_a_suspended_one_waits_and_makes_up_for_the_last_time_only() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job(suspend=True))
        await run.advance(5 * MINUTE + 1)
        assert names(run) == []
        assert run.clock.timers == 0
        run.world.change(CRON_JOBS, "default", "tick", spec={"suspend": False})
        await run.settle()
        assert names(run) == [f"tick-{FIRST + 5}"]


async def test_a_time_past_its_deadline_is_left_out() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job("0 * * * *", suspend=True, startingDeadlineSeconds=60))
        await run.advance(3600 + 61)
        run.world.change(CRON_JOBS, "default", "tick", spec={"suspend": False})
        await run.settle()
        assert names(run) == []
        await run.advance(3600 - 60)
        assert names(run) == [f"tick-{FIRST + 120}"]


async def test_many_missed_times_are_told_and_made_up_for_once() -> None:
    async with running(CRONJOB) as run:
        run.clock.advance(200 * MINUTE)
        run.world.put(CRON_JOBS, cron_job())
        await run.settle()
        assert names(run) == [f"tick-{FIRST + 200}"]
        assert "TooManyMissedTimes" in reasons(run)


async def test_a_job_that_was_made_before_a_crash_is_taken_up() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job())
        await run.advance(MINUTE + 1)
        run.world.change(CRON_JOBS, "default", "tick", status={"lastScheduleTime": None})
        await run.settle()
        assert names(run) == [f"tick-{FIRST + 1}"]
        assert [item["name"] for item in status(run)["active"]] == names(run)
        assert status(run)["lastScheduleTime"] == "2026-01-01T00:01:00Z"


async def test_a_missing_job_is_taken_off_the_list() -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job())
        await run.advance(MINUTE + 1)
        run.world.remove(JOBS, "default", names(run)[0])
        await run.settle()
        assert names(run) == []
        assert "active" not in status(run)
        assert "MissingJob" in reasons(run)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"schedule": "every day"}, "UnparseableSchedule"),
        ({"timeZone": "Mars/Olympus"}, "UnknownTimeZone"),
        ({"schedule": "0 0 31 2 *"}, "InvalidSchedule"),
    ],
)
async def test_a_schedule_that_makes_no_sense_is_told(fields: Any, reason: str) -> None:
    async with running(CRONJOB) as run:
        run.world.put(CRON_JOBS, cron_job(**fields))
        await run.settle()
        assert reasons(run) == {reason}
        assert run.clock.timers == 0


def hours(schedule: str, zone: str, start: datetime, count: int) -> list[str]:
    times, found = _Times(cron.parse(schedule), ZoneInfo(zone)), [start]
    for _ in range(count):
        found.append(times.after(found[-1]))
    return [time.astimezone(ZoneInfo(zone)).strftime("%d %H:%M %z") for time in found[1:]]


def test_a_question_mark_means_any_day() -> None:
    assert cron.parse("5 4 ? * ?") == cron.parse("5 4 * * *")


def test_times_are_those_of_the_time_zone() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert hours("30 6 * * *", "Asia/Kolkata", start, 2) == ["01 06:30 +0530", "02 06:30 +0530"]


def test_a_time_that_the_clocks_leave_out_does_not_come() -> None:
    start = datetime(2026, 3, 28, 0, 0, tzinfo=UTC)
    found = hours("30 2 * * *", "Europe/Berlin", start, 3)
    assert found == ["28 02:30 +0100", "30 02:30 +0200", "31 02:30 +0200"]


def test_a_time_that_comes_twice_is_met_twice() -> None:
    start = datetime(2026, 10, 24, 12, 0, tzinfo=UTC)
    found = hours("30 2 * * *", "Europe/Berlin", start, 3)
    assert found == ["25 02:30 +0200", "25 02:30 +0100", "26 02:30 +0100"]


def test_every_hour_stays_every_hour_when_the_clocks_change() -> None:
    for start in (datetime(2026, 3, 28, 22, tzinfo=UTC), datetime(2026, 10, 24, 22, tzinfo=UTC)):
        times, found = _Times(cron.parse("0 * * * *"), ZoneInfo("Europe/Berlin")), [start]
        for _ in range(6):
            found.append(times.after(found[-1]))
        assert found == [start + timedelta(hours=hour) for hour in range(7)]


async def test_a_last_time_that_lies_years_ahead_begins_anew_from_now() -> None:
    async with running(CRONJOB) as run:
        ahead = (START + timedelta(days=1095)).strftime("%Y-%m-%dT%H:%M:%SZ")
        run.world.put(CRON_JOBS, cron_job() | {"status": {"lastScheduleTime": ahead}})
        await run.settle()
        assert names(run) == []
        await run.advance(MINUTE + 0.2)
        assert len(names(run)) == 1
        assert status(run)["lastScheduleTime"] < ahead
