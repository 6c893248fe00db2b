"""HelmCharts on a real control plane with the real Helm library."""

import base64
import gzip
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts import pack
from operators.helm import records
from tests.charts.packing import content, written
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


def test_operators_that_are_told_to_stop_take_their_worker_with_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create(CHARTS, hello("stopped", chartContent=hooked(tmp_path)))
    cluster.until(SECRETS, "sh.helm.release.v1.stopped.v1", lambda r: r is not None)
    [worker] = cluster.pids(OPERATORS, "operators.helm.worker")
    assert cluster.stop(OPERATORS) == 0
    assert not Path(f"/proc/{worker}").exists()
    assert list((cluster.data / "run" / "helm").iterdir()) == []

    cluster.merge(f"{CHARTS}/stopped", {"spec": {"values": {"wait": False}}})
    cluster.start(OPERATORS)
    cluster.until(CHARTS, "stopped", ready_at(1, generation=2))


def test_a_chart_that_is_none_is_refused_and_not_tried_again(cluster: Cluster) -> None:
    cluster.create(CHARTS, hello("broken", chartContent="bm8gY2hhcnQ="))
    failed = cluster.until(
        CHARTS, "broken", lambda c: condition(c, "Failed").get("status") == "True"
    )
    assert condition(failed, "Failed")["reason"] == "ChartLoadError"
    cluster.delete(f"{CHARTS}/broken")
    cluster.until(CHARTS, "broken", lambda chart: chart is None)


def test_a_release_that_no_record_can_hold_is_not_tried_again(
    cluster: Cluster, tmp_path: Path
) -> None:
    files = {"Chart.yaml": "apiVersion: v2\nname: large\nversion: 1.0.0\n"}
    # What cannot be packed any smaller: a record holds it in base64, twice.
    files["files/noise"] = base64.b64encode(random.Random(1).randbytes(700_000)).decode()
    large = base64.b64encode(written(tmp_path, files)).decode()
    cluster.create(CHARTS, hello("large", chartContent=large))
    chart = cluster.until(CHARTS, "large", lambda c: condition(c, "Failed").get("status") == "True")
    assert "Too long" in condition(chart, "Failed")["message"]
    assert chart["status"]["failure"]["final"]
    assert revisions(cluster, "large") == {}


def test_charts_are_served_again_when_the_api_server_comes_back(cluster: Cluster) -> None:
    cluster.kill("controlplane.run")
    cluster.start("controlplane.run")
    cluster.create(CHARTS, hello("later"))
    cluster.until(CHARTS, "later", ready_at(1))


CHECK = "helm.pinnace.dev/check"


def pair(tmp_path: Path) -> str:
    """A page that is there at once, and on demand a pod that no node runs, so it is never ready."""
    files = {
        "Chart.yaml": "apiVersion: v2\nname: pair\nversion: 1.0.0\nappVersion: '7'\n",
        "values.yaml": "message: default\npod: false\n",
        "templates/page.yaml": (
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}'}\n"
            "data: {message: '{{ .Values.message }}'}\n"
        ),
        "templates/budget.yaml": (
            "apiVersion: policy/v1\nkind: PodDisruptionBudget\n"
            "metadata: {name: '{{ .Release.Name }}'}\n"
            "spec: {maxUnavailable: 1, selector: {matchLabels: {a: b}}}\n"
        ),
        "templates/pod.yaml": (
            "{{ if .Values.pod }}\napiVersion: v1\nkind: Pod\n"
            "metadata: {name: '{{ .Release.Name }}'}\n"
            "spec: {containers: [{name: a, image: a}]}\n{{ end }}\n"
        ),
    }
    return base64.b64encode(written(tmp_path, files)).decode()


def told_of(revision: int) -> Any:
    return lambda chart: (chart["status"].get("release") or {}).get("revision") == revision


def failed_by(reason: str) -> Any:
    def holds(chart: Any) -> bool:
        failed = condition(chart, "Failed")
        return (failed.get("status"), failed.get("reason")) == ("True", reason)

    return holds


def message_of(cluster: Cluster, release: str) -> str:
    message: str = cluster.get(f"{PAGES}/{release}")["data"]["message"]
    return message


def test_what_does_not_come_up_is_rolled_back(cluster: Cluster, tmp_path: Path) -> None:
    spec = {"chartContent": pair(tmp_path), "failurePolicy": "rollback", "timeout": "3s"}
    cluster.create(CHARTS, hello("back", **spec, values={"message": "one"}))
    cluster.until(CHARTS, "back", ready_at(1))
    cluster.merge(f"{CHARTS}/back", {"spec": {"values": {"message": "two", "pod": True}}})
    chart = cluster.until(CHARTS, "back", told_of(3))

    assert condition(chart, "Ready")["status"] == "False"
    assert condition(chart, "Failed")["reason"] == "RolledBack"
    assert condition(chart, "Failed")["message"].endswith("; rolled back to revision 1")
    assert revisions(cluster, "back") == {"1": "superseded", "2": "failed", "3": "deployed"}
    assert message_of(cluster, "back") == "one"
    assert "back" not in cluster.names("/api/v1/namespaces/default/pods")

    cluster.merge(f"{CHARTS}/back", {"spec": {"values": {"message": "three", "pod": False}}})
    cluster.until(CHARTS, "back", ready_at(4, generation=3))
    # Values that are gone are the chart's own again.
    cluster.merge(f"{CHARTS}/back", {"spec": {"values": None}})
    cluster.until(CHARTS, "back", ready_at(5, generation=4))
    assert message_of(cluster, "back") == "default"


def test_a_first_install_that_does_not_come_up_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    spec = {"chartContent": pair(tmp_path), "failurePolicy": "rollback", "timeout": "2s"}
    cluster.create(CHARTS, hello("never", **spec, values={"pod": True}))
    chart = cluster.until(CHARTS, "never", failed_by("RolledBack"))
    assert "uninstalled" in condition(chart, "Failed")["message"]
    record = "sh.helm.release.v1.never.v1"
    cluster.until(SECRETS, record, lambda r: r is None)
    assert "never" not in cluster.names(PAGES)
    cluster.merge(f"{CHARTS}/never", {"spec": {"values": {"pod": False}}})
    cluster.until(CHARTS, "never", ready_at(1, generation=2))


@pytest.mark.parametrize(("name", "server_side"), [("umbrella", "auto"), ("probing", "false")])
def test_what_a_release_made_has_not_drifted(cluster: Cluster, name: str, server_side: str) -> None:
    spec = {"driftDetection": {"mode": "detect"}, "serverSide": server_side}
    cluster.create(CHARTS, hello(name, chartContent=content(name), **spec))
    cluster.until(CHARTS, name, ready_at(1))
    cluster.merge(f"{CHARTS}/{name}", {"metadata": {"annotations": {CHECK: "1"}}})
    chart = cluster.until(CHARTS, name, lambda c: condition(c, "Drifted") != {})
    drifted = condition(chart, "Drifted")
    assert (drifted["status"], drifted["reason"]) == ("False", "InSync"), drifted


def test_drift_is_told_and_put_right(cluster: Cluster, tmp_path: Path) -> None:
    spec = {"chartContent": pair(tmp_path), "driftDetection": {"mode": "detect"}}
    cluster.create(CHARTS, hello("drift", **spec))
    made = cluster.until(CHARTS, "drift", ready_at(1))
    page = cluster.merge(f"{PAGES}/drift", {"data": {"message": "changed", "more": "is fine"}})
    assert {entry["manager"] for entry in page["metadata"]["managedFields"]} >= {"helm"}
    cluster.merge(f"{CHARTS}/drift", {"metadata": {"annotations": {CHECK: "1"}}})
    chart = cluster.until(
        CHARTS, "drift", lambda c: condition(c, "Drifted").get("status") == "True"
    )
    assert condition(chart, "Drifted")["message"] == "ConfigMap drift: /data/message"
    assert chart["status"]["release"] == made["status"]["release"]

    cluster.delete("/apis/policy/v1/namespaces/default/poddisruptionbudgets/drift")
    cluster.merge(f"{CHARTS}/drift", {"spec": {"driftDetection": {"mode": "correct"}}})
    chart = cluster.until(
        CHARTS, "drift", lambda c: condition(c, "Drifted").get("reason") == "Corrected"
    )
    assert "PodDisruptionBudget drift: missing" in condition(chart, "Drifted")["message"]
    assert cluster.get(f"{PAGES}/drift")["data"] == {"message": "default", "more": "is fine"}
    assert "drift" in cluster.names("/apis/policy/v1/namespaces/default/poddisruptionbudgets")


def test_a_lost_record_is_made_again_over_what_is_there(cluster: Cluster, tmp_path: Path) -> None:
    cluster.create(CHARTS, hello("lost", chartContent=pair(tmp_path), driver="configmap"))
    cluster.until(CHARTS, "lost", ready_at(1))
    before = cluster.get(f"{PAGES}/lost")["metadata"]["uid"]
    record = "sh.helm.release.v1.lost.v1"
    assert record in cluster.names(PAGES)
    assert revisions(cluster, "lost") == {}
    cluster.delete(f"{PAGES}/{record}")
    cluster.merge(f"{CHARTS}/lost", {"metadata": {"annotations": {CHECK: "1"}}})
    cluster.until(
        PAGES, record, lambda r: r is not None and r["metadata"]["labels"]["status"] == "deployed"
    )
    assert cluster.get(f"{PAGES}/lost")["metadata"]["uid"] == before

    # One that no Helm wrote stands in the way of the next revision.
    label = {"owner": "helm", "name": "lost", "version": "2", "status": "pending-upgrade"}
    cluster.create(
        PAGES,
        {
            "metadata": {"name": "sh.helm.release.v1.lost.v2", "labels": label},
            "data": {"release": "?"},
        },
    )
    cluster.merge(f"{CHARTS}/lost", {"spec": {"values": {"message": "next"}, "timeout": "1s"}})
    cluster.until(CHARTS, "lost", ready_at(2, generation=2))
    assert message_of(cluster, "lost") == "next"


def test_a_release_with_objects_of_removed_versions_is_upgraded(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.create(CHARTS, hello("old", chartContent=pair(tmp_path)))
    cluster.until(CHARTS, "old", ready_at(1))
    path = f"{SECRETS}/sh.helm.release.v1.old.v1"
    record = cluster.get(path)
    release = records.decode(record, "secret")
    release["manifest"] = release["manifest"].replace("policy/v1", "policy/v1beta1")
    data = base64.b64encode(gzip.compress(json.dumps(release).encode()))
    cluster.merge(path, {"data": {"release": base64.b64encode(data).decode()}})
    cluster.merge(f"{CHARTS}/old", {"spec": {"values": {"message": "next"}}})
    cluster.until(CHARTS, "old", ready_at(2, generation=2))
    assert message_of(cluster, "old") == "next"
    assert revisions(cluster, "old") == {"1": "superseded", "2": "deployed"}


def test_charts_wait_for_others_and_for_whoever_suspended_them(
    cluster: Cluster, tmp_path: Path
) -> None:
    pairs = pair(tmp_path)
    depends = [{"name": "first"}]
    cluster.create(CHARTS, hello("second", chartContent=pairs, dependsOn=depends))
    waits = cluster.until(
        CHARTS, "second", lambda c: condition(c, "Ready").get("reason") == "DependencyNotReady"
    )
    assert "kube-system/first is not there" in condition(waits, "Ready")["message"]
    cluster.create(CHARTS, hello("first", chartContent=pairs, suspend=True))
    cluster.until(CHARTS, "first", lambda c: condition(c, "Suspended").get("status") == "True")
    assert revisions(cluster, "first") == {}
    cluster.merge(f"{CHARTS}/first", {"spec": {"suspend": False}})
    cluster.until(CHARTS, "second", ready_at(1))
    assert revisions(cluster, "first") == {"1": "deployed"}
    cluster.merge(
        f"{CHARTS}/first", {"spec": {"dependsOn": [{"name": "second"}], "values": {"message": "x"}}}
    )
    cluster.until(CHARTS, "first", ready_at(2, generation=3))
    # Each was ready when the other changed; now both have.
    cluster.merge(f"{CHARTS}/second", {"spec": {"suspend": True}})
    cluster.merge(f"{CHARTS}/first", {"spec": {"values": {"message": "y"}}})
    cluster.until(CHARTS, "first", failed_by("DependencyCycle"))


def test_what_a_killed_process_left_behind_is_removed(cluster: Cluster) -> None:
    folder = cluster.data / "run" / "helm"
    (folder / "helm-left").mkdir()
    (folder / "helm-left" / "key.pem").write_text("secret")
    cluster.kill(OPERATORS)
    cluster.start(OPERATORS)
    cluster.create(CHARTS, hello("tidy", helmVersion="v2"))
    cluster.until(CHARTS, "tidy", failed_by("Unsupported version"))
    assert not (folder / "helm-left").exists()


def test_a_chart_goes_on_when_what_it_waits_for_comes(cluster: Cluster) -> None:
    core = "/api/v1/namespaces/kube-system"
    spec = {"chartContent": "", "chart": "web", "repo": "http://127.0.0.1:1"}
    wait = {"authSecret": {"name": "login"}, "repoCAConfigMap": {"name": "authorities"}}
    cluster.create(CHARTS, hello("waits", **spec, **wait))
    cluster.until(CHARTS, "waits", says("Ready", "ConfigMap authorities is not there"))
    cluster.create(f"{core}/configmaps", {"metadata": {"name": "authorities"}})
    cluster.until(CHARTS, "waits", says("Ready", "Secret login is not there"))
    cluster.create(f"{core}/secrets", {"metadata": {"name": "login"}})
    failed = cluster.until(CHARTS, "waits", failed_by("RepoError"))
    before = failed["status"]["failure"]["access"]
    # A change begins anew, and needs no other reason.
    cluster.merge(f"{core}/configmaps/authorities", {"data": {"a": ""}})
    cluster.until(CHARTS, "waits", lambda c: c is not None and access(c) != before)


def access(chart: Any) -> str:
    return str(chart["status"]["failure"]["access"])


def says(kind: str, words: str) -> Any:
    return lambda chart: words in condition(chart, kind).get("message", "")
