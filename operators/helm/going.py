"""
HelmCharts that are deleted: the release goes first, and nothing keeps a chart for ever.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from operators.client import Client
from operators.helm import plan, records, status, wanted
from operators.helm.attempts import Attempts, Look
from operators.helm.base import Helm, HelmError, Job, Source, Target
from operators.helm.failures import Attempt
from operators.helm.plan import Step
from operators.helm.read import Reader
from operators.helm.tell import Teller, path_of, written
from operators.helm.wanted import Refused

# Then the HelmChart goes all the same, as K3s lets it go after the first.
UNINSTALL_ATTEMPTS = 5

Object = dict[str, Any]
Fail = Callable[[Look, HelmError], Awaitable[float | None]]


class Going:
    """``fail`` counts and tells a failure, and says when to come again."""

    def __init__(
        self,
        client: Client,
        helm: Helm,
        reader: Reader,
        *,
        teller: Teller,
        attempts: Attempts,
        fail: Fail,
    ) -> None:
        self._client = client
        self._helm = helm
        self._reader = reader
        self._teller = teller
        self._attempts = attempts
        self._fail = fail

    async def remove(self, key: str, chart: Object) -> float | None:
        target = _target(chart)
        namespace = await self._reader.get(f"/api/v1/namespaces/{chart['metadata']['namespace']}")
        look = Look(
            key=key,
            chart=chart,
            job=Job(target=target, source=Source()),
            policy="",
            history=await records.history(self._client, target),
            attempt=Attempt(hash="", generation="deleted", access=""),
            failure=self._attempts.remembered(key, chart),
        )
        step = plan.on_deletion(chart, namespace, look.history)
        if step is Step.IGNORE:
            return None
        if step is Step.UNINSTALL and (left := await self._uninstall(look)) is not None:
            return left
        self._attempts.forget(key)
        await self.let_go(chart)
        return None

    async def let_go(self, chart: Object) -> None:
        finalizers = [name for name in chart["metadata"]["finalizers"] if name != plan.FINALIZER]
        await finalize(self._client, chart, finalizers)

    async def _uninstall(self, look: Look) -> float | None:
        """None: the chart can go; else seconds until the next attempt."""
        if left := self._attempts.left(look):
            return left
        chart, target = look.chart, look.job.target
        message = f"Uninstalling the release {target.name}"
        if look.failure is None or look.failure.attempt != look.attempt:
            await self._teller.tell(chart, status.working("Uninstalling", message))
        await self._teller.event(chart, "RemoveJob", message)
        try:
            await records.converting(self._client, target, lambda: self._helm.uninstall(target))
        except HelmError as err:
            again = await self._fail(look, err)
            failure = self._attempts.remembered(look.key, chart)
            if failure and not failure.final and failure.count < UNINSTALL_ATTEMPTS:
                return again
            message = f"the release {target.name} is left as it is: {err}"
            await self._teller.event(chart, "RemoveJob", message, warning=True)
        return None


async def finalize(client: Client, chart: Object, names: Sequence[str]) -> None:
    """Write these finalizers, and nothing over what somebody else wrote since."""
    version = chart["metadata"]["resourceVersion"]
    metadata = {"resourceVersion": version, "finalizers": list(names)}
    written(chart, await client.merge(path_of(chart), {"metadata": metadata}))


def _target(chart: Object) -> Target:
    """Of a chart that is deleted: what it says wrong must not keep it from going."""
    known = (chart.get("status") or {}).get("release") or {}
    spec = {**wanted.spec_of(chart)}
    if known.get("driver"):
        spec["driver"] = known["driver"]
    try:
        return wanted.target_of({**chart, "spec": spec})
    except Refused:
        return wanted.target_of({**chart, "spec": {**spec, "timeout": ""}})
