"""
What a HelmChart's status says. Pure.

``JobCreated`` and ``Failed`` are helm-controller's, for what waits on them; no
Job object exists. ``Ready`` is ours: True once the release is as wanted; ``Drifted`` and
``Suspended`` are there only where somebody asked for that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operators.helm.base import Release, Target
from operators.helm.plan import Revision

Condition = Mapping[str, Any]
Said = tuple[str, str, str]  # status, reason, message

LONGEST_MESSAGE = 1500  # characters
HISTORY = 5  # revisions
_CREATED = ("True", "Job created", "Helm runs in a worker of the node; there is no Job object")
SUSPENDED = ("True", "Suspended", "spec.suspend is set: nothing is done but a deletion")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How far a HelmChart is."""

    ready: str  # True, False
    failed: str
    reason: str  # one word
    message: str
    created: Said = _CREATED


def deployed(release: Release) -> Outcome:
    parts = [release.chart and f"chart {release.chart}"]
    parts += [release.app_version and f"app version {release.app_version}"]
    what = "".join(f"{part}, " for part in parts if part)
    message = f"release {release.name}: {what}revision {release.revision}"
    return Outcome(ready="True", failed="False", reason="Deployed", message=message)


def working(reason: str, message: str) -> Outcome:
    return Outcome(ready="False", failed="False", reason=reason, message=message)


def failure(reason: str, message: str) -> Outcome:
    return Outcome(ready="False", failed="True", reason=reason, message=message)


def refused(reason: str, message: str) -> Outcome:
    """What was asked for cannot be done, so nothing was begun."""
    return Outcome(
        ready="False",
        failed="True",
        # The one reason that helm-controller has, in its words.
        reason="Unsupported version" if reason == "UnsupportedVersion" else reason,
        message=message,
        created=("False", reason, ""),
    )


def said(outcome: Outcome) -> dict[str, Said | None]:
    message = outcome.message[:LONGEST_MESSAGE]
    failed = outcome.failed == "True"
    return {
        "JobCreated": outcome.created,
        "Failed": (outcome.failed, outcome.reason, message if failed else ""),
        "Ready": (outcome.ready, outcome.reason, message),
    }


def conditions(
    seen: Sequence[Condition], wanted: Mapping[str, Said | None], *, generation: int, now: str
) -> list[dict[str, Any]]:
    """
    ``seen`` with what is wanted: None takes a condition away. ``now``: RFC 3339.

    Equal to ``seen`` where these already say so. Conditions of others are kept.
    """
    old = {condition["type"]: condition for condition in seen}
    made = {kind: dict(condition) for kind, condition in old.items()}
    for kind, words in wanted.items():
        made.pop(kind, None)
        if words is not None:
            made[kind] = {
                "type": kind,
                "status": words[0],
                "reason": words[1],
                "message": words[2],
                "observedGeneration": generation,
                "lastTransitionTime": _since(old.get(kind), words[0], now),
            }
    same_order = [made.pop(kind) for kind in old if kind in made]
    return [*same_order, *made.values()]


def condition(status: Mapping[str, Any], kind: str) -> Condition:
    found = status.get("conditions") or ()
    return next((condition for condition in found if condition.get("type") == kind), {})


def is_ready(chart: Mapping[str, Any]) -> bool:
    """As it is wanted now, not as it was wanted before its last change."""
    ready, metadata = condition(chart.get("status") or {}, "Ready"), chart["metadata"]
    return (
        ready.get("status") == "True"
        and ready.get("observedGeneration") == metadata.get("generation", 0)
        and "deletionTimestamp" not in metadata
    )


def release(found: Release, target: Target) -> dict[str, Any]:
    return {
        "name": found.name,
        "namespace": found.namespace,
        "driver": target.driver,
        "revision": found.revision,
        "status": found.status,
        "chart": found.chart,
        "appVersion": found.app_version,
    }


def release_of(status: Mapping[str, Any]) -> Release | None:
    """What was last told of the release."""
    known = status.get("release")
    if not isinstance(known, Mapping):
        return None
    return Release(
        name=str(known.get("name") or ""),
        namespace=str(known.get("namespace") or ""),
        revision=int(known.get("revision") or 0),
        status=str(known.get("status") or ""),
        chart=str(known.get("chart") or ""),
        app_version=str(known.get("appVersion") or ""),
    )


def history(
    revisions: Sequence[Revision], old: Sequence[Mapping[str, Any]], newest: Release | None
) -> list[dict[str, Any]]:
    """
    The last few revisions; the chart of each is known from when it was the newest.

    ``newest`` may have come after ``revisions`` were read.
    """
    charts = {entry.get("revision"): str(entry.get("chart") or "") for entry in old}
    status = {found.version: found.status for found in revisions}
    if newest:
        if newest.revision not in status:
            status = {n: "superseded" if s == "deployed" else s for n, s in status.items()}
        status[newest.revision], charts[newest.revision] = newest.status, newest.chart
    return [
        {"revision": number, "status": status[number], "chart": charts.get(number, "")}
        for number in sorted(status)[-HISTORY:]
    ]


def changes(old: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to write, as a merge patch has them; empty where nothing changed."""
    return {field: value for field, value in wanted.items() if old.get(field) != value}


def _since(old: Condition | None, status: str, now: str) -> str:
    if old is not None and old["status"] == status:
        return str(old.get("lastTransitionTime") or now)
    return now
