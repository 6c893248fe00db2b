"""
The disk below: can it be written, was it damaged, how full is it and with what.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from node.host import mountinfo, mounts
from node.repair.base import Finding, Place, Unmendable, fine, note, wrong
from node.supervise.preflight import data_problem

AREA = "disk"
_LITTLE = 64 << 20  # bytes
_LABEL = Path("/dev/disk/by-partlabel/data")
_ASIDE = Path("/run/pinnace-boot/data")
_REPAIRED = 3  # e2fsck's exit codes up to this one leave no error
_PARTS = {
    "datastore": "server/db",
    "container images": "agent/containerd",
    "images to import": "agent/images",
    "volumes": "storage",
    "pods": "agent/pods",
    "updates": "update",
    "set aside": "repair",
}


def look(place: Place) -> Iterator[Finding]:
    if why := data_problem():
        yield _unmounted(why)
        return
    found = mountinfo.at(_mount_point(place.data))
    given_up = found is not None and _has_given_up(found)
    if os.statvfs(place.data).f_flag & os.ST_RDONLY or given_up:
        yield wrong(
            AREA,
            f"{place.data} is mounted read-only, as the kernel does after an error",
            would="start the machine anew: it is checked before it is mounted",
        )
    elif found is not None and (count := _errors(found)):
        yield note(
            AREA,
            f"the file system had {count} errors since it was checked; an appliance checks it at "
            "its next start, another machine with `touch /forcefsck`",
        )
    yield _usage(place.data)


def update(place: Place) -> Iterator[Finding]:
    """What an update left."""
    path = place.data / "update" / "state.json"
    try:
        state = json.loads(path.read_text())
    except FileNotFoundError:
        return
    except ValueError:
        yield wrong(
            "update",
            f"{path} cannot be read",
            would="set it aside: the version that runs stays",
            mend=lambda: f"it is in {place.set_aside(path)}",
        )
        return
    step = state.get("step") or state.get("phase") if isinstance(state, dict) else None
    yield note(
        "update", f"one was begun{f' and is at {step}' if step else ''}: it goes on by itself"
    )


def _mount_point(path: Path) -> Path:
    path = path.resolve()
    return next((p for p in (path, *path.parents) if p.is_mount()), Path("/"))


def _has_given_up(found: mountinfo.Mounted) -> bool:
    """As :func:`node.kubelet.facts.disk_problem` sees it."""
    number = ":".join(map(str, found.device))
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return any(line.split()[2] == number and "emergency_ro" in line.split()[-1] for line in lines)


def _errors(found: mountinfo.Mounted) -> int:
    major, minor = found.device
    try:
        name = Path(f"/sys/dev/block/{major}:{minor}").resolve().name
        return int(Path(f"/sys/fs/ext4/{name}/errors_count").read_text())
    except (OSError, ValueError):
        return 0


def _unmounted(why: str) -> Finding:
    if not _LABEL.exists() or why.startswith(("DataMissing", "DataReadOnly")):
        return wrong(AREA, f"the data partition cannot be used: {why}")
    return wrong(
        AREA,
        f"the data partition is not mounted: {why}",
        would="check and mend its file system (e2fsck -f -y); what has lost its name goes to "
        "lost+found there",
        mend=_check,
    )


def _check() -> str:
    if _ASIDE.is_mount():
        mounts.unmount(_ASIDE)
    program = shutil.which("e2fsck")
    if program is None:
        raise Unmendable("e2fsck is missing: apt-get install e2fsprogs")
    done = subprocess.run(
        [program, "-f", "-y", str(_LABEL)], capture_output=True, text=True, check=False
    )
    if done.returncode > _REPAIRED:
        last = (done.stdout.strip().splitlines() or ["no output"])[-1]
        raise Unmendable(
            f"{_LABEL} cannot be repaired: {last}; `pinnace reset --wipe` begins anew on it"
        )
    return "repaired: start the machine anew to use it"


def _usage(data: Path) -> Finding:
    whole = shutil.disk_usage(data)
    parts = {name: _size(data / folder) for name, folder in _PARTS.items()}
    taken = ", ".join(
        f"{name} {size >> 20}" for name, size in sorted(parts.items(), key=lambda item: -item[1])
    )
    text = f"{whole.free >> 20} of {whole.total >> 20} MiB free; MiB taken by {taken}"
    if whole.free >= _LITTLE:
        return fine(AREA, text)
    return wrong(AREA, text + ": too little is left; delete what is not needed")


def _size(folder: Path) -> int:
    """Bytes on the disk; other file systems that are mounted below are not counted."""
    try:
        device = folder.stat().st_dev
    except OSError:
        return 0
    total, pending = 0, [folder]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
            continue
        for entry in entries:
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if found.st_dev != device:
                continue
            total += found.st_blocks * 512
            if entry.is_dir(follow_symlinks=False):
                pending.append(Path(entry.path))
    return total
