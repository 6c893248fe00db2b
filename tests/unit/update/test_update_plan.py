"""What is decided about an update: refusals, the trial, the way back; without any disk."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from node.update import plan, steps
from node.update.base import Slot
from node.update.plan import Facts, Health
from node.update.request import Request
from node.update.state import Failure, Phase, State, Step
from node.update.steps import Done, Failed, Kept, Taken
from node.update.version import parse

NOW = datetime(2026, 11, 24, 14, tzinfo=UTC)
V1, V2, V3 = (f"v1.36.{patch}+pinnace1" for patch in (3, 4, 5))
A = Slot(name="a", version=parse(V1), bad=False)
EMPTY = Slot(name="b", version=None, bad=False)
B = Slot(name="b", version=parse(V2), bad=False)
ASKED = Request(version=V2, plan="fleet", uid="u", url="/x", soak_seconds=60, deadline_seconds=900)


def facts(**more: Any) -> Facts:
    known: dict[str, Any] = {
        "state": None,
        "request": ASKED,
        "running": A,
        "other": EMPTY,
        "on_trial": False,
        "now": NOW,
        "uptime": 100.0,
        "boot": "one",
    }
    return Facts(**known | more)


def trial(**more: Any) -> Facts:
    state = State(
        request=more.pop("asked", ASKED),
        phase=Phase.TRIAL,
        from_version=V1,
        from_slot="a",
        to_slot="b",
        boot="two",
        since=100.0,
    )
    health = Health(is_ok=True, since=120.0)
    known = {"state": state, "running": B, "other": A, "on_trial": True, "boot": "two"}
    return facts(**known | {"health": health} | more)


def refused(found: Facts) -> str:
    decision = plan.decide(found)
    assert decision.state is not None
    assert decision.state.phase is Phase.REFUSED
    assert decision.step == steps.Report()
    assert decision.state.message
    return decision.state.reason


def test_nothing_is_done_where_nothing_is_asked() -> None:
    assert plan.decide(facts(request=None)) == steps.Decision(None, steps.Wait())


def test_a_request_begins_with_the_download() -> None:
    decision = plan.decide(facts())
    assert decision.step == steps.Download()
    assert decision.state is not None
    assert (decision.state.from_slot, decision.state.to_slot) == ("a", "b")
    assert decision.state.times == {"Downloading": "2026-11-24T14:00:00Z"}


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        (replace(ASKED, version=V1), "SameVersion"),
        (replace(ASKED, version="v1.35.9+pinnace9"), "Downgrade"),
        (replace(ASKED, version="v1.36.3-rc.1+pinnace1"), "Downgrade"),
        (replace(ASKED, version=V1, rollback=True), "NothingToGoBackTo"),
    ],
)
def test_what_would_not_help_is_refused(asked: Request, reason: str) -> None:
    assert refused(facts(request=asked)) == reason


def test_a_version_that_failed_is_refused_until_told_otherwise() -> None:
    failed = {V2: Failure(at="2026-11-23T10:00:00Z", reason="node pi is not Ready")}
    found = facts(failed=failed)
    assert refused(found) == "FailedBefore"
    message = plan.decide(found).state.message  # type: ignore[union-attr]
    assert "2026-11-23T10:00:00Z" in message
    assert "node pi is not Ready" in message
    again = facts(failed=failed, request=replace(ASKED, retry_failed=True))
    assert plan.decide(again).step == steps.Download()


def test_without_a_snapshot_an_update_needs_permission() -> None:
    found = facts(elsewhere="etcd")
    assert refused(found) == "NoSnapshot"
    assert "etcd" in plan.decide(found).state.message  # type: ignore[union-attr]
    allowed = replace(ASKED, without_snapshot=True)
    assert plan.decide(facts(elsewhere="etcd", request=allowed)).step == steps.Download()


def test_a_version_that_is_there_is_not_fetched_again() -> None:
    decision = plan.decide(facts(other=B))
    assert decision.step == steps.Look()
    assert plan.decide(facts(other=replace(B, bad=True))).step == steps.Download()


def test_an_answered_request_is_not_begun_again() -> None:
    ended = State(request=ASKED, phase=Phase.FAILED)
    assert plan.decide(facts(state=ended)) == steps.Decision(ended, steps.Wait())
    again = facts(state=ended, request=replace(ASKED, attempt=2))
    assert plan.decide(again).step == steps.Download()


@pytest.mark.parametrize("phase", [Phase.DOWNLOADING, Phase.INSTALLING, Phase.INSTALLED])
def test_a_request_that_is_taken_away_before_the_switch_is_cancelled(phase: Phase) -> None:
    state = State(request=ASKED, phase=phase, has_looked=True)
    cancelled = steps.Decision(None, steps.Cancel())
    assert plan.decide(facts(state=state, request=None, other=B)) == cancelled
    other = replace(ASKED, uid="another")
    assert plan.decide(facts(state=state, request=other, other=B)) == cancelled


@pytest.mark.parametrize("phase", [Phase.SWITCHING, Phase.TRIAL])
def test_a_request_that_is_taken_away_later_is_not(phase: Phase) -> None:
    found = trial(request=None)
    assert found.state is not None
    decision = plan.decide(replace(found, state=replace(found.state, phase=phase)))
    assert decision.step != steps.Cancel()
    assert decision.state is not None


def test_stage_install_waits_for_the_stage_switch() -> None:
    asked = replace(ASKED, stage="install")
    state = State(request=asked, phase=Phase.INSTALLED, has_looked=True)
    assert plan.decide(facts(state=state, request=asked, other=B)).step == steps.Wait()
    switched = plan.decide(facts(state=state, request=replace(asked, stage="switch"), other=B))
    assert switched.step == steps.StopNode()
    assert switched.state is not None
    assert (switched.state.phase, switched.state.step) == (Phase.SWITCHING, Step.STOP)


def test_a_bundle_of_another_version_than_asked_for_is_refused() -> None:
    state = State(request=ASKED, phase=Phase.INSTALLING)
    after = plan.after(state, steps.Check(), Done(parse(V3)), facts(state=state))
    assert (after.phase, after.reason) == (Phase.REFUSED, "WrongVersion")


def test_a_person_learns_from_the_bundle_which_version_it_is() -> None:
    state = State(request=Request(version="", uid="local"), phase=Phase.INSTALLING)
    after = plan.after(state, steps.Check(), Done(parse(V3)), facts(state=state))
    assert (after.request.version, after.step) == (V3, Step.CHECKED)
    old = plan.after(state, steps.Check(), Done(parse("v1.36.2+pinnace1")), facts(state=state))
    assert (old.phase, old.reason) == (Phase.REFUSED, "Downgrade")


# -- the trial


def test_a_trial_is_committed_after_the_soak_time() -> None:
    waiting = plan.decide(trial(uptime=179.0))
    assert waiting.step == steps.Wait(180.0)
    assert plan.decide(trial(uptime=180.0)).step == steps.Commit()


def test_an_interruption_begins_the_soak_time_anew() -> None:
    found = trial(uptime=185.0, health=Health(is_ok=True, since=150.0))
    assert plan.decide(found).step == steps.Wait(210.0)


def test_with_checks_a_trial_is_committed_only_when_the_plan_says_so() -> None:
    asked = replace(ASKED, checks=True)
    assert plan.decide(trial(asked=asked, request=asked, uptime=500.0)).step == steps.Wait(1000.0)
    passed = replace(asked, verdict="passed")
    assert plan.decide(trial(asked=asked, request=passed, uptime=500.0)).step == steps.Commit()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"request": replace(ASKED, verdict="failed", verdict_message="HTTP web: 503")}, "503"),
        ({"order": "back"}, "left by hand"),
        ({"uptime": 1000.0, "health": Health(is_ok=False, message="node pi is not Ready")}, "pi"),
        ({"uptime": 1000.0, "health": None}, "never known"),
        ({"request": replace(ASKED, rollback=True, plan="fleet")}, "went back"),
    ],
)
def test_a_trial_is_left(more: dict[str, Any], message: str) -> None:
    decision = plan.decide(trial(**more))
    assert decision.step == steps.StopNode()
    assert decision.state is not None
    assert decision.state.step is Step.BACK
    assert message in decision.state.message


def test_a_trial_of_which_nobody_knows_is_judged_as_any_other() -> None:
    found = facts(running=B, other=A, on_trial=True, request=None)
    adopted = plan.decide(found).state
    assert adopted is not None
    assert adopted.phase is Phase.TRIAL
    later = replace(found, state=adopted, uptime=200.0, health=Health(is_ok=True, since=110.0))
    assert plan.decide(later).step == steps.Commit()


def test_a_commit_whose_note_was_lost_is_found() -> None:
    decision = plan.decide(trial(on_trial=False))
    assert decision.state is not None
    assert decision.state.phase is Phase.COMMITTED


# -- whoever was alone died


def test_a_switch_that_was_never_performed_is_given_up() -> None:
    found = switching(Step.TRY)
    decision = plan.decide(found)
    assert decision.step == steps.GiveUp()
    assert decision.state is not None
    after = plan.after(decision.state, decision.step, Done(), found)
    assert (after.phase, after.message) == (Phase.FAILED, "the switch was not performed")
    assert plan.decide_alone(replace(found, state=after)).step == steps.Start()


def test_a_trial_that_nobody_began_is_begun_by_the_agent() -> None:
    found = switching(Step.TRIED, running=B, boot="two", on_trial=True, uptime=20.0)
    decision = plan.decide(replace(found, other=A))
    assert decision.step == steps.Report()
    assert decision.state is not None
    assert (decision.state.phase, decision.state.since) == (Phase.TRIAL, 20.0)


def test_where_the_node_has_written_since_no_snapshot_is_restored() -> None:
    found = trial(running=A, other=B, on_trial=False, boot="three")
    decision = plan.decide(found)
    assert decision.step == steps.GiveUp()
    assert decision.state is not None
    after = plan.after(decision.state, decision.step, Done(), found)
    assert after.phase is Phase.ROLLED_BACK
    assert "as it left it" in after.message
    assert plan.decide_alone(replace(found, state=after)).step == steps.Start()


def test_a_trial_that_should_have_been_left_is_left_by_the_agent() -> None:
    found = trial()
    assert found.state is not None
    back = replace(found.state, step=Step.BACK, message="bad")
    assert plan.decide(replace(found, state=back)).step == steps.Restart()


# -- alone


def switching(step: Step, **more: Any) -> Facts:
    state = State(
        request=ASKED, phase=Phase.SWITCHING, step=step, from_slot="a", to_slot="b", boot="one"
    )
    given = more.pop("given", {})
    return facts(state=replace(state, **given), other=B, **more)


def test_the_snapshot_comes_before_the_choice_and_the_choice_before_the_restart() -> None:
    found = switching(Step.STOP)
    first = plan.decide_alone(found)
    assert first.step == steps.Snapshot()
    assert first.state is not None
    state = plan.after(first.state, first.step, Done(Taken(name="s", schema=1)), found)
    second = plan.decide_alone(replace(found, state=state))
    assert second.step == steps.TryOnce()
    assert second.state is not None
    chosen = plan.after(second.state, second.step, Done(), found)
    third = plan.decide_alone(replace(found, state=chosen, just_chosen=True))
    assert third.step == steps.Restart()
    assert third.state == chosen


@pytest.mark.parametrize("step", [steps.Snapshot(), steps.TryOnce(), steps.Restart()])
def test_a_switch_that_does_not_work_is_given_up_and_the_node_starts(step: steps.LoneStep) -> None:
    found = switching(Step.TRIED if step == steps.Restart() else Step.STOP)
    assert found.state is not None
    state = plan.after(found.state, step, Failed("no space"), found)
    if not state.has_ended:
        cancel = plan.decide_alone(replace(found, state=state))
        assert cancel.step == steps.CancelTry()
        state = plan.after(state, cancel.step, Done(), found)
    assert (state.phase, state.message) == (Phase.FAILED, "no space")
    assert plan.decide_alone(replace(found, state=state)).step == steps.Start()


def test_the_old_slot_after_a_try_means_that_the_trial_was_left() -> None:
    found = switching(Step.TRIED, boot="two")
    decision = plan.decide_alone(found)
    assert decision.step == steps.Restore()
    assert decision.state is not None
    assert "did not come up" in decision.state.message
    assert decision.state.kept == f"{V2}-20261124140000"


def test_the_old_slot_in_the_same_boot_means_that_the_restart_is_still_to_come() -> None:
    assert plan.decide_alone(switching(Step.TRIED, given={"attempts": 1})).step == steps.TryOnce()
    spent = {"attempts": plan.MOST_ATTEMPTS}
    assert plan.decide_alone(switching(Step.TRIED, given=spent)).step == steps.Restore()


def test_the_new_slot_on_trial_begins_the_trial() -> None:
    found = switching(Step.TRIED, running=B, boot="two", on_trial=True, uptime=20.0)
    decision = plan.decide_alone(replace(found, other=A))
    assert decision.step == steps.Start()
    assert decision.state is not None
    assert (decision.state.phase, decision.state.since) == (Phase.TRIAL, 20.0)
    assert decision.state.boot == "two"


def test_a_left_trial_is_restored_then_remembered_then_started() -> None:
    found = trial(running=A, other=B, on_trial=False, boot="three")
    first = plan.decide_alone(found)
    assert first.step == steps.Restore()
    assert first.state is not None
    kept = Done(Kept(count=3, note="3 objects are kept"))
    state = plan.after(first.state, first.step, kept, found)
    second = plan.decide_alone(replace(found, state=state))
    assert second.step == steps.MarkFailed(V2)
    ended = plan.after(state, second.step, Done(), found)
    assert (ended.phase, ended.kept_count) == (Phase.ROLLED_BACK, 3)
    assert ended.message.endswith("3 objects are kept")
    assert plan.decide_alone(replace(found, state=ended)).step == steps.Start()


def test_a_trial_that_keeps_starting_anew_is_left_at_its_deadline() -> None:
    decision = plan.decide_alone(trial(uptime=1000.0))
    assert decision.step == steps.Restart()
    assert decision.state is not None
    assert decision.state.step is Step.BACK


# -- rollback


BACK = replace(ASKED, version=V2, rollback=True)


def test_a_rollback_tries_the_other_slot_without_any_download() -> None:
    found = facts(request=BACK, running=B, other=A)
    decision = plan.decide(found)
    assert decision.step == steps.Look()
    assert decision.state is not None
    state = replace(decision.state, has_looked=True)
    assert plan.decide(replace(found, state=state)).step == steps.StopNode()


def test_a_rollback_of_a_version_that_does_not_run_is_done_already() -> None:
    decision = plan.decide(facts(request=BACK, running=A, other=B))
    assert decision.state is not None
    assert decision.state.phase is Phase.ROLLED_BACK


def test_a_committed_rollback_ends_as_rolled_back() -> None:
    state = State(request=BACK, phase=Phase.TRIAL, from_slot="b", to_slot="a", from_version=V2)
    after = plan.after(state, steps.Commit(), Done(), facts(running=A, other=B))
    assert after.phase is Phase.ROLLED_BACK


def test_a_datastore_that_the_older_version_cannot_read_stops_a_rollback() -> None:
    found = switching(Step.STOP, given={"request": BACK}, running=B, old_schema=1)
    assert found.state is not None
    after = plan.after(found.state, steps.Snapshot(), Done(Taken(name="s", schema=2)), found)
    assert (after.phase, after.reason) == (Phase.REFUSED, "DatastoreTooNew")
    same = plan.after(found.state, steps.Snapshot(), Done(Taken(name="s", schema=1)), found)
    assert same.step is Step.TRY


def test_a_rollback_that_does_not_work_out_condemns_no_version() -> None:
    state = State(
        request=BACK, phase=Phase.TRIAL, step=Step.MARK, from_slot="b", to_slot="a", message="no"
    )
    found = facts(state=state, running=B, other=A)
    assert plan.decide_alone(found).step == steps.MarkFailed("")
    assert plan.after(state, steps.MarkFailed(""), Done(), found).phase is Phase.FAILED


# -- the node has written although somebody alone had died


def test_a_void_snapshot_is_never_restored() -> None:
    left = trial(running=A, other=B, on_trial=False, boot="three", is_void=True)
    decision = plan.decide_alone(left)
    assert decision.step == steps.MarkFailed(V2)
    assert decision.state is not None
    assert "as it left it" in decision.state.message
    tried = plan.decide_alone(switching(Step.TRIED, boot="two", is_void=True))
    assert tried.step == steps.MarkFailed(V2)


def test_a_void_switch_is_taken_back() -> None:
    decision = plan.decide_alone(switching(Step.TRY, is_void=True))
    assert decision.step == steps.CancelTry()
