"""
What stands against beginning with a node. Pure.

What has been switched goes on whatever stands here. A gate that holds also stops what has
only been installed or is being drained; others let that go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from operators.upgrade import status
from operators.upgrade.nodes import FAILURES, Phase, State
from operators.upgrade.world import Look


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Why nothing may begin now."""

    reason: str
    message: str
    wake: datetime | None = None
    hold: bool = False  # and what has not been switched stops


def gate_of(look: Look, states: Sequence[State]) -> Gate | None:
    wanted = look.wanted
    if wanted.suspend:
        return Gate(reason="Suspended", message="spec.suspend is set", hold=True)
    mine = look.owns_all(states)
    lost = [state for state in mine if state.phase is Phase.LOST]
    if lost:
        return Gate(reason="NodeLost", message=named(lost), hold=True)
    bad = [state for state in mine if failed(state)]
    if bad and wanted.policy == "RollbackAll":
        return Gate(reason="RollingBack", message=named(bad), hold=True)
    if bad and wanted.policy != "Continue":
        return Gate(reason="NodeFailed", message=named(bad), hold=True)
    if look.found is not None and look.found.offers is None:
        return Gate(reason=look.found.reason, message=look.found.message)
    return _exclusive(look) or _window(look)


def failed(state: State) -> bool:
    """Also one whose end is only about to be written."""
    return state.phase in FAILURES or state.outcome in FAILURES


def named(states: Sequence[State]) -> str:
    first = states[0]
    more = f" (and {len(states) - 1} more)" if len(states) > 1 else ""
    word = first.outcome or first.phase
    return f"{first.node.name} {word}: {first.message}{more}"


def _exclusive(look: Look) -> Gate | None:
    working = {
        node.progress.uid
        for node in look.world.nodes
        if node.progress is not None and node.progress.active
    }
    for other in look.world.plans:
        if other.uid == look.plan.uid or other.wanted is None:
            continue
        if not (look.wanted.exclusive or other.wanted.exclusive):
            continue
        first = other.age < look.plan.age and other.wanted.exclusive and status.begins(other)
        if other.uid in working or first:
            return Gate(reason="Exclusive", message=f"UpgradePlan {other.name} is at work")
    return None


def _window(look: Look) -> Gate | None:
    now, windows = look.world.now, look.wanted.windows
    if not windows or any(window.open(now) for window in windows):
        return None
    opens = min(window.next_opening(now) for window in windows)
    return Gate(reason="WindowClosed", message=f"until {opens:%Y-%m-%d %H:%M} UTC", wake=opens)
