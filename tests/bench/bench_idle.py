"""
What a node with batteries in use costs while nothing changes.

Twenty HelmCharts, twenty Services of type LoadBalancer and twenty local-path volumes
in a running pod; then nothing is done. The store must not move, whatever the time; how much
processor and how many writes that took is counted per process by the kernel, so that a busy
machine disturbs little. As root: ``python -m tests.bench.bench_idle [seconds]``
"""

import base64
import gzip
import io
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import processes
from tests.bench.bench_api import Row
from tests.bench.bench_node import NAMES, say_on_stderr
from tests.e2e.node import Namespace, Node
from tests.e2e.node import run as run_program

ROOT = Path(__file__).parent.parent.parent
COUNT = 20
SETTLING = 60.0

CHART = """\
apiVersion: v2
name: idle
version: 1.0.0
"""
TEMPLATE = """\
apiVersion: v1
kind: Service
metadata: {name: "{{ .Release.Name }}"}
spec:
  type: LoadBalancer
  selector: {app: idle}
  ports: [{port: {{ .Values.port }}, targetPort: 80}]
"""
RELEASE = """\
apiVersion: helm.cattle.io/v1
kind: HelmChart
metadata: {{name: idle-{n}, namespace: default}}
spec:
  chartContent: {chart}
  valuesContent: "port: {port}"
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: idle-{n}, namespace: default}}
spec:
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 16Mi}}}}
"""

Say = Callable[[str], None]


def run(say: Say = say_on_stderr, *, seconds: int = 120) -> list[Row]:
    """Name, value, unit and note of each thing measured."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Namespace(f"idle-{os.getpid()}") as namespace,
    ):
        node = Node(Path(folder) / "n", namespace, ("--disable=traefik",))
        images = str(node.data / "agent" / "images")
        run_program(sys.executable, str(ROOT / "image-build" / "images.py"), images)
        try:
            node.start()
            say(f"{COUNT} charts, services and volumes")
            _fill(node)
            say("settling")
            time.sleep(SETTLING)
            return _measure(node, say, seconds)
        finally:
            node.clean_up()


def _fill(node: Node) -> None:
    chart = base64.b64encode(_packed()).decode()
    node.apply("---\n".join(RELEASE.format(n=n, chart=chart, port=8000 + n) for n in range(COUNT)))
    names = [f"idle-{n}" for n in range(COUNT)]
    volumes = [{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in names]
    container = {
        "name": "c",
        "image": "busybox",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "1000000"],
        "volumeMounts": [{"name": n, "mountPath": f"/{n}"} for n in names],
    }
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "idle", "namespace": "default"},
        "spec": {"containers": [container], "volumes": volumes},
    }
    node.apply(json.dumps(pod))
    for what in ("helmchart", "pod"):
        node.kubectl("wait", what, "--all", "--for=condition=Ready", "--timeout=110s")
    node.until(lambda: all(_addresses(node)))


def _addresses(node: Node) -> list[object]:
    services = [s for s in node.get("services")["items"] if s["spec"]["type"] == "LoadBalancer"]
    assert len(services) == COUNT
    return [service["status"]["loadBalancer"].get("ingress") for service in services]


def _packed() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, text in (("Chart.yaml", CHART), ("templates/service.yaml", TEMPLATE)):
            entry = tarfile.TarInfo(f"idle/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    return gzip.compress(buffer.getvalue())


def _stored(node: Node) -> int:
    """The revision of the last change that was written to the disk."""
    found = 0
    for kind in node.kubectl("api-resources", "--verbs=list", "-o", "name").stdout.split():
        if kind in {"events", "events.events.k8s.io", "leases.coordination.k8s.io"}:
            continue
        listed = node.kubectl("get", kind, "-A", "-o", "json", check=False)
        if listed.returncode == 0:
            items = json.loads(listed.stdout)["items"]
            versions = [int(i["metadata"].get("resourceVersion") or 0) for i in items]
            found = max([found, *versions])
    return found


def _measure(node: Node, say: Say, seconds: int) -> list[Row]:
    assert node.process is not None
    daemon, database = node.process.pid, node.data / "server" / "db"
    stored = _stored(node)
    time.sleep(SETTLING / 4)  # after the questions above
    before, sizes = processes.of_node(daemon), _sizes(database)
    say(f"nothing happens for {seconds} s")
    time.sleep(seconds)
    after, sizes_after = processes.of_node(daemon), _sizes(database)
    rows: list[Row] = []
    for number, cost in sorted(after.items(), key=lambda item: list(NAMES).index(item[1].name)):
        used = 100 * (cost.cpu - before[number].cpu) / seconds
        switches = (cost.switches - before[number].switches) / seconds
        written = cost.written - before[number].written
        note = f"{switches:.1f} switches/s, {written:.0f} KiB written, {cost.pss:.1f} MiB PSS"
        rows.append((f"processor, {NAMES[cost.name]}", used, "% of a core", note))
    rows.append(("store revisions", _stored(node) - stored, "", f"in {seconds} s"))
    moved = float(sizes != sizes_after)
    rows.append(("files of the store changed", moved, "", f"in {seconds} s; 0: none"))
    return rows


def _sizes(folder: Path) -> dict[str, tuple[int, int]]:
    found = {path.name: path.stat() for path in folder.iterdir()}
    return {name: (stat.st_size, stat.st_mtime_ns) for name, stat in found.items()}


if __name__ == "__main__":
    SECONDS = int(sys.argv[1]) if len(sys.argv) > 1 else 120
    for name, value, unit, note in run(seconds=SECONDS):
        sys.stdout.write(f"{name:40} {value:12,.3f} {unit:12} {note}\n")
