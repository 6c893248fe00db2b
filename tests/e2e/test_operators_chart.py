"""The operators as pods from their chart, on a node that runs none of them itself."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.e2e.node import ROOT, Namespace, Node, with_images
from tests.e2e.operators_image import with_operators

OFF = (
    "--disable=servicelb,local-storage,traefik,metrics-server",
    "--disable-helm-controller",
    "--disable-network-policy",
)
SPACE = "operators"
HELM = """
import sys
import helm_python
with (
    helm_python.Config(kubeconfig_path=sys.argv[1], namespace="operators") as to,
    helm_python.Chart.load(sys.argv[2]) as chart,
):
    to.install(chart, "ops", values={"servicelb": {"enabled": False}})
"""


@contextlib.contextmanager
def booted(folder: Path) -> Iterator[Node]:
    with Namespace(f"pinnace-chart-{os.getpid()}") as namespace:
        node = with_images(Node(folder, namespace, OFF))
        with_operators(node)
        try:
            node.start()
            yield node
        finally:
            node.clean_up()


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with booted(tmp_path_factory.mktemp("chart") / "n") as running:
        running.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
        running.kubectl("create", "namespace", SPACE)
        level = "pod-security.kubernetes.io/enforce=privileged"
        running.kubectl("label", "namespace", SPACE, level)
        argv = (
            sys.executable,
            "-c",
            HELM,
            str(running.kubeconfig),
            str(running.folder / "chart.tgz"),
        )
        running.namespace.exec(*argv)
        yield running


def test_a_chart_is_installed_by_a_pod(node: Node) -> None:
    node.kubectl("rollout", "status", "deployment", "-n", SPACE, "--timeout=60s")
    example = yaml.safe_load((ROOT / "examples" / "hello.yaml").read_text())
    node.apply(yaml.safe_dump(example))
    node.kubectl(
        "wait", "helmchart/hello", "-n", "kube-system", "--for=condition=Ready", "--timeout=60s"
    )
    node.kubectl("rollout", "status", "deployment", "-l", "app.kubernetes.io/instance=hello")
    [lease] = node.get("leases", "-n", SPACE)["items"]
    assert lease["spec"]["holderIdentity"].startswith("ops-pinnace-operators-")
