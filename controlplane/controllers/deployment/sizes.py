"""
How many replicas each ReplicaSet should have: numbers in, numbers out.

Source: the Deployment API documentation ("Rolling Update Deployment",
"Proportional scaling"); upstream's deployment/util.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.client.base import Object
from controlplane.controllers.deployment.revisions import desired_of, maximum_of, replicas_of
from controlplane.reconcile.amounts import scaled


@dataclass(frozen=True, slots=True)
class Limits:
    """What a rolling update may do, in pods."""

    desired: int
    surge: int
    unavailable: int

    @property
    def maximum(self) -> int:
        """0 for a Deployment scaled to zero: no surge then."""
        return self.desired + self.surge if self.desired else 0


def is_rolling(deployment: Object) -> bool:
    strategy = deployment["spec"].get("strategy") or {}
    return bool(strategy.get("type", "RollingUpdate") == "RollingUpdate")


def limits(deployment: Object) -> Limits:
    desired = replicas_of(deployment)
    if not is_rolling(deployment):
        return Limits(desired, 0, 0)
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    surge = scaled(rolling.get("maxSurge", "25%"), desired, up=True)
    unavailable = scaled(rolling.get("maxUnavailable", "25%"), desired, up=False)
    if surge == 0 and unavailable == 0:
        # Both may round to zero; without one of them no update would ever proceed.
        unavailable = 1
    return Limits(desired, surge, min(unavailable, desired))


def total_replicas(sets: Sequence[Object]) -> int:
    return sum(replicas_of(item) for item in sets)


def available(item: Object) -> int:
    return int((item.get("status") or {}).get("availableReplicas", 0))


def size_of_new(deployment: Object, sets: Sequence[Object], new: Object | None) -> int:
    """How far the new set may grow now, the old ones given."""
    limit = limits(deployment)
    if not is_rolling(deployment):
        return limit.desired
    own = replicas_of(new) if new is not None else 0
    current = total_replicas(sets)
    allowed = limit.desired + limit.surge
    if current >= allowed:
        return own
    return own + min(allowed - current, limit.desired - own)


def shrink_old(
    old: Sequence[Object], new: Object, everything: Sequence[Object], limit: Limits
) -> dict[str, int]:
    """New sizes of old sets, by name: unhealthy pods go first, then as many as may be missing."""
    minimum = limit.desired - limit.unavailable
    new_missing = replicas_of(new) - available(new)
    room = total_replicas(everything) - minimum - new_missing
    if room <= 0 or not total_replicas(old):
        return {}
    sizes = {item["metadata"]["name"]: replicas_of(item) for item in old}
    _drop_unhealthy(old, sizes, room)
    spare = sum(available(item) for item in everything) - minimum
    for item in old:
        if spare <= 0:
            break
        name = item["metadata"]["name"]
        step = min(sizes[name], spare)
        sizes[name] -= step
        spare -= step
    return {
        item["metadata"]["name"]: sizes[item["metadata"]["name"]]
        for item in old
        if sizes[item["metadata"]["name"]] != replicas_of(item)
    }


def _drop_unhealthy(old: Sequence[Object], sizes: dict[str, int], room: int) -> None:
    for item in old:
        name = item["metadata"]["name"]
        step = min(room, sizes[name] - available(item))
        if step > 0:
            sizes[name] -= step
            room -= step


def spread(deployment: Object, active: Sequence[Object]) -> dict[str, int]:
    """
    Proportional scaling: the change in size is shared by all active sets.

    Used when a Deployment is scaled in the middle of an update.
    """
    limit = limits(deployment)
    change = limit.maximum - total_replicas(active)
    if change == 0:
        return {item["metadata"]["name"]: replicas_of(item) for item in active}
    # Largest first; of equals the newest grows first and the oldest shrinks first.
    ordered = sorted(active, key=lambda s: s["metadata"].get("creationTimestamp") or "")
    if change > 0:
        ordered.reverse()
    ordered.sort(key=replicas_of, reverse=True)
    sizes: dict[str, int] = {}
    added = 0
    for item in ordered:
        wanted = _fraction(item, deployment, limit)
        share = _share(replicas_of(item), wanted, change, added)
        sizes[item["metadata"]["name"]] = replicas_of(item) + share
        added += share
    first = ordered[0]["metadata"]["name"]
    sizes[first] = max(sizes[first] + change - added, 0)
    return sizes


def _share(own: int, wanted: int, change: int, added: int) -> int:
    if own == 0 or change == added:
        return 0
    allowed = change - added
    return min(wanted, allowed) if change > 0 else max(wanted, allowed)


def _fraction(item: Object, deployment: Object, limit: Limits) -> int:
    own = replicas_of(item)
    if limit.desired == 0:
        return -own
    before = maximum_of(item) or (deployment.get("status") or {}).get("replicas") or 0
    if not before:
        return 0
    return math.floor(own * limit.maximum / before + 0.5) - own


def is_saturated(deployment: Object, new: Object | None) -> bool:
    """Whether the new set is all that is needed, and was made for this size."""
    if new is None:
        return False
    desired = replicas_of(deployment)
    return replicas_of(new) == desired == available(new) and desired_of(new) == desired
