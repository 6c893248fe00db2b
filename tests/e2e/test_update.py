"""Another version is tried and kept, or left with what it wrote set aside: the whole node."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.slots import V2, SlottedNode, slotted


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SlottedNode]:
    with slotted(tmp_path / "n", name="pinnace-up") as made:
        yield made


def created(node: SlottedNode, name: str) -> bool:
    return node.kubectl("create", "configmap", name, check=False).returncode == 0


def test_a_new_version_is_installed_tried_and_committed_with_all_data(node: SlottedNode) -> None:
    node.until(lambda: created(node, "before"))
    node.request(version=V2, url=str(node.machine.bundle(V2)))
    report = node.reaches("Committed")
    assert (report["running"], report["slot"]) == (V2, "b")
    assert list(report["times"]) == [
        "Downloading",
        "Installing",
        "Installed",
        "Switching",
        "Trial",
        "Committed",
    ]
    node.kubectl("get", "configmap", "before")
    labels = node.object()["metadata"]["labels"]
    assert labels["pinnace.dev/version"] == V2.replace("+", "-")
    assert labels["pinnace.dev/board"] == "fake"
