"""
``failurePolicy: rollback``: back to what worked, and what failed is not tried again.

Which revision failed, and for what, its record says by its labels: that is what keeps
it from being tried again. After a first install there is nothing to go back to, so
what it left is uninstalled, and only the status of the HelmChart remembers it.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from operators.client import Client
from operators.helm import plan, records, status
from operators.helm.attempts import Attempts, Look
from operators.helm.base import Helm, HelmError
from operators.helm.tell import Teller

REASON, FAILED, BEGUN = "RolledBack", "RollbackFailed", "RollingBack"
Fail = Callable[[Look, HelmError], Awaitable[float | None]]


class Back:
    """``fail`` counts and tells a failure, and says when to come again."""

    def __init__(
        self, client: Client, helm: Helm, *, teller: Teller, attempts: Attempts, fail: Fail
    ) -> None:
        self._client = client
        self._helm = helm
        self._teller = teller
        self._attempts = attempts
        self._fail = fail

    async def roll(self, look: Look) -> float | None:
        """To the last revision that worked."""
        if look.failure and look.failure.reason == FAILED:
            if await self._attempts.is_given_up(look):
                return None
            if left := self._attempts.left(look):
                return left
        good = plan.last_good(look.history)
        assert good is not None
        why, target = await self._why(look), look.job.target
        force = await records.may_force(self._client, look.job, good.version)
        # So that whoever finds it half way knows that nobody else is at work.
        await self._teller.tell(look.chart, status.failure(BEGUN, why))
        try:
            await records.converting(
                self._client,
                target,
                lambda: self._helm.rollback(
                    target,
                    good.version,
                    server_side=look.job.server_side,
                    force_conflicts=force,
                ),
            )
        except HelmError as err:
            message = f"{why}; the rollback to revision {good.version} failed: {err}"
            return await self._fail(look, HelmError(FAILED, message))
        message = f"{why}; rolled back to revision {good.version}"
        await self._attempts.give_up(look, REASON, message)
        await self._teller.event(look.chart, REASON, message, warning=True)
        return 0.0

    async def clean(self, look: Look) -> float | None:
        """There is nothing to go back to: what the first install left is taken away."""
        if left := self._attempts.left(look) if _failed_before(look) else 0.0:
            return left
        message = self._told(look)
        if not message:
            message = f"{await self._why(look)}; uninstalled, since there is nothing to go back to"
        await self._attempts.give_up(look, REASON, message)
        target = look.job.target
        try:
            await records.converting(self._client, target, lambda: self._helm.uninstall(target))
        except HelmError as err:
            return await self._fail(look, HelmError(FAILED, f"{message}: {err}"))
        await self._teller.event(look.chart, REASON, message, warning=True)
        return None

    async def settled(self, look: Look) -> None:
        """What is wanted failed, what was before it runs: say so."""
        chart, last, target = look.chart, look.history[-1], look.job.target
        old = chart.get("status") or {}
        message = self._told(look)
        if not message:
            message = f"{await self._why(look)}; revision {last.version} is a rollback"
        release = status.release_of(old)
        if release is None or release.revision != last.version:
            found = await self._details(look, last.version)
            release = found.release if found else None
        fields: dict[str, Any] = {}
        if release:
            release = replace(release, status=last.status)
            fields["release"] = status.release(release, target)
        fields["history"] = status.history(look.history, old.get("history") or (), release)
        await self._teller.tell(chart, status.failure(REASON, message), fields=fields)

    @staticmethod
    def has_begun(chart: Mapping[str, Any]) -> bool:
        return status.condition(chart.get("status") or {}, "Failed").get("reason") == BEGUN

    def _told(self, look: Look) -> str:
        said = status.condition(look.chart.get("status") or {}, "Failed")
        return str(said.get("message") or "") if said.get("reason") == REASON else ""

    async def _why(self, look: Look) -> str:
        """Why the last revision of ours failed."""
        failure = look.failure
        if failure and failure.attempt.hash == look.attempt.hash and failure.reason != FAILED:
            return failure.message
        ours = plan.last_ours(look.history)
        if ours is None:
            return "the upgrade failed"
        found = await self._details(look, ours.version)
        return (found and found.description) or f"revision {ours.version} failed"

    async def _details(self, look: Look, revision: int) -> records.Details | None:
        try:
            return await records.details(self._client, look.job.target, revision)
        except records.Unreadable:
            return None


def _failed_before(look: Look) -> bool:
    return look.failure is not None and look.failure.reason == FAILED
