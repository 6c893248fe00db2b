"""
What the processes of one node cost, as the kernel counts it.

Counted are the daemon, its children and containerd; the shims belong to the
pods, and pods are not ours. PSS divides a shared page among those that map it,
so on a machine that runs other nodes or containerds the numbers are too small.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """Of one process: since its start, but for the memory, which is of now."""

    name: str
    pss: float  # MiB
    private: float  # MiB that only this process maps and that it wrote to
    cpu: float  # seconds
    switches: int  # context switches of all its threads: how often it ran
    written: float  # KiB sent to the disk


def of_node(daemon: int) -> dict[int, Cost]:
    """By process number: the daemon and what it started itself."""
    found = {}
    for folder in PROC.iterdir():
        if folder.name.isdecimal():
            with contextlib.suppress(OSError):
                if daemon in (int(folder.name), _parent(folder)):
                    found[int(folder.name)] = _cost(folder)
    return found


def memory(daemon: int) -> float:
    """MiB PSS in all."""
    return sum(cost.pss for cost in of_node(daemon).values())


def _parent(folder: Path) -> int:
    return int(_fields(folder)[1])


def _fields(folder: Path) -> list[str]:
    """Of stat, after the name, which may hold anything: state is the first."""
    return (folder / "stat").read_text().rpartition(")")[2].split()


def _cost(folder: Path) -> Cost:
    sizes = _table(folder / "smaps_rollup")
    fields = _fields(folder)
    switches = 0
    for task in (folder / "task").iterdir():
        status = _table(task / "status")
        switches += status["voluntary_ctxt_switches"] + status["nonvoluntary_ctxt_switches"]
    return Cost(
        name=(folder / "comm").read_text().strip(),
        pss=sizes["Pss"] / 1024,
        private=sizes["Private_Dirty"] / 1024,
        cpu=(int(fields[11]) + int(fields[12])) / TICKS,
        switches=switches,
        written=_table(folder / "io")["write_bytes"] / 1024,
    )


def _table(path: Path) -> dict[str, int]:
    """Lines of "name: number"."""
    table = {}
    for line in path.read_text().splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdecimal():
            table[name] = int(words[0])
    return table
