"""Another version is tried and kept, or left with what it wrote set aside: the whole node."""

import functools
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.node import run
from tests.e2e.slots import V1, V2, V3, SlottedNode, slotted

PHASES = ["Downloading", "Installing", "Installed", "Switching", "Trial", "Committed"]
CUTS = 5
PATIENCE = 600  # each of these boots a node several times


@pytest.fixture
def node(tmp_path: Path) -> Iterator[SlottedNode]:
    with slotted(tmp_path / "n", name="pinnace-up") as made:
        yield made


def created(node: SlottedNode, name: str) -> bool:
    return node.kubectl("create", "configmap", name, check=False).returncode == 0


def exists(node: SlottedNode, name: str) -> bool:
    return node.kubectl("get", "configmap", name, check=False).returncode == 0


def command(node: SlottedNode, *words: str, check: bool = True) -> str:
    """What ``pinnace update …`` prints, on whichever stream."""
    done = run(*node.command, "update", *words, *node.arguments, check=check)
    return done.stdout + done.stderr


def break_version(node: SlottedNode, version: str, how: str) -> None:
    (node.machine.folder / f"broken-{version}").write_text(how)


@pytest.mark.timeout(PATIENCE)
def test_a_new_version_is_installed_tried_and_committed_with_all_data(node: SlottedNode) -> None:
    node.until(lambda: created(node, "before"))
    node.request(version=V2, url=str(node.machine.bundle(V2)))
    report = node.reaches("Committed")
    assert (report["running"], report["slot"]) == (V2, "b")
    assert list(report["times"]) == PHASES
    assert exists(node, "before")
    labels = node.object()["metadata"]["labels"]
    assert labels["pinnace.dev/version"] == V2.replace("+", "-")
    assert labels["pinnace.dev/board"] == "fake"
    assert f"running: {V2} in slot b" in command(node, "status")
    # And on to the next one, by a person, who may also think again.
    said = command(node, "install", str(node.machine.bundle(V3)))
    assert f"{V3}: Installed" in said
    assert node.machine.version() == V2
    command(node, "install", str(node.machine.folder / "2.bundle"), "--now", "--soak=1")
    node.until(lambda: f"{V3} in slot a" in command(node, "status", check=False))
    node.until(lambda: f"{V3}: Committed" in command(node, "status", check=False), timeout=90)
    command(node, "back")
    node.until(lambda: node.machine.version() == V2)
    node.until(lambda: "RolledBack" in command(node, "status", check=False), timeout=90)
    assert exists(node, "before")


@pytest.mark.timeout(PATIENCE)
def test_a_version_that_is_not_healthy_is_left_and_what_it_wrote_is_kept(
    node: SlottedNode,
) -> None:
    node.until(lambda: created(node, "before"))
    break_version(node, V2, "no-operators")
    node.request(version=V2, url=str(node.machine.bundle(V2)), deadlineSeconds=25)
    node.reaches("Trial")
    assert created(node, "in-the-trial")
    report = node.reaches("RolledBack")
    assert "the operators do not run" in report["message"]
    assert "created ConfigMap default/in-the-trial" in report["message"]
    assert (report["running"], report["failed"]) == (V1, [V2])
    assert report["kept"]["count"] > 0
    assert exists(node, "before")
    assert not exists(node, "in-the-trial")
    assert "created ConfigMap default/in-the-trial" in command(node, "kept", V2)
    kept = json.loads(command(node, "kept", V2, "--objects"))
    node.apply(
        json.dumps({**kept, "items": [i for i in kept["items"] if i["kind"] == "ConfigMap"]})
    )
    assert exists(node, "in-the-trial")
    events = node.get("events", "-A")["items"]
    assert any(e["reason"] == "UpdateRolledBack" for e in events)
    node.request(version=V2, url=str(node.machine.bundle(V2)), uid="u-2")
    assert node.reaches("Refused")["reason"] == "FailedBefore"
    assert V2 in command(node, "failed")
    command(node, "failed", f"--forget={V2}")
    break_version(node, V2, "")
    node.request(version=V2, url=str(node.machine.bundle(V2)), uid="u-3")
    assert node.reaches("Committed")["running"] == V2


@pytest.mark.timeout(PATIENCE)
def test_a_version_that_does_not_start_is_left_at_once(node: SlottedNode) -> None:
    node.until(lambda: created(node, "before"))
    break_version(node, V2, "dies")
    node.request(version=V2, url=str(node.machine.bundle(V2)))
    report = node.reaches("RolledBack")
    assert "did not come up" in report["message"]
    assert report["running"] == V1
    assert exists(node, "before")


@pytest.mark.timeout(PATIENCE)
def test_whenever_the_power_goes_nothing_is_lost(node: SlottedNode) -> None:
    chance = random.Random(20261124)
    acknowledged: list[str] = []
    for number in range(CUTS):
        node.until(functools.partial(created, node, f"before-{number}"))
        acknowledged.append(f"before-{number}")
        version, uid = f"v1.36.{number + 4}+pinnace1", f"u-{number}"
        node.request(version=version, url=str(node.machine.bundle(version)), uid=uid)
        time.sleep(chance.uniform(0.2, 9.0))  # the instant is what this is about
        node.cut_power()
        node.until(functools.partial(has_ended, node, uid), timeout=90, seen=node.report)
        missing = [name for name in acknowledged if not exists(node, name)]
        assert not missing, (missing, node.report())


def has_ended(node: SlottedNode, uid: str) -> bool:
    report = node.report()
    phases = ("Committed", "RolledBack", "Failed")
    return report.get("uid") == uid and report.get("phase") in phases and node.is_ready()
