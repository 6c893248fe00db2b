"""
Room on the disk that nobody else can take, so that a full disk can be tidied up.

A deletion is a row more in the log: on a disk that is full nobody could delete anything. So
two files lie beside the datastore. When a write finds no space the first is given up, and
only what makes less of it is accepted: deletions, and the small changes that go before them.
When that is used up too, the second is for deletions alone. Once there is space again both are
made anew; a write that would be refused looks whether there is. The files are allocated, never
written.
"""

import logging
import os
import shutil
from pathlib import Path

LOG = logging.getLogger(__name__)
SIZE = 8 << 20  # bytes
_SHARES = (3, 1)  # of four
_SMALL = 32 << 10  # bytes of an object that may still be changed
_BESIDE = 2 << 20  # bytes that must be free beside the reserve


class Reserve:
    """Its mutable state is ``level``: how many of the files were given up."""

    def __init__(self, path: Path, size: int) -> None:
        """Beside the datastore ``path``; ``size`` in bytes, 0: there is none."""
        self._files = [
            (path.with_name(f"{path.name}.reserve{number}"), size * share // 4)
            for number, share in enumerate(_SHARES, start=1)
        ]
        self._size = size
        self.level = 0

    def take(self) -> None:
        """Make what is missing, where there is space for that. Blocks."""
        if not self._size:
            return
        missing = [(file, size) for file, size in self._files if not _has(file, size)]
        try:
            free = shutil.disk_usage(self._files[0][0].parent).free
            if missing and free < sum(size for _, size in missing) + _BESIDE:
                return
            for file, size in missing:
                _allocate(file, size)
        except OSError as err:
            LOG.warning("no space is reserved for the datastore: %s", err.strerror)
            return
        if self.level:
            LOG.warning("there is space for the datastore again: all is accepted")
        self.level = 0

    def give(self) -> bool:
        """A write found no space: give up a file. False: there is none left."""
        for level, (file, _) in enumerate(self._files[self.level :], start=self.level + 1):
            try:
                file.unlink()
            except OSError:
                continue
            self.level = level
            what = "deletions and small changes" if level == 1 else "deletions"
            LOG.error("no space left for the datastore: only %s are accepted", what)
            return True
        return False

    def allows(self, value: bytes | None, *, is_new: bool) -> bool:
        """Whether this may be written; ``value`` None is a deletion."""
        if not self.level or value is None:
            return True
        return self.level == 1 and not is_new and len(value) <= _SMALL


def _has(file: Path, size: int) -> bool:
    try:
        return file.stat().st_size == size
    except OSError:
        return False


def _allocate(file: Path, size: int) -> None:
    handle = os.open(file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError:
        file.unlink(missing_ok=True)
        raise
    finally:
        os.close(handle)
