"""
A node of Pinnace as the upgrade operator knows it: a request in, reports out, one step a call.

``conduct``: what comes of the version it is asked for. The node keeps its state over restarts of
the operator, as a real one does, and repeats the attempt that it answers.
"""

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from operators.upgrade.base import BOARD_LABEL, REPORT, REQUEST, VERSION_LABEL
from operators.upgrade.objects import stamp

Object = dict[str, Any]
V1, V2, V3 = "v1.36.3+pinnace1", "v1.36.4+pinnace1", "v1.36.5+pinnace1"

GOOD, BROKEN, REFUSES, FAILS, LOST, DEAF = "good", "broken", "refuses", "fails", "lost", "deaf"
STEPS = ("Downloading", "Installing", "Installed", "Switching", "Trial")


@dataclass
class Agent:
    name: str
    conduct: str = GOOD
    board: str = "x86-64"
    running: str = V1
    before: str = ""  # the version of the other slot
    key: tuple[Any, ...] | None = None  # of the request that is answered
    phase: str = ""
    message: str = ""
    healthy: bool = False
    ready: bool = True
    failed: list[str] = field(default_factory=list)
    times: dict[str, str] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)  # every phase it was in, in order

    def step(self, request: Object | None, now: datetime) -> bool:
        """Whether something changed."""
        if self.conduct == DEAF:
            return False
        if request is None:
            if self.phase in STEPS[:3]:
                self.key, self.phase, self.times = None, "", {}
                return True
            return False
        key = tuple(request.get(name) for name in ("uid", "version", "attempt", "rollback"))
        if key != self.key:
            self.key, self.times, self.message = key, {}, ""
            return self._begin(request, now)
        return self._go_on(request, now)

    def _begin(self, request: Object, now: datetime) -> bool:
        if request["rollback"]:
            return self._enter("Switching", now, ready=False)
        if request["version"] == self.running:
            return self._enter("Refused", now, message="SameVersion: it runs already")
        if request["version"] in self.failed and not request["retryFailed"]:
            return self._enter("Refused", now, message="FailedBefore: it failed here before")
        if self.conduct == REFUSES:
            return self._enter("Refused", now, message="Downgrade: an older version")
        return self._enter("Downloading", now)

    def _go_on(self, request: Object, now: datetime) -> bool:
        match self.phase:
            case "Downloading" if self.conduct == FAILS:
                return self._enter("Failed", now, message="no space left on the device")
            case "Downloading":
                return self._enter("Installing", now)
            case "Installing":
                return self._enter("Installed", now)
            case "Installed" if request["stage"] == "switch":
                return self._enter("Switching", now, ready=False)
            case "Switching" if self.conduct != LOST:
                return self._started(request, now)
            case "Trial":
                return self._tried(request, now)
            case _:
                return False

    def _started(self, request: Object, now: datetime) -> bool:
        going = self.before if request["rollback"] else request["version"]
        self.running, self.before = going, self.running
        return self._enter("Trial", now)

    def _tried(self, request: Object, now: datetime) -> bool:
        if self.conduct == BROKEN and not request["rollback"]:
            return self._leave(request, now, "the node was not healthy: kube-dns")
        if not self.healthy:
            self.healthy = True
            return True
        if request["verdict"] == "failed":
            return self._leave(request, now, request["verdictMessage"])
        if request["verdict"] == "passed" or not request["checks"]:
            # Of a rollback the version that was asked about is left now.
            return self._enter("RolledBack" if request["rollback"] else "Committed", now)
        return False

    def _leave(self, request: Object, now: datetime, why: str) -> bool:
        self.running, self.before = self.before, self.running
        self.failed.append(request["version"])
        return self._enter("RolledBack", now, message=why)

    def _enter(self, phase: str, now: datetime, *, message: str = "", ready: bool = True) -> bool:
        self.phase, self.message, self.ready, self.healthy = phase, message, ready, False
        self.times[phase] = stamp(now)
        self.told.append(phase)
        return True

    def report(self) -> str:
        uid, version, attempt, rollback = self.key or ("", "", 0, False)
        body = {
            "uid": uid,
            "version": version,
            "attempt": attempt,
            "rollback": rollback,
            "phase": self.phase,
            "message": self.message,
            "times": self.times,
            "running": self.running,
            "healthy": self.healthy,
            "failed": self.failed,
        }
        return json.dumps(body, separators=(",", ":"))

    def status(self) -> Object:
        """Of the Node, as its kubelet writes it, and what of it matters here."""
        ready = {"type": "Ready", "status": "True" if self.ready else "False"}
        return {"conditions": [ready], "nodeInfo": {"kubeletVersion": self.running}}

    def metadata(self) -> Object:
        labels = {VERSION_LABEL: self.running.replace("+", "-"), BOARD_LABEL: self.board}
        return {"labels": labels, "annotations": {REPORT: self.report()}}


def request_of(body: Object) -> Object | None:
    text = (body["metadata"].get("annotations") or {}).get(REQUEST)
    found: Object | None = json.loads(text) if text else None
    return found
