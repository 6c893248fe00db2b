"""
Looks at what a plan waits for: drains, Jobs, checks, and channels.

What was seen is kept only while somebody wants to know it, and lost with this process without
harm: it is looked at again. The plan is told when something is not as it was. Who does the looking
is made when it is needed first, since most of it needs much memory and is needed rarely.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from operators.upgrade import status
from operators.upgrade.base import Channels, Checks, Drained, Drains, Jobs, OfferError
from operators.upgrade.spec import Plan
from operators.upgrade.world import Decision, Found, Judged

CHECK_FIRST, CHECK_LONGEST = 2.0, 30.0  # seconds between two looks at checks
ASK_FIRST, ASK_LONGEST = 60.0, 3600.0  # and at a channel that does not answer
DRAIN, JOB, CHECK, ASK = "drain", "job", "check", "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """Each is called at most once, when it is needed."""

    channels: Callable[[], Channels]
    checks: Callable[[], Checks]
    drains: Callable[[], Drains]
    jobs: Callable[[], Jobs]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """Who wants to know; ``what`` tells two wishes for the same node apart."""

    plan: Plan
    what: Any


class Observer:
    """``add``: queues a key, ``<kind> <name>``; ``changed``: told the name of the plan."""

    def __init__(
        self,
        tools: Tools,
        *,
        now: Callable[[], datetime],
        add: Callable[[str], None],
        changed: Callable[[str], None],
    ) -> None:
        self._tools = tools
        self._now = now
        self._add = add
        self._changed = changed
        self._wishes: dict[str, _Wish] = {}  # by key
        self._misses: dict[str, int] = {}  # looks in a row that found nothing good
        self._made: dict[str, Any] = {}
        self.drained: dict[str, Drained] = {}
        self.jobs: dict[str, Drained] = {}
        self.judged: dict[str, Judged] = {}
        self.found: dict[tuple[str, int], Found] = {}

    def want(self, plan: Plan, decision: Decision) -> None:
        """All that this plan wants to know; what it wanted before and does not now is over."""
        wishes: dict[str, Any] = {f"{DRAIN} {node}": at for node, at in decision.drains.items()}
        wishes |= {f"{JOB} {node}": version for node, version in decision.jobs.items()}
        wishes |= {f"{CHECK} {node}": plan.generation for node in decision.judge}
        if decision.ask is not None:
            wishes[f"{ASK} {plan.name}"] = (plan.generation, decision.ask)
        elif f"{ASK} {plan.name}" in self._wishes and self._failing(plan):
            wishes[f"{ASK} {plan.name}"] = self._wishes[f"{ASK} {plan.name}"].what
        mine = [key for key, wish in self._wishes.items() if wish.plan.uid == plan.uid]
        for key in mine:
            if key not in wishes:
                self._forget(key)
        for key, what in wishes.items():
            before = self._wishes.get(key)
            same = before is not None and (before.plan.uid, before.what) == (plan.uid, what)
            if not same:
                self._forget(key)
            self._wishes[key] = _Wish(plan=plan, what=what)
            if not same:
                self._add(key)
        old = [p for p in self.found if p[0] == plan.uid and p[1] < plan.generation]
        for place in old:
            del self.found[place]

    def gone(self, name: str, there: Collection[str]) -> None:
        """The plan of this name is no more; ``there``: the uids of those that are."""
        for key in [key for key, wish in self._wishes.items() if wish.plan.name == name]:
            self._forget(key)
        for place in [place for place in self.found if place[0] not in there]:
            del self.found[place]

    def pod_changed(self, node: str) -> None:
        """Something about a pod of this node; checks of pods may be about any pod."""
        if not self._wishes:
            return
        for kind in (DRAIN, JOB):
            if f"{kind} {node}" in self._wishes:
                self._add(f"{kind} {node}")
        for key, wish in self._wishes.items():
            if key.startswith(CHECK) and wish.plan.wanted and _of_pods(wish.plan.wanted.checks):
                self._add(key)

    async def look(self, key: str) -> float | None:
        """After how many seconds to look again, though nothing is told. Raises ApiError."""
        kind, _, name = key.partition(" ")
        wish = self._wishes.get(key)
        if wish is None:
            return None
        if kind == ASK:
            return await self._ask(key, wish)
        if kind == CHECK:
            return await self._check(key, name, wish)
        return await self._pass(kind, name, wish)

    async def remove_job(self, plan: str, node: str) -> None:
        await self._tool("jobs", self._tools.jobs).remove(plan, node)

    async def _pass(self, kind: str, node: str, wish: _Wish) -> float | None:
        if kind == DRAIN:
            drains: Drains = self._tool("drains", self._tools.drains)
            options = (wish.plan.body.get("spec") or {}).get("drain") or {}
            found = await drains.drain(node, options, since=wish.what)
            kept = self.drained
        else:
            jobs: Jobs = self._tool("jobs", self._tools.jobs)
            found = await jobs.ensure(wish.plan.body, node, wish.what)
            kept = self.jobs
        if self._over(f"{kind} {node}", wish):
            return None
        before, kept[node] = kept.get(node), found
        if before is None or _said(before) != _said(found):
            self._changed(wish.plan.name)
        if found.done or found.failed or found.retry_at is None:
            return None
        return max((found.retry_at - self._now()).total_seconds(), 0.1)

    async def _check(self, key: str, node: str, wish: _Wish) -> float | None:
        if wish.plan.wanted is None:
            return None
        checks: Checks = self._tool("checks", self._tools.checks)
        found = await checks.verdict(wish.plan.wanted.checks, node=node)
        if self._over(key, wish):
            return None
        before, now = self.judged.get(node), self._now()
        since = ((before.since if before else None) or now) if found.passed else None
        self.judged[node] = Judged(verdict=found, at=now, since=since)
        soaked = since is not None and now - since >= timedelta(seconds=wish.plan.wanted.soak)
        if before is None or before.verdict != found or soaked:
            self._changed(wish.plan.name)
        if since is None:
            self._misses[key] = self._misses.get(key, 0) + 1
            return float(min(CHECK_FIRST * 2.0 ** min(self._misses[key] - 1, 10), CHECK_LONGEST))
        self._misses.pop(key, None)
        left = (since + timedelta(seconds=wish.plan.wanted.soak) - now).total_seconds()
        return None if soaked else min(max(left, 0.1), CHECK_LONGEST)

    async def _ask(self, key: str, wish: _Wish) -> float | None:
        plan, boards = wish.plan, wish.what[1]
        place = (plan.uid, plan.generation)
        channels: Channels = self._tool("channels", self._tools.channels)
        before = self.found.get(place)
        try:
            offers = await channels.offers(
                plan.body["spec"], sorted(boards), serial=status.serial(plan)
            )
        except OfferError as err:
            kept = before.offers if before is not None else None
            answer = Found(
                offers=kept, boards=boards, at=self._now(), reason=err.reason, message=str(err)
            )
        else:
            answer = Found(offers=offers, boards=boards, at=self._now())
        if self._over(key, wish):
            return None
        self.found[place] = answer
        self._changed(plan.name)
        if not answer.reason:
            self._misses.pop(key, None)
            return None
        self._misses[key] = self._misses.get(key, 0) + 1
        return float(min(ASK_FIRST * 2.0 ** min(self._misses[key] - 1, 10), ASK_LONGEST))

    def _failing(self, plan: Plan) -> bool:
        found = self.found.get((plan.uid, plan.generation))
        return found is not None and bool(found.reason)

    def _over(self, key: str, wish: _Wish) -> bool:
        """While it was looked at, nobody wanted to know it any more."""
        now = self._wishes.get(key)
        return now is None or (now.plan.uid, now.what) != (wish.plan.uid, wish.what)

    def _forget(self, key: str) -> None:
        kind, _, name = key.partition(" ")
        self._wishes.pop(key, None)
        self._misses.pop(key, None)
        kept: Mapping[str, dict[str, Any]] = {
            DRAIN: self.drained,
            JOB: self.jobs,
            CHECK: self.judged,
        }
        if kind in kept:
            kept[kind].pop(name, None)

    def _tool(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]


def _said(found: Drained) -> tuple[bool, bool, str]:
    return (found.done, found.failed, found.message)


def _of_pods(checks: Any) -> bool:
    return any("pods" in check or "cel" in check for check in checks)
