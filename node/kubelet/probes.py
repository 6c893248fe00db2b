"""
Liveness, readiness and startup probes: one timer for each, only for containers that have them.

The results go to the pod's worker, which decides; nothing here stops a container.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

from controlplane.client.base import Object
from node.cri.base import Runtime
from node.kubelet.actions import Target, perform
from node.kubelet.base import Clock, Recorder, is_sidecar
from node.kubelet.view import Memory, PodView, Seen, moment

KINDS = ("startupProbe", "livenessProbe", "readinessProbe")
_EVENT = {"startupProbe": "Startup", "livenessProbe": "Liveness", "readinessProbe": "Readiness"}


class Probes:
    """
    The probes of one pod.

    Its mutable state: a task for each, by container id and kind; and how often each kind
    succeeded and failed, by container, for those who ask.
    """

    def __init__(
        self,
        group: asyncio.TaskGroup,
        *,
        runtime: Runtime,
        recorder: Recorder,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        self._group = group
        self._runtime = runtime
        self._recorder = recorder
        self._clock = clock
        self._wake = wake
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.counts: Counter[tuple[str, str, str]] = Counter()  # container, kind, result

    def sync(self, pod: Object, view: PodView, memory: Memory, *, stopping: bool) -> None:
        """Start what is missing, end what is for containers that are gone."""
        wanted: dict[tuple[str, str], tuple[Mapping[str, Any], Seen]] = {}
        spec = pod["spec"]
        probed = [c for c in spec.get("initContainers", ()) if is_sidecar(c)] + spec["containers"]
        for container in probed:
            seen = view.current(container["name"])
            if seen is None or not seen.running:
                continue
            for kind in KINDS:
                if container.get(kind) and not (stopping and kind != "readinessProbe"):
                    wanted[seen.status.id, kind] = container, seen
        for key in self._tasks.keys() - wanted.keys():
            self._tasks.pop(key).cancel()
        ip = view.ips[0] if view.ips else ""
        for key, (container, seen) in wanted.items():
            if key not in self._tasks:
                probe = _Probe(self, pod, container, seen, key[1], memory, ip)
                self._tasks[key] = self._group.create_task(probe.run())

    def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        self._tasks.clear()


class _Probe:
    """One probe of one container, from its start to its end."""

    def __init__(  # noqa: PLR0917 - made in one place, by Probes
        self,
        owner: Probes,
        pod: Object,
        container: Mapping[str, Any],
        seen: Seen,
        kind: str,
        memory: Memory,
        ip: str,
    ) -> None:
        self._owner = owner
        self._pod = pod
        self._container = container
        self._seen = seen
        self._kind = kind
        self._memory = memory
        self._spec: Mapping[str, Any] = container[kind]
        self._target = Target(
            runtime=owner._runtime,
            container_id=seen.status.id,
            container=container,
            ip=ip,
            limit=self._spec.get("timeoutSeconds", 1),
        )

    async def run(self) -> None:
        delay = timedelta(seconds=self._spec.get("initialDelaySeconds", 0))
        await self._until(moment(self._seen.status.started_at) + delay)
        period = self._spec.get("periodSeconds", 10)
        streak, before = 0, None
        while True:
            if not self._due():
                await asyncio.sleep(min(1, period))
                continue
            try:
                problem = await perform(self._spec, self._target)
            except Exception as err:
                problem = str(err) or type(err).__name__
            streak = streak + 1 if before == (not problem) else 1
            before = not problem
            result = "failed" if problem else "successful"
            self._owner.counts[self._container["name"], _EVENT[self._kind], result] += 1
            if problem:
                self._tell(problem)
            if self._settle(problem, streak):
                return
            await asyncio.sleep(period)

    async def _until(self, due: datetime) -> None:
        seconds = (due - self._owner._clock()).total_seconds()
        if seconds > 0:
            await asyncio.sleep(seconds)

    def _due(self) -> bool:
        """Liveness and readiness wait for the startup probe."""
        if self._kind == "startupProbe" or not self._container.get("startupProbe"):
            return True
        return self._seen.status.id in self._memory.started

    def _settle(self, problem: str, streak: int) -> bool:
        """Take the result in; is this probe done?"""
        id_, memory = self._seen.status.id, self._memory
        enough = self._spec.get(
            "failureThreshold" if problem else "successThreshold", 3 if problem else 1
        )
        if streak < enough:
            return False
        match self._kind, bool(problem):
            case "startupProbe", False:
                memory.started.add(id_)
                self._owner._wake()
                return True
            case "readinessProbe", failed:
                if memory.ready.get(id_) is not (not failed):
                    memory.ready[id_] = not failed
                    self._owner._wake()
                return False
            case _, True:
                shown = _EVENT[self._kind].lower()
                memory.unhealthy[id_] = (
                    "Container {name} failed " + shown + " probe, will be restarted"
                )
                self._owner._wake()
                return True
            case _:
                return False

    def _tell(self, problem: str) -> None:
        about = with_field_path(self._pod, self._container["name"])
        text = f"{_EVENT[self._kind]} probe failed: {problem}"
        self._owner._recorder.record(about, "Warning", "Unhealthy", text)


def with_field_path(pod: Object, container: str) -> Object:
    """The pod, saying which container an event is about."""
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        if any(c["name"] == container for c in pod["spec"].get(kind, ())):
            return {**pod, "fieldPath": f"spec.{kind}{{{container}}}"}
    return pod
