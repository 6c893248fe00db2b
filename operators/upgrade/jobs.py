"""
Upgrades a node of another Kubernetes by a Job on it, and says how it is going.

The Job is all that there is to know: who finds it, whoever made it, goes on with it.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from operators.client import ApiError, Client
from operators.upgrade import jobplan
from operators.upgrade.base import Drained

_SOON, _LATE = 5.0, 60.0  # seconds between two looks
_GONE = 2.0  # until a Job that is deleted is gone
_REFUSED = frozenset({400, 403, 422})
_LONGEST = 400  # characters of a message


class NodeJobs:
    """A :class:`~operators.upgrade.base.Jobs`. It has no state."""

    def __init__(self, client: Client, *, namespace: str, now: Callable[[], datetime]) -> None:
        """``namespace``: of the Jobs; it must allow pods that are privileged."""
        self._client = client
        self._path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._namespace = namespace
        self._now = now

    async def ensure(self, plan: Mapping[str, Any], node: str, version: str) -> Drained:
        template = plan["spec"].get("jobTemplate")
        if not template:
            return _failed("spec.jobTemplate is needed for a node without slots of Pinnace")
        if errors := jobplan.validate(template):
            return _failed("; ".join(errors))
        body = jobplan.job(plan, node, version, self._namespace)
        name = body["metadata"]["name"]
        found = await self._find(name)
        if found is None:
            return await self._create(body)
        labels = found["metadata"].get("labels") or {}
        stale = labels.get(jobplan.UID_LABEL) != plan["metadata"]["uid"]
        if stale or found["metadata"].get("deletionTimestamp"):
            # Of a plan of this name that is no more, or removed so that it can be tried again.
            if stale:
                await self._delete(name)
            return self._again(f"waits for the job {name} of before to go", _GONE)
        return await self._judge(found)

    async def remove(self, plan: str, node: str) -> None:
        selector = f"{jobplan.PLAN_LABEL}={jobplan.short(plan)}"
        selector += f",{jobplan.NODE_LABEL}={jobplan.short(node)}"
        for found in await self._client.metadata(self._path, {"labelSelector": selector}):
            if not found.get("deletionTimestamp"):
                await self._delete(found["name"])

    async def _find(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._client.get(f"{self._path}/{name}")
        except ApiError as err:
            if err.code == 404:
                return None
            raise

    async def _create(self, body: Mapping[str, Any]) -> Drained:
        try:
            await self._client.create(self._path, body)
        except ApiError as err:
            if err.code in _REFUSED:
                return _failed(f"the API refuses the job: {err}")
            if err.code != 409:
                raise
        return self._again(f"job {body['metadata']['name']} is started", _SOON)

    async def _judge(self, found: Mapping[str, Any]) -> Drained:
        name = found["metadata"]["name"]
        ended, why = jobplan.outcome(found)
        if ended == "Complete":
            return Drained(done=True, message="", retry_at=None)
        if ended:
            return _failed(f"job {name} failed: {why}")
        query = urlencode({"labelSelector": f"batch.kubernetes.io/job-name={name}"})
        pods = (await self._client.get(f"{self._pods}?{query}")).get("items") or []
        tries = (found.get("status") or {}).get("failed") or 0
        says = jobplan.waits_for(pods)
        message = f"job {name} runs" + (f", {tries} pods of it failed" if tries else "")
        message += f": {says}"[:_LONGEST] if says else ""
        made = datetime.fromisoformat(found["metadata"]["creationTimestamp"])
        elapsed = (self._now() - made).total_seconds()
        return self._again(message, min(max(_SOON, elapsed / 4), _LATE))

    async def _delete(self, name: str) -> None:
        try:
            await self._client.delete(f"{self._path}/{name}?propagationPolicy=Background")
        except ApiError as err:
            if err.code != 404:
                raise

    def _again(self, message: str, seconds: float) -> Drained:
        return Drained(
            done=False, message=message, retry_at=self._now() + timedelta(seconds=seconds)
        )


def _failed(message: str) -> Drained:
    return Drained(done=False, message=message[:_LONGEST], retry_at=None, failed=True)
