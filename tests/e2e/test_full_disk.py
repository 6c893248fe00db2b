"""A disk that fills up or fails while the node runs: writes are refused, nothing is lost."""

import sys
from collections.abc import Iterator

import pytest

from tests.e2e.node import ROOT, Namespace, Node, run


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose data folder is a filesystem of 64 MiB."""
    with Namespace("pinnace-small") as namespace:
        node = Node(tmp_path_factory.mktemp("full"), namespace)
        node.data.mkdir(parents=True)
        mount = ("mount", "-t", "tmpfs", "-o", "size=64m", "small", str(node.data))
        run(*namespace.enter_mounts, *mount)
        try:
            node.start()
            yield node
        finally:
            node.clean_up()


@pytest.fixture
def failing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose data folder is a filesystem that turns read-only when it meets an error."""
    folder = tmp_path_factory.mktemp("failing")
    image = folder / "disk.img"
    run("truncate", "-s", "300M", str(image))
    run("mkfs.ext4", "-q", str(image))
    with Namespace("pinnace-failing") as namespace:
        node = Node(folder / "node", namespace)
        node.data.mkdir(parents=True)
        mount = ("mount", "-o", "loop,errors=remount-ro", str(image), str(node.data))
        run(*namespace.enter_mounts, *mount)
        try:
            images = str(node.data / "agent" / "images")
            make = str(ROOT / "image-build" / "images.py")
            run(*namespace.enter_mounts, sys.executable, make, images)
            node.start()
            yield node
        finally:
            node.clean_up()


def problem(node: Node) -> str:
    """The reason of the condition, where there is a problem."""
    conditions = node.get("node", "pi")["status"]["conditions"]
    found = [c for c in conditions if c["type"] == "DataDiskProblem" and c["status"] == "True"]
    return str(found[0]["reason"]) if found else ""


def names(node: Node) -> set[str]:
    return {item["metadata"]["name"] for item in node.get("configmaps")["items"]}


def test_a_full_disk_refuses_writes_and_loses_nothing(small: Node) -> None:
    enter, filler = small.namespace.enter_mounts, str(small.data / "filler")
    small.kubectl("create", "configmap", "before")
    run(*enter, "dd", "if=/dev/zero", f"of={filler}", "bs=64k", check=False)
    literal = f"--from-literal=a={'x' * 100_000}"
    refused = small.kubectl("create", "configmap", "during", literal, check=False)
    assert refused.returncode == 1
    assert "no space left for the datastore" in refused.stderr
    assert "before" in names(small)
    small.until(lambda: problem(small) == "DataDiskFull", timeout=30)
    small.kubectl("delete", "configmap", "before")  # which needs space itself
    small.kubectl("label", "node", "pi", "tidied=up")
    run(*enter, "rm", filler)
    created = ("create", "configmap", "after", literal)
    small.until(lambda: small.kubectl(*created, check=False).returncode == 0, timeout=20)
    small.until(lambda: problem(small) == "", timeout=30)
    assert small.stop() == 0
    small.start()
    assert "after" in names(small)
    assert not {"before", "during"} & names(small)


def test_a_disk_that_fails_is_read_and_said_to_have_failed(failing: Node) -> None:
    failing.kubectl("create", "configmap", "before")
    failing.until(lambda: "imported" in failing.log.read_text())
    failing.kubectl("run", "steady", "--image=pinnace.dev/hello:1")
    failing.kubectl("wait", "pod/steady", "--for=condition=Ready", "--timeout=60s")
    address = failing.get("pod", "steady")["status"]["podIP"]
    abort = ("mount", "-o", "remount,abort", str(failing.data))
    run(*failing.namespace.enter_mounts, *abort, check=False)
    refused = failing.kubectl("create", "configmap", "during", check=False)
    assert refused.returncode == 1
    assert "before" in names(failing)
    assert "Hello from Pinnace." in failing.http(f"http://{address}:8080/")
    events = ("get", "events", "--field-selector=reason=DataDiskReadOnly", "--output=name")
    failing.until(lambda: failing.kubectl(*events).stdout, timeout=30)
    assert "is mounted read-only" in failing.log.read_text()
    before = failing.get("lease", "pi", "-n", "kube-node-lease")
    failing.until(lambda: failing.get("lease", "pi", "-n", "kube-node-lease") != before)
