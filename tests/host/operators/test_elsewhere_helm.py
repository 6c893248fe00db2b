"""The operators on upstream's API server, with no more rights than their chart gives them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python
import operators_image
import pytest
import requests

from tests.fakes.operators_cluster import condition
from tests.host.operators.test_helm import hello, ready_at, revisions
from tests.upstream.cluster import Upstream, needs_upstream, upstream

pytestmark = [pytest.mark.root, needs_upstream("etcd", "kube-apiserver")]
OPERATORS = "operators"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
PAGES = "/api/v1/namespaces/default/configmaps"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
QUICK = ("--lease-duration=3s", "--renew-deadline=2s", "--retry-period=500ms")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    with upstream(tmp_path_factory.mktemp("upstream")) as made:
        install(made, tmp_path_factory.mktemp("chart"), helm={"clusterAdmin": True})
        yield made


def install(cluster: Upstream, folder: Path, **values: Any) -> None:
    """The chart of the operators; no node is there to run its pods."""
    packed = folder / "operators.tgz"
    packed.write_bytes(operators_image.chart())
    with (
        helm_python.Config(kubeconfig_path=str(cluster.kubeconfig), namespace="kube-system") as to,
        helm_python.Chart.load(str(packed)) as chart,
    ):
        to.install(chart, "ops", values=values)


@pytest.fixture(scope="module")
def account(cluster: Upstream) -> Path:
    return cluster.account("kube-system", "ops-pinnace-operators")


@pytest.fixture
def acting(cluster: Upstream, account: Path) -> Iterator[Upstream]:
    cluster.operators(OPERATORS, "--operators=helm", *QUICK, kubeconfig=account)
    yield cluster
    assert cluster.end(OPERATORS) == 0, cluster.log(OPERATORS)


def holder(cluster: Upstream) -> str:
    spec = cluster.get(f"{LEASES}/pinnace-operators")["spec"]
    return str(spec.get("holderIdentity") or "")


def test_a_chart_is_installed_configured_and_removed(acting: Upstream) -> None:
    acting.create(CHARTS, hello("there"))
    chart = acting.until(CHARTS, "there", ready_at(1))
    assert condition(chart, "Failed")["status"] == "False"
    assert "annotations" not in chart["metadata"]

    config = {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChartConfig",
        "metadata": {"name": "there"},
        "spec": {"valuesContent": "message: of the config"},
    }
    acting.create(CHARTS.replace("helmcharts", "helmchartconfigs"), config)
    acting.until(CHARTS, "there", ready_at(2))
    page = acting.get(f"{PAGES}/there-hello")["data"]["index.html"]
    assert "<h1>of the config</h1>" in page

    acting.delete(f"{CHARTS}/there")
    acting.until(CHARTS, "there", lambda chart: chart is None)
    assert "there-hello" not in acting.names(PAGES)
    assert revisions(acting, "there") == {}


def test_the_lease_is_given_back_at_the_end(cluster: Upstream, account: Path) -> None:
    cluster.operators(OPERATORS, "--operators=helm", "--identity=one", kubeconfig=account)
    cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "one"))
    assert cluster.end(OPERATORS) == 0
    assert holder(cluster) == ""


def held_by(lease: Any, who: str) -> bool:
    return lease is not None and lease["spec"].get("holderIdentity") == who


def test_one_of_two_acts_and_the_other_takes_over(cluster: Upstream, account: Path) -> None:
    flags = ("--operators=helm", *QUICK)
    cluster.operators("one", *flags, "--identity=one", kubeconfig=account)
    cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "one"))
    cluster.operators("two", *flags, "--identity=two", kubeconfig=account)
    cluster.create(CHARTS, hello("first"))
    cluster.until(CHARTS, "first", ready_at(1))
    assert cluster.metric("one", "pinnace_operators_leader") == 1
    assert cluster.metric("two", "pinnace_operators_leader") == 0

    cluster.kill("one")
    cluster.create(CHARTS, hello("second"))
    cluster.until(CHARTS, "second", ready_at(1))
    assert holder(cluster) == "two"
    assert revisions(cluster, "first") == {"1": "deployed"}
    assert revisions(cluster, "second") == {"1": "deployed"}
    assert cluster.end("two") == 0


def test_who_loses_the_lease_stops_and_waits_for_it_again(cluster: Upstream, account: Path) -> None:
    cluster.operators("one", "--operators=helm", *QUICK, "--identity=one", kubeconfig=account)
    cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "one"))
    # Somebody takes it, as after a pause that was longer than the Lease.
    stolen = {"spec": {"holderIdentity": "thief", "leaseDurationSeconds": 3}}
    cluster.merge(f"{LEASES}/pinnace-operators", stolen)
    cluster.until_answers(lambda: cluster.metric("one", "pinnace_operators_leader") == 0)
    cluster.create(CHARTS, hello("waits"))
    chart = cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "one"))
    assert chart["spec"]["leaseTransitions"] >= 1
    cluster.until(CHARTS, "waits", ready_at(1))
    assert "lost the Lease" in cluster.log("one")
    assert cluster.end("one") == 0


def test_who_was_asleep_while_another_took_over_does_not_act(
    cluster: Upstream, account: Path
) -> None:
    flags = ("--operators=helm", *QUICK)
    cluster.operators("four", *flags, "--identity=four", kubeconfig=account)
    cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "four"))
    os.kill(cluster.children["four"].pid, signal.SIGSTOP)
    cluster.operators("five", *flags, "--identity=five", kubeconfig=account)
    cluster.until(LEASES, "pinnace-operators", lambda lease: held_by(lease, "five"))
    cluster.create(CHARTS, hello("awake"))
    os.kill(cluster.children["four"].pid, signal.SIGCONT)
    cluster.until_answers(lambda: "lost the Lease" in cluster.log("four"))
    cluster.until(CHARTS, "awake", ready_at(1))
    assert holder(cluster) == "five"
    assert revisions(cluster, "awake") == {"1": "deployed"}
    assert cluster.end("four") == 0
    assert cluster.end("five") == 0


def test_what_a_node_runs_itself_is_left_to_it(cluster: Upstream, account: Path) -> None:
    marker = {
        "metadata": {
            "name": "pinnace-operators-pi",
            "labels": {"operators.pinnace.dev/native": "true"},
            "annotations": {"operators.pinnace.dev/runs": "helm,netpol"},
        },
        "spec": {"holderIdentity": "pi"},
    }
    cluster.create(LEASES, marker)
    cluster.operators("one", "--operators=helm", *QUICK, kubeconfig=account)
    cluster.until_answers(lambda: "helm runs on node pi itself: not here" in cluster.log("one"))
    cluster.create(CHARTS, hello("theirs"))
    cluster.delete(f"{LEASES}/pinnace-operators-pi")
    # Only now: the finalizer is the first thing that an operator writes.
    cluster.until(CHARTS, "theirs", ready_at(1))
    assert cluster.end("one") == 0


def test_a_token_that_is_renewed_is_read_again(cluster: Upstream) -> None:
    account = cluster.account("kube-system", "ops-pinnace-operators")
    token = account.with_name("token")
    good = token.read_text()
    # A token of before, that the API no longer takes.
    token.write_text(good[:-8] + "AAAAAAAA")
    cluster.operators("one", "--operators=helm", *QUICK, kubeconfig=account, ready=False)
    cluster.until_answers(lambda: "Unauthorized" in cluster.log("one"))
    token.write_text(good)
    cluster.create(CHARTS, hello("renewed"))
    cluster.until(CHARTS, "renewed", ready_at(1))
    assert cluster.end("one") == 0


def test_an_api_server_that_comes_back_finds_them_at_work(cluster: Upstream, account: Path) -> None:
    cluster.operators("three", "--operators=helm", *QUICK, kubeconfig=account)
    cluster.until_answers(lambda: cluster.metric("three", "pinnace_operators_leader") == 1)
    cluster.kill("kube-apiserver")
    cluster.until_answers(lambda: "lost the Lease" in cluster.log("three"))
    cluster.start_api()
    cluster.create(CHARTS, hello("later"))
    cluster.until(CHARTS, "later", ready_at(1))
    assert cluster.end("three") == 0


def test_metrics_and_health_are_told(acting: Upstream) -> None:
    acting.until_answers(lambda: acting.metric(OPERATORS, "pinnace_operators_leader") == 1)
    acting.until_answers(lambda: acting.metric(OPERATORS, "pinnace_queue_looks_total") >= 0)
    text = requests.get(acting.health(OPERATORS) + "/metrics", timeout=5).text
    assert 'pinnace_queue_looks_total{queue="HelmChart"}' in text
    assert requests.get(acting.health(OPERATORS) + "/healthz", timeout=5).text == "ok"
