"""What the runtime has of one pod, as values, and the questions that planning and status share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from controlplane.objects import meta
from controlplane.objects.moment import left
from node.cri.base import ContainerState, ContainerStatus, Sandbox
from node.kubelet.base import RESOURCES, is_sidecar

TERMINAL = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Seen:
    """One container of the runtime; ``message`` is what it left at its end."""

    status: ContainerStatus
    sandbox_id: str
    message: str = ""

    @property
    def running(self) -> bool:
        return self.status.state is ContainerState.RUNNING

    @property
    def exited(self) -> bool:
        return self.status.state is ContainerState.EXITED


@dataclass(frozen=True, slots=True)
class PodView:
    """Sandboxes and containers, each newest first."""

    sandboxes: tuple[Sandbox, ...] = ()
    containers: tuple[Seen, ...] = ()
    ips: tuple[str, ...] = ()  # of the sandbox that is ready; the node's with its network

    @property
    def sandbox(self) -> Sandbox | None:
        """The one that is ready; an older one that is ready too does not count."""
        return next((s for s in self.sandboxes[:1] if s.ready), None)

    def latest(self, name: str) -> Seen | None:
        return next((c for c in self.containers if c.status.name == name), None)

    def previous(self, name: str) -> Seen | None:
        """The one before the latest."""
        named = [c for c in self.containers if c.status.name == name]
        return named[1] if len(named) > 1 else None

    def current(self, name: str) -> Seen | None:
        """The latest, if it belongs to the sandbox that is ready."""
        seen, sandbox = self.latest(name), self.sandbox
        return seen if seen and sandbox and seen.sandbox_id == sandbox.id else None

    @property
    def alive(self) -> tuple[Seen, ...]:
        return tuple(c for c in self.containers if c.running)


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str
    message: str = ""


@dataclass(slots=True)
class Backoff:
    delay: timedelta
    since: datetime


@dataclass(slots=True)
class Problem:
    """Why a container (or the pod) could not be started, and when to try again."""

    reason: str
    message: str
    retry_at: datetime
    delay: timedelta
    is_image: bool = False


@dataclass(slots=True)
class Memory:
    """What the agent knows of a pod and the runtime does not; lost at a restart without harm."""

    restarts: dict[str, Backoff] = field(default_factory=dict)  # by container name
    problems: dict[str, Problem] = field(default_factory=dict)  # by container name
    pod_problem: Problem | None = None  # volumes, sandbox
    unhealthy: dict[str, str] = field(default_factory=dict)  # container id → why it must go
    started: set[str] = field(default_factory=set)  # container ids whose startup probe passed
    ready: dict[str, bool] = field(default_factory=dict)  # container id → readiness probe
    evicted: Waiting | None = None  # why it has to go, or was never let in
    evicted_grace: int | None = None  # seconds; None: the pod's own
    disrupted: str = ""  # the message of its DisruptionTarget
    resized: dict[str, str] = field(default_factory=dict)  # container id → resources, as JSON


def resources_in_force(seen: Seen, memory: Memory) -> str:
    """What a running container has now, as JSON: changed in place or as it was started."""
    return memory.resized.get(seen.status.id) or seen.status.annotations.get(RESOURCES, "")


def is_due(at: datetime, delay: timedelta, now: datetime) -> bool:
    """
    Is a wait of ``delay`` that should end ``at`` over?

    Also where it would take longer than ever meant: the clock was set back meanwhile.
    """
    return now >= at or at - now > delay


def moment(nanoseconds: int) -> datetime:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC)


def policy_of(pod: Object, container: Mapping[str, Any]) -> str:
    """Always, OnFailure or Never: the container's own where it has one (KEP-5307)."""
    return str(container.get("restartPolicy") or pod["spec"].get("restartPolicy", "Always"))


def may_restart(pod: Object, container: Mapping[str, Any], exit_code: int) -> bool:
    for rule in container.get("restartPolicyRules", ()):
        codes = rule.get("exitCodes") or {}
        matches = exit_code in codes.get("values", ())
        if rule.get("action") == "Restart" and matches == (codes.get("operator") == "In"):
            return True
    match policy_of(pod, container):
        case "Always":
            return True
        case "OnFailure":
            return exit_code != 0
        case _:
            return False


def has_probe(container: Mapping[str, Any], kind: str) -> bool:
    return bool(container.get(kind))


def is_started(container: Mapping[str, Any], seen: Seen, memory: Memory) -> bool:
    if not seen.running:
        return False
    return not has_probe(container, "startupProbe") or seen.status.id in memory.started


def is_ready(container: Mapping[str, Any], seen: Seen, memory: Memory) -> bool:
    if not is_started(container, seen, memory):
        return False
    return not has_probe(container, "readinessProbe") or memory.ready.get(seen.status.id, False)


def deadline_left(pod: Object, now: datetime) -> timedelta | None:
    """What is left of the time that the pod may run; None: all the time there is."""
    seconds = pod["spec"].get("activeDeadlineSeconds")
    started = pod.get("status", {}).get("startTime")
    if seconds is None or started is None:
        return None
    span = timedelta(seconds=seconds)
    return left(meta.parse_time(started), span, now, ahead=span)


def failed_init(pod: Object, view: PodView) -> str:
    """The init container whose failure is final, or ""."""
    for container in pod["spec"].get("initContainers", ()):
        seen = view.latest(container["name"])
        if is_sidecar(container) or seen is None or not seen.exited:
            continue
        code = seen.status.exit_code
        if code != 0 and not may_restart(pod, container, code):
            return str(container["name"])
    return ""


def is_finished(pod: Object, view: PodView) -> bool:
    """Has every regular container ended for good, or an init container failed for good?"""
    if failed_init(pod, view):
        return True
    for container in pod["spec"]["containers"]:
        seen = view.latest(container["name"])
        if seen is None or not seen.exited:
            return False
        if may_restart(pod, container, seen.status.exit_code):
            return False
    return True


def is_terminal(pod: Object) -> bool:
    return pod.get("status", {}).get("phase") in TERMINAL
