"""Manifests of the shapes that K3s's documentation shows, each field of it, taken as they are."""

import json
import random
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts import packing
from tests.charts.person import Person, condition
from tests.e2e.conftest import Space
from tests.e2e.node import Node

# Written anew after https://docs.k3s.io/add-ons/helm; the charts are of nobody.
EXAMPLES = """
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: web}
spec:
  repo: https://charts.example.com/stable
  chart: web
  targetNamespace: web
  createNamespace: true
  version: 10.5.2
  set:
    global.systemDefaultRegistry: ""
    replicas: 2
    enabled: "true"
    tag: "1.10"
  valuesContent: |-
    image: web
    env: {ROOT_URL: "%(protocol)s://%(domain)s/"}
---
apiVersion: v1
kind: Secret
metadata: {name: repo-auth}
type: kubernetes.io/basic-auth
stringData: {username: user, password: pass}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: repo-ca}
data:
  ca.crt: |-
    -----BEGIN CERTIFICATE-----
    -----END CERTIFICATE-----
---
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: private}
spec:
  chart: private
  repo: https://secure-repo.example.com
  authSecret: {name: repo-auth}
  authPassCredentials: true
  repoCAConfigMap: {name: repo-ca}
  insecureSkipTLSVerify: false
---
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: registry}
spec:
  chart: oci://registry.example.com/charts/app
  version: 1.2.3
  plainHTTP: true
  dockerRegistrySecret: {name: repo-auth}
---
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: ingress}
spec:
  chart: https://%{KUBERNETES_API}%/static/charts/ingress-1.0.0.tgz
  bootstrap: true
  failurePolicy: abort
  timeout: 15m
  set: {global.systemDefaultRegistry: registry.example.com}
---
apiVersion: helm.cattle.io/v1
kind: HelmChartConfig
metadata: {name: ingress}
spec:
  failurePolicy: reinstall
  valuesContent: |-
    image: {repository: docker.io/library/ingress, tag: v3.3.5}
    ports:
      web: {forwardedHeaders: {trustedIPs: [10.0.0.0/8]}}
  values: {service: {type: LoadBalancer}}
  valuesSecrets:
    - name: ingress-values
      ignoreUpdates: true
      keys: [values.yaml]
  forceConflicts: true
  serverSide: auto
---
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {name: everything}
spec:
  authPassCredentials: false
  authSecret: {name: repo-auth}
  backOffLimit: 1000
  bootstrap: false
  chart: app
  chartContent: ""
  createNamespace: false
  dockerRegistrySecret: {name: repo-auth}
  driver: secret
  failurePolicy: retry
  forceConflicts: false
  helmVersion: v3
  insecureSkipTLSVerify: true
  jobImage: rancher/klipper-helm:v0.9.0-build20241211
  plainHTTP: false
  podSecurityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  repo: https://charts.example.com
  repoCA: ""
  repoCAConfigMap: {name: repo-ca}
  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
  serverSide: "false"
  set: {number: 5, text: five, nothing: "null"}
  takeOwnership: true
  targetNamespace: kube-system
  timeout: 30m0s
  values: {nested: {list: [1, {a: b}], number: 1.5, nothing: null}}
  valuesContent: "a: b"
  valuesSecrets:
    - {name: values, keys: [a.yaml, b.yaml], ignoreUpdates: false}
  version: ">=1.0.0 <2.0.0"
"""
FIELDS = yaml.safe_load(EXAMPLES.split("---")[-1])["spec"]


@pytest.fixture
def person(space: Space) -> Person:
    return Person(space)


def test_every_shape_of_the_documentation_is_taken_and_comes_back_as_it_was(person: Person) -> None:
    # Somebody else's, so that nothing is fetched.
    mark = {"helmcharts.helm.cattle.io/unmanaged": "true"}
    given = list(yaml.safe_load_all(EXAMPLES))
    for thing in given:
        thing["metadata"]["annotations"] = mark
    text = "\n".join(json.dumps(thing) for thing in given)
    apply = ("apply", "-f", "-", "--validate=strict")
    assert person.space.kubectl(*apply, input=text).count("created") == len(given)
    # A Secret with stringData alone is never the same to kubectl.
    assert person.space.kubectl(*apply, input=text).count("unchanged") == len(given) - 1
    person.space.kubectl(*apply, "--server-side", "--force-conflicts", input=text)
    for thing in given:
        if "spec" in thing:
            kept = person.space.get(thing["kind"].lower(), thing["metadata"]["name"])["spec"]
            assert {field: kept.get(field) for field in thing["spec"]} == thing["spec"]
    assert len(FIELDS) == 29
    person.space.kubectl("delete", "hc,hcc", "--all", "--timeout=10s")


def test_what_no_field_allows_is_refused(person: Person) -> None:
    refused: list[tuple[str, Any]] = [
        ("failurePolicy", "ignore"),
        ("serverSide", "maybe"),
        ("driver", "sql"),
        ("set", {"a": [1]}),
        ("backOffLimit", "many"),
        ("bootstrap", "yes"),
        ("chrat", "web"),
    ]
    for field, value in refused:
        spec = {"chart": "web", "repo": "https://charts.example.com", field: value}
        body = {"apiVersion": "helm.cattle.io/v1", "kind": "HelmChart", "spec": spec}
        text = json.dumps(body | {"metadata": {"name": "refused"}})
        said = person.space.refused("apply", "-f", "-", "--validate=strict", input=text)
        assert field in said


def test_a_file_in_the_folder_of_manifests_is_a_release(node: Node, space: Space) -> None:
    """A HelmChart and its configuration in one file, as packaged components come."""
    person, folder = Person(space), node.data / "server" / "manifests"
    served = node.data / "server" / "static" / "charts"
    served.mkdir(parents=True, exist_ok=True)
    (served / "told-1.0.0.tgz").write_bytes(packing.packed("told"))
    metadata = {"name": "of-a-file", "namespace": space.name}
    address = "https://%{KUBERNETES_API}%/static/charts/told-1.0.0.tgz"
    things = [
        {"kind": "HelmChart", "spec": {"chart": address, "bootstrap": True}},
        {"kind": "HelmChartConfig", "spec": {"valuesContent": "of: the file"}},
    ]
    written = [{"apiVersion": "helm.cattle.io/v1", "metadata": metadata, **t} for t in things]
    path = folder / "of-a-file.yaml"
    _place(path, yaml.safe_dump_all(written))
    space.until(lambda: person.chart("of-a-file"))
    person.deployed("of-a-file", max(1, person.last("of-a-file")[0]))
    space.until(lambda: person.told("of-a-file") == {"of": "the file"})

    written[1]["spec"] = {"valuesContent": "of: the changed file"}
    _place(path, yaml.safe_dump_all(written))
    space.until(lambda: person.told("of-a-file") == {"of": "the changed file"})
    path.unlink()
    node.kubectl("delete", "addon", "of-a-file", "-n", "kube-system", "--wait=false")
    person.delete("of-a-file")


def _place(path: Path, text: str) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.rename(path)


def test_a_chart_may_be_as_long_as_the_api_allows_and_not_longer(person: Person) -> None:
    """The record of a release holds the values and what came of them, in a Secret of a MiB."""
    blob = noise(450_000)
    words = {"unicode": "ünï ☃ 日本語 🎉", "quotes": "'\"`$\\"}
    person.apply("long", "big", values={"blob": blob, "words": words}, failurePolicy="retry")
    person.deployed("long", 1)
    assert person.data("long-big-conf") == {"blob": blob, **words}

    person.apply("long", "big", values={"blob": noise(560_000)}, failurePolicy="abort")
    assert "1048576" in person.failed("long")["message"]
    name = "a-name-as-long-as-helm-takes-them-of-fifty-three-char"
    assert len(name) == 53
    person.apply(name, "big", values={"objects": 2})
    chart = person.deployed(name, 1)
    assert name in condition(chart, "Ready")["message"]
    person.apply("long", "big", values={"blob": "short"})
    person.deployed("long", 2)
    person.delete("long")
    assert person.left("long") == []


def noise(length: int) -> str:
    """Text that no compression makes shorter than three quarters; the same each time."""
    return b64encode(random.Random(1).randbytes(length * 3 // 4)).decode()
