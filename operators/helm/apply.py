"""
Bring releases to what HelmCharts say: read, plan, run Helm, tell.

Everything is read anew at each look, and the finalizer is set before the first
install, so a look may end anywhere, even with the machine, and the next one goes on.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from operators import events
from operators.client import ApiError, Client
from operators.config import Config, read_kubeconfig
from operators.helm import plan, records, status
from operators.helm.base import Helm, HelmError, Job, Release, Target
from operators.helm.plan import Missing, Refused, Revision, Step

LOG = logging.getLogger(__name__)

GROUP = "/apis/helm.cattle.io/v1"
FIRST_RETRY = 10.0  # seconds; doubled with each failure, as a Job does
LONGEST_RETRY = 360.0

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Failures:
    """Of one wanted state; another state begins anew."""

    hash: str
    count: int
    reason: str
    message: str
    permanent: bool
    retry_at: float  # of the clock of the process


class Charts:
    """``now`` is the time of day, ``clock`` the seconds that a back-off is measured in."""

    def __init__(
        self,
        config: Config,
        client: Client,
        helm: Helm,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._client = client
        self._helm = helm
        self._now = now
        self._clock = clock
        self._failures: dict[str, _Failures] = {}

    async def reconcile(self, key: str) -> float | None:
        """``key``: namespace/name. Seconds after which the chart must be looked at again."""
        chart = await self._get(_path("helmcharts", key))
        if chart is None:
            self._failures.pop(key, None)
            return None
        if plan.UNMANAGED in (chart["metadata"].get("annotations") or {}):
            return None
        if "deletionTimestamp" in chart["metadata"]:
            return await self._remove(key, chart)
        try:
            return await self._bring(key, chart)
        except Refused as err:
            await self._tell(chart, status.failure(err.reason, str(err)))
        except Missing as err:
            await self._tell(chart, status.working("Waiting", str(err)))
        return None

    async def _bring(self, key: str, chart: Object) -> float | None:
        inputs = await self._inputs(key, chart)
        job = plan.job_of(chart, inputs)
        wanted = plan.hash_of(job, plan.ignored_values(chart, inputs))
        history = await records.history(self._client, job.target)
        policy = plan.failure_policy(chart, inputs.config)
        step = plan.decide(
            history,
            wanted,
            policy=policy,
            timeout=job.target.timeout,
            now=self._now().timestamp(),
        )
        match step:
            case Step.NOTHING:
                await self._settled(key, chart, history[-1])
                return None
            case Step.LEAVE:
                message = f"revision {history[-1].version} failed; failurePolicy is abort"
                await self._tell(chart, status.failure("Aborted", message))
                return None
            case Step.WAIT:
                message = f"revision {history[-1].version} is {history[-1].status}"
                await self._tell(chart, status.working("Waiting", message))
                return float(job.target.timeout)
            case Step.HEAL:
                why = "interrupted: the node stopped, or Helm did"
                await records.mark_failed(self._client, job.target, history[-1].version, why)
                return 0.0
            case _:
                labelled = replace(job, labels=plan.labels(wanted, history, step))
                return await self._try(key, chart, step, labelled)

    async def _settled(self, key: str, chart: Object, last: Revision) -> None:
        self._failures.pop(key, None)
        name = chart["metadata"]["name"]
        old = _condition(chart, "Ready")
        revision = f"revision {last.version}"
        if old.get("status") == "True" and old.get("message", "").endswith(f" {revision}"):
            outcome = replace(
                status.deployed(release=name, chart="", revision=last.version),
                message=old["message"],
            )
        else:
            outcome = status.deployed(release=name, chart="", revision=last.version)
        await self._tell(chart, outcome)

    async def _try(self, key: str, chart: Object, step: Step, job: Job) -> float | None:
        failures = self._failures.get(key)
        wanted = dict(job.labels)[plan.HASH_LABEL]
        if failures and failures.hash == wanted:
            if failures.permanent or failures.count > plan.backoff_limit(chart):
                await self._tell(chart, _given_up(failures))
                return None
            if (left := failures.retry_at - self._clock()) > 0:
                return left
        chart = await self._adopt(chart)
        await self._begin(chart, step, failures)
        try:
            revision = await self._perform(step, job)
        except HelmError as err:
            return await self._failed(key, chart, wanted, err)
        self._failures.pop(key, None)
        outcome = status.deployed(
            release=job.target.name, chart=revision.chart, revision=revision.revision
        )
        await self._tell(chart, outcome)
        await self._event(chart, "Deployed", outcome.message)
        return None

    async def _perform(self, step: Step, job: Job) -> Release:
        if step is Step.REINSTALL:
            await self._helm.uninstall(job.target)
        if step is Step.UPGRADE:
            return await self._helm.upgrade(job)
        return await self._helm.install(job)

    async def _begin(self, chart: Object, step: Step, failures: _Failures | None) -> None:
        if failures:  # the failure stays visible until there is something better to say
            return
        verb = {Step.UPGRADE: "Upgrading", Step.REINSTALL: "Reinstalling"}.get(step, "Installing")
        await self._tell(chart, status.working(verb, f"{verb} the release"))
        await self._event(chart, "ApplyJob", f"{verb} the release {chart['metadata']['name']}")

    async def _failed(self, key: str, chart: Object, wanted: str, err: HelmError) -> float | None:
        before = self._failures.get(key)
        count = before.count + 1 if before and before.hash == wanted else 1
        delay = min(FIRST_RETRY * 2.0 ** min(count - 1, 10), LONGEST_RETRY)
        failures = self._failures[key] = _Failures(
            wanted, count, err.reason, str(err), err.permanent, self._clock() + delay
        )
        LOG.warning("%s: %s", key, err)
        await self._event(chart, "JobFailed", f"{err.reason}: {err}", warning=True)
        if err.permanent or count > plan.backoff_limit(chart):
            await self._tell(chart, _given_up(failures))
            return None
        await self._tell(chart, status.failure(err.reason, str(err)))
        return delay

    async def _remove(self, key: str, chart: Object) -> float | None:
        target = _target(chart)
        namespace = await self._get(f"/api/v1/namespaces/{chart['metadata']['namespace']}")
        history = await records.history(self._client, target)
        step = plan.on_deletion(chart, namespace, history)
        if step is Step.IGNORE:
            return None
        if step is Step.UNINSTALL:
            await self._event(chart, "RemoveJob", f"Uninstalling the release {target.name}")
            try:
                await self._helm.uninstall(target)
            except HelmError as err:
                return await self._failed(key, chart, "", err)
        self._failures.pop(key, None)
        left = [name for name in chart["metadata"]["finalizers"] if name != plan.FINALIZER]
        await self._patch_finalizers(chart, left)
        return None

    async def _adopt(self, chart: Object) -> Object:
        present = chart["metadata"].get("finalizers") or []
        if plan.FINALIZER in present:
            return chart
        return await self._patch_finalizers(chart, [*present, plan.FINALIZER])

    async def _patch_finalizers(self, chart: Object, names: list[str]) -> Object:
        metadata = {
            # So that no finalizer of somebody else's gets lost.
            "resourceVersion": chart["metadata"]["resourceVersion"],
            "finalizers": names,
        }
        return await self._client.merge(_path_of(chart), {"metadata": metadata})

    async def _inputs(self, key: str, chart: Object) -> plan.Inputs:
        config = await self._get(_path("helmchartconfigs", key))
        secrets, config_maps = plan.names(chart, config)
        core = f"/api/v1/namespaces/{chart['metadata']['namespace']}"
        return plan.Inputs(
            config=config,
            secrets={name: await self._get(f"{core}/secrets/{name}") for name in secrets},
            config_maps={
                name: await self._get(f"{core}/configmaps/{name}") for name in config_maps
            },
            kubernetes_api=self._config.kubernetes_api,
            cluster_ca=read_kubeconfig(self._config.kubeconfig).ca,
        )

    async def _get(self, path: str) -> Object | None:
        try:
            return await self._client.get(path)
        except ApiError as err:
            if err.code == 404:
                return None
            raise

    async def _tell(self, chart: Object, outcome: status.Outcome) -> None:
        conditions = status.conditions(
            (chart.get("status") or {}).get("conditions") or (),
            outcome,
            generation=chart["metadata"].get("generation", 0),
            now=self._time(),
        )
        if conditions is None:
            return
        patch = {"status": {"conditions": conditions}}
        try:
            await self._client.merge(f"{_path_of(chart)}/status", patch)
        except ApiError as err:
            if err.code != 404:  # deleted meanwhile
                raise
        chart["status"] = {**(chart.get("status") or {}), "conditions": conditions}

    async def _event(
        self, chart: Object, reason: str, message: str, *, warning: bool = False
    ) -> None:
        about = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", **chart}
        body = events.event(
            about, warning=warning, reason=reason, message=message, now=self._time()
        )
        try:
            await self._client.create(events.path(about), body)
        except ApiError as err:
            # An event is a courtesy: a namespace that is going away refuses it.
            LOG.debug("event %s: %s", reason, err)

    def _time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _given_up(failures: _Failures) -> status.Outcome:
    if failures.permanent:
        return status.failure(failures.reason, failures.message)
    message = f"gave up after {failures.count} attempts: {failures.message}"
    return status.failure("BackoffLimitExceeded", message)


def _target(chart: Object) -> Target:
    try:
        return plan.target_of(chart)
    except Refused:  # a timeout that is none must not keep the chart from going
        return plan.target_of({**chart, "spec": {**chart["spec"], "timeout": ""}})


def _condition(chart: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    conditions = (chart.get("status") or {}).get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})


def _path(plural: str, key: str) -> str:
    namespace, _, name = key.partition("/")
    return f"{GROUP}/namespaces/{namespace}/{plural}/{name}"


def _path_of(chart: Object) -> str:
    metadata = chart["metadata"]
    return _path("helmcharts", f"{metadata['namespace']}/{metadata['name']}")
