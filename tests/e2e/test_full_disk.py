"""A disk that fills up while the node runs: writes are refused, nothing is lost, it recovers."""

from collections.abc import Iterator

import pytest

from tests.e2e.node import Namespace, Node, run


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
    run(*enter, "rm", filler)
    created = ("create", "configmap", "after", literal)
    small.until(lambda: small.kubectl(*created, check=False).returncode == 0, timeout=20)
    assert small.stop() == 0
    small.start()
    assert {"before", "after"} <= names(small)
    assert "during" not in names(small)
