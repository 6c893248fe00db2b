"""
What this machine knows of a disk, and what uses it: mounts, swap, volumes that lie on it.

Source: Linux, "ABI/stable/sysfs-block", proc_swaps(5).
"""

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from node.flash.base import Disk, RefusedError, Use
from node.host.mountinfo import mounts

_SECTOR = 512
_MAPPED = {"dm": "device mapper: LVM or an encrypted disk", "md": "RAID"}


def look(path: Path, *, sys: Path = Path("/sys"), proc: Path = Path("/proc")) -> Disk:
    """Raises :class:`RefusedError` for what is no block device."""
    try:
        found = path.stat()
    except OSError as err:
        raise RefusedError(f"{path}: {err.strerror}") from err
    if not stat.S_ISBLK(found.st_mode):
        raise RefusedError(f"{path} is neither a disk nor a file")
    number = f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"
    return described(sys / "dev/block" / number, str(path), proc)


def described(link: Path, path: str, proc: Path) -> Disk:
    """Of a folder of sysfs that is a block device."""
    folder = link.resolve()
    is_partition = (folder / "partition").exists()
    disk = folder.parent if is_partition else folder
    return Disk(
        path=path,
        name=folder.name,
        size=_number(folder / "size") * _SECTOR,
        model=_model(disk),
        bus=_bus(disk),
        removable=_removable(disk),
        read_only=_line(folder / "ro") == "1",
        parent=disk.name if is_partition else "",
        uses=tuple(_uses(disk, proc)),
    )


def _model(disk: Path) -> str:
    words = [_line(disk / "device" / name) for name in ("vendor", "model", "name")]
    if disk.name.startswith("loop"):
        return _line(disk / "loop/backing_file")
    return " ".join(word for word in words if word and not word.startswith("0x"))


def _bus(disk: Path) -> str:
    path = str(disk)
    for sign, bus in (
        ("/usb", "usb"),
        ("/mmc", "mmc"),
        ("/nvme", "nvme"),
        ("/ata", "ata"),
        ("/virtio", "virtio"),
        ("/host", "scsi"),
    ):
        if sign in path:
            return bus
    return "loop" if disk.name.startswith("loop") else ""


def _removable(disk: Path) -> bool:
    if _line(disk / "removable") == "1" or _bus(disk) == "usb":
        return True
    # An SD card; of what is soldered on (eMMC) the type is MMC.
    return _bus(disk) == "mmc" and _line(disk / "device/type") == "SD"


def _uses(disk: Path, proc: Path) -> Iterator[Use]:
    mounted = _mounted(proc)
    swaps = _swaps(proc)
    for device in _with_all_above(disk):
        number = _line(device / "dev")
        for point in mounted.get(number, ()):
            yield Use(device=device.name, what=f"is mounted at {point}")
        if number in swaps:
            yield Use(device=device.name, what="is swap")
        for holder in _holders(device):
            kind = next((text for sign, text in _MAPPED.items() if holder.startswith(sign)), "")
            yield Use(device=device.name, what=f"is part of {holder}{f' ({kind})' if kind else ''}")


def _with_all_above(disk: Path) -> Iterator[Path]:
    """The disk, its partitions, and whatever is built on one of them."""
    seen = set()
    left = [disk]
    while left:
        device = left.pop(0)
        if device in seen or not device.exists():
            continue
        seen.add(device)
        yield device
        left += sorted(path.parent for path in device.glob("*/partition"))
        left += [(device / "holders" / name).resolve() for name in _holders(device)]


def _holders(device: Path) -> list[str]:
    try:
        return sorted(path.name for path in (device / "holders").iterdir())
    except OSError:
        return []


def _mounted(proc: Path) -> Mapping[str, list[str]]:
    """Mount points by the number of the device; of btrfs and the like by that of their source."""
    found: dict[str, list[str]] = {}
    for mounted in mounts(proc / "self/mountinfo"):
        major, minor = mounted.device
        numbers = {f"{major}:{minor}", _device_number(mounted.source)}
        for number in numbers - {""}:
            found.setdefault(number, []).append(str(mounted.point))
    return found


def _swaps(proc: Path) -> frozenset[str]:
    try:
        lines = (proc / "swaps").read_text().splitlines()[1:]
    except OSError:
        return frozenset()
    return frozenset(_device_number(line.split()[0]) for line in lines if line) - {""}


def _device_number(path: str) -> str:
    if not path.startswith("/"):
        return ""
    try:
        found = Path(path).stat()
    except OSError:
        return ""
    if not stat.S_ISBLK(found.st_mode):
        return ""
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int:
    text = _line(path)
    return int(text) if text.isdecimal() else 0
