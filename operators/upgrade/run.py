"""Joins what watches for plans with what works on them, which is imported with the first plan."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from operators.base import Parts
from operators.queue import Queue
from operators.upgrade import handlers
from operators.upgrade.known import Known

if TYPE_CHECKING:
    from operators.upgrade.cattle import CattlePlans
    from operators.upgrade.work import Work

# As in cattleplan.py, which is imported where there is such a plan.
TRANSLATED_FROM = "upgrade.pinnace.dev/translated-from"


class UpgradeOperator:
    def __init__(self, parts: Parts) -> None:
        # One worker: what a plan may do depends on what the others have begun.
        self._plans = Queue("UpgradePlan", self._reconcile, workers=1)
        self._looks = Queue("upgrade", self._look, workers=8)
        self._known = Known(self._plans.add)
        self._work: Work | None = None
        # Elsewhere their own controller does them.
        self._foreign = Queue("Plan", self._translate, workers=2) if parts.config.native else None
        self._parts = parts
        self._cattle: CattlePlans | None = None

    def register(self, registry: Any) -> None:
        handlers.register(registry, self._known, self._pod_changed)
        if self._foreign is not None:
            handlers.register_foreign(registry, self._foreign.add, self._followers)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._plans.run())
            tasks.create_task(self._looks.run())
            if self._foreign is not None:
                tasks.create_task(self._foreign.run())

    async def _reconcile(self, key: str) -> float | None:
        if self._work is None and self._known.idle:
            return None
        return await self._begun().upgrades.reconcile(key)

    async def _look(self, key: str) -> float | None:
        return await self._begun().observer.look(key)

    def _pod_changed(self, node: str) -> None:
        if self._work is not None:
            self._work.observer.pod_changed(node)

    def _begun(self) -> "Work":
        if self._work is None:
            from operators.upgrade.work import Work

            self._work = Work(
                self._parts, self._known, add=self._looks.add, changed=self._plans.add
            )
        return self._work

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


operator = UpgradeOperator
