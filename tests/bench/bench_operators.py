"""
What the operators' process costs while nothing changes, and how soon it writes.

A control plane and the operators of a node, with 20 HelmCharts, 20 Services and 20 claims;
and the same operators as they run elsewhere, with a Lease. As root:
``python -m tests.bench.bench_operators [--quick]``
"""

import asyncio
import base64
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from charts import pack
from operators.client import WriterClient
from operators.config import PATH
from tests.bench import processes
from tests.bench.bench_api import Row
from tests.fakes.operators_cluster import ROOT, Cluster, condition, new_cluster
from tests.fakes.operators_config import config

OPERATORS = "operators.run"
MANY = 20
SETTLING = 10.0  # seconds, until the program that speaks to the API has gone
DEFAULT = "/api/v1/namespaces/default"
NODES = "/api/v1/nodes"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"


def run(*, quick: bool = False) -> Sequence[Row]:
    """Name, value, unit and note of each thing measured."""
    seconds = 10 if quick else 30
    with (
        tempfile.TemporaryDirectory(prefix="bench-operators-") as folder,
        new_cluster(Path(folder)) as cluster,
    ):
        cluster.start(OPERATORS)
        _fill(cluster)
        rows = _idle(cluster, cluster.children[OPERATORS].pid, "here", seconds)
        cluster.stop(OPERATORS)
        rows += _requests(cluster)
        with _elsewhere(cluster) as process:
            rows += _idle(cluster, process.pid, "elsewhere", seconds)
    return rows


def _fill(cluster: Cluster) -> None:
    cluster.create(NODES, {"metadata": {"name": "n1"}})
    status = {
        "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    cluster.merge(f"{NODES}/n1/status", {"status": status})
    packed = base64.b64encode(pack(ROOT / "charts" / "hello")).decode()
    for number in range(MANY):
        spec: dict[str, Any] = {"targetNamespace": "default", "chartContent": packed}
        cluster.create(CHARTS, {"metadata": {"name": f"c{number}"}, "spec": spec})
        ports = [{"port": 1000 + number}]
        spec = {"type": "LoadBalancer", "ports": ports, "selector": {"app": "a"}}
        cluster.create(f"{DEFAULT}/services", {"metadata": {"name": f"s{number}"}, "spec": spec})
        claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
        path = f"{DEFAULT}/persistentvolumeclaims"
        cluster.create(path, {"metadata": {"name": f"p{number}"}, "spec": claim})
    for number in range(MANY):
        cluster.until(CHARTS, f"c{number}", lambda c: condition(c, "Ready").get("status") == "True")
    # No kubelet is there: what follows from that is over before anything is measured.
    cluster.until(NODES, "n1", lambda n: condition(n, "Ready").get("status") != "True")


def _idle(cluster: Cluster, pid: int, where: str, seconds: int) -> list[Row]:
    time.sleep(SETTLING)
    before, revision = processes.of_node(pid), _revision(cluster)
    time.sleep(seconds)
    after, writes = processes.of_node(pid), _revision(cluster) - revision
    cpu = sum(cost.cpu for cost in after.values()) - sum(cost.cpu for cost in before.values())
    switches = after[pid].switches - before[pid].switches
    note = f"over {seconds} s, {MANY} HelmCharts, Services and claims each"
    return [
        (f"operators {where}, memory, PSS", after[pid].pss, "MiB", f"{len(after)} process"),
        (f"operators {where}, processor at idle", cpu * 100 / seconds, "% of a core", note),
        (f"operators {where}, context switches", switches / seconds, "1/s", note),
        (f"operators {where}, writes to the store", writes / seconds, "1/s", note),
    ]


def _revision(cluster: Cluster) -> int:
    listed = cluster.get(f"{DEFAULT}/configmaps?limit=1")
    return int(listed["metadata"]["resourceVersion"])


def _requests(cluster: Cluster) -> list[Row]:
    return asyncio.run(_measure_requests(cluster))


async def _measure_requests(cluster: Cluster) -> list[Row]:
    told = config(kubeconfig=cluster.kubeconfig, python=sys.executable, program_dir=ROOT, path=PATH)
    client, rows = WriterClient(told), []
    for name, many in (("first request", 1), ("next request", 200)):
        began = time.monotonic()
        for _ in range(many):
            await client.get(f"{DEFAULT}/services/s1")
        took = (time.monotonic() - began) / many
        rows.append((f"{name} of the operators", took * 1000, "ms", f"mean of {many}"))
    began = time.monotonic()
    await asyncio.gather(*(client.get(f"{DEFAULT}/services/s1") for _ in range(200)))
    rate = 200 / (time.monotonic() - began)
    rows.append(("requests side by side", rate, "1/s", "200 at once"))
    await client.close()
    return rows


@contextmanager
def _elsewhere(cluster: Cluster) -> Iterator["subprocess.Popen[bytes]"]:
    process: Any = subprocess.Popen(
        [
            *(sys.executable, "-m", "operators", "--operators=helm,localpath,servicelb"),
            *(f"--kubeconfig={cluster.kubeconfig}", "--health-address=0"),
            f"--run-dir={cluster.data}",
        ],
        cwd=ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    for name_, value_, unit_, note_ in run(quick="--quick" in sys.argv):
        sys.stdout.write(f"{name_:44} {value_:12,.2f} {unit_:12} {note_}\n")
