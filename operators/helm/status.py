"""
What a HelmChart's status says. Pure.

``JobCreated`` and ``Failed`` are helm-controller's, for what waits on them; no
Job object exists. ``Ready`` is ours: True once the release is as wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Condition = Mapping[str, Any]
OURS = ("JobCreated", "Failed", "Ready")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far a HelmChart is."""

    ready: str  # True, False
    failed: str
    reason: str  # one word
    message: str


def deployed(*, release: str, chart: str, revision: int) -> Outcome:
    what = f"chart {chart}, " if chart else ""
    message = f"release {release}: {what}revision {revision}"
    return Outcome(ready="True", failed="False", reason="Deployed", message=message)


def working(reason: str, message: str) -> Outcome:
    return Outcome(ready="False", failed="False", reason=reason, message=message)


def failure(reason: str, message: str) -> Outcome:
    return Outcome(ready="False", failed="True", reason=reason, message=message)


def conditions(
    seen: Sequence[Condition], outcome: Outcome, *, generation: int, now: str
) -> list[dict[str, Any]] | None:
    """
    The conditions to write; None where ``seen`` already say so. ``now``: RFC 3339.

    Conditions of others are kept.
    """
    failed = outcome.failed == "True"
    wanted = {
        "JobCreated": ("True", "WorkerStarted", "Helm runs in a worker of the node, not in a Job"),
        "Failed": (outcome.failed, outcome.reason, outcome.message if failed else ""),
        "Ready": (outcome.ready, outcome.reason, outcome.message),
    }
    old = {condition["type"]: condition for condition in seen}
    if all(_says(old.get(kind)) == said for kind, said in wanted.items()) and all(
        old[kind].get("observedGeneration") == generation for kind in OURS
    ):
        return None
    others = [dict(condition) for condition in seen if condition["type"] not in OURS]
    return others + [
        {
            "type": kind,
            "status": said[0],
            "reason": said[1],
            "message": said[2],
            "observedGeneration": generation,
            "lastTransitionTime": _since(old.get(kind), said[0], now),
        }
        for kind, said in wanted.items()
    ]


def _says(condition: Condition | None) -> tuple[str, str, str] | None:
    if condition is None:
        return None
    return condition["status"], condition.get("reason", ""), condition.get("message", "")


def _since(old: Condition | None, status: str, now: str) -> str:
    if old is not None and old["status"] == status:
        return str(old.get("lastTransitionTime") or now)
    return now
