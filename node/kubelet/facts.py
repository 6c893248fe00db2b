"""What the machine is: capacity and identity. Read from /proc and /sys; blocks briefly."""

import os
import platform
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from controlplane.objects import quantity
from node.kubelet.evict import low_memory
from node.kubelet.stats import memory_info

_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_EXT4 = Path("/sys/fs/ext4")
_NO_SPACE = 10 << 20  # bytes, as the datastore wants to have for its reserve
_LOW_DISK = 0.05  # of the file system: below it pods are evicted, as K3s has it


def arch() -> str:
    return _ARCH.get(platform.machine(), platform.machine())


def capacity(data_dir: Path, max_pods: int) -> dict[str, str]:
    disk = os.statvfs(data_dir)
    out = {
        "cpu": str(os.cpu_count() or 1),
        "memory": f"{memory_info()['MemTotal'] // 1024}Ki",
        "ephemeral-storage": f"{disk.f_blocks * disk.f_frsize // 1024}Ki",
        "pods": str(max_pods),
    }
    return out | _hugepages()


def _hugepages(root: Path = Path("/sys/kernel/mm/hugepages")) -> dict[str, str]:
    out = {}
    for folder in sorted(root.glob("hugepages-*kB")):
        size = int(folder.name.removeprefix("hugepages-").removesuffix("kB")) * 1024
        count = int((folder / "nr_hugepages").read_text())
        out[f"hugepages-{quantity.of_bytes(size)}"] = quantity.of_bytes(size * count)
    return out


def disk_problem(data_dir: Path) -> tuple[str, str]:
    """Reason and message, where nothing can be written to the data folder any more; else ""."""
    found = os.statvfs(data_dir)
    if found.f_flag & os.ST_RDONLY or _has_given_up(data_dir.stat().st_dev):
        text = f"{data_dir} is mounted read-only, as the kernel does after an error of the disk"
        return "DataDiskReadOnly", f"{text}: see its log, and `pinnace repair`"
    if found.f_bavail * found.f_frsize < _NO_SPACE:
        text = f"less than {_NO_SPACE >> 20} MiB are left in {data_dir}"
        return "DataDiskFull", f"{text}: where nothing is left only deletions are accepted"
    return "", ""


def _has_given_up(device: int) -> bool:
    """Since Linux 6.15 ext4 does not say by statvfs(2) that it takes nothing after an error."""
    number = f"{os.major(device)}:{os.minor(device)}"
    name = _name_of(number)
    try:
        if not name or (_EXT4 / name / "errors_count").read_text().strip() == "0":
            return False
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return False
    return any(line.split()[2] == number and "emergency_ro" in line.split()[-1] for line in lines)


@cache
def _name_of(number: str) -> str:
    """Of a block device with an ext4 on it; "" for all others."""
    name = Path("/sys/dev/block", number).resolve().name
    return name if (_EXT4 / name).is_dir() else ""


def allocatable(whole: Mapping[str, str]) -> dict[str, str]:
    """All of it, but what has to be left lest pods are evicted."""
    disk, memory = quantity.value(whole["ephemeral-storage"]), quantity.value(whole["memory"])
    return {
        **whole,
        "ephemeral-storage": str(int(disk * (1 - _LOW_DISK))),
        "memory": f"{(memory - low_memory(memory)) // 1024}Ki",
    }


def identity(root: Path = Path("/")) -> dict[str, str]:
    """The parts of nodeInfo that belong to the machine."""
    machine = _read(root / "etc/machine-id")
    return {
        "machineID": machine,
        "systemUUID": _read(root / "sys/class/dmi/id/product_uuid") or machine,
        "bootID": _read(root / "proc/sys/kernel/random/boot_id"),
        "kernelVersion": platform.release(),
        "osImage": _os_name(root / "etc/os-release"),
        "operatingSystem": "linux",
        "architecture": arch(),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _os_name(path: Path) -> str:
    for line in _read(path).splitlines():
        key, _, value = line.partition("=")
        if key == "PRETTY_NAME":
            return value.strip("\"'")
    return "Linux"
