"""
What is written to a Node, one patch for each step. Pure.

A step and the note of it are one write. Every patch names the version of the Node that it was
decided from, so that whoever decided from an older one is refused and looks again.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from operators.upgrade.base import REPORT, REQUEST, Offer, Verdict
from operators.upgrade.nodes import CANCELLED, Phase, State
from operators.upgrade.objects import PROGRESS, Node, Progress, stamp
from operators.upgrade.spec import Plan, Wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """An Event about the node; ``of_plan``: and one about the plan."""

    reason: str
    message: str
    warning: bool = False
    of_plan: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    node: Node
    patch: Mapping[str, Any]
    news: tuple[News, ...] = ()
    job: str = ""  # its Job is removed "before" or "after" this is written; "": not
    starts: bool = False  # takes a place that was free
    disturbs: bool = False  # from here on pods notice


def start(node: Node, plan: Plan, version: str, now: datetime) -> Progress:
    """The note of a node whose turn has come."""
    last = node.progress
    again = last is not None and (last.uid, last.version) == (plan.uid, version)
    return Progress(
        plan=plan.name,
        uid=plan.uid,
        generation=plan.generation,
        version=version,
        attempt=last.attempt + 1 if last is not None and again else 1,
        source=node.version,
        job=not node.board,
        started=stamp(now),
    )


def install(node: Node, progress: Progress, offer: Offer, wanted: Wanted) -> Change:
    request = {
        **_identity(progress),
        "url": offer.url,
        "sha256": offer.sha256,
        "size": offer.size,
        "stage": "install",
        "soakSeconds": wanted.soak,
        "deadlineSeconds": wanted.deadline,
        "checks": bool(wanted.checks),
        "verdict": "",
        "verdictMessage": "",
        "retryFailed": wanted.retry_failed,
        "rollback": False,
    }
    patch = _patch(node, progress, {REQUEST: _json(request)})
    return Change(node=node, patch=patch, news=(started(progress),), starts=True)


def started(progress: Progress) -> News:
    way = f"{progress.source or 'unknown'} -> {progress.version}"
    return News(reason="UpgradeStarted", message=f"UpgradePlan {progress.plan}: {way}")


def disturb(
    node: Node, progress: Progress, wanted: Wanted, *, alone: bool, now: datetime
) -> Change:
    """
    Cordon, and begin to drain; with nothing to drain, switch at once.

    ``alone``: no other node could take its pods, so they are better left where they are.
    """
    cordon = (wanted.cordon or wanted.drain is not None) and not alone
    drain = wanted.drain is not None and not alone
    noted = replace(progress, cordoned=cordon and not node.unschedulable)
    at = stamp(now)
    noted = replace(noted, drain=at) if drain else replace(noted, switch=at)
    annotations = {} if drain or progress.job else _switch_request(node, progress)
    patch = _patch(node, noted, annotations)
    if noted.cordoned:
        patch["spec"] = {"unschedulable": True}
    return Change(node=node, patch=patch, disturbs=True)


def switch(node: Node, progress: Progress, now: datetime) -> Change:
    """After it was drained."""
    noted = replace(progress, switch=stamp(now))
    annotations = {} if progress.job else _switch_request(node, progress)
    return Change(node=node, patch=_patch(node, noted, annotations))


def _switch_request(node: Node, progress: Progress) -> dict[str, str]:
    asked = node.request.body if node.request else _identity(progress)
    more: dict[str, Any] = {"stage": "switch"}
    if progress.back:
        # Nobody judges the way back.
        more |= {"rollback": True, "checks": False, "verdict": "", "verdictMessage": ""}
    return {REQUEST: _json({**asked, **more})}


def _identity(progress: Progress) -> dict[str, Any]:
    names = ("plan", "uid", "version", "attempt")
    return {name: getattr(progress, name) for name in names}


def verdict(node: Node, found: Verdict) -> Change:
    assert node.request is not None
    word = "passed" if found.passed else "failed"
    body = {**node.request.body, "verdict": word, "verdictMessage": found.message[:256]}
    return Change(node=node, patch=_versioned(node, {"annotations": {REQUEST: _json(body)}}))


def finish(state: State, progress: Progress, wanted: Wanted, now: datetime) -> Change:
    """It came to an end: what we cordoned is uncordoned, and what came of it is noted."""
    node, ended = state.node, Phase(state.outcome)
    told = stamp(now) if ended is Phase.UPDATED and not wanted.delay and wanted.tells else ""
    noted = _over(progress, state.outcome, state.message, now)
    noted = replace(noted, told=told)
    # A request that was not taken up yet must not be taken up after this.
    annotations = {REQUEST: None} if not progress.switch and not progress.job else {}
    patch = _patch(node, noted, annotations)
    if told:
        _tell(patch, wanted, progress.version)
    _uncordon(patch, progress)
    # One that failed stays, for whoever wants to know why.
    job = "after" if progress.job and ended is Phase.UPDATED else ""
    news = (_ended(progress, ended, state.message),)
    return Change(node=node, patch=patch, news=news, job=job)


def tell(node: Node, progress: Progress, wanted: Wanted, now: datetime) -> Change:
    patch = _patch(node, replace(progress, told=stamp(now)), {})
    _tell(patch, wanted, progress.version)
    return Change(node=node, patch=patch)


def cancel(node: Node, progress: Progress, why: str, now: datetime) -> Change:
    """Before it was switched: as if it had never been asked."""
    noted = _over(progress, CANCELLED, why, now)
    patch = _patch(node, noted, {REQUEST: None})
    _uncordon(patch, progress)
    news = News(reason="UpgradeCancelled", message=f"UpgradePlan {progress.plan}: {why}")
    return Change(node=node, patch=patch, news=(news,), job="after" if progress.job else "")


def release(node: Node, progress: Progress) -> Change:
    """It was being drained, and may not be now: what is installed stays so."""
    patch = _patch(node, replace(progress, drain="", cordoned=False), {})
    _uncordon(patch, progress)
    return Change(node=node, patch=patch)


def go_back(
    node: Node, progress: Progress, wanted: Wanted, *, alone: bool, now: datetime
) -> Change:
    """Leave a version that the node had committed."""
    fresh = replace(
        progress,
        back=stamp(now),
        started=stamp(now),
        drain="",
        switch="",
        end="",
        outcome="",
        why="",
        told="",
    )
    change = disturb(node, fresh, wanted, alone=alone, now=now)
    patch = {**change.patch, "metadata": {**change.patch["metadata"]}}
    metadata = patch["metadata"]
    if progress.told:
        metadata["labels"] = dict.fromkeys(wanted.labels)
        metadata["annotations"] = {**dict.fromkeys(wanted.annotations), **metadata["annotations"]}
    news = News(
        reason="UpgradeRollingBack",
        message=f"UpgradePlan {progress.plan}: leaves {progress.version}",
        warning=True,
    )
    return Change(node=node, patch=patch, news=(news,), starts=True, disturbs=True)


def _over(progress: Progress, outcome: str, why: str, now: datetime) -> Progress:
    return replace(progress, end=stamp(now), outcome=outcome, why=why[:256], cordoned=False)


def _ended(progress: Progress, ended: Phase, why: str) -> News:
    told = f"UpgradePlan {progress.plan}: {progress.version} {_WORDS[ended]}"
    failed = ended is not Phase.UPDATED
    return News(
        reason="UpgradeFailed" if failed else "UpgradeSucceeded",
        message=f"{told}: {why}" if why else told,
        warning=failed,
        of_plan=failed,
    )


_WORDS = {
    Phase.UPDATED: "runs and was committed",
    Phase.ROLLED_BACK: "was left again",
    Phase.REFUSED: "was refused",
    Phase.FAILED: "did not get there",
}


def _tell(patch: dict[str, Any], wanted: Wanted, version: str) -> None:
    metadata = patch["metadata"]
    metadata["labels"] = {
        key: _expanded(value, version.replace("+", "-")) for key, value in wanted.labels.items()
    }
    for key, value in wanted.annotations.items():
        metadata["annotations"][key] = _expanded(value, version)


def _expanded(value: str, version: str) -> str:
    return value.replace("$(VERSION)", version).replace("$(LATEST_VERSION)", version)


def _uncordon(patch: dict[str, Any], progress: Progress) -> None:
    if progress.cordoned:
        patch["spec"] = {"unschedulable": None}


def _patch(node: Node, progress: Progress, annotations: Mapping[str, str | None]) -> dict[str, Any]:
    found = {PROGRESS: progress.written(), **annotations}
    stale = node.report is not None and REQUEST in annotations and _starts(node, progress)
    return _versioned(node, {"annotations": {**found, **({REPORT: None} if stale else {})}})


def _starts(node: Node, progress: Progress) -> bool:
    """The node's last answer was to an earlier attempt; one that knows no attempts repeats it."""
    return not progress.switch and not progress.end and progress.attempt > 1


def _versioned(node: Node, metadata: dict[str, Any]) -> dict[str, Any]:
    if node.resource_version:
        metadata["resourceVersion"] = node.resource_version
    return {"metadata": metadata}


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"))
