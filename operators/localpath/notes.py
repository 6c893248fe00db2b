"""
Notes of what is being made, on the disk beside it, so that a crash leaves nothing behind unseen.

A note is written before anything else and removed after the API knows. Blocks.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from operators.localpath import places
from operators.localpath.base import OWN_FOLDER
from operators.localpath.images import sync_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    name: str  # of the volume or the snapshot
    kind: str  # "volume" | "snapshot"
    folder: str
    size: int  # bytes that were promised to it
    kept: bool = False  # the folder was there before
    claim: str = ""
    uid: str = ""


def write(base: Path, note: Note) -> None:
    path = places.note(base, note.name)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (base / OWN_FOLDER).chmod(0o700)
    draft = path.with_name(path.name + ".new")
    with draft.open("w") as file:
        json.dump(asdict(note), file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def read(base: Path, name: str) -> Note | None:
    try:
        return Note(**json.loads(places.note(base, name).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def remove(base: Path, name: str) -> None:
    places.note(base, name).unlink(missing_ok=True)


def every(bases: Iterable[Path]) -> Iterator[tuple[Path, Note]]:
    """Those in their places; somebody may be writing a draft beside them."""
    for base in bases:
        for path in (base / OWN_FOLDER / "making").glob("*"):
            if note := _note_at(base, path):
                yield base, note


def sweep(base: Path) -> None:
    """Remove drafts, which may be whole: nothing was begun. While nobody writes any."""
    for path in (base / OWN_FOLDER / "making").glob("*"):
        if _note_at(base, path) is None:
            path.unlink(missing_ok=True)


def _note_at(base: Path, path: Path) -> Note | None:
    try:
        note = Note(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return note if path == places.note(base, note.name) else None
