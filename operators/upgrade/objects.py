"""
UpgradePlans and Nodes, parsed once at the edge. Pure.

A Node carries three annotations: the request and the report, by which the operator and the node
speak (:mod:`operators.upgrade.base`), and ``upgrade.pinnace.dev/progress``, in which the operator
remembers what it did to this node and when. The last is written in the same patch as what it
remembers, so an operator that is killed between any two writes finds neither more nor less
than what was done.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from operators.upgrade.base import BOARD_LABEL, REPORT, REQUEST, VERSION_LABEL

Object = Mapping[str, Any]

PROGRESS = "upgrade.pinnace.dev/progress"
SERVER_LABELS = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
ENDS = frozenset({"Committed", "RolledBack", "Refused", "Failed"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """As it stands on the Node; ``body`` is all of it."""

    uid: str  # of the plan
    version: str
    attempt: int
    switch: bool  # its stage
    rollback: bool
    verdict: str
    body: Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The node's answer; of times, those of its own clock."""

    uid: str
    version: str
    attempt: int
    rollback: bool
    phase: str
    message: str
    percent: int
    times: Mapping[str, str]
    running: str
    healthy: bool
    failed: tuple[str, ...]

    def answers(self, request: Request) -> bool:
        mine = (self.uid, self.version, self.attempt, self.rollback)
        return mine == (request.uid, request.version, request.attempt, request.rollback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What the operator did to a node for one plan; times are RFC 3339, "" for not yet."""

    plan: str  # its name, for whoever reads the Node
    uid: str
    generation: int  # of the plan when it asked
    version: str
    attempt: int
    source: str  # the version that ran before
    job: bool  # by a Job, on a node without slots
    started: str
    cordoned: bool = False  # by us: it is ours to undo
    drain: str = ""  # since when it is drained
    switch: str = ""
    back: str = ""  # since when it is asked to leave a version that it had committed
    end: str = ""
    outcome: str = ""  # Updated, RolledBack, Refused, Failed; "" while end is
    why: str = ""
    told: str = ""  # labels and annotations of postComplete were written

    @property
    def active(self) -> bool:
        """Neither ended nor, where it ended well, still to be told so."""
        return not self.end

    def written(self) -> str:
        """The annotation's value."""
        names = {**_WORDS, "plan": self.plan, "uid": self.uid}
        found = {name: getattr(self, name) for name in (*names, *_NUMBERS, *_FLAGS)}
        return json.dumps({k: v for k, v in found.items() if v}, separators=(",", ":"))


_WORDS = dict.fromkeys(
    ("version", "source", "started", "drain", "switch", "back", "end", "outcome", "why", "told"), ""
)
_NUMBERS = ("generation", "attempt")
_FLAGS = ("job", "cordoned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    name: str
    uid: str
    resource_version: str = field(compare=False)  # changes with every heartbeat
    labels: Mapping[str, str]
    ready: bool
    changed: str  # when it was or became so, RFC 3339
    unschedulable: bool
    leaving: bool  # is being deleted
    kubelet: str  # its version, as the Node's status says
    board: str  # "": no slots of ours
    request: Request | None
    report: Report | None
    progress: Progress | None

    @property
    def server(self) -> bool:
        return any(label in self.labels for label in SERVER_LABELS)

    @property
    def answer(self) -> Report | None:
        """The report, where it answers what is asked now."""
        if self.report is None or self.request is None:
            return None
        return self.report if self.report.answers(self.request) else None

    @property
    def version(self) -> str:
        """What runs there, as far as it is known."""
        running = self.report.running if self.report else ""
        return running or self.kubelet or self.labels.get(VERSION_LABEL, "")

    def runs(self, version: str) -> bool:
        """Report and kubelet are written at different times: either may be the newer one."""
        running = self.report.running if self.report else ""
        if running or self.kubelet:
            return version in {running, self.kubelet}
        # The value of a label takes no plus.
        return plain(version) == plain(self.labels.get(VERSION_LABEL, ""))


def plain(version: str) -> str:
    return version.replace("+", "-").replace("_", "-")


def node_of(body: Object) -> Node:
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    labels = metadata.get("labels") or {}
    annotations = metadata.get("annotations") or {}
    report = _report(annotations.get(REPORT))
    conditions = status.get("conditions") or ()
    ready: Object = next((c for c in conditions if c["type"] == "Ready"), {})
    return Node(
        name=metadata["name"],
        uid=metadata.get("uid") or "",
        resource_version=metadata.get("resourceVersion") or "",
        labels=dict(labels),
        ready=ready.get("status") == "True",
        changed=ready.get("lastTransitionTime") or "",
        unschedulable=bool(spec.get("unschedulable")),
        leaving=bool(metadata.get("deletionTimestamp")),
        kubelet=(status.get("nodeInfo") or {}).get("kubeletVersion") or "",
        board=labels.get(BOARD_LABEL, ""),
        request=_request(annotations.get(REQUEST)),
        report=report,
        progress=_progress(annotations.get(PROGRESS)),
    )


def _request(text: str | None) -> Request | None:
    found = _document(text)
    if not found:
        return None
    return Request(
        uid=_word(found, "uid"),
        version=_word(found, "version"),
        attempt=_number(found, "attempt") or 1,
        switch=found.get("stage") == "switch",
        rollback=bool(found.get("rollback")),
        verdict=_word(found, "verdict"),
        body=found,
    )


def _report(text: str | None) -> Report | None:
    found = _document(text)
    if not found:
        return None
    times = found.get("times")
    failed = found.get("failed")
    return Report(
        uid=_word(found, "uid"),
        version=_word(found, "version"),
        attempt=_number(found, "attempt") or 1,
        rollback=bool(found.get("rollback")),
        phase=_word(found, "phase"),
        message=_word(found, "message") or _word(found, "reason"),
        percent=_number(found, "percent"),
        times={str(k): str(v) for k, v in times.items()} if isinstance(times, dict) else {},
        running=_word(found, "running"),
        healthy=bool(found.get("healthy")),
        failed=tuple(map(str, failed)) if isinstance(failed, list) else (),
    )


def _progress(text: str | None) -> Progress | None:
    found = _document(text)
    if not found or not found.get("uid"):
        return None
    return Progress(
        plan=_word(found, "plan"),
        uid=_word(found, "uid"),
        generation=_number(found, "generation"),
        attempt=_number(found, "attempt") or 1,
        job=bool(found.get("job")),
        cordoned=bool(found.get("cordoned")),
        **{name: _word(found, name) for name in _WORDS},
    )


def _document(text: str | None) -> dict[str, Any]:
    """Somebody else may have written anything there: what is no object counts as nothing."""
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _word(found: Object, name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) else ""


def _number(found: Object, name: str) -> int:
    value = found.get(name)
    return value if isinstance(value, int) else 0


def stamp(now: datetime) -> str:
    """RFC 3339 to the second, as Kubernetes writes its times."""
    return now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime | None:
    """None: it is no time, or there is none."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
