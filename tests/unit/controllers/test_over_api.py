"""
Controllers and scheduler over the real API: its defaults, validation and conflicts.

What matters most here is that everything comes to rest: a controller that does not
recognise its own object with defaults filled in would write for ever.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from ipaddress import IPv4Network
from typing import Any

from controlplane.api.admission.defaults import TaintNodesByCondition
from controlplane.api.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.client.base import Change
from controlplane.controllers import (
    garbage,
    kubernetes_service,
    namespace,
    node_ipam,
    node_lifecycle,
    pod_gc,
    root_ca,
    taint_eviction,
)
from controlplane.controllers.clusterrole import CLUSTERROLE
from controlplane.controllers.deployment.controller import DEPLOYMENT
from controlplane.controllers.disruption import DISRUPTION
from controlplane.controllers.endpoints.legacy import ENDPOINTS_CONTROLLER
from controlplane.controllers.endpoints.mirror import MIRROR
from controlplane.controllers.endpoints.slices import ENDPOINTSLICE
from controlplane.controllers.job.controller import JOB
from controlplane.controllers.replicaset import REPLICASET, REPLICATIONCONTROLLER
from controlplane.controllers.serviceaccount import SERVICEACCOUNT
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import is_true
from controlplane.objects.resources import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SERVICES,
)
from controlplane.reconcile.base import Controller
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.scheduler.loop import Scheduler
from tests.fakes.api_server import Served, serving

LABELS = {"app": "web"}


class Cluster:
    def __init__(self, served: Served) -> None:
        self.served = served
        self.client, self.cache = served.client, served.parts.cache

    def get(self, resource: Resource, name: str, namespace: str = "default") -> Any:
        return self.cache.get(resource, namespace if resource.namespaced else "", name)

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self.cache.wait_for(self.cache.revision + 1)

    async def rest(self, loop: Loop) -> None:
        """Until nobody writes any more; a limit tells those who never stop."""
        async with asyncio.timeout(20):
            before = -1
            while before != self.cache.revision:
                before = self.cache.revision
                await loop.wait_idle()
                for _ in range(300):
                    await asyncio.sleep(0)

    def start_kubelet(self) -> list[Change]:
        """Bound pods run and are ready; Jobs' pods succeed; deleted ones go."""
        seen: list[Change] = []
        self.cache.subscribe([PODS], seen.append)
        return seen


def _controllers(served: Served) -> list[Controller]:
    kinds = served.parts.kinds
    return [
        namespace.make(kinds),
        garbage.make(kinds),
        SERVICEACCOUNT,
        root_ca.make("PEM"),
        CLUSTERROLE,
        node_ipam.make(IPv4Network("10.42.0.0/16")),
        node_lifecycle.make(),
        taint_eviction.make(),
        pod_gc.make(),
        DISRUPTION,
        DEPLOYMENT,
        REPLICASET,
        REPLICATIONCONTROLLER,
        JOB,
        ENDPOINTS_CONTROLLER,
        ENDPOINTSLICE,
        MIRROR,
        kubernetes_service.make("10.43.0.1", "192.168.1.2", 6443),
    ]


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[Cluster, Loop]]:
    admissions = (NamespaceLifecycle(), TaintNodesByCondition())
    async with serving(admissions=admissions) as served:
        clock = LoopClock(lambda: datetime.now(UTC))
        cache, client = served.parts.cache, served.client
        loop = Loop(
            _controllers(served),
            client=client,
            reads=cache,
            feed=cache,
            clock=clock,
            kinds=served.parts.kinds,
        )
        scheduler = Scheduler(client=client, reads=cache, feed=cache, clock=clock)
        made = Cluster(served)
        work = [loop.run(), scheduler.run(), _kubelet(made)]
        tasks = [asyncio.ensure_future(each) for each in work]
        for name in ("default", "kube-system"):
            await client.create(NAMESPACES, {"metadata": {"name": name}})
        await client.create(NODES, {"metadata": {"name": "n1"}})
        node = dict(await client.get(NODES, "", "n1"))
        conditions = [{"type": "Ready", "status": "True", "reason": "x", "message": ""}]
        allocatable = {"cpu": "8", "memory": "8Gi", "pods": "110"}
        node["status"] = {"conditions": conditions, "allocatable": allocatable}
        await client.update(NODES, node, subresource="status")
        try:
            yield made, loop
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


async def _kubelet(made: Cluster) -> None:
    seen, at = made.start_kubelet(), 0
    while True:
        while at < len(seen):
            pod = seen[at].new
            at += 1
            if pod is not None:
                with suppress(StatusError):  # it has changed meanwhile: that change comes next
                    await _step(made, pod)
        await made.cache.wait_for(made.cache.revision + 1)


async def _step(made: Cluster, pod: Any) -> None:
    meta = pod["metadata"]
    current = made.get(PODS, meta["name"], meta["namespace"])
    if current is None or current["metadata"]["resourceVersion"] != meta["resourceVersion"]:
        return
    if not pod["spec"].get("nodeName"):
        return
    if meta.get("deletionTimestamp"):
        options = {"gracePeriodSeconds": 0}
        await made.client.delete(PODS, meta["namespace"], meta["name"], options=options)
    elif pod["status"].get("phase") == "Pending":
        phase = "Succeeded" if "job-name" in meta.get("labels", {}) else "Running"
        ready = [{"type": "Ready", "status": "True" if phase == "Running" else "False"}]
        address = f"10.42.0.{int(meta['resourceVersion']) % 200 + 2}"
        ips = {"podIP": address, "podIPs": [{"ip": address}]}
        status = {**pod["status"], "phase": phase, "conditions": ready, **ips}
        await made.client.update(PODS, {**pod, "status": status}, subresource="status")


def deployment(image: str = "one", replicas: int = 3) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
        },
    }


def is_rolled_out(made: Cluster) -> bool:
    found = made.get(DEPLOYMENTS, "web")
    status = found.get("status") or {}
    return (
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedReplicas") == status.get("availableReplicas") == 3
        and status.get("replicas") == 3
    )


async def test_a_deployment_runs_rolls_and_rests() -> None:
    async with cluster() as (made, loop):
        await made.client.create(DEPLOYMENTS, deployment())
        await made.until(lambda: is_rolled_out(made))
        patch = {"spec": deployment("two")["spec"]}
        await made.client.patch(DEPLOYMENTS, "default", "web", body=patch)
        await made.until(lambda: is_rolled_out(made))
        await made.rest(loop)
        images = [p["spec"]["containers"][0]["image"] for p in made.cache.list(PODS)]
        assert images == ["two"] * 3
        sets = made.cache.list(REPLICA_SETS)
        assert sorted(s["spec"]["replicas"] for s in sets) == [0, 3]


async def test_a_service_has_endpoints_that_come_to_rest() -> None:
    async with cluster() as (made, loop):
        body = {
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"selector": LABELS, "ports": [{"port": 80}]},
        }
        await made.client.create(SERVICES, body)
        await made.client.create(DEPLOYMENTS, deployment())
        await made.until(lambda: is_rolled_out(made))
        await made.rest(loop)
        found = made.get(ENDPOINTS, "web")
        assert len(found["subsets"][0]["addresses"]) == 3
        slices = [
            s
            for s in made.cache.list(ENDPOINT_SLICES, "default")
            if s["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
        ]
        assert [len(s["endpoints"]) for s in slices] == [3]
        assert made.get(SERVICES, "kubernetes")["spec"]["clusterIP"] == "10.43.0.1"


async def test_a_job_completes() -> None:
    async with cluster() as (made, loop):
        pod = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
        body = {
            "metadata": {"name": "work", "namespace": "default"},
            "spec": {
                "completions": 3,
                "parallelism": 2,
                "completionMode": "Indexed",
                "template": {"spec": pod},
            },
        }
        await made.client.create(JOBS, body)
        await made.until(lambda: is_true(made.get(JOBS, "work"), "Complete"))
        await made.rest(loop)
        assert made.get(JOBS, "work")["status"]["completedIndexes"] == "0-2"


async def test_deleting_a_deployment_or_a_namespace_takes_everything_along() -> None:
    async with cluster() as (made, loop):
        await made.client.create(DEPLOYMENTS, deployment())
        await made.until(lambda: is_rolled_out(made))
        await made.client.delete(DEPLOYMENTS, "default", "web")
        await made.until(lambda: not made.cache.list(PODS))
        assert not made.cache.list(REPLICA_SETS)
        await made.client.create(NAMESPACES, {"metadata": {"name": "temporary"}})
        await made.until(lambda: made.cache.list(CONFIG_MAPS, "temporary"))
        other = deployment()
        other["metadata"]["namespace"] = "temporary"
        await made.client.create(DEPLOYMENTS, other)
        await made.until(lambda: len(made.cache.list(PODS, "temporary")) == 3)
        await made.client.delete(NAMESPACES, "", "temporary")
        await made.until(lambda: made.get(NAMESPACES, "temporary") is None)
        assert not made.cache.list(PODS, "temporary")
        await made.rest(loop)


async def test_a_foreground_deletion_ends_with_the_owner() -> None:
    async with cluster() as (made, loop):
        await made.client.create(DEPLOYMENTS, deployment())
        await made.until(lambda: is_rolled_out(made))
        options = {"propagationPolicy": "Foreground"}
        await made.client.delete(DEPLOYMENTS, "default", "web", options=options)
        await made.until(lambda: made.get(DEPLOYMENTS, "web") is None)
        assert not made.cache.list(PODS)
        await made.rest(loop)
