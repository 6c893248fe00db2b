"""
What a plan does next: which nodes start, go on, wait, or go back. Pure.

Level-triggered: from the plan, the nodes, what was seen of their drains, Jobs and checks, and the
time comes the same decision, whoever asks and whatever was done before. Two rules come before
all others: what has been switched is seen to its end, whatever the plan says meanwhile; and
nothing is begun while anything stands against it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from operators.upgrade import order, patches, status
from operators.upgrade.gates import Gate, failed, gate_of, named
from operators.upgrade.nodes import FAILURES, Asked, Phase, State, holds, state_of
from operators.upgrade.objects import Node
from operators.upgrade.order import Batch
from operators.upgrade.patches import Change
from operators.upgrade.spec import Plan, Wanted
from operators.upgrade.steps import advance
from operators.upgrade.world import Decision, Look, World


def decide(plan: Plan, world: World) -> Decision:
    if plan.wanted is None:
        return Decision(status=status.invalid(plan, world.now))
    look = _look(plan, plan.wanted, world)
    decision = look.decision
    states = [state_of(node, look.asked) for node in _members(look)]
    rivals = _rivals(look)
    batches = _batches(look, states)
    gate = gate_of(look, states)
    states = [advance(look, state, gate) for state in states]
    _start(look, states, batches, gate)
    if gate is not None and gate.reason == "RollingBack":
        _roll_back(look, states)
    _ask(look, states)
    _wake(look, states, batches, gate)
    decision.status = status.document(
        plan, _summary(look, states, batches, gate), [*states, *rivals], now=world.now
    )
    return decision


def orphans(world: World) -> list[Change]:
    """
    Nodes that are half way for a plan that is no more.

    What can be cancelled is; what has been switched comes to its own end first, without a
    verdict, so a trial that checks should have judged is left again.
    """
    there = {plan.uid for plan in world.plans}
    found = []
    for node in world.nodes:
        progress = node.progress
        if progress is None or not progress.active or progress.uid in there:
            continue
        ended = node.answer is not None and node.answer.phase in {*FAILURES, "Committed"}
        if progress.switch and not ended and not progress.job:
            continue
        found.append(patches.cancel(node, progress, "its plan was deleted", world.now))
    return found


def _look(plan: Plan, wanted: Wanted, world: World) -> Look:
    found = world.found.get((plan.uid, plan.generation))
    offers = found.offers if found else None
    boards = {node.board for node in world.nodes}
    versions: Mapping[str, str] = dict.fromkeys(boards or {""}, wanted.version)
    known = {board: offer.version for board, offer in (offers or {}).items()}
    # "v1.36.4" may mean "v1.36.4+pinnace2", which only the source knows.
    versions = {**(versions if wanted.version else {}), **(known or status.versions(plan))}
    asked = Asked(plan=plan, wanted=wanted, versions=versions, offers=offers, now=world.now)
    return Look(
        plan=plan,
        wanted=wanted,
        world=world,
        asked=asked,
        found=found,
        owned=order.owners(world.nodes, world.plans),
        decision=Decision(),
    )


def _members(look: Look) -> list[Node]:
    """Those that are ours and free, or in work for us."""
    busy = {plan.uid for plan in look.world.plans if plan.uid != look.plan.uid}
    return [
        node
        for node in look.world.nodes
        if holds(node, look.plan) or (look.owns(node) and not _busy(node, busy))
    ]


def _busy(node: Node, others: Iterable[str]) -> bool:
    progress = node.progress
    return progress is not None and progress.active and progress.uid in others


def _rivals(look: Look) -> list[State]:
    """Nodes that this plan chooses and another one has."""
    found = []
    others = {plan.uid: plan for plan in look.world.plans if plan.uid != look.plan.uid}
    for node in look.world.nodes:
        if holds(node, look.plan) or not look.wanted.chosen.matches(node.labels):
            continue
        if not look.owns(node):
            owner = look.owned[node.name].name
            why = f"UpgradePlan {owner}, which is older, has it"
            found.append(State(node=node, phase=Phase.SKIPPED, message=why))
        elif _busy(node, others):
            assert node.progress is not None
            why = f"UpgradePlan {node.progress.plan} is at work on it"
            found.append(State(node=node, phase=Phase.WAITING, message=why))
    return found


def _batches(look: Look, states: Sequence[State]) -> list[Batch]:
    recorded = status.canaries(look.plan, look.asked.versions)
    mine = look.owns_all(states)
    found = order.batches(mine, look.wanted, recorded)
    return [
        replace(batch, completed=(batch.completed or look.world.now) if batch.final else None)
        for batch in found
    ]


def _start(
    look: Look, states: Sequence[State], batches: Sequence[Batch], gate: Gate | None
) -> None:
    if gate is not None:
        return
    current = _current(batches, look.world.now)
    free = _free(look, states)
    serving = any(state.active and state.node.server for state in states)
    for state in current.states if current else ():
        if free <= 0 or state.phase is not Phase.PENDING:
            continue
        if state.node.server and serving:
            continue
        change = _begin(look, state.node)
        if change is not None:
            look.decision.changes.append(change)
            free -= 1
            serving = serving or state.node.server


def _free(look: Look, states: Sequence[State]) -> int:
    total = sum(state.phase is not Phase.SKIPPED for state in states)
    # One that is lost and has been given up by whoever changed the plan takes no place.
    given_up = [s for s in states if s.phase is Phase.LOST and not look.owns(s.node)]
    working = sum(state.active for state in states) - len(given_up)
    return look.wanted.limit(total) - working


def _begin(look: Look, node: Node) -> Change | None:
    version, now = look.asked.version(node), look.world.now
    offers = look.asked.offers
    if not version or (node.board and offers is None):
        return None
    progress = patches.start(node, look.plan, version, now)
    if not node.board:
        change = patches.disturb(node, progress, look.wanted, alone=look.alone(node), now=now)
        again = "before" if progress.attempt > 1 else ""
        return replace(change, starts=True, job=again, news=(patches.started(progress),))
    assert offers is not None
    return patches.install(node, progress, offers[node.board], look.wanted)


def _current(batches: Sequence[Batch], now: datetime) -> Batch | None:
    """The batch whose turn it is; None: all are done, or one soaks."""
    for batch in batches:
        if not batch.final:
            return batch
        if batch.soaked(now) is not None:
            return None
    return None


def _roll_back(look: Look, states: Sequence[State]) -> None:
    """The newest first, as many at once as are upgraded at once."""
    if look.wanted.suspend:
        return
    done = [state for state in states if _committed_here(look, state)]
    busy = [state for state in states if state.active and not _committed_here(look, state)]
    total = sum(state.phase is not Phase.SKIPPED for state in states)
    free = look.wanted.limit(total) - len(busy)
    serving = any(state.node.server for state in busy)
    done.sort(key=lambda state: _newest(state, look.wanted), reverse=True)
    for state in done[: max(free, 0)]:
        node, progress = state.node, state.node.progress
        if progress is None or (node.server and serving):
            continue
        serving = serving or node.server
        change = patches.go_back(
            node, progress, look.wanted, alone=look.alone(node), now=look.world.now
        )
        look.decision.changes.append(change)


def _committed_here(look: Look, state: State) -> bool:
    progress = state.node.progress
    if progress is None or progress.uid != look.plan.uid or progress.job:
        return False
    mine = look.owns(state.node) and progress.outcome == Phase.UPDATED
    return mine and progress.version == look.asked.version(state.node)


def _newest(state: State, wanted: Wanted) -> tuple[int, str, str]:
    """Agents before servers, since none may be newer than its server."""
    progress = state.node.progress
    stage = order.stage_of(state.node, wanted)
    return (stage, progress.end if progress else "", state.node.name)


def _ask(look: Look, states: Sequence[State]) -> None:
    """Whether the channel or the source is to be looked at."""
    wanted, found, now = look.wanted, look.found, look.world.now
    boards = frozenset(state.node.board for state in states if look.owns(state.node))
    if not boards or wanted.suspend:
        return
    if found is not None and found.reason:
        return  # whoever asked in vain asks again by itself
    idle = all(state.final for state in states)
    if found is None:
        due = _due(look)
        if not wanted.channel and (idle or boards == {""}):
            return
        if wanted.channel and idle and status.versions(look.plan) and due > now:
            look.decision.wake_at(due)
            return
        look.decision.ask = boards
    elif not boards <= found.boards:
        look.decision.ask = boards
    elif wanted.channel:
        due = min(found.at, now) + timedelta(seconds=wanted.interval)
        if due <= now:
            look.decision.ask = boards
        else:
            look.decision.wake_at(due)


def _due(look: Look) -> datetime:
    """When the channel is to be looked at, as the status of an operator before us tells."""
    last = status.checked(look.plan)
    if last is None:
        return look.world.now
    return min(last, look.world.now) + timedelta(seconds=look.wanted.interval)


def _wake(look: Look, states: Sequence[State], batches: Sequence[Batch], gate: Gate | None) -> None:
    for state in states:
        look.decision.wake_at(state.wake)
    if gate is not None and any(not state.final for state in states):
        look.decision.wake_at(gate.wake)
    for batch in batches:
        look.decision.wake_at(batch.soaked(look.world.now))


def _summary(
    look: Look, states: Sequence[State], batches: Sequence[Batch], gate: Gate | None
) -> status.Summary:
    phase, reason, message = _phase(look, states, batches, gate)
    found = look.found
    return status.Summary(
        phase=phase,
        reason=reason,
        message=message,
        versions=look.asked.versions,
        offers={board: offer.version for board, offer in (look.asked.offers or {}).items()},
        batches=batches,
        unresolved=(found.reason, found.message) if found and found.reason else None,
        asked_at=found.at if found and found.offers is not None else None,
        serial=max((offer.serial for offer in (look.asked.offers or {}).values()), default=0),
    )


def _phase(
    look: Look, states: Sequence[State], batches: Sequence[Batch], gate: Gate | None
) -> tuple[str, str, str]:
    """Phase, reason and message of the plan as a whole."""
    idle = all(state.final for state in states)
    if gate is not None and gate.hold:
        return _held(look, states, gate)
    if not states:
        return "Pending", "NoNodes", "no node is chosen, or another plan has them all"
    if idle and (look.wanted.version or look.asked.versions):
        bad = [state for state in states if failed(state)]
        if bad:
            return "Failed", "NodeFailed", named(bad)
        return "Complete", "Complete", "every node is as it should be"
    if any(state.active for state in states) or any(c.starts for c in look.decision.changes):
        return "Progressing", "Progressing", ""
    if gate is not None:
        waits = gate.reason in {"WindowClosed", "Exclusive"}
        return "Waiting" if waits else "Pending", gate.reason, gate.message
    soaking = [batch for batch in batches if batch.soaked(look.world.now) is not None]
    if soaking and soaking[0].canary is not None:
        until = soaking[0].soaked(look.world.now)
        return "Soaking", "Soaking", f"{soaking[0].canary.name} until {until:%Y-%m-%d %H:%M} UTC"
    if any(state.phase is Phase.PENDING for state in states):
        return "Pending", "Resolving", "looks for the bundle"
    waiting = next(state for state in states if state.phase is Phase.WAITING)
    return "Waiting", "NodesNotReady", f"{waiting.node.name} {waiting.message}"


def _held(look: Look, states: Sequence[State], gate: Gate) -> tuple[str, str, str]:
    if gate.reason == "Suspended":
        return "Suspended", gate.reason, gate.message
    if gate.reason != "RollingBack":
        return "Paused", gate.reason, gate.message
    left = any(state.active or _committed_here(look, state) for state in states)
    if left:
        return "RollingBack", gate.reason, gate.message
    return "Failed", "RolledBack", gate.message
