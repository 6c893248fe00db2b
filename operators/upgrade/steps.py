"""
Going on with a node that has been begun: one step, or what is waited for. Pure.
"""

from dataclasses import replace
from datetime import datetime, timedelta

from operators.upgrade import patches
from operators.upgrade.base import Verdict
from operators.upgrade.gates import Gate
from operators.upgrade.nodes import Phase, State, Step, holds
from operators.upgrade.objects import Node, Progress, moment
from operators.upgrade.world import Look

# So long before the node's own deadline a verdict of "failed" says why.
AHEAD = timedelta(seconds=20)


def advance(look: Look, state: State, gate: Gate | None) -> State:
    """Go on with a node that has been begun; what it says of itself then."""
    progress = state.node.progress
    if progress is None or progress.uid != look.plan.uid or state.step is Step.NONE:
        if progress is not None and holds(state.node, look.plan):
            return _reconsider(look, state, progress, gate)
        return state
    decision, now = look.decision, look.world.now
    match state.step:
        case Step.FINISH:
            decision.changes.append(patches.finish(state, progress, look.wanted, now))
            return state
        case Step.TELL:
            if gate is None or gate.reason != "RollingBack":
                decision.changes.append(patches.tell(state.node, progress, look.wanted, now))
            return state
        case Step.GIVE_UP:
            decision.changes.append(patches.cancel(state.node, progress, state.message, now))
            return state
        case Step.JUDGE:
            return _judge(look, state)
        case Step.JOB:
            return _job(look, state, progress)
        case _:
            return _reconsider(look, state, progress, gate)


def _reconsider(look: Look, state: State, progress: Progress, gate: Gate | None) -> State:
    """It has been begun and not been switched: is it still what the plan wants?"""
    now = look.world.now
    if progress.switch or progress.back:
        return _drain(look, state, progress) if state.step is Step.DRAIN else state
    version = look.asked.version(state.node)
    why = ""
    if not look.owns(state.node):
        why = "the plan does not choose this node any more"
    elif version and progress.version != version:
        why = f"the plan wants {version} now"
    elif gate is not None and gate.reason == "RollingBack":
        why = "the plan is rolled back"
    elif gate is not None and gate.hold and progress.job:
        why = f"the plan is held: {gate.reason}"
    if why:
        look.decision.changes.append(patches.cancel(state.node, progress, why, now))
        return replace(state, message=why)
    return _toward(look, state, progress, gate)


def _toward(look: Look, state: State, progress: Progress, gate: Gate | None) -> State:
    node, now, decision = state.node, look.world.now, look.decision
    if state.step is Step.DRAIN:
        if gate is not None and gate.hold:
            decision.changes.append(patches.release(node, progress))
            return state
        return _drain(look, state, progress)
    if state.step is Step.DISTURB:
        if gate is not None:
            return replace(state, message=f"waits: {gate.reason}")
        change = patches.disturb(node, progress, look.wanted, alone=look.alone(node), now=now)
        decision.changes.append(change)
    return state


def _drain(look: Look, state: State, progress: Progress) -> State:
    node, now = state.node, look.world.now
    seen = look.world.drained.get(node.name)
    if seen is not None and (seen.done or (seen.failed and progress.back)):
        look.decision.changes.append(patches.switch(node, progress, now))
        return state
    if seen is not None and seen.failed:
        ended = replace(state, outcome=Phase.FAILED, message=f"not drained: {seen.message}")
        look.decision.changes.append(patches.finish(ended, progress, look.wanted, now))
        return ended
    look.decision.drains[node.name] = moment(progress.drain) or now
    return replace(state, message=seen.message if seen else "")


def _job(look: Look, state: State, progress: Progress) -> State:
    seen = look.world.jobs.get(state.node.name)
    if seen is None or not (seen.done or seen.failed):
        look.decision.jobs[state.node.name] = progress.version
        return replace(state, message=seen.message if seen else "")
    outcome = Phase.FAILED if seen.failed else Phase.UPDATED
    ended = replace(state, outcome=outcome, message=seen.message if seen.failed else "")
    look.decision.changes.append(patches.finish(ended, progress, look.wanted, look.world.now))
    return ended


def _judge(look: Look, state: State) -> State:
    """The checks must pass without a break for the soak time, before the deadline."""
    node, now = state.node, look.world.now
    seen = look.world.judged.get(node.name)
    over = _deadline(look, node)
    soak = timedelta(seconds=look.wanted.soak)
    if seen is not None and seen.since is not None and seen.at - seen.since >= soak:
        look.decision.changes.append(patches.verdict(node, Verdict(passed=True, message="")))
        return replace(state, message="its checks pass")
    if seen is not None and not seen.verdict.passed and over <= now:
        look.decision.changes.append(patches.verdict(node, seen.verdict))
        return replace(state, message=seen.verdict.message)
    look.decision.judge.append(node.name)
    look.decision.wake_at(over if over > now else None)
    message = seen.verdict.message if seen is not None else ""
    if seen is not None and seen.since is not None:
        message = "its checks pass; soaks"
    return replace(state, message=message or state.message)


def _deadline(look: Look, node: Node) -> datetime:
    answer, progress = node.answer, node.progress
    switched = moment(progress.switch if progress else "") or look.world.now
    trial = moment(answer.times.get("Trial", "")) if answer else None
    # A node's clock may be wrong by years: its trial began after it was asked, and not later.
    began = max(switched, min(trial or switched, look.world.now))
    return began + timedelta(seconds=look.wanted.deadline) - AHEAD
