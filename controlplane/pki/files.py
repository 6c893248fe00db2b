"""
Reading and writing small secret files so that a power cut leaves old or new, never half.

Files that belong together are staged first and moved into place at the end, in
the order of staging: one journal flush instead of one for each file, which on
an SD card is the difference between 50 ms and a second. Blocking; call it in a
thread or before the event loop runs.
"""

import os
from pathlib import Path


class PkiError(Exception):
    """A file that cannot be used and must not be made anew silently; says what to do."""


class Drafts:
    """
    Files to be written together.

    Its mutable state is the list of staged files; :meth:`commit` empties it.
    """

    def __init__(self) -> None:
        self._staged: list[tuple[Path, Path]] = []

    def stage(self, path: Path, content: bytes, *, mode: int = 0o600) -> None:
        make_directory(path.parent)
        draft = path.with_name(f".{path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(draft, flags, mode)
        with os.fdopen(handle, "wb") as file:
            os.fchmod(handle, mode)
            file.write(content)
        self._staged.append((draft, path))

    def commit(self) -> None:
        for draft, _ in self._staged:
            _sync(draft)
        for draft, path in self._staged:
            draft.replace(path)
        for directory in {path.parent for _, path in self._staged}:
            _sync(directory)
        self._staged.clear()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_directory(path: Path) -> None:
    """With its parents; private, because keys live there. What exists keeps its mode."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)


def read(path: Path) -> bytes | None:
    """None: not there. Raises :class:`PkiError` for what cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as err:
        raise PkiError(f"{path} cannot be read ({err.strerror}): check its owner and mode") from err


def make_private(path: Path) -> None:
    """Take group's and others' rights away, as after a restore from a backup."""
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)
