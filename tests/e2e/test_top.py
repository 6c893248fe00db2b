"""`kubectl top`: what is used is measured when somebody asks."""

import json

from tests.e2e.conftest import Space
from tests.e2e.node import Node

BUSYBOX = "docker.io/library/busybox:1.35"
PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: busy, labels: {{app: busy}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {{name: works, image: "{BUSYBOX}", command: [sh, -c, "while true; do true; done"],
     resources: {{limits: {{cpu: 200m}}}}}}
  - {{name: rests, image: "{BUSYBOX}", command: [sleep, "3600"]}}
"""


def test_top_shows_what_nodes_pods_and_containers_use(space: Space) -> None:
    space.apply(PODS)
    space.wait("pod/busy", "--for=condition=Ready")
    lines = space.kubectl("top", "nodes", "--no-headers").splitlines()
    assert [line.split()[0] for line in lines] == ["pi"]
    cores, memory = lines[0].split()[1], lines[0].split()[3]
    assert int(cores.removesuffix("m")) > 50
    assert memory.endswith("Mi")
    # What is answered may be some seconds old, from when the pod had hardly begun.
    space.node.until(lambda: 50 <= cores_of(space) <= 300)
    rows = space.kubectl("top", "pod", "busy", "--containers", "--no-headers").splitlines()
    used = {row.split()[1]: int(row.split()[2].removesuffix("m")) for row in rows}
    assert used["rests"] <= 10 < used["works"]


def cores_of(space: Space) -> int:
    (line,) = space.kubectl("top", "pods", "--no-headers", "-l", "app=busy").splitlines()
    name, cores, _ = line.split()
    assert name == "busy"
    return int(cores.removesuffix("m"))


def test_the_metrics_api_is_discovered_and_says_its_window(node: Node) -> None:
    assert "metrics.k8s.io/v1beta1" in node.kubectl("api-versions").stdout.split()
    raw = node.kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/nodes/pi").stdout
    metrics = json.loads(raw)
    assert metrics["kind"] == "NodeMetrics"
    assert metrics["window"].endswith("s")
    assert node.kubectl("get", "nodes.metrics.k8s.io").stdout.splitlines()[1].startswith("pi ")
