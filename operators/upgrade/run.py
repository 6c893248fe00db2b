"""Joins the parts of upgrades; what needs much memory is imported when it is needed first."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from operators.base import Parts
from operators.queue import Queue
from operators.upgrade import handlers
from operators.upgrade.apply import Upgrades
from operators.upgrade.base import Channels, Checks, Drains, Jobs
from operators.upgrade.known import Known
from operators.upgrade.observe import Observer, Tools

if TYPE_CHECKING:
    from operators.upgrade.cattle import CattlePlans

# As in cattleplan.py, which is imported where there is such a plan.
TRANSLATED_FROM = "upgrade.pinnace.dev/translated-from"


class UpgradeOperator:
    def __init__(self, parts: Parts) -> None:
        # One worker: what a plan may do depends on what the others have begun.
        self._plans = Queue("UpgradePlan", self._reconcile, workers=1)
        self._looks = Queue("upgrade", self._look, workers=8)
        self._known = Known(self._plans.add)
        self._observer = Observer(
            tools(parts), now=parts.now, add=self._looks.add, changed=self._plans.add
        )
        self._upgrades = Upgrades(parts.client, self._known, self._observer, now=parts.now)
        # Elsewhere their own controller does them.
        self._foreign = Queue("Plan", self._translate, workers=2) if parts.config.native else None
        self._parts = parts
        self._cattle: CattlePlans | None = None

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._known, self._observer.pod_changed)
        if self._foreign is not None:
            handlers.register_foreign(registry, self._foreign.add, self._followers)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._plans.run())
            tasks.create_task(self._looks.run())
            if self._foreign is not None:
                tasks.create_task(self._foreign.run())

    async def _reconcile(self, key: str) -> float | None:
        return await self._upgrades.reconcile(key)

    async def _look(self, key: str) -> float | None:
        return await self._observer.look(key)

    async def _translate(self, key: str) -> float | None:
        return await self._plans_of_others().reconcile(key)

    def _followers(self, upgrade_plan: Mapping[str, Any]) -> Iterable[str]:
        annotations = upgrade_plan["metadata"].get("annotations") or {}
        if self._cattle is None and TRANSLATED_FROM not in annotations:
            return ()
        return self._plans_of_others().keys_of(upgrade_plan)

    def _plans_of_others(self) -> "CattlePlans":
        if self._cattle is None:
            from operators.upgrade.cattle import CattlePlans

            self._cattle = CattlePlans(self._parts.client, now=self._parts.now)
        return self._cattle


def tools(parts: Parts) -> Tools:
    def channels() -> Channels:
        from operators.upgrade.channels.run import SignedChannels

        return SignedChannels(now=parts.now, proxy=parts.config.proxy)

    def checks() -> Checks:
        from operators.upgrade.checks.run import HealthChecks

        return HealthChecks(parts.client, kubeconfig=parts.config.kubeconfig)

    def drains() -> Drains:
        from operators.upgrade.drain import NodeDrains

        return NodeDrains(parts.client, now=parts.now)

    def jobs() -> Jobs:
        from operators.upgrade.jobs import NodeJobs

        return NodeJobs(parts.client, namespace=parts.config.namespace, now=parts.now)

    return Tools(channels=channels, checks=checks, drains=drains, jobs=jobs)


operator = UpgradeOperator
