"""
Files for pods: the atomic writer behind projected volumes, mounts, and safe sub-paths.

All of it blocks: callers run it in a thread. Mounts go through libc, since the agent
has no need of another program for one system call.
"""

import contextlib
import ctypes
import ctypes.util
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC = 2, 4, 8, 4096, 16384
_DATA, _NEXT = "..data", "..data_tmp"
_MNT_DETACH = 2


@dataclass(frozen=True, slots=True)
class File:
    data: bytes
    mode: int
    uid: int | None = None


Payload = Mapping[str, File]  # relative path → file


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: Path, kind: str, *, flags: int = 0, options: str = "") -> None:
    """Raise OSError as mount(2) says."""
    where, what = os.fsencode(target), kind.encode()
    if _libc().mount(source.encode(), where, what, ctypes.c_ulong(flags), options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def unmount(target: Path) -> None:
    """Detaches lazily, so that a busy mount cannot hold up the removal of a pod."""
    if _libc().umount2(os.fsencode(target), _MNT_DETACH) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(target))


def mounts_below(top: Path) -> list[Path]:
    """Mount points at or under a folder, the deepest first."""
    prefix = str(top)
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        target = line.split(" ")[4].encode().decode("unicode_escape")
        if target == prefix or target.startswith(prefix + "/"):
            found.append(Path(target))
    return sorted(found, key=lambda path: len(path.parts), reverse=True)


def remove_tree(top: Path) -> None:
    """Everything under ``top``, but never what is mounted there: that is unmounted first."""
    if not top.exists():
        return
    for target in mounts_below(top.resolve()):
        unmount(target)
    if remaining := mounts_below(top.resolve()):
        raise OSError(f"still mounted: {remaining[0]}")
    shutil.rmtree(top)


def write_atomic(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Readers see the old file or the new one; not synced, because pods' files are made anew."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.chmod(mode)
    temporary.replace(path)


def write_payload(folder: Path, payload: Payload, group: int | None) -> bool:
    """
    Make ``folder`` show exactly ``payload``, switched over in one rename.

    The layout is that of kubelet's atomic writer (``..data`` → a dated folder; each
    top-level name a link into ``..data``), which programs that watch their
    configuration rely on. Returns whether anything changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o777)
    current = folder / _DATA
    if current.is_symlink() and _shows(current, payload, group):
        return False
    old = folder / current.readlink() if current.is_symlink() else None
    fresh = _fresh(folder)
    for name, file in payload.items():
        _write(fresh / name, file, group)
    if group is not None:
        for path in [fresh, *(p for p in fresh.rglob("*") if p.is_dir())]:
            os.chown(path, -1, group)
            path.chmod(0o2775)
    (folder / _NEXT).unlink(missing_ok=True)
    (folder / _NEXT).symlink_to(fresh.name)
    (folder / _NEXT).replace(current)
    _link(folder, {name.split("/")[0] for name in payload})
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
    return True


def make_mount_points(folder: Path, below: Iterable[PurePath]) -> None:
    """
    Folders for what is mounted within a volume that is mounted read-only: nobody can make them
    there later. What the volume itself has at such a path is left as it is.
    """
    for path in below:
        if not (folder / path.parts[0]).is_symlink():
            (folder / path).mkdir(mode=0o755, parents=True, exist_ok=True)


def _fresh(folder: Path) -> Path:
    number = 0
    taken = [int(p.name[2:]) for p in folder.glob("..[0-9]*") if p.name[2:].isdigit()]
    number = max(taken, default=0) + 1
    fresh = folder / f"..{number:010d}"
    fresh.mkdir()
    fresh.chmod(0o755)
    return fresh


def _write(path: Path, file: File, group: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    if group is not None or file.uid is not None:
        os.chown(path, -1 if file.uid is None else file.uid, -1 if group is None else group)
    path.chmod(_mode(file, group))


def _mode(file: File, group: int | None) -> int:
    """The group that a pod asked for may always read."""
    return file.mode | 0o440 if group is not None else file.mode


def _link(folder: Path, names: set[str]) -> None:
    for name in names:
        link = folder / name
        if not link.is_symlink() and not link.is_dir():
            link.symlink_to(f"{_DATA}/{name}")
    for link in folder.iterdir():
        if link.is_symlink() and not link.name.startswith("..") and link.name not in names:
            link.unlink()


def _shows(current: Path, payload: Payload, group: int | None) -> bool:
    found = {str(p.relative_to(current)): p for p in current.rglob("*") if p.is_file()}
    if found.keys() != payload.keys():
        return False
    return all(
        path.read_bytes() == payload[name].data
        and stat.S_IMODE(path.stat().st_mode) == _mode(payload[name], group)
        for name, path in found.items()
    )


def own_by_group(folder: Path, group: int) -> None:
    """fsGroup: group-owned, group-writable, and new files inherit the group."""
    for root, folders, names in os.walk(folder):
        for name in [*folders, *names]:
            _give(Path(root) / name, group)
    _give(folder, group)  # last, so that it is done only when all of it is


def is_owned_by_group(folder: Path, group: int) -> bool:
    """As far as its top tells: fsGroupChangePolicy OnRootMismatch (KEP-695)."""
    info = folder.stat()
    return info.st_gid == group and info.st_mode & 0o2770 == 0o2770


def _give(path: Path, group: int) -> None:
    info = path.lstat()
    os.lchown(path, -1, group)
    if not stat.S_ISLNK(info.st_mode):
        extra = 0o2770 if stat.S_ISDIR(info.st_mode) else 0o660
        path.chmod(stat.S_IMODE(info.st_mode) | extra)


def bind_subpath(volume: Path, subpath: str, target: Path, *, readonly: bool) -> Path:
    """
    Bind ``subpath`` of a volume at ``target`` so that no later symlink can move it elsewhere.

    Links inside the volume are followed as long as they stay inside; what is missing is made
    as a folder with the permissions of the volume's own. Raise ValueError for an escape. A bind
    mount of an opened descriptor, because the container that owns the volume may swap a path
    between the check and the mount.
    """
    top = volume.resolve()
    wanted = Path(os.path.normpath(top / subpath)).resolve()
    if not wanted.is_relative_to(top):
        raise ValueError(f'subPath "{subpath}" is not within the volume')
    with _opened(top, wanted.relative_to(top).parts, make=not readonly) as descriptor:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_mount() or target in mounts_below(target):
            unmount(target)
        if is_folder:
            target.mkdir(exist_ok=True)
        else:
            target.touch()
        mount(f"/proc/self/fd/{descriptor}", target, "", flags=MS_BIND | MS_REC)
    return target


def _set_mode(folder: int, mode: int) -> None:
    """Whatever the umask was; a folder that was opened as a path only has no fchmod."""
    kept = os.fstat(folder).st_mode & stat.S_ISGID  # inherited
    os.chmod(f"/proc/self/fd/{folder}", mode | kept)  # noqa: PTH101 - a descriptor, not a path


@contextlib.contextmanager
def _opened(top: Path, parts: tuple[str, ...], *, make: bool) -> Iterator[int]:
    """A descriptor of the path, each step opened without following links."""
    flags = os.O_PATH | os.O_NOFOLLOW
    descriptor = os.open(top, flags)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode) & 0o777
    try:
        for part in parts:
            try:
                following = os.open(part, flags, dir_fd=descriptor)
            except FileNotFoundError:
                if not make:
                    raise
                os.mkdir(part, mode, dir_fd=descriptor)
                following = os.open(part, flags, dir_fd=descriptor)
                _set_mode(following, mode)
            os.close(descriptor)
            descriptor = following
            if stat.S_ISLNK(os.fstat(descriptor).st_mode):
                raise ValueError(f'"{part}" became a symbolic link')
        yield descriptor
    finally:
        os.close(descriptor)
