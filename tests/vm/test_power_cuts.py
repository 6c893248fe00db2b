"""
The power is cut at 25 instants of updates, of some that succeed and some that are left.

A machine that became Ready and has data is saved once, memory and disk. From there updates are
begun and QEMU is killed at random instants of them: while it fetches, installs, switches, starts
the trial, holds the gate, commits or goes back; also while it starts again after the cut before.
It always comes back to a Ready node, with every write that was acknowledged before the trial,
in one of the two releases, and with a plan that comes to an end and says which.
"""

import json
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.vm.cluster import Cluster, Served
from tests.vm.console import MachineError
from tests.vm.releases import FIRST, SECOND, Releases
from tests.vm.test_story import CONFIG, DATA, plan

ENDS = {"Complete", "Paused", "Failed"}
# Of a trial that comes up, writes, and is left: what it is asked never holds.
LEFT = "object.data.written == 'never'"
AN_UPDATE = 3.5  # times what the first start takes: fetched, installed, started, held, committed
PATIENCE = 2400.0  # seconds
PACE = 4.0  # seconds between writes: an emulated processor has enough to do with the update


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """From where every update begins."""

    releases: Releases
    saved: Path
    seconds: float  # from power on to Ready


def machine_of(releases: Releases, folder: Path) -> Served:
    return Served(
        folder=folder,
        image=releases.disk,
        serves=releases.disk.parent,
        processors=1,
        files={"pinnace.yaml": CONFIG.encode()},
    )


def asked(ending: str) -> str:
    """A release that failed, as a trial does that loses its power, is tried again."""
    page = "  - name: page\n    tcp: {host: $(NODE_IP), port: 8080}\n"
    text = plan("cut", SECOND, deadline=300).replace(page, "")
    text = text.replace("  soakSeconds", "  retryFailed: true\n  soakSeconds")
    return text if ending == "kept" else text.replace("object.data.written == 'before'", LEFT)


@pytest.fixture(scope="module")
def start(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("saved")
    with machine_of(releases, folder / "machine") as machine:
        began = time.monotonic()
        machine.start()
        cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
        cluster.connect()
        cluster.ready()
        seconds = time.monotonic() - began
        cluster.apply(DATA)
        cluster.until(lambda: cluster.get("pod", "writer")["status"]["phase"] == "Running")
        machine.save(folder / "state")
    return Start(releases=releases, saved=folder / "state", seconds=seconds)


@dataclass(kw_only=True)
class Voyage:
    """
    One machine from the saved state on: an update, and cuts until it has ended.

    ``acknowledged``: writes that the first release answered, before a trial or after one that
    was left; what a trial writes is put aside when it is left, and not looked for here.
    """

    cluster: Cluster
    ending: str
    acknowledged: list[str] = field(default_factory=list)
    phase: str = ""  # of the node, when last seen
    ended: bool = False  # the plan came to the end that it was asked for

    def begin(self) -> None:
        self.phase, self.ended = "Asked", False
        self.cluster.apply(asked(self.ending))

    def sail(self, seconds: float) -> None:
        """Write and look, as often as the machine answers, for so long."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                self._write()
                self._look()
            except (MachineError, KeyError, OSError, ValueError):
                pass  # it is off, or starting
            threading.Event().wait(min(PACE, max(0.0, until - time.monotonic())))

    def _write(self) -> None:
        name = f"written-{len(self.acknowledged)}-{time.monotonic_ns()}"
        before = self._server()
        self.cluster.kubectl("create", "configmap", name, seconds=20)
        if before == self._server() == FIRST:
            self.acknowledged.append(name)

    def _server(self) -> str:
        """The release that answers, by its own word."""
        found = json.loads(self.cluster.kubectl("version", "-o", "json", seconds=20))
        return str(found["serverVersion"]["gitVersion"])

    def _look(self) -> None:
        status = self.cluster.get("upgradeplan", "cut").get("status", {})
        self.phase = str(status["nodes"][0]["phase"])
        if status.get("phase") not in ENDS:
            return
        # A cut of a trial is an end as well, if not the one that was asked for: go on from it.
        self.ended = True
        if self.ending == "kept" and self.phase != "Updated":
            self.cluster.kubectl("delete", "upgradeplan", "cut")
            self.begin()

    def cut(self) -> None:
        self.cluster.machine.power_cut()
        self.cluster.machine.start()

    def arrive(self) -> None:
        """To the end of the plan, and everything is there."""
        cluster = self.cluster
        cluster.connect()
        cluster.ready()
        cluster.until(self._has_ended, PATIENCE)
        cluster.ready()
        self._nothing_is_lost()
        version = self._server()
        expected = {SECOND: {"Updated"}, FIRST: {"RolledBack", "Failed"}}[version]
        assert self.phase in expected, (version, self.phase)
        assert self.ending == "kept" or version == FIRST
        text = cluster.until(lambda: cluster.kubectl("exec", "writer", "--", "cat", "/data/file"))
        assert text == "from the first release\n"

    def _has_ended(self) -> bool:
        self._look()
        return self.ended

    def _nothing_is_lost(self) -> None:
        names = {item["metadata"]["name"] for item in self.cluster.get("configmaps")["items"]}
        assert {"kept", *self.acknowledged} - names == set()


@contextmanager
def voyage(start: Start, folder: Path, ending: str) -> Iterator[Voyage]:
    with machine_of(start.releases, folder / "machine") as machine:
        machine.resume(start.saved)
        cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
        cluster.connect()
        yield Voyage(cluster=cluster, ending=ending)


@pytest.mark.parametrize(("seed", "cuts"), [(20, 13), (21, 12)])
def test_a_power_cut_at_any_instant_loses_nothing(
    start: Start, tmp_path: Path, seed: int, cuts: int
) -> None:
    chance = random.Random(seed)
    # Each part of an update has its share of the cuts, in any order.
    parts = [(number + chance.random()) / cuts for number in range(cuts)]
    chance.shuffle(parts)
    made = 0
    for number in range(cuts):
        if made == cuts:
            break
        with voyage(start, tmp_path / str(number), "left" if number % 3 == 2 else "kept") as one:
            one.begin()
            while made < cuts and not one.ended:
                one.sail(parts[made] * start.seconds * AN_UPDATE)
                made += 1
                say(f"cut {made} of {cuts}: of one to be {one.ending}, last seen {one.phase}")
                one.cut()
            one.arrive()
            say(f"arrived: {one.phase}, {len(one.acknowledged)} writes are there")


def say(line: str) -> None:
    """It takes long: for those who watch, with ``pytest -s``."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stdout.flush()
