"""
Whom to send away so that a critical pod fits that was put on this node (pure).

Of BestEffort pods first, then Burstable, then Guaranteed ones as few as will do, and of those
the ones whose requests come nearest to what is missing. The scheduler has its own way;
this is for pods that did not come from it. Source: kubelet's admission of critical pods.
"""

from collections.abc import Iterable, Mapping, Sequence

from controlplane.client.base import Object
from node.kubelet import admit, resources
from node.kubelet.evict import is_critical

REASON = "Preempting"
MESSAGE = "Preempted in order to admit critical pod"
DISRUPTION = "Pod was preempted by Kubelet to accommodate a critical pod."


def victims(
    pod: Object, others: Iterable[Object], missing: Mapping[str, int]
) -> Sequence[Object] | None:
    """None: nobody's going would make enough room. ``missing``: as :func:`admit.missing` has it."""
    classes: dict[str, list[Object]] = {"BestEffort": [], "Burstable": [], "Guaranteed": []}
    for other in others:
        if _may_displace(pod, other):
            classes[resources.qos_class(other)].append(other)
    modest, middling, guaranteed = classes.values()
    if _without(missing, [*modest, *middling, *guaranteed]):
        return None
    last = _nearest(guaranteed, _without(missing, [*modest, *middling]))
    middle = _nearest(middling, _without(missing, [*modest, *last]))
    first = _nearest(modest, _without(missing, [*middle, *last]))
    return [*first, *middle, *last]


def _may_displace(pod: Object, other: Object) -> bool:
    if is_critical(pod) and not is_critical(other):
        return True
    return bool(pod["spec"].get("priority", 0) > other["spec"].get("priority", 0))


def _frees(pod: Object) -> dict[str, int]:
    return {**admit.requests(pod), "pods": 1}


def _without(missing: Mapping[str, int], gone: Iterable[Object]) -> dict[str, int]:
    """What is still missing then."""
    left = dict(missing)
    for pod in gone:
        for name, amount in _frees(pod).items():
            if name in left:
                left[name] -= amount
    return {name: amount for name, amount in left.items() if amount > 0}


def _nearest(pods: Iterable[Object], missing: dict[str, int]) -> list[Object]:
    left, chosen = list(pods), []
    while missing and left:
        still = missing

        def rank(pod: Object, still: Mapping[str, int] = still) -> tuple[float, int, int]:
            asked = admit.requests(pod)
            return _distance(pod, still), asked.get("memory", 0), asked.get("cpu", 0)

        best = min(left, key=rank)
        left.remove(best)
        chosen.append(best)
        missing = _without(missing, [best])
    return chosen


def _distance(pod: Object, missing: Mapping[str, int]) -> float:
    """0: all that is missing; for each resource at most 1."""
    frees = _frees(pod)
    shares = (max(0, amount - frees.get(n, 0)) / amount for n, amount in missing.items())
    return sum(share * share for share in shares)
