"""
The kubelet: joins its parts and keeps a worker for each pod of this node.

Pods come from the injected cache, the runtime's changes from its stream of events.
After a restart every worker looks first and finds its containers by their labels, so
nothing of a pod is restarted; what the runtime has and the API has not is stopped.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from controlplane.client.base import Change, Client, Feed, Object, Reads
from controlplane.objects import meta
from controlplane.objects.errors import StatusError
from node.config import Config
from node.cri.base import (
    Runtime,
    RuntimeFailure,
    RuntimeStatus,
    RuntimeUnavailable,
    Sandbox,
    Unsupported,
)
from node.kubelet import admit, cgroups, evict, naming, preempt
from node.kubelet.apply import Parts
from node.kubelet.base import (
    GRACE_PERIOD,
    NODES,
    POD_UID,
    PODS,
    RUNTIME_CLASSES,
    Clock,
    ConfigError,
    Gate,
    OpenGate,
    Settings,
    key_of,
    uid_of,
)
from node.kubelet.counters import Counters
from node.kubelet.images import Images
from node.kubelet.recorder import EventRecorder
from node.kubelet.sources import Sources
from node.kubelet.view import Waiting, is_terminal
from node.kubelet.volumes import Volumes
from node.kubelet.worker import Worker

_log = logging.getLogger(__name__)
_RECONNECT_FIRST, _RECONNECT_LONGEST = 0.1, 5.0
_RELIST_BUSY, _RELIST_CALM = 1.0, 10.0
_UNCLAIMED = 256


class Kubelet:
    """
    Its mutable state: the workers by pod uid, and which pod a runtime id belongs to.

    ``reads`` and ``feed`` show pods of this node (others are ignored) and services;
    they are synced before :meth:`run` is called.
    """

    def __init__(
        self,
        config: Config,
        client: Client,
        reads: Reads,
        feed: Feed,
        *,
        runtime: Runtime,
        clock: Clock,
        gate: Gate | None = None,
        cgroup_root: str = "",
    ) -> None:
        self._config = config
        self._client = client
        self._reads = reads
        self._feed = feed
        self.runtime = runtime
        self._clock = clock
        self._gate = gate or OpenGate()
        self._cgroup_root = cgroup_root
        self.recorder = EventRecorder(client, config.node_name, clock)
        self.counters = Counters()
        self.workers: dict[str, Worker] = {}
        self._owners: dict[str, str] = {}
        self._unclaimed: dict[str, str] = {}  # ids of unknown owners that ended, oldest first
        self.runtime_error = "container runtime is down"  # "" when it answers
        self.on_runtime: list[Callable[[], None]] = []  # called when the runtime comes or goes
        self.on_stirred: list[Callable[[], None]] = []  # something took disk or memory
        self.held: Callable[[], frozenset[str]] = frozenset  # conditions of pressure
        self._group: asyncio.TaskGroup | None = None
        self._parts: Parts | None = None
        self.started_at = meta.rfc3339(clock())

    @property
    def settings(self) -> Settings:
        """Known once the runtime has answered for the first time."""
        if self._parts is None:
            raise RuntimeUnavailable("the container runtime has not answered yet")
        return self._parts.settings

    def worker_of(self, namespace: str, name: str) -> Worker | None:
        """The newest pod of that name on this node."""
        found = [w for w in self.workers.values() if key_of(w.pod) == (namespace, name)]
        return next((w for w in reversed(found) if not w.removed), None)

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; pods keep running after it."""
        with contextlib.suppress(_Stopped):
            try:
                async with asyncio.TaskGroup() as group:
                    self._group = group
                    group.create_task(self._until(stop))
                    await self._main(group)
            except* _Stopped:
                pass

    async def _until(self, stop: asyncio.Event) -> None:
        await stop.wait()
        raise _Stopped

    async def _main(self, group: asyncio.TaskGroup) -> None:
        group.create_task(self.recorder.run())
        settings = await self._settings()
        sources = Sources(self._client, group, self._source_changed, self._clock)
        self._parts = Parts(
            runtime=self.runtime,
            settings=settings,
            reads=self._reads,
            sources=sources,
            volumes=Volumes(
                self._client, sources, settings, reads=self._reads, recorder=self.recorder
            ),
            images=Images(self.runtime, sources, self.recorder),
            recorder=self.recorder,
            gate=self._gate,
            clock=self._clock,
            machine=_machine_resolv_conf(settings.resolv_conf),
            handler_of=self._handler_of,
            pods=lambda: [worker.pod for worker in self.workers.values()],
            stirred=self._stirred,
            counters=self.counters,
        )
        unsubscribe = self._feed.subscribe([PODS], self._pod_changed)
        try:
            await self._stop_orphans(settings)
            await self._follow_runtime()
        finally:
            unsubscribe()

    async def _settings(self) -> Settings:
        config = self._config
        driver, status = await self._introduce()
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        return Settings(
            node_name=config.node_name,
            node_ips=config.node_ips,
            pods_dir=config.pods_dir,
            log_dir=config.log_dir,
            cluster_dns=str(config.cluster_dns),
            cluster_domain=config.cluster_domain,
            resolv_conf=Path(config.resolv_conf or "/etc/resolv.conf"),
            cgroup_root=self._cgroup_root,
            cgroup_driver=driver,
            cgroup_v2=cgroups.is_v2(),
            handlers=status.handlers,
            memory=pages * size,
            cpus=os.cpu_count() or 1,
            allocatable={"cpu": str(os.cpu_count() or 1), "memory": str(pages * size)},
        )

    async def _introduce(self) -> tuple[str, RuntimeStatus]:
        """The runtime's cgroup driver and abilities; waits: nothing can be done without it."""
        delay = _RECONNECT_FIRST
        while True:
            try:
                return await self.runtime.cgroup_driver(), await self.runtime.status()
            except RuntimeFailure as err:
                self._set_runtime(str(err))
            await asyncio.sleep(delay)
            delay = min(_RECONNECT_LONGEST, 2 * delay)

    # -- pods

    def _pod_changed(self, change: Change) -> None:
        new = change.new
        if new is None:
            old = change.old
            if old is not None and uid_of(old) in self.workers:
                self.workers[uid_of(old)].remove()
            return
        if new["spec"].get("nodeName") != self._config.node_name:
            return
        for worker in self.workers.values():
            # A namesake: the old one was deleted while we were not told.
            if key_of(worker.pod) == key_of(new) and worker.uid != uid_of(new):
                worker.remove()
        known = self.workers.get(uid_of(new))
        if known is not None:
            known.update(new)
        else:
            self._begin(new)

    def _begin(self, pod: Object) -> Worker:
        if self._group is None or self._parts is None:
            raise RuntimeError("the kubelet does not run")
        worker = Worker(self._parts, self._client, self._group, pod, index=self._index)
        after: Sequence[Worker] = ()
        if not _was_let_in(pod) and pod["spec"]["containers"]:
            # Only new pods: one that runs already is not asked again after a restart.
            after = self._admit(worker)
        self.workers[worker.uid] = worker
        self._group.create_task(self._serve(worker, after))
        return worker

    def _admit(self, worker: Worker) -> Sequence[Worker]:
        """Those that have to end before it may begin: a critical pod is let in all the same."""
        pod, node = worker.pod, self._reads.get(NODES, "", self._config.node_name)
        offered = ((node or {}).get("status") or {}).get("allocatable")
        room = admit.Room(
            node=node,
            allocatable=offered or self.settings.allocatable,
            others=[other for other in self._reads.list(PODS) if self._is_in(other, worker.uid)],
        )
        critical = evict.is_critical(pod)
        refused = evict.refuse(pod, self.held()) or admit.refuse(pod, room, make_room=critical)
        if refused is None and critical and (missing := admit.missing(pod, room)):
            going = preempt.victims(pod, room.others, missing)
            if going is not None:
                return [self._displace(other) for other in going if uid_of(other) in self.workers]
            refused = admit.refuse(pod, room)
        if refused is None:
            return ()
        self.counters.rejections[refused.reason] += 1
        self.recorder.record(pod, "Warning", refused.reason, refused.message)
        worker.memory.evicted = Waiting(refused.reason, f"Pod was rejected: {refused.message}")
        return ()

    def _displace(self, pod: Object) -> Worker:
        worker = self.workers[uid_of(pod)]
        self.recorder.record(pod, "Warning", preempt.REASON, preempt.MESSAGE)
        why = Waiting(preempt.REASON, preempt.MESSAGE)
        worker.evict(why, disruption=preempt.DISRUPTION)
        return worker

    def _is_in(self, pod: Object, but: str) -> bool:
        """Does the pod take something of this node?"""
        if uid_of(pod) == but or pod["spec"].get("nodeName") != self._config.node_name:
            return False
        worker = self.workers.get(uid_of(pod))
        let_in = worker.memory.evicted is None if worker is not None else _was_let_in(pod)
        return let_in and not is_terminal(pod)

    async def _serve(self, worker: Worker, after: Sequence[Worker]) -> None:
        for other in after:
            await other.ended.wait()
        await worker.run()
        del self.workers[worker.uid]
        self._owners = {k: v for k, v in self._owners.items() if v != worker.uid}

    def _index(self, id_: str, uid: str) -> None:
        self._owners[id_] = uid
        if (kind := self._unclaimed.pop(id_, None)) and uid in self.workers:
            self.workers[uid].runtime_changed(id_, kind)

    def clock_was_set(self) -> None:
        """Tokens are renewed; whatever waits for a time of day is looked at anew."""
        if self._parts is not None:
            self._parts.sources.clock_was_set()
        for worker in self.workers.values():
            worker.clock_was_set()

    def _source_changed(self, uid: str) -> None:
        if worker := self.workers.get(uid):
            worker.source_changed()

    async def _handler_of(self, pod: Object) -> str:
        name = pod["spec"]["runtimeClassName"]
        try:
            found = await self._client.get(RUNTIME_CLASSES, "", name)
        except StatusError as err:
            raise ConfigError(
                f'failed to get sandbox runtime: RuntimeClass.node.k8s.io "{name}" not found'
            ) from err
        return str(found.get("handler", ""))

    # -- the runtime

    async def _stop_orphans(self, settings: Settings) -> None:
        """Pods that were deleted while the agent was away."""
        graces = {
            c.labels.get(POD_UID, ""): int(c.annotations.get(GRACE_PERIOD, "30"))
            for c in await self.runtime.containers()
        }
        for sandbox in await self.runtime.sandboxes():
            uid = sandbox.labels.get(POD_UID, "")
            if uid and uid not in self.workers:
                self._begin(_orphan(sandbox, graces.get(uid, 30))).remove()
        if settings.pods_dir.is_dir():
            for folder in settings.pods_dir.iterdir():
                if folder.name not in self.workers and self._parts is not None:
                    await self._parts.volumes.remove(folder.name)

    async def _follow_runtime(self) -> None:
        delay = _RECONNECT_FIRST
        while True:
            try:
                await self._follow_events()
                delay = _RECONNECT_FIRST
            except Unsupported:
                await self._relist()
            except RuntimeFailure as err:
                self._set_runtime(str(err))
            except Exception as err:
                _log.exception("runtime")
                self._set_runtime(str(err))
            await asyncio.sleep(delay)
            delay = min(_RECONNECT_LONGEST, 2 * delay)

    async def _follow_events(self) -> None:
        await self.runtime.version()
        self._set_runtime("")
        for worker in self.workers.values():
            worker.runtime_changed()
        async for event in self.runtime.events():
            owner = self.workers.get(self._owners.get(event.id, ""))
            if owner is not None:
                owner.runtime_changed(event.id, event.kind)
            elif event.kind == "stopped":
                # A container may end before its worker has heard of its id.
                self._unclaimed[event.id] = event.kind
                while len(self._unclaimed) > _UNCLAIMED:
                    del self._unclaimed[next(iter(self._unclaimed))]

    async def _relist(self) -> None:
        """For a runtime without events: quick while something changes, slow when calm."""
        before: object = None
        pause = _RELIST_BUSY
        while True:
            containers = await self.runtime.containers()
            now = {c.id: c.state for c in containers}
            pause = _RELIST_BUSY if now != before else min(_RELIST_CALM, pause * 1.5)
            if now != before:
                for worker in self.workers.values():
                    worker.runtime_changed()
            before = now
            self._set_runtime("")
            await asyncio.sleep(pause)

    def _stirred(self) -> None:
        for tell in self.on_stirred:
            tell()

    def _set_runtime(self, error: str) -> None:
        changed = error != self.runtime_error
        self.runtime_error = error
        if changed:
            for tell in self.on_runtime:
                tell()


class _Stopped(Exception):
    """The orderly end of :meth:`Kubelet.run`."""


def _was_let_in(pod: Object) -> bool:
    """By the agent before this one."""
    return bool(pod.get("status", {}).get("containerStatuses"))


def _orphan(sandbox: Sandbox, grace: int) -> Object:
    """What is left to know of a pod that the API has forgotten."""
    about = {"name": sandbox.name, "namespace": sandbox.namespace, "uid": sandbox.uid}
    spec = {"containers": [], "terminationGracePeriodSeconds": grace}
    return {"metadata": about, "spec": spec, "status": {}}


def _machine_resolv_conf(path: Path) -> naming.ResolvConf:
    try:
        return naming.parse_resolv_conf(path.read_text())
    except OSError:
        return naming.ResolvConf()
