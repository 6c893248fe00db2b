"""
What was found, and what would be done about it.

Nothing is ever destroyed: whatever has to leave its place goes to ``<data>/repair/<time>/``, at the
path that it had, for whoever wants it back.
"""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class State(enum.Enum):
    FINE = "fine"
    NOTE = "note"  # worth knowing; nothing is wrong
    WRONG = "WRONG"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    area: str  # "datastore"
    state: State
    text: str
    would: str = ""  # what mending does; "": nothing can be done from here
    mend: Callable[[], str] | None = None  # what was done. Raises OSError or Unmendable


class Unmendable(Exception):
    """It was tried; nothing is worse than before. The text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    yes: bool = False  # mend
    from_snapshot: str = ""  # "newest", or a file: the datastore is taken from it
    new_certificates: bool = False  # authorities and keys too


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where things are, and where they go aside."""

    settings: dict[str, Any]
    data: Path
    run: Path
    running: bool  # the node does: what it has open cannot be judged
    aside: Path  # <data>/repair/<time>; made when something goes there

    def set_aside(self, path: Path) -> Path:
        """A rename within one file system: it needs no space, and takes all of a folder along."""
        target = self.aside / path.relative_to(self.data)
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.rename(target)
        return target


def fine(area: str, text: str) -> Finding:
    return Finding(area=area, state=State.FINE, text=text)


def note(area: str, text: str) -> Finding:
    return Finding(area=area, state=State.NOTE, text=text)


def wrong(
    area: str, text: str, *, would: str = "", mend: Callable[[], str] | None = None
) -> Finding:
    return Finding(area=area, state=State.WRONG, text=text, would=would, mend=mend)
