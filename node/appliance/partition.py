"""
Writing to the config partition: read-only at all other times, and FAT at any.

It is mounted so that a power cut finds nothing to destroy. Who writes does so for a moment, one
after the other: a lock keeps somebody's return to read-only from coming between another's writes.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from node.host import mounts
from node.host.files import sync_directory
from node.host.mountinfo import at

FOLDER = Path("/boot/pinnace")
LOCK = Path("/run/pinnace-boot/config.lock")
_REMOUNT = 0x20
_FLAGS = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTE
_TRIES = 20


@contextlib.contextmanager
def writable(folder: Path = FOLDER, lock: Path = LOCK) -> Iterator[None]:
    """
    The folder can be written to within this block, and is on the card after it. Blocks.

    A plain folder, or one that is writable already, stays as it is. ``OSError``: the card is
    write-protected or broken.
    """
    lock.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        mounted = at(folder)
        # Nothing but a card's partition: whatever else is read-only is so for a reason.
        if mounted is None or not mounted.read_only or mounted.kind != "vfat":
            yield
            return
        mounts.mount("", folder, "", flags=_REMOUNT | _FLAGS)
        try:
            yield
        finally:
            _sync(folder)
            _read_only(folder)
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    sync_directory(folder)


def _read_only(folder: Path) -> None:
    for attempt in range(_TRIES):
        try:
            mounts.mount("", folder, "", flags=_REMOUNT | _FLAGS | mounts.READ_ONLY)
        except OSError as err:
            # A reader of an unlinked file, or a shell with one open: gone in a moment, or it stays
            # writable until the next who writes.
            if err.errno != errno.EBUSY or attempt == _TRIES - 1:
                return
            time.sleep(0.05)
        else:
            return


def replace(path: Path, content: bytes) -> None:
    """
    A file of the partition, new: written beside it, then renamed.

    FAT has no rename that a power cut cannot come between, so that afterwards one of the two
    may be there, but never half a file under that name.
    """
    draft = path.with_name(f"{path.stem[:8]}.new")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_directory(path.parent)
