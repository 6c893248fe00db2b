"""kubectl asks: get in all its forms, describe, explain, and what the server says of itself."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import Node

DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, tier: front}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: hello
        image: pinnace.dev/hello:1
        ports: [{containerPort: 8080, name: http}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        resources: {requests: {cpu: 10m, memory: 8Mi}, limits: {memory: 64Mi}}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http, name: http}]
"""


@pytest.fixture(scope="module")
def web(node: Node) -> Iterator[Space]:
    """A Deployment of two replicas with its Service, for tests that only look."""
    node.kubectl("create", "namespace", "reading")
    space = Space(node, "reading")
    space.apply(DEPLOYMENT)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=30s")
    yield space
    node.kubectl("delete", "namespace", "reading", "--wait=false")


def columns(text: str) -> list[list[str]]:
    """The cells of a table; no cell of ours holds two spaces in a row."""
    return [re.split(r" {2,}", line.rstrip()) for line in text.strip().splitlines()]


def test_a_deployment_is_shown_as_a_table(web: Space) -> None:
    head, row = columns(web.kubectl("get", "deploy"))
    assert head == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row[:4] == ["web", "2/2", "2", "2"]
    head, row = columns(web.kubectl("get", "deploy", "-o", "wide"))
    assert head[5:] == ["CONTAINERS", "IMAGES", "SELECTOR"]
    assert row[5:] == ["hello", "pinnace.dev/hello:1", "app=web"]


def test_pods_are_shown_with_their_node_and_address_when_asked_wide(web: Space) -> None:
    head, *rows = columns(web.kubectl("get", "pods", "-o", "wide"))
    assert head[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert head[7:] == ["NOMINATED NODE", "READINESS GATES"]
    assert [(r[1], r[2], r[3], r[6], r[7], r[8]) for r in rows] == [
        ("1/1", "Running", "0", "pi", "<none>", "<none>")
    ] * 2
    assert all(re.fullmatch(r"10\.42\.0\.\d+", row[5]) for row in rows)


def test_a_service_and_its_endpoints_are_shown(web: Space) -> None:
    address = web.value("service", "web", path="{.spec.clusterIP}")
    assert columns(web.kubectl("get", "svc", "--no-headers"))[0][:5] == (
        ["web", "ClusterIP", address, "<none>", "80/TCP"]
    )
    shown = columns(web.kubectl("get", "endpointslices", "--no-headers"))[0]
    assert shown[1:3] == ["IPv4", "8080"]
    assert sorted(shown[3].split(",")) == sorted(
        web.value("pods", path="{.items[*].status.podIP}").split()
    )


def test_everything_is_listed_by_get_all(web: Space) -> None:
    names = web.kubectl("get", "all", "-o", "name").split()
    kinds = [name.split("/")[0] for name in names]
    assert kinds == ["pod", "pod", "service", "deployment.apps", "replicaset.apps"]


def test_many_kinds_are_listed_at_once_by_their_short_names(web: Space) -> None:
    shown = web.kubectl("get", "deploy,rs,svc,ep,cm,sa", "-o", "name")
    kinds = {line.split("/")[0] for line in shown.split()}
    assert kinds == {
        "deployment.apps",
        "replicaset.apps",
        "service",
        "endpoints",
        "configmap",
        "serviceaccount",
    }


def test_nothing_found_is_said_on_standard_error_with_success(web: Space) -> None:
    done = web.run("get", "jobs")
    assert (done.stdout, done.stderr) == ("", "No resources found in reading namespace.\n")


def test_what_is_missing_is_named_and_the_exit_code_is_one(web: Space) -> None:
    assert web.refused("get", "pod", "ghost") == (
        'Error from server (NotFound): pods "ghost" not found'
    )
    assert web.refused("get", "deployments.apps/ghost") == (
        'Error from server (NotFound): deployments.apps "ghost" not found'
    )
    assert web.refused("get", "ghosts") == (
        'error: the server doesn\'t have a resource type "ghosts"'
    )
    assert web.run("get", "pod", "ghost", "--ignore-not-found").stdout == ""


def test_labels_choose(web: Space) -> None:
    def chosen(selector: str) -> str:
        return web.kubectl("get", "deploy", "-l", selector, "-o", "name").strip()

    for fits in ("app=web", "app in (web,db)", "tier!=back", "tier", "!gone", "app notin (db)"):
        assert chosen(fits) == "deployment.apps/web", fits
    for fails in ("app=db", "app in (db)", "!tier", "tier=front,app=db"):
        assert chosen(fails) == "", fails


def test_fields_choose(web: Space) -> None:
    def count(kind: str, selector: str) -> int:
        shown = web.kubectl("get", kind, "--field-selector", selector, "-o", "name")
        return len(shown.split())

    assert count("pods", "status.phase=Running") == 2
    assert count("pods", "status.phase!=Running") == 0
    assert count("pods", "spec.nodeName=pi") == 2
    assert count("pods", "spec.nodeName=other") == 0
    assert count("services", "metadata.name=web") == 1
    assert count("events", "involvedObject.kind=Deployment") == 1
    refusal = web.refused("get", "pods", "--field-selector", "spec.bogus=1")
    assert refusal == (
        'Error from server (BadRequest): Unable to find "/v1, Resource=pods" that match label '
        'selector "", field selector "spec.bogus=1": field label not supported: spec.bogus'
    )


def test_lists_come_in_chunks_of_any_size(web: Space) -> None:
    whole = web.kubectl("get", "clusterroles", "-o", "name").split()
    chunked = web.kubectl("get", "clusterroles", "-o", "name", "--chunk-size=7").split()
    assert len(whole) > 20
    assert chunked == whole


def test_output_is_sorted_by_a_field(web: Space) -> None:
    shown = web.kubectl(
        "get", "clusterroles", "--sort-by=.metadata.uid", "-o", "jsonpath={.items[*].metadata.uid}"
    ).split()
    assert shown == sorted(shown)


def test_output_takes_every_form(web: Space) -> None:
    assert web.kubectl("get", "deploy", "-o", "name") == "deployment.apps/web\n"
    assert web.value("deploy", "web", path="{.spec.replicas}") == "2"
    custom = "custom-columns=N:.metadata.name,R:.spec.replicas,X:.spec.none"
    assert columns(web.kubectl("get", "deploy", "-o", custom)) == [
        ["N", "R", "X"],
        ["web", "2", "<none>"],
    ]
    template = "go-template={{range .items}}{{.metadata.name}} {{end}}"
    assert web.kubectl("get", "deploy", "-o", template) == "web "
    assert web.kubectl("get", "deploy", "web", "-o", "yaml").startswith(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n"
    )


def test_managed_fields_are_hidden_until_asked_for(web: Space) -> None:
    assert "managedFields" not in web.kubectl("get", "deploy", "web", "-o", "yaml")
    shown = json.loads(web.kubectl("get", "deploy", "web", "-o", "json", "--show-managed-fields"))
    managers = {(m["manager"], m["operation"]) for m in shown["metadata"]["managedFields"]}
    assert ("kubectl-client-side-apply", "Update") in managers


def test_labels_are_shown_as_columns(web: Space) -> None:
    head, row = columns(web.kubectl("get", "deploy", "-L", "tier", "--show-labels"))
    assert head[-2:] == ["TIER", "LABELS"]
    assert row[-2:] == ["front", "app=web,tier=front"]


def test_all_namespaces_are_shown_with_theirs_in_front(web: Space) -> None:
    head, *rows = columns(web.kubectl("get", "deploy", "-A"))
    assert head[:2] == ["NAMESPACE", "NAME"]
    assert ["reading", "web"] in [row[:2] for row in rows]


def test_a_watch_shows_each_change_as_it_comes(space: Space) -> None:
    with space.background("get", "configmaps", "--watch", "-o", "name") as watch:
        assert watch.stdout is not None
        assert watch.stdout.readline() == "configmap/kube-root-ca.crt\n"
        space.kubectl("create", "configmap", "one")
        assert watch.stdout.readline() == "configmap/one\n"
        space.kubectl("label", "configmap", "one", "a=b")
        assert watch.stdout.readline() == "configmap/one\n"


def test_a_watch_of_one_object_by_table_ends_with_its_deletion(space: Space) -> None:
    space.kubectl("create", "configmap", "one", "--from-literal=a=b")
    watch = ("get", "configmap", "one", "--watch", "--output-watch-events")
    with space.background(*watch) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline().split() == ["EVENT", "NAME", "DATA", "AGE"]
        assert watching.stdout.readline().split()[:3] == ["ADDED", "one", "1"]
        space.kubectl("delete", "configmap", "one")
        assert watching.stdout.readline().split()[:3] == ["DELETED", "one", "1"]


def test_explain_tells_of_fields_and_types(web: Space) -> None:
    shown = web.kubectl("explain", "deployment.spec.strategy")
    assert shown.startswith(
        "GROUP:      apps\nKIND:       Deployment\nVERSION:    v1\n\n"
        "FIELD: strategy <DeploymentStrategy>\n"
    )
    assert re.search(r"^  rollingUpdate\t<RollingUpdateDeployment>$", shown, re.MULTILINE)
    assert re.search(r"^  type\t<string>$", shown, re.MULTILINE)
    assert "enum: Recreate, RollingUpdate" in shown


def test_explain_recurses_and_marks_what_is_required(web: Space) -> None:
    shown = web.kubectl("explain", "pod.spec.containers", "--recursive")
    assert "FIELD: containers <[]Container>\n" in shown
    assert re.search(r"^  name\t<string> -required-$", shown, re.MULTILINE)
    assert re.search(r"^      secretKeyRef\t<SecretKeySelector>$", shown, re.MULTILINE)


def test_explain_names_a_field_that_is_not_there(web: Space) -> None:
    assert web.refused("explain", "pod.spec.bogus") == 'error: field "bogus" does not exist'


def test_the_server_tells_its_versions_and_kinds(web: Space) -> None:
    version = json.loads(web.kubectl("version", "-o", "json"))["serverVersion"]
    assert (version["major"], version["minor"]) == ("1", "36")
    assert version["gitVersion"].startswith("v1.36.")
    assert {"v1", "apps/v1", "batch/v1", "networking.k8s.io/v1"} <= set(
        web.kubectl("api-versions").split()
    )
    listed = columns(web.kubectl("api-resources", "--api-group=apps", "--no-headers"))
    assert ["deployments", "deploy", "apps/v1", "true", "Deployment"] in listed
    verbs = web.kubectl("api-resources", "--verbs=create,list", "--namespaced=false", "-o", "name")
    assert "nodes" in verbs.split()
    assert "pods" not in verbs.split()
    assert "Kubernetes control plane" in web.kubectl("cluster-info")


def test_the_server_says_that_it_is_healthy(web: Space) -> None:
    for path in ("/livez", "/readyz", "/healthz"):
        assert web.kubectl("get", "--raw", path) == "ok"
    assert "[+]ping ok" in web.kubectl("get", "--raw", "/readyz?verbose")
    assert web.refused("get", "--raw", "/nothing") == (
        "Error from server (NotFound): the server could not find the requested resource"
    )


def test_the_node_is_ready_and_shows_what_it_is(web: Space) -> None:
    head, row = columns(web.kubectl("get", "nodes", "-o", "wide"))
    assert head[:5] == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert row[:3] == ["pi", "Ready", "control-plane,master"]
    assert row[4].startswith("v1.36.")
    assert row[5] == "10.99.0.2"
