"""
From what the runtime has of a pod to its status, as kubelet reports it (pure).

Conditions that are not kubelet's (readiness gates, PodScheduled, DisruptionTarget) are
kept as they are; transition times change only with the status. Source: the Pod API, "Pod
Lifecycle", and KEP-3085 for PodReadyToStartContainers.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import meta
from node.cri.base import ContainerState, Features
from node.kubelet import resources
from node.kubelet.base import Settings, is_sidecar
from node.kubelet.view import (
    TERMINAL,
    Memory,
    PodView,
    Seen,
    Waiting,
    deadline_left,
    failed_init,
    is_ready,
    is_started,
    may_restart,
    moment,
    resources_in_force,
)

OURS = (
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    pod: Object
    view: PodView
    memory: Memory
    waiting: Mapping[str, Waiting]
    settings: Settings
    now: datetime


def pod_status(given: Inputs) -> dict[str, Any]:
    pod, view = given.pod, given.view
    old = pod.get("status", {})
    spec = pod["spec"]
    out: dict[str, Any] = {"qosClass": resources.qos_class(pod)}
    out["hostIP"] = given.settings.node_ips[0]
    out["hostIPs"] = [{"ip": ip} for ip in given.settings.node_ips]
    out["startTime"] = old.get("startTime") or meta.rfc3339(given.now)
    if "generation" in pod["metadata"]:
        out["observedGeneration"] = pod["metadata"]["generation"]
    ips = view.ips or tuple(item["ip"] for item in old.get("podIPs", ()))
    if ips:
        out["podIP"], out["podIPs"] = ips[0], [{"ip": ip} for ip in ips]
    if spec.get("initContainers"):
        out["initContainerStatuses"] = _statuses(spec["initContainers"], given, init=True)
    out["containerStatuses"] = _statuses(spec["containers"], given, init=False)
    if spec.get("ephemeralContainers"):
        out["ephemeralContainerStatuses"] = _statuses(
            spec["ephemeralContainers"], given, init=False
        )
    out.update(_phase(given, out))
    out["conditions"] = _conditions(given, out)
    return out


def _statuses(
    containers: Iterable[Mapping[str, Any]], given: Inputs, *, init: bool
) -> list[dict[str, Any]]:
    return [_container(container, given, init=init) for container in containers]


def _container(container: Mapping[str, Any], given: Inputs, *, init: bool) -> dict[str, Any]:
    name, view, memory = container["name"], given.view, given.memory
    seen = view.latest(name)
    out: dict[str, Any] = {
        "name": name,
        "image": container["image"],
        "imageID": "",
        "lastState": {},
        "ready": False,
        "restartCount": 0,
        "started": False,
        "state": {},
    }
    if seen is None:
        previous = _reported(given.pod, name)
        if given.pod.get("status", {}).get("phase") in TERMINAL and previous:
            return dict(previous)
        out["state"] = _waiting(container, given, init=init)
        return out
    status = seen.status
    out["restartCount"] = status.attempt
    out["containerID"] = f"containerd://{status.id}"
    out["image"] = status.image or container["image"]
    out["imageID"] = status.image_ref
    out["state"] = _state(seen)
    previous_seen = view.previous(name)
    if previous_seen is not None and previous_seen.exited:
        out["lastState"] = _state(previous_seen)
    out["ready"] = _readiness(container, seen, memory, init=init)
    out["started"] = is_started(container, seen, memory)
    out.update(_allocated(container, seen, memory))
    if (user := status.user) is not None:
        out["user"] = {
            "linux": {"uid": user[0], "gid": user[1], "supplementalGroups": list(user[2])}
        }
    if container.get("volumeMounts"):
        sandbox = view.sandboxes[0] if view.sandboxes else None
        handler = sandbox.runtime_handler if sandbox is not None else ""
        features = given.settings.handlers.get(handler, Features())
        out["volumeMounts"] = [_mounted(m, features) for m in container["volumeMounts"]]
    if not seen.running and name in given.waiting:
        _set_waiting(out, given.waiting[name], seen)
    elif status.state is ContainerState.CREATED:
        out["state"] = _waiting(container, given, init=init)
    return out


def _readiness(container: Mapping[str, Any], seen: Seen, memory: Memory, *, init: bool) -> bool:
    if init and not is_sidecar(container):
        return seen.exited and seen.status.exit_code == 0
    return is_ready(container, seen, memory)


def _allocated(container: Mapping[str, Any], seen: Seen, memory: Memory) -> dict[str, Any]:
    """What was granted, and what is in force: the two differ while a resize is under way."""
    wanted = container.get("resources")
    if not wanted:
        return {}
    known = resources_in_force(seen, memory) if seen.running else ""
    out: dict[str, Any] = {"resources": json.loads(known) if known else dict(wanted)}
    if wanted.get("requests"):
        out["allocatedResources"] = dict(wanted["requests"])
    return out


def _mounted(mount: Mapping[str, Any], features: Features) -> dict[str, Any]:
    out = {"name": mount["name"], "mountPath": mount["mountPath"]}
    if mount.get("readOnly"):
        wanted = mount.get("recursiveReadOnly") or "Disabled"
        done = wanted != "Disabled" and features.recursive_read_only
        out |= {"readOnly": True, "recursiveReadOnly": "Enabled" if done else "Disabled"}
    return out


def _set_waiting(out: dict[str, Any], why: Waiting, seen: Seen) -> None:
    """Shown as waiting; how it ended moves to lastState."""
    if seen.exited:
        out["lastState"] = _state(seen)
    out["state"] = {"waiting": _reason(why)}
    out["ready"] = out["started"] = False


def _reason(why: Waiting) -> dict[str, str]:
    return {"reason": why.reason} | ({"message": why.message} if why.message else {})


def _waiting(container: Mapping[str, Any], given: Inputs, *, init: bool) -> dict[str, Any]:
    if known := given.waiting.get(container["name"]):
        return {"waiting": _reason(known)}
    has_init = bool(given.pod["spec"].get("initContainers"))
    return {"waiting": {"reason": "PodInitializing" if has_init else "ContainerCreating"}}


def _state(seen: Seen) -> dict[str, Any]:
    status = seen.status
    match status.state:
        case ContainerState.RUNNING:
            return {"running": {"startedAt": meta.rfc3339(moment(status.started_at))}}
        case ContainerState.EXITED:
            # One that never started has no start time: kubelet shows the zero time of its end.
            started = status.started_at or status.created_at
            ended: dict[str, Any] = {
                "containerID": f"containerd://{status.id}",
                "exitCode": status.exit_code,
                "reason": status.reason or ("Completed" if status.exit_code == 0 else "Error"),
                "startedAt": meta.rfc3339(moment(started)),
                "finishedAt": meta.rfc3339(moment(status.finished_at)),
            }
            if message := seen.message or status.message:
                ended["message"] = message
            return {"terminated": ended}
        case ContainerState.UNKNOWN:
            return {
                "terminated": {
                    "containerID": f"containerd://{status.id}",
                    "exitCode": 137,
                    "reason": "ContainerStatusUnknown",
                    "message": "The container could not be located when the pod was terminated",
                }
            }
        case ContainerState.CREATED:
            return {"waiting": {"reason": "ContainerCreating"}}


def _reported(pod: Object, name: str) -> Mapping[str, Any] | None:
    status = pod.get("status", {})
    for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        for item in status.get(kind, ()):
            if item["name"] == name:
                return item  # type: ignore[no-any-return]
    return None


def _phase(given: Inputs, out: Mapping[str, Any]) -> dict[str, Any]:
    pod, view = given.pod, given.view
    old = pod.get("status", {})
    if old.get("phase") in TERMINAL:
        kept = {key: old[key] for key in ("phase", "reason", "message") if key in old}
        return kept
    # Whoever replaces a failed pod must not do so while it still runs.
    if (why := given.memory.evicted) is not None and not view.alive:
        return {"phase": "Failed", "reason": why.reason, "message": why.message}
    if deadline_left(pod, given.now) == timedelta(0) and not view.alive:
        text = "Pod was active on the node longer than the specified deadline"
        return {"phase": "Failed", "reason": "DeadlineExceeded", "message": text}
    return {"phase": _computed(pod, view, out)}


def _computed(pod: Object, view: PodView, out: Mapping[str, Any]) -> str:
    if failed_init(pod, view):
        sidecars = [c for c in pod["spec"]["initContainers"] if is_sidecar(c)]
        running = any((s := view.latest(c["name"])) and s.running for c in sidecars)
        return "Running" if running else "Failed"
    deleting = "deletionTimestamp" in pod["metadata"]
    # It will not start any more, so whoever counts its pods can stop waiting for it.
    unstarted = "Failed" if deleting and not view.alive else "Pending"
    if _initializing(pod, out):
        return unstarted
    states = [_kind(s) for s in out["containerStatuses"]]
    if "waiting" in states:
        return unstarted
    if "running" in states:
        return "Running"
    if _sidecars_alive(pod, view):
        return "Running"
    return _ended(pod, out, deleting=deleting)


def _ended(pod: Object, out: Mapping[str, Any], *, deleting: bool) -> str:
    codes = [s["state"]["terminated"]["exitCode"] for s in _terminated(out)]
    pairs = zip(pod["spec"]["containers"], codes, strict=False)
    if not deleting and any(may_restart(pod, c, code) for c, code in pairs):
        return "Running"
    return "Succeeded" if not any(codes) else "Failed"


def _terminated(out: Mapping[str, Any]) -> list[dict[str, Any]]:
    """With a container in back-off, how it ended is its last state."""
    shown: list[dict[str, Any]] = []
    for status in out["containerStatuses"]:
        ended = status["state"].get("terminated") or status["lastState"].get("terminated")
        shown.append({"state": {"terminated": ended or {"exitCode": 0}}})
    return shown


def _kind(status: Mapping[str, Any]) -> str:
    """A container that waits for its restart counts as stopped, not as waiting."""
    if "waiting" in status["state"]:
        return "stopped" if status["lastState"] else "waiting"
    return next(iter(status["state"]), "waiting")


def _sidecars_alive(pod: Object, view: PodView) -> bool:
    return any(
        (seen := view.latest(c["name"])) is not None and seen.running
        for c in pod["spec"].get("initContainers", ())
        if is_sidecar(c)
    )


def _initializing(pod: Object, out: Mapping[str, Any]) -> bool:
    if any("waiting" not in s["state"] or s["lastState"] for s in out["containerStatuses"]):
        return False
    for container, status in zip(
        pod["spec"].get("initContainers", ()), out.get("initContainerStatuses", ()), strict=False
    ):
        done = status["started"] if is_sidecar(container) else status["ready"]
        if not done:
            return True
    return False


def _initialized(given: Inputs, out: Mapping[str, Any]) -> tuple[bool, str, str]:
    if out["phase"] == "Succeeded":
        return True, "PodCompleted", ""
    containers = given.pod["spec"].get("initContainers", ())
    if not containers:
        return True, "", ""
    begun = any("waiting" not in s["state"] or s["lastState"] for s in out["containerStatuses"])
    pending = [
        c["name"]
        for c, s in zip(containers, out["initContainerStatuses"], strict=True)
        if not (s["started"] if is_sidecar(c) else s["ready"])
    ]
    if begun or not pending:
        return True, "", ""
    text = f"containers with incomplete status: [{' '.join(pending)}]"
    return False, "ContainersNotInitialized", text


def _containers_ready(given: Inputs, out: Mapping[str, Any]) -> tuple[bool, str, str]:
    if out["phase"] == "Succeeded":
        return False, "PodCompleted", ""
    if out["phase"] == "Failed":
        return False, "PodFailed", ""
    sidecars = {c["name"] for c in given.pod["spec"].get("initContainers", ()) if is_sidecar(c)}
    counted = [
        *(s for s in out.get("initContainerStatuses", ()) if s["name"] in sidecars),
        *out["containerStatuses"],
    ]
    unready = [s["name"] for s in counted if not s["ready"]]
    if not unready:
        return True, "", ""
    return False, "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _pod_ready(given: Inputs, containers: tuple[bool, str, str]) -> tuple[bool, str, str]:
    if not containers[0]:
        return containers
    known = {c["type"]: c for c in given.pod.get("status", {}).get("conditions", ())}
    missing = [
        gate["conditionType"]
        for gate in given.pod["spec"].get("readinessGates", ())
        if known.get(gate["conditionType"], {}).get("status") != "True"
    ]
    if not missing:
        return True, "", ""
    texts = [
        f'corresponding condition of pod readiness gate "{name}" does not exist.'
        if name not in known
        else f'the status of pod readiness gate "{name}" is not "True", but {known[name]["status"]}'
        for name in missing
    ]
    return False, "ReadinessGatesNotReady", ", ".join(texts)


def _conditions(given: Inputs, out: Mapping[str, Any]) -> list[dict[str, Any]]:
    containers = _containers_ready(given, out)
    has_network = given.view.sandbox is not None and bool(given.view.ips)
    wanted = {
        "PodReadyToStartContainers": (has_network, "", ""),
        "Initialized": _initialized(given, out),
        "Ready": _pod_ready(given, containers),
        "ContainersReady": containers,
    }
    old = given.pod.get("status", {}).get("conditions", ())
    known = {c["type"]: c for c in old}
    made = [_condition(type_, value, known.get(type_), given) for type_, value in wanted.items()]
    foreign = [dict(c) for c in old if c["type"] not in OURS]
    if text := given.memory.disrupted:
        foreign = [c for c in foreign if c["type"] != "DisruptionTarget"]
        why = (True, "TerminationByKubelet", text)
        made.append(_condition("DisruptionTarget", why, known.get("DisruptionTarget"), given))
    return made + foreign


def _condition(
    type_: str, value: tuple[bool, str, str], old: Mapping[str, Any] | None, given: Inputs
) -> dict[str, Any]:
    holds, reason, message = value
    status = "True" if holds else "False"
    same = old is not None and old["status"] == status
    out = {
        "type": type_,
        "status": status,
        "lastTransitionTime": (
            old["lastTransitionTime"] if same and old else meta.rfc3339(given.now)
        ),
    }
    if "generation" in given.pod["metadata"]:
        out["observedGeneration"] = given.pod["metadata"]["generation"]
    if reason:
        out["reason"] = reason
    if message:
        out["message"] = message
    return out


def patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """
    A strategic merge patch from the status reported to the one computed; {} when equal.

    Conditions merge by type, addresses by ip: what goes is named with ``$patch: delete``.
    """
    out: dict[str, Any] = {}
    for key in old.keys() | new.keys():
        before, after = old.get(key), new.get(key)
        if before == after or key in _NOT_OURS:
            continue
        match key:
            case "conditions":
                out[key] = _merge_conditions(before or (), after or ())
                if not out[key]:
                    del out[key]
            case "podIPs" | "hostIPs":
                out[key] = _merge_ips(before or (), after or ())
            case "reason" | "message" | "containerStatuses" | "initContainerStatuses":
                out[key] = after
            case _:
                if key in new:
                    out[key] = after
    return out


_NOT_OURS = frozenset({"nominatedNodeName", "resize", "resourceClaimStatuses"})


def _merge_conditions(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Those that differ; a reason that no longer holds is taken away by a null."""
    known = {c["type"]: c for c in before}
    return [
        dict.fromkeys(known.get(c["type"], {}).keys() - c.keys()) | dict(c)
        for c in after
        if _without_null(known.get(c["type"], {})) != _without_null(c)
    ]


def _without_null(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item is not None}


def _merge_ips(
    before: Iterable[Mapping[str, Any]], after: Iterable[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    kept = [dict(item) for item in after]
    gone = [item["ip"] for item in before if item not in kept]
    return [*kept, *({"ip": ip, "$patch": "delete"} for ip in gone)]
