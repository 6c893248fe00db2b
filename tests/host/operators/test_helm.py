"""HelmCharts on a real control plane with the real Helm library."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import pack
from tests.fakes.operators_cluster import ROOT, Cluster, condition, new_cluster

pytestmark = pytest.mark.root
OPERATORS = "operators.run"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
SECRETS = "/api/v1/namespaces/default/secrets"
PAGES = "/api/v1/namespaces/default/configmaps"
FINALIZER = "wrangler.cattle.io/on-helm-chart-remove"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("helm")) as made:
        made.start(OPERATORS)
        yield made
        assert made.stop(OPERATORS) == 0, made.log(OPERATORS)


def ready_at(revision: int, generation: int = 1) -> Any:
    def holds(chart: Any) -> bool:
        ready = condition(chart, "Ready")
        return (
            ready.get("status") == "True"
            and ready["observedGeneration"] == generation
            and ready["message"].endswith(f"revision {revision}")
        )

    return holds


def hello(name: str, **spec: Any) -> dict[str, Any]:
    content = base64.b64encode(pack(ROOT / "charts" / "hello")).decode()
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name},
        "spec": {"targetNamespace": "default", "chartContent": content, **spec},
    }


def revisions(cluster: Cluster, release: str) -> dict[str, str]:
    query = f"?labelSelector=owner%3Dhelm,name%3D{release}"
    labels = [item["metadata"]["labels"] for item in cluster.get(SECRETS + query)["items"]]
    return {label["version"]: label["status"] for label in labels}


def test_the_example_is_installed_upgraded_and_removed(cluster: Cluster) -> None:
    example = yaml.safe_load((ROOT / "examples" / "hello.yaml").read_text())
    cluster.create(CHARTS, example)
    chart = cluster.until(CHARTS, "hello", ready_at(1))

    assert condition(chart, "Failed")["status"] == "False"
    assert condition(chart, "JobCreated")["status"] == "True"
    assert chart["metadata"]["finalizers"] == [FINALIZER]
    assert "annotations" not in chart["metadata"]
    assert "sh.helm.release.v1.hello.v1" in cluster.names(SECRETS)

    cluster.merge(f"{CHARTS}/hello", {"spec": {"valuesContent": "message: Changed"}})
    cluster.until(CHARTS, "hello", ready_at(2, generation=2))
    assert "<h1>Changed</h1>" in cluster.get(f"{PAGES}/hello")["data"]["index.html"]

    cluster.delete(f"{CHARTS}/hello")
    cluster.until(CHARTS, "hello", lambda chart: chart is None)
    assert "hello" not in cluster.names(PAGES)
    assert revisions(cluster, "hello") == {}


def test_an_unchanged_chart_is_written_only_once(cluster: Cluster) -> None:
    cluster.create(CHARTS, hello("same"))
    before = cluster.until(CHARTS, "same", ready_at(1))

    # Neither a label nor a restart of the operators is a change of the release.
    touched = cluster.merge(f"{CHARTS}/same", {"metadata": {"labels": {"touched": "yes"}}})
    assert cluster.stop(OPERATORS) == 0
    cluster.start(OPERATORS)
    cluster.create(CHARTS, hello("after", chartContent=""))
    cluster.until(CHARTS, "after", lambda c: condition(c, "Failed").get("reason") == "NoChart")

    after = cluster.get(f"{CHARTS}/same")
    assert after["status"] == before["status"]
    assert after["metadata"]["resourceVersion"] == touched["metadata"]["resourceVersion"]
    assert revisions(cluster, "same") == {"1": "deployed"}


def by_hand(cluster: Cluster, call: str) -> None:
    """What a person does with the helm command, whose fields are managed by "helm"."""
    script = "import sys; from operators.helm.worker import name_the_program; name_the_program(); "
    script += "import helm_python; helm_python.Config(kubeconfig_path=sys.argv[1], "
    script += f"namespace='default').{call}"
    subprocess.run([sys.executable, "-c", script, str(cluster.kubeconfig)], check=True, cwd=ROOT)


def test_what_a_person_rolled_back_stays_so(cluster: Cluster) -> None:
    cluster.create(CHARTS, hello("rolled", valuesContent="message: one"))
    cluster.until(CHARTS, "rolled", ready_at(1))
    cluster.merge(f"{CHARTS}/rolled", {"spec": {"valuesContent": "message: two"}})
    cluster.until(CHARTS, "rolled", ready_at(2, generation=2))

    by_hand(cluster, "rollback('rolled', version=1)")
    assert cluster.stop(OPERATORS) == 0
    cluster.start(OPERATORS)

    # It says that it saw revision 3, the rollback, and leaves it.
    cluster.until(CHARTS, "rolled", ready_at(3, generation=2))
    assert "<h1>one</h1>" in cluster.get(f"{PAGES}/rolled-hello")["data"]["index.html"]


def test_values_of_a_config_and_of_a_secret_count(cluster: Cluster) -> None:
    secret = {"metadata": {"name": "more"}, "stringData": {"values.yaml": "message: of the secret"}}
    cluster.create("/api/v1/namespaces/kube-system/secrets", secret)
    entry = {"name": "more", "keys": ["values.yaml"]}
    cluster.create(
        CHARTS, hello("valued", valuesSecrets=[entry], values={"message": "of the chart"})
    )
    cluster.until(CHARTS, "valued", ready_at(1))
    page = f"{PAGES}/valued-hello"
    assert "<h1>of the secret</h1>" in cluster.get(page)["data"]["index.html"]

    cluster.merge(
        "/api/v1/namespaces/kube-system/secrets/more",
        {"stringData": {"values.yaml": "message: of the new secret"}},
    )
    cluster.until(CHARTS, "valued", ready_at(2))
    assert "<h1>of the new secret</h1>" in cluster.get(page)["data"]["index.html"]

    config = {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChartConfig",
        "metadata": {"name": "valued"},
        "spec": {"valuesContent": "message: of the config"},
    }
    cluster.create(CHARTS.replace("helmcharts", "helmchartconfigs"), config)
    cluster.until(CHARTS, "valued", ready_at(3))
    assert "<h1>of the config</h1>" in cluster.get(page)["data"]["index.html"]


def hooked(tmp_path: Path) -> str:
    """A chart whose install waits for a Job that no node will run."""
    folder = tmp_path / "hooked"
    (folder / "templates").mkdir(parents=True)
    (folder / "Chart.yaml").write_text("apiVersion: v2\nname: hooked\nversion: 1.0.0\n")
    (folder / "values.yaml").write_text("wait: true\n")
    (folder / "templates" / "job.yaml").write_text(
        "{{ if .Values.wait }}\n"
        "apiVersion: batch/v1\nkind: Job\n"
        "metadata:\n  name: {{ .Release.Name }}\n  annotations: {helm.sh/hook: pre-install}\n"
        "spec:\n  template:\n    spec:\n      restartPolicy: Never\n"
        "      containers: [{name: a, image: a}]\n"
        "{{ end }}\n"
    )
    return base64.b64encode(pack(folder)).decode()


def test_an_install_that_is_killed_half_way_is_made_good(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create(CHARTS, hello("stuck", chartContent=hooked(tmp_path)))
    record = "sh.helm.release.v1.stuck.v1"
    pending = "pending-install"
    cluster.until(
        SECRETS, record, lambda r: r is not None and r["metadata"]["labels"]["status"] == pending
    )
    [worker] = cluster.pids(OPERATORS, "operators.helm.worker")
    os.kill(worker, signal.SIGKILL)
    chart = cluster.until(CHARTS, "stuck", lambda c: condition(c, "Failed").get("status") == "True")
    assert condition(chart, "Failed")["reason"] == "WorkerDied"

    cluster.merge(f"{CHARTS}/stuck", {"spec": {"values": {"wait": False}}})
    cluster.until(CHARTS, "stuck", ready_at(1, generation=2))
    assert revisions(cluster, "stuck") == {"1": "deployed"}


def test_operators_that_were_killed_half_way_go_on(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create(CHARTS, hello("orphan", chartContent=hooked(tmp_path), failurePolicy="retry"))
    record = "sh.helm.release.v1.orphan.v1"
    cluster.until(SECRETS, record, lambda r: r is not None)
    cluster.kill(OPERATORS)
    cluster.merge(f"{CHARTS}/orphan", {"spec": {"values": {"wait": False}}})
    cluster.start(OPERATORS)

    cluster.until(CHARTS, "orphan", ready_at(2, generation=2))
    assert revisions(cluster, "orphan") == {"1": "superseded", "2": "deployed"}


def test_a_chart_that_is_none_is_refused_and_not_tried_again(cluster: Cluster) -> None:
    cluster.create(CHARTS, hello("broken", chartContent="bm8gY2hhcnQ="))
    failed = cluster.until(
        CHARTS, "broken", lambda c: condition(c, "Failed").get("status") == "True"
    )
    assert condition(failed, "Failed")["reason"] == "ChartLoadError"
    cluster.delete(f"{CHARTS}/broken")
    cluster.until(CHARTS, "broken", lambda chart: chart is None)


def test_charts_are_served_again_when_the_api_server_comes_back(cluster: Cluster) -> None:
    cluster.kill("controlplane.run")
    cluster.start("controlplane.run")
    cluster.create(CHARTS, hello("later"))
    cluster.until(CHARTS, "later", ready_at(1))
