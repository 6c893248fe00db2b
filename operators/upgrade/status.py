"""
The status of a plan: what people read, and the little that is remembered there. Pure.

Remembered are since when the canaries soak, when the channel was looked at and its serial, and
the versions of the past; all else is told anew from the nodes each time. Its size is bounded:
a plan for many nodes tells less of each.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from operators.upgrade.nodes import FAILURES, IDLE, Phase, State
from operators.upgrade.objects import moment, stamp
from operators.upgrade.order import Batch
from operators.upgrade.spec import Object, Plan

DETAILED = 250  # nodes of which every time is told
LISTED = 1000  # nodes that are told of at all; the counts are of all
HISTORY = 10
WORDS = 256  # of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    phase: str
    reason: str
    message: str
    versions: Mapping[str, str]  # by board
    offers: Mapping[str, str] = field(default_factory=dict)  # the same, where they were asked for
    batches: Sequence[Batch] = ()
    unresolved: tuple[str, str] | None = None  # reason and message: no offer
    asked_at: datetime | None = None  # when the channel answered last
    serial: int = 0


class _Told(NamedTuple):
    """What a condition says."""

    type: str
    holds: bool
    reason: str
    message: str


class _Tally:
    """How many nodes are where."""

    def __init__(self, states: Sequence[State]) -> None:
        self._states = states
        self._phases = Counter(state.shown for state in states)

    def of(self, *phases: Phase) -> int:
        return sum(self._phases[phase] for phase in phases)

    def failures(self) -> str:
        failed = [s for s in self._states if s.shown in FAILURES or s.phase is Phase.LOST]
        if not failed:
            return ""
        return f"{len(failed)} nodes failed, as {failed[0].node.name}: {failed[0].message}"

    def taken(self) -> str:
        """Of nodes that another plan has."""
        taken = [s for s in self._states if s.phase is Phase.SKIPPED and "UpgradePlan" in s.message]
        return f"{len(taken)} nodes: {taken[0].message}" if taken else ""

    def numbers(self) -> dict[str, int]:
        total, updated = len(self._states), self.of(Phase.UPDATED)
        pending, skipped = self.of(*IDLE), self.of(Phase.SKIPPED)
        failed = self.of(*FAILURES, Phase.LOST)
        return {
            "total": total,
            "updated": updated,
            "updating": total - updated - pending - failed - skipped,
            "pending": pending,
            "notReady": self.of(Phase.WAITING),
            "failed": failed,
            "skipped": skipped,
        }


def document(
    plan: Plan, summary: Summary, states: Sequence[State], *, now: datetime
) -> dict[str, Any]:
    """The whole status, with a null for what it had and has no more."""
    tally = _Tally(states)
    numbers = tally.numbers()
    found: dict[str, Any] = {
        "observedGeneration": plan.generation,
        "phase": summary.phase,
        "message": summary.message[:WORDS],
        "version": _version(summary.versions),
        "counts": numbers,
        "progress": f"{numbers['updated']}/{numbers['total'] - numbers['skipped']}",
        "nodes": _nodes(plan, states),
        "canaries": _canaries(summary.batches),
        "conditions": _conditions(plan, summary, tally, now),
        "history": _history(plan, summary, now),
        **_found(plan, summary),
    }
    if len(states) > LISTED:
        found["nodesOmitted"] = len(states) - LISTED
    gone = plan.status.keys() - found.keys()
    return {**dict.fromkeys(sorted(gone)), **found}


def invalid(plan: Plan, now: datetime) -> dict[str, Any]:
    """Of a plan that cannot be understood; what was told of its nodes stays."""
    summary = Summary(phase="Failed", reason="Invalid", message=plan.problem, versions={})
    conditions = _conditions(plan, summary, _Tally(()), now)
    return {
        "observedGeneration": plan.generation,
        "phase": "Failed",
        "message": plan.problem[:WORDS],
        "conditions": conditions,
    }


def canaries(plan: Plan, now_wanted: Mapping[str, str]) -> Sequence[Object]:
    """What is remembered of the groups; nothing where it was of another version."""
    if plan.status.get("version") != _version(now_wanted):
        return ()
    found: Sequence[Object] = plan.status.get("canaries") or ()
    return found


def versions(plan: Plan) -> Mapping[str, str]:
    """By board, what the channel or the source offered an operator before us."""
    return {entry.get("board", ""): entry["version"] for entry in _resolved(plan).get("offers", ())}


def checked(plan: Plan) -> datetime | None:
    """When the channel was looked at last."""
    return moment(str(_resolved(plan).get("checkedAt") or ""))


def serial(plan: Plan) -> int:
    """The largest that the channel of this plan ever had."""
    return int(plan.status.get("channelSerial") or 0) if _resolved(plan) else 0


def _resolved(plan: Plan) -> Object:
    """What is remembered of the channel or the source; nothing, where it was another one."""
    found: Object = plan.status.get("resolved") or {}
    return found if found.get("from") == _origin(plan) else {}


def _origin(plan: Plan) -> str:
    return str((plan.wanted and (plan.wanted.channel or plan.wanted.version)) or "")


def begins(plan: Plan) -> bool:
    """It is at work, or would be if others were not."""
    if plan.status.get("phase") in {"Progressing", "Soaking"}:
        return True
    conditions = plan.status.get("conditions") or ()
    return any(c["type"] == "Progressing" and c.get("reason") == "Exclusive" for c in conditions)


def urgent(before: Object, after: Object) -> bool:
    """Whether it should be written at once: more than numbers changed."""
    told = ("phase", "version", "observedGeneration", "canaries", "conditions", "history")
    return any(_timeless(before.get(name)) != _timeless(after.get(name)) for name in told)


def _timeless(found: Any) -> Any:
    """Conditions without messages, which tell numbers."""
    if not isinstance(found, list):
        return found
    return [{k: v for k, v in entry.items() if k != "message"} for entry in found]


def _version(found: Mapping[str, str]) -> str:
    return ", ".join(sorted(set(found.values())))


def _nodes(plan: Plan, states: Sequence[State]) -> list[dict[str, Any]]:
    listed = sorted(states, key=lambda state: state.node.name)
    if len(listed) > LISTED:
        # Of what is as it should be, or has yet to begin, little is to be told.
        quiet = {Phase.UPDATED, Phase.PENDING, Phase.SKIPPED}
        kept = sorted(listed, key=lambda state: state.phase in quiet)[:LISTED]
        listed = sorted(kept, key=lambda state: state.node.name)
    return [_node(plan, state, detailed=len(states) <= DETAILED) for state in listed]


def _node(plan: Plan, state: State, *, detailed: bool) -> dict[str, Any]:
    progress = state.node.progress
    found: dict[str, Any] = {"name": state.node.name, "phase": str(state.shown)}
    if state.message:
        found["message"] = state.message[:WORDS]
    if progress is None or progress.uid != plan.uid:
        return found
    found |= {"from": progress.source, "to": progress.version}
    marks = {
        "Started": progress.started,
        "Draining": progress.drain if detailed else "",
        "Switching": progress.switch if detailed else "",
        "RollingBack": progress.back if detailed else "",
        "Ended": progress.end,
    }
    answer = state.node.answer
    told = answer.times if answer is not None and detailed else {}
    found["times"] = {name: at for name, at in {**told, **marks}.items() if at}
    return {name: value for name, value in found.items() if value}


def _canaries(batches: Sequence[Batch]) -> list[dict[str, Any]]:
    found = []
    for batch in batches:
        if batch.canary is None or not batch.states:
            continue
        entry: dict[str, Any] = {
            "stage": batch.stage,
            "name": batch.canary.name,
            "total": len(batch.states),
            "updated": sum(state.phase is Phase.UPDATED for state in batch.states),
        }
        if batch.canary.chosen is None:
            entry["nodes"] = [state.node.name for state in batch.states]
        if batch.completed is not None:
            entry["completedAt"] = stamp(batch.completed)
        found.append(entry)
    return found


def _found(plan: Plan, summary: Summary) -> dict[str, Any]:
    """What is remembered of the channel or the source."""
    last, at, offers = _resolved(plan), summary.asked_at, summary.offers or versions(plan)
    # A merge patch: what is None here is taken away there.
    found: dict[str, Any] = {
        "from": _origin(plan),
        "checkedAt": stamp(at) if at else last.get("checkedAt"),
        "message": summary.unresolved[1][:WORDS] if summary.unresolved else None,
        "offers": [{"board": board, "version": offers[board]} for board in sorted(offers)] or None,
    }
    largest = max(summary.serial, serial(plan))
    return {"resolved": found, "channelSerial": largest or None}


def _history(plan: Plan, summary: Summary, now: datetime) -> list[dict[str, Any]]:
    """The newest first; one that has no end is under way."""
    entries = [dict(entry) for entry in plan.status.get("history") or ()]
    version, at = _version(summary.versions), stamp(now)
    if not version:
        return entries
    current = entries[0] if entries else None
    if current and current.get("version") != version and not current.get("completedAt"):
        current |= {"completedAt": at, "outcome": "Superseded"}
    outcome = {"Complete": "Complete", "Failed": "Failed"}.get(summary.phase, "")
    if summary.reason == "RolledBack":
        outcome = "RolledBack"
    same = current is not None and current.get("version") == version
    again = same and current is not None and current.get("outcome") in {"Failed", "RolledBack"}
    if not same or (again and summary.phase == "Progressing"):
        if summary.phase in {"Pending", "Waiting", "Suspended"}:
            return entries[:HISTORY]  # it has not begun
        entries.insert(0, {"version": version, "startedAt": at})
    if outcome and not entries[0].get("completedAt"):
        entries[0] |= {"completedAt": at, "outcome": outcome}
    return entries[:HISTORY]


def _conditions(plan: Plan, summary: Summary, tally: _Tally, now: datetime) -> list[dict[str, Any]]:
    message, reason = summary.message[:WORDS], summary.reason
    valid = reason != "Invalid"
    working = summary.phase in {"Progressing", "Soaking", "RollingBack"}
    failed = tally.of(*FAILURES, Phase.LOST)
    wrong = "NodeFailed" if failed else reason
    resolved = valid and summary.unresolved is None and bool(summary.versions)
    unresolved = summary.unresolved or (reason, message)
    taken = tally.taken()
    told = [
        _Told("Ready", summary.phase == "Complete", reason, message),
        _Told("Complete", summary.phase == "Complete", reason, message),
        _Told("Progressing", working, reason, message),
        _Told("Degraded", failed > 0 or not valid, wrong, tally.failures()),
        _Told("Resolved", resolved, *(("Resolved", "") if resolved else unresolved)),
        _Told("Overlapping", bool(taken), "NodesTaken" if taken else "NodesFree", taken),
    ]
    return [_condition(plan, each, now) for each in told]


def _condition(plan: Plan, told: _Told, now: datetime) -> dict[str, Any]:
    conditions = plan.status.get("conditions") or ()
    before: Object = next((c for c in conditions if c["type"] == told.type), {})
    value = "True" if told.holds else "False"
    since = before.get("lastTransitionTime") if before.get("status") == value else None
    return {
        "type": told.type,
        "status": value,
        "reason": told.reason or "Unknown",
        "message": told.message[:WORDS],
        "lastTransitionTime": since or stamp(now),
        "observedGeneration": plan.generation,
    }
