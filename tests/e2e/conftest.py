"""One booted node for all tests, and a namespace for each."""

import contextlib
import itertools
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.node import ADDRESS, Node, booted

NUMBERS = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.root)
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(180))


@dataclass(frozen=True)
class Space:
    """A Kubernetes namespace, and kubectl pointed at it."""

    node: Node
    name: str

    def run(
        self, *arguments: str, check: bool = True, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.node.kubectl(f"--namespace={self.name}", *arguments, check=check, **more)

    def kubectl(self, *arguments: str, **more: Any) -> str:
        """What it prints on standard output; it must succeed."""
        return self.run(*arguments, **more).stdout

    def refused(self, *arguments: str, code: int = 1, **more: Any) -> str:
        """What it prints on standard error; it must fail, with this exit code."""
        done = self.run(*arguments, check=False, **more)
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done.stderr.strip()

    def apply(self, manifest: str, *flags: str) -> str:
        return self.kubectl("apply", "-f", "-", *flags, input=manifest)

    def get(self, *arguments: str) -> Any:
        return self.node.get(f"--namespace={self.name}", *arguments)

    def value(self, *arguments: str, path: str) -> str:
        """One field, as jsonpath prints it; empty where there is none."""
        return self.kubectl("get", *arguments, "-o", f"jsonpath={path}")

    def wait(self, *arguments: str, timeout: float = 30) -> str:
        return self.kubectl("wait", *arguments, f"--timeout={timeout}s")

    def until(self, condition: Any, *, timeout: float = 30, seen: Any = None) -> Any:
        return self.node.until(condition, timeout=timeout, seen=seen)

    @contextlib.contextmanager
    def background(self, *arguments: str, **more: Any) -> Iterator["subprocess.Popen[str]"]:
        """A kubectl that keeps running, until the block ends."""
        process = self.node.kubectl_in_background(f"--namespace={self.name}", *arguments, **more)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Its node is Ready and its images are there."""
    with booted(tmp_path_factory.mktemp("node") / "pinnace") as running:
        running.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
        running.until(lambda: "imported" in running.log.read_text())
        yield running


@pytest.fixture
def space(node: Node) -> Iterator[Space]:
    with a_space(node) as made:
        yield made


@contextlib.contextmanager
def a_space(node: Node) -> Iterator[Space]:
    name = f"test-{next(NUMBERS)}"
    node.kubectl("create", "namespace", name)
    account = ("get", "serviceaccount", "default", "-n", name)
    node.until(lambda: node.kubectl(*account, check=False).returncode == 0)
    yield Space(node, name)
    node.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Another node, with every packaged component and Traefik's image, where that is to be had."""
    folder = tmp_path_factory.mktemp("whole") / "pinnace"
    with booted(folder, name="pinnace-whole", ingress=True) as running:
        running.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
        running.until(lambda: "imported pinnace.dev/pause" in running.log.read_text())
        yield running


@pytest.fixture(scope="session")
def ingress(whole: Node) -> Node:
    """The same node, once its ingress controller serves."""
    if not (whole.data / "agent" / "images" / "pinnace-traefik.tar").exists():
        pytest.skip("Traefik's wheel cannot be had here: see `make .cache/ingress`")
    whole.until(lambda: traefik_serves(whole), timeout=100)
    return whole


def traefik_serves(node: Node) -> bool:
    """Available, and asked by the address that its Service has from the node."""
    found = node.kubectl(
        "get", "deployment", "traefik", "-n", "kube-system", "-o", "json", check=False
    )
    status = json.loads(found.stdout).get("status", {}) if found.returncode == 0 else {}
    return bool(status.get("availableReplicas")) and "404" in node.http(f"http://{ADDRESS}/")
