"""
Who comes before whom: plans, stages, and the groups within a stage. Pure.

A batch is one group of one stage. Stages come one after the other (servers before agents, where
nothing else is said), and within each the canaries come before the rest, so that no agent is ever
newer than a server of its cluster, not even a canary. A batch begins when the one before it
is complete and, of canaries, has soaked.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from operators.upgrade.nodes import Phase, State
from operators.upgrade.objects import Node, moment
from operators.upgrade.spec import Canary, Object, Plan, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    stage: int
    canary: Canary | None  # None: the rest of the stage
    states: Sequence[State]
    completed: datetime | None = None  # of canaries: since when it soaks

    @property
    def final(self) -> bool:
        return all(state.final for state in self.states)

    @property
    def touched(self) -> bool:
        """Some node was upgraded, not only found as it should be."""
        return any(state.node.progress is not None for state in self.states)

    @property
    def key(self) -> tuple[int, str]:
        return (self.stage, self.canary.name if self.canary else "")

    def soaked(self, now: datetime) -> datetime | None:
        """Until when it soaks; None: not, or not any longer."""
        if self.canary is None or self.completed is None or not self.touched:
            return None
        until = min(self.completed, now) + timedelta(seconds=self.canary.soak)
        return until if until > now else None


def owners(nodes: Iterable[Node], plans: Sequence[Plan]) -> Mapping[str, Plan]:
    """By the node's name: of the plans that choose it, the oldest one."""
    inorder = sorted((plan for plan in plans if plan.wanted is not None), key=lambda p: p.age)
    found: dict[str, Plan] = {}
    for node in nodes:
        for plan in inorder:
            if plan.wanted is not None and plan.wanted.chosen.matches(node.labels):
                found[node.name] = plan
                break
    return found


def batches(states: Iterable[State], wanted: Wanted, recorded: Sequence[Object]) -> list[Batch]:
    """
    ``recorded``: ``status.canaries`` of this version: who was in a group, and when it was done.
    """
    staged: dict[int, list[State]] = {}
    for state in sorted(states, key=lambda state: state.node.name):
        staged.setdefault(stage_of(state.node, wanted), []).append(state)
    found = []
    for stage in sorted(staged):
        left = staged[stage]
        for canary in wanted.canaries:
            entry = _entry(recorded, stage, canary)
            group = _group(left, len(staged[stage]), canary, entry)
            names = {state.node.name for state in group}
            left = [state for state in left if state.node.name not in names]
            done = moment(str((entry or {}).get("completedAt") or ""))
            found.append(Batch(stage=stage, canary=canary, states=group, completed=done))
        found.append(Batch(stage=stage, canary=None, states=left))
    return found


def stage_of(node: Node, wanted: Wanted) -> int:
    if wanted.stages:
        chosen = (n for n, stage in enumerate(wanted.stages) if stage.matches(node.labels))
        return next(chosen, len(wanted.stages))
    return 0 if node.server else 1


def _entry(recorded: Sequence[Object], stage: int, canary: Canary) -> Object | None:
    key = (stage, canary.name)
    return next((e for e in recorded if (e.get("stage"), e.get("name")) == key), None)


def _group(
    left: Sequence[State], total: int, canary: Canary, entry: Object | None
) -> Sequence[State]:
    if canary.chosen is not None:
        return [state for state in left if canary.chosen.matches(state.node.labels)]
    size = canary.count or max(1, total * canary.percent // 100) if total else 0
    named: Collection[str] = set((entry or {}).get("nodes") or ())
    # Who was in it stays in it; then who was touched, so that it need not be remembered.
    ranked = sorted(left, key=lambda state: _rank(state, named))
    return ranked[:size]


def _rank(state: State, named: Collection[str]) -> tuple[bool, bool, int, str]:
    node = state.node
    away = state.phase in {Phase.SKIPPED, Phase.WAITING}
    # One that had the version before tells nothing of it.
    worth = 1 if state.phase is Phase.PENDING else 0 if node.progress is not None else 2
    return (node.name not in named, away, worth, node.name)
