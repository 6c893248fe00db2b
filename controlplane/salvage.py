"""
What ``pinnace repair`` and a factory reset ask of a datastore that nobody uses.

Looked at and mended here, by those who know how it is kept; the node imports this by name.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlplane.store import salvage
from controlplane.store.base import StoreError

_VOLUMES = "/core/persistentvolumes/"


class CannotMend(Exception):
    """Nothing was changed; the text is one line."""


def wrong_with(path: Path) -> str:
    """ "" for a datastore that is sound, or not there; else what is wrong."""
    return salvage.is_sound(path) if path.exists() else ""


def objects(path: Path) -> int:
    """How many there are that can be read."""
    try:
        return sum(1 for _ in salvage.live(path))
    except StoreError:
        return 0


def mend(path: Path, target: Path) -> str:
    """Make a sound one of what can be read; what it holds, in one line."""
    try:
        made = salvage.salvage(path, target)
    except (OSError, StoreError) as err:
        raise CannotMend(str(err)) from err
    text = f"{made.objects} objects"
    if made.lost_ranges:
        text += f"; {len(made.lost_ranges)} changes cannot be read"
    if made.unreadable:
        text += f"; without {', '.join(made.unreadable[:10])}"
    return text + ("; what was deleted lately may be back" if made.raw else "")


def volumes(path: Path) -> Iterator[dict[str, Any]]:
    """The PersistentVolumes, as far as they can be read."""
    try:
        for key, value in salvage.live(path):
            if key.startswith(_VOLUMES):
                try:
                    yield json.loads(value)
                except ValueError:
                    continue
    except StoreError:
        return
