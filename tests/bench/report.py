"""
Measure everything and write docs/benchmarks.md: ``python -m tests.bench.report [--quick]``.

Each area runs in a process of its own, so that none measures what another left
behind. Needs root, a machine that is otherwise idle, and some twenty minutes
(``--quick``: under three, and it writes to standard output instead).
"""

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import bench_node
from tests.bench.bench_api import Row

ROOT = Path(__file__).parent.parent.parent
REPORT = ROOT / "docs" / "benchmarks.md"
LIMIT = 300.0  # seconds, of an area
NODE_LIMIT = 420.0
# The parts, after the whole node.
AREAS = {"store": "Store", "api": "API server", "scheduler": "Scheduler"} | {
    "proxy": "Service proxy",
    "dns": "Cluster DNS",
    "helm": "Helm",
    "operators": "Operators",
    "netpol": "Network policies",
    "idle": "At rest, with twenty charts, services and volumes",
}
# Measured by itself (:mod:`tests.bench.bench_appliance`), since it takes hours; kept as it is here.
APPLIANCE = "The appliance image, in a virtual machine"
PLACED = {
    "scheduler.1_node": "placing, 1 node",
    "scheduler.100_nodes": "placing, 100 nodes",
    "scheduler.api_1_node": "placing and binding, 1 node",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Aim:
    """A number not to be passed, and what holds us back where it is."""

    most: float
    holds_back: str


AIMS: Mapping[str, Aim] = {
    "memory of the node, PSS": Aim(
        most=120,
        holds_back=(
            "on Python 3.11 a child copies what it shares whenever it counts a reference in it, "
            "some 20 MiB in all, most of which Python 3.13 avoids; and the control plane, which "
            "loads all controllers, is the largest part and was smaller before the last of them"
        ),
    ),
    "processor at idle": Aim(most=1, holds_back="the processes named above"),
    "written at idle": Aim(most=30, holds_back="what was written is in the data folder"),
    "start to Ready, warm": Aim(most=3, holds_back="loading the modules is half of it"),
}


def main() -> int:
    quick = "--quick" in sys.argv
    if "--area" in sys.argv:
        rows = _measure_here(sys.argv[sys.argv.index("--area") + 1], quick=quick)
        sys.stdout.write(json.dumps(rows) + "\n")
        return 0
    if os.geteuid() != 0:
        sys.stderr.write("the whole node needs root\n")
        return 1
    began, facts = time.monotonic(), machine()
    found = {"node": _measure("node", quick=quick)}
    for area in AREAS if not quick else ():
        found[area] = _measure(area, quick=quick)
    text = _document(found, facts) + kept(APPLIANCE)
    if quick:
        sys.stdout.write(text)
    else:
        REPORT.write_text(text)
    bench_node.say_on_stderr(f"done after {time.monotonic() - began:.0f} s")
    return 0 if all(found.values()) else 1


def _measure_here(area: str, *, quick: bool) -> Sequence[Row]:
    if area == "node":
        return bench_node.run(bench_node.say_on_stderr, quick=quick)
    found: Any = importlib.import_module(f"tests.bench.bench_{area}").run()
    if area == "scheduler":
        return [(PLACED[name], value, "pods/s", "") for name, value in found.items()]
    rows: Sequence[Row] = found
    return rows


def _measure(area: str, *, quick: bool) -> Sequence[Row]:
    """Of an area, in another process; empty where it failed, which is said and goes on."""
    bench_node.say_on_stderr(f"== {area}")
    argv = [sys.executable, "-m", "tests.bench.report", "--area", area]
    try:
        done = subprocess.run(
            [*argv, "--quick"] if quick else argv,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            cwd=ROOT,
            # Where charts are packed: pytest has this folder on its path.
            env=os.environ | {"PYTHONPATH": str(ROOT / "image-build")},
            timeout=NODE_LIMIT if area == "node" else LIMIT,
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as err:
        bench_node.say_on_stderr(f"{area} failed: {err}")
        return ()
    return [(name, value, unit, note) for name, value, unit, note in json.loads(done.stdout)]


# What is written


def machine() -> Mapping[str, str]:
    """What the numbers depend on; call it first, since it tells what else is running."""
    model = _first("/proc/cpuinfo", "model name") or platform.machine()
    return {
        "processor": f"{model}, {os.cpu_count()} cores",
        "memory": f"{int(_first('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": f"Linux {'.'.join(platform.release().split('.')[:2])}, {platform.machine()}",
        "Python": platform.python_version(),
        "containerd": _containerd(),
        "load at the start": f"{os.getloadavg()[0]:.1f} processes wanted to run",
    }


def _first(path: str, name: str) -> str:
    lines = (line.partition(":") for line in Path(path).read_text().splitlines())
    return next((text.strip() for title, _, text in lines if title.strip() == name), "")


def _containerd() -> str:
    try:
        done = subprocess.run(["containerd", "--version"], capture_output=True, text=True)
    except OSError:
        return "none"
    return done.stdout.split()[2]


def _document(found: Mapping[str, Sequence[Row]], facts: Mapping[str, str]) -> str:
    node = {name: (value, unit) for name, value, unit, _ in found["node"]}
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Memory is PSS: a page that several processes share counts once",
        "in all. Beside what depends on the machine runs something bare on the same machine.",
        "",
        *_table(("this machine", ""), facts.items()),
        "",
        "## Aims",
        "",
        *_table(("what", "at most", "measured", ""), _compared(node)),
        "",
    ]
    for area, title in {"node": "The whole node", **AREAS}.items():
        if found.get(area):
            lines += [
                f"## {title}",
                "",
                *_table(("what", "", "", ""), map(_cells, found[area])),
                "",
            ]
    return "\n".join(lines)


def kept(title: str) -> str:
    """A section as the report has it: with its heading, up to the next; "" where there is none."""
    text = REPORT.read_text() if REPORT.exists() else ""
    _, heading, rest = text.partition(f"\n## {title}\n")
    body, next_heading, _ = rest.partition("\n## ")
    return f"{heading}{body}{next_heading[:1]}"


def write_section(title: str, rows: Sequence[Row], facts: Mapping[str, str]) -> None:
    """In place of the one of this title, or at the end."""
    lines = ["", f"## {title}", "", *_table(("measured on", ""), facts.items()), ""]
    lines += [*_table(("what", "", "", ""), map(_cells, rows)), ""]
    text, before = REPORT.read_text(), kept(title)
    section = "\n".join(lines)
    REPORT.write_text(text.replace(before, section) if before else text + section)


def _compared(node: Mapping[str, tuple[float, str]]) -> Iterable[Sequence[str]]:
    for name, aim in AIMS.items():
        if name not in node:
            yield (name, f"{aim.most:g}", "not measured", "")
            continue
        value, unit = node[name]
        over = f"{value - aim.most:.1f} {unit} over: {aim.holds_back}"
        verdict = "reached" if value <= aim.most else over
        yield (name, f"{aim.most:g} {unit}", f"{_number(value)} {unit}", verdict)


def _cells(row: Row) -> Sequence[str]:
    name, value, unit, note = row
    return (name, _number(value), unit, note)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [titles, ["---"] * len(titles), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


if __name__ == "__main__":
    raise SystemExit(main())
