"""What a plan does with a fleet, step by step: the decisions alone, without an API."""

import json
from datetime import timedelta
from typing import Any

import pytest

from operators.upgrade.base import REQUEST, Drained
from operators.upgrade.objects import PROGRESS, Progress
from tests.fakes.upgrade import Fleet, condition
from tests.fakes.upgrade_agent import (
    BROKEN,
    DEAF,
    FAILS,
    LOST,
    REFUSES,
    V1,
    V2,
    V3,
    request_of,
)

CHECK = {"name": "web", "http": {"url": "http://web.default"}}


def fleet(servers: int = 1, agents: int = 3, **spec: Any) -> Fleet:
    made = Fleet()
    for number in range(servers):
        made.add(f"s{number}", server=True)
    for number in range(agents):
        made.add(f"a{number}")
    made.plan(**spec)
    return made


def started(made: Fleet) -> list[str]:
    return [change.node.name for _, change in made.writes if change.starts]


def test_every_node_is_upgraded_and_free_again() -> None:
    made = fleet()
    made.settle()
    assert {agent.running for agent in made.agents.values()} == {V2}
    assert set(made.phases().values()) == {"Updated"}
    assert made.status()["phase"] == "Complete"
    assert made.status()["progress"] == "4/4"
    assert not made.cordoned()
    assert started(made)[0] == "s0"


def test_a_node_costs_few_writes() -> None:
    made = fleet(agents=5, healthChecks=[CHECK], drain={"enabled": True})
    made.settle()
    assert len(made.writes) == 5 * 6  # install, drain, switch, verdict, finish


def test_at_rest_nothing_is_written_and_no_time_is_waited_for() -> None:
    made = fleet()
    made.settle()
    made.forget()
    before = made.status().copy()
    decision = made.look()
    assert not decision.changes
    assert (decision.wake, decision.ask, decision.judge, decision.drains) == (None, None, [], {})
    assert made.status() == before


def test_a_node_by_itself_is_neither_cordoned_nor_drained() -> None:
    made = fleet(agents=0, drain={"enabled": True})
    made.settle()
    assert made.status()["phase"] == "Complete"
    assert not any("spec" in change.patch for _, change in made.writes)


def test_who_was_cordoned_before_stays_so() -> None:
    made = fleet()
    made.nodes["a1"]["spec"]["unschedulable"] = True
    made.settle()
    assert made.cordoned() == {"a1"}


def test_a_broken_version_pauses_the_plan_which_says_why() -> None:
    made = fleet(servers=0)
    made.agents["a0"].conduct = BROKEN
    made.settle()
    status = made.status()
    assert (status["phase"], made.phases()["a0"]) == ("Paused", "RolledBack")
    assert "a0" in status["message"]
    assert "kube-dns" in status["message"]
    assert started(made) == ["a0"]
    assert not made.cordoned()
    assert condition(status, "Degraded")["status"] == "True"


def test_another_version_goes_on_after_a_pause() -> None:
    made = fleet(servers=0)
    made.agents["a0"].conduct = BROKEN
    made.settle()
    made.agents["a0"].conduct = "good"
    made.plan(version=V3)
    made.settle()
    assert made.status()["phase"] == "Complete"
    assert [entry["outcome"] for entry in made.status()["history"]] == ["Complete", "Superseded"]


def test_the_same_version_is_tried_again_only_when_told() -> None:
    made = fleet(servers=0)
    made.agents["a0"].conduct = BROKEN
    made.settle()
    made.agents["a0"].conduct = "good"
    made.plan(soakSeconds=30)
    made.settle()
    assert made.status()["phase"] == "Paused"
    made.plan(retryFailed=True)
    made.settle()
    assert made.status()["phase"] == "Complete"


def test_what_may_be_tried_again_is_when_the_plan_changes() -> None:
    made = fleet(servers=0, agents=2)
    made.agents["a0"].conduct = FAILS
    made.settle()
    assert made.phases()["a0"] == "Failed"
    made.agents["a0"].conduct = "good"
    made.plan(soakSeconds=30)
    made.settle()
    assert made.status()["phase"] == "Complete"


def test_a_plan_that_is_made_anew_asks_no_node_for_what_failed_there() -> None:
    made = fleet(servers=0, agents=1)
    made.agents["a0"].conduct = BROKEN
    made.settle()
    del made.plans["fleet"]
    made.plan("again")
    made.settle(["again"])
    assert made.phases("again") == {"a0": "Refused"}
    assert made.status("again")["phase"] == "Paused"
    assert len(started(made)) == 1


def test_with_continue_the_others_are_upgraded() -> None:
    made = fleet(servers=0, failurePolicy="Continue")
    made.agents["a0"].conduct = BROKEN
    made.agents["a1"].conduct = REFUSES
    made.settle()
    assert made.phases() == {"a0": "RolledBack", "a1": "Refused", "a2": "Updated"}
    assert made.status()["phase"] == "Failed"


def test_rollback_all_takes_back_the_newest_first() -> None:
    made = fleet(servers=1, agents=4, failurePolicy="RollbackAll")
    made.agents["a3"].conduct = BROKEN
    made.settle()
    assert {agent.running for agent in made.agents.values()} == {V1}
    assert set(made.phases().values()) == {"RolledBack"}
    assert (made.status()["phase"], made.status()["history"][0]["outcome"]) == (
        "Failed",
        "RolledBack",
    )
    assert not made.cordoned()
    order = [
        change.node.name
        for _, change in made.writes
        if '"rollback":true' in (change.patch["metadata"]["annotations"].get(REQUEST) or "")
    ]
    assert order == ["a2", "a1", "a0", "s0"]


def test_a_node_that_never_comes_back_pauses_the_plan() -> None:
    made = fleet(servers=0, failurePolicy="Continue")
    made.agents["a0"].conduct = LOST
    made.settle()
    assert made.phases()["a0"] == "Lost"
    assert (made.status()["phase"], started(made)) == ("Paused", ["a0"])
    assert "did not come back" in made.status()["message"]
    # And when it does after all, the plan goes on.
    made.agents["a0"].conduct = "good"
    made.settle()
    assert made.status()["phase"] == "Complete"


def test_a_lost_node_that_is_not_chosen_any_more_lets_the_plan_go_on() -> None:
    made = fleet(servers=0)
    made.agents["a0"].conduct = LOST
    made.settle()
    made.nodes["a0"]["metadata"]["labels"]["keep-out"] = ""
    exists = [{"key": "keep-out", "operator": "DoesNotExist"}]
    made.plan(nodeSelector={"matchExpressions": exists})
    made.settle()
    assert made.agents["a2"].running == V2


def test_a_node_that_is_not_ready_waits_and_the_others_do_not() -> None:
    made = fleet(servers=0)
    made.agents["a0"].ready = False
    made._sync(made.agents["a0"])
    made.settle()
    assert made.phases() == {"a0": "Waiting", "a1": "Updated", "a2": "Updated"}
    status = made.status()
    assert (status["phase"], status["counts"]["notReady"]) == ("Waiting", 1)
    made.plan(notReadyNodes="Skip")
    made.settle()
    assert (made.status()["phase"], made.phases()["a0"]) == ("Complete", "Skipped")


def test_a_node_that_goes_away_before_it_is_disturbed_gives_its_turn_to_another() -> None:
    made = fleet(servers=0)
    made.look()
    made.look()
    assert started(made) == ["a0"]
    made.agents["a0"].conduct = DEAF
    made.agents["a0"].ready = False
    made._sync(made.agents["a0"])
    made.nodes["a0"]["status"]["conditions"][0]["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    made.settle()
    assert made.phases() == {"a0": "Waiting", "a1": "Updated", "a2": "Updated"}


def test_outside_the_window_nothing_begins_and_what_runs_is_finished() -> None:
    window = {"days": ["th"], "startTime": "02:00", "endTime": "02:30"}  # it is Thursday, 0:00
    made = fleet(servers=0, window=window)
    decision = made.look()
    assert made.status()["phase"] == "Waiting"
    assert decision.wake == made.now + timedelta(hours=2)
    made.pass_time(2 * 3600)
    while made.agents["a0"].phase != "Trial":
        made.look()
        made.act("a0")
    made.pass_time(3600)
    made.settle(hours=1)
    assert made.phases() == {"a0": "Updated", "a1": "Pending", "a2": "Pending"}
    made.settle(hours=24 * 15)
    assert made.status()["phase"] == "Complete"


def test_what_is_only_installed_waits_for_the_next_window() -> None:
    window = {"days": ["th"], "startTime": "00:00", "endTime": "01:00"}
    made = fleet(servers=0, agents=2, window=window)
    made.look()
    made.look()
    for _ in range(4):
        made.act("a0")
    made.pass_time(2 * 3600)
    made.settle(hours=1)
    assert made.phases()["a0"] == "Installed"
    assert not made.cordoned()


def test_canaries_are_upgraded_and_soak_before_the_rest() -> None:
    canaries = [{"name": "first", "count": 1, "soakSeconds": 3600}]
    made = fleet(servers=0, agents=4, canaries=canaries, concurrency=4)
    made.settle(hours=0.5)
    assert started(made) == ["a0"]
    assert made.status()["phase"] == "Soaking"
    made.forget()
    made.settle()
    assert len(started(made)) == 4
    assert made.status()["phase"] == "Complete"


def test_canaries_of_agents_come_after_the_servers() -> None:
    chosen = {"matchLabels": {"canary": "yes"}}
    made = fleet(servers=2, agents=3, canaries=[{"name": "c", "nodeSelector": chosen}])
    made.nodes["a2"]["metadata"]["labels"]["canary"] = "yes"
    made.settle()
    assert started(made) == ["s0", "s1", "a2", "a0", "a1"]


def test_servers_are_upgraded_one_at_a_time() -> None:
    made = fleet(servers=3, agents=6, concurrency=5)
    made.look()
    made.look()
    assert made.working() == ["s0"]
    made.settle()
    assert made.status()["phase"] == "Complete"


def test_stages_replace_the_usual_order() -> None:
    order = {"stages": [{"matchLabels": {"zone": "b"}}, {"matchLabels": {"zone": "a"}}]}
    made = fleet(servers=1, agents=2, order=order)
    for name, zone in (("s0", "a"), ("a0", "c"), ("a1", "b")):
        made.nodes[name]["metadata"]["labels"]["zone"] = zone
    made.settle()
    assert started(made) == ["a1", "s0", "a0"]


@pytest.mark.parametrize(("concurrency", "working"), [(2, 2), ("50%", 3), ("10%", 1)])
def test_so_many_nodes_are_in_work_at_once(concurrency: object, working: int) -> None:
    made = fleet(servers=0, agents=6, concurrency=concurrency)
    made.look()
    made.look()
    assert len(made.working()) == working


def test_a_drain_is_waited_for_and_its_failure_is_the_nodes() -> None:
    made = fleet(servers=0, agents=2, drain={"enabled": True})
    budget = "web-0 by its PodDisruptionBudget web"
    made.drained["a0"] = Drained(done=False, message=budget, retry_at=None)
    made.settle(hours=1)
    assert made.phases()["a0"] == "Draining"
    assert made.cordoned() == {"a0"}
    made.drained["a0"] = Drained(done=False, failed=True, message=budget, retry_at=None)
    made.settle()
    assert (made.phases()["a0"], made.status()["phase"]) == ("Failed", "Paused")
    assert not made.cordoned()
    assert request_of(made.nodes["a0"]) is None
    assert "Switching" not in made.agents["a0"].told


def test_suspending_lets_go_of_what_has_not_been_switched() -> None:
    made = fleet(servers=0, agents=2, drain={"enabled": True})
    made.drained["a0"] = Drained(done=False, message="web-0", retry_at=None)
    made.settle(hours=1)
    made.plan(suspend=True)
    made.settle(hours=1)
    assert (made.status()["phase"], made.phases()["a0"]) == ("Suspended", "Installed")
    assert not made.cordoned()
    made.drained.clear()
    made.plan(suspend=None)
    made.settle()
    assert made.status()["phase"] == "Complete"


def test_a_trial_goes_on_while_the_plan_is_suspended() -> None:
    made = fleet(servers=0, agents=2, healthChecks=[CHECK])
    while made.agents["a0"].phase != "Trial":
        made.look()
        made.act("a0")
    made.plan(suspend=True)
    made.settle()
    assert made.phases() == {"a0": "Updated", "a1": "Pending"}


def test_another_version_cancels_what_has_not_been_switched() -> None:
    made = fleet(servers=0, agents=1)
    while made.agents["a0"].phase != "Installing":
        made.look()
        made.act("a0")
    made.plan(version=V3)
    made.settle()
    assert made.agents["a0"].running == V3
    assert made.agents["a0"].told.count("Switching") == 1


def test_another_version_lets_a_trial_come_to_its_end_first() -> None:
    made = fleet(servers=0, agents=1)
    while made.agents["a0"].phase != "Trial":
        made.look()
        made.act("a0")
    made.plan(version=V3)
    made.settle()
    assert made.agents["a0"].told.count("Committed") == 2
    assert made.agents["a0"].running == V3


def test_deleting_the_plan_cancels_what_can_be_and_uncordons() -> None:
    made = fleet(servers=0, agents=3, concurrency=2, drain={"enabled": True})
    made.drained["a0"] = Drained(done=False, message="web-0", retry_at=None)
    made.drained["a1"] = Drained(done=False, message="web-1", retry_at=None)
    made.settle(hours=1)
    assert made.cordoned() == {"a0", "a1"}
    del made.plans["fleet"]
    made.forget()
    made.settle()
    assert not made.cordoned()
    assert request_of(made.nodes["a0"]) is None
    assert {agent.running for agent in made.agents.values()} == {V1}


def test_a_trial_whose_plan_was_deleted_comes_to_its_own_end_and_is_uncordoned() -> None:
    made = fleet(servers=0, agents=2)
    while made.agents["a0"].phase != "Switching":
        made.look()
        made.act("a0")
    del made.plans["fleet"]
    made.settle()
    assert made.agents["a0"].running == V2
    assert not made.cordoned()


def test_of_two_plans_for_a_node_the_older_one_has_it_and_the_other_says_so() -> None:
    made = fleet(servers=0, agents=2)
    made.plan("younger", version=V3)
    made.settle(["younger", "fleet"])
    assert {agent.running for agent in made.agents.values()} == {V2}
    status = made.status("younger")
    assert status["counts"]["skipped"] == 2
    assert condition(status, "Overlapping")["status"] == "True"
    assert "fleet" in condition(status, "Overlapping")["message"]


def test_an_exclusive_plan_works_alone() -> None:
    made = fleet(servers=0, agents=2, nodeSelector={"matchLabels": {"zone": "a"}})
    made.plan("alone", nodeSelector={"matchLabels": {"zone": "b"}}, exclusive=True)
    made.nodes["a0"]["metadata"]["labels"]["zone"] = "a"
    made.nodes["a1"]["metadata"]["labels"]["zone"] = "b"
    for _ in range(30):
        for name in ("fleet", "alone"):
            made.look(name)
            assert not (made.working("fleet") and made.working("alone"))
        for name in made.agents:
            made.act(name)
    assert {agent.running for agent in made.agents.values()} == {V2}


def test_the_checks_must_pass_for_the_soak_time_without_a_break() -> None:
    made = fleet(servers=0, agents=1, healthChecks=[CHECK], soakSeconds=100)
    while not made.judged:
        made.look()
        made.act("a0")
    made.pass_time(60)
    made.passing["a0"] = False
    made.look()
    made.passing["a0"] = True
    made.look()
    made.pass_time(60)
    made.look()
    made.look()
    assert made.agents["a0"].phase == "Trial"
    made.pass_time(60)
    made.settle()
    assert made.agents["a0"].phase == "Committed"


def test_checks_that_do_not_pass_in_time_take_the_node_back_and_are_named() -> None:
    made = fleet(servers=0, agents=2, healthChecks=[CHECK])
    made.passing["a0"] = False
    made.settle()
    assert made.phases()["a0"] == "RolledBack"
    assert "web: 503" in made.status()["message"]


def test_labels_come_after_the_delay_and_the_next_node_after_them() -> None:
    after = {"labels": {"slot": "$(VERSION)"}, "delaySeconds": 600}
    made = fleet(servers=0, agents=2, postComplete=after)
    made.settle(hours=0.1)
    assert (made.phases()["a0"], started(made)) == ("Committed", ["a0"])
    assert not made.cordoned()
    made.settle()
    assert made.nodes["a1"]["metadata"]["labels"]["slot"] == "v1.36.4-pinnace1"
    assert made.status()["phase"] == "Complete"


def test_nodes_without_slots_are_upgraded_by_jobs_or_named() -> None:
    made = fleet(servers=0, agents=1)
    made.add("other", board="")
    made.settle()
    assert made.phases() == {"a0": "Updated", "other": "Skipped"}
    made.plan(jobTemplate={"image": "upgrade"})
    made.jobs["other"] = Drained(done=False, message="its Job runs", retry_at=None)
    made.settle()
    assert made.phases()["other"] == "Running"
    assert made.cordoned() == {"other"}
    made.jobs.clear()
    made.settle()
    assert made.phases()["other"] == "Updated"
    assert made.status()["phase"] == "Complete"
    assert not made.cordoned()


def test_a_job_that_failed_is_a_failure_of_the_node() -> None:
    made = fleet(servers=0, agents=0, jobTemplate={"image": "upgrade"})
    made.add("other", board="")
    made.jobs["other"] = Drained(done=True, failed=True, message="exit code 1", retry_at=None)
    made.settle()
    assert (made.phases()["other"], made.status()["phase"]) == ("Failed", "Paused")
    assert "exit code 1" in made.status()["message"]


def test_a_channel_is_looked_at_when_it_is_due_and_not_before() -> None:
    made = fleet(servers=0, agents=1, channel="https://there/stable.json")
    made.settle(hours=1)
    assert made.status()["version"] == V2
    assert made.status()["phase"] == "Complete"
    made.forget()
    decision = made.look()
    assert decision.ask is None
    assert decision.wake is not None
    made.now = decision.wake
    assert made.look().ask == frozenset({"x86-64"})


def test_a_plan_that_cannot_be_understood_says_so_and_does_nothing() -> None:
    made = fleet(window={"days": ["mo"], "startTime": "1:00", "endTime": "2:00", "timeZone": "x/y"})
    made.look()
    status = made.status()
    assert status["phase"] == "Failed"
    assert "x/y" in status["message"]
    assert condition(status, "Ready")["reason"] == "Invalid"


def test_a_node_that_a_person_upgraded_meanwhile_is_no_failure() -> None:
    made = fleet(servers=0, agents=1)
    made.look()
    made.look()
    made.agents["a0"].running = V2
    made.settle()
    assert made.agents["a0"].told == ["Refused"]
    assert made.status()["phase"] == "Complete"


def test_the_way_back_is_judged_by_nobody() -> None:
    made = fleet(servers=0, agents=2, healthChecks=[CHECK], failurePolicy="RollbackAll")
    made.agents["a1"].conduct = BROKEN
    made.settle()
    assert {agent.running for agent in made.agents.values()} == {V1}


@pytest.mark.parametrize(("nodes", "limit"), [(500, 250_000), (1500, 450_000)])
def test_the_status_of_many_nodes_stays_far_below_what_an_object_may_be(
    nodes: int, limit: int
) -> None:
    made = fleet(servers=0, agents=nodes, failurePolicy="Continue")
    progress = Progress(
        plan="fleet",
        uid="uid-fleet",
        generation=1,
        version=V2,
        attempt=1,
        source=V1,
        job=False,
        started="2026-01-01T00:00:00Z",
        drain="2026-01-01T00:00:00Z",
        switch="2026-01-01T00:00:00Z",
        end="2026-01-01T00:00:00Z",
        outcome="RolledBack",
        why="x" * 100,
    ).written()
    for body in made.nodes.values():
        body["metadata"]["annotations"][PROGRESS] = progress
    made.look()
    status = made.status()
    assert len(json.dumps(status)) < limit
    assert status["counts"]["failed"] == nodes
    assert len(status["nodes"]) + status.get("nodesOmitted", 0) == nodes


def test_a_node_that_was_taken_back_by_hand_is_upgraded_again() -> None:
    made = fleet(servers=0, agents=1)
    made.settle()
    made.agents["a0"].running = V1
    made._sync(made.agents["a0"])
    made.settle()
    assert made.agents["a0"].running == V2
    assert made.agents["a0"].told.count("Committed") == 2
