"""Health checks and drains of upgrades on a node: real pods, commands, budgets and evictions."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import ROOT, Node

BUSYBOX = "docker.io/library/busybox:1.35"
WEB = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - {name: web, image: "pinnace.dev/hello:1", ports: [{containerPort: 8080}]}
      - {name: shell, image: "BUSYBOX", command: [sleep, "3600"]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: web}
spec: {minAvailable: 2, selector: {matchLabels: {app: web}}}
""".replace("BUSYBOX", BUSYBOX)
# As K3s's documentation has it; the annotation is what Pinnace needs on top.
PLAN = """
apiVersion: upgrade.cattle.io/v1
kind: Plan
metadata:
  name: server-plan
  annotations: {upgrade.pinnace.dev/channel: /nonexistent/stable}
spec:
  concurrency: 1
  cordon: true
  nodeSelector:
    matchExpressions:
    - {key: node-role.kubernetes.io/control-plane, operator: In, values: ["true"]}
  serviceAccountName: system-upgrade
  upgrade: {image: rancher/k3s-upgrade}
  channel: https://update.k3s.io/v1-release/channels/stable
"""
ALONE = f"""
apiVersion: v1
kind: Pod
metadata: {{name: alone, labels: {{app: alone}}}}
spec:
  terminationGracePeriodSeconds: 0
  volumes: [{{name: data, emptyDir: {{}}}}]
  containers: [{{name: a, image: "{BUSYBOX}", command: [sleep, "3600"]}}]
"""


def ask(node: Node, **asked: Any) -> dict[str, Any]:
    program = (sys.executable, "-m", "tests.fakes.operators_upgrade", str(node.kubeconfig))
    done = node.namespace.exec(*program, input=json.dumps(asked), cwd=ROOT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verdicts(space: Space, *checks: tuple[str, dict[str, Any]]) -> list[str]:
    """The message of each, "" where it passed."""
    given = [{"name": "check", "timeoutSeconds": 30, kind: what} for kind, what in checks]
    found: list[str] = ask(space.node, checks=given)["messages"]
    return found


def drain(space: Space, app: str, **options: Any) -> dict[str, Any]:
    """Of the pods of this test alone: others share the node."""
    chosen = {"matchLabels": {"app": app}}
    since = datetime.now(UTC).isoformat()
    return ask(space.node, drain={**options, "podSelector": chosen}, since=since)


@pytest.fixture
def web(space: Space) -> Space:
    space.apply(WEB)
    space.kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    return space


@contextmanager
def cordoned(node: Node) -> Iterator[None]:
    node.kubectl("cordon", "pi")
    try:
        yield
    finally:
        node.kubectl("uncordon", "pi")


def test_checks_see_what_runs_on_the_node(web: Space) -> None:
    address = web.value("service", "web", path="{.spec.clusterIP}")
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": web.name}
    deployment["expression"] = "object.status.readyReplicas == object.spec.replicas"
    node = {"apiVersion": "v1", "kind": "Node", "name": "$(NODE_NAME)"}
    node["expression"] = "object.metadata.name == '$(NODE_NAME)' && object.spec.podCIDR != ''"
    *passed, missing = verdicts(
        web,
        ("pods", {"namespace": web.name, "selector": {"matchLabels": {"app": "web"}}}),
        ("http", {"url": f"http://{address}/", "expectedStatus": [200]}),
        ("tcp", {"host": address, "port": 80}),
        ("tcp", {"host": "$(NODE_IP)", "port": 6443}),
        ("cel", {**deployment, "name": "web"}),
        ("cel", node),
        ("cel", {**deployment, "name": "none"}),
    )
    assert not any(passed), passed
    assert missing == 'check check: deployments.apps "none" not found'


def test_a_command_ends_well_in_each_pod_or_says_how_it_ended(web: Space) -> None:
    where = {"namespace": web.name, "podSelector": {"matchLabels": {"app": "web"}}}

    def command(*words: str) -> tuple[str, dict[str, Any]]:
        return "exec", {**where, "container": "shell", "command": list(words)}

    good, bad, loud, none = verdicts(
        web,
        command("true"),
        command("sh", "-c", "echo bad >&2; exit 3"),
        command("yes"),
        command("/bin/nothing"),
    )
    assert good == ""
    assert bad.endswith(" ended with 3: bad")
    assert loud.endswith("it wrote more than 1 MiB")
    assert "no such file" in none


def test_a_budget_holds_a_drain_back_until_it_is_gone(web: Space) -> None:
    with cordoned(web.node):
        held = drain(web, "web")
        assert not held["done"]
        assert "(will retry after 5s): Cannot evict pod as it would violate" in held["message"]
        assert "The disruption budget web needs 2 healthy pods and has 2" in held["message"]
        web.kubectl("delete", "pdb", "web")
        web.until(lambda: drain(web, "web")["done"], timeout=60)
        left = web.value("pods", "-l", "app=web", path="{.items[*].spec.nodeName}")
        assert left == ""


def test_refusals_are_kubectls_own_words(space: Space) -> None:
    space.apply(ALONE)
    space.wait("pod/alone", "--for=condition=Ready")
    command = ("drain", "pi", "--pod-selector=app=alone", "--dry-run=client")
    kubectls = space.refused(*command)
    for line in drain(space, "alone")["message"].split("; "):
        assert line in kubectls
    assert "waits for" in drain(space, "alone", force=True, deleteEmptyDirData=True)["message"]
    space.kubectl("wait", "pod/alone", "--for=delete", "--timeout=60s")


def test_a_plan_of_k3s_users_becomes_an_upgrade_plan_and_goes_with_it(space: Space) -> None:
    space.apply(PLAN)
    space.wait("plan.upgrade.cattle.io/server-plan", "--for=condition=Validated", timeout=60)
    made = f"upgradeplan/{space.name}.server-plan"
    assert space.value(made, path="{.spec.channel}") == "/nonexistent/stable"
    bare = PLAN.replace("upgrade.pinnace.dev/channel: /nonexistent/stable", "")
    space.apply(bare)
    plan = ("plan.upgrade.cattle.io/server-plan",)
    refused = '{.status.conditions[?(@.type=="Validated")].message}'
    space.until(lambda: "names versions of K3s" in space.value(*plan, path=refused))
    space.until(lambda: space.value(made, path="{.spec.suspend}") == "true")
    space.kubectl("delete", *plan)
    space.kubectl("wait", made, "--for=delete", "--timeout=60s")
