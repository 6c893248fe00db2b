"""The chart of the operators on upstream's whole control plane, with real pods."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import ADDRESS, ROOT
from tests.upstream.cluster import needs_upstream
from tests.upstream.node import Foreign, foreign

pytestmark = [pytest.mark.root, pytest.mark.timeout(240), needs_upstream()]
SPACE = "operators"
OFF = (
    "--disable=servicelb,local-storage,traefik,metrics-server",
    "--disable-helm-controller",
    "--disable-network-policy",
)
INSTALL = """
import sys
import helm_python
with (
    helm_python.Config(kubeconfig_path=sys.argv[1], namespace="operators") as to,
    helm_python.Chart.load(sys.argv[2]) as chart,
):
    storage = {"storageDir": sys.argv[3]}
    to.install(chart, "ops", values={"netpol": {"enabled": True}, "localpath": storage})
"""
CLAIMED = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: claim}
spec:
  storageClassName: local-path
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer}
spec:
  restartPolicy: Never
  containers:
  - name: writer
    image: docker.io/library/busybox:1.35
    command: [sh, -c, "echo written >/data/file"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: claim}}]
"""
PEERS = """
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  containers: [{name: web, image: "pinnace.dev/hello:1"}]
---
apiVersion: v1
kind: Pod
metadata: {name: friend, labels: {app: friend}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: sh, image: "docker.io/library/busybox:1.35", command: [sleep, "3600"]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, labels: {app: stranger}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: sh, image: "docker.io/library/busybox:1.35", command: [sleep, "3600"]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends}
spec:
  podSelector: {matchLabels: {app: server}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Foreign]:
    folder = tmp_path_factory.mktemp("foreign") / "n"
    with foreign(folder, *OFF, name="foreign") as running:
        running.kubectl("create", "namespace", SPACE)
        level = "pod-security.kubernetes.io/enforce=privileged"
        running.kubectl("label", "namespace", SPACE, level)
        install(running, folder)
        running.kubectl("rollout", "status", "deployment", "-n", SPACE, "--timeout=90s")
        yield running


def install(node: Foreign, folder: Path) -> None:
    storage = str(folder / "volumes")
    argv = (sys.executable, "-c", INSTALL, str(node.kubeconfig), str(folder / "chart.tgz"), storage)
    node.namespace.exec(*argv, env=os.environ)


def test_a_chart_becomes_a_page_at_the_address_of_the_node(node: Foreign) -> None:
    node.kubectl("apply", "-f", str(ROOT / "examples" / "hello.yaml"))
    chart = ("helmchart/hello", "-n", "kube-system")
    node.kubectl("wait", *chart, "--for=condition=Ready", "--timeout=60s")
    # Its Service is of type LoadBalancer: a DaemonSet of servicelb forwards to it.
    node.until(lambda: ADDRESS in node.kubectl("get", "service", "hello").stdout)
    node.until(lambda: "Hello from Pinnace" in node.http(f"http://{ADDRESS}:8080/"))
    [forwarding] = node.get("daemonsets", "-n", SPACE, "-l", SERVICE)["items"]
    assert forwarding["metadata"]["name"].startswith("svclb-hello-")

    node.kubectl("delete", "-f", str(ROOT / "examples" / "hello.yaml"), "--timeout=60s")
    assert node.get("deployments", "-l", "app.kubernetes.io/instance=hello")["items"] == []
    node.until(lambda: not node.get("daemonsets", "-n", SPACE, "-l", SERVICE)["items"])


SERVICE = "svccontroller.k3s.cattle.io/svcname=hello"


def test_a_claim_becomes_a_folder_of_the_node_and_goes_with_it(node: Foreign) -> None:
    node.apply(CLAIMED)
    node.kubectl("wait", "pod/writer", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=60s")
    [volume] = node.get("persistentvolumes")["items"]
    assert volume["metadata"]["annotations"]["localpath.pinnace.dev/enforced-by"] == "none"
    source = volume["spec"].get("local") or volume["spec"]["hostPath"]
    assert (Path(source["path"]) / "file").read_text() == "written\n"

    node.kubectl("delete", "pod/writer", "pvc/claim", "--timeout=60s")
    node.until(lambda: not node.get("persistentvolumes")["items"])
    assert not Path(source["path"]).exists()


def test_a_policy_lets_only_friends_in(node: Foreign) -> None:
    node.kubectl("rollout", "status", "daemonset", "-n", SPACE, "--timeout=60s")
    node.apply(PEERS)
    peers = ("pod/server", "pod/friend", "pod/stranger")
    node.kubectl("wait", *peers, "--for=condition=Ready", "--timeout=60s")
    server = node.get("pod", "server")["status"]["podIP"]

    def answers(pod: str) -> bool:
        talk = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {server} 8080"
        return "Hello" in node.exec(pod, "sh", "-c", talk, check=False)

    node.until(lambda: answers("friend") and not answers("stranger"))
    node.kubectl("delete", "networkpolicy", "friends")
    node.until(lambda: answers("stranger"))
