"""
``pinnace snapshot save``: a copy of the datastore, made while the server runs.

Another process than the server's makes it, through SQLite's own online backup,
so that it works just as well while the server is down.
"""

import datetime as dt
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from controlplane.config import from_settings
from controlplane.store.base import StoreError
from controlplane.store.file import backup_file


class CannotSave(Exception):
    """No snapshot was made; the text is one line that says what to do."""


def save(settings: Mapping[str, Any], name: str = "") -> Path:
    """
    Write ``<data>/server/db/snapshots/<name>`` and return its path; with a slash in it
    ``name`` is a path of its own. Without one it is made from the node's name and the time.
    """
    config = from_settings(settings)
    source = config.server_dir / "db" / "state.db"
    if not source.exists():
        raise CannotSave(f"there is no datastore at {source}: name its folder with --data-dir")
    now = dt.datetime.now(dt.UTC)  # noqa: TID251 - a command's own start
    name = name or f"on-demand-{config.node_name}-{now:%Y%m%d%H%M%S}.db"
    folder = config.server_dir / "db" / "snapshots"
    target = Path(name) if os.sep in name else folder / name
    if target.exists():
        raise CannotSave(f"{target} exists already: choose another --name")
    try:
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        backup_file(source, target)
    except (OSError, StoreError) as err:
        raise CannotSave(f"cannot write the snapshot {target}: {err}") from err
    return target
