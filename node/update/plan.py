"""
Decide what an update does next. No I/O, no clock: what is known in, one step out.

Two are asked: the agent while the node works (:func:`decide`), and whoever holds the machine
before the children are forked or after they have ended (:func:`decide_alone`). The state goes to
the disk before the step is performed, so that whoever finds it knows what may have been begun.

What must never happen, and why it does not: a snapshot is restored only where nothing but the
trial can have written since it was made, because no child is started between the snapshot and the
restart unless the switch was given up first, and with it the snapshot. A trial is committed only
by a slot that runs. What a trial wrote is moved, never overwritten.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from node.update import version as versions
from node.update.base import Slot
from node.update.request import Request
from node.update.state import Failure, Phase, State, Step, stamp
from node.update.steps import (
    AgentStep,
    Cancel,
    CancelTry,
    Check,
    Commit,
    Decision,
    Download,
    Failed,
    GiveUp,
    Install,
    LoneDecision,
    LoneStep,
    Look,
    MarkFailed,
    Outcome,
    Report,
    Restart,
    Restore,
    Snapshot,
    Start,
    StopNode,
    Taken,
    TryOnce,
    Wait,
)

MOST_ATTEMPTS = 3  # to restart into the other slot, where the machine came back without a try


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the gate says of a trial."""

    is_ok: bool
    message: str = ""  # what misses, the first by name
    since: float = 0.0  # uptime since which all has been well without interruption


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    state: State | None
    request: Request | None  # what is asked for now
    running: Slot
    other: Slot
    on_trial: bool
    now: datetime
    uptime: float  # seconds since the kernel started; no clock that somebody may set
    boot: str  # of this start of the machine
    failed: Mapping[str, Failure] = field(default_factory=dict)
    health: Health | None = None  # None: nobody has looked
    order: str = ""  # "commit" | "back": of a person, now
    elsewhere: str = ""  # the kind of a datastore that is no file of this machine: "etcd"
    is_void: bool = False  # the node has written although the update had not come to an end
    just_chosen: bool = False  # the other slot was chosen by this very process
    old_schema: int | None = None  # of the datastore that the other slot last wrote


def refusal(request: Request, facts: Facts) -> Failed | None:
    """Why this request must not be followed; None: it may."""
    if facts.elsewhere and not request.without_snapshot:
        text = f"no snapshot can be made of a datastore elsewhere ({facts.elsewhere})"
        return Failed(f"{text}: withoutSnapshot allows an update without one", "NoSnapshot")
    if request.rollback:
        return _refused_rollback(request, facts)
    if not request.version:
        return None  # known after the check
    wanted, running = versions.parse(request.version), facts.running.version
    if wanted == running:
        return Failed(f"{request.version} runs already", "SameVersion")
    if running is not None and wanted < running:
        return Failed(f"{request.version} is older than {running}, which runs", "Downgrade")
    failure = facts.failed.get(str(wanted))
    if failure is not None and not request.retry_failed:
        text = f"{request.version} was tried at {failure.at} and left: {failure.reason}"
        return Failed(text, "FailedBefore")
    return None


def _refused_rollback(request: Request, facts: Facts) -> Failed | None:
    running, other = facts.running, facts.other
    if request.version and versions.parse(request.version) != running.version:
        return Failed(f"{request.version} does not run here, but {running.version}", "NotRunning")
    if other.version is None or other.bad:
        return Failed("the other slot holds nothing that can be started", "NothingToGoBackTo")
    return None


def decide(facts: Facts) -> Decision:
    """What the agent does next."""
    state = facts.state
    if state is None or state.has_ended:
        return _at_rest(facts)
    if state.phase is Phase.TRIAL:
        return _trial(facts, state)
    if state.phase is Phase.SWITCHING:
        return _unswitched(facts, state)
    return _preparing(facts, state)


def _unswitched(facts: Facts, state: State) -> Decision:
    """The children run, so whoever was alone has died: never ask for that again and again."""
    if facts.running.name != state.to_slot:
        return Decision(replace(state, message="the switch was not performed"), GiveUp())
    if not facts.on_trial:
        return Decision(committed(state, facts.now), Report())
    begun = state.at(Phase.TRIAL, facts.now, boot=facts.boot, since=facts.uptime)
    return Decision(begun, Report())


def _at_rest(facts: Facts) -> Decision:
    state, request = facts.state, facts.request
    if facts.on_trial:
        return Decision(_adopted(facts), Report())
    if request is None or (state is not None and state.request.key == request.key):
        return Decision(state, Wait())  # nothing is asked, or this is answered
    return _begin(facts, request)


def _adopted(facts: Facts) -> State:
    """A trial of which nobody knows anything: it is judged as any other, without a snapshot."""
    made = State(
        request=Request(version=str(facts.running.version or "")),
        phase=Phase.TRIAL,
        from_version=str(facts.other.version or ""),
        from_slot=facts.other.name,
        to_slot=facts.running.name,
        boot=facts.boot,
        since=facts.uptime,
        times={Phase.TRIAL.value: stamp(facts.now)},
    )
    return replace(made, message="a trial whose beginning is not known")


def _is_adopted(state: State, asked: Request) -> bool:
    """Whether this is what the trial that nobody knew was about."""
    nobody = not state.request.plan and not state.request.uid
    return nobody and asked.version == state.request.version and not asked.rollback


def _begin(facts: Facts, request: Request) -> Decision:
    if request.rollback and not request.version:
        request = replace(request, version=str(facts.running.version or ""))
    made = State(
        request=request,
        phase=Phase.DOWNLOADING,
        from_version=str(facts.running.version or ""),
        from_slot=facts.running.name,
        to_slot=facts.other.name,
    )
    if refused := refusal(request, facts):
        # A version that is left already is what a rollback wants.
        is_left = request.rollback and refused.reason == "NotRunning"
        phase = Phase.ROLLED_BACK if is_left else Phase.REFUSED
        ended = made.at(phase, facts.now, message=refused.message, reason=refused.reason)
        return Decision(ended, Report())
    if request.rollback or _has(facts.other, request):
        return _installed(facts, made.at(Phase.INSTALLED, facts.now))
    return Decision(made.at(Phase.DOWNLOADING, facts.now), Download())


def _has(slot: Slot, request: Request) -> bool:
    if not request.version or slot.version is None or slot.bad:
        return False
    return slot.version == versions.parse(request.version)


def _preparing(facts: Facts, state: State) -> Decision:
    request = facts.request
    if request is None or request.key != state.request.key or facts.order == "back":
        return Decision(None, Cancel())
    # The bundle may have said which version it is: that stays.
    state = replace(state, request=replace(request, version=state.request.version))
    if state.phase is Phase.DOWNLOADING:
        return Decision(state, Download())
    if state.phase is Phase.INSTALLING:
        return Decision(state, Install() if state.step is Step.CHECKED else Check())
    return _installed(facts, state)


def _installed(facts: Facts, state: State) -> Decision:
    request = state.request
    if not request.rollback and not _has(facts.other, request):
        return Decision(state.at(Phase.DOWNLOADING, facts.now), Download())
    if not state.has_looked:
        return Decision(state, Look())
    if request.stage == "install":
        return Decision(state, Wait())
    return Decision(state.at(Phase.SWITCHING, facts.now, step=Step.STOP), StopNode())


def _trial(facts: Facts, state: State) -> Decision:
    request, asked = state.request, facts.request
    if facts.running.name != state.to_slot:
        why = f"{state.message or _unexplained(state)}; the datastore is as it left it"
        return Decision(replace(state, message=why), GiveUp())
    if not facts.on_trial:
        return Decision(committed(state, facts.now), Report())
    if state.step is not Step.NONE:
        return Decision(state, Restart())  # who was alone should have done it
    if asked is not None and (asked.key == request.key or _is_adopted(state, asked)):
        request = asked
        state = replace(state, request=request)
    if why := _why_left(facts, state):
        return Decision(replace(state, step=Step.BACK, message=why), StopNode())
    soaked = state.since if facts.health is None else facts.health.since + request.soak_seconds
    is_healthy = facts.health is not None and facts.health.is_ok
    is_judged = not request.checks or request.verdict == "passed"
    held = is_healthy and facts.uptime >= soaked
    if facts.order == "commit" or (held and is_judged):
        return Decision(state, Commit())
    deadline = state.since + request.deadline_seconds
    return Decision(state, Wait(min(soaked, deadline) if is_healthy and not held else deadline))


def _why_left(facts: Facts, state: State) -> str:
    """ "": the trial goes on."""
    request, asked = state.request, facts.request
    if facts.order == "commit":
        return ""
    if facts.order == "back":
        return "left by hand"
    if request.verdict == "failed":
        return f"the plan's checks failed: {request.verdict_message or 'no message'}"
    if asked is not None and asked.rollback and not request.rollback:
        return f"the plan {asked.plan} went back"
    if facts.uptime < state.since + request.deadline_seconds:
        return ""
    return f"not committed within {request.deadline_seconds} s: {_missing(facts, request)}"


def _missing(facts: Facts, request: Request) -> str:
    if facts.health is None:
        return "its health was never known"
    if not facts.health.is_ok:
        return facts.health.message
    if request.checks and request.verdict != "passed":
        return "healthy, but the plan's checks have not passed"
    return "it was not healthy for long enough"


def committed(state: State, now: datetime) -> State:
    """Of a rollback the version that was asked about is left now."""
    phase = Phase.ROLLED_BACK if state.request.rollback else Phase.COMMITTED
    return state.at(phase, now, step=Step.NONE)


def decide_alone(facts: Facts) -> LoneDecision:
    """What is to be done while no child runs."""
    state = facts.state
    if facts.on_trial and (state is None or state.has_ended):
        return LoneDecision(_adopted(facts), Start())
    if state is None or state.phase not in (Phase.SWITCHING, Phase.TRIAL):
        return LoneDecision(state, Start())
    if facts.running.name == state.to_slot and facts.running.name != state.from_slot:
        return _alone_in_the_new(facts, state)
    if facts.is_void:
        return _void(state)
    if state.phase is Phase.SWITCHING:
        return _switching(facts, state)
    return _left(facts, state)


def _alone_in_the_new(facts: Facts, state: State) -> LoneDecision:
    if not facts.on_trial:
        return LoneDecision(committed(state, facts.now), Start())
    if state.phase is Phase.SWITCHING:
        begun = state.at(Phase.TRIAL, facts.now, boot=facts.boot, since=facts.uptime)
        return LoneDecision(begun, Start())
    if state.step is not Step.NONE:
        return LoneDecision(state, Restart())
    if facts.boot != state.boot:
        state = replace(state, boot=facts.boot, since=facts.uptime)
    if facts.uptime >= state.since + state.request.deadline_seconds:
        why = f"not committed within {state.request.deadline_seconds} s: it kept starting anew"
        return LoneDecision(replace(state, step=Step.BACK, message=why), Restart())
    return LoneDecision(state, Start())


def _void(state: State) -> LoneDecision:
    """The old version has written since the snapshot: that stays, whatever was to be done."""
    was_tried = state.phase is Phase.TRIAL or state.step is Step.TRIED
    if was_tried and state.step is not Step.MARK:
        why = f"{state.message or _unexplained(state)}; the datastore is as it left it"
        state = replace(state, phase=Phase.TRIAL, step=Step.MARK, message=why)
    if was_tried:
        return LoneDecision(state, MarkFailed(_condemned(state)))
    why = state.message or "the switch was not performed"
    return LoneDecision(replace(state, step=Step.CANCEL, message=why), CancelTry())


def _condemned(state: State) -> str:
    return "" if state.request.rollback else state.request.version


def _switching(facts: Facts, state: State) -> LoneDecision:
    match state.step:
        case Step.TRY:
            # Perhaps it was chosen before, and even left: it costs one more try to know.
            if state.attempts >= MOST_ATTEMPTS:
                return _left(facts, state)
            chosen = replace(state, attempts=state.attempts + 1)
            return LoneDecision(chosen, TryOnce())
        case Step.TRIED if facts.just_chosen:
            return LoneDecision(state, Restart())
        case Step.TRIED if facts.boot == state.boot and state.attempts < MOST_ATTEMPTS:
            # The machine was not started anew since; packages may have been tried and left.
            return _switching(facts, replace(state, step=Step.TRY))
        case Step.TRIED:
            return _left(facts, state)
        case Step.CANCEL:
            return LoneDecision(state, CancelTry())
        case _:
            return LoneDecision(state, Snapshot())


def _left(facts: Facts, state: State) -> LoneDecision:
    """The old slot runs: the trial was left, by whatever."""
    if state.phase is Phase.TRIAL and state.step is Step.MARK:
        return LoneDecision(state, MarkFailed(_condemned(state)))
    if state.step is not Step.LEFT:
        why = state.message
        if state.step is not Step.BACK or not why:
            why = _unexplained(state)
        tried = str(facts.other.version or state.request.version)
        kept = f"{tried}-{facts.now:%Y%m%d%H%M%S}"
        state = state.at(Phase.TRIAL, facts.now, step=Step.LEFT, message=why, kept=kept)
    return LoneDecision(state, Restore())


def _unexplained(state: State) -> str:
    if state.phase is Phase.SWITCHING:
        return "it did not come up: the machine started the old version again"
    return "the machine was restarted during the trial (power, panic, hang or watchdog)"


def after(state: State, step: AgentStep | LoneStep, outcome: Outcome, facts: Facts) -> State:
    """The state once a step was performed, or was not. Values of :class:`Done` are named here."""
    if isinstance(outcome, Failed):
        return _after_failure(state, step, outcome, facts.now)
    match step:
        case Download():
            return state.at(Phase.INSTALLING, facts.now)
        case Check():  # the version of the bundle
            return _after_check(state, str(outcome.value), facts)
        case Install():
            return state.at(Phase.INSTALLED, facts.now)
        case Look():  # names, see gate.py
            return replace(state, healthy=tuple(outcome.value), has_looked=True)
        case Commit():
            return committed(state, facts.now)
        case GiveUp():
            return _given_up(state, facts.now)
        case _:
            return _after_alone(state, step, outcome.value, facts)


def _given_up(state: State, now: datetime) -> State:
    """A snapshot must not be restored any more: the node has written since."""
    if state.phase is Phase.TRIAL:
        return _after_mark(state, now)
    return state.at(Phase.FAILED, now, message=state.message, reason=state.reason)


def _after_alone(state: State, step: AgentStep | LoneStep, value: Any, facts: Facts) -> State:
    match step:
        case Snapshot():  # Taken; None: none can be made
            return _after_snapshot(state, value, facts)
        case TryOnce():
            return replace(state, step=Step.TRIED, boot=facts.boot)
        case CancelTry():
            return state.at(Phase.FAILED, facts.now, message=state.message, reason=state.reason)
        case Restore():  # Kept
            message = f"{state.message}; {value.note}" if value.note else state.message
            return replace(state, step=Step.MARK, kept_count=value.count, message=message)
        case MarkFailed():
            return _after_mark(state, facts.now)
        case _:
            return state


def _after_check(state: State, found: str, facts: Facts) -> State:
    if state.request.version and versions.parse(state.request.version) != versions.parse(found):
        text = f"the bundle is {found}, and {state.request.version} was asked for"
        return state.at(Phase.REFUSED, facts.now, message=text, reason="WrongVersion")
    request = replace(state.request, version=state.request.version or found)
    if refused := refusal(request, facts):
        return state.at(Phase.REFUSED, facts.now, message=refused.message, reason=refused.reason)
    return replace(state, request=request, step=Step.CHECKED)


def _after_snapshot(state: State, taken: Taken | None, facts: Facts) -> State:
    if taken is None:
        return replace(state, step=Step.TRY, snapshot="", attempts=0)
    old = facts.old_schema
    if state.request.rollback and old is not None and taken.schema > old:
        text = f"the datastore has schema {taken.schema}, and the other slot knows up to {old}"
        return state.at(Phase.REFUSED, facts.now, message=text, reason="DatastoreTooNew")
    return replace(state, step=Step.TRY, snapshot=taken.name, schema=taken.schema, attempts=0)


def _after_mark(state: State, now: datetime) -> State:
    phase = Phase.FAILED if state.request.rollback else Phase.ROLLED_BACK
    return state.at(phase, now, message=state.message, reason="Left")


def _after_failure(
    state: State, step: AgentStep | LoneStep, failed: Failed, now: datetime
) -> State:
    match step:
        case TryOnce() | Restart() if state.phase is Phase.SWITCHING:
            return replace(state, step=Step.CANCEL, message=failed.message, reason=failed.reason)
        case CancelTry():
            text = f"{state.message}; and the choice could not be taken back: {failed.message}"
            return state.at(Phase.FAILED, now, message=text, reason=state.reason)
        case Restore():
            text = f"{state.message}; the snapshot was not restored: {failed.message}"
            return replace(state, step=Step.MARK, message=text)
        case MarkFailed():
            text = f"{state.message}; it could not be remembered: {failed.message}"
            return _after_mark(replace(state, message=text), now)
        case Restart() | Commit():
            return state  # it is tried again; the reason why it is left stays
        case GiveUp():
            return _given_up(replace(state, message=f"{state.message}; {failed.message}"), now)
        case _:
            phase = Phase.REFUSED if failed.reason else Phase.FAILED
            return state.at(phase, now, message=failed.message, reason=failed.reason)
