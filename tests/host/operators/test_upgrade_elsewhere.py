"""Definitions, drains, Jobs and checks of upgrades, on Pinnace's API server and on upstream's."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import yaml

from operators.client import WriterClient
from operators.upgrade import jobplan
from operators.upgrade.cattle import CattlePlans
from operators.upgrade.checks.run import HealthChecks
from operators.upgrade.drain import NodeDrains
from operators.upgrade.jobs import NodeJobs
from tests.fakes.operators_cluster import ROOT, Cluster, condition, new_cluster
from tests.fakes.operators_config import config
from tests.upstream.cluster import Upstream, needs_upstream, upstream

pytestmark = [pytest.mark.root, pytest.mark.timeout(120)]
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAMES = {"plans": "plans.upgrade.cattle.io", "upgradeplans": "upgradeplans.upgrade.pinnace.dev"}
SINCE = datetime(2026, 11, 24, tzinfo=UTC)
STRICT = "?fieldValidation=Strict"
PODS = "/api/v1/namespaces/default/pods"
BUDGETS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
FORCE = {"force": True}


@pytest.fixture(
    scope="module",
    params=["pinnace", pytest.param("upstream", marks=needs_upstream("etcd", "kube-apiserver"))],
)
def api(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp(str(request.param))
    if request.param == "pinnace":
        with new_cluster(folder) as cluster:
            for name in NAMES.values():
                cluster.until(DEFINITIONS, name, is_served)
            yield cluster
        return
    with upstream(folder) as there:
        for plural, name in NAMES.items():
            path = ROOT / "controlplane" / "deploy" / "crds" / f"{plural}.yaml"
            there.create(f"{DEFINITIONS}{STRICT}", yaml.safe_load(path.read_text()))
            there.until(DEFINITIONS, name, is_served)
        yield there


def is_served(definition: Any) -> bool:
    return condition(definition, "Established").get("status") == "True"


@asynccontextmanager
async def client(api: Cluster) -> AsyncIterator[WriterClient]:
    """The operators' own, in a process of its own."""
    told = config(kubeconfig=api.kubeconfig, python=sys.executable, program_dir=ROOT)
    writer = WriterClient(told)
    try:
        yield writer
    finally:
        await writer.close()


def add(api: Cluster, name: str, node: str) -> None:
    """A pod, and its node, which nobody runs."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    if isinstance(api, Upstream) and "default" not in api.names(accounts):
        api.create(accounts, account)
    api.create("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}})
    spec: dict[str, Any] = {"nodeName": node, "containers": [{"name": "a", "image": "b"}]}
    spec |= {"automountServiceAccountToken": False, "terminationGracePeriodSeconds": 1}
    metadata = {"name": name, "labels": {"app": name}}
    api.create(PODS, {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    conditions = [{"type": "Ready", "status": "True"}]
    api.merge(f"{PODS}/{name}/status", {"status": {"phase": "Running", "conditions": conditions}})


def hold(api: Cluster, name: str) -> None:
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": name}}},
    }
    api.create(BUDGETS, budget)
    counts = {"disruptionsAllowed": 0, "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1}
    if isinstance(api, Upstream):  # nobody counts there
        api.merge(f"{BUDGETS}/{name}/status", {"status": {**counts, "observedGeneration": 1}})
    api.until(BUDGETS, name, lambda found: (found or {}).get("status", {}).get("expectedPods") == 1)


async def test_a_budget_holds_a_pod_back_and_is_named(api: Cluster) -> None:
    add(api, "held", "n1")
    hold(api, "held")
    async with client(api) as writer:
        drains = NodeDrains(writer, now=lambda: SINCE)
        held = await drains.drain("n1", FORCE, since=SINCE)
        assert held.message == (
            'error when evicting pods/"held" -n "default" (will retry after 5s): '
            "Cannot evict pod as it would violate the pod's disruption budget. "
            "The disruption budget held needs 1 healthy pods and has 1 currently"
        )
        api.delete(f"{BUDGETS}/held")
        goes = await drains.drain("n1", FORCE, since=SINCE)
        assert goes.message == "waits for pods to terminate: default/held"
        api.delete(f"{PODS}/held?gracePeriodSeconds=0")
        assert (await drains.drain("n1", FORCE, since=SINCE)).done


async def test_a_pod_is_deleted_with_its_grace(api: Cluster) -> None:
    add(api, "graced", "n2")
    async with client(api) as writer:
        drains = NodeDrains(writer, now=lambda: SINCE)
        options = {**FORCE, "disableEviction": True, "gracePeriodSeconds": 9}
        assert not (await drains.drain("n2", options, since=SINCE)).done
    found = api.get(f"{PODS}/graced")["metadata"]
    assert found["deletionGracePeriodSeconds"] == 9


async def test_a_job_is_taken_as_it_is(api: Cluster) -> None:
    template = {
        "image": "rancher/k3s-upgrade",
        "prepare": {"image": "rancher/k3s-upgrade", "args": ["prepare", "servers"]},
        "secrets": [{"name": "a.b", "defaultMode": 256}],
        "volumes": [{"name": "data", "source": "/srv", "destination": "/data"}],
        "tolerations": [{"operator": "Exists"}],
    }
    metadata = {"name": "fleet", "uid": "u"}
    plan = {"metadata": metadata, "spec": {"jobTemplate": template}}
    path = "/apis/batch/v1/namespaces/default/jobs"
    body = jobplan.job(plan, "n1", "v1.36.4+k3s1", "default")
    api.create(f"{path}{STRICT}&dryRun=All", body)
    async with client(api) as writer:
        late = datetime.now(UTC) + timedelta(hours=1)
        jobs = NodeJobs(writer, namespace="default", now=lambda: late)
        assert "is started" in (await jobs.ensure(plan, "n1", "v1.36.4+k3s1")).message
        assert " runs" in (await jobs.ensure(plan, "n1", "v1.36.4+k3s1")).message
        await jobs.remove("fleet", "n1")
        assert body["metadata"]["name"] not in api.names(path)


async def test_checks_ask_this_api(api: Cluster) -> None:
    add(api, "seen", "n3")
    checks = [
        {
            "name": "a",
            "pods": {"namespace": "default", "selector": {"matchLabels": {"app": "seen"}}},
        },
        {
            "name": "b",
            "cel": {
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "selector": {},
                "expression": "object.status.conditions.exists(c, c.type == 'Established')",
            },
        },
    ]
    async with client(api) as writer:
        found = await HealthChecks(writer, kubeconfig=api.kubeconfig).verdict(checks, node="n3")
    assert found.message == ""


PLAN = """
apiVersion: upgrade.cattle.io/v1
kind: Plan
metadata:
  name: everything
  namespace: default
  annotations: {upgrade.pinnace.dev/source: /srv/bundles}
spec:
  version: v1.36.4-pinnace1
  concurrency: 2
  jobActiveDeadlineSecs: 900
  nodeSelector:
    matchLabels: {role: edge}
    matchExpressions: [{key: a, operator: In, values: [b, c]}]
  serviceAccountName: system-upgrade
  imagePullSecrets: [{name: a}]
  priorityClassName: system-node-critical
  tolerations: [{key: a, operator: Exists, effect: NoSchedule}]
  exclusive: true
  window: {days: [monday, tu], startTime: "19:00", endTime: "21:00", timeZone: UTC}
  cordon: true
  drain:
    timeout: 2m
    gracePeriod: 10
    deleteEmptydirData: true
    ignoreDaemonSets: true
    force: true
    disableEviction: false
    skipWaitForDeleteTimeout: 60
    podSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}
  upgrade: {image: rancher/k3s-upgrade}
  postCompleteDelay: 30s
  postCompleteLabels: {upgraded: $(LATEST_VERSION)}
"""


async def test_a_plan_of_the_controller_is_taken_and_translated(api: Cluster) -> None:
    plans = "/apis/upgrade.cattle.io/v1/namespaces/default/plans"
    api.create(f"{plans}{STRICT}", yaml.safe_load(PLAN))
    async with client(api) as writer:
        cattle = CattlePlans(writer, now=lambda: SINCE)
        for _ in range(2):
            await cattle.reconcile("default/everything")
    said = condition(api.get(f"{plans}/everything"), "Validated")
    assert said["status"] == "True", said
    made = api.get("/apis/upgrade.pinnace.dev/v1/upgradeplans/default.everything")
    assert made["metadata"]["generation"] == 1, "the second look changed nothing"
    assert made["spec"]["drain"]["timeoutSeconds"] == 120
