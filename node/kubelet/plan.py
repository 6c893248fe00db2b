"""
Wanted pod × what the runtime has × now → what to do next.

Pure. Called again after its steps were done and whenever something changed, so it
plans one stage at a time: stop what must go, a sandbox, init containers in order,
then the rest. A pod that is as it should be gives no steps, and the time at which
something will be due (back-off, deadline).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from node.kubelet.base import CONTAINER_HASH, grace_of, is_sidecar, uid_of
from node.kubelet.spec import container_hash
from node.kubelet.view import (
    Backoff,
    Memory,
    PodView,
    Seen,
    Waiting,
    deadline,
    is_finished,
    is_started,
    is_terminal,
    may_restart,
    moment,
)

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=10), timedelta(minutes=5)
RESET_AFTER = 2 * LONGEST_DELAY
_KEPT = 2  # containers of a name: the latest, and the one before it for lastState and logs -p


@dataclass(frozen=True, slots=True)
class MakeSandbox:
    attempt: int


@dataclass(frozen=True, slots=True)
class StopSandbox:
    id: str


@dataclass(frozen=True, slots=True)
class Run:
    """Pull the image, create, start, and run the postStart hook."""

    name: str
    attempt: int
    sandbox_id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop one container because of ``why``; the event's text."""

    seen: Seen
    why: str


@dataclass(frozen=True, slots=True)
class StopAll:
    """Stop every running container, sidecars last and in reverse, within ``grace`` seconds."""

    grace: int
    why: str


@dataclass(frozen=True, slots=True)
class Remove:
    id: str
    name: str


Step = MakeSandbox | StopSandbox | Run | Stop | StopAll | Remove


@dataclass(slots=True)
class Plan:
    steps: list[Step] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)  # container → why it does not run
    again_at: datetime | None = None
    gone: bool = False  # nothing of the pod runs any more, and nothing will

    def later(self, at: datetime) -> None:
        self.again_at = at if self.again_at is None else min(self.again_at, at)


def plan(pod: Object, view: PodView, memory: Memory, now: datetime) -> Plan:
    made = Plan()
    if why := _must_stop(pod, view, memory, now):
        _stop(pod, view, why, made)
        return made
    if (limit := deadline(pod)) is not None:
        made.later(limit)
    made.steps += _leftovers(view)
    if view.sandbox is None:
        _sandbox(pod, view, memory, made, now)
        return made
    _containers(pod, view, memory, made, now)
    return made


def _must_stop(pod: Object, view: PodView, memory: Memory, now: datetime) -> str:
    if "deletionTimestamp" in pod["metadata"] or memory.evicted is not None:
        return "Stopping container {name}"
    limit = deadline(pod)
    if limit is not None and now >= limit:
        return "Stopping container {name}"
    if is_terminal(pod) or is_finished(pod, view):
        return "Stopping container {name}"
    return ""


def _stop(pod: Object, view: PodView, why: str, made: Plan) -> None:
    if view.alive:
        made.steps.append(StopAll(grace_of(pod), why))
        return
    ready = [StopSandbox(s.id) for s in view.sandboxes if s.ready]
    made.steps += ready
    made.gone = not ready


def _leftovers(view: PodView) -> Iterator[Step]:
    """Sandboxes that a newer one replaced, and dead containers beyond those kept."""
    for sandbox in view.sandboxes[1:]:
        if sandbox.ready:
            yield StopSandbox(sandbox.id)
    count: dict[str, int] = {}
    for seen in view.containers:
        name = seen.status.name
        count[name] = count.get(name, 0) + 1
        if count[name] > _KEPT and not seen.running:
            yield Remove(seen.status.id, name)


def _sandbox(pod: Object, view: PodView, memory: Memory, made: Plan, now: datetime) -> None:
    if view.alive:
        why = "Pod sandbox changed, it will be killed and re-created."
        made.steps.append(StopAll(grace_of(pod), why))
        return
    problem = memory.pod_problem
    if problem is not None and now < problem.retry_at:
        made.later(problem.retry_at)
        return
    attempt = view.sandboxes[0].attempt + 1 if view.sandboxes else 0
    made.steps.append(MakeSandbox(attempt))


def _containers(pod: Object, view: PodView, memory: Memory, made: Plan, now: datetime) -> None:
    spec = pod["spec"]
    _ephemeral(pod, view, memory, made, now)
    begun = any(view.current(c["name"]) for c in spec["containers"])
    for container in spec.get("initContainers", ()):
        if begun and not is_sidecar(container):
            continue
        done = _init(pod, container, view, memory, made, now)
        if not done and not begun:
            return
    for container in spec["containers"]:
        _regular(pod, container, view, memory, made, now)


def _init(
    pod: Object,
    container: Mapping[str, Any],
    view: PodView,
    memory: Memory,
    made: Plan,
    now: datetime,
) -> bool:
    """May the next container start?"""
    seen = view.current(container["name"])
    if not is_sidecar(container) and seen is not None and seen.exited:
        if seen.status.exit_code == 0:
            return True
    elif seen is not None and seen.running and not is_sidecar(container):
        return False
    _regular(pod, container, view, memory, made, now)
    return is_sidecar(container) and seen is not None and is_started(container, seen, memory)


def _regular(
    pod: Object,
    container: Mapping[str, Any],
    view: PodView,
    memory: Memory,
    made: Plan,
    now: datetime,
) -> None:
    name = container["name"]
    seen, current = view.latest(name), view.current(name)
    if current is not None and current.running:
        if why := _unwanted(container, current, memory):
            made.steps.append(Stop(current, why))
        return
    if seen is not None and seen.exited and not may_restart(pod, container, seen.status.exit_code):
        return
    if seen is not None and seen.exited:
        backoff = memory.restarts.get(name)
        due = moment(seen.status.finished_at) + backoff.delay if backoff else now
        if now < due and backoff is not None:
            made.later(due)
            made.waiting[name] = _crash_loop(pod, name, backoff)
            return
    _start(container, view, memory, made, now)


def _start(
    container: Mapping[str, Any], view: PodView, memory: Memory, made: Plan, now: datetime
) -> None:
    name = container["name"]
    problem = memory.problems.get(name)
    if problem is not None and now < problem.retry_at:
        made.later(problem.retry_at)
        made.waiting[name] = Waiting(problem.reason, problem.message)
        return
    if view.sandbox is not None:
        seen = view.latest(name)
        attempt = seen.status.attempt + 1 if seen is not None else 0
        made.steps.append(Run(name, attempt, view.sandbox.id))


def _unwanted(container: Mapping[str, Any], seen: Seen, memory: Memory) -> str:
    if why := memory.unhealthy.get(seen.status.id):
        return why
    known = seen.status.annotations.get(CONTAINER_HASH)
    if known and known != container_hash(container):
        return "Container {name} definition changed, will be restarted"
    return ""


def _ephemeral(pod: Object, view: PodView, memory: Memory, made: Plan, now: datetime) -> None:
    """Started once and never again."""
    for container in pod["spec"].get("ephemeralContainers", ()):
        if view.latest(container["name"]) is None:
            _start(container, view, memory, made, now)


def _crash_loop(pod: Object, name: str, backoff: Backoff) -> Waiting:
    meta = pod["metadata"]
    minutes, seconds = divmod(int(backoff.delay.total_seconds()), 60)
    shown = f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
    where = f"pod={meta['name']}_{meta['namespace']}({uid_of(pod)})"
    message = f"back-off {shown} restarting failed container={name} {where}"
    return Waiting("CrashLoopBackOff", message)


def next_backoff(backoff: Backoff | None, now: datetime) -> Backoff:
    """After a restart: 10 s, doubled each time up to 5 min, forgotten after 10 min of calm."""
    if backoff is None or now - backoff.since > RESET_AFTER:
        return Backoff(FIRST_DELAY, now)
    return Backoff(min(LONGEST_DELAY, 2 * backoff.delay), now)
