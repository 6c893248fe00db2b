"""
Wanted pod × what the runtime has × now → what to do next.

Pure. Called again after its steps were done and whenever something changed, so it
plans one stage at a time: stop what must go, a sandbox, init containers in order,
then the rest. A pod that is as it should be gives no steps, and the time at which
something will be due (back-off, deadline).
"""

import json
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
    deadline_left,
    is_due,
    is_finished,
    is_started,
    is_terminal,
    may_restart,
    moment,
    resources_in_force,
)

FIRST_DELAY, LONGEST_DELAY = timedelta(seconds=10), timedelta(minutes=5)
RESET_AFTER = 2 * LONGEST_DELAY
CRASH_LOOP = "CrashLoopBackOff"
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


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    id: str


@dataclass(frozen=True, slots=True)
class Resize:
    """Give a running container the resources that the pod now names (KEP-1287)."""

    seen: Seen


Step = Resize | MakeSandbox | StopSandbox | Run | Stop | StopAll | Remove | RemoveSandbox


@dataclass(slots=True)
class Plan:
    steps: list[Step] = field(default_factory=list)
    waiting: dict[str, Waiting] = field(default_factory=dict)  # container → why it does not run
    again_at: datetime | None = None
    gone: bool = False  # nothing of the pod runs any more, and nothing will

    def later(self, at: datetime) -> None:
        self.again_at = at if self.again_at is None else min(self.again_at, at)


@dataclass(frozen=True, slots=True)
class _Case:
    """What one call decides about; ``made`` is what it has decided so far."""

    pod: Object
    view: PodView
    memory: Memory
    now: datetime
    made: Plan


def plan(pod: Object, view: PodView, memory: Memory, now: datetime) -> Plan:
    made = Plan()
    case = _Case(pod, view, memory, now, made)
    if _must_stop(case):
        _stop(case)
        return made
    if (remaining := deadline_left(pod, now)) is not None:
        made.later(now + remaining)
    made.steps += _leftovers(view)
    if view.sandbox is None:
        _sandbox(case)
    else:
        _containers(case)
    return made


def _must_stop(case: _Case) -> bool:
    if "deletionTimestamp" in case.pod["metadata"] or case.memory.evicted is not None:
        return True
    if deadline_left(case.pod, case.now) == timedelta(0):
        return True
    return is_terminal(case.pod) or is_finished(case.pod, case.view)


def _stop(case: _Case) -> None:
    view, made = case.view, case.made
    if view.alive:
        grace = grace_of(case.pod)
        if case.memory.evicted_grace is not None:
            grace = min(grace, case.memory.evicted_grace)
        made.steps.append(StopAll(grace, "Stopping container {name}"))
        return
    ready = [StopSandbox(s.id) for s in view.sandboxes if s.ready]
    made.steps += ready
    made.gone = not ready


def _leftovers(view: PodView) -> Iterator[Step]:
    """Sandboxes that a newer one replaced, and dead containers beyond those kept."""
    count: dict[str, int] = {}
    used = set()
    for seen in view.containers:
        name = seen.status.name
        count[name] = count.get(name, 0) + 1
        if count[name] > _KEPT and not seen.running:
            yield Remove(seen.status.id, name)
        else:
            used.add(seen.sandbox_id)
    for sandbox in view.sandboxes[1:]:
        if sandbox.ready:
            yield StopSandbox(sandbox.id)
        elif sandbox.id not in used:
            yield RemoveSandbox(sandbox.id)


def _sandbox(case: _Case) -> None:
    view, made, problem = case.view, case.made, case.memory.pod_problem
    if view.alive:
        why = "Pod sandbox changed, it will be killed and re-created."
        made.steps.append(StopAll(grace_of(case.pod), why))
    elif problem is not None and not is_due(problem.retry_at, problem.delay, case.now):
        made.later(problem.retry_at)
    else:
        attempt = view.sandboxes[0].attempt + 1 if view.sandboxes else 0
        made.steps.append(MakeSandbox(attempt))


def _containers(case: _Case) -> None:
    spec, view = case.pod["spec"], case.view
    for container in spec.get("ephemeralContainers", ()):
        if view.latest(container["name"]) is None:  # started once and never again
            _start(container, case)
    begun = any(view.current(c["name"]) for c in spec["containers"])
    for container in spec.get("initContainers", ()):
        if begun and not is_sidecar(container):
            continue
        if not _init(container, case) and not begun:
            return
    for container in spec["containers"]:
        _regular(container, case)


def _init(container: Mapping[str, Any], case: _Case) -> bool:
    """May the next container start?"""
    seen = case.view.current(container["name"])
    if is_sidecar(container):
        _regular(container, case)
        return seen is not None and is_started(container, seen, case.memory)
    if seen is not None and seen.exited and seen.status.exit_code == 0:
        return True
    if seen is None or not seen.running:
        _regular(container, case, fresh=seen is None)
    return False


def _regular(container: Mapping[str, Any], case: _Case, *, fresh: bool = False) -> None:
    """``fresh``: what an earlier sandbox had of it does not count, as for init containers."""
    name, made = container["name"], case.made
    seen, current = case.view.latest(name), case.view.current(name)
    if current is not None and current.running:
        if why := _unwanted(container, current, case.memory):
            made.steps.append(Stop(current, why))
        elif _differs(container, current, case.memory):
            made.steps.append(Resize(current))
        return
    if seen is not None and seen.exited and not fresh:
        if not may_restart(case.pod, container, seen.status.exit_code):
            return
        backoff = case.memory.restarts.get(name)
        if backoff is not None:
            due = moment(seen.status.finished_at) + backoff.delay
            if not is_due(due, backoff.delay, case.now):
                made.later(due)
                made.waiting[name] = _crash_loop(case.pod, name, backoff)
                return
    _start(container, case)


def _start(container: Mapping[str, Any], case: _Case) -> None:
    name, view, made = container["name"], case.view, case.made
    problem = case.memory.problems.get(name)
    if problem is not None and not is_due(problem.retry_at, problem.delay, case.now):
        made.later(problem.retry_at)
        made.waiting[name] = Waiting(problem.reason, problem.message)
    elif view.sandbox is not None:
        seen = view.latest(name)
        attempt = seen.status.attempt + 1 if seen is not None else 0
        made.steps.append(Run(name, attempt, view.sandbox.id))


def _unwanted(container: Mapping[str, Any], seen: Seen, memory: Memory) -> str:
    if why := memory.unhealthy.get(seen.status.id):
        return why
    known = seen.status.annotations.get(CONTAINER_HASH)
    if known and known != container_hash(container):
        return "Container {name} definition changed, will be restarted"
    if _needs_restart(container, seen, memory):
        return "Container {name} resize requires restart"
    return ""


def _differs(container: Mapping[str, Any], seen: Seen, memory: Memory) -> bool:
    known = resources_in_force(seen, memory)
    return bool(known) and json.loads(known) != (container.get("resources") or {})


def _needs_restart(container: Mapping[str, Any], seen: Seen, memory: Memory) -> bool:
    """Of what changed, is anything marked RestartContainer?"""
    marked = {
        rule["resourceName"]
        for rule in container.get("resizePolicy", ())
        if rule["restartPolicy"] == "RestartContainer"
    }
    if not marked or not _differs(container, seen, memory):
        return False
    old = json.loads(resources_in_force(seen, memory))
    new = container.get("resources") or {}
    return any(
        old.get(kind, {}).get(name) != new.get(kind, {}).get(name)
        for name in marked
        for kind in ("requests", "limits")
    )


def _crash_loop(pod: Object, name: str, backoff: Backoff) -> Waiting:
    meta = pod["metadata"]
    minutes, seconds = divmod(int(backoff.delay.total_seconds()), 60)
    shown = f"{minutes}m{seconds}s" if minutes else f"{seconds}s"
    where = f"pod={meta['name']}_{meta['namespace']}({uid_of(pod)})"
    message = f"back-off {shown} restarting failed container={name} {where}"
    return Waiting(CRASH_LOOP, message)


def next_backoff(backoff: Backoff | None, now: datetime) -> Backoff:
    """After a restart: 10 s, doubled each time up to 5 min, forgotten after 10 min of calm."""
    if backoff is None or now - backoff.since > RESET_AFTER:
        return Backoff(FIRST_DELAY, now)
    return Backoff(min(LONGEST_DELAY, 2 * backoff.delay), now)
