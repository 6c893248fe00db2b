"""The definitions of HelmChart and HelmChartConfig, on Pinnace's API server and on upstream's."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.fakes.operators_cluster import ROOT, Cluster, new_cluster
from tests.upstream.cluster import Upstream, needs_upstream, upstream

pytestmark = pytest.mark.root
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
GROUP = "/apis/helm.cattle.io/v1/namespaces/kube-system"
STRICT = "?fieldValidation=Strict"

# What K3s's documents show and more: each field that its Helm controller has.
K3S = """
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata:
  name: everything
  namespace: kube-system
  annotations:
    helmcharts.cattle.io/managed-by: somebody-else
spec:
  repo: https://charts.example.com/stable
  chart: web
  version: 1.2.3
  targetNamespace: web
  createNamespace: true
  bootstrap: true
  helmVersion: v3
  jobImage: example.com/klipper-helm:v0.9
  backOffLimit: 5
  timeout: 10m0s
  failurePolicy: abort
  takeOwnership: true
  serverSide: "true"
  forceConflicts: true
  driver: configmap
  authPassCredentials: true
  insecureSkipTLSVerify: true
  plainHTTP: false
  authSecret:
    name: login
  dockerRegistrySecret:
    name: registry
  repoCA: |-
    -----BEGIN CERTIFICATE-----
    -----END CERTIFICATE-----
  repoCAConfigMap:
    name: authorities
  podSecurityContext:
    runAsNonRoot: true
    fsGroup: 1000
  securityContext:
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
  set:
    global.clusterCIDR: 10.42.0.0/16,fd42::/48
    rbac.enabled: "true"
    ssl.enabled: "true"
    replicas: 2
  values:
    image: {repository: example.com/web, tag: v1}
    ports: [{name: http, port: 80}]
  valuesContent: |-
    ingress:
      enabled: true
  valuesSecrets:
    - name: more
      keys: [a.yaml, b.yaml]
      ignoreUpdates: true
"""
CONFIG = """
apiVersion: helm.cattle.io/v1
kind: HelmChartConfig
metadata: {name: everything, namespace: kube-system}
spec:
  failurePolicy: retry
  serverSide: auto
  forceConflicts: false
  values: {replicas: 3}
  valuesContent: |-
    ingress: {enabled: false}
  valuesSecrets:
    - {name: more, keys: [c.yaml]}
"""
OURS = {
    "chartContent": "dGd6",
    "failurePolicy": "rollback",
    "suspend": True,
    "dependsOn": [{"name": "a"}, {"name": "b", "namespace": "other"}],
    "maintenanceWindow": {
        "days": ["mo", "tuesday", 3],
        "startTime": "22:00",
        "endTime": "5am",
        "timeZone": "Europe/Vienna",
    },
    "driftDetection": {
        "mode": "correct",
        "interval": "30m",
        "ignore": [{"kind": "Deployment", "name": "web", "paths": ["/spec/replicas"]}],
    },
}


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
            for plural in ("helmcharts", "helmchartconfigs"):
                cluster.until(DEFINITIONS, f"{plural}.helm.cattle.io", is_served)
            yield cluster
        return
    with upstream(folder) as there:
        for plural in ("helmcharts", "helmchartconfigs"):
            path = ROOT / "controlplane" / "deploy" / "crds" / f"{plural}.yaml"
            there.create(DEFINITIONS, yaml.safe_load(path.read_text()))
            there.until(DEFINITIONS, f"{plural}.helm.cattle.io", is_served)
        yield there


def is_served(definition: Any) -> bool:
    conditions = ((definition or {}).get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def chart(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name, "namespace": "kube-system"},
        "spec": spec,
    }


def test_every_field_of_k3s_is_taken_as_it_is(api: Cluster) -> None:
    given = yaml.safe_load(K3S)
    made = api.create(f"{GROUP}/helmcharts{STRICT}", given)
    assert made["spec"] == given["spec"]
    config = yaml.safe_load(CONFIG)
    made = api.create(f"{GROUP}/helmchartconfigs{STRICT}", config)
    assert made["spec"] == config["spec"]


def test_every_field_of_ours_is_taken_as_it_is(api: Cluster) -> None:
    made = api.create(f"{GROUP}/helmcharts{STRICT}", chart("ours", **OURS))
    assert made["spec"] == {**OURS, "driver": "secret"}


def test_defaults_are_those_of_k3s_but_a_config_overrides_nothing_by_itself(api: Cluster) -> None:
    made = api.create(f"{GROUP}/helmcharts", chart("plain", chart="web"))
    assert made["spec"] == {"chart": "web", "driver": "secret", "failurePolicy": "reinstall"}
    body = {**yaml.safe_load(CONFIG), "metadata": {"name": "plain"}, "spec": {}}
    assert api.create(f"{GROUP}/helmchartconfigs", body)["spec"] == {}


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"failurePolicy": "hope"}, "spec.failurePolicy"),
        ({"driver": "sql"}, "spec.driver"),
        ({"serverSide": "yes"}, "spec.serverSide"),
        ({"set": {"a": {}}}, "spec.set.a"),
        ({"dependsOn": [{}]}, "spec.dependsOn[0].name"),
        ({"maintenanceWindow": {"days": [], "startTime": "1", "endTime": "2"}}, "days"),
        ({"driftDetection": {"mode": "pray"}}, "spec.driftDetection.mode"),
        (
            {"driftDetection": {"mode": "detect", "ignore": [{"paths": ["spec"]}]}},
            "spec.driftDetection.ignore[0].paths[0]",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_field(
    api: Cluster, spec: dict[str, Any], words: str
) -> None:
    with pytest.raises(AssertionError) as refused:
        api.create(f"{GROUP}/helmcharts", chart("refused", **spec))
    assert "422" in str(refused.value)
    assert words in str(refused.value)


def test_the_columns_are_k3s_s_and_whether_it_is_ready(api: Cluster) -> None:
    [version] = api.get(f"{DEFINITIONS}/helmcharts.helm.cattle.io")["spec"]["versions"]
    columns = version["additionalPrinterColumns"]
    shown = [column["name"] for column in columns if not column.get("priority")]
    names = ["Repo", "Chart", "Version", "TargetNamespace", "Bootstrap", "Failed", "Ready"]
    assert shown == names


def test_a_driver_is_for_ever(api: Cluster) -> None:
    if not isinstance(api, Upstream):
        pytest.skip("Pinnace evaluates no rules: its operator refuses by a condition")
    api.create(f"{GROUP}/helmcharts", chart("stored", chart="web"))
    with pytest.raises(AssertionError, match="driver is immutable after creation"):
        api.merge(f"{GROUP}/helmcharts/stored", {"spec": {"driver": "configmap"}})


def test_short_names_are_known(api: Cluster) -> None:
    found = {r["name"]: r for r in api.get("/apis/helm.cattle.io/v1")["resources"]}
    assert found["helmcharts"]["shortNames"] == ["hc"]
    assert found["helmchartconfigs"]["shortNames"] == ["hcc"]
