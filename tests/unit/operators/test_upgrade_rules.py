"""What holds in every life of a plan, whoever is killed, wherever: rules and random lives."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.upgrade.base import Drained
from operators.upgrade.nodes import FINAL
from operators.upgrade.objects import node_of
from operators.upgrade.spec import plan_of
from tests.fakes.upgrade import SERVER, Fleet
from tests.fakes.upgrade_agent import BROKEN, FAILS, GOOD, REFUSES, V2, request_of

pytestmark = pytest.mark.timeout(180)
CONDUCTS = st.sampled_from([GOOD] * 6 + [BROKEN, FAILS, REFUSES])
CHECK = {"name": "web", "tcp": {"host": "web", "port": 80}}
WINDOW = {"days": ["0", "1", "2", "3", "4", "5", "6"], "startTime": "1:00", "endTime": "5:00"}


@st.composite
def specs(draw: st.DrawFn) -> dict[str, Any]:
    canary = {"name": "c", "count": draw(st.integers(1, 2)), "soakSeconds": 60}
    chosen = {"name": "d", "nodeSelector": {"matchLabels": {"zone": "b"}}}
    return {
        "concurrency": draw(st.sampled_from([1, 2, 3, "50%"])),
        "drain": draw(st.sampled_from([None, {"enabled": True}])),
        "healthChecks": draw(st.sampled_from([None, [CHECK]])),
        "failurePolicy": draw(st.sampled_from(["Pause", "Continue", "RollbackAll"])),
        "canaries": draw(st.sampled_from([None, [canary], [chosen], [canary, chosen]])),
        "window": draw(st.sampled_from([None, WINDOW])),
        "postComplete": draw(st.sampled_from([None, {"labels": {"l": "v"}, "delaySeconds": 30}])),
    }


@st.composite
def fleets(draw: st.DrawFn, conducts: st.SearchStrategy[str] = CONDUCTS) -> Fleet:
    made = Fleet()
    for number in range(draw(st.integers(0, 2))):
        made.add(f"s{number}", server=True, conduct=draw(conducts))
    for number in range(draw(st.integers(1, 5))):
        zone = {"zone": draw(st.sampled_from("ab"))}
        made.add(f"a{number}", labels=zone, conduct=draw(conducts))
    made.plan(**draw(specs()))
    return made


class Watch:
    """Looks at the fleet after every single write."""

    def __init__(self, made: Fleet) -> None:
        self.made = made
        self.seen = 0

    def check(self) -> None:
        plan = plan_of(self.made.plans["fleet"])
        assert plan.wanted is not None
        nodes = [node_of(body) for body in self.made.nodes.values()]
        working = [n for n in nodes if n.progress is not None and n.progress.active]
        assert len(working) <= plan.wanted.limit(len(nodes))
        assert sum(n.server for n in working) <= 1
        away = [n for n in nodes if n.unschedulable or not n.ready]
        assert len(away) <= plan.wanted.limit(len(nodes))
        for _, change in self.made.writes[self.seen :]:
            if change.starts and not self.back(change):
                self.begun(change.node.name, plan.wanted.windows)
        self.seen = len(self.made.writes)

    def back(self, change: Any) -> bool:
        request = request_of(self.made.nodes[change.node.name]) or {}
        return bool(request.get("rollback") or (change.news and "leaves" in change.news[0].message))

    def begun(self, name: str, windows: Any) -> None:
        made = self.made
        assert not windows or any(window.open(made.now) for window in windows)
        if SERVER not in made.nodes[name]["metadata"]["labels"]:
            for other, body in made.nodes.items():
                if SERVER in body["metadata"]["labels"]:
                    assert self.over(other), f"{name} began before the server {other}"
        canaries = made.plans["fleet"]["spec"].get("canaries") or []
        chosen = [entry for entry in canaries if "nodeSelector" in entry]
        labels = made.nodes[name]["metadata"]["labels"]
        if chosen and len(canaries) == 1 and labels.get("zone") == "a":
            for other, body in made.nodes.items():
                if body["metadata"]["labels"].get("zone") == "b":
                    assert self.over(other), f"{name} began before the canary {other}"

    def over(self, name: str) -> bool:
        progress = self.made.node(name).progress
        return progress is not None and bool(progress.end) and progress.outcome in FINAL


@given(fleets(), st.data())
@settings(max_examples=40)
def test_a_random_life_keeps_every_rule_and_comes_to_an_end(
    made: Fleet, data: st.DataObject
) -> None:
    watch = Watch(made)
    for _ in range(data.draw(st.integers(0, 60))):
        match data.draw(st.sampled_from(["look", "look", "kill", "act", "act", "time"])):
            case "look":
                made.look()
            case "kill":
                made.look(writes=data.draw(st.integers(0, 2)))
                made.forget()
            case "act":
                made.act(data.draw(st.sampled_from(sorted(made.agents))))
            case _:
                made.pass_time(data.draw(st.sampled_from([1, 20, 300])))
        watch.check()
    made.settle(hours=24 * 20)
    watch.check()
    assert_ended(made)


def assert_ended(made: Fleet) -> None:
    status = made.status()
    assert not made.cordoned()
    phases = set(made.phases().values())
    if status["phase"] == "Paused":
        assert phases & {"RolledBack", "Refused", "Failed"}
        assert phases <= {*FINAL, "Pending", "Installed"}
    else:
        assert status["phase"] in {"Complete", "Failed"}
        assert phases <= FINAL | ({"Pending"} if status["phase"] == "Failed" else set())
    if status["phase"] == "Complete":
        assert {agent.running for agent in made.agents.values()} == {V2}


def ends(made: Fleet) -> tuple[Any, ...]:
    running = {name: agent.running for name, agent in made.agents.items()}
    labels = {name: body["metadata"]["labels"].get("l") for name, body in made.nodes.items()}
    status = made.status()
    return (status["phase"], made.phases(), running, labels, status["counts"], status["version"])


def life(spec: dict[str, Any], broken: str, drained: bool, kill_at: int | None) -> tuple[Any, ...]:
    """A plan from its beginning to its end; the operator is killed after so many writes."""
    made = Fleet()
    made.add("s0", server=True)
    for number in range(4):
        name = f"a{number}"
        made.add(name, conduct=BROKEN if name == broken else GOOD, labels={"zone": "a"})
    if drained:
        made.drained["a1"] = Drained(done=False, failed=True, message="web-0", retry_at=None)
    made.plan(**spec)
    written = 0
    for _ in range(3000):
        left = None if kill_at is None or written > kill_at else kill_at - written
        before = len(made.writes)
        decision = made.look(writes=left)
        written += len(made.writes) - before
        if left is not None and len(decision.changes) >= left:
            made.forget()
            kill_at = None
        acted = [made.act(name) for name in made.agents]
        if not decision.changes and not any(acted):
            made.pass_time(300)
            ended = made.status().get("phase") in {"Complete", "Paused", "Failed"}
            if ended and not made.working():
                made.look()
                return ends(made)
    raise AssertionError(f"it came to no end: {made.status()}")


@given(specs(), st.sampled_from(["", "a0", "a2"]), st.booleans(), st.integers(0, 40))
@settings(max_examples=20)
def test_who_is_killed_after_any_write_comes_to_the_same_end(
    spec: dict[str, Any], broken: str, drained: bool, kill_at: int
) -> None:
    spec = {**spec, "concurrency": 1}  # or else what ends depends on who was first
    assert life(spec, broken, drained, kill_at) == life(spec, broken, drained, None)
