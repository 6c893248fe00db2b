"""
What a look at a plan knows and what it leads to. Pure values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from operators.upgrade.base import Drained, Offer, Verdict
from operators.upgrade.nodes import Asked, State
from operators.upgrade.objects import Node
from operators.upgrade.patches import Change
from operators.upgrade.spec import Plan, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    verdict: Verdict
    at: datetime
    since: datetime | None  # since when the checks pass without a break; None: they do not


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What the channel or the source said last; ``offers`` None: nothing yet."""

    offers: Mapping[str, Offer] | None
    boards: frozenset[str]  # that were asked for
    at: datetime  # of the last answer, or of the last try
    reason: str = ""  # why the last try gave none
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    plans: Sequence[Plan]
    nodes: Sequence[Node]
    now: datetime
    found: Mapping[tuple[str, int], Found] = field(default_factory=dict)  # by uid and generation
    drained: Mapping[str, Drained] = field(default_factory=dict)  # by node
    jobs: Mapping[str, Drained] = field(default_factory=dict)
    judged: Mapping[str, Judged] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class Decision:
    changes: list[Change] = field(default_factory=list)
    drains: dict[str, datetime] = field(default_factory=dict)  # nodes to drain on, since when
    jobs: dict[str, str] = field(default_factory=dict)  # nodes whose Job is to be seen to
    judge: list[str] = field(default_factory=list)  # nodes to check
    ask: frozenset[str] | None = None  # boards for which the channel is asked
    status: dict[str, Any] = field(default_factory=dict)
    wake: datetime | None = None

    def wake_at(self, moment_: datetime | None) -> None:
        if moment_ is not None:
            self.wake = moment_ if self.wake is None else min(self.wake, moment_)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One look at one plan."""

    plan: Plan
    wanted: Wanted
    world: World
    asked: Asked
    found: Found | None
    owned: Mapping[str, Plan]
    decision: Decision

    def owns(self, node: Node) -> bool:
        return self.owned.get(node.name) is self.plan

    def owns_all(self, states: Sequence[State]) -> list[State]:
        return [state for state in states if self.owns(state.node)]

    def alone(self, node: Node) -> bool:
        """No other node could take its pods."""
        return not any(
            other.ready and not other.unschedulable and not other.leaving
            for other in self.world.nodes
            if other.name != node.name
        )
