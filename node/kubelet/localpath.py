"""
Volumes whose size is enforced by a file system image: mounted before anybody writes there.

The annotation ``localpath.pinnace.dev/image`` of a PersistentVolume names the image; its
path is where it is mounted, by a loop device that goes with the mount. The folder
beneath stays empty: a container that would see it is not started. The mount stays
when the last pod is gone.

Mounted with ``discard``: what a pod deletes is punched out of the sparse image by the next
commit of the journal. An fstrim would be kinder to a card (one pass for many deletions) but needs a
timer or an end of the pod that may never come, and a full card costs more than its wear.
``noatime`` because reading must not write. Blocks: callers use a thread.
"""

import contextlib
import errno
import hashlib
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.client.base import Object
from node.host import ext4, loop, mountinfo
from node.host.mountinfo import Mounted
from node.host.mounts import NO_DEVICES, NO_EXECUTE, NO_SUID, READ_ONLY, mount, unmount

IMAGE = "localpath.pinnace.dev/image"
_NO_ACCESS_TIMES, _SYNCHRONOUS, _SYNCHRONOUS_FOLDERS = 0x400, 0x10, 0x80
_FLAGS = {
    "ro": READ_ONLY,
    "nosuid": NO_SUID,
    "nodev": NO_DEVICES,
    "noexec": NO_EXECUTE,
    "sync": _SYNCHRONOUS,
    "dirsync": _SYNCHRONOUS_FOLDERS,
    "noatime": _NO_ACCESS_TIMES,
}
_DEFAULTS = frozenset(
    {"defaults", "rw", "suid", "dev", "exec", "async", "relatime", "atime", "auto", "nouser"}
)
_REPAIRED = 3  # e2fsck's exit codes up to this one leave no error
# What mount(2) says of a file system that is damaged.
_DAMAGED = frozenset({errno.EUCLEAN, errno.EBADMSG, errno.EINVAL, errno.EIO})


@dataclass(frozen=True, slots=True, kw_only=True)
class Backing:
    """What a volume is to be mounted from, and where."""

    image: Path
    target: Path
    options: tuple[str, ...] = ()  # of the PersistentVolume

    @property
    def read_only(self) -> bool:
        return "ro" in self.options


def of_volume(volume: Object, target: Path) -> Backing | None:
    """None: the volume is the folder itself. ``ValueError`` for a path that is none."""
    image = (volume["metadata"].get("annotations") or {}).get(IMAGE)
    if image is None:
        return None
    path = Path(image)
    if not path.is_absolute():
        raise ValueError(f"annotation {IMAGE} is not an absolute path: {image!r}")
    options = tuple(volume["spec"].get("mountOptions") or ())
    return Backing(image=path, target=target, options=options)


def mark(pods_dir: Path) -> str:
    """What the loop devices of this node are called, so that another's are left alone."""
    return "pinnace:" + hashlib.sha256(str(pods_dir).encode()).hexdigest()[:16]


def mounted(name: str) -> list[Path]:
    """Where images are mounted by loop devices of that name, the last one first."""
    return [
        entry.point
        for entry in reversed(list(mountinfo.mounts()))
        if (shown := _shown(entry)) is not None and shown.name == name
    ]


class Locks:
    """One for each name, between threads."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.Lock] = {}
        self._changing = threading.Lock()

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        with self._changing:
            lock = self._locks.setdefault(name, threading.Lock())
        with lock:
            yield


class LocalPath:
    """Mounts images, one at a time for each place, since pods share volumes."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._locks = Locks()

    def ensure(self, backing: Backing) -> None:
        """
        Mount the image where it belongs, unless it is. Idempotent; may take an e2fsck.

        ``ValueError`` or ``OSError`` with the reason why nobody may use the folder.
        """
        with self._locks.held(str(backing.target)):
            _ensure(backing, self._name)


def _ensure(backing: Backing, name: str) -> None:
    if not backing.image.is_file():
        raise ValueError(f"the image of the volume is missing: {backing.image}")
    target = _folder(backing.target)
    entry = mountinfo.at(target)
    if entry is not None and _shows(entry, backing.image):
        if not entry.read_only or backing.read_only:
            return
        _take_off(entry, "its file system has become read-only after an error")
    elif entry is not None:
        _make_room(entry, backing.image)
    _mount(backing, target, name)


def _folder(path: Path) -> Path:
    """What is mounted on; nobody else than root can look into what lies beneath."""
    if not path.exists():
        path.mkdir(parents=True)
        path.chmod(0o700)
    if not path.is_dir():
        raise ValueError(f"the path of the volume is not a directory: {path}")
    return path.resolve()


def _shown(entry: Mounted) -> loop.Status | None:
    major, number = entry.device
    return loop.status(number) if major == loop.MAJOR else None


def _shows(entry: Mounted, image: Path) -> bool:
    found, shown = image.stat(), _shown(entry)
    return shown is not None and shown.file == (found.st_dev, found.st_ino)


def _make_room(entry: Mounted, image: Path) -> None:
    """An image that was deleted may go; anything else is somebody's."""
    number = entry.device[1]
    backing = Path(f"/sys/block/loop{number}/loop/backing_file")
    text = backing.read_text().strip() if _shown(entry) is not None else ""
    if text.endswith("(deleted)"):
        _take_off(entry, "an image that was deleted is still in use there")
        return
    raise ValueError(f"{entry.point} has {text or entry.source} mounted, not {image}")


def _take_off(entry: Mounted, why: str) -> None:
    try:
        unmount(entry.point)
    except OSError as err:
        if err.errno != errno.EBUSY:
            raise
        raise ValueError(f"{entry.point}: {why}; stop the pods that use it") from err


def _mount(backing: Backing, target: Path, name: str) -> None:
    flags, options = _options(backing.options)
    with loop.attached(backing.image, name) as device:
        health = ext4.health(device)
        if health is None:
            raise ValueError(f"there is no ext4 file system on {backing.image}")
        if health.needs_check:
            _repair(device, backing.image)
        try:
            mount(str(device), target, "ext4", flags=flags, options=options)
        except OSError as err:
            if err.errno not in _DAMAGED:
                raise
            _repair(device, backing.image)
            mount(str(device), target, "ext4", flags=flags, options=options)
    entry = mountinfo.at(target)
    if entry is not None and entry.read_only and not backing.read_only:
        _take_off(entry, "it could be mounted read-only only")
        raise ValueError(f"{backing.image} can be mounted read-only only")


def _options(wanted: Sequence[str]) -> tuple[int, str]:
    flags, rest = _NO_ACCESS_TIMES, ["discard"]
    for option in wanted:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        elif option in ("relatime", "atime"):
            flags &= ~_NO_ACCESS_TIMES
        elif option == "nodiscard":
            rest.remove("discard")
        elif option not in _DEFAULTS:
            rest.append(option)
    return flags, ",".join(rest)


def _repair(device: Path, image: Path) -> None:
    """What can be mended without asking anybody; the rest is for a person."""
    try:
        done = subprocess.run(
            ["e2fsck", "-p", str(device)], check=False, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise ValueError(
            f"the file system on {image} has to be checked and e2fsck is missing: "
            "apt-get install e2fsprogs"
        ) from None
    if done.returncode > _REPAIRED:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = "; ".join(lines[:3])
        raise ValueError(f"the file system on {image} is damaged, run e2fsck on it: {said}")
