"""
Rolling updates of a DaemonSet: which old pods go, on which nodes new ones come beside them.

Source: the task "Perform a Rolling Update on a DaemonSet"; KEP-1591 (maxSurge).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane.client.base import Object
from controlplane.controllers.daemonset.nodes import NO_FIT
from controlplane.controllers.daemonset.view import View
from controlplane.objects.meta import is_deleting


@dataclass(slots=True)
class Steps:
    """Nodes that get a pod, pods that go."""

    create: list[str] = field(default_factory=list)
    delete: list[Object] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.create or self.delete)


@dataclass(frozen=True, slots=True)
class _Pair:
    new: Object | None
    old: Object | None


def roll(view: View) -> Steps:
    return _surge(view) if view.surge else _replace(view)


def _pair(view: View, found: Sequence[Object]) -> _Pair | None:
    """None: more than one of a kind, which the pass before an update puts right."""
    staying = [pod for pod in found if not is_deleting(pod)]
    new = [pod for pod in staying if view.is_updated(pod)]
    old = [pod for pod in staying if not view.is_updated(pod)]
    if len(new) > 1 or len(old) > 1:
        return None
    return _Pair(new[0] if new else None, old[0] if old else None)


def _replace(view: View) -> Steps:
    """Old pods go, as many as may be missing; those that do not work go in any case."""
    steps, candidates, missing = Steps(), list[Object](), 0
    empty = [node for node, found in view.fits.items() if found.start and node not in view.pods]
    missing += len(empty)
    for found in view.pods.values():
        pair = _pair(view, found)
        if pair is None or (pair.new is None) == (pair.old is None):
            missing += 1
        elif pair.new is not None:
            missing += not view.is_available(pair.new)
        elif pair.old is not None and not view.is_available(pair.old):
            steps.delete.append(pair.old)
            missing += 1
        elif pair.old is not None:
            candidates.append(pair.old)
    steps.delete += candidates[: max(view.unavailable - missing, 0)]
    return steps


def _surge(view: View) -> Steps:
    """New pods come beside the old ones, which go once the new are available."""
    steps, candidates, misplaced = Steps(), list[str](), list[Object]()
    surging = available = 0
    for node, found in view.pods.items():
        pair = _pair(view, found)
        if pair is None:
            surging += 1
            continue
        first = pair.old if pair.old is not None else pair.new
        works = first is not None and view.is_available(first)
        available += works
        if pair.old is None:
            continue
        if pair.new is not None:
            if view.is_available(pair.new):
                steps.delete.append(pair.old)
            else:
                surging += 1
        elif not view.fits.get(node, NO_FIT).start:
            (misplaced if works else steps.delete).append(pair.old)
        else:
            (candidates if works else steps.create).append(node)
    # A pod on a node that no longer fits goes only when another one elsewhere works.
    steps.delete += misplaced[: max(available - view.desired, 0)]
    steps.create += candidates[: max(view.surge - surging, 0)]
    return steps
