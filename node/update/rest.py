"""
Whether anything is left to do about an update: a look at one small file, for those who are there
at idle or must start fast, and load nothing else of this folder.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STATE, UNTOLD, VOID = "state.json", "untold", "void"
_BY_ONE_ALONE = ("Switching", "Trial")
_ENDS = ("Committed", "RolledBack", "Refused", "Failed")
_DAMAGED = "?"
# Which slot this start is of: of an image, or of a package on a plain Debian.
_SLOTS = (Path("/run/pinnace-boot/slot"), Path("/run/pinnace-package/slot"))


def needs_one_alone(folder: Path) -> bool:
    """``folder``: ``<data>/update``. Whether something is to be done before children start."""
    return _phase(folder) in (*_BY_ONE_ALONE, _DAMAGED)


def needs_the_agent(folder: Path) -> bool:
    """Whether an update goes on, or came to an end of which nobody was told yet."""
    phase = _phase(folder)
    return bool(phase) and (phase not in _ENDS or (folder / UNTOLD).exists())


def running_slot() -> str:
    """ "": not known."""
    for path in _SLOTS:
        with contextlib.suppress(OSError):
            return path.read_text().strip()
    return ""


def mark_void(folder: Path, slot: str) -> None:
    """
    Children are started in ``slot`` although who was alone has died: from now on they write.

    In the old slot that makes the snapshot void. In the new one it is the trial that writes, which
    is to be undone as ever. On disk when it returns; ``OSError`` where it is not.
    """
    if slot and slot == _read(folder).get("to_slot"):
        return
    (folder / VOID).touch()
    for path in (folder / VOID, folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_answered(request: str, report: str) -> bool:
    """Of the two annotations of a Node: the report answers the request, and is its end."""
    with contextlib.suppress(ValueError, AttributeError):
        asked, said = json.loads(request), json.loads(report or "{}")
        defaults = (("uid", ""), ("version", ""), ("attempt", 1), ("rollback", False))
        same = all(asked.get(name, default) == said.get(name) for name, default in defaults)
        return same and said.get("phase") in _ENDS
    return False


def _phase(folder: Path) -> str:
    """ "": there is no update, and never was one."""
    try:
        return str(_read(folder)["phase"]) if (folder / STATE).exists() else ""
    except KeyError:
        return _DAMAGED


def _read(folder: Path) -> Mapping[str, Any]:
    """Empty where it cannot be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / STATE).read_bytes())
        return found if isinstance(found, dict) else {}
    return {}
