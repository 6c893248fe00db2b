"""
The power is cut at 25 instants of an update that succeeds and of one that is left.

A machine that became Ready and has data is saved once, memory and disk. From there an update is
run to its end, to know how long it takes; then, from there again, QEMU is killed after a part of
that time, and the machine started. It always comes back to a Ready node, with every write that
was acknowledged before the trial, in one of the two releases, and with a plan that comes to an end.
"""

import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.vm.cluster import Cluster, Served
from tests.vm.console import MachineError
from tests.vm.releases import FIRST, SECOND, Releases
from tests.vm.test_story import CONFIG, DATA, plan

CUTS = 25
ENDS = {"Complete", "Paused", "Failed"}
# Of a trial that comes up, writes, and is left: what it is asked never holds.
LEFT = "object.data.written == 'never'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """From where every update begins."""

    releases: Releases
    saved: Path
    seconds: dict[str, float]  # that an update takes, by how it ends


def machine_of(releases: Releases, folder: Path) -> Served:
    return Served(
        folder=folder,
        image=releases.disk,
        serves=releases.disk.parent,
        files={"pinnace.yaml": CONFIG.encode()},
    )


def asked(ending: str) -> str:
    text = plan("cut", SECOND, deadline=300).replace(
        "  - name: page\n    tcp: {host: $(NODE_IP), port: 8080}\n", ""
    )
    return text if ending == "kept" else text.replace("object.data.written == 'before'", LEFT)


def ended(cluster: Cluster) -> str:
    found = str(cluster.get("upgradeplan", "cut").get("status", {}).get("phase"))
    return found if found in ENDS else ""


@pytest.fixture(scope="module")
def start(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Start:
    folder = tmp_path_factory.mktemp("saved")
    with machine_of(releases, folder / "machine") as machine:
        machine.start()
        cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
        cluster.connect()
        cluster.ready()
        cluster.apply(DATA)
        cluster.until(lambda: cluster.get("pod", "writer")["status"]["phase"] == "Running")
        machine.save(folder / "state")
    seconds = {}
    for ending, version in (("kept", SECOND), ("left", FIRST)):
        with resumed(releases, folder / "state", folder / ending) as cluster:
            began = time.monotonic()
            cluster.apply(asked(ending))
            cluster.until(lambda: ended(cluster), 2400)
            seconds[ending] = time.monotonic() - began
            assert cluster.version() == version
    return Start(releases=releases, saved=folder / "state", seconds=seconds)


class resumed:
    def __init__(self, releases: Releases, saved: Path, folder: Path) -> None:
        self._machine = machine_of(releases, folder / "machine")
        self._saved, self._folder = saved, folder

    def __enter__(self) -> Cluster:
        self._machine.resume(self._saved)
        cluster = Cluster(machine=self._machine, kubeconfig=self._folder / "kubeconfig")
        cluster.connect()
        return cluster

    def __exit__(self, *details: object) -> None:
        self._machine.__exit__(None, None, None)


class Writer(threading.Thread):
    """Writes one object after the other until nobody answers; knows which were acknowledged."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[str] = []
        self._cluster = cluster
        self._stop_now = threading.Event()

    def run(self) -> None:
        number = 0
        while not self._stop_now.is_set():
            name = f"written-{number}"
            try:
                self._cluster.kubectl("create", "configmap", name)
            except MachineError:
                return  # the node stops for the switch, or the power is gone
            self.acknowledged.append(name)
            number += 1

    def end(self) -> None:
        self._stop_now.set()
        self.join()


def instants() -> Iterator[tuple[str, float]]:
    """Parts of an update's time, spread over the whole and not all at the same places."""
    chance = random.Random(20)
    for number in range(CUTS):
        ending = "kept" if number % 3 else "left"
        yield ending, round((number + chance.random()) / CUTS, 3)


@pytest.mark.parametrize(("ending", "part"), list(instants()))
def test_a_power_cut_at_any_instant_loses_nothing(
    start: Start, tmp_path: Path, ending: str, part: float
) -> None:
    with resumed(start.releases, start.saved, tmp_path) as cluster:
        cluster.apply(asked(ending))
        writer = Writer(cluster)
        writer.start()
        threading.Event().wait(start.seconds[ending] * part)
        cluster.machine.power_cut()
        writer.end()
        cluster.machine.start()
        cluster.connect()
        cluster.ready()
        names = {item["metadata"]["name"] for item in cluster.get("configmaps")["items"]}
        assert set(writer.acknowledged) - names == set()
        cluster.until(lambda: ended(cluster), 2400)
        cluster.ready()
        assert cluster.version() in {FIRST, SECOND}
        text = cluster.until(lambda: cluster.kubectl("exec", "writer", "--", "cat", "/data/file"))
        assert text == "from the first release\n"
        [node] = cluster.get("upgradeplan", "cut")["status"]["nodes"]
        expected = {"Updated"} if cluster.version() == SECOND else {"RolledBack", "Failed"}
        assert node["phase"] in expected
