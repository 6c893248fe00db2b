"""Network policies and a daemon that ends, by itself or not."""

import pytest

from tests.e2e.node import Node, booted
from tests.e2e.test_netpol import HERE, THERE, TO_WEB, WEB, Pods, pod, policy


def test_rules_outlive_the_daemon_and_go_where_policies_are_off(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with booted(tmp_path_factory.mktemp("np"), name="netpol") as node:
        node.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
        node.until(lambda: "imported" in node.log.read_text())
        for space in (HERE, THERE):
            node.kubectl("create", "namespace", space)
            account = ("get", "serviceaccount", "default", "-n", space)
            node.until(lambda found=account: node.kubectl(*found, check=False).returncode == 0)
        node.apply(pod("web", WEB) + pod("client", "sleep 1000"))
        node.kubectl("wait", "pods", "--all", "-n", HERE, "--for=condition=Ready")
        pods = Pods(node)
        web = f"{pods.web}:8080"
        pods.enforce(policy("deny", TO_WEB))
        pods.until("client", web, reached=False)
        table = ("nft", "list", "table", "inet", "pinnace_netpol")
        node.kill()
        assert f"{pods.web} : goto" in node.namespace.exec(*table).stdout
        node.start()
        assert pods.reach("client", web) == [False]
        assert restarts(node) == {"web": 0, "client": 0}
        node.stop()
        node.flags = ("--disable-network-policy",)
        node.start()
        assert node.namespace.exec(*table, check=False).returncode
        pods.until("client", web, reached=True)
        node.apply(pod("later", "sleep 1000"))
        node.kubectl("wait", "pod", "later", "-n", HERE, "--for=condition=Ready")
        assert restarts(node) == {"web": 0, "client": 0, "later": 0}


def restarts(node: Node) -> dict[str, int]:
    found = node.get("pods", "-n", HERE)["items"]
    return {
        p["metadata"]["name"]: p["status"]["containerStatuses"][0]["restartCount"] for p in found
    }
