"""
A fleet in memory, and what the upgrade operator asks others for: channels, checks, drains, Jobs.

:class:`Fleet` holds Nodes and plans as the API would, refuses what was decided from an older
version, and does to them what a decision says: all of it, or only the first so many of its writes.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from operators.upgrade import plan as planning
from operators.upgrade.base import Drained, Offer, Verdict
from operators.upgrade.nodes import holds
from operators.upgrade.objects import Node, node_of
from operators.upgrade.patches import Change
from operators.upgrade.spec import Plan, plan_of
from operators.upgrade.world import Decision, Found, Judged, World
from tests.fakes.clock import START
from tests.fakes.upgrade_agent import V2, Agent, request_of

Object = dict[str, Any]
SERVER = "node-role.kubernetes.io/control-plane"


def merge(body: Object, patch: Mapping[str, Any]) -> None:
    """RFC 7386."""
    for key, value in patch.items():
        if isinstance(value, Mapping):
            merge(body.setdefault(key, {}), value)
        elif value is None:
            body.pop(key, None)
        else:
            body[key] = value


class Fleet:
    """``drained``, ``passing``: what whoever drains and checks finds, by node; else all is well."""

    def __init__(self) -> None:
        self.now: datetime = START
        self.nodes: dict[str, Object] = {}
        self.agents: dict[str, Agent] = {}
        self.plans: dict[str, Object] = {}
        self.drained: dict[str, Drained] = {}
        self.jobs: dict[str, Drained] = {}
        self.passing: dict[str, bool] = {}
        self.writes: list[tuple[str, Change]] = []
        self.found: dict[tuple[str, int], Found] = {}
        self.judged: dict[str, Judged] = {}
        self.seen: dict[str, Drained] = {}
        self.done: dict[str, Drained] = {}
        self.wake: datetime | None = None
        self._version = 100

    def add(
        self,
        name: str,
        *,
        server: bool = False,
        labels: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Agent:
        agent = Agent(name, **more)
        metadata: Object = {"name": name, "uid": f"uid-{name}", "resourceVersion": "1"}
        metadata["labels"] = {**({SERVER: "true"} if server else {}), **(labels or {})}
        self.nodes[name] = {"metadata": metadata, "spec": {}, "status": {}}
        self.agents[name] = agent
        self._sync(agent)
        return agent

    def plan(self, name: str = "fleet", **spec: Any) -> None:
        """Create a plan, or change its spec."""
        found = self.plans.get(name)
        if found is None:
            metadata = {"name": name, "uid": f"uid-{name}", "generation": 0}
            metadata["creationTimestamp"] = f"2026-01-01T00:00:{len(self.plans):02}Z"
            source: Object = {} if "channel" in spec else {"version": V2, "source": "/usb"}
            found = self.plans[name] = {"metadata": metadata, "spec": source, "status": {}}
        found["spec"] = {k: v for k, v in (found["spec"] | spec).items() if v is not None}
        found["metadata"]["generation"] += 1

    def forget(self) -> None:
        """Another operator, which knows what the API knows."""
        self.found, self.judged, self.seen, self.done = {}, {}, {}, {}

    def world(self) -> World:
        return World(
            plans=[plan_of(body) for body in self.plans.values()],
            nodes=[node_of(body) for body in self.nodes.values()],
            now=self.now,
            found=self.found,
            drained=self.seen,
            judged=self.judged,
            jobs=self.done,
        )

    def decide(self, name: str = "fleet") -> Decision:
        world = self.world()
        plan = next(plan for plan in world.plans if plan.name == name)
        decision = planning.decide(plan, world)
        self.see(plan, decision)
        return decision

    def look(self, name: str = "fleet", *, writes: int | None = None) -> Decision:
        """One look of the operator, which is killed after so many writes; None: it is not."""
        decision = self.decide(name)
        for change in decision.changes[:writes]:
            self.write(name, change)
        if writes is None or writes > len(decision.changes):
            merge(self.plans[name]["status"], decision.status)
        return decision

    def tidy(self) -> int:
        """What is done for nodes whose plan is no more."""
        changes = planning.orphans(self.world())
        for change in changes:
            self.write("", change)
        return len(changes)

    def see(self, plan: Plan, decision: Decision) -> None:
        """What the decision wants to know, as the next look will know it."""
        if decision.ask is not None:
            version = plan.wanted.version if plan.wanted and plan.wanted.version else V2
            offers = {
                board: Offer(version=version, url=f"/usb/{board}.raucb", sha256="", size=0)
                for board in decision.ask
            }
            key = (plan.uid, plan.generation)
            self.found[key] = Found(offers=offers, boards=decision.ask, at=self.now)
        for name in decision.drains:
            self.seen[name] = self.drained.get(name) or Drained(
                done=True, message="", retry_at=None
            )
        for name in decision.jobs:
            self.done[name] = self.jobs.get(name) or Drained(done=True, message="", retry_at=None)
        for name in decision.judge:
            self._judge(plan, name)
        if decision.wake is not None:
            self.wake = decision.wake if self.wake is None else min(self.wake, decision.wake)

    def _judge(self, plan: Plan, name: str) -> None:
        good, before = self.passing.get(name, True), self.judged.get(name)
        verdict = Verdict(passed=good, message="" if good else "web: 503")
        since = (before.since if before and before.since else self.now) if good else None
        self.judged[name] = Judged(verdict=verdict, at=self.now, since=since)
        if since is not None and plan.wanted is not None:
            due = since + timedelta(seconds=plan.wanted.soak)
            self.wake = due if self.wake is None or due > self.now else self.wake

    def write(self, plan: str, change: Change) -> None:
        name = change.node.name
        body = self.nodes[name]
        assert change.patch["metadata"]["resourceVersion"] == body["metadata"]["resourceVersion"]
        merge(body, change.patch)
        self._touch(body)
        self.writes.append((plan, change))

    def act(self, name: str) -> bool:
        """The node takes one step; whether it did."""
        agent, body = self.agents[name], self.nodes[name]
        if not agent.board or not agent.step(request_of(body), self.now):
            return False
        self._sync(agent)
        return True

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def settle(self, plans: Iterable[str] = ("fleet",), *, hours: float = 48) -> None:
        """
        Until nothing is left to do, or so much time went by: time passes only when all else rests.
        """
        end = self.now + timedelta(hours=hours)
        while self.now < end:
            self.wake = None
            if self._busy(plans):
                continue
            due: datetime | None = self.wake
            if due is None or due <= self.now:
                return
            self.now = min(due, end)
        self._busy(plans)

    def _busy(self, plans: Iterable[str]) -> bool:
        before = (len(self.writes), repr((self.found, self.seen, self.done, self.judged)))
        acted = [self.act(name) for name in self.agents]
        for name in plans:
            if name in self.plans:
                self.look(name)
        self.tidy()
        after = (len(self.writes), repr((self.found, self.seen, self.done, self.judged)))
        return any(acted) or before != after

    def status(self, name: str = "fleet") -> Object:
        found: Object = self.plans[name]["status"]
        return found

    def phases(self, name: str = "fleet") -> dict[str, str]:
        return {entry["name"]: entry["phase"] for entry in self.status(name)["nodes"]}

    def node(self, name: str) -> Node:
        return node_of(self.nodes[name])

    def cordoned(self) -> set[str]:
        return {name for name, body in self.nodes.items() if body["spec"].get("unschedulable")}

    def working(self, name: str = "fleet") -> list[str]:
        plan = plan_of(self.plans[name])
        return [node for node in self.nodes if holds(self.node(node), plan)]

    def _sync(self, agent: Agent) -> None:
        body = self.nodes[agent.name]
        if agent.board:
            merge(body, {"metadata": agent.metadata()})
        merge(body, {"status": agent.status()})
        self._touch(body)

    def _touch(self, body: Object) -> None:
        self._version += 1
        body["metadata"]["resourceVersion"] = str(self._version)


def condition(status: Object, kind: str) -> Object:
    conditions: Sequence[Object] = status.get("conditions") or ()
    return next((found for found in conditions if found["type"] == kind), {})
