"""DaemonSet, StatefulSet and CronJob over the real API: they do their work and come to rest."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from controlplane.client.base import PatchType
from controlplane.controllers import garbage
from controlplane.controllers.cronjob import CRONJOB
from controlplane.controllers.daemonset import controller as daemonset
from controlplane.controllers.job.controller import JOB
from controlplane.controllers.statefulset.controller import STATEFULSET
from controlplane.objects.meta import is_true
from controlplane.objects.resources import (
    CONTROLLER_REVISIONS,
    CRON_JOBS,
    DAEMON_SETS,
    JOBS,
    NAMESPACES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PODS,
    STATEFUL_SETS,
)
from controlplane.reconcile.clock import LoopClock
from controlplane.reconcile.loop import Loop
from controlplane.scheduler.loop import Scheduler
from tests.fakes.api_server import serving
from tests.unit.controllers.test_over_api import Cluster, _kubelet

LABELS = {"app": "web"}


@asynccontextmanager
async def cluster() -> AsyncIterator[tuple[Cluster, Loop]]:
    async with serving() as served:
        clock = LoopClock(lambda: datetime.now(UTC))
        cache, client = served.parts.cache, served.client
        kinds = served.parts.kinds
        wanted = [garbage.make(kinds), daemonset.make(), STATEFULSET, CRONJOB, JOB]
        loop = Loop(wanted, client=client, reads=cache, feed=cache, clock=clock, kinds=kinds)
        scheduler = Scheduler(client=client, reads=cache, feed=cache, clock=clock)
        made = Cluster(served)
        work = [loop.run(), scheduler.run(), _kubelet(made)]
        tasks = [asyncio.ensure_future(each) for each in work]
        await client.create(NAMESPACES, {"metadata": {"name": "default"}})
        for name in ("n1", "n2"):
            await client.create(NODES, {"metadata": {"name": name}})
            node = dict(await client.get(NODES, "", name))
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


def workload(image: str = "one", **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "web", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": LABELS},
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            **spec,
        },
    }


def is_rolled_out(made: Cluster, resource: Any, **wanted: int) -> bool:
    found = made.get(resource, "web")
    status = found.get("status") or {}
    if status.get("observedGeneration") != found["metadata"]["generation"]:
        return False
    return all(status.get(key) == value for key, value in wanted.items())


def images(made: Cluster) -> list[str]:
    return [pod["spec"]["containers"][0]["image"] for pod in made.cache.list(PODS)]


async def undo(made: Cluster, resource: Any, number: int) -> None:
    """As ``kubectl rollout undo --to-revision``."""
    found = made.cache.list(CONTROLLER_REVISIONS)
    data = next(item["data"] for item in found if item["revision"] == number)
    await made.client.patch(resource, "default", "web", body=data, type=PatchType.STRATEGIC)


async def test_a_daemon_set_runs_rolls_back_and_rests() -> None:
    counts = {"updatedNumberScheduled": 2, "numberAvailable": 2, "desiredNumberScheduled": 2}
    async with cluster() as (made, loop):
        await made.client.create(DAEMON_SETS, workload())
        await made.until(lambda: is_rolled_out(made, DAEMON_SETS, **counts))
        nodes = sorted(pod["spec"]["nodeName"] for pod in made.cache.list(PODS))
        assert nodes == ["n1", "n2"]
        patch = {"spec": {"template": workload("two")["spec"]["template"]}}
        await made.client.patch(DAEMON_SETS, "default", "web", body=patch)
        await made.until(lambda: is_rolled_out(made, DAEMON_SETS, **counts))
        assert images(made) == ["two", "two"]
        await undo(made, DAEMON_SETS, 1)
        await made.until(lambda: is_rolled_out(made, DAEMON_SETS, **counts))
        await made.rest(loop)
        assert images(made) == ["one", "one"]
        assert sorted(r["revision"] for r in made.cache.list(CONTROLLER_REVISIONS)) == [2, 3]
        labels = [pod["metadata"]["labels"] for pod in made.cache.list(PODS)]
        assert [found["pod-template-generation"] for found in labels] == ["3", "3"]
        await made.client.delete(DAEMON_SETS, "default", "web")
        await made.until(lambda: not made.cache.list(PODS))
        await made.until(lambda: not made.cache.list(CONTROLLER_REVISIONS))


async def test_a_stateful_set_runs_rolls_back_and_rests() -> None:
    counts = {"updatedReplicas": 2, "availableReplicas": 2, "currentReplicas": 2}
    claim = {
        "metadata": {"name": "data"},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Mi"}},
        },
    }
    async with cluster() as (made, loop):
        body = workload(replicas=2, serviceName="web")
        await made.client.create(STATEFUL_SETS, body)
        await made.until(lambda: is_rolled_out(made, STATEFUL_SETS, **counts))
        pods = made.cache.list(PODS)
        assert [pod["metadata"]["name"] for pod in pods] == ["web-0", "web-1"]
        patch = {"spec": {"template": workload("two")["spec"]["template"]}}
        await made.client.patch(STATEFUL_SETS, "default", "web", body=patch)
        await made.until(lambda: is_rolled_out(made, STATEFUL_SETS, **counts))
        assert images(made) == ["two", "two"]
        await undo(made, STATEFUL_SETS, 1)
        await made.until(lambda: is_rolled_out(made, STATEFUL_SETS, **counts))
        await made.rest(loop)
        assert images(made) == ["one", "one"]
        assert sorted(r["revision"] for r in made.cache.list(CONTROLLER_REVISIONS)) == [2, 3]
        status = made.get(STATEFUL_SETS, "web")["status"]
        assert status["currentRevision"] == status["updateRevision"]
        other = workload(replicas=1, volumeClaimTemplates=[claim])
        other["metadata"]["name"] = "stored"
        await made.client.create(STATEFUL_SETS, other)
        await made.until(lambda: made.get(PODS, "stored-0"))
        await made.rest(loop)
        assert made.get(PERSISTENT_VOLUME_CLAIMS, "data-stored-0")


async def test_a_cron_job_runs_and_rests() -> None:
    async with cluster() as (made, loop):
        pod = {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}
        body = {
            "metadata": {"name": "tick", "namespace": "default"},
            "spec": {"schedule": "@every 1s", "jobTemplate": {"spec": {"template": {"spec": pod}}}},
        }
        await made.client.create(CRON_JOBS, body)
        await made.until(lambda: any(is_true(job, "Complete") for job in made.cache.list(JOBS)))
        await made.until(lambda: made.get(CRON_JOBS, "tick")["status"].get("lastSuccessfulTime"))
        body = {"spec": {"suspend": True}}
        await made.client.patch(CRON_JOBS, "default", "tick", body=body)
        await made.rest(loop)
        assert not made.get(CRON_JOBS, "tick")["status"].get("active")
