"""A clock that is wrong: the node starts all the same, and needs no restart once it is right."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import Namespace, Node, with_images

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Node]:
    """A node that is not started yet."""
    with Namespace(f"pinnace-clock-{os.getpid()}") as namespace:
        node = with_images(Node(tmp_path / "node", namespace))
        yield node
        node.clean_up()


def set_clock(node: Node, time: str) -> None:
    """For the daemon and its children; containerd is no C program and keeps the true time."""
    assert LIBRARY is not None, "apt-get install faketime"
    node.extra_environment = {"LD_PRELOAD": str(LIBRARY), "FAKETIME": time} if time else {}


@pytest.mark.parametrize(
    ("time", "century"),
    [
        pytest.param("@1970-01-02 00:00:30", "19", id="never set"),
        pytest.param("@2012-03-04 05:06:07", "20", id="years behind"),
        pytest.param("+30000d", "21", id="far ahead"),
    ],
)
def test_a_node_with_a_wrong_clock_starts_and_lives_on_under_the_right_one(
    spare: Node, time: str, century: str
) -> None:
    set_clock(spare, time)
    spare.start()
    spare.kubectl("create", "configmap", "made-then")  # kubectl has the right time
    made = spare.get("configmap", "made-then")["metadata"]["creationTimestamp"]
    assert made.startswith(century)  # the clock was wrong indeed
    assert spare.stop() == 0
    set_clock(spare, "")
    spare.start()
    spare.kubectl("get", "configmap", "made-then")
    spare.kubectl("wait", "--for=condition=Ready", "node/pi", "--timeout=30s")
