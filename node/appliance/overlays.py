"""
What can be written on a machine whose root cannot: where each such folder really lies.

``/etc`` and ``/var`` are overlays, one of each slot, so that what a version changes there the
other version never sees; what is to outlive an update lies in the data partition and is the same
for both. Before a slot is tried it gets a copy of what the running one has.
"""

import ctypes
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from node.host import mounts
from node.host.files import sync_directory

LAYERS = ("etc", "var")  # folders of the root that are overlays
SLOTS = ("a", "b")
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Bind:
    """A folder of the data partition that appears elsewhere."""

    source: str
    target: str
    mode: int


BINDS = (
    Bind("pinnace", "var/lib/pinnace", 0o755),
    Bind("root", "root", 0o700),
    # Logs of containers are there after a restart too; in memory they would fill it.
    Bind("log/pods", "var/log/pods", 0o755),
)
# Folders in memory: size and mode. What they hold is nobody's after a restart.
MEMORY = (
    ("tmp", "25%", 0o1777),
    ("var/tmp", "25%", 0o1777),
    ("var/log", "16M", 0o755),
)

# The layers stay plain folders, which any version and any tool can read.
_OPTIONS = "index=off,xino=off,redirect_dir=off,metacopy=off"
_KEPT = ("trusted.overlay.opaque", "trusted.overlay.whiteout")
_OVERLAY = "trusted.overlay."
_AT_FDCWD, _EXCHANGE = -100, 2
_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers:
    """Where the changes of one slot lie."""

    folder: Path

    def upper(self, name: str) -> Path:
        return self.folder / name

    def work(self, name: str) -> Path:
        return self.folder / "work" / name

    def make(self) -> None:
        # Nobody but root looks at the layers; through the overlay everybody sees what he may.
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in LAYERS:
            self.upper(name).mkdir(parents=True, exist_ok=True)
            self.work(name).mkdir(parents=True, exist_ok=True)


def layers(data: Path, slot: str) -> Layers:
    return Layers(folder=data / "slots" / slot)


def mount_all(root: Path, data: Path, slot: str, *, below: Path | None = None) -> None:
    """
    Everything that is writable on a machine, from a data partition that is mounted at ``data``.

    ``below``: a data partition that can only be read; what it holds is seen, and changes go to
    ``data``. Raises ``OSError`` with what could not be mounted; nothing is taken back.
    """
    own = layers(data, slot)
    own.make()
    for name in LAYERS:
        lowers = [root / name]
        if below is not None and layers(below, slot).upper(name).is_dir():
            lowers.insert(0, layers(below, slot).upper(name))
        _overlay(root / name, lowers, own.upper(name), own.work(name))
    for name, size, mode in MEMORY:
        _memory(root / name, size, mode)
    for bind in BINDS:
        _bind(bind, root / bind.target, data, below)


def _overlay(target: Path, lowers: list[Path], upper: Path, work: Path) -> None:
    joined = ":".join(map(_escaped, lowers))
    options = f"lowerdir={joined},upperdir={_escaped(upper)},workdir={_escaped(work)},{_OPTIONS}"
    mounts.mount("overlay", target, "overlay", options=options)


def _escaped(path: Path) -> str:
    return str(path).replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _memory(target: Path, size: str, mode: int) -> None:
    target.mkdir(parents=True, exist_ok=True)
    flags = mounts.NO_SUID | mounts.NO_DEVICES
    mounts.mount("tmpfs", target, "tmpfs", flags=flags, options=f"mode={mode:o},size={size}")


def _bind(bind: Bind, target: Path, data: Path, below: Path | None) -> None:
    source = data / bind.source
    target.mkdir(parents=True, exist_ok=True)
    if not source.exists():
        source.mkdir(parents=True)
        source.chmod(bind.mode)
    if below is not None and (below / bind.source).is_dir():
        work = data / "work" / bind.source
        work.mkdir(parents=True, exist_ok=True)
        _overlay(target, [below / bind.source], source, work)
    else:
        mounts.bind(source, target)


def copy_for_other_slot(data: Path, from_slot: str, to_slot: str) -> None:
    """
    What ``from_slot`` has in /etc and /var becomes what ``to_slot`` starts with.

    Whole or not at all, wherever the power is cut; on disk when this returns. What the other
    slot had is gone. The running slot may be copied: only files that change during the copy are
    of an uncertain state. Blocks on the disk. Raises ``OSError``.
    """
    if {from_slot, to_slot} != set(SLOTS):
        raise ValueError(f"not the two slots: {from_slot!r}, {to_slot!r}")
    source, target = layers(data, from_slot), layers(data, to_slot)
    staged = Layers(folder=target.folder.with_name(f".{to_slot}.new"))
    shutil.rmtree(staged.folder, ignore_errors=True)
    staged.make()
    for name in LAYERS:
        if source.upper(name).is_dir():
            _copy_tree(source.upper(name), staged.upper(name))
    os.sync()
    _put_in_place(staged.folder, target.folder)
    sync_directory(target.folder.parent)
    shutil.rmtree(staged.folder, ignore_errors=True)


def _put_in_place(staged: Path, target: Path) -> None:
    if not target.exists():
        staged.rename(target)
        return
    names = os.fsencode(staged), os.fsencode(target)
    if _libc.renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def _copy_tree(source: Path, target: Path) -> None:
    """A folder with all that is in it: owners, times, links, devices (removed files are such)."""
    for path in sorted(source.iterdir()):
        try:
            _copy(path, target / path.name)
        except FileNotFoundError:
            if os.path.lexists(path):
                raise
            # A running program has removed it meanwhile; half a copy must not stay.
            shutil.rmtree(target / path.name, ignore_errors=True)
            (target / path.name).unlink(missing_ok=True)
    _copy_status(source, target, source.lstat())


def _copy(path: Path, there: Path) -> None:
    status = path.lstat()
    if stat.S_ISSOCK(status.st_mode):
        return  # of a program that runs; nobody listens at a copy
    if stat.S_ISDIR(status.st_mode):
        there.mkdir()
        _copy_tree(path, there)
    elif stat.S_ISREG(status.st_mode):
        shutil.copyfile(path, there)
    elif stat.S_ISLNK(status.st_mode):
        there.symlink_to(path.readlink())
    else:
        os.mknod(there, status.st_mode, status.st_rdev)
    _copy_status(path, there, status)


def _copy_status(source: Path, target: Path, status: os.stat_result) -> None:
    os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        target.chmod(stat.S_IMODE(status.st_mode))
    for name in os.listxattr(source, follow_symlinks=False):
        # Other marks of the overlay point into the image that the layer was above.
        if not name.startswith(_OVERLAY) or name in _KEPT:
            value = os.getxattr(source, name, follow_symlinks=False)
            os.setxattr(target, name, value, follow_symlinks=False)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(target, ns=times, follow_symlinks=False)
