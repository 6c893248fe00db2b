"""
Bring releases to what HelmCharts say: read, plan, run Helm, tell.

Everything is read anew at each look, and the finalizer is set before the first
install, so a look may end anywhere, even with the machine, and the next one goes on.
"""

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

from operators.client import Client
from operators.config import Config
from operators.helm import failures, plan, records, status, wanted
from operators.helm.attempts import Attempts, Look
from operators.helm.back import Back
from operators.helm.base import Helm, HelmError, Job, Release, Target
from operators.helm.drift import Checker
from operators.helm.failures import Attempt
from operators.helm.going import Going, finalize
from operators.helm.plan import Revision, Step
from operators.helm.read import Reader
from operators.helm.tell import Teller
from operators.helm.wanted import Drift, Missing, Refused

LOG = logging.getLogger(__name__)

# A machine without a clock of its own may set it while something waits for a time of the day.
LONGEST_SLEEP = 3600.0
TOO_MANY = "TooManyUpgrades", "the chart changed too often of late; the next attempt waits"
_VERBS = {Step.UPGRADE: "Upgrading", Step.REINSTALL: "Reinstalling"}
# Errors that may come from what Helm keeps, not from the chart.
_OF_RECORDS = frozenset({"StorageError", "ReleaseError", "NotFoundError", "UnknownError"})
_INTERRUPTED = "interrupted: the node stopped, or Helm did"

Object = dict[str, Any]


class Charts:
    """
    ``now`` is the time of day, ``clock`` the seconds that a back-off is measured in.

    ``wait_for`` gets a key and the path of what may let it go on; "": nothing.
    """

    def __init__(
        self,
        config: Config,
        client: Client,
        helm: Helm,
        *,
        checker: Checker,
        wait_for: Callable[[str, str], None],
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._client = client
        self._helm = helm
        self._checker = checker
        self._wait_for = wait_for
        self._now = now
        self._reader = Reader(config, client)
        self._teller = Teller(client, now=now)
        self._attempts = Attempts(self._teller, now=now, clock=clock)
        teller, attempts, fail = self._teller, self._attempts, self._failed
        self._back = Back(client, helm, teller=teller, attempts=attempts, fail=fail)
        self._going = Going(client, helm, self._reader, teller=teller, attempts=attempts, fail=fail)

    async def reconcile(self, key: str) -> float | None:
        """``key``: namespace/name. Seconds after which the chart must be looked at again."""
        chart = await self._reader.chart(key)
        if chart is None:
            self._attempts.forget(key, gone=True)
        elif plan.is_held(chart):
            await self._going.let_go(chart)
        again = await self._look(key, chart) if chart and plan.managed(chart) else None
        waits = chart is not None and not status.is_ready(chart)
        self._wait_for(key, wanted.authorities_of(chart) if chart and waits else "")
        return again

    async def _look(self, key: str, chart: Object) -> float | None:
        if "deletionTimestamp" in chart["metadata"]:
            return await self._going.remove(key, chart)
        if await self._is_suspended(chart):
            return None
        try:
            look, step = await self._decide(key, chart)
            return await self._take(look, step)
        except Refused as err:
            await self._refuse(chart, err)
        except Missing as err:
            await self._teller.tell(chart, status.working("Waiting", str(err)))
        return None

    async def _is_suspended(self, chart: Object) -> bool:
        suspended = bool(wanted.spec_of(chart).get("suspend"))
        before = status.condition(chart.get("status") or {}, "Suspended").get("status") == "True"
        said = status.SUSPENDED if suspended else None
        await self._teller.tell(chart, None, conditions={"Suspended": said})
        if suspended and not before:
            await self._teller.event(chart, "SuspendJob", "Suspended while spec.suspend is true")
        if before and not suspended:
            await self._teller.event(chart, "ResumeJob", "Resumed")
        return suspended

    async def _refuse(self, chart: Object, err: Refused) -> None:
        outcome, reason, message = status.refused(err.reason, str(err)), "JobFailed", str(err)
        if err.reason == "UnsupportedVersion":
            version = wanted.spec_of(chart).get("helmVersion")
            reason = err.reason
            message = f"Unsupported Helm version {version}: only v3 charts are supported"
        said = status.condition(chart.get("status") or {}, "Failed")
        await self._teller.tell(chart, outcome)
        if (said.get("reason"), said.get("message")) != (outcome.reason, outcome.message):
            await self._teller.event(chart, reason, message, warning=True)

    async def _decide(self, key: str, chart: Object) -> tuple[Look, Step]:
        inputs = await self._reader.inputs(key, chart)
        job = wanted.job_of(chart, inputs)
        _refuse_other_driver(chart, job.target)
        history = await records.history(self._client, job.target)
        await self._reader.refuse_taken(chart, job.target, history)
        found = [thing for thing in (chart, inputs.config) if thing]
        look = Look(
            key=key,
            chart=chart,
            job=job,
            policy=wanted.failure_policy(chart, inputs.config),
            history=history,
            attempt=Attempt(
                hash=wanted.hash_of(job, wanted.ignored_values(chart, inputs)),
                generation="/".join(str(thing["metadata"].get("generation", 0)) for thing in found),
                access=wanted.access_of(chart, inputs),
            ),
            failure=self._attempts.remembered(key, chart),
        )
        step = plan.decide(
            look.history,
            look.attempt.hash,
            policy=look.policy,
            timeout=job.target.timeout,
            now=self._now().timestamp(),
            waited=self._attempts.waited(key, look.history),
            memory=failures.memory_of(
                look.failure, look.attempt, rolling_back=Back.has_begun(chart)
            ),
        )
        return look, step

    async def _take(self, look: Look, step: Step) -> float | None:
        match step:
            case Step.NOTHING:
                return await self._settled(look)
            case Step.HEAL:
                return await self._heal(look)
            case Step.ROLLBACK:
                return await self._back.roll(look)
            case Step.CLEAN:
                return await self._back.clean(look)
            case Step.ROLLED_BACK:
                await self._back.settled(look)
                return None
            case Step.LEAVE:
                message = f"revision {look.history[-1].version} failed; failurePolicy is abort"
                await self._teller.tell(look.chart, status.failure("Aborted", message))
                return None
            case Step.WAIT:
                message = f"revision {look.history[-1].version} is {look.history[-1].status}"
                await self._teller.tell(look.chart, status.working("Waiting", message))
                return float(look.job.target.timeout)
            case _:
                return await self._gate(look, step)

    async def _settled(self, look: Look) -> float | None:
        last, target = look.history[-1], look.job.target
        await self._adopt(look.chart)
        release = status.release_of(look.chart.get("status") or {})
        known = release and (release.revision, release.namespace)
        if release is None or known != (last.version, target.namespace):
            release = await self._recorded(target, last.version)
        release = replace(release, status=last.status)
        asked = wanted.drift_of(look.chart)
        if asked is None:
            await self._tell_as_wanted(look, release)
            return None
        return await self._check(look, release, asked)

    async def _recorded(self, target: Target, revision: int) -> Release:
        with suppress(records.Unreadable):
            if found := await records.details(self._client, target, revision):
                return found.release
        # It runs, and its labels say so. Helm will say no before anything is done about it.
        return Release(
            name=target.name,
            namespace=target.namespace,
            revision=revision,
            status="",
            chart="",
            app_version="",
        )

    async def _tell_as_wanted(self, look: Look, release: Release) -> None:
        self._attempts.forget(look.key)
        await self._tell_deployed(look, release, look.history)

    async def _tell_deployed(
        self, look: Look, release: Release, history: Sequence[Revision]
    ) -> None:
        old = look.chart.get("status") or {}
        fields = {
            "release": status.release(release, look.job.target),
            "history": status.history(history, old.get("history") or (), release),
            "failure": None,
        }
        drift = {} if wanted.drift_of(look.chart) else {"Drifted": None}
        outcome = status.deployed(release)
        await self._teller.tell(look.chart, outcome, fields=fields, conditions=drift)

    async def _check(self, look: Look, release: Release, asked: Drift) -> float | None:
        said = await self._checker.check(look.job.target, release.revision, asked)
        before = status.condition(look.chart.get("status") or {}, "Drifted")
        await self._teller.tell(look.chart, None, conditions={"Drifted": said})
        drifted = said[0] == "True"
        if drifted and before.get("message") != said[2]:
            await self._teller.event(look.chart, "Drifted", said[2], warning=True)
        if drifted and asked.mode == "correct":
            return await self._correct(look, release, asked)
        await self._tell_as_wanted(look, release)
        return asked.interval

    async def _correct(self, look: Look, release: Release, asked: Drift) -> float | None:
        """By an upgrade to the same; forced, since whoever changed a field owns it now."""
        forced = replace(look, job=replace(look.job, force_conflicts=True))
        again = await self._gate(forced, Step.UPGRADE)
        made = status.release_of(look.chart["status"])
        if made and made.revision > release.revision:
            found = status.condition(look.chart["status"], "Drifted")["message"]
            corrected = ("False", "Corrected", f"revision {made.revision} put right: {found}")
            await self._teller.tell(look.chart, None, conditions={"Drifted": corrected})
            await self._teller.event(look.chart, "DriftCorrected", corrected[2])
        return again if again is not None else asked.interval

    async def _heal(self, look: Look) -> float:
        last = look.history[-1]
        if last.ours:
            # Written down before it is mended, so that no interruption goes uncounted.
            said = HelmError(failures.INTERRUPTED, f"revision {last.version} was {_INTERRUPTED}")
            await self._attempts.failed(look, said, revision=f"{last.version}/{last.uid}")
        await records.mark_failed(self._client, look.job.target, last.version, _INTERRUPTED)
        return 0.0

    async def _gate(self, look: Look, step: Step) -> float | None:
        """What may have to wait: for other charts, for a window."""
        if why := await self._reader.waits_for(look.key, look.chart):
            await self._teller.tell(look.chart, status.working("DependencyNotReady", why))
            return None
        # What began in a window may be finished outside of it: half way is no place to stop.
        began = step is not Step.UPGRADE or look.history[-1].status == "failed"
        if not began and (left := await self._closed(look)) is not None:
            return left
        return await self._try(look, step)

    async def _closed(self, look: Look) -> float | None:
        window, now = wanted.window_of(look.chart), self._now()
        if window is None or window.open(now):
            return None
        opening = window.next_opening(now)
        message = f"the upgrade waits for the maintenance window of {opening:{failures.TIME}}"
        await self._teller.tell(look.chart, status.working("WaitingForWindow", message))
        return min((opening - now).total_seconds() + 1.0, LONGEST_SLEEP)

    async def _try(self, look: Look, step: Step) -> float | None:
        if await self._attempts.is_given_up(look):
            return None
        if left := self._attempts.left(look):
            return left
        if left := self._attempts.begin(look.key):
            await self._teller.tell(look.chart, status.working(*TOO_MANY))
            return left
        await self._adopt(look.chart)
        await self._begin(look, step)
        labels = plan.labels(
            look.attempt.hash, look.history, step, owner=look.chart["metadata"]["namespace"]
        )
        try:
            release = await self._perform(look, step, replace(look.job, labels=labels))
        except HelmError as err:
            again = await self._failed(look, err)
            return 0.0 if look.policy == "rollback" else again
        await records.confirm(self._client, look.job.target, release.revision)
        self._attempts.forget(look.key)
        history = () if step is Step.REINSTALL else look.history
        await self._tell_deployed(look, release, history)
        await self._teller.event(look.chart, "Deployed", status.deployed(release).message)
        asked = wanted.drift_of(look.chart)
        return asked.interval if asked else None

    async def _begin(self, look: Look, step: Step) -> None:
        verb = _VERBS.get(step, "Installing")
        failure = look.failure
        # A failure stays visible until there is something better to say.
        if failure is None or failure.attempt.hash != look.attempt.hash:
            await self._teller.tell(look.chart, status.working(verb, f"{verb} the release"))
        await self._teller.event(look.chart, "ApplyJob", f"{verb} {wanted.origin_of(look.chart)}")

    async def _perform(self, look: Look, step: Step, job: Job) -> Release:
        target = job.target
        if step is Step.REINSTALL:
            await records.converting(self._client, target, lambda: self._helm.uninstall(target))
        if step is Step.UPGRADE:
            force = await records.may_force(self._client, job, look.history[-1].version)
            job = replace(job, force_conflicts=force)
            return await records.converting(self._client, target, lambda: self._helm.upgrade(job))
        return await self._helm.install(job)

    async def _failed(self, look: Look, err: HelmError) -> float | None:
        LOG.warning("%s: %s", look.key, err)
        failure = await self._attempts.failed(look, err)
        await self._teller.event(look.chart, "JobFailed", f"{err.reason}: {err}", warning=True)
        if err.reason in _OF_RECORDS:
            await self._drop_record(look)
        return None if failure.final else self._attempts.left(replace(look, failure=failure))

    async def _drop_record(self, look: Look) -> None:
        if await records.drop_unreadable(self._client, look.job.target):
            message = "the newest record of the release was unreadable"
            await self._teller.event(look.chart, "RecordRemoved", message, warning=True)

    async def _adopt(self, chart: Object) -> None:
        present = chart["metadata"].get("finalizers") or []
        if plan.FINALIZER not in present:
            await finalize(self._client, chart, [*present, plan.FINALIZER])


def _refuse_other_driver(chart: Object, target: Target) -> None:
    """The API may not have refused it: not every one evaluates rules."""
    known = (chart.get("status") or {}).get("release") or {}
    if known.get("driver", target.driver) != target.driver:
        message = f"spec.driver: driver is immutable after creation; it is {known['driver']}"
        raise Refused("DriverImmutable", message)
