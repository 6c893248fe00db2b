"""
What HelmCharts cost: many that do not change, and one that changes all the time.

A control plane and the operators, without a node, since a chart of one ConfigMap needs none.
Nothing may be written at idle, whatever is deployed; in a storm the number of revisions is
bounded and the last state wins. As root: ``python -m tests.bench.bench_helm [--quick]``
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.bench.bench_api import Row
from tests.charts import packing
from tests.fakes.operators_cluster import Cluster, condition, new_cluster

OPERATORS = "operators.run"
CHARTS = "/apis/helm.cattle.io/v1/namespaces/kube-system/helmcharts"
RECORDS = "/api/v1/namespaces/default/secrets"
MAPS = "/api/v1/namespaces/default/configmaps"
MANY = 20
SETTLING = 8.0  # seconds, until the program that speaks to the API has gone
CHANGES_PER_SECOND = 10
LONGEST = 700.0  # seconds until the last state must be there
TICKS = os.sysconf("SC_CLK_TCK")


def run(*, quick: bool = False) -> Sequence[Row]:
    """Name, value, unit and note of each thing measured."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-helm-") as folder,
        new_cluster(Path(folder)) as cluster,
    ):
        cluster.start(OPERATORS)
        rows = [*_installs(cluster), *_idle(cluster, 20 if quick else 60)]
        return [*rows, *_storm(cluster, 5 if quick else 20)]


def _installs(cluster: Cluster) -> list[Row]:
    pid, began, before = cluster.children[OPERATORS].pid, time.monotonic(), _all(cluster)
    for number in range(MANY):
        cluster.create(CHARTS, _chart(f"many-{number}"))
    for number in range(MANY):
        cluster.until(CHARTS, f"many-{number}", _ready)
    seconds = time.monotonic() - began
    assert pid == cluster.children[OPERATORS].pid
    note = f"{MANY} charts of one object, one after the other"
    return [
        ("installing a chart", seconds / MANY, "s", note),
        ("processor, a chart", (_all(cluster) - before) / MANY, "s", "operators with their Helm"),
    ]


def _idle(cluster: Cluster, seconds: int) -> list[Row]:
    time.sleep(SETTLING)
    pid = cluster.children[OPERATORS].pid
    revision, cpu, woken = _revision(cluster), _cpu(pid), _switches(pid)
    time.sleep(seconds)
    moved = _revision(cluster) - revision
    note = f"{MANY} charts deployed, {seconds} s"
    assert moved == 0, f"the revision moved by {moved} while nothing changed"
    return [
        ("writes at idle", moved, "", f"revisions of the store; {note}"),
        ("operators at idle", (_cpu(pid) - cpu) / seconds * 100, "% of a core", note),
        ("context switches at idle", (_switches(pid) - woken) / seconds, "1/s", note),
    ]


def _storm(cluster: Cluster, seconds: int) -> list[Row]:
    """One HelmChart is changed so many times a second; each change is another wanted state."""
    cluster.create(CHARTS, _chart("storm"))
    cluster.until(CHARTS, "storm", _ready)
    before, cpu, began = _revisions(cluster), _all(cluster), time.monotonic()
    changes = seconds * CHANGES_PER_SECOND
    for number in range(1, changes + 1):
        cluster.merge(f"{CHARTS}/storm", {"spec": {"values": {"number": number}}})
        time.sleep(max(0.0, began + number / CHANGES_PER_SECOND - time.monotonic()))
    ended = time.monotonic()
    while _number(cluster) != changes:
        assert time.monotonic() - ended < LONGEST, cluster.get(f"{CHARTS}/storm")["status"]
        time.sleep(0.2)
    note = f"{changes} changes in {seconds} s"
    return [
        ("revisions in a storm", _revisions(cluster) - before, "", note),
        ("processor in a storm", _all(cluster) - cpu, "s", f"operators with their Helm; {note}"),
        ("until the last state is there", time.monotonic() - ended, "s", "after the last change"),
    ]


def _chart(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "helm.cattle.io/v1",
        "kind": "HelmChart",
        "metadata": {"name": name},
        "spec": {"targetNamespace": "default", "chartContent": packing.content("told")},
    }


def _ready(chart: Any) -> bool:
    return condition(chart, "Ready").get("status") == "True"


def _revision(cluster: Cluster) -> int:
    """Of the store; a list tells it, and writes nothing."""
    return int(cluster.get(f"{MAPS}?limit=1")["metadata"]["resourceVersion"])


def _revisions(cluster: Cluster) -> int:
    found = cluster.get(f"{RECORDS}?labelSelector=owner%3Dhelm,name%3Dstorm")["items"]
    return max(int(item["metadata"]["labels"]["version"]) for item in found)


def _number(cluster: Cluster) -> int:
    return int(json.loads(cluster.get(f"{MAPS}/storm")["data"]["values"]).get("number", 0))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _all(cluster: Cluster) -> float:
    """Seconds of the operators and of every process that they started and that has ended."""
    pid = cluster.children[OPERATORS].pid
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / TICKS


def _switches(pid: int) -> int:
    found = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        for line in (task / "status").read_text().splitlines():
            if "ctxt_switches" in line:
                found += int(line.split()[1])
    return found


if __name__ == "__main__":
    for name, value, unit, note in run(quick="--quick" in sys.argv):
        sys.stdout.write(f"{name:40} {value:12,.2f} {unit:12} {note}\n")
