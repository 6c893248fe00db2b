"""A clock that is wrong, and is set right while the node runs: nothing stops, nothing is lost."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from controlplane.objects.moment import BUILD
from tests.e2e.node import Namespace, Node, with_images

LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
JUMPS = [
    pytest.param("@1970-01-01 00:00:10", "+0d", id="1970"),
    pytest.param("@2012-03-04 05:06:07", "+0d", id="2012"),
    pytest.param("+10h", "+0d", id="ten hours ahead"),
    pytest.param("+1095d", "+0d", id="three years ahead"),
    pytest.param("+0d", "+1095d", id="right, then three years on"),
]
# The library refuses what Python sleeps by, once it leaves the other clocks alone.
SLEEP = """
import select, time
time.sleep = lambda seconds: select.select([], [], [], seconds) and None
"""
WORKLOAD = """
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: main
    image: pinnace.dev/hello:1
    volumeMounts: [{name: own, mountPath: /token}]
  volumes:
  - name: own
    projected:
      sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
---
apiVersion: batch/v1
kind: Job
metadata: {name: long}
spec:
  activeDeadlineSeconds: 3600
  ttlSecondsAfterFinished: 60
  template:
    spec:
      restartPolicy: Never
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: pinnace.dev/hello:1}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: hourly}
spec:
  schedule: "0 * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: main, image: pinnace.dev/hello:1, args: ["true"]}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: slow}
spec:
  minReadySeconds: 1
  selector: {matchLabels: {app: slow}}
  template:
    metadata: {labels: {app: slow}}
    spec:
      terminationGracePeriodSeconds: 1
      containers: [{name: main, image: pinnace.dev/hello:1}]
"""


@pytest.fixture
def spare(tmp_path: Path) -> Iterator[Node]:
    """A node that is not started yet."""
    with Namespace(f"pinnace-clock-{os.getpid()}") as namespace:
        node = with_images(Node(tmp_path / "node", namespace))
        yield node
        node.clean_up()


def set_clock(node: Node, time: str) -> None:
    """
    For the daemon and its children, also while they run.

    containerd is no C program and keeps the true time; times of files stay true as well.
    """
    assert LIBRARY is not None, "apt-get install faketime"
    clock = node.folder / "faketime"
    node.folder.mkdir(parents=True, exist_ok=True)
    draft = clock.with_suffix(".new")
    draft.write_text(f"{time}\n")
    draft.replace(clock)
    (node.folder / "sitecustomize.py").write_text(SLEEP)
    node.extra_environment = {
        "LD_PRELOAD": str(LIBRARY),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
        "FAKE_UTIME": "0",
        "PYTHONPATH": str(node.folder),
    }


def stamp(obj: Any, *path: str) -> datetime:
    for key in path:
        obj = obj[key]
    return datetime.fromisoformat(str(obj))


def asked_with_token(node: Node, token: str) -> str:
    """What the API server says to a pod's own token."""
    server = json.loads(node.kubectl("config", "view", "-o", "json").stdout)["clusters"][0]
    return node.namespace.exec(
        "curl",
        "--silent",
        "--insecure",
        "--header",
        f"Authorization: Bearer {token}",
        f"{server['cluster']['server']}/api",
        check=False,
    ).stdout


def other_than(token: str, node: Node) -> str:
    """The pod's token once it has another; nothing while the kubelet cannot be asked yet."""
    found = node.exec("client", "cat", "/token/token", check=False)
    return found if found != token else ""


def restarts(node: Node) -> dict[str, int]:
    return {
        pod["metadata"]["name"]: sum(c["restartCount"] for c in pod["status"]["containerStatuses"])
        for pod in node.get("pods", "--selector=app!=slow")["items"]
    }


@pytest.mark.parametrize(("wrong", "right"), JUMPS)
def test_a_clock_is_set_right_under_a_running_node(spare: Node, wrong: str, right: str) -> None:
    set_clock(spare, wrong)
    spare.start()
    spare.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
    spare.apply(WORKLOAD)
    spare.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
    spare.kubectl("rollout", "status", "deployment/slow", "--timeout=30s")
    token = spare.exec("client", "cat", "/token/token")
    assert '"APIVersions"' in asked_with_token(spare, token)
    before, lease = restarts(spare), spare.get("lease", "pi", "-n", "kube-node-lease")
    assert stamp(spare.get("pod", "client"), "metadata", "creationTimestamp") >= BUILD

    set_clock(spare, right)
    spare.until(lambda: "the clock was set by" in spare.log.read_text(), timeout=45)
    assert '"APIVersions"' in asked_with_token(spare, token)  # what was issued lives on
    fresh = spare.until(lambda: other_than(token, spare))
    assert '"APIVersions"' in asked_with_token(spare, fresh)
    spare.until(lambda: spare.get("lease", "pi", "-n", "kube-node-lease") != lease)
    spare.kubectl("create", "configmap", "made-after")
    made = stamp(spare.get("configmap", "made-after"), "metadata", "creationTimestamp")
    drift = (made - datetime.now(UTC)).total_seconds() - 86400 * int(right[1:-1])
    assert abs(drift) < 300

    spare.kubectl("set", "env", "deployment/slow", "A=b")
    spare.kubectl("rollout", "status", "deployment/slow", "--timeout=60s")
    spare.kubectl("wait", "node/pi", "--for=condition=Ready", "--timeout=30s")
    assert not spare.get("node", "pi")["spec"].get("taints")
    assert {name: restarts(spare)[name] for name in before} == before
    job = spare.get("job", "long")["status"]
    assert job.get("active") == 1
    assert not job.get("conditions")
    jobs = [item["metadata"]["name"] for item in spare.get("jobs")["items"]]
    assert len([name for name in jobs if name.startswith("hourly-")]) <= 1
    assert spare.stop() == 0
    spare.start()
    spare.kubectl("get", "configmap", "made-after")


def test_a_clock_decades_ahead_is_lived_with(spare: Node) -> None:
    set_clock(spare, "+30000d")
    spare.start()
    spare.kubectl("create", "configmap", "made-then")  # kubectl has the right time
    made = spare.get("configmap", "made-then")["metadata"]["creationTimestamp"]
    assert made.startswith("21")
    assert spare.stop() == 0
    spare.extra_environment = {}
    spare.start()
    spare.kubectl("get", "configmap", "made-then")
    spare.kubectl("wait", "--for=condition=Ready", "node/pi", "--timeout=30s")
