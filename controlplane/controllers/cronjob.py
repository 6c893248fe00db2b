"""
CronJob → Job: one Job for each scheduled time, at the time.

Between two times there is one timer and nothing else. A time that was missed (the node
was off) is made up for once, if the deadline allows.
Source: the API concept "CronJob"; KEP-19; upstream's controller/cronjob.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import (
    controller_of,
    controller_reference,
    is_controlled_by,
    is_deleting,
    is_true,
    name,
    rfc3339,
    uid_of,
)
from controlplane.objects.resources import CRON_JOBS, JOBS
from controlplane.objects.validation import cron
from controlplane.reconcile import pods
from controlplane.reconcile.base import (
    Again,
    Controller,
    Create,
    Delete,
    Key,
    Record,
    SetStatus,
    Write,
)
from controlplane.reconcile.times import parse

SCHEDULED = "batch.kubernetes.io/cronjob-scheduled-timestamp"
MANY_MISSED = 100
# So that a timer that fires a little early does not find nothing to do.
_SLACK = timedelta(milliseconds=100)
FAR_AHEAD = timedelta(minutes=10)
_SECOND = timedelta(seconds=1)


class _NeverTwice(Exception):
    """The schedule is well formed and has no second time: the 31st of February."""


@dataclass(frozen=True, slots=True)
class _Times:
    """A schedule in its time zone; None: this machine's own."""

    schedule: cron.Schedule
    zone: tzinfo | None

    def after(self, time: datetime) -> datetime:
        """
        The next one, in UTC.

        Where the clocks change in between, times that do not exist are left out and
        times that come twice are met twice.
        """
        offset = self._offset(time)
        found = self._with_offset(time, offset)
        if self.schedule.every is not None or self._offset(found) == offset:
            return found
        changed = self._change(time, found)
        return self._with_offset(changed - timedelta(microseconds=1), self._offset(changed))

    def _with_offset(self, time: datetime, offset: timedelta) -> datetime:
        # Days and hours are counted on a clock that never changes.
        local = (time.astimezone(UTC) + offset).replace(tzinfo=UTC)
        found = self.schedule.next_after(local)
        if found is None:
            raise _NeverTwice
        return found - offset

    def _offset(self, time: datetime) -> timedelta:
        return time.astimezone(self.zone).utcoffset() or timedelta(0)

    def _change(self, before: datetime, after: datetime) -> datetime:
        """The first second that has the offset of ``after``."""
        wanted = self._offset(after)
        low, high = before.replace(microsecond=0), after
        while high - low > _SECOND:
            middle = low + timedelta(seconds=int((high - low).total_seconds()) // 2)
            if self._offset(middle) == wanted:
                high = middle
            else:
                low = middle
        return high


@dataclass(frozen=True, slots=True)
class _Due:
    """``time``: the latest one that has come; ``missed``: about how many have."""

    since: datetime
    time: datetime | None
    missed: int


@dataclass(slots=True)
class _Pass:
    """What one pass works from; ``status`` is the one to be written."""

    cron_job: Object
    jobs: Sequence[Object]
    status: dict[str, Any]
    now: datetime
    reads: Reads

    @property
    def spec(self) -> Mapping[str, Any]:
        spec: Mapping[str, Any] = self.cron_job["spec"]
        return spec

    @property
    def active(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = self.status.get("active") or []
        return found

    def drop(self, uid: str) -> None:
        self.status["active"] = [item for item in self.active if item["uid"] != uid]

    def add(self, job: Object, time: datetime) -> None:
        self.status["active"] = [*self.active, _reference(job)]
        self.status["lastScheduleTime"] = rfc3339(time)

    def save(self) -> Iterator[Write]:
        new = {key: value for key, value in self.status.items() if value}
        if new != (self.cron_job.get("status") or {}):
            yield SetStatus(CRON_JOBS, self.cron_job, new)


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    cron_job = reads.get(CRON_JOBS, key.namespace, key.name)
    if cron_job is None:
        return
    owned = reads.owned(JOBS, uid_of(cron_job))
    jobs = [job for job in owned if is_controlled_by(job, cron_job)]
    this = _Pass(cron_job, jobs, dict(cron_job.get("status") or {}), now, reads)
    _mend(this)
    yield from _forget_old(this)
    yield from _follow(this)
    times = None
    if not is_deleting(cron_job) and not this.spec.get("suspend"):
        times = yield from _read(this)
    if times is None:
        yield from this.save()
        return
    try:
        yield from _run(this, times)
    except _NeverTwice:
        text = "time difference between two schedules is less than 1 second"
        what = f"invalid schedule: {this.spec['schedule']} : {text}"
        yield Record(cron_job, "Warning", "InvalidSchedule", what)
        yield from this.save()


def _mend(this: _Pass) -> None:
    """
    Begin anew at what is now where the last time is far ahead, as a clock that was wrong left it.

    Otherwise nothing would run until then, which may be years.
    """
    last = parse(this.status.get("lastScheduleTime"))
    since = last or parse(this.cron_job["metadata"].get("creationTimestamp"))
    if since is not None and since - this.now > FAR_AHEAD:
        this.status["lastScheduleTime"] = rfc3339(this.now)


# -- the Jobs there are


def _forget_old(this: _Pass) -> Iterator[Write]:
    """Delete finished Jobs beyond the history limits, the oldest first."""
    limits = (("Complete", "successfulJobsHistoryLimit"), ("Failed", "failedJobsHistoryLimit"))
    for state, field in limits:
        limit = this.spec.get(field)
        if limit is None:
            continue
        ended = sorted((job for job in this.jobs if is_true(job, state)), key=_start)
        for job in ended[: max(len(ended) - int(limit), 0)]:
            yield from _delete(this, job)


def _start(job: Object) -> tuple[bool, str, str]:
    start = (job.get("status") or {}).get("startTime")
    return start is None, start or "", name(job)


def _delete(this: _Pass, job: Object) -> Iterator[Write]:
    this.drop(uid_of(job))
    if not is_deleting(job):
        yield Delete(JOBS, job)
        text = f"Deleted job {name(job)}"
        yield Record(this.cron_job, "Normal", "SuccessfulDelete", text)


def _follow(this: _Pass) -> Iterator[Write]:
    """Keep the list of active Jobs and the time of the last success."""
    for job in this.jobs:
        listed = any(item["uid"] == uid_of(job) for item in this.active)
        ended = next((state for state in ("Complete", "Failed") if is_true(job, state)), "")
        if not ended and not listed:
            text = f"Saw a job that the controller did not create or forgot: {name(job)}"
            yield Record(this.cron_job, "Warning", "UnexpectedJob", text)
        elif ended and listed:
            this.drop(uid_of(job))
            text = f"Saw completed job: {name(job)}, condition: {ended}"
            yield Record(this.cron_job, "Normal", "SawCompletedJob", text)
        if ended == "Complete":
            _note_success(this, job)
    there = {uid_of(job) for job in this.jobs}
    for item in [item for item in this.active if item["uid"] not in there]:
        this.drop(item["uid"])
        text = f"Active job went missing: {item['name']}"
        yield Record(this.cron_job, "Normal", "MissingJob", text)


def _note_success(this: _Pass, job: Object) -> None:
    done = (job.get("status") or {}).get("completionTime")
    at, last = parse(done), parse(this.status.get("lastSuccessfulTime"))
    if at is not None and (last is None or at > last):
        this.status["lastSuccessfulTime"] = done


# -- the schedule


def _read(this: _Pass) -> Generator[Write, None, _Times | None]:
    """Return the times; None: an event says why there are none."""
    zone: tzinfo | None = None
    named, text = this.spec.get("timeZone"), this.spec["schedule"]
    try:
        zone = ZoneInfo(named) if named else None
    except (ZoneInfoNotFoundError, ValueError, OSError):
        why = f'invalid timeZone: "{named}": unknown time zone {named}'
        yield Record(this.cron_job, "Warning", "UnknownTimeZone", why)
        return None
    try:
        return _Times(cron.parse(text), zone)
    except cron.ScheduleError as err:
        why = f'unparseable schedule: "{text}" : {err}'
        yield Record(this.cron_job, "Warning", "UnparseableSchedule", why)
        return None


def _due(this: _Pass, times: _Times, *, within_deadline: bool) -> _Due:
    """
    The latest scheduled time up to now.

    How many were missed is estimated from the first two: counting them all could take for ever.
    """
    created = parse(this.cron_job["metadata"].get("creationTimestamp")) or this.now
    since = parse(this.status.get("lastScheduleTime")) or created
    deadline = this.spec.get("startingDeadlineSeconds")
    if within_deadline and deadline is not None:
        since = max(since, this.now - timedelta(seconds=deadline))
    first = times.after(since)
    if this.now < first:
        return _Due(since, None, 0)
    second = times.after(first)
    if this.now < second:
        return _Due(since, first, 0)
    between = max(round((second - first).total_seconds()), 1)
    missed = int((this.now - first).total_seconds()) // between + 1
    latest, found = None, times.after(first + timedelta(seconds=(missed - 2) * between))
    while found <= this.now:
        latest, found = found, times.after(found)
    return _Due(since, latest, missed)


def _wait(this: _Pass, times: _Times) -> Again:
    """Until the next time."""
    due = _due(this, times, within_deadline=False)
    start = due.time
    if start is None:
        start = this.now if due.missed else due.since
    return Again(times.after(start) + _SLACK - this.now)


def _run(this: _Pass, times: _Times) -> Iterator[Write]:
    due = _due(this, times, within_deadline=True)
    if due.time is not None and due.missed > MANY_MISSED:
        text = (
            "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or "
            "check clock skew"
        )
        yield Record(this.cron_job, "Warning", "TooManyMissedTimes", text)
    if due.time is not None:
        yield from _start_job(this, times, due.time)
    else:
        yield from this.save()
    yield _wait(this, times)


def _start_job(this: _Pass, times: _Times, time: datetime) -> Iterator[Write]:
    reason = _reason_not_to(this, time)
    if reason is not None:
        yield from reason
        yield from this.save()
        return
    if this.spec.get("concurrencyPolicy") == "Replace":
        listed = {item["uid"] for item in this.active}
        for job in [job for job in this.jobs if uid_of(job) in listed]:
            yield from _delete(this, job)
    body = _job(this.cron_job, times.zone, time)
    there = this.reads.get(JOBS, body["metadata"]["namespace"], body["metadata"]["name"])
    if there is not None:
        # Made by a pass that ended before it could write the status; somebody else's is left.
        if is_controlled_by(there, this.cron_job):
            this.drop(uid_of(there))
            this.add(there, time)
        yield from this.save()
        return
    yield Create(JOBS, body, on_success=_on_success(this, time), on_failure=_on_failure(this))


def _on_success(this: _Pass, time: datetime) -> Any:
    def made(job: Object) -> Iterator[Write]:
        text = f"Created job {name(job)}"
        yield Record(this.cron_job, "Normal", "SuccessfulCreate", text)
        this.add(job, time)
        yield from this.save()

    return made


def _on_failure(this: _Pass) -> Any:
    def refused(err: StatusError) -> Iterator[Write]:
        if not pods.is_namespace_going(err):
            text = f"Error creating job: {err.message}"
            yield Record(this.cron_job, "Warning", "FailedCreate", text)
        yield from this.save()

    return refused


def _reason_not_to(this: _Pass, time: datetime) -> Sequence[Write] | None:
    """The events that say so; None: nothing speaks against it."""
    deadline = this.spec.get("startingDeadlineSeconds")
    if deadline is not None and time + timedelta(seconds=deadline) < this.now:
        text = f"Missed scheduled time to start a job: {time:%a, %d %b %Y %H:%M:%S UTC}"
        return [Record(this.cron_job, "Warning", "MissSchedule", text)]
    if this.spec.get("concurrencyPolicy") == "Forbid" and this.active:
        text = (
            "Not starting job because prior execution is running and concurrency policy is Forbid"
        )
        return [Record(this.cron_job, "Normal", "JobAlreadyActive", text)]
    return None


# -- the Job


def _name(cron_job: Object, time: datetime) -> str:
    """The same for the same time, so that no time gets two Jobs."""
    return f"{name(cron_job)}-{int(time.timestamp()) // 60}"


def _job(cron_job: Object, zone: tzinfo | None, time: datetime) -> dict[str, Any]:
    template = cron_job["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    local = time.astimezone(zone or UTC).isoformat(timespec="seconds")
    stamp = {SCHEDULED: local.replace("+00:00", "Z")}
    made: dict[str, Any] = {
        "name": _name(cron_job, time),
        "namespace": cron_job["metadata"]["namespace"],
        "annotations": {**(meta.get("annotations") or {}), **stamp},
        "ownerReferences": [controller_reference(cron_job)],
    }
    if meta.get("labels"):
        made["labels"] = meta["labels"]
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": made, "spec": template["spec"]}


def _reference(job: Object) -> dict[str, str]:
    meta = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": meta["name"],
        "namespace": meta["namespace"],
        "uid": meta["uid"],
        "resourceVersion": meta["resourceVersion"],
    }


def _keys_for(change: Change, _: Reads) -> Iterator[Key]:
    for job in (change.old, change.new):
        reference = controller_of(job) if job is not None else None
        if reference is not None and reference["kind"] == "CronJob":
            yield Key(change.namespace, reference["name"])


CRONJOB = Controller(
    name="cronjob-controller",
    primary=CRON_JOBS,
    reads=frozenset({JOBS}),
    writes=frozenset({CRON_JOBS, JOBS}),
    shares=frozenset({JOBS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
