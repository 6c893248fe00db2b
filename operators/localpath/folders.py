"""
Folders of volumes, made and removed so that nobody inside a volume can lead us elsewhere.

Every step below the configured path is opened relative to the one before and without following
links, and nothing on another file system is touched. What pods can write to lies behind such
a step, so a link that a pod puts there is never more than a name. Blocks: callers use a thread.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path, PurePosixPath

from operators.localpath.base import Refused, StorageError

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE, OPEN = 0o700, 0o777  # K3s's modes of the folder with the volumes, and of a volume


def parts(folder: str) -> tuple[str, ...]:
    """The steps of a relative path. Raises :class:`Refused` for one that leads elsewhere."""
    found = PurePosixPath(folder).parts
    if not found or folder.startswith("/") or ".." in found or "\0" in folder:
        raise Refused(f"folder path contains invalid references: {folder}")
    return found


@contextmanager
def parent(base: Path, folder: str, *, create: bool = False) -> Iterator[tuple[int, str]]:
    """
    The open folder that holds ``folder``, and its last name.

    ``base`` itself is the administrator's and may be a link. FileNotFoundError where a step
    is missing and is not to be made.
    """
    steps = parts(folder)
    if create:
        base.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
    here = os.open(base, _FOLDER & ~os.O_NOFOLLOW)
    try:
        device = os.fstat(here).st_dev
        for step in steps[:-1]:
            here = _enter(here, step, create=create)
            if os.fstat(here).st_dev != device:
                raise StorageError(f"{base / folder} lies in another file system than {base}")
        yield here, steps[-1]
    finally:
        os.close(here)


def make(base: Path, folder: str, mode: int = OPEN) -> bool:
    """Make a folder in one that is open to nobody else; False: it was there."""
    with parent(base, folder, create=True) as (above, name):
        os.fchmod(above, PRIVATE)
        try:
            os.mkdir(name, PRIVATE, dir_fd=above)
        except FileExistsError:
            os.close(_open(above, name))  # a folder, and no link to one
            return False
        with _opened(above, name) as made:
            os.fchmod(made, mode)
        os.fsync(above)
        return True


def own(base: Path, folder: str, *, owner: tuple[int, int], mode: int) -> None:
    """``owner``: user and group, -1 for as it is."""
    with parent(base, folder) as (above, name), _opened(above, name) as made:
        os.fchown(made, *owner)
        os.fchmod(made, mode)


def is_empty(base: Path, folder: str) -> bool:
    """True also for a folder that is not there."""
    try:
        with (
            parent(base, folder) as (above, name),
            _opened(above, name) as found,
            os.scandir(found) as entries,
        ):
            return next(entries, None) is None
    except FileNotFoundError:
        return True


def remove(base: Path, folder: str) -> None:
    """
    Remove a folder with all that is in it; idempotent.

    A link in its place is removed itself. Raises :class:`StorageError` where something is mounted.
    """
    try:
        with parent(base, folder) as (above, name):
            remove_at(above, name)
            os.fsync(above)
    except FileNotFoundError:
        return


def remove_at(above: int, name: str) -> None:
    try:
        found = os.stat(name, dir_fd=above, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(found.st_mode):
        os.unlink(name, dir_fd=above)
        return
    if found.st_dev != os.fstat(above).st_dev:
        raise StorageError(f"something is still mounted on {name}")
    with _opened(above, name) as top:
        _empty(top, found.st_dev)
    os.rmdir(name, dir_fd=above)


def _empty(top: int, device: int) -> None:
    """
    However deep it is: what lies in a folder of ``top`` is moved up to ``top`` before that goes.

    So two descriptors and no recursion are enough for any tree that somebody could make.
    """
    names = (f".pinnace-{number}" for number in count())
    left = True
    while left:
        left = False
        with os.scandir(top) as entries:
            for entry in entries:
                left = True
                if not entry.is_dir(follow_symlinks=False):
                    _unlink(entry.name, top)
                    continue
                with _opened(top, entry.name) as inner:
                    if os.fstat(inner).st_dev != device:
                        raise StorageError(f"something is still mounted on {entry.name}")
                    _flatten(inner, top, names)
                with suppress(FileNotFoundError, OSError):  # else the next round finds it
                    os.rmdir(entry.name, dir_fd=top)


def _flatten(inner: int, top: int, names: Iterator[str]) -> None:
    with os.scandir(inner) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _move_up(entry.name, inner, top, names)
            else:
                _unlink(entry.name, inner)


def _move_up(name: str, inner: int, top: int, names: Iterator[str]) -> None:
    for free in names:
        try:
            os.rename(name, free, src_dir_fd=inner, dst_dir_fd=top)
        except OSError as err:
            if err.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR}:
                continue
            if err.errno == errno.EBUSY:
                raise StorageError(f"something is still mounted on {name}") from err
            if err.errno != errno.ENOENT:
                raise
        return


def _unlink(name: str, above: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=above)


def _enter(here: int, step: str, *, create: bool) -> int:
    """Closes ``here`` in every case but an error."""
    if create:
        with suppress(FileExistsError):
            os.mkdir(step, PRIVATE, dir_fd=here)
    found = _open(here, step)
    os.close(here)
    return found


def _open(above: int, name: str) -> int:
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except OSError as err:
        if err.errno in {errno.ELOOP, errno.ENOTDIR}:
            raise Refused(f"{name} is not a folder: nothing follows a link here") from err
        raise


@contextmanager
def _opened(above: int, name: str) -> Iterator[int]:
    descriptor = _open(above, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
