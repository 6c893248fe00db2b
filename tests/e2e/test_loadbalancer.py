"""Services of every type with clients outside, ports that two want, and forwarding by pods."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Space
from tests.e2e.lan import FIRST, GATEWAY, SECOND, Lan, beside
from tests.e2e.node import ADDRESS, ROOT, Namespace, Node, run, with_images

PORTS_ERROR = "LoadBalancerPortsError"
WEB = """
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
        image: pinnace.dev/hello:1
"""


@pytest.fixture(scope="module")
def lan(node: Node) -> Iterator[Lan]:
    with beside(node) as made:
        yield made


def balancer(name: str, port: int, **spec: Any) -> str:
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {
            "type": "LoadBalancer",
            "selector": {"app": "web"},
            "ports": [{"port": port, "targetPort": 8080}],
            **spec,
        },
    }
    return json.dumps(body)


def addresses(space: Space, name: str) -> list[str]:
    status = space.get("service", name)["status"].get("loadBalancer") or {}
    return [entry["ip"] for entry in status.get("ingress") or ()]


def trouble(space: Space, name: str) -> str:
    conditions = space.get("service", name)["status"].get("conditions") or ()
    return "".join(c["message"] for c in conditions if c["type"] == PORTS_ERROR)


def told(space: Space, name: str) -> set[tuple[str, str]]:
    events = space.get("events")["items"]
    return {(e["reason"], e["message"]) for e in events if e["involvedObject"]["name"] == name}


def test_a_client_outside_reaches_a_deployment_by_every_type_of_service(
    space: Space, lan: Lan
) -> None:
    space.apply(WEB)
    space.apply(balancer("inside", 80, type="ClusterIP"))
    space.apply(balancer("port", 80, type="NodePort"))
    space.apply(balancer("balancer", 8281))
    space.apply(balancer("plain", 8282, allocateLoadBalancerNodePorts=False))
    space.until(lambda: addresses(space, "balancer") == [ADDRESS])
    inside, port = (space.get("service", name)["spec"] for name in ("inside", "port"))
    for url in (
        f"{inside['clusterIP']}:80/",
        f"{ADDRESS}:{port['ports'][0]['nodePort']}/",
        f"{ADDRESS}:8281/",
        f"{GATEWAY}:8281/",
        f"{ADDRESS}:8282/",
    ):
        assert "Hello from Pinnace" in lan.until(url, "200 ")
    assert "nodePort" not in space.get("service", "plain")["spec"]["ports"][0]
    entry = space.get("service", "balancer")["status"]["loadBalancer"]["ingress"]
    assert entry == [{"ip": ADDRESS, "ipMode": "VIP"}]


def test_a_port_goes_to_the_first_and_then_to_the_one_that_waited(space: Space) -> None:
    space.apply(balancer("first", 8283))
    space.until(lambda: addresses(space, "first"))
    space.apply(balancer("second", 8283))
    holder = f"Service {space.name}/first has TCP 8283 on pi"
    space.until(lambda: trouble(space, "second") == holder)
    assert addresses(space, "second") == []
    words = f"There are no available nodes for LoadBalancer: {holder}"
    space.until(lambda: ("UnAvailableLoadBalancer", words) in told(space, "second"))
    space.kubectl("delete", "service", "first")
    space.until(lambda: addresses(space, "second") == [ADDRESS])
    assert trouble(space, "second") == ""


def test_a_host_port_of_a_pod_is_not_taken_over(space: Space) -> None:
    overrides = {
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {
                    "name": "holder",
                    "image": "pinnace.dev/hello:1",
                    "ports": [{"containerPort": 8080, "hostPort": 8284}],
                }
            ],
        }
    }
    image = "--image=pinnace.dev/hello:1"
    space.kubectl("run", "holder", image, f"--overrides={json.dumps(overrides)}")
    space.wait("pod/holder", "--for=condition=Ready")
    space.apply(balancer("web", 8284))
    space.until(lambda: trouble(space, "web") == f"Pod {space.name}/holder has TCP 8284 on pi")
    space.kubectl("delete", "pod", "holder", "--now")
    space.until(lambda: addresses(space, "web") == [ADDRESS])


def test_the_nodes_own_ports_stay_its_own(space: Space, lan: Lan) -> None:
    space.apply(balancer("api", 6443))
    space.apply(balancer("kubelet", 10250))
    space.until(lambda: trouble(space, "api") == "the API server has TCP 6443 on pi")
    space.until(lambda: trouble(space, "kubelet") == "the kubelet has TCP 10250 on pi")
    # Whatever the status says, and whoever wrote it.
    for name in ("api", "kubelet"):
        ingress = {"status": {"loadBalancer": {"ingress": [{"ip": ADDRESS}]}}}
        patch = ("--subresource=status", "--type=merge", "-p", json.dumps(ingress))
        space.kubectl("patch", "service", name, *patch)
    space.apply(balancer("external", 6443, type="ClusterIP", externalIPs=[ADDRESS]))
    for port in (6443, 10250):
        assert lan.ask(f"https://{ADDRESS}:{port}/pods")[:3] in {"401", "403"}
    space.until(lambda: addresses(space, "api") == addresses(space, "kubelet") == [])


LISTEN = """
import socket
with socket.create_server(("0.0.0.0", 8285)) as server:
    print("ready", flush=True)
    server.accept()
"""


def test_a_program_of_the_node_keeps_its_port(space: Space) -> None:
    argv = [*space.node.namespace.enter, sys.executable, "-c", LISTEN]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        space.apply(balancer("web", 8285))
        space.until(lambda: "the program python" in trouble(space, "web"))
        process.kill()


def test_addresses_come_and_go_with_type_and_class(space: Space) -> None:
    space.apply(balancer("web", 8286))
    space.apply(balancer("other", 8287, loadBalancerClass="example.com/other"))
    space.until(lambda: addresses(space, "web") == [ADDRESS])
    space.apply(balancer("web", 8286, type="ClusterIP"))
    space.until(lambda: addresses(space, "web") == [])
    space.apply(balancer("web", 8286))
    space.until(lambda: addresses(space, "web") == [ADDRESS])
    assert addresses(space, "other") == []
    assert not space.get("service", "web")["metadata"].get("finalizers")


@contextlib.contextmanager
def by_pods(node: Node) -> Iterator[None]:
    """The operators as they run on another Kubernetes."""
    flags = ("--operators=servicelb", "--namespace=balancers", "--leader-elect=false")
    more = (f"--kubeconfig={node.kubeconfig}", "--health-address=0")
    log = node.folder / "operators.log"
    with log.open("ab") as file:
        process = subprocess.Popen(
            [*node.namespace.enter, sys.executable, "-m", "operators", *flags, *more],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=file,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose own load balancer is off, with the image of the forwarding pods."""
    with Namespace(f"pinnace-lb-{os.getpid()}") as namespace:
        folder = tmp_path_factory.mktemp("lb") / "pinnace"
        node = with_images(Node(folder, namespace, ("--disable=servicelb",)))
        images = str(node.data / "agent" / "images")
        run(sys.executable, str(ROOT / "image-build" / "servicelb.py"), images)
        try:
            node.start()
            yield node
        finally:
            node.clean_up()


NAMES = {8288: "web", 8289: "local", 8290: "walled"}


def test_pods_forward_where_the_nodes_do_not(other: Node) -> None:
    space = Space(other, "default")
    space.apply(WEB)
    space.apply(balancer("web", 8288))
    space.apply(balancer("local", 8289, externalTrafficPolicy="Local"))
    space.apply(balancer("walled", 8290, loadBalancerSourceRanges=[f"{FIRST}/32"]))
    with beside(other) as lan, by_pods(other):
        for name in NAMES.values():
            other.until(lambda name=name: addresses(space, name) == [ADDRESS])
        # An address that no status names: what comes there passes through the pods.
        for port in NAMES:
            assert "Hello from Pinnace" in lan.until(f"{GATEWAY}:{port}/", "200 ")
            assert connections(other, port)
        assert lan.ask(f"{GATEWAY}:8290/", source=SECOND, seconds=0.5) == "TimeoutError"
        assert lan.ask(f"{ADDRESS}:8288/", source=SECOND).startswith("200 ")
        space.apply(balancer("walled", 8292))
        assert "Hello from Pinnace" in lan.until(f"{GATEWAY}:8292/", "200 ", source=SECOND)
        conflict(space, other)
    withdraw(space, other)


def connections(other: Node, port: int) -> int:
    """How many the pod of the Service has forwarded."""
    pods = Space(other, "balancers")
    label = f"svccontroller.k3s.cattle.io/svcname={NAMES[port]}"
    [pod] = pods.get("pods", "-l", label)["items"]
    chain = ("list", "chain", "ip", f"svclb_tcp_{port}", "prerouting")
    rules = pods.kubectl("exec", pod["metadata"]["name"], "--", "nft", *chain)
    return int(rules.partition("counter packets ")[2].split()[0])


def conflict(space: Space, other: Node) -> None:
    """Two want a port: the scheduler decides, the condition names the other."""
    space.apply(balancer("late", 8288))
    holder = "Service default/web has TCP 8288 on pi"
    other.until(lambda: trouble(space, "late") == holder, seen=lambda: trouble(space, "late"))
    space.kubectl("delete", "service", "web")
    other.until(lambda: addresses(space, "late") == [ADDRESS])
    uid = space.get("service", "late")["metadata"]["uid"]
    named = Space(other, "balancers").get("daemonset", f"svclb-late-{uid[:8]}")
    assert named["status"]["numberReady"] == 1
    assert named["metadata"]["generation"] == 1  # written once


def withdraw(space: Space, other: Node) -> None:
    """What went while nobody looked leaves nothing behind."""
    space.kubectl("delete", "service", "local", "walled")
    with by_pods(other):
        left = Space(other, "balancers")
        other.until(lambda: len(left.get("daemonsets")["items"]) == 1)
        space.apply(balancer("late", 8288, type="ClusterIP"))
        other.until(lambda: not left.get("daemonsets")["items"])
        other.until(lambda: not left.get("pods")["items"])
        other.until(lambda: addresses(space, "late") == [])
    reasons = {reason for reason, _ in told(space, "late")}
    assert {"AppliedDaemonSet", "UpdatedLoadBalancer", "DeletedDaemonSet"} <= reasons


def test_the_log_of_the_operators_is_quiet(other: Node) -> None:
    text = Path(other.folder / "operators.log").read_text()
    assert "Traceback" not in text
    assert "ERROR" not in text
