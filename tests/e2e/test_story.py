"""The main job, as a new user does it: from one HelmChart to a page, and back."""

import base64
import gzip
import json
import sys
from typing import Any

import pytest
import yaml

from tests.e2e.node import ADDRESS, ROOT, Node

EXAMPLE = ROOT / "examples" / "hello.yaml"

# What `helm ls -A` and `helm history` print, asked of Helm's own library.
HELM = """
import json, sys
from helm_python import Config
with Config(kubeconfig_path=sys.argv[1], namespace="default") as helm:
    print(json.dumps([helm.list(all_states=True), helm.history("hello")]))
"""


@pytest.fixture(scope="module")
def chart(node: Node) -> Any:
    """The example, applied and ready; uninstalled at the end."""
    node.kubectl("apply", "-f", str(EXAMPLE))
    wait_ready(node, 1)
    yield example()
    node.kubectl("delete", "--ignore-not-found", "-f", str(EXAMPLE))


def example() -> dict[str, Any]:
    body: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    return body


def wait_ready(node: Node, revision: int) -> None:
    def is_ready() -> bool:
        status = node.get("helmchart", "hello", "-n", "kube-system").get("status", {})
        conditions = {c["type"]: c for c in status.get("conditions", ())}
        return conditions.get("Ready", {}).get("status") == "True" and newest(node) == revision

    node.until(is_ready)
    node.kubectl("rollout", "status", "deployment", "-l", "app.kubernetes.io/instance=hello")


def releases(node: Node) -> list[dict[str, Any]]:
    """The release Secrets, oldest first, as Helm wrote them."""
    found = node.get("secrets", "-l", "owner=helm,name=hello")["items"]
    read = [json.loads(gzip.decompress(_twice(s["data"]["release"]))) for s in found]
    return sorted(read, key=lambda release: int(release["version"]))


def _twice(data: str) -> bytes:
    return base64.b64decode(base64.b64decode(data))


def newest(node: Node) -> int:
    found = releases(node)
    return int(found[-1]["version"]) if found else 0


def service(node: Node) -> dict[str, Any]:
    (found,) = node.get("services", "-l", "app.kubernetes.io/instance=hello")["items"]
    body: dict[str, Any] = found
    return body


def page(node: Node, url: str) -> str:
    return str(node.until(lambda: (text := node.http(url)).startswith("200") and text))


def test_the_page_is_served_on_every_kind_of_address(node: Node, chart: Any) -> None:
    spec = service(node)["spec"]
    port = spec["ports"][0]
    addresses = [
        f"http://{spec['clusterIP']}:{port['port']}/",
        f"http://{ADDRESS}:{port['nodePort']}/",
    ]
    (ingress,) = node.until(lambda: service(node)["status"].get("loadBalancer", {}).get("ingress"))
    assert ingress["ip"] == ADDRESS
    addresses.append(f"http://{ingress['ip']}:{port['port']}/")
    for address in addresses:
        assert page(node, address).startswith("200")


def test_a_second_pod_reaches_it_by_name(node: Node, chart: Any) -> None:
    body = service(node)
    name, port = body["metadata"]["name"], body["spec"]["ports"][0]["port"]
    image = "docker.io/library/busybox:1.35"
    node.kubectl("run", "client", f"--image={image}", "--", "sleep", "3600")
    node.kubectl("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    for host in (name, f"{name}.default", f"{name}.default.svc.cluster.local"):
        assert node.exec("client", "wget", "-qO-", f"http://{host}:{port}/")
    node.kubectl("delete", "pod", "client", "--now")


def test_applying_the_same_again_changes_nothing(node: Node, chart: Any) -> None:
    before = node.get("helmchart", "hello", "-n", "kube-system")["metadata"]
    assert "unchanged" in node.kubectl("apply", "-f", str(EXAMPLE)).stdout
    after = node.get("helmchart", "hello", "-n", "kube-system")["metadata"]
    assert after["resourceVersion"] == before["resourceVersion"]
    assert newest(node) == 1
    assert not [key for key in after.get("annotations", {}) if "kopf" in key]
    assert not [name for name in after.get("finalizers", []) if "kopf" in name]


def test_a_change_of_values_upgrades_and_deletion_uninstalls(node: Node, chart: Any) -> None:
    chart["spec"]["valuesContent"] = "message: Ahoy from the second revision\n"
    node.apply(yaml.safe_dump(chart))
    wait_ready(node, 2)
    url = f"http://{service(node)['spec']['clusterIP']}/"
    node.until(lambda: "Ahoy from the second revision" in node.http(url))
    listed, history = helm(node)
    assert [(r["name"], r["status"]) for r in listed] == [("hello", "deployed")]
    states = [(h["revision"], h["status"]) for h in history]
    assert states == [(1, "superseded"), (2, "deployed")]
    node.kubectl("delete", "helmchart", "hello", "-n", "kube-system")
    node.until(lambda: not node.get("secrets", "-l", "owner=helm,name=hello")["items"])
    kinds = "deployments,services,configmaps"
    node.until(lambda: not node.get(kinds, "-l", "app.kubernetes.io/instance=hello")["items"])


def helm(node: Node) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    argv = (sys.executable, "-c", HELM, str(node.kubeconfig))
    listed, history = json.loads(node.namespace.exec(*argv).stdout)
    return listed, history
