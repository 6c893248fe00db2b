"""
The scheduler: queue → snapshot → filters → scores → bind, and nothing at idle.

A cycle decides without waiting; the binding of one pod goes on while the next one is
decided, since the pod already counts as placed in the view. What the API refuses later is taken
back and tried again.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

from controlplane.client.base import Change, Client, Feed, Object, PatchType, Reads, Unreachable
from controlplane.objects.errors import StatusError
from controlplane.objects.meta import condition, rfc3339
from controlplane.objects.resources import (
    CSI_DRIVERS,
    CSI_STORAGE_CAPACITIES,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.reconcile import pods
from controlplane.reconcile.base import Record
from controlplane.reconcile.clock import Clock
from controlplane.reconcile.events import Recorder
from controlplane.reconcile.volumes import (
    BOUND_BY_CONTROLLER,
    SELECTED_NODE,
    is_reserved_for,
    reference,
)
from controlplane.scheduler import capacity, volumes
from controlplane.scheduler.cycle import Placed, Planner, Unplaced
from controlplane.scheduler.preempt import Choice
from controlplane.scheduler.queue import Event, PodQueue, Waiting
from controlplane.scheduler.snapshot import PodInfo, View, node_info, pod_info

log = logging.getLogger(__name__)

NAME = "default-scheduler"
BINDINGS = 64  # under way at once; they share commits of the store
CLAIM_SECONDS = 600.0  # for provisioners to make what a pod waits for
CYCLES = 16  # decided before others get a turn


@dataclass(slots=True)
class Counters:
    """Since the start; for /metrics."""

    scheduled: int = 0
    unschedulable: int = 0
    errors: int = 0
    preempted: int = 0


class Scheduler:
    """
    Places every pod that names this scheduler; runs until cancelled.

    Its mutable state: the view (nodes and placed pods), the queue, the pods that are
    being bound, and who waits for a claim. All of it changes on the event loop only.
    """

    def __init__(
        self, *, client: Client, reads: Reads, feed: Feed, clock: Clock, name: str = NAME
    ) -> None:
        self._client, self._reads, self._feed, self._clock = client, reads, feed, clock
        self._name = name
        self.view = View()
        self.queue = PodQueue(clock, self._wake)
        self.counters = Counters()
        self._planner = Planner(self.view, reads)
        self._assumed: set[str] = set()
        self._claims: dict[tuple[str, str], asyncio.Event] = {}
        self._group: asyncio.TaskGroup | None = None
        self._deciding = False
        self._slots = asyncio.Semaphore(BINDINGS)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._recorder = Recorder(self._client, self._clock, group.create_task)
            unsubscribe = self._subscribe()
            self._group = group
            try:
                self._wake()
                await asyncio.get_running_loop().create_future()
            finally:
                self.queue.close()
                unsubscribe()

    # -- what changes

    def _subscribe(self) -> Callable[[], None]:
        told: dict[str, Callable[[Change], None]] = {
            NODES.plural: self._node_changed,
            NAMESPACES.plural: self._namespace_changed,
            PODS.plural: self._pod_changed,
            CSI_STORAGE_CAPACITIES.plural: self._capacity_changed,
        }

        def deliver(change: Change) -> None:
            try:
                told.get(change.resource.plural, self._volumes_changed)(change)
            except Exception:  # the Feed's other subscribers must not suffer from it
                log.exception("a change to %s was not understood", change.resource.plural)

        # Nodes before pods, so that the first snapshot knows where pods are.
        watched = [NODES, NAMESPACES, PODS]
        watched += [PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES]
        watched += [CSI_DRIVERS, CSI_STORAGE_CAPACITIES]
        return self._feed.subscribe(watched, deliver)

    def _node_changed(self, change: Change) -> None:
        node = change.new
        if node is None:
            self.view.drop_node(change.name)
            return
        info = node_info(node)
        old = self.view.set_node(info)
        if old is None:
            self.queue.happened(Event.NODE_ADDED)
        elif not info.same_offer(old):
            self.queue.happened(Event.NODE_CHANGED)

    def _namespace_changed(self, change: Change) -> None:
        item = change.new
        labels = (item["metadata"].get("labels") or {}) if item is not None else None
        self.view.set_namespace(change.name, labels)
        self.queue.happened(Event.NAMESPACE_CHANGED)

    def _volumes_changed(self, change: Change) -> None:
        if change.resource == PERSISTENT_VOLUME_CLAIMS:
            waiter = self._claims.get((change.namespace, change.name))
            if waiter is not None:
                waiter.set()
        self.queue.happened(Event.VOLUMES_CHANGED)

    def _capacity_changed(self, change: Change) -> None:
        if capacity.is_more(change.old, change.new):
            self.queue.happened(Event.VOLUMES_CHANGED)

    def _pod_changed(self, change: Change) -> None:
        pod = change.new
        if pod is None or pods.is_finished(pod):
            gone = pod if pod is not None else change.old
            if gone is not None:
                self._forget(gone["metadata"]["uid"])
        elif pod["spec"].get("nodeName"):
            self._placed(pod)
        else:
            self._waits(pod, change)

    def _forget(self, uid: str) -> None:
        self.queue.remove(uid)
        self._planner.nominated.pop(uid, None)
        if uid not in self._assumed and self.view.drop_pod(uid):
            self.queue.happened(Event.POD_GONE)

    def _placed(self, pod: Object) -> None:
        info = pod_info(pod)
        self.queue.remove(info.uid)
        self._planner.nominated.pop(info.uid, None)
        old = self.view.pod(info.uid)
        if old == info:
            return
        self.view.put_pod(info)
        if old is None or old.labels != info.labels:
            self.queue.happened(Event.POD_PLACED)
        elif any(info.requests.get(k, 0) < v for k, v in old.requests.items()) or (
            info.deleting and not old.deleting
        ):
            self.queue.happened(Event.POD_GONE)

    def _waits(self, pod: Object, change: Change) -> None:
        meta, spec = pod["metadata"], pod["spec"]
        uid = meta["uid"]
        if uid in self._assumed or spec.get("schedulerName", NAME) != self._name:
            return
        if meta.get("deletionTimestamp") or spec.get("schedulingGates"):
            self.queue.remove(uid)
            return
        old = change.old
        if uid in self.queue and old is not None:
            same = old["spec"] == spec and old["metadata"].get("labels") == meta.get("labels")
            if same:
                return  # its status changed: most likely our own doing
        nominated = (pod.get("status") or {}).get("nominatedNodeName")
        if nominated and old is None:  # room was made before a restart
            self._planner.nominated[uid] = replace(pod_info(pod), node=nominated)
        self.queue.add(uid, change.namespace, change.name, spec.get("priority") or 0)

    # -- deciding

    def _wake(self) -> None:
        if self._group is not None and not self._deciding and self.queue.active:
            self._deciding = True
            self._group.create_task(self._decide())

    async def _decide(self) -> None:
        try:
            count = 0
            while (waiting := self.queue.take()) is not None:
                try:
                    self._cycle(waiting)
                except Exception:
                    log.exception("pod %s/%s was not scheduled", waiting.namespace, waiting.name)
                    self.counters.errors += 1
                    self.queue.back_off(waiting)
                count += 1
                if count % CYCLES == 0:
                    await asyncio.sleep(0)
        finally:
            self._deciding = False

    def _cycle(self, waiting: Waiting) -> None:
        pod = self._reads.get(PODS, waiting.namespace, waiting.name)
        if pod is None or pod["metadata"]["uid"] != waiting.uid:
            self.queue.remove(waiting.uid)
            return
        match self._planner.place(pod):
            case Placed() as placed:
                self._assume(placed)
                self._spawn(self._bind(waiting, pod, placed))
            case Unplaced() as unplaced:
                self.counters.unschedulable += 1
                self.queue.park(waiting, unplaced.refused_by)
                self._spawn(self._report(pod, unplaced))

    def _assume(self, placed: Placed) -> None:
        self._assumed.add(placed.pod.uid)
        self.queue.remove(placed.pod.uid)
        self.view.put_pod(replace(placed.pod, node=placed.node, spec={}))
        self.queue.happened(Event.POD_PLACED)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        assert self._group is not None
        self._group.create_task(work)

    # -- binding

    async def _bind(self, waiting: Waiting, pod: Object, placed: Placed) -> None:
        meta, node = pod["metadata"], placed.node
        body = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {key: meta[key] for key in ("name", "namespace", "uid")},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        }
        try:
            if placed.chosen:
                await self._bind_volumes(pod, placed)
            async with self._slots:
                await self._client.create(PODS, body, subresource="binding", name=meta["name"])
        except Exception as err:  # whatever it was, the pod must not stay half placed
            if not isinstance(err, StatusError | Unreachable | _ClaimFailed):
                log.exception("pod %s/%s was not bound", meta["namespace"], meta["name"])
            self._take_back(waiting, pod, placed.pod, err)
            return
        self._assumed.discard(placed.pod.uid)
        self.counters.scheduled += 1
        text = f"Successfully assigned {meta['namespace']}/{meta['name']} to {node}"
        self._record(pod, "Normal", "Scheduled", text)
        self._check_still_there(meta["namespace"], placed.pod)

    def _check_still_there(self, namespace: str, info: PodInfo) -> None:
        """While it was being bound its end was not believed; catch up with it."""
        pod = self._reads.get(PODS, namespace, info.name)
        if pod is None or pod["metadata"]["uid"] != info.uid or pods.is_finished(pod):
            self._forget(info.uid)

    def _take_back(self, waiting: Waiting, pod: Object, info: PodInfo, err: Exception) -> None:
        self._assumed.discard(info.uid)
        self.view.drop_pod(info.uid)
        self.queue.happened(Event.POD_GONE)
        self.counters.errors += 1
        current = self._reads.get(PODS, waiting.namespace, waiting.name)
        if current is None or current["metadata"]["uid"] != info.uid:
            return
        if current["spec"].get("nodeName"):  # somebody else was faster
            self._placed(current)
            return
        self._record(pod, "Warning", "FailedScheduling", f"running Bind plugin: {err}")
        self.queue.back_off(waiting)

    async def _bind_volumes(self, pod: Object, placed: Placed) -> None:
        for item, volume in placed.chosen:
            claim = item.claim["metadata"]
            if volume is None:
                body: dict[str, Any] = {"annotations": {SELECTED_NODE: placed.node}}
                await self._client.patch(
                    PERSISTENT_VOLUME_CLAIMS,
                    claim["namespace"],
                    claim["name"],
                    body={"metadata": body},
                )
            else:
                name = volume["metadata"]["name"]
                body = _reservation(volume, item.claim)
                await self._client.patch(PERSISTENT_VOLUMES, "", name, body=body)
        try:
            async with asyncio.timeout(CLAIM_SECONDS):
                for item, _ in placed.chosen:
                    await self._until_bound(item.claim, placed.node)
        except TimeoutError:
            raise _ClaimFailed("binding volumes: timed out waiting for the condition") from None

    async def _until_bound(self, claim: Object, node: str) -> None:
        meta = claim["metadata"]
        key = (meta["namespace"], meta["name"])
        while True:
            found = self._reads.get(PERSISTENT_VOLUME_CLAIMS, *key)
            if found is None:
                raise _ClaimFailed(f'binding volumes: pvc "{meta["name"]}" was deleted')
            if volumes.is_bound(found):
                return
            event = self._claims.setdefault(key, asyncio.Event())
            event.clear()
            try:
                await event.wait()
            finally:
                self._claims.pop(key, None)
            if _was_rejected(self._reads.get(PERSISTENT_VOLUME_CLAIMS, *key), found):
                # The provisioner could not make it there: choose again.
                raise _ClaimFailed(f"binding volumes: provisioning failed on node {node}")

    # -- no node

    async def _report(self, pod: Object, unplaced: Unplaced) -> None:
        self._record(pod, "Warning", "FailedScheduling", unplaced.message)
        try:
            if unplaced.victims is not None:
                await self._preempt(pod, unplaced.pod, unplaced.victims)
            await self._mark(pod, unplaced)
        except (StatusError, Unreachable) as err:
            log.info("pod %s: %s", unplaced.pod.name, err)
        except Exception:
            log.exception("pod %s: its state was not reported", unplaced.pod.name)

    async def _mark(self, pod: Object, unplaced: Unplaced) -> None:
        old = condition(pod, "PodScheduled")
        new = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": unplaced.message,
        }
        nominated = (pod.get("status") or {}).get("nominatedNodeName", "")
        wanted = unplaced.victims.node if unplaced.victims is not None else nominated
        if old is not None and wanted == nominated and new.items() <= old.items():
            return
        same = old is not None and old.get("status") == "False"
        since = old.get("lastTransitionTime") if old is not None and same else None
        new["lastTransitionTime"] = since or rfc3339(self._clock.now())
        observed = pod["metadata"].get("generation")
        full = {**new, "observedGeneration": observed} if observed else new
        status: dict[str, Any] = {"conditions": [full]}
        if wanted:
            status["nominatedNodeName"] = wanted
        await self._patch_status(pod["metadata"], status)

    async def _patch_status(self, meta: Object, status: Object) -> None:
        await self._client.patch(
            PODS,
            meta["namespace"],
            meta["name"],
            body={"metadata": {"uid": meta["uid"]}, "status": status},
            type=PatchType.STRATEGIC,
            subresource="status",
            options={"fieldManager": self._name},
        )

    async def _preempt(self, pod: Object, info: PodInfo, choice: Choice) -> None:
        self._planner.nominated[info.uid] = replace(info, node=choice.node)
        for victim in choice.victims:
            seen = self._reads.get(PODS, victim.namespace, victim.name)
            if seen is None or seen["metadata"]["uid"] != victim.uid:
                continue
            await self._evict(pod, seen, choice.node)

    async def _evict(self, pod: Object, victim: Object, node: str) -> None:
        meta = victim["metadata"]
        target = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": "PreemptionByScheduler",
            "message": f"{self._name}: preempting to accommodate a higher priority pod",
            "lastTransitionTime": rfc3339(self._clock.now()),
        }
        try:
            await self._patch_status(meta, {"conditions": [target]})
            options = {"preconditions": {"uid": meta["uid"]}}
            await self._client.delete(PODS, meta["namespace"], meta["name"], options=options)
        except StatusError as err:
            if err.code not in (404, 409):
                raise
            return
        self.counters.preempted += 1
        text = f"Preempted by pod {pod['metadata']['uid']} on node {node}"
        self._record(victim, "Normal", "Preempted", text)

    def _record(self, about: Object, type_: str, reason: str, message: str) -> None:
        self._recorder.record(self._name, Record(about, type_, reason, message))


class _ClaimFailed(Exception):
    """A claim was not bound where it was asked to be."""


def _was_rejected(now: Object | None, before: Object) -> bool:
    def selected(claim: Object) -> str:
        return str((claim["metadata"].get("annotations") or {}).get(SELECTED_NODE, ""))

    return now is not None and bool(selected(before)) and not selected(now)


def _reservation(volume: Object, claim: Object) -> dict[str, Any]:
    """A patch that reserves the volume, refused if somebody changed it meanwhile."""
    metadata: dict[str, Any] = {"resourceVersion": volume["metadata"]["resourceVersion"]}
    if not is_reserved_for(volume, claim):
        metadata["annotations"] = {BOUND_BY_CONTROLLER: "yes"}
    return {"metadata": metadata, "spec": {"claimRef": reference(claim)}}
