"""
Traffic policies and the firewall of services, from clients with addresses of their own.

The behaviours that K3s holds itself to with two nodes; here the other node is an object
with an address, and endpoints say that they are there.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lan import FIRST, SECOND, Lan, beside
from tests.e2e.node import ADDRESS, Node

SPACE = "policies"
FAR, FAR_ADDRESS = "far", "10.98.0.77"
# Answers with the client's address and its own name.
WEB = r"""
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 1
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: docker.io/library/busybox:1.35
        command:
        - sh
        - -c
        - |
          mkdir -p /www/cgi-bin
          printf '#!/bin/sh\necho\necho "$REMOTE_ADDR $(hostname)"\n' >/www/cgi-bin/who
          chmod +x /www/cgi-bin/who
          exec httpd -f -p 0.0.0.0:8080 -h /www
        readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
"""


@pytest.fixture(scope="module")
def lan(node: Node) -> Iterator[Lan]:
    with beside(node) as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def web(node: Node) -> Iterator[None]:
    node.kubectl("create", "namespace", SPACE)
    node.apply(WEB, f"--namespace={SPACE}")
    kubectl(node, "rollout", "status", "deployment/web", "--timeout=60s")
    yield
    node.kubectl("delete", "namespace", SPACE, "--wait=false")


@pytest.fixture
def far(node: Node) -> Iterator[str]:
    """A second node: nothing but an object with an address, and no pods."""
    body = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": FAR},
        "spec": {"unschedulable": True},
    }
    node.apply(json.dumps(body))
    status = {
        "addresses": [{"type": "InternalIP", "address": FAR_ADDRESS}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    patch = json.dumps({"status": status})
    node.kubectl("patch", "node", FAR, "--subresource=status", "--type=merge", "-p", patch)
    yield FAR_ADDRESS
    node.kubectl("delete", "node", FAR)


def kubectl(node: Node, *arguments: str) -> str:
    return str(node.kubectl(f"--namespace={SPACE}", *arguments).stdout)


def expose(node: Node, name: str, port: int, **spec: Any) -> dict[str, Any]:
    """A Service of type LoadBalancer; ``annotations`` besides the fields of its spec."""
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": spec.pop("annotations", {})},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"port": port, "targetPort": 8080}],
            **spec,
        },
    }
    node.apply(json.dumps(body), f"--namespace={SPACE}")
    return get(node, name)


def get(node: Node, name: str) -> dict[str, Any]:
    found: dict[str, Any] = node.get(f"--namespace={SPACE}", "service", name)
    return found


def addresses(node: Node, name: str) -> set[str]:
    status = get(node, name)["status"].get("loadBalancer") or {}
    return {entry["ip"] for entry in status.get("ingress") or ()}


def published(node: Node, name: str, *expected: str) -> None:
    node.until(lambda: addresses(node, name) == set(expected), timeout=20)


def endpoints_far(node: Node, service: str) -> None:
    """The pod of the Deployment, as if it were on the other node."""
    [pod] = node.get(f"--namespace={SPACE}", "pods", "-l", "app=web")["items"]
    body = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{service}-far",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [pod["status"]["podIP"]],
                "nodeName": FAR,
                "conditions": {"ready": True},
            }
        ],
        "ports": [{"port": 8080, "protocol": "TCP"}],
    }
    node.apply(json.dumps(body), f"--namespace={SPACE}")


def test_every_node_is_published_but_with_the_local_policy_only_those_with_a_pod(
    node: Node, far: str
) -> None:
    expose(node, "count-all", 8181)
    expose(node, "count-local", 8182, externalTrafficPolicy="Local")
    published(node, "count-all", ADDRESS, far)
    published(node, "count-local", ADDRESS)


def test_a_node_that_goes_takes_its_address_along(node: Node) -> None:
    published(node, "count-all", ADDRESS)


def test_the_clients_address_is_kept_with_the_local_policy_only(node: Node, lan: Lan) -> None:
    expose(node, "seen-all", 8183)
    expose(node, "seen-local", 8184, externalTrafficPolicy="Local")
    published(node, "seen-all", ADDRESS)
    published(node, "seen-local", ADDRESS)
    assert "200 10.42." in lan.until(f"{ADDRESS}:8183/cgi-bin/who", "200 ")
    for source in (FIRST, SECOND):
        answer = lan.until(f"{ADDRESS}:8184/cgi-bin/who", "200 ", source=source)
        assert answer.startswith(f"200 {source} ")
    port = get(node, "seen-local")["spec"]["ports"][0]["nodePort"]
    assert lan.ask(f"{ADDRESS}:{port}/cgi-bin/who").startswith(f"200 {FIRST} ")


def test_endpoints_elsewhere_leave_the_local_policies_nobody_to_go_to(
    node: Node, far: str, lan: Lan
) -> None:
    ports = {"ports": [{"port": 80, "targetPort": 8080}], "selector": None}
    expose(node, "away", 80, externalTrafficPolicy="Local", **ports)
    expose(node, "inside", 80, type="ClusterIP", internalTrafficPolicy="Local", **ports)
    expose(node, "inside-all", 80, type="ClusterIP", **ports)
    for name in ("away", "inside", "inside-all"):
        endpoints_far(node, name)
    published(node, "away", far)
    spec = get(node, "away")["spec"]
    node_port, check = spec["ports"][0]["nodePort"], spec["healthCheckNodePort"]
    lan.until(f"{ADDRESS}:{check}/healthz", '"localEndpoints": 0')
    assert lan.ask(f"{ADDRESS}:{node_port}/", seconds=0.5) == "TimeoutError"
    cluster_ips = {name: get(node, name)["spec"]["clusterIP"] for name in ("inside", "inside-all")}
    ask = ("exec", "deploy/web", "--", "timeout", "2", "wget", "-qO-")
    assert "10.42." in kubectl(node, *ask, f"http://{cluster_ips['inside-all']}/cgi-bin/who")
    refused = node.kubectl(
        f"--namespace={SPACE}", *ask, f"http://{cluster_ips['inside']}/", check=False
    )
    assert refused.returncode != 0


@pytest.mark.parametrize("how", ["field", "annotation"])
def test_source_ranges_hold_for_the_load_balancers_address_only(
    node: Node, lan: Lan, how: str
) -> None:
    only = f"{FIRST}/32"
    annotation = {"service.beta.kubernetes.io/load-balancer-source-ranges": only}
    spec: dict[str, Any] = (
        {"loadBalancerSourceRanges": [only]} if how == "field" else {"annotations": annotation}
    )
    name, port = f"wall-{how}", 8185 if how == "field" else 8186
    expose(node, name, port, **spec)
    published(node, name, ADDRESS)
    lan.until(f"{ADDRESS}:{port}/cgi-bin/who", "200 ")
    assert lan.ask(f"{ADDRESS}:{port}/", source=SECOND, seconds=0.5) == "TimeoutError"
    found = get(node, name)["spec"]
    for inside in (f"{found['clusterIP']}:{port}", f"{ADDRESS}:{found['ports'][0]['nodePort']}"):
        assert lan.ask(f"{inside}/cgi-bin/who", source=SECOND).startswith("200 ")


def test_a_client_stays_with_its_pod(node: Node, lan: Lan) -> None:
    kubectl(node, "scale", "deployment/web", "--replicas=2")
    kubectl(node, "rollout", "status", "deployment/web", "--timeout=60s")
    expose(node, "sticky", 8187, sessionAffinity="ClientIP", externalTrafficPolicy="Local")
    expose(node, "loose", 8188)
    for name in ("sticky", "loose"):
        published(node, name, ADDRESS)
        url = f"{ADDRESS}:{get(node, name)['spec']['ports'][0]['port']}/cgi-bin/who"
        lan.until(url, "200 ")
        answers = {lan.ask(url).split()[-1] for _ in range(8)}
        assert len(answers) == (1 if name == "sticky" else 2)
    kubectl(node, "scale", "deployment/web", "--replicas=1")


def test_the_health_check_and_the_address_follow_the_pods(node: Node, lan: Lan) -> None:
    check = get(node, "seen-local")["spec"]["healthCheckNodePort"]
    answer = lan.until(f"{ADDRESS}:{check}/healthz", "200 ")
    said = json.loads(answer.removeprefix("200 "))
    assert said["service"] == {"namespace": SPACE, "name": "seen-local"}
    assert said["serviceProxyHealthy"] is True
    kubectl(node, "scale", "deployment/web", "--replicas=0")
    lan.until(f"{ADDRESS}:{check}/healthz", "503 ")
    published(node, "seen-local")
    reasons = node.get(f"--namespace={SPACE}", "events")["items"]
    told = {e["reason"] for e in reasons if e["involvedObject"]["name"] == "seen-local"}
    assert {"UpdatedLoadBalancer", "UnAvailableLoadBalancer"} <= told
