"""
What the appliance image costs, in QEMU: ``python -m tests.bench.bench_appliance [idle seconds]``.

From power on to Ready, memory, an update and one that is left, and what an idle hour writes.
The processors are emulated where no stock guest runs under KVM, a tenth as fast as real ones
and worse: beside the node's start stands that of the same image without the node. Needs a machine
that is otherwise idle, and some two hours; writes its own section of docs/benchmarks.md.
"""

import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.bench import report
from tests.bench.bench_api import Row
from tests.bench.bench_node import say_on_stderr
from tests.vm import qemu
from tests.vm.cluster import Cluster, Served
from tests.vm.machine import Machine
from tests.vm.releases import BROKEN, SECOND, Releases, make
from tests.vm.test_story import CONFIG, DATA, flashed, of_node, phase, plan

HOUR = 3600.0
SETTLING = 120.0
PATIENCE = 3000.0
MASKED = "systemd.mask=pinnace.service"
READY = r"The node \S+ is ready"
SECTOR = 512


def run(idle: float = HOUR) -> Sequence[Row]:
    say_on_stderr("== releases")
    releases = make(say_on_stderr)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for measure in (_without_node, _small, lambda r, f: _whole(r, f, idle)):
            rows += measure(releases, Path(tempfile.mkdtemp(dir=folder)))
    return rows


def _machine(releases: Releases, folder: Path, **options: object) -> Machine:
    files = {"pinnace.yaml": CONFIG.encode()}
    return Machine(folder=folder, image=releases.disk, files=files, **options)  # type: ignore[arg-type]


def _without_node(releases: Releases, folder: Path) -> list[Row]:
    """The yardstick: Debian's kernel and systemd from the same image, with the node masked."""
    say_on_stderr("== start without the node")
    with _machine(releases, folder, arguments=MASKED) as machine:
        seconds = _took(machine.start, lambda: _all_started(machine))
        used = _used(machine)
    return [
        ("power on to all services, no node", seconds, "s", "the yardstick, first start"),
        ("memory used, no node", used, "MiB", ""),
    ]


def _all_started(machine: Machine) -> None:
    machine.wait_shell(PATIENCE)
    machine.run("systemctl is-system-running --wait", seconds=PATIENCE, check=False)


def _small(releases: Releases, folder: Path) -> list[Row]:
    say_on_stderr("== start with 512 MiB")
    with _machine(releases, folder, memory=512) as machine:
        machine.start()
        machine.until(READY, PATIENCE)
        machine.wait_shell(PATIENCE)
        time.sleep(SETTLING)
        return [("memory used, of 512 MiB", _used(machine), "MiB", "idle, everything included")]


def _whole(releases: Releases, folder: Path, idle: float) -> list[Row]:
    say_on_stderr("== first start")
    card = flashed(releases.disk, folder)
    served = releases.disk.parent
    with Served(folder=folder / "machine", image=card, serves=served) as machine:
        first = _took(machine.start, lambda: machine.until(READY, PATIENCE))
        cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
        cluster.connect()
        cluster.ready()
        machine.shutdown()
        say_on_stderr("== second start")
        since = machine.console.length
        second = _took(machine.start, lambda: machine.until(READY, PATIENCE, since=since))
        cluster.connect()
        cluster.apply(DATA)
        cluster.until(lambda: _page(machine))
        time.sleep(SETTLING)
        rows: list[Row] = [
            ("power on to Ready, first start", first, "s", "keys made, the data partition grown"),
            ("power on to Ready", second, "s", ""),
            ("memory used, of 1 GiB", _used(machine), "MiB", "two pods, everything included"),
        ]
        rows += _update(cluster)
        rows += _rollback(cluster)
        rows += _idle(cluster, idle)
    return rows


def _update(cluster: Cluster) -> list[Row]:
    say_on_stderr("== update")
    began = time.monotonic()
    with _gaps(cluster) as gaps:
        cluster.apply(plan("second", SECOND))
        cluster.until(lambda: phase(cluster, "second") == "Complete", PATIENCE)
        seconds = time.monotonic() - began
    cluster.kubectl("delete", "upgradeplan", "second")
    return [
        ("update", seconds, "s", "from the plan to its end, with a soak of 5 s"),
        ("update, without the API", gaps["api"], "s", "one restart of the machine"),
        ("update, without a pod's page", gaps["page"], "s", ""),
    ]


def _rollback(cluster: Cluster) -> list[Row]:
    say_on_stderr("== update to a release whose node never starts")
    deadline = 240
    with _gaps(cluster) as gaps:
        cluster.apply(plan("broken", BROKEN, deadline=deadline))
        cluster.until(lambda: phase(cluster, "broken") in {"Paused", "Failed"}, PATIENCE)
        cluster.ready()
    assert of_node(cluster, "broken")["phase"] == "RolledBack"
    cluster.kubectl("delete", "upgradeplan", "broken")
    note = f"two restarts, and the trial's {deadline} s between them"
    return [("rollback, without the API", gaps["api"], "s", note)]


def _idle(cluster: Cluster, seconds: float) -> list[Row]:
    say_on_stderr(f"== idle for {seconds:.0f} s")
    time.sleep(SETTLING)
    before = _written(cluster.machine)
    time.sleep(seconds)
    after = _written(cluster.machine)
    grown = sum(after[name] - before[name] for name in after) / 1024
    return [("written to the disk at idle", grown, "KiB", f"in {seconds:.0f} s")]


def _written(machine: Machine) -> dict[str, int]:
    """Bytes since the start, by partition."""
    text = machine.run("grep -H . /sys/class/block/vda?/stat")
    lines = [line.partition(":") for line in text.splitlines() if ":" in line]
    return {path: int(stat.split()[6]) * SECTOR for path, _, stat in lines}


def _took(begin: Callable[[], object], ends: Callable[[], object]) -> float:
    began = time.monotonic()
    begin()
    ends()
    return time.monotonic() - began


def _used(machine: Machine) -> float:
    """What cannot be taken for something else: MemTotal less MemAvailable."""
    text = machine.run("cat /proc/meminfo")
    found = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if ":" in line}
    return (found["MemTotal"] - found["MemAvailable"]) / 1024


def _page(machine: Machine) -> str:
    address = f"http://127.0.0.1:{machine.port(8080)}/"
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())


@contextmanager
def _gaps(cluster: Cluster) -> Iterator[dict[str, float]]:
    """The longest time without an answer of each, known at the end."""
    asked = {
        "api": lambda: cluster.kubectl("get", "--raw=/readyz", seconds=5),
        "page": lambda: _page(cluster.machine),
    }
    found, ended = dict.fromkeys(asked, 0.0), threading.Event()

    def watch(name: str) -> None:
        last = time.monotonic()
        while not ended.wait(1.0):
            try:
                asked[name]()
            except Exception:  # whatever it is: no answer
                continue
            now = time.monotonic()
            found[name], last = max(found[name], now - last), now

    threads = [threading.Thread(target=watch, args=(name,)) for name in asked]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def main(arguments: Sequence[str]) -> int:
    if lacking := qemu.missing():
        say_on_stderr(f"not installed: {lacking}")
        return 1
    facts = {**report.machine(), "emulation": f"QEMU, {qemu.accelerator()}"}
    rows = run(float(arguments[0]) if arguments else HOUR)
    report.write_section(report.APPLIANCE, rows, facts)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
