"""Network policies on a whole node: real pods, services and DNS, a client outside, crashes."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lan import FIRST, SECOND, beside
from tests.e2e.node import ADDRESS, Node, run

IMAGE = "docker.io/library/busybox:1.35"
HERE, THERE = "netpol", "netpol-other"
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {space}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  restartPolicy: {restart}
  containers:
  - name: c
    image: {image}
    command: [sh, -c, "{command}"]
    ports: [{{name: http, containerPort: 8080}}]
---
"""
WEB = (
    "echo web >/tmp/index.html; nc -ll -p 9000 -e cat & "
    "httpd -p 8081 -h /tmp; exec httpd -f -p 8080 -h /tmp"
)
SERVICES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: LoadBalancer
  selector: {app: web}
  ports: [{port: 8888, targetPort: http, nodePort: 30888}]
"""
POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: {space}}}
spec: {spec}
---
"""
TO_WEB = "podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress]"
FROM_CLIENT = "podSelector: {matchLabels: {app: client}}, policyTypes: [Egress]"
DNS = (
    "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}, "
    "podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}"
)


def pod(name: str, command: str, *, space: str = HERE, restart: str = "Always") -> str:
    return POD.format(name=name, space=space, restart=restart, image=IMAGE, command=command)


def policy(name: str, spec: str, space: str = HERE) -> str:
    return POLICY.format(name=name, space=space, spec=f"{{{spec}}}")


class Pods:
    """Two namespaces with pods, and what reaches what."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.web = self.address("web")

    def address(self, name: str, space: str = HERE) -> str:
        return str(self.node.get("pod", name, "-n", space)["status"]["podIP"])

    def sh(self, name: str, command: str, space: str = HERE) -> str:
        done = self.node.kubectl(
            "exec", "-n", space, name, "--", "sh", "-c", f"{command} 2>&1", check=False
        )
        return str(done.stdout)

    def reach(self, name: str, *targets: str, space: str = HERE) -> list[bool]:
        """Which of these, host:port, answer to a pod."""
        asks = "; ".join(
            f"timeout 2 wget -qO- http://{target}/ >/dev/null && echo yes || echo no"
            for target in targets
        )
        said = [line for line in self.sh(name, asks, space).split() if line in ("yes", "no")]
        return [answer == "yes" for answer in said]

    def until(self, name: str, target: str, *, reached: bool, space: str = HERE) -> None:
        self.node.until(
            lambda: self.reach(name, target, space=space) == [reached],
            timeout=15,
            seen=lambda: f"{name} -> {target} stays {'closed' if reached else 'open'}",
        )

    def enforce(self, *policies: str) -> None:
        """These and no others."""
        self.clear()
        done = self.node.kubectl("apply", "-f", "-", input="".join(policies))
        assert "Warning" not in done.stderr, done.stderr

    def clear(self) -> None:
        for space in (HERE, THERE):
            self.node.kubectl("delete", "networkpolicy", "--all", "-n", space)

    def explain(self, *arguments: str) -> str:
        done = run(
            *self.node.command, "netpol", "explain", *arguments, *self.node.arguments, check=False
        )
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def pods(node: Node) -> Iterator[Pods]:
    for space in (HERE, THERE):
        node.kubectl("create", "namespace", space)
        account = ("get", "serviceaccount", "default", "-n", space)
        node.until(lambda found=account: node.kubectl(*found, check=False).returncode == 0)
    node.apply(
        pod("web", WEB)
        + pod("client", "sleep 1000")
        + pod("other", "sleep 1000")
        + pod("far", WEB, space=THERE)
    )
    node.apply(SERVICES, f"--namespace={HERE}")
    for space in (HERE, THERE):
        node.kubectl("wait", "pods", "--all", "-n", space, "--for=condition=Ready")
    made = Pods(node)
    made.until("client", f"{made.web}:8080", reached=True)
    yield made
    made.clear()
    for space in (HERE, THERE):
        node.kubectl("delete", "namespace", space, "--wait=false")


@pytest.fixture(autouse=True)
def cleared(pods: Pods) -> Iterator[None]:
    yield
    pods.clear()


def test_ingress_is_allowed_by_labels_of_pods_and_adds_up(pods: Pods) -> None:
    web = f"{pods.web}:8080"
    pods.enforce(policy("deny", TO_WEB))
    pods.until("client", web, reached=False)
    assert pods.reach("far", web, space=THERE) == [False]
    assert pods.node.http(f"http://{web}/").startswith("200")
    client = policy(
        "client", TO_WEB + ", ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]"
    )
    pods.node.apply(client)
    pods.until("client", web, reached=True)
    assert pods.reach("other", web) == [False]
    pods.node.kubectl("label", "pod", "other", "-n", HERE, "app=client", "--overwrite")
    pods.until("other", web, reached=True)
    pods.node.kubectl("label", "pod", "other", "-n", HERE, "app=other", "--overwrite")
    pods.until("other", web, reached=False)
    pods.node.apply(policy("all", TO_WEB + ", ingress: [{}]"))
    pods.until("other", web, reached=True)
    pods.clear()
    pods.until("far", web, reached=True, space=THERE)


def test_ingress_is_allowed_by_labels_of_namespaces(pods: Pods) -> None:
    web = f"{pods.web}:8080"
    spec = TO_WEB + ", ingress: [{from: [{namespaceSelector: {matchLabels: {team: red}}}]}]"
    pods.enforce(policy("red", spec))
    pods.until("far", web, reached=False, space=THERE)
    pods.node.kubectl("label", "namespace", THERE, "team=red")
    pods.until("far", web, reached=True, space=THERE)
    assert pods.reach("client", web) == [False]
    pods.node.kubectl("label", "namespace", THERE, "team-")
    pods.until("far", web, reached=False, space=THERE)


def test_ports_by_number_by_name_and_by_range(pods: Pods) -> None:
    pods.enforce(policy("name", TO_WEB + ", ingress: [{ports: [{port: http}]}]"))
    pods.until("client", f"{pods.web}:8081", reached=False)
    assert pods.reach("client", f"{pods.web}:8080") == [True]
    pods.enforce(policy("range", TO_WEB + ", ingress: [{ports: [{port: 8081, endPort: 9999}]}]"))
    pods.until("client", f"{pods.web}:8080", reached=False)
    assert pods.reach("client", f"{pods.web}:8081") == [True]


def test_egress_and_the_cluster_dns(pods: Pods) -> None:
    far = pods.address("far", THERE)
    name = f"web.{HERE}.svc.cluster.local"
    pods.enforce(policy("deny", FROM_CLIENT))
    pods.until("client", f"{far}:8080", reached=False)
    assert name not in pods.sh("client", f"timeout 3 nslookup {name} | grep -A1 Name")
    pods.enforce(policy("dns", f"{FROM_CLIENT}, egress: [{DNS}]"))
    pods.node.until(
        lambda: name in pods.sh("client", f"timeout 3 nslookup {name} | grep -A1 Name"), timeout=15
    )
    assert pods.reach("client", f"{far}:8080", f"{pods.web}:8080") == [False, False]
    block = f"{FROM_CLIENT}, egress: [{{to: [{{ipBlock: {{cidr: {far}/32}}}}]}}]"
    pods.enforce(policy("block", block))
    pods.until("client", f"{far}:8080", reached=True)
    assert pods.reach("client", f"{pods.web}:8080") == [False]


def test_services_lead_only_where_policies_allow(pods: Pods) -> None:
    spec = pods.node.get("service", "web", "-n", HERE)["spec"]
    targets = (f"{spec['clusterIP']}:8888", f"{ADDRESS}:30888", f"{ADDRESS}:8888")
    pods.node.until(lambda: all(pods.reach("other", *targets)), timeout=20)
    allow = TO_WEB + ", ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]"
    pods.enforce(policy("client", allow))
    pods.until("other", targets[0], reached=False)
    assert pods.reach("other", *targets) == [False] * 3
    told = pods.sh("other", f"timeout 2 wget -qO- http://{targets[0]}/")
    assert "unreachable" in told or "No route" in told, told
    assert pods.reach("client", *targets) == [True] * 3


def test_addresses_outside_are_allowed_by_block_and_exception(pods: Pods) -> None:
    block = f"{{cidr: {FIRST}/24, except: [{SECOND}/32]}}"
    pods.enforce(policy("lan", TO_WEB + f", ingress: [{{from: [{{ipBlock: {block}}}]}}]"))
    pods.until("client", f"{pods.web}:8080", reached=False)
    with beside(pods.node) as lan:
        url = f"{ADDRESS}:30888"
        assert "200" in lan.until(url, "200")
        assert lan.ask(url, source=SECOND) == "ConnectionRefusedError"


def test_an_open_connection_ends_when_a_policy_forbids_it(pods: Pods) -> None:
    talk = f"(while echo x; do usleep 50000; done) | nc {pods.web} 9000"
    node = pods.node
    pods.until("client", f"{pods.web}:8080", reached=True)
    process = node.kubectl_in_background("exec", "-n", HERE, "client", "--", "sh", "-c", talk)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "x\n"
        pods.enforce(policy("deny", TO_WEB))
        process.communicate(timeout=20)
        assert "cut 1 connections" in node.log.read_text()
    finally:
        process.kill()
        process.communicate()


def test_pods_are_denied_from_their_first_packet_on(pods: Pods) -> None:
    """Applied together with the policy, so that every watch is behind."""
    names = [f"early-{number}" for number in range(20)]
    ask = f"timeout 2 wget -qO- http://{pods.web}:8080/ || echo denied"
    manifest = policy("early", "podSelector: {}, policyTypes: [Egress]")
    pods.clear()
    pods.node.apply(manifest + "".join(pod(name, ask, restart="Never") for name in names))
    path = "--for=jsonpath={.status.phase}=Succeeded"
    pods.node.kubectl("wait", "pods", *names, "-n", HERE, path, "--timeout=60s")
    said = {name: pods.node.kubectl("logs", name, "-n", HERE).stdout for name in names}
    assert all("denied" in text and "web" not in text for text in said.values()), said
    pods.node.kubectl("delete", "pods", "-n", HERE, "--force", "--wait=false", *names)


def test_rules_hold_while_operators_are_away_and_new_pods_wait_for_them(pods: Pods) -> None:
    pods.enforce(policy("deny", "podSelector: {}, policyTypes: [Egress]"))
    pods.until("client", f"{pods.web}:8080", reached=False)
    operators = pods.node.children()["pinnace-operato"]
    os.kill(operators, signal.SIGSTOP)
    try:
        ask = f"timeout 2 wget -qO- http://{pods.web}:8080/ || echo denied; sleep 1000"
        pods.node.apply(pod("waiting", ask))
        assert pods.reach("client", f"{pods.web}:8080") == [False]
        waiting = ("get", "pod", "waiting", "-n", HERE)
        pods.node.until(lambda: pods.node.get(*waiting[1:])["spec"].get("nodeName"))
        assert phase(pods.node) != "Running"
    finally:
        os.kill(operators, signal.SIGKILL)
    pods.node.kubectl("wait", "pod", "waiting", "-n", HERE, "--for=condition=Ready")
    assert "denied" in pods.node.kubectl("logs", "waiting", "-n", HERE).stdout
    assert pods.reach("client", f"{pods.web}:8080") == [False]
    pods.node.kubectl("delete", "pod", "waiting", "-n", HERE, "--force")


def phase(node: Node) -> Any:
    return node.get("pod", "waiting", "-n", HERE)["status"].get("phase")


def test_explain_says_who_allows_what(pods: Pods) -> None:
    allow = TO_WEB + ", ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]"
    pods.enforce(policy("client", allow))
    pods.until("other", f"{pods.web}:8080", reached=False)
    told = pods.explain("web", f"--namespace={HERE}")
    assert "ingress: isolated; only this may enter:" in told
    assert f"{HERE}/client: from pods with app=client in {HERE}; any port" in told
    asked = ("web", "-n", HERE, "--port=8080")
    assert f"allowed by {HERE}/client" in pods.explain(*asked, "--from=client")
    assert f"no rule of {HERE}/client allows it" in pods.explain(*asked, "--from=other")
    assert f"no rule of {HERE}/client allows it" in pods.explain(*asked, f"--from={FIRST}")
    assert f"no pod {HERE}/nobody" in pods.explain("nobody", "-n", HERE)
