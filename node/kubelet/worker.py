"""
One pod, from the moment it is bound here until nothing is left of it.

A worker looks (what the runtime has), plans, does, and reports; then it sleeps until
something wakes it: a change of the pod, an event of the runtime, a probe, a source it
refers to, or a time that the plan named. A pod whose object is gone is driven by what
the runtime still has of it.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from controlplane.client.base import Client, Object, PatchType, Unreachable
from controlplane.objects.errors import StatusError
from node.cri.base import (
    Container,
    ContainerState,
    NotFound,
    RuntimeFailure,
    Sandbox,
)
from node.kubelet import cgroups, files, logs, spec, status
from node.kubelet.apply import Failed, Hands, Parts
from node.kubelet.base import POD_UID, PODS, all_containers, key_of, uid_of
from node.kubelet.plan import CRASH_LOOP, Plan, plan
from node.kubelet.probes import Probes, with_field_path
from node.kubelet.view import Memory, PodView, Seen, Waiting
from node.kubelet.volumes import Ready

_log = logging.getLogger(__name__)
_MESSAGE_BYTES = 4096
_LOG_LINES, _LOG_BYTES = 80, 2048
_RETRY_FIRST, _RETRY_LONGEST = 0.2, 10.0
_LAG_FIRST, _LAG_LONGEST = 0.02, 2.0


class Worker:
    """Its mutable state is all here: the pod as last seen, the view, the memory, what is due."""

    def __init__(
        self,
        parts: Parts,
        client: Client,
        group: asyncio.TaskGroup,
        pod: Object,
        *,
        index: Callable[[str, str], None],
    ) -> None:
        self._parts = parts
        self._client = client
        self._group = group
        self._index = index  # (runtime id, pod uid): who is told of the runtime's events
        self.pod = pod
        self.uid = uid_of(pod)
        self.view = PodView()
        self.memory = Memory()
        self.removed = False  # the object is gone from the API
        self.status: Mapping[str, Any] = pod.get("status", {})  # as last written
        self.ended = asyncio.Event()  # nothing runs any more
        self._hands = Hands(parts, self.memory)
        self._probes = Probes(
            group,
            runtime=parts.runtime,
            recorder=parts.recorder,
            clock=parts.clock,
            wake=self.wake,
        )
        self._wake = asyncio.Event()
        self._dirty = True  # the runtime may have changed
        self._stale = False  # volumes have to be brought up to date
        self._exited: set[str] = set()  # ids that ended, though the runtime may not say so yet
        self._lag = _LAG_FIRST
        self._ended: dict[str, Seen] = {}
        self._held_back: dict[str, str] = {}  # container name → id whose back-off was told
        self._doing: asyncio.Task[None] | None = None
        self._wanted: Mapping[str, Any] | None = None
        # As last written. A server may keep it in other words (quantities): never written twice.
        self._sent: Mapping[str, Any] | None = None
        self._version = 0  # resourceVersion of the last write
        self._report = asyncio.Event()
        self._written = asyncio.Event()
        self._cleaned = False

    @property
    def ready(self) -> Ready | None:
        """Its volumes, once they are there."""
        return self._hands.ready

    @property
    def probed(self) -> Counter[tuple[str, str, str]]:
        """How often each probe succeeded and failed: container, kind, result."""
        return self._probes.counts

    # -- what others tell it; none of these waits

    def wake(self) -> None:
        self._wake.set()

    def update(self, pod: Object) -> None:
        before, self.pod = self.pod, pod
        self.status = pod.get("status", {})
        if self._is_overwritten(pod):
            self._sent = None
        old, new = before["metadata"], pod["metadata"]
        if old.get("labels") != new.get("labels") or old.get("annotations") != new.get(
            "annotations"
        ):
            self._stale = True
        if old.get("deletionGracePeriodSeconds") != new.get("deletionGracePeriodSeconds"):
            self._interrupt()
        self.wake()

    def _is_overwritten(self, pod: Object) -> bool:
        """Did somebody else change what we reported, as the node controller does?"""
        version = str(pod["metadata"].get("resourceVersion", ""))
        if self._sent is None or not version.isdigit() or int(version) <= self._version:
            return False
        return _ours(pod.get("status", {})) != _ours(self._sent)

    def remove(self) -> None:
        """The object was deleted."""
        self.removed = True
        if "deletionTimestamp" not in self.pod["metadata"]:
            meta = {**self.pod["metadata"], "deletionTimestamp": "gone"}
            self.pod = {**self.pod, "metadata": meta}
            self._interrupt()
        self.wake()

    def evict(self, why: Waiting, *, disruption: str = "", grace: int | None = None) -> None:
        """It has to go; :attr:`ended` is set when nothing of it runs any more."""
        self.memory.evicted, self.memory.evicted_grace = why, grace
        self.memory.disrupted = disruption
        self._interrupt()
        self.wake()

    def source_changed(self) -> None:
        """A config map or secret in use has changed: volumes follow, errors are tried again."""
        self._stale = True
        self.memory.pod_problem = None
        for name, problem in list(self.memory.problems.items()):
            if not problem.is_image:
                del self.memory.problems[name]
        self.wake()

    def clock_was_set(self) -> None:
        """What was to be done at a time of day is looked at anew."""
        self._stale = True
        self.wake()

    def runtime_changed(self, id_: str = "", kind: str = "") -> None:
        self._dirty = True
        if kind == "stopped":
            self._exited.add(id_)
            self._lag = _LAG_FIRST
        self.wake()

    def _interrupt(self) -> None:
        if self._doing is not None:
            self._doing.cancel()

    # -- its life

    async def run(self) -> None:
        reporter = self._group.create_task(self._reporter())
        delay = _RETRY_FIRST
        try:
            while True:
                self._wake.clear()
                try:
                    seconds = await self._pass()
                except Exception as err:
                    # A worker must outlive whatever its pod makes it stumble over.
                    self._stumbled(err)
                    self._dirty = True
                    seconds, delay = delay, min(_RETRY_LONGEST, 2 * delay)
                else:
                    delay = _RETRY_FIRST
                if seconds is not None and seconds < 0:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), seconds)
        finally:
            reporter.cancel()
            self._probes.stop()
            self._parts.sources.release(self.uid)

    async def _pass(self) -> float | None:
        """Seconds until the next one is due, None: only when woken; negative: all is done."""
        if self._dirty:
            await self._look()
        made = plan(self.pod, self.view, self.memory, self._parts.clock())
        self._tell(made)
        if made.steps:
            await self._perform(made)
            self._wake.set()
            return 0
        if made.gone:
            return await self._end()
        if self._stale or self._hands.ready is None:
            self._stale = False
            with contextlib.suppress(Failed):
                await self._hands.prepare(self.pod, self.view.ips)
        return self._due(made)

    def _due(self, made: Plan) -> float | None:
        now = self._parts.clock()
        seconds = [] if made.again_at is None else [(made.again_at - now).total_seconds()]
        ready = self._hands.ready
        if ready is not None and ready.refresh_at is not None:
            left = ready.refresh_at - now.timestamp()
            self._stale = self._stale or left <= 0
            seconds.append(left)
        if problem := self.memory.pod_problem:
            seconds.append((problem.retry_at - now).total_seconds())
            self._stale = True
        if self._exited:
            seconds.append(self._lag)
            self._lag = min(_LAG_LONGEST, 2 * self._lag)
            self._dirty = True
        return max(0.001, min(seconds)) if seconds else None

    async def _perform(self, made: Plan) -> None:
        """In a task of its own, so that a deletion can interrupt a long pull."""
        self._doing = self._group.create_task(self._steps(made))
        try:
            await asyncio.wait({self._doing})
        finally:
            self._doing.cancel()
            self._doing = None
            self._dirty = True

    async def _steps(self, made: Plan) -> None:
        try:
            for step in made.steps:
                await self._hands.perform(step, self.pod, self.view)
                if step is not made.steps[-1]:
                    await self._look()
                    self._tell(plan(self.pod, self.view, self.memory, self._parts.clock()))
        except Failed:
            pass
        except Exception as err:
            self._stumbled(err)
            await asyncio.sleep(_RETRY_FIRST)

    def _stumbled(self, err: Exception) -> None:
        expected = isinstance(err, RuntimeFailure | StatusError | Unreachable | OSError)
        _log.warning("pod %s/%s: %s", *key_of(self.pod), err, exc_info=None if expected else err)

    # -- looking

    async def _look(self) -> None:
        self._dirty = False
        runtime, labels = self._parts.runtime, {POD_UID: self.uid}
        sandboxes = sorted(
            await runtime.sandboxes(labels), key=lambda s: (s.created_at, s.attempt), reverse=True
        )
        containers = sorted(
            await runtime.containers(labels), key=lambda c: (c.attempt, c.created_at), reverse=True
        )
        seen = tuple([s for c in containers if (s := await self._see(c)) is not None])
        for id_ in [*(s.id for s in sandboxes), *(c.id for c in containers)]:
            self._index(id_, self.uid)
        ips = await self._ips(sandboxes)
        self.view = PodView(tuple(sandboxes), seen, ips)
        running = {c.status.id for c in seen if c.running} | {s.id for s in sandboxes if s.ready}
        self._exited &= running
        self._adopt()

    async def _see(self, container: Container) -> Seen | None:
        if container.id in self._ended:
            return self._ended[container.id]
        try:
            found = await self._parts.runtime.container_status(container.id)
        except NotFound:
            return None
        seen = Seen(found, container.sandbox_id)
        if found.state is ContainerState.EXITED:
            message = await asyncio.to_thread(self._message, seen)
            seen = self._ended[container.id] = Seen(found, container.sandbox_id, message)
        return seen

    def _message(self, seen: Seen) -> str:
        """What the container left; the end of its log where it asked for that. Blocks."""
        name, found = seen.status.name, seen.status
        path = spec.message_file(self.pod, self._parts.settings, name, found.attempt)
        try:
            text = path.read_bytes()[:_MESSAGE_BYTES].decode(errors="replace")
        except OSError:
            text = ""
        container = next((c for c in all_containers(self.pod) if c["name"] == name), {})
        fallback = container.get("terminationMessagePolicy") == "FallbackToLogsOnError"
        if not text and fallback and found.exit_code != 0 and found.log_path:
            text = logs.tail(Path(found.log_path), _LOG_LINES)[-_LOG_BYTES:]
        return text

    async def _ips(self, sandboxes: list[Sandbox]) -> tuple[str, ...]:
        if not sandboxes or not sandboxes[0].ready:
            return ()
        if self.pod["spec"].get("hostNetwork"):
            return self._parts.settings.node_ips
        if self.view.ips and self.view.sandbox and self.view.sandbox.id == sandboxes[0].id:
            return self.view.ips
        try:
            return (await self._parts.runtime.sandbox_status(sandboxes[0].id)).ips
        except NotFound:
            return ()

    def _adopt(self) -> None:
        """After a restart of the agent, what was ready stays so until a probe says otherwise."""
        reported = {
            s.get("containerID"): s
            for kind in ("containerStatuses", "initContainerStatuses")
            for s in self.pod.get("status", {}).get(kind, ())
        }
        for seen in self.view.alive:
            known = reported.get(f"containerd://{seen.status.id}")
            if known and seen.status.id not in self.memory.ready:
                self.memory.ready[seen.status.id] = bool(known.get("ready"))
                if known.get("started"):
                    self.memory.started.add(seen.status.id)

    # -- reporting

    def _tell(self, made: Plan) -> None:
        stopping = made.gone or "deletionTimestamp" in self.pod["metadata"]
        self._probes.sync(self.pod, self.view, self.memory, stopping=stopping)
        if self.removed:
            return
        given = status.Inputs(
            pod={**self.pod, "status": self._base()},
            view=self.view,
            memory=self.memory,
            waiting=made.waiting,
            settings=self._parts.settings,
            now=self._parts.clock(),
        )
        self._tell_of_crashes(made)
        self._wanted = status.pod_status(given)
        self._written.clear()
        self._report.set()

    def _tell_of_crashes(self, made: Plan) -> None:
        """One event for each end of a container after which its restart is held back."""
        for name, why in made.waiting.items():
            seen = self.view.latest(name)
            if why.reason != CRASH_LOOP or seen is None:
                continue
            if self._held_back.get(name) == seen.status.id:
                continue
            self._held_back[name] = seen.status.id
            namespace, pod = key_of(self.pod)
            where = f"{pod}_{namespace}({self.uid})"
            text = f"Back-off restarting failed container {name} in pod {where}"
            about = with_field_path(self.pod, name)
            self._parts.recorder.record(about, "Warning", "BackOff", text)

    def _base(self) -> Mapping[str, Any]:
        """The status to go on from: the API's, but our own latest words where not yet written."""
        if self._wanted is None:
            return self.status
        own = {c["type"]: c for c in self._wanted["conditions"] if c["type"] in status.OURS}
        others = [c for c in self.status.get("conditions", ()) if c["type"] not in own]
        return {
            **self.status,
            "startTime": self._wanted["startTime"],
            "conditions": [*own.values(), *others],
        }

    async def _reporter(self) -> None:
        """Writes the latest status; what was overtaken meanwhile is never sent."""
        delay = _RETRY_FIRST
        while True:
            await self._report.wait()
            self._report.clear()
            try:
                await self._write()
            except StatusError as err:
                if err.code not in (404, 409):
                    _log.warning("status of %s/%s: %s", *key_of(self.pod), err)
                    self._report.set()
            except Unreachable:
                self._report.set()
            except Exception as err:
                self._stumbled(err)
                self._report.set()
            if self._report.is_set():
                await asyncio.sleep(delay)
                delay = min(_RETRY_LONGEST, 2 * delay)
            else:
                delay = _RETRY_FIRST
                self._written.set()

    async def _write(self) -> None:
        wanted = self._wanted
        if wanted is None or self.removed or wanted == self._sent:
            return
        changes = status.patch(self.status, wanted)
        if not changes:
            self._sent = wanted
            return
        namespace, name = key_of(self.pod)
        body = {"metadata": {"uid": self.uid}, "status": changes}
        answer = await self._client.patch(
            PODS, namespace, name, body=body, type=PatchType.STRATEGIC, subresource="status"
        )
        self._sent, self.status = wanted, answer.get("status", wanted)
        version = str(answer["metadata"].get("resourceVersion", ""))
        self._version = int(version) if version.isdigit() else 0

    # -- the end

    async def _end(self) -> float | None:
        """Nothing runs any more: clean up, and let the API server forget a deleted pod."""
        if not self._cleaned:
            await self._clean()
        self.ended.set()
        if self.removed:
            await self._forget()
            return -1
        if "deletionTimestamp" not in self.pod["metadata"]:
            return None
        await self._written.wait()
        namespace, name = key_of(self.pod)
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        try:
            await self._client.delete(PODS, namespace, name, options=options)
        except StatusError as err:
            if err.code not in (404, 409):
                raise
        return None

    async def _clean(self) -> None:
        folder = self._parts.settings.pods_dir / self.uid
        for part in ("volume-subpaths", "volumes"):
            await asyncio.to_thread(files.remove_tree, folder / part)
        await asyncio.to_thread(cgroups.remove_pod, self.pod, self._parts.settings)
        self._parts.sources.release(self.uid)
        self._cleaned = True

    async def _forget(self) -> None:
        """The last of a pod: containers, sandboxes, folders, logs."""
        runtime = self._parts.runtime
        settings = self._parts.settings
        for seen in self.view.containers:
            await runtime.remove_container(seen.status.id)
            await asyncio.to_thread(logs.unlink, settings, seen.status.id)
        for sandbox in self.view.sandboxes:
            await runtime.stop_sandbox(sandbox.id)
            await runtime.remove_sandbox(sandbox.id)
        await self._parts.volumes.remove(self.uid)
        await asyncio.to_thread(files.remove_tree, spec.log_directory(self.pod, settings))


def _ours(reported: Mapping[str, Any]) -> tuple[Any, ...]:
    conditions = reported.get("conditions", ())
    own = sorted((c["type"], c["status"]) for c in conditions if c["type"] in status.OURS)
    return reported.get("phase"), own
