"""
Does what was decided about a plan: writes to nodes, events, and the plan's status.

Each write to a Node says from which version of it it was decided; where somebody was faster, the
watch tells and the plan is looked at again. The status is written at once when people should know,
and else at most so often that 500 nodes cost no more writes than a few each.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from operators.client import ApiError, Client
from operators.recorder import Recorder
from operators.upgrade import plan as planning
from operators.upgrade import status
from operators.upgrade.known import Known
from operators.upgrade.observe import Observer
from operators.upgrade.patches import Change
from operators.upgrade.spec import GROUP, KIND, PATH, VERSION, Object, Plan
from operators.upgrade.world import World

NODES = "/api/v1/nodes"
AT_ONCE = 8  # writes to nodes
STALE_SECONDS = 0.5  # until the watch has told what somebody else wrote in between
WARNINGS = frozenset({"Paused", "Failed", "RollingBack"})
_AWAY = frozenset({0, 429, 503})


class Upgrades:
    """Its mutable state: when each status was written last."""

    def __init__(
        self, client: Client, known: Known, observer: Observer, *, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._known = known
        self._observer = observer
        self._now = now
        self._recorder = Recorder(client, now)
        self._written: dict[str, datetime] = {}  # by the plan's uid

    async def reconcile(self, name: str) -> float | None:
        """One look at a plan, or, with "", at nodes whose plan is no more."""
        if not self._known.synced:
            return None
        if not name:
            return await self._tidy()
        plan = self._known.plans.get(name)
        if plan is None:
            there = {other.uid for other in self._known.plans.values()}
            self._observer.gone(name, there)
            self._written = {uid: at for uid, at in self._written.items() if uid in there}
            return None
        now = self._now()
        decision = planning.decide(plan, self._world(now))
        self._observer.want(plan, decision)
        stale = await self._write(plan, decision.changes)
        due = await self._tell(plan, decision.status)
        if stale:
            return STALE_SECONDS
        waits = [moment for moment in (decision.wake, due) if moment is not None]
        return max((min(waits) - self._now()).total_seconds(), 0.05) if waits else None

    async def _tidy(self) -> float | None:
        changes = planning.orphans(self._world(self._now()))
        owners = {(p.plan, p.uid) for c in changes if (p := c.node.progress) is not None}
        # The watch of plans may be behind that of nodes, and a plan that is there has its reasons.
        gone = {uid for name, uid in owners if await self._is_gone(name, uid)}
        mine = [c for c in changes if c.node.progress and c.node.progress.uid in gone]
        stale = await self._write(None, mine)
        return STALE_SECONDS if stale or len(mine) < len(changes) else None

    async def _is_gone(self, name: str, uid: str) -> bool:
        try:
            found = await self._client.get(f"{PATH}/{name}")
        except ApiError as err:
            if err.code != 404:
                raise
            return True
        return bool(found["metadata"]["uid"] != uid)

    def _world(self, now: datetime) -> World:
        return World(
            plans=list(self._known.plans.values()),
            nodes=list(self._known.nodes.values()),
            now=now,
            found=self._observer.found,
            drained=self._observer.drained,
            jobs=self._observer.jobs,
            judged=self._observer.judged,
        )

    async def _write(self, plan: Plan | None, changes: Sequence[Change]) -> bool:
        """
        Whether one was decided from what is not so any more.

        Raises the last error of the others, once all were tried; an API that is away is left
        in peace at once.
        """
        turn = asyncio.Semaphore(AT_ONCE)
        failed: list[ApiError] = []

        async def one(change: Change) -> None:
            async with turn:
                if any(err.code in _AWAY for err in failed):
                    return
                try:
                    await self._change(plan, change)
                except ApiError as err:
                    failed.append(err)

        async with asyncio.TaskGroup() as tasks:
            for change in changes:
                tasks.create_task(one(change))
        hard = [err for err in failed if err.code not in (404, 409)]
        if hard:
            raise hard[-1]
        return bool(failed)

    async def _change(self, plan: Plan | None, change: Change) -> None:
        node = change.node
        owner = node.progress.plan if node.progress else ""
        if change.job == "before":
            await self._observer.remove_job(plan.name if plan else owner, node.name)
        self._known.put_node(await self._client.merge(f"{NODES}/{node.name}", change.patch))
        if change.job == "after":
            await self._observer.remove_job(plan.name if plan else owner, node.name)
        about = {
            "apiVersion": "v1",
            "kind": "Node",
            # Events of Nodes have had the name in this place since kubelets write them.
            "metadata": {"name": node.name, "uid": node.name},
        }
        for news in change.news:
            await self._recorder.say(about, news.reason, news.message, warning=news.warning)
            if news.of_plan and plan is not None:
                told = f"{node.name}: {news.message}"
                await self._recorder.say(_about(plan), "NodeFailed", told, warning=True)

    async def _tell(self, plan: Plan, wanted: Mapping[str, Any]) -> datetime | None:
        """When the rest is to be written; None: all is."""
        before = plan.status
        differing = {
            key: value for key, value in wanted.items() if _differs(before.get(key), value)
        }
        if not differing:
            return None
        now, last = self._now(), self._written.get(plan.uid)
        due = last + timedelta(seconds=_pause(wanted)) if last else now
        if due > now and last is not None and last <= now and not status.urgent(before, wanted):
            return due
        patch = {"metadata": {"resourceVersion": plan.resource_version}, "status": differing}
        try:
            body = await self._client.merge(f"{PATH}/{plan.name}/status", patch)
        except ApiError as err:
            if err.code not in (404, 409):
                raise
            return now + timedelta(seconds=STALE_SECONDS) if err.code == 409 else None
        self._written[plan.uid] = now
        self._known.put_plan(body)
        await self._announce(plan, before, wanted)
        return None

    async def _announce(self, plan: Plan, before: Object, after: Mapping[str, Any]) -> None:
        phase, message = str(after["phase"]), str(after.get("message") or "")
        if after.get("version") and before.get("version") != after["version"]:
            told = f"the nodes are brought to {after['version']}"
            await self._recorder.say(_about(plan), "Resolved", told)
        if before.get("phase") != phase:
            told = message or f"{before.get('phase') or 'new'} -> {phase}"
            await self._recorder.say(_about(plan), phase, told, warning=phase in WARNINGS)


def _differs(before: Any, wanted: Any) -> bool:
    """Whether a merge patch would change anything."""
    if wanted is None or before is None:
        return before is not None or _given(wanted)
    if isinstance(wanted, Mapping) and isinstance(before, Mapping):
        keys = before.keys() | wanted.keys()
        return any(key in wanted and _differs(before.get(key), wanted[key]) for key in keys)
    return bool(before != wanted)


def _given(wanted: Any) -> bool:
    if isinstance(wanted, Mapping):
        return any(_given(value) for value in wanted.values())
    return wanted is not None


def _pause(wanted: Mapping[str, Any]) -> float:
    """Seconds between two writes that could wait: many nodes have much to tell."""
    nodes = len(wanted.get("nodes") or ())
    return 1.0 if nodes <= 20 else 5.0 if nodes <= 100 else 15.0


def _about(plan: Plan) -> dict[str, Any]:
    metadata = {
        "name": plan.name,
        "uid": plan.uid,
        "resourceVersion": plan.resource_version,
    }
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND, "metadata": metadata}
