"""Pods and their templates. The STATUS of a pod sums up the states of its containers."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from controlplane.objects.meta import parse_time
from controlplane.objects.printing.cells import (
    NONE,
    Cells,
    Object,
    Printer,
    age,
    columns,
    containers,
    human,
    labels,
    name,
    spec,
    status,
)

_COMPLETED = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def conditions(pod: Object) -> list[dict[str, str]]:
    """Of the row: whether the pod is done."""
    phase = status(pod).get("phase", "")
    if phase not in _COMPLETED:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _COMPLETED[phase]}]


def _cells(pod: Object, now: datetime) -> Cells:
    summary = _Summary(pod)
    inner, state = spec(pod), status(pod)
    addresses = state.get("podIPs") or ()
    address = addresses[0].get("ip") if addresses else state.get("podIP")
    return [
        name(pod),
        f"{summary.ready}/{summary.total}",
        summary.reason,
        summary.restarts_text(now),
        age(pod, now),
        address or NONE,
        inner.get("nodeName") or NONE,
        state.get("nominatedNodeName") or NONE,
        _gates(inner, state),
    ]


def _gates(inner: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    gates = inner.get("readinessGates") or ()
    if not gates:
        return NONE
    true = {c.get("type") for c in state.get("conditions") or () if c.get("status") == "True"}
    passed = sum(gate.get("conditionType") in true for gate in gates)
    return f"{passed}/{len(gates)}"


class _Summary:
    """
    A pod's containers in one line.

    Its state is filled in by the constructor and constant from then on.
    """

    def __init__(self, pod: Object) -> None:
        inner, state = spec(pod), status(pod)
        self.total = len(inner.get("containers") or ())
        self.ready = 0
        self.restarts = 0
        self.last_restart = ""
        self.reason = state.get("reason") or state.get("phase") or ""
        self._conditions = {c.get("type"): c for c in state.get("conditions") or ()}
        scheduled = self._conditions.get("PodScheduled") or {}
        if scheduled.get("reason") == "SchedulingGated":
            self.reason = "SchedulingGated"
        initializing = self._init_containers(
            inner.get("initContainers") or (), state.get("initContainerStatuses") or ()
        )
        if not initializing or self._is_true("Initialized"):
            self._containers(state.get("containerStatuses") or ())
        self._deletion(pod, state)

    def restarts_text(self, now: datetime) -> str:
        if not self.restarts or not self.last_restart:
            return str(self.restarts)
        return f"{self.restarts} ({human(now - parse_time(self.last_restart))} ago)"

    def _is_true(self, condition: str) -> bool:
        found = self._conditions.get(condition) or {}
        return bool(found.get("status") == "True")

    def _init_containers(self, given: Any, statuses: Any) -> bool:
        """Whether they are still at work; their restarts count only that long."""
        sidecars = {c.get("name") for c in given if c.get("restartPolicy") == "Always"}
        self.total += len(sidecars)
        waiting, restarts, last = False, 0, ""
        side_restarts, side_last = 0, ""
        for index, state in enumerate(statuses):
            restarts += state.get("restartCount") or 0
            last = max(last, _last_end(state))
            sidecar = state.get("name") in sidecars
            if sidecar:
                side_restarts += state.get("restartCount") or 0
                side_last = max(side_last, _last_end(state))
            if sidecar and state.get("started"):
                self.ready += bool(state.get("ready"))
            elif not _has_succeeded(state):
                self.reason = _init_reason(state, index, len(given))
                waiting = True
                break
        settled = not waiting or self._is_true("Initialized")
        self.restarts, self.last_restart = (
            (side_restarts, side_last) if settled else (restarts, last)
        )
        return waiting

    def _containers(self, statuses: Iterable[Mapping[str, Any]]) -> None:
        running = False
        for state in reversed(list(statuses)):
            self.restarts += state.get("restartCount") or 0
            self.last_restart = max(self.last_restart, _last_end(state))
            now_in = state.get("state") or {}
            waiting, ended = now_in.get("waiting") or {}, now_in.get("terminated")
            if waiting.get("reason"):
                self.reason = waiting["reason"]
            elif ended is not None:
                self.reason = _end_reason(ended)
            elif state.get("ready") and now_in.get("running") is not None:
                running = True
                self.ready += 1
        if self.reason == "Completed" and running:
            self.reason = "Running" if self._is_true("Ready") else "NotReady"

    def _deletion(self, pod: Object, state: Mapping[str, Any]) -> None:
        if not (pod.get("metadata") or {}).get("deletionTimestamp"):
            return
        if state.get("reason") == "NodeLost":
            self.reason = "Unknown"
        elif state.get("phase") not in _COMPLETED:
            self.reason = "Terminating"


def _last_end(state: Mapping[str, Any]) -> str:
    ended = (state.get("lastState") or {}).get("terminated") or {}
    return str(ended.get("finishedAt") or "")


def _has_succeeded(state: Mapping[str, Any]) -> bool:
    ended = (state.get("state") or {}).get("terminated")
    return ended is not None and not ended.get("exitCode")


def _init_reason(state: Mapping[str, Any], index: int, count: int) -> str:
    now_in = state.get("state") or {}
    ended, waiting = now_in.get("terminated"), now_in.get("waiting") or {}
    if ended is not None:
        return f"Init:{_end_reason(ended)}"
    if waiting.get("reason") not in (None, "", "PodInitializing"):
        return f"Init:{waiting['reason']}"
    return f"Init:{index}/{count}"


def _end_reason(ended: Mapping[str, Any]) -> str:
    if ended.get("reason"):
        return str(ended["reason"])
    if ended.get("signal"):
        return f"Signal:{ended['signal']}"
    return f"ExitCode:{ended.get('exitCode', 0)}"


def _template_cells(obj: Object, _now: datetime) -> Cells:
    template = obj.get("template") or {}
    names, images = containers(template)
    return [name(obj), names, images, labels((template.get("metadata") or {}).get("labels"))]


POD = Printer(
    columns(
        "Name",
        "Ready",
        "Status",
        "Restarts",
        "Age",
        "IP*",
        "Node*",
        "Nominated Node*",
        "Readiness Gates*",
    ),
    _cells,
)
POD_TEMPLATE = Printer(columns("Name", "Containers", "Images", "Pod Labels"), _template_cells)
