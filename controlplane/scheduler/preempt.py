"""
Whom to send away so that a more important pod finds room: pure, over a snapshot.

A node is a candidate if the pod fits once everybody less important is gone; then
as many as possible are let off again, those protected by a budget first.
Source: the API concept "Pod Priority and Preemption".
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from controlplane.objects.selectors import Selector
from controlplane.scheduler.filters import Refusal
from controlplane.scheduler.snapshot import NodeInfo, PodInfo, Snapshot

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget: how many more of its pods may go."""

    namespace: str
    selector: Selector
    allowed: int


@dataclass(frozen=True, slots=True)
class Choice:
    node: str
    victims: tuple[PodInfo, ...]
    violations: int


Ask = Callable[[NodeInfo], Refusal | None]  # as if the node were like this


def find(
    pod: PodInfo,
    snapshot: Snapshot,
    refusals: Mapping[str, Refusal],
    ask: Ask,
    *,
    budgets: Sequence[Budget] = (),
) -> tuple[Choice | None, dict[str, Refusal]]:
    """The best node with its victims, or None and why each node is no candidate."""
    choices: list[Choice] = []
    why: dict[str, Refusal] = {}
    for node in snapshot.nodes:
        found = refusals.get(node.name)
        if found is None or not found.resolvable:
            why[node.name] = Refusal("Preemption", (NOT_HELPFUL,))
            continue
        outcome = _on_node(pod, node, ask, budgets)
        if isinstance(outcome, Choice):
            choices.append(outcome)
        else:
            why[node.name] = outcome
    return (_best(choices) if choices else None), why


def _on_node(pod: PodInfo, node: NodeInfo, ask: Ask, budgets: Sequence[Budget]) -> Choice | Refusal:
    lesser = [other for other in node.pods.values() if other.priority < pod.priority]
    if not lesser:
        return Refusal("Preemption", (NO_VICTIMS,))
    bare = node.without(other.uid for other in lesser)
    still = ask(bare)
    if still is not None:
        return still
    lesser.sort(key=lambda other: other.started)
    lesser.sort(key=lambda other: other.priority, reverse=True)
    protected, free = _by_protection(lesser, budgets)
    victims: list[PodInfo] = []
    violations = 0
    for other in [*protected, *free]:
        with_it = bare.with_pod(other)
        if ask(with_it) is None:
            bare = with_it
        else:
            victims.append(other)
            violations += other in protected
    return Choice(node.name, tuple(victims), violations)


def _by_protection(
    pods: Sequence[PodInfo], budgets: Sequence[Budget]
) -> tuple[list[PodInfo], list[PodInfo]]:
    """Pods whose going would break a budget, and the others."""
    left = [budget.allowed for budget in budgets]
    protected: list[PodInfo] = []
    free: list[PodInfo] = []
    for pod in pods:
        broken = False
        for index, budget in enumerate(budgets):
            if budget.namespace == pod.namespace and budget.selector.matches(pod.labels):
                left[index] -= 1
                broken = broken or left[index] < 0
        (protected if broken else free).append(pod)
    return protected, free


def _best(choices: Sequence[Choice]) -> Choice:
    """Least harm: budgets, then the highest priority lost, the sum, the number, the youngest."""

    def youngest(choice: Choice) -> str:
        top = max((v.priority for v in choice.victims), default=0)
        return min((v.started for v in choice.victims if v.priority == top), default="")

    def harm(choice: Choice) -> tuple[int, int, int, int]:
        priorities = [v.priority for v in choice.victims]
        lifted = sum(p + 2**31 for p in priorities)
        return choice.violations, max(priorities, default=-(2**31)), lifted, len(priorities)

    ordered = sorted(choices, key=youngest, reverse=True)
    return min(ordered, key=harm)
