"""What may fail, fails: children, the daemon, containerd, the disk; the pods do not notice."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import ADDRESS, Node, booted, find_kubectl, run

PATIENCE = 20.0
POD = """
apiVersion: v1
kind: Pod
metadata: {name: steady, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: steady
    image: pinnace.dev/hello:1
    ports: [{containerPort: 8080}]
    livenessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
    readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
"""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node of its own, since its parts are killed, with one pod on it."""
    with booted(tmp_path_factory.mktemp("faults") / "pinnace", name="pinnace-f") as running:
        running.until(lambda: "imported" in running.log.read_text())
        running.until(lambda: running.kubectl("get", "sa", "default", check=False).returncode == 0)
        running.apply(POD)
        running.kubectl("wait", "pod/steady", "--for=condition=Ready", "--timeout=30s")
        yield running


def containers(node: Node) -> list[tuple[str, int]]:
    """The ids and restart counts of the pod that must not notice."""
    status = node.get("pod", "steady")["status"]
    return [(c["containerID"], c["restartCount"]) for c in status["containerStatuses"]]


def can_create(node: Node, name: str) -> bool:
    done = node.kubectl("create", "configmap", name, check=False)
    return done.returncode == 0 or "already exists" in done.stderr


def page(node: Node) -> bool:
    address = node.get("pod", "steady")["status"]["podIP"]
    return "Hello from Pinnace." in node.http(f"http://{address}:8080/")


def is_ready(node: Node) -> bool:
    conditions = {c["type"]: c["status"] for c in node.get("node", "pi")["status"]["conditions"]}
    return bool(conditions["Ready"] == "True")


def kill_child(node: Node, name: str) -> int:
    """Its process number, once another has taken its place."""
    before = node.children()[name]
    os.kill(before, signal.SIGKILL)
    node.until(lambda: node.children().get(name, before) != before, timeout=PATIENCE)
    return before


def test_a_killed_api_server_is_back_in_seconds_and_has_lost_nothing(node: Node) -> None:
    before = containers(node)
    acknowledged = [n for n in range(10) if can_create(node, f"kept-{n}")]
    kill_child(node, "pinnace-api")
    node.until(lambda: can_create(node, "after-api"), timeout=PATIENCE)
    found = {c["metadata"]["name"] for c in node.get("configmaps")["items"]}
    assert {f"kept-{n}" for n in acknowledged} <= found
    assert len(acknowledged) == 10
    assert containers(node) == before
    assert page(node)


def test_nothing_acknowledged_is_lost_when_the_api_server_dies_amid_writes(node: Node) -> None:
    names: list[str] = []
    with subprocess.Popen(
        [*node.namespace.enter, "sh", "-c", WRITER, find_kubectl()],
        env=os.environ | {"KUBECONFIG": str(node.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        names += [writer.stdout.readline().strip() for _ in range(5)]
        os.kill(node.children()["pinnace-api"], signal.SIGKILL)
        names += [line.strip() for line in writer.stdout]
    node.until(lambda: can_create(node, "after-writes"), timeout=PATIENCE)
    found = {f"configmap/{c['metadata']['name']}" for c in node.get("configmaps")["items"]}
    written = {name.removesuffix(" created") for name in names}
    assert len(written) >= 5
    assert written <= found


# Until the first refusal; kubectl says what was acknowledged.
WRITER = 'i=0; while "$0" create configmap amid-$i 2>/dev/null; do i=$((i+1)); done'


def test_a_watch_ends_with_the_api_server_and_goes_on_from_its_revision(node: Node) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    listed = json.loads(node.kubectl("get", "--raw", path).stdout)
    watching = f"{path}?watch=1&resourceVersion={listed['metadata']['resourceVersion']}"
    with node.kubectl_in_background("get", "--raw", watching) as watch:
        node.kubectl("create", "configmap", "seen-before")
        assert watch.stdout is not None
        assert json.loads(watch.stdout.readline())["object"]["metadata"]["name"] == "seen-before"
        kill_child(node, "pinnace-api")
        watch.wait(timeout=PATIENCE)
    node.until(lambda: can_create(node, "seen-after"), timeout=PATIENCE)
    with node.kubectl_in_background("get", "--raw", watching) as again:
        assert again.stdout is not None
        seen = json.loads(again.stdout.readline())
        again.kill()
    # Either the history is still there or the client is told to list anew.
    if seen["type"] == "ERROR":
        assert seen["object"]["code"] == 410
    else:
        assert (seen["type"], seen["object"]["metadata"]["name"]) == ("ADDED", "seen-before")


@pytest.mark.parametrize("child", ["pinnace-agent", "pinnace-operato"])
def test_a_killed_child_is_back_and_no_container_was_restarted(node: Node, child: str) -> None:
    before = containers(node)
    kill_child(node, child)
    node.kubectl("create", "configmap", f"after-{child}", "--dry-run=server")
    name = f"new-{child.removeprefix('pinnace-')}"
    node.kubectl("run", name, "--image=pinnace.dev/hello:1")
    node.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=20s")
    assert containers(node) == before
    assert page(node)


def test_a_killed_containerd_is_back_and_no_container_was_restarted(node: Node) -> None:
    before = containers(node)
    kill_child(node, "containerd")
    node.kubectl("run", "new-containerd", "--image=pinnace.dev/hello:1")
    node.kubectl("wait", "pod/new-containerd", "--for=condition=Ready", "--timeout=30s")
    assert containers(node) == before
    assert is_ready(node)
    assert page(node)


def test_a_killed_daemon_leaves_the_pods_running_and_is_started_again(node: Node) -> None:
    before = containers(node)
    address = node.get("pod", "steady")["status"]["podIP"]
    node.kill()
    assert "Hello from Pinnace." in node.http(f"http://{address}:8080/")
    assert node.start(timeout=PATIENCE) < 15
    node.until(lambda: is_ready(node), timeout=PATIENCE)
    assert containers(node) == before
    assert page(node)


def test_after_everything_died_at_once_the_node_comes_back_as_it_was(node: Node) -> None:
    before = containers(node)
    node.kubectl("create", "configmap", "last-words")
    assert node.process is not None
    doomed = [node.process.pid, *node.children().values()]
    for number in doomed:
        os.kill(number, signal.SIGKILL)
    node.process.wait(timeout=10)
    node.process = None
    assert node.start(timeout=PATIENCE) < 15
    node.kubectl("get", "configmap", "last-words")
    node.until(lambda: is_ready(node), timeout=PATIENCE)
    assert containers(node) == before
    assert page(node)


def test_an_orderly_stop_ends_with_zero_and_leaves_the_pods_running(node: Node) -> None:
    before = containers(node)
    address = node.get("pod", "steady")["status"]["podIP"]
    offset = node.log.stat().st_size
    began = time.monotonic()
    assert node.stop() == 0
    assert time.monotonic() - began < 8, node.log.read_text()[offset:]
    assert "killing" not in node.log.read_text()[offset:]
    assert "Hello from Pinnace." in node.http(f"http://{address}:8080/")
    assert node.start(timeout=PATIENCE) < 15
    node.until(lambda: is_ready(node), timeout=PATIENCE)
    assert containers(node) == before
    node.kubectl("delete", "pod", "steady", "--timeout=20s")
    assert "failed" in node.http(f"http://{address}:8080/")


# -- what cannot start says so in one line and leaves nothing behind


def refused(node: Node, *flags: str, command: str = "server") -> str:
    """The one line on standard error; the exit code is 1."""
    done = run(*node.command, command, *flags, check=False)
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr.strip()


def elsewhere(folder: Path) -> tuple[str, ...]:
    """The flags of a second node that would have nothing in common with the first."""
    return (
        f"--data-dir={folder / 'data'}",
        f"--run-dir={folder / 'run'}",
        f"--write-kubeconfig={folder / 'kubeconfig'}",
        f"--config={folder / 'config.yaml'}",
        f"--node-ip={ADDRESS}",
    )


def test_a_second_daemon_is_refused(node: Node) -> None:
    assert node.process is not None
    line = refused(node, *node.arguments)
    assert line.startswith("pinnace: pinnace already runs as process ")
    assert is_ready(node)


def test_a_taken_port_is_named_and_nothing_is_written(node: Node, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    line = refused(node, *elsewhere(tmp_path))
    assert line == (
        "pinnace: cannot listen on 0.0.0.0:6443: Address already in use; stop what uses it or "
        "choose another with --https-listen-port"
    )
    assert not any((tmp_path / "data").rglob("*"))
    assert not (tmp_path / "kubeconfig").exists()


@pytest.mark.parametrize(
    ("flag", "why"),
    [
        ("--bogus", "--bogus"),
        ("--cluster-cidr=nonsense", "cluster-cidr"),
        ("--https-listen-port=many", "https-listen-port"),
        ("--node-ip=300.1.1.1", "node-ip"),
        ("--node-name=Not_A_Name", "node-name"),
    ],
)
def test_a_bad_flag_is_named(node: Node, tmp_path: Path, flag: str, why: str) -> None:
    (tmp_path / "config.yaml").touch()
    assert why in refused(node, *elsewhere(tmp_path), flag)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    "text", ["bogus-key: 1\n", "https-listen-port: many\n", "a: [unclosed\n", "- a list\n"]
)
def test_a_bad_configuration_file_is_named(node: Node, tmp_path: Path, text: str) -> None:
    (tmp_path / "config.yaml").write_text(text)
    line = refused(node, *elsewhere(tmp_path))
    assert "config.yaml" in line or text.split(":")[0] in line
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_written_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    (tmp_path / "data").write_text("a file, not a folder")
    line = refused(node, *elsewhere(tmp_path))
    assert str(tmp_path / "data") in line
    assert line.endswith("choose another with --data-dir")


def test_a_run_folder_whose_path_is_too_long_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    long = tmp_path / ("x" * 90)
    line = refused(node, *elsewhere(tmp_path), f"--run-dir={long}")
    assert line == (
        f"pinnace: the path {long} is too long for sockets: choose one of at most 71 bytes with "
        "--run-dir"
    )
    assert not (tmp_path / "data").exists()


def test_a_full_disk_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    data = tmp_path / "data"
    data.mkdir()
    enter = node.namespace.enter_mounts
    run(*enter, "mount", "-t", "tmpfs", "-o", "size=16m", "small", str(data))
    try:
        line = refused(node, *elsewhere(tmp_path))
        assert "is full" in line
        assert str(data) in line
        assert run(*enter, "ls", "-A", str(data)).stdout == ""
    finally:
        run(*enter, "umount", str(data))
