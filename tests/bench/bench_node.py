"""
What a whole node costs, and how fast it is: the real daemon and the real containerd.

The node runs in namespaces of its own; the machine is the reader's, so what else
runs on it disturbs the numbers. As root: ``python -m tests.bench.bench_node [--quick]``
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import processes
from tests.bench.bench_api import Row
from tests.e2e.node import Namespace, Node
from tests.e2e.node import run as run_program

ROOT = Path(__file__).parent.parent.parent
SETTLING = 15.0  # seconds after the start until nothing happens any more
NAMES = {
    "pinnace": "the daemon",
    "pinnace-api": "the control plane",
    "pinnace-agent": "the agent",
    "pinnace-operato": "the operators",
    "containerd": "containerd",
}

Say = Callable[[str], None]


def run(say: Say, *, quick: bool = False) -> list[Row]:
    """Name, value, unit and note of each thing measured."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        Namespace(f"bench-{os.getpid()}") as namespace,
    ):
        node = Node(Path(folder) / "n", namespace)
        images = str(node.data / "agent" / "images")
        run_program(sys.executable, str(ROOT / "image-build" / "images.py"), images)
        try:
            return _measure(node, say, quick=quick)
        finally:
            node.clean_up()


def _measure(node: Node, say: Say, *, quick: bool) -> list[Row]:
    rows = _starts(node, say, 1 if quick else 3)
    say(f"idle for {20 if quick else 120} s")
    rows += _idle(node, 20 if quick else 120)
    assert node.process is not None
    daemon = node.process.pid
    for what, title in (("pods", "pods of a running node"), ("api", "API over TLS")):
        say(title)
        rows += _load(node, what, 1.0 if quick else 3.0)
    note = f"{len(node.get('pods', '-A')['items']):,} pods, of which 26 run"
    rows.append(("memory under load, PSS", processes.memory(daemon), "MiB", note))
    return rows


def _starts(node: Node, say: Say, warm: int) -> list[Row]:
    """The first start makes keys and objects; the others find them."""
    say("cold start")
    cold = node.start()
    seconds = []
    for number in range(warm):
        time.sleep(SETTLING / 3)
        node.stop()
        say(f"warm start {number + 1} of {warm}")
        seconds.append(node.start())
    return [
        ("start to Ready, cold", cold, "s", "new data folder"),
        ("start to Ready, warm", statistics.median(seconds), "s", f"median of {warm}"),
    ]


def _idle(node: Node, seconds: int) -> list[Row]:
    assert node.process is not None
    daemon = node.process.pid
    time.sleep(SETTLING)
    before = processes.of_node(daemon)
    time.sleep(seconds)
    after = processes.of_node(daemon)
    rows: list[Row] = []
    for number, cost in sorted(after.items(), key=lambda item: list(NAMES).index(item[1].name)):
        rows.append((f"memory of {NAMES[cost.name]}, PSS", cost.pss, "MiB", _private(cost)))
        assert number in before, f"{cost.name} was started anew"
    rows.append(("memory of the node, PSS", sum(c.pss for c in after.values()), "MiB", "idle"))
    for name, unit, factor in (
        ("cpu", "% of a core", 100 / seconds),
        ("switches", "1/s", 1 / seconds),
    ):
        used = sum(getattr(after[n], name) - getattr(before[n], name) for n in after)
        title = {"cpu": "processor at idle", "switches": "context switches at idle"}[name]
        rows.append((title, used * factor, unit, f"all processes, over {seconds} s"))
    written = sum(after[n].written - before[n].written for n in after)
    rows.append(("written at idle", written * 120 / seconds, "KiB", "in 120 s"))
    return rows


def _private(cost: processes.Cost) -> str:
    return f"{cost.private:.1f} MiB of its own"


def _load(node: Node, what: str, seconds: float) -> list[Row]:
    argv = [*node.namespace.enter_mounts, sys.executable, "-m", "tests.bench.load"]
    done = subprocess.run(
        [*argv, str(node.kubeconfig), what, str(seconds)],
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
        cwd=ROOT,
    )
    if done.returncode:
        raise RuntimeError(f"load {what}: {done.stderr[-3000:]}")
    rows: list[Row] = [(n, v, u, t) for n, v, u, t in json.loads(done.stdout)]
    return rows


def say_on_stderr(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    for name, value, unit, note in run(say_on_stderr, quick="--quick" in sys.argv):
        sys.stdout.write(f"{name:40} {value:12,.2f} {unit:9} {note}\n")
