"""Slices asked of a real systemd, which runs for the test in a mount namespace of its own."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from node.host import systemd
from node.host.systemd import Slice
from node.kubelet import cgroups
from tests.unit.kubelet.pods import SETTINGS, container, pod

SYSTEMD = Path("/lib/systemd/systemd")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(
        not SYSTEMD.exists() or shutil.which("systemctl") is None, reason="systemd is not installed"
    ),
]
# A manager of its own sees no other units than these, and believes that systemd booted.
START = f"""
mount -t tmpfs slices /run
mkdir -p /run/systemd/system
exec {SYSTEMD} --user --unit=idle.target
"""


@dataclass
class Manager:
    environment: dict[str, str]

    def show(self, name: str, *properties: str) -> dict[str, str]:
        argv = ["systemctl", "--user", "show", name, f"--property={','.join(properties)}"]
        done = subprocess.run(
            argv, env=self.environment, capture_output=True, text=True, check=True
        )
        return dict(line.split("=", 1) for line in done.stdout.splitlines())


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    units = tmp_path / "units"
    units.mkdir()
    (units / "idle.target").write_text("[Unit]\nDescription=Nothing\n")
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(tmp_path),
        "SYSTEMD_UNIT_PATH": str(units),
        "SYSTEMD_LOG_TARGET": "console",
    }
    socket = tmp_path / "systemd" / "private"
    monkeypatch.setattr(systemd, "SOCKET", socket)
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation=private", "sh", "-ec", START],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        limit = time.monotonic() + 20
        while not socket.exists():
            assert process.poll() is None, "systemd does not run here"
            assert time.monotonic() < limit
            time.sleep(0.02)
        yield Manager(environment)
    finally:
        process.kill()
        process.wait(timeout=10)


LIMITS = {"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "100m"}}


def test_a_pods_slice_is_made_changed_and_removed(manager: Manager) -> None:
    settings = replace(SETTINGS, cgroup_driver="systemd", cgroup_v2=True)
    status = {"qosClass": "Burstable"}
    limited = pod(container(resources=LIMITS), meta={"uid": "a-b"}, status=status)
    name = "kubepods-burstable-poda_b.slice"
    cgroups.ensure_pod(limited, settings)
    asked = ("ActiveState", "Slice", "CPUWeight", "MemoryMax", "CPUQuotaPerSecUSec")
    assert manager.show(name, *asked) == {
        "ActiveState": "active",
        "Slice": "kubepods-burstable.slice",
        "CPUWeight": "4",
        "MemoryMax": str(64 << 20),
        "CPUQuotaPerSecUSec": "500ms",
    }
    cgroups.ensure_pod(pod(meta={"uid": "a-b"}, status=status), settings)
    assert manager.show(name, "ActiveState", "MemoryMax", "CPUQuotaPerSecUSec") == {
        "ActiveState": "active",
        "MemoryMax": "infinity",
        "CPUQuotaPerSecUSec": "infinity",
    }
    cgroups.weigh_classes([limited], settings)
    assert manager.show("kubepods-burstable.slice", "CPUWeight") == {"CPUWeight": "4"}
    cgroups.remove_pod(limited, settings)
    limit = time.monotonic() + 10
    while manager.show(name, "ActiveState") != {"ActiveState": "inactive"}:
        assert time.monotonic() < limit
        time.sleep(0.02)
    cgroups.remove_pod(limited, settings)


def test_what_systemd_refuses_is_told_in_its_words(manager: Manager) -> None:
    with pytest.raises(OSError, match="the cgroup driver of the runtime: Invalid unit name"):
        systemd.ensure(Slice(name="no such name", numbers={}))


def test_without_systemd_no_pod_starts_unlimited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(systemd, "SOCKET", tmp_path / "nobody")
    settings = replace(SETTINGS, cgroup_driver="systemd")
    with pytest.raises(OSError, match="No such file or directory"):
        cgroups.ensure_pod(pod(), settings)
    cgroups.remove_pod(pod(), settings)  # a warning, so that the pod can end
