"""
What is done in the root of the image before systemd starts: from a mounted root to a whole tree.

The script of the initial RAM disk (``image-build/files/init``) finds the slot, enters it and
starts this, with the disk it was found on. It makes the data partition usable (grown, formatted
if nobody ever wrote to it, checked) and mounts what can be written. A disk that fails must not
keep a machine from coming up: then what is written lies in memory, and
``/run/pinnace-boot/problem`` says why. Quick, since everything waits for it: the standard
library, and of that little.
"""

import importlib
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from node.appliance import gpt, grow, overlays
from node.host import ext4, mounts

DATA, CONFIG = "data", "config"  # labels of partitions
REPORT = "fsck-report.txt"  # on the data partition: what the last repair did
MARKER = "factory-reset"  # on the config partition: "keep" or "wipe"
_OPTIONS = "commit=30,errors=remount-ro"
_QUOTA = "prjquota"  # by which local volumes get a size that holds
_FEATURES = "quota,project"
_WORTH_GROWING = 16 << 20  # bytes: ext4 leaves less than a group of blocks unused at its end
_LEFT, _FAILED = 4, 8  # bits of e2fsck's exit code: damage is left, it could not work
_CONFIG_FLAGS = mounts.READ_ONLY | mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTE
_FAT = "umask=0077,errors=remount-ro"  # what lies there may be a token or a key


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    disk: Path  # /dev/mmcblk0
    slot: str  # a | b
    root: Path = Path("/")  # where the tree is that is completed
    run: Path = Path("/run/pinnace-boot")
    features: str = _FEATURES  # of a file system that is made: what the image's kernel has

    def partition(self, table: gpt.Table, name: str) -> Path | None:
        part = table.named(name)
        if part is None:
            return None
        return self.disk.with_name(grow.partition_name(self.disk.name, part.number))

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def config(self) -> Path:
        return self.root / "boot/pinnace"

    @property
    def problem(self) -> Path:
        """One line for each thing that is wrong: a reason in one word, a colon, the text."""
        return self.run / "problem"

    @property
    def aside(self) -> Path:
        """Where a data partition is mounted that can only be read."""
        return self.run / "data"


class DataError(Exception):
    """The data partition cannot be used; ``reason``: DataMissing, DataCorrupt, DataReadOnly."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def complete(machine: Machine) -> None:
    """
    Mount everything below ``machine.root``. Raises ``OSError`` where not even memory helps.
    """
    machine.run.mkdir(parents=True, exist_ok=True)
    _mount_config(machine)
    below = None
    try:
        _use_data(machine)
    except DataError as err:
        note(machine, err.reason, str(err))
        below = _mount_instead(machine, err)
    else:
        _keep_report(machine)
        _reset(machine)
    try:
        overlays.mount_all(machine.root, machine.data, machine.slot, below=below)
    except OSError as err:
        note(machine, "DataCorrupt", f"{err.filename}: {err.strerror}")
        _start_over(machine)


def _use_data(machine: Machine) -> None:
    """Mounted, or :class:`DataError`; formatted where it is of no use and is to be wiped."""
    try:
        device = prepare(machine)
        _mount_data(device, machine.data, read_only=False)
        _fill_partition(device)
    except DataError as err:
        if err.reason != "DataCorrupt" or not _is_to_be_wiped(machine):
            raise
        note(machine, err.reason, f"{err}; it is formatted, as {MARKER} asks")
        try:
            grow.set_unused(machine.disk, DATA, unused=True)
        except (gpt.TableError, OSError) as failed:
            raise DataError("DataCorrupt", f"{machine.disk}: {failed}") from failed
        _mount_data(prepare(machine), machine.data, read_only=False)


def _is_to_be_wiped(machine: Machine) -> bool:
    try:
        return (machine.config / MARKER).read_text(errors="replace").split()[:1] == ["wipe"]
    except OSError:
        return False


def _reset(machine: Machine) -> None:
    """What a file on the config partition asks for, before anything of the data is in use."""
    if not (machine.config / MARKER).exists():
        return
    reset = importlib.import_module("node.appliance.reset")
    try:
        done = reset.follow(machine.config, machine.data, flags=_CONFIG_FLAGS)
    except (OSError, ValueError) as err:
        note(machine, "FactoryResetFailed", str(err))
    else:
        if done:
            note(machine, "FactoryReset", done)


def note(machine: Machine, reason: str, message: str) -> None:
    """Say what is wrong to whoever comes later, and on the console."""
    with machine.problem.open("a") as file:
        file.write(f"{reason}: {message}\n")
    say(message)


def say(text: str) -> None:
    sys.stderr.write(f"pinnace: {text}\n")
    sys.stderr.flush()


# The data partition


def prepare(machine: Machine) -> Path:
    """
    The device of the data partition, grown, with a file system that was checked.

    Raises :class:`DataError`.
    """
    try:
        if grow.grow(machine.disk, DATA):
            say("the data partition has the rest of the disk now")
    except (gpt.TableError, OSError) as err:
        say(f"the data partition keeps its size: {err}")
    try:
        table = grow.read(machine.disk)
    except (gpt.TableError, OSError) as err:
        raise DataError("DataMissing", f"{machine.disk}: {err}") from err
    device = machine.partition(table, DATA)
    if device is None or not device.exists():
        raise DataError("DataMissing", f"{machine.disk} has no data partition")
    if _is_read_only(device):
        raise DataError("DataReadOnly", f"{device} is write-protected")
    try:
        _format_if_unused(machine, device)
    except (gpt.TableError, OSError) as err:
        raise DataError("DataReadOnly", f"{device} cannot be formatted: {err}") from err
    check(machine, device)
    return device


def _is_read_only(device: Path) -> bool:
    path = Path("/sys/class/block") / device.name / "ro"
    return path.exists() and path.read_text().strip() == "1"


def _format_if_unused(machine: Machine, device: Path) -> None:
    # The mark goes when the file system is complete: a power cut before that formats again.
    if grow.is_unused(machine.disk, DATA):
        say("making the data partition, once")
        make(device, machine.features)
        grow.set_unused(machine.disk, DATA, unused=False)


def make(device: Path, features: str = _FEATURES) -> None:
    """Format a data partition. Raises ``OSError`` with what mke2fs said."""
    options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    options += ",quotatype=prjquota" if "quota" in features.split(",") else ""
    argv = ["mke2fs", "-q", "-F", "-t", "ext4", "-m", "1", "-L", "data"]
    argv += ["-O", features] if features else []
    done = _start([*argv, "-E", options, str(device)])
    if done.returncode:
        raise OSError(done.returncode, done.stdout.strip() or "mke2fs failed", str(device))
    os.sync()


def check(machine: Machine, device: Path) -> None:
    """
    Replay the journal and mend what can be mended without losing anything, else what can at all.

    What the second one did is kept. Raises :class:`DataError`.
    """
    done = _start(["e2fsck", "-p", str(device)])
    if not done.returncode & (_LEFT | _FAILED):
        return
    say(f"{device} is damaged: repairing it")
    done = _start(["e2fsck", "-f", "-y", str(device)])
    (machine.run / REPORT).write_text(done.stdout)
    if done.returncode & (_LEFT | _FAILED):
        last = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise DataError("DataCorrupt", f"{device} cannot be repaired: {last}")
    note(machine, "DataRepaired", f"{device} was damaged and is repaired: see {REPORT} there")


def _keep_report(machine: Machine) -> None:
    """Where it outlives the next start."""
    report = machine.run / REPORT
    if report.exists():
        (machine.data / REPORT).write_bytes(report.read_bytes())


def _mount_data(device: Path, target: Path, *, read_only: bool) -> None:
    """``read_only``: as it is, without replaying its journal. Raises :class:`DataError`."""
    flags = mounts.NO_ATIME | (mounts.READ_ONLY if read_only else 0)
    # A file system without quotas, made by somebody else, is as good.
    choices = ["noload"] if read_only else [f"{_OPTIONS},{_QUOTA}", _OPTIONS]
    for options in choices:
        try:
            mounts.mount(str(device), target, "ext4", flags=flags, options=options)
        except OSError as err:
            if options is not choices[-1]:
                continue
            message = f"{device} cannot be mounted: {err.strerror}"
            raise DataError("DataCorrupt", message) from err
        return


def _fill_partition(device: Path) -> None:
    """
    Where the partition has grown and its file system not yet: on another disk than before.

    While it is mounted, since only then a power cut leaves it whole.
    """
    with device.open("rb") as file:
        room = grow.size(file.fileno())
    if room - (ext4.size(device) or room) < _WORTH_GROWING:
        return
    done = _start(["resize2fs", str(device)])
    if done.returncode:
        said = (done.stdout.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        say(f"the data keeps its size: {said}")


def _mount_instead(machine: Machine, why: DataError) -> Path | None:
    """Memory in place of the data; where it can be read at least, that too, and its place."""
    mounts.mount("tmpfs", machine.data, "tmpfs", options="mode=755,size=50%")
    if why.reason == "DataMissing":
        return None
    try:
        device = machine.partition(grow.read(machine.disk), DATA)
        if device is None:
            return None
        machine.aside.mkdir(exist_ok=True)
        _mount_data(device, machine.aside, read_only=True)
    except (DataError, gpt.TableError, OSError):
        return None
    return machine.aside


def _start_over(machine: Machine) -> None:
    """The data is mounted and of no use: all in memory, over what was mounted in part."""
    for place in reversed([machine.data, *(machine.root / name for name in overlays.LAYERS)]):
        for mounted in mounts.mounted_below(place):
            mounts.unmount(mounted, detach=True)
    mounts.mount("tmpfs", machine.data, "tmpfs", options="mode=755,size=50%")
    overlays.mount_all(machine.root, machine.data, machine.slot)


# The config partition


def _mount_config(machine: Machine) -> None:
    """Read only: who has something to write there mounts it anew for that moment."""
    try:
        device = machine.partition(grow.read(machine.disk), CONFIG)
        if device is None or not machine.config.is_dir():
            raise OSError(2, "not there", CONFIG)
        if _was_cut(device):
            _start(["fsck.fat", "-a", "-w", str(device)])
        mounts.mount(str(device), machine.config, "vfat", flags=_CONFIG_FLAGS, options=_FAT)
    except (gpt.TableError, OSError) as err:
        note(machine, "ConfigMissing", f"the config partition cannot be mounted: {err}")


def _was_cut(device: Path) -> bool:
    """Whether a FAT was written to and not unmounted since; the mark differs by its size."""
    with device.open("rb") as file:
        sector = file.read(gpt.SECTOR)
    is_large = int.from_bytes(sector[22:24], "little") == 0  # FAT32
    return bool(sector[65 if is_large else 37] & 1)


def _start(argv: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin", "LC_ALL": "C"},
    )


def main(arguments: list[str]) -> int:
    """``early DISK SLOT``; exit code 1 lets the RAM disk start the machine anew."""
    disk, slot = arguments
    try:
        complete(Machine(disk=Path(disk), slot=slot))
    except OSError as err:
        say(f"cannot complete the root: {err}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
