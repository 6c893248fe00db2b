"""CoreDNS in place of the agent: `--cluster-dns-provider=coredns`, with the files it has on K3s."""

import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.e2e.node import ADDRESS, ROOT, Namespace, Node, with_images

IMAGES = ROOT / ".cache" / "coredns" / "images"
MANIFEST = """
apiVersion: helm.cattle.io/v1
kind: HelmChartConfig
metadata: {name: coredns, namespace: kube-system}
spec:
  valuesContent: |-
    image: {registry: pinnace.dev, repository: coredns}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns-custom, namespace: kube-system}
data:
  shop.server: |
    shop.example:53 {
        hosts {
            192.0.2.80 www.shop.example
        }
    }
  names.override: |
    template IN A printer.office {
        answer "{{ .Name }} 60 IN A 192.0.2.9"
    }
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: asks}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: c, image: "docker.io/library/busybox:1.35", command: [sleep, "3600"]}
"""
SYSTEM = ("-n", "kube-system")

# The first time, Go compiles for minutes.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    argv = [sys.executable, str(ROOT / "image-build" / "coredns.py"), str(IMAGES)]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(made.stderr.strip())
    with Namespace("pinnace-coredns") as namespace:
        folder = tmp_path_factory.mktemp("coredns") / "pinnace"
        running = with_images(Node(folder, namespace, ("--cluster-dns-provider=coredns",)))
        shutil.copy(IMAGES / "coredns.tar", running.data / "agent" / "images")
        manifests = running.data / "server" / "manifests"
        manifests.mkdir(parents=True)
        (manifests / "names.yaml").write_text(MANIFEST)
        try:
            running.start()
            running.apply(POD)
            running.kubectl("wait", "pod/asks", "--for=condition=Ready", "--timeout=60s")
            yield running
        finally:
            running.clean_up()


def ask(node: Node, name: str) -> str:
    return node.exec("asks", "nslookup", "-type=a", name, check=False)


def test_coredns_answers_for_services_nodes_and_what_was_added(node: Node) -> None:
    node.until(lambda: "10.43.0.1" in ask(node, "kubernetes.default.svc.cluster.local"))
    assert ADDRESS in ask(node, "pi.")
    assert "192.0.2.80" in ask(node, "www.shop.example.")
    assert "192.0.2.9" in ask(node, "printer.office.")
    [pod] = node.get("pods", *SYSTEM, "-l", "k8s-app=kube-dns")["items"]
    assert pod["spec"]["containers"][0]["image"].startswith("pinnace.dev/coredns:")
    [entry] = node.get("endpointslices", *SYSTEM, "-l", "kubernetes.io/service-name=kube-dns")[
        "items"
    ]
    assert entry["endpoints"][0]["addresses"] == [pod["status"]["podIP"]]


def test_without_the_flag_the_agent_answers_again_and_the_pods_go(node: Node) -> None:
    node.stop()
    node.flags = ()
    node.start()
    node.until(lambda: not node.get("pods", *SYSTEM, "-l", "k8s-app=kube-dns")["items"])
    node.until(lambda: not node.get("helmcharts", *SYSTEM)["items"])
    node.until(lambda: "10.43.0.1" in ask(node, "kubernetes.default.svc.cluster.local"))
    assert node.get("service", "kube-dns", *SYSTEM)["spec"]["clusterIP"] == "10.43.0.10"
    assert not (node.data / "server" / "manifests" / "coredns.yaml").exists()
