"""
The cgroups of pods and of their QoS classes: the files that runc does not write.

With the cgroupfs driver the folders are ours to make; with systemd the slices are, by asking
it. Both cgroup versions. Blocking: callers use a thread.
"""

import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from controlplane.client.base import Object
from node.cri.base import Resources
from node.host import systemd
from node.kubelet import resources
from node.kubelet.base import Settings

_log = logging.getLogger(__name__)
ROOT = Path("/sys/fs/cgroup")
_QUOTA_STEP = 10_000  # µs; systemd rounds down to whole percents, so the rest goes up
_V1 = ("cpu", "cpuacct", "cpuset", "memory", "pids", "devices", "freezer", "blkio", "hugetlb")


def is_v2(root: Path = ROOT) -> bool:
    return (root / "cgroup.controllers").exists()


def _weight(shares: int) -> int:
    """cgroup v2's cpu.weight for v1's cpu.shares: [2, 262144] → [1, 10000] (KEP-2254)."""
    return 1 + (shares - 2) * 9999 // 262142


def _folders(parent: str, settings: Settings) -> list[Path]:
    name = parent.lstrip("/")
    if settings.cgroup_v2:
        return [ROOT / name]
    return [ROOT / controller / name for controller in _V1 if (ROOT / controller).is_dir()]


def folder(controller: str, path: str, *, v2: bool) -> Path:
    """Where one controller keeps what it knows of a cgroup."""
    return (ROOT if v2 else ROOT / controller) / path.lstrip("/")


def of_container(pod: Object, id_: str, settings: Settings) -> str:
    """The path that runc gives a container of containerd."""
    parent = resources.cgroup_parent(pod, settings)
    if settings.cgroup_driver != "systemd":
        return f"{parent}/{id_}"
    steps = parent.removesuffix(".slice").split("-")
    slices = ["-".join(steps[: n + 1]) + ".slice" for n in range(len(steps))]
    return "/" + "/".join([*slices, f"cri-containerd-{id_}.scope"])


def _files(value: Resources, *, v2: bool) -> dict[str, str]:
    if v2:
        out = {"cpu.weight": str(_weight(value.cpu_shares))}
        if value.cpu_quota:
            out["cpu.max"] = f"{value.cpu_quota} {value.cpu_period}"
        if value.memory_limit:
            out["memory.max"] = str(value.memory_limit)
        return out
    out = {"cpu.shares": str(value.cpu_shares)}
    if value.cpu_quota:
        out |= {
            "cpu.cfs_period_us": str(value.cpu_period),
            "cpu.cfs_quota_us": str(value.cpu_quota),
        }
    if value.memory_limit:
        out["memory.limit_in_bytes"] = str(value.memory_limit)
    return out


def _slice(name: str, value: Resources, *, v2: bool) -> systemd.Slice:
    """All of it: what has no limit any more must be told so."""
    quota = systemd.INFINITY
    if value.cpu_quota:
        each_second = value.cpu_quota * 1_000_000 // value.cpu_period
        quota = -(-each_second // _QUOTA_STEP) * _QUOTA_STEP
    numbers = {
        "CPUWeight" if v2 else "CPUShares": (_weight(value.cpu_shares) if v2 else value.cpu_shares),
        "MemoryMax" if v2 else "MemoryLimit": value.memory_limit or systemd.INFINITY,
        "CPUQuotaPerSecUSec": quota,
    }
    return systemd.Slice(name=name, numbers=numbers)


def _write(folder: Path, values: dict[str, str]) -> None:
    for name, text in values.items():
        if (folder / name).exists():
            with contextlib.suppress(
                OSError
            ):  # a controller may be missing: limits are best effort
                (folder / name).write_text(text)


def _make(folder: Path, *, v2: bool) -> None:
    """Each level of v2 must hand its controllers down, of cpuset v1 its values."""
    missing = [folder, *folder.parents]
    for path in reversed(missing[: missing.index(ROOT)]):
        path.mkdir(exist_ok=True)
        if v2:
            for controller in ("cpu", "memory", "pids", "cpuset", "io", "hugetlb"):
                with contextlib.suppress(OSError):
                    (path.parent / "cgroup.subtree_control").write_text(f"+{controller}")
        for name in ("cpuset.cpus", "cpuset.mems"):
            own, above = path / name, path.parent / name
            with contextlib.suppress(OSError):
                if not v2 and above.exists() and not own.read_text().strip():
                    own.write_text(above.read_text())


def ensure_pod(pod: Object, settings: Settings) -> None:
    """The pod's cgroup with its limits, before its sandbox is made; or what they are now."""
    if settings.cgroup_driver == "systemd":
        name = resources.cgroup_parent(pod, settings)
        systemd.ensure(_slice(name, resources.of_pod(pod), v2=settings.cgroup_v2))
        return
    values = _files(resources.of_pod(pod), v2=settings.cgroup_v2)
    for folder in _folders(resources.cgroup_parent(pod, settings), settings):
        _make(folder, v2=settings.cgroup_v2)
        _write(folder, values)


def remove_pod(pod: Object, settings: Settings) -> None:
    if settings.cgroup_driver == "systemd":
        try:
            systemd.remove(resources.cgroup_parent(pod, settings))
        except OSError as err:
            _log.warning("the slice of a pod stays: %s", err)
        return
    for folder in _folders(resources.cgroup_parent(pod, settings), settings):
        with contextlib.suppress(OSError):  # gone, or a process is still ending: swept later
            for child in folder.iterdir():
                if child.is_dir():
                    child.rmdir()
            folder.rmdir()


def weigh_classes(pods: Iterable[Object], settings: Settings) -> None:
    """BestEffort gets what is left; Burstable a share that follows what its pods request."""
    burstable = [pod for pod in pods if resources.qos_class(pod) == "Burstable"]
    asked = resources.pod_requests(burstable, "cpu")
    for qos, share in (("BestEffort", 2), ("Burstable", resources.shares(asked))):
        if settings.cgroup_driver == "systemd":
            name = f"kubepods-{qos.lower()}.slice"
            systemd.ensure(_slice(name, Resources(cpu_shares=share), v2=settings.cgroup_v2))
            continue
        values = _files(Resources(cpu_shares=share), v2=settings.cgroup_v2)
        for folder in _folders(resources.qos_cgroup(qos, settings), settings):
            _make(folder, v2=settings.cgroup_v2)
            _write(folder, values)
