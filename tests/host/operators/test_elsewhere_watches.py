"""Watches that fail in every way an API server or the way to it can fail; and who runs what."""

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.api_faults import Fault, Request, misbehaving
from tests.fakes.operators_cluster import ROOT, Cluster, condition, new_cluster

pytestmark = pytest.mark.root
OPERATORS = "operators.run"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
SERVICES = "/api/v1/namespaces/default/services"
DAEMONSETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("watches")) as made:
        yield made


class Failing:
    """The first watches of each kind get these answers, in order; so do the lists of charts."""

    def __init__(self, *codes: int, only: str = "") -> None:
        self._codes = codes
        self._only = only
        self._seen: dict[tuple[str, bool], int] = {}

    def __call__(self, request: Request) -> Fault | None:
        listed = request.method == "GET" and request.path.endswith("helmcharts")
        if not (request.watch or listed) or not request.path.endswith(self._only):
            return None
        key = (request.path, request.watch)
        number = self._seen[key] = self._seen.get(key, 0) + 1
        return Fault(code=self._codes[number - 1]) if number <= len(self._codes) else None


def seen(cluster: Cluster) -> None:
    """A chart that is made now is looked at: it names none, which its status says."""
    name = f"chart-{next(NUMBERS)}"
    body = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "metadata": {"name": name}}
    cluster.create(CHARTS, body | {"spec": {}})
    cluster.until(CHARTS, name, lambda c: condition(c, "Failed").get("reason") == "NoChart")


@pytest.mark.parametrize("codes", [(429, 500, 0, 503), (410, 504), (403, 403), (401, 401)])
def test_what_fails_is_begun_again(cluster: Cluster, codes: tuple[int, ...]) -> None:
    with misbehaving(cluster.data / "agent" / "operators.kubeconfig") as faults:
        faults.rule = Failing(*codes)
        cluster.start(OPERATORS, "--disable-network-policy", "--disable=local-storage")
        try:
            seen(cluster)
            assert faults.made >= len(codes)
        finally:
            assert cluster.stop(OPERATORS) == 0


@pytest.mark.parametrize("code", [401, 404])
def test_a_watch_that_is_refused_alone_is_begun_again(cluster: Cluster, code: int) -> None:
    with misbehaving(cluster.data / "agent" / "operators.kubeconfig") as faults:
        faults.rule = Failing(code, only="helmcharts")
        cluster.start(OPERATORS, "--disable-network-policy", "--disable=local-storage")
        try:
            seen(cluster)
        finally:
            assert cluster.stop(OPERATORS) == 0


def test_those_elsewhere_leave_to_a_node_what_it_runs(cluster: Cluster, tmp_path: Path) -> None:
    cluster.start(OPERATORS, "--disable-network-policy", "--disable=servicelb")
    # servicelb is there only to take back what it gave: it is not said to run.
    cluster.until(
        LEASES, "pinnace-operators-n1", lambda lease: runs(lease) == "helm,localpath,upgrade"
    )

    log = tmp_path / "log"
    argv = [
        *(sys.executable, "-m", "operators", "--operators=helm,servicelb", "--health-address=0"),
        *(f"--kubeconfig={cluster.kubeconfig}", f"--run-dir={tmp_path}"),
    ]
    with log.open("w") as writing:
        elsewhere = subprocess.Popen(argv, cwd=ROOT, stderr=writing)
    try:
        cluster.until(LEASES, "pinnace-operators", lambda lease: lease is not None)
        # What is not the node's is theirs: servicelb gives its address, which the node does not.
        spec = {"type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "a"}}
        cluster.create(SERVICES, {"metadata": {"name": "balanced"}, "spec": spec})
        cluster.until(DAEMONSETS, name_of(cluster), lambda found: found is not None)
    finally:
        elsewhere.terminate()
        assert elsewhere.wait(20) == 0
    assert "helm runs on node n1 itself: not here" in log.read_text()
    assert "servicelb runs on node" not in log.read_text()
    assert cluster.stop(OPERATORS) == 0


def runs(lease: Any) -> str:
    found = (lease or {}).get("metadata", {}).get("annotations", {})
    return str(found.get("operators.pinnace.dev/runs"))


def name_of(cluster: Cluster) -> str:
    uid = cluster.get(f"{SERVICES}/balanced")["metadata"]["uid"]
    return f"svclb-balanced-{uid[:8]}"
