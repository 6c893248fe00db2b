"""A node whose network comes late, or changes: it takes the new address, and its pods run on."""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.e2e.node import ADDRESS, Namespace, Node, with_images

OTHER = "10.99.7.7"
POD = """
apiVersion: v1
kind: Pod
metadata: {name: steady}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: pinnace.dev/hello:1}]
"""


class Wanderer(Node):
    """A node that nobody told its address."""

    @property
    def arguments(self) -> list[str]:
        return [flag for flag in super().arguments if not flag.startswith("--node-ip")]

    def internal(self) -> str:
        addresses: list[Any] = self.get("node", "pi")["status"]["addresses"]
        return str(next(a["address"] for a in addresses if a["type"] == "InternalIP"))

    def names_of_the_api(self) -> set[str]:
        """In the certificate that it shows now."""
        code = "import ssl; print(ssl.get_server_certificate(('127.0.0.1', 6443)))"
        pem = self.namespace.exec(sys.executable, "-c", code).stdout
        found = x509.load_pem_x509_certificate(pem.encode())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        return {str(name.value) for name in names}

    def started(self) -> str:
        state = self.get("pod", "steady")["status"]["containerStatuses"][0]["state"]
        return json.dumps(state["running"])


@pytest.fixture
def wanderer(tmp_path: Path) -> Iterator[Wanderer]:
    with Namespace(f"pinnace-wander-{os.getpid()}") as namespace:
        namespace.exec("ip", "address", "del", f"{ADDRESS}/24", "dev", "eth0")
        node = Wanderer(tmp_path / "n", namespace)
        with_images(node)
        try:
            node.start()
            yield node
        finally:
            node.clean_up()


def test_a_node_takes_the_address_that_comes_and_the_one_that_comes_then(
    wanderer: Wanderer,
) -> None:
    assert wanderer.internal() == "127.0.0.1"
    wanderer.apply(POD)
    wanderer.kubectl("wait", "pod/steady", "--for=condition=Ready", "--timeout=60s")
    before = wanderer.started()
    link = ("dev", "eth0")
    wanderer.namespace.exec("ip", "address", "add", f"{ADDRESS}/24", *link)
    wanderer.until(lambda: ADDRESS in _safely(wanderer.internal))
    wanderer.until(lambda: ADDRESS in _safely(wanderer.names_of_the_api))
    # One more address: it is in the certificate, and the node stays what it is.
    wanderer.namespace.exec("ip", "address", "add", f"{OTHER}/24", *link)
    wanderer.until(lambda: OTHER in _safely(wanderer.names_of_the_api))
    assert wanderer.internal() == ADDRESS
    wanderer.namespace.exec("ip", "address", "del", f"{ADDRESS}/24", *link)
    wanderer.until(lambda: OTHER in _safely(wanderer.internal))
    wanderer.until(lambda: wanderer.get("pod", "steady")["status"]["hostIP"] == OTHER)
    assert wanderer.started() == before


def _safely(ask: Any) -> Any:
    """While the control plane starts again nothing answers."""
    try:
        return ask()
    except AssertionError:
        return ""
