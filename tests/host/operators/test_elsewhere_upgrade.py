"""Upgrades of nodes of another Kubernetes, with no more rights than the chart gives."""

from collections.abc import Iterator
from typing import Any

import helm_python
import operators_image
import pytest

from tests.fakes.operators_cluster import condition
from tests.upstream.cluster import Upstream, needs_upstream, upstream

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(180),
    needs_upstream("etcd", "kube-apiserver", "kube-controller-manager"),
]
NODES = "/api/v1/nodes"
PLANS = "/apis/upgrade.pinnace.dev/v1/upgradeplans"
PODS = "/api/v1/namespaces/kube-system/pods"
JOBS = "/apis/batch/v1/namespaces/kube-system/jobs"
Object = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("upstream")) as made:
        made.start_controllers()
        packed = tmp_path_factory.mktemp("chart") / "operators.tgz"
        packed.write_bytes(operators_image.chart())
        off = {name: {"enabled": False} for name in ("helm", "servicelb", "localpath")}
        with (
            helm_python.Config(kubeconfig_path=str(made.kubeconfig), namespace="kube-system") as to,
            helm_python.Chart.load(str(packed)) as chart,
        ):
            to.install(chart, "ops", values={**off, "upgrade": {"enabled": True}})
        for name in ("default", "kube-system"):
            accounts = f"/api/v1/namespaces/{name}/serviceaccounts"
            made.until(accounts, "default", lambda found: found is not None)
        account = made.account("kube-system", "ops-pinnace-operators")
        made.operators("operators", "--operators=upgrade", kubeconfig=account)
        yield made
        assert made.end("operators") == 0, made.log("operators")


def add_node(cluster: Upstream, name: str, fleet: str) -> None:
    labels = {"kubernetes.io/hostname": name, "fleet": fleet}
    taint = {"key": "t", "effect": "NoSchedule"}
    body = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    cluster.create(NODES, {**body, "spec": {"taints": [taint]}})
    now = "2100-01-01T00:00:00Z"  # nobody sends heartbeats, and nobody shall miss them
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": now}
    info = {"nodeInfo": {"kubeletVersion": "v1.35.0+k3s1"}}
    cluster.merge(f"{NODES}/{name}/status", {"status": {"conditions": [ready], **info}})


def end_job(cluster: Upstream, node: str, phase: str) -> Object:
    """As a kubelet: the pod of the node's Job ends."""
    found: list[Object] = []

    def there() -> bool:
        found[:] = [
            pod
            for pod in cluster.get(PODS)["items"]
            if pod["spec"].get("nodeName") == node and pod["status"]["phase"] == "Pending"
        ]
        return bool(found)

    cluster.until_answers(there)
    (pod,) = found
    name = pod["metadata"]["name"]
    cluster.merge(f"{PODS}/{name}/status", {"status": {"phase": phase}})
    return pod


def plan(cluster: Upstream, name: str, **spec: Any) -> None:
    given = {
        "version": "v1.36.4+k3s1",
        "nodeSelector": {"matchLabels": {"fleet": name}},
        "jobTemplate": {"image": "rancher/k3s-upgrade", "backoffLimit": 0},
        **spec,
    }
    kind = {"apiVersion": "upgrade.pinnace.dev/v1", "kind": "UpgradePlan"}
    cluster.create(PLANS, {**kind, "metadata": {"name": name}, "spec": given})


def test_nodes_are_upgraded_by_jobs_one_after_the_other(cluster: Upstream) -> None:
    for name in ("n1", "n2"):
        add_node(cluster, name, "good")
    spec = {"nodeName": "n1", "containers": [{"name": "a", "image": "b"}]}
    spec |= {"tolerations": [{"operator": "Exists"}]}
    busy = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "busy"}, "spec": spec}
    cluster.create("/api/v1/namespaces/default/pods", busy)
    options = {"enabled": True, "force": True}
    plan(cluster, "good", drain=options, postComplete={"labels": {"upgraded": "$(VERSION)"}})
    pods = "/api/v1/namespaces/default/pods"
    cluster.until(pods, "busy", lambda pod: "deletionTimestamp" in (pod or {})["metadata"])
    assert cluster.get(f"{NODES}/n1")["spec"]["unschedulable"]
    assert not cluster.get(JOBS)["items"], "not before it is drained"
    cluster.delete(f"{pods}/busy?gracePeriodSeconds=0")
    for name in ("n1", "n2"):
        pod = end_job(cluster, name, "Succeeded")
        assert pod["spec"]["containers"][0]["image"] == "rancher/k3s-upgrade:v1.36.4-k3s1"
        cluster.until(NODES, name, lambda node: "upgraded" in (node or {})["metadata"]["labels"])
    done = cluster.until(PLANS, "good", lambda p: condition(p, "Complete").get("status") == "True")
    assert done["status"]["counts"]["updated"] == 2
    assert not any(node["spec"].get("unschedulable") for node in cluster.get(NODES)["items"])


def test_a_job_that_fails_pauses_its_plan(cluster: Upstream) -> None:
    add_node(cluster, "n3", "bad")
    plan(cluster, "bad")
    end_job(cluster, "n3", "Failed")
    found = cluster.until(PLANS, "bad", lambda p: condition(p, "Degraded").get("status") == "True")
    (node,) = found["status"]["nodes"]
    assert node["phase"] == "Failed"
    assert "failed: BackoffLimitExceeded" in node["message"]
