"""
An API with the objects of a load balancer, told to the operator as kopf would tell it.

And an event loop whose time jumps to the next timer, so that minutes of storm take no time.
"""

import asyncio
import copy
import itertools
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from operators.client import ApiError
from operators.queue import Queue
from operators.servicelb import daemonset, facts
from operators.servicelb.apply import EVERYTHING, Balancer
from operators.servicelb.decide import Deciding
from operators.servicelb.known import Known, Pace
from tests.fakes.operators_services import node_body, pod_body

Object = dict[str, Any]
DAEMONSETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"


class BalancerApi:
    """
    ``faults``: raised by the next requests, in order; None lets one through.

    ``lost``: the same, but the request was done. ``writes``: (verb, path) of all but events.
    """

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.writes: list[tuple[str, str]] = []
        self.events: list[tuple[str, str]] = []  # (reason, message)
        self._told: dict[str, tuple[str, str]] = {}  # the same by the paths of events
        self.faults: list[ApiError | asyncio.CancelledError | None] = []
        self.lost = False
        self._versions = itertools.count(10)
        self._watchers: list[tuple[Known, str]] = []

    def put(self, path: str, body: Object) -> None:
        """Somebody else writes an object, or it begins to be there."""
        stored = copy.deepcopy(body)
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[path] = stored
        self._tell(path)

    def put_service(self, body: Object) -> None:
        """With the status and the field managers that it had."""
        path = f"/api/v1/namespaces/default/services/{body['metadata']['name']}"
        before = self.objects.get(path)
        kept = {"status": before["status"]} if before else {}
        managed = before["metadata"].get("managedFields", []) if before else []
        metadata = {**body["metadata"], "managedFields": managed}
        self.put(path, {**body, **kept, "metadata": metadata})

    def put_node(self, name: str, *addresses: str, **more: Any) -> None:
        self.put(f"/api/v1/nodes/{name}", node_body(name, *addresses, **more))

    def put_slice(self, service: str, *nodes: str) -> None:
        labels = {"kubernetes.io/service-name": service}
        endpoints = [{"nodeName": name, "addresses": ["10.42.0.2"]} for name in nodes]
        metadata = {"name": f"{service}-x", "namespace": "default", "labels": labels}
        path = f"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/{service}-x"
        self.put(path, {"metadata": metadata, "endpoints": endpoints})

    def remove(self, path: str) -> None:
        body = self.objects.pop(path)
        for known, manager in self._watchers:
            self._forget(known, body, path, manager)

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Of each Service, what its status says."""
        return {
            path.rpartition("/")[2]: tuple(
                entry["ip"] for entry in (_ingress(body) if "/services/" in path else ())
            )
            for path, body in self.objects.items()
            if "/services/" in path
        }

    def run_pods(self) -> None:
        """As the DaemonSet controller and the kubelets would: one ready pod on every node."""
        for path in [path for path in self.objects if "/pods/" in path]:
            self.remove(path)
        nodes = [path.rpartition("/")[2] for path in self.objects if "/nodes/" in path]
        for path, body in list(self.objects.items()):
            if path.startswith(DAEMONSETS):
                labels = body["spec"]["template"]["metadata"]["labels"]
                for node in nodes:
                    name = f"{path.rpartition('/')[2]}-{node}"
                    pod = pod_body(name, node, 80, namespace="kube-system", labels=labels)
                    pod["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
                    self.put(f"/api/v1/namespaces/kube-system/pods/{name}", pod)

    def watch(self, known: Known, manager: str) -> None:
        """List into ``known``, then tell it of every change."""
        self._watchers.append((known, manager))
        for path in list(self.objects):
            _note(known, path, self.objects[path], manager)
        known.sync()

    def unwatch(self) -> None:
        self._watchers.clear()

    async def get(self, path: str, query: Mapping[str, str] | None = None) -> Object:
        found: Object = await self._do(lambda: self._found(path))
        return found

    async def metadata(self, path: str, query: Mapping[str, str]) -> list[Object]:
        raise NotImplementedError

    async def create(self, path: str, body: Mapping[str, Any]) -> Object:
        if body["kind"] == "Event":
            self.events.append((body["reason"], body["message"]))
            self._told[f"{path}/{body['metadata']['name']}"] = self.events[-1]
            return dict(body)
        where = f"{path}/{body['metadata']['name']}"

        def create() -> Object:
            if where in self.objects:
                raise ApiError(409, "AlreadyExists", where)
            self.put(where, dict(body))
            return self.objects[where]

        made: Object = await self._do(create, ("create", where))
        return made

    async def replace(self, path: str, body: Mapping[str, Any]) -> Object:
        def replace() -> Object:
            self._check(path, body)
            self.put(path, dict(body))
            return self.objects[path]

        made: Object = await self._do(replace, ("replace", path))
        return made

    async def merge(self, path: str, patch: Mapping[str, Any]) -> Object:
        if path in self._told:
            self.events.append(self._told[path])
            return {}
        place, _, manager = path.partition("/status?fieldManager=")

        def merge() -> Object:
            self._check(place, patch)
            body = copy.deepcopy(self.objects[place])
            _merge(body, patch)
            fields: Object = {"f:ingress": {}} if _ingress(body) else {}
            entry = {
                "manager": manager,
                "fieldsV1": {"f:status": {"f:loadBalancer": fields}},
            }
            body["metadata"]["managedFields"] = [entry]
            self.put(place, body)
            return copy.deepcopy(self.objects[place])

        made: Object = await self._do(merge, ("merge", place))
        return made

    async def delete(self, path: str) -> None:
        def delete() -> None:
            self._found(path)
            self.remove(path)

        await self._do(delete, ("delete", path))

    async def _do(self, work: Callable[[], Any], write: tuple[str, str] | None = None) -> Any:
        await asyncio.sleep(0)
        fault = self.faults.pop(0) if self.faults else None
        if fault and not self.lost:
            raise fault
        if write:
            self.writes.append(write)
        done = work()
        if fault:
            raise fault
        return done

    def _found(self, path: str) -> Object:
        if path not in self.objects:
            raise ApiError(404, "NotFound", path)
        return self.objects[path]

    def _check(self, path: str, body: Mapping[str, Any]) -> None:
        if self._found(path)["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", path)

    def _tell(self, path: str) -> None:
        for known, manager in self._watchers:
            _note(known, path, self.objects[path], manager)

    def _forget(self, known: Known, body: Object, path: str, manager: str) -> None:
        kind, key = _place(known, path, body)
        if kind is not None:
            known.put(kind, key, None)
            known.put(known.node_ports, key, None)


def _ingress(body: Object) -> list[Object]:
    return (body.get("status", {}).get("loadBalancer") or {}).get("ingress") or []


def _merge(body: Object, patch: Mapping[str, Any]) -> None:
    for key, value in patch.items():
        if isinstance(value, Mapping):
            _merge(body.setdefault(key, {}), value)
        elif value is None:
            body.pop(key, None)
        else:
            body[key] = value


def _place(known: Known, path: str, body: Object) -> tuple[dict[str, Any] | None, str]:
    kinds = {
        "services": known.services,
        "nodes": known.nodes,
        "endpointslices": known.slices,
        "pods": known.pods,
        "daemonsets": known.daemonsets,
    }
    kind = kinds.get(path.split("/")[-2])
    spaced = kind is known.services or kind is known.slices or kind is known.pods
    return kind, facts.key_of(body) if spaced else body["metadata"]["name"]


def _note(known: Known, path: str, body: Object, manager: str) -> None:
    kind, key = _place(known, path, body)
    if kind is known.services:
        service = facts.service_of(body, manager)
        known.put(kind, key, service if facts.concerns_us(service, body) else None)
        known.put(known.node_ports, key, facts.node_ports_of(body) or None)
    elif kind is known.nodes:
        known.put(kind, key, facts.node_of(body))
    elif kind is known.slices:
        name = body["metadata"]["labels"]["kubernetes.io/service-name"]
        known.put(kind, key, (f"default/{name}", facts.ready_nodes(body), frozenset()))
    elif kind is known.pods:
        known.put(kind, key, facts.pod_of(body, "kube-system"))
    elif kind is known.daemonsets:
        known.put(kind, key, daemonset.found_of(body))


class VirtualLoop(asyncio.SelectorEventLoop):
    """Nothing waits: when nothing is ready, it is the time of the next timer."""

    _now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        scheduled = [t for t in self._scheduled if not t.cancelled()]  # type: ignore[attr-defined]
        if not self._ready and scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, min(timer.when() for timer in scheduled))
        super()._run_once()  # type: ignore[misc]


class Operator:
    """The operator's own parts, joined as its composition root joins them."""

    def __init__(self, api: BalancerApi, decide: Callable[[Known], Deciding]) -> None:
        self.looks = 0
        loop = asyncio.get_running_loop()
        self.pace = Pace(lambda: self._queue.add(EVERYTHING), loop.time)
        self.known = Known(self.pace.tell)
        self.deciding = decide(self.known)
        self.balancer = Balancer(
            api, self.known, self.deciding, namespace="kube-system", now=lambda: datetime.now(UTC)
        )
        self._queue = Queue("LoadBalancer", self._look, workers=1)
        api.watch(self.known, self.deciding.manager)

    async def _look(self, key: str) -> float | None:
        self.looks += 1
        return await self.balancer.reconcile(key)

    async def run(self, seconds: float) -> None:
        """For so long, in the loop's time."""
        task = asyncio.ensure_future(self._queue.run())
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def virtually(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test in time that costs none."""

    async def main() -> None:
        await work()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())
