"""A node whose data is damaged: it says so, `pinnace repair` mends it, and it goes on."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Namespace, Node, run, with_images

CLAIM = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: precious}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 16Mi}}
---
apiVersion: v1
kind: Pod
metadata: {name: user}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: pinnace.dev/hello:1
    volumeMounts: [{name: data, mountPath: /data}]
  volumes:
  - name: data
    persistentVolumeClaim: {claimName: precious}
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with Namespace(f"pinnace-repair-{os.getpid()}") as namespace:
        made = with_images(Node(tmp_path / "node", namespace))
        try:
            made.start()
            yield made
        finally:
            made.clean_up()


def told(node: Node, command: str, *flags: str, code: int = 0) -> str:
    done = run(*node.command, command, *flags, *node.arguments, check=False)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout + done.stderr


def refuses(node: Node) -> str:
    done = run(*node.command, "server", *node.arguments, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stderr


def hurt(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * 4096)
        file.write(b"\xa5" * 4096)


def test_a_node_goes_on_after_its_data_was_damaged_and_mended(node: Node) -> None:
    state = node.data / "server" / "db" / "state.db"
    node.apply(CLAIM)
    node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=60s")
    node.kubectl("exec", "user", "--", "sh", "-c", "echo mine > /data/file")
    assert "this is a look only" in told(node, "repair")
    assert node.stop() == 0
    assert "nothing is wrong" in told(node, "repair")

    # The first page: SQLite does not open the file at all.
    hurt(state, 1)
    assert "WRONG  datastore: damaged" in told(node, "repair", code=2)
    assert "mended: a new one with" in told(node, "repair", "--yes")
    node.start()
    assert node.exec("user", "cat", "/data/file") == "mine\n"
    node.kubectl("delete", "pod", "user", "--timeout=30s")
    node.apply(CLAIM)
    node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=60s")
    assert node.stop() == 0

    # containerd's memory.
    meta = node.data / "agent/containerd/io.containerd.metadata.v1.bolt/meta.db"
    assert meta.exists()
    hurt(meta, 1)
    hurt(meta, 2)
    assert "containerd's memory is damaged" in told(node, "repair", code=2)
    assert "mended" in told(node, "repair", "--yes")
    node.start()
    # What the API says of the pod is of before, until the kubelet has looked.
    read = ("user", "cat", "/data/file")
    node.until(lambda: node.exec(*read, check=False) == "mine\n", timeout=90)
    assert node.stop() == 0

    # Gone altogether: an empty cluster must not take its place.
    state.unlink()
    assert "this would begin as an empty cluster" in refuses(node)
    assert "no sound snapshot" in told(node, "repair", code=2)


def test_after_a_reset_a_claim_of_the_same_name_finds_its_data(node: Node) -> None:
    node.apply(CLAIM)
    node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=60s")
    node.kubectl("exec", "user", "--", "sh", "-c", "echo mine > /data/file")
    node.kubectl("create", "configmap", "forgotten")
    volume = node.get("pvc", "precious")["spec"]["volumeName"]
    assert "stop it first" in told(node, "reset", "--keep-data", "--yes", code=1)
    assert node.stop() == 0
    assert "nothing was done" in told(node, "reset", "--keep-data", code=1)
    assert "done" in told(node, "reset", "--keep-data", "--yes")
    assert not node.kubeconfig.exists()

    with_images(node)
    node.start()
    node.until(lambda: node.kubectl("get", "pv", volume, check=False).returncode == 0)
    assert node.kubectl("get", "configmap", "forgotten", check=False).returncode == 1
    node.apply(CLAIM)
    node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=90s")
    assert node.get("pvc", "precious")["spec"]["volumeName"] == volume
    assert node.exec("user", "cat", "/data/file") == "mine\n"
    assert node.stop() == 0

    assert "done" in told(node, "reset", "--wipe", "--yes")
    assert list(node.data.iterdir()) == []
