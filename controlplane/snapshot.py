"""
``pinnace snapshot save``: a copy of the datastore, made while the server runs.

Another process than the server's makes it, through SQLite's own online backup,
so that it works just as well while the server is down.

The node takes one too before it tries another version (:func:`take`), and goes back to it with
:func:`written` and :func:`go_on_from`. It imports this module by name.
"""

import datetime as dt
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from controlplane.config import from_settings
from controlplane.store import rewind
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


def take(source: Path, target: Path) -> int:
    """Copy a store that nobody uses; the version of its schema. ``target`` must not exist."""
    try:
        backup_file(source, target)
        return rewind.schema_version(target)
    except (OSError, StoreError) as err:
        raise CannotSave(f"cannot write the snapshot {target}: {err}") from err


def make_whole(path: Path) -> None:
    """Take the write-ahead log of a store that nobody uses into its file."""
    try:
        rewind.fold(path)
    except StoreError as err:
        raise CannotSave(f"the log of {path} cannot be taken into it: {err}") from err


def written(before: Path, after: Path) -> Iterator[dict[str, Any]]:
    """
    What was written between two copies: ``{"verb", "apiVersion", "kind", "namespace", "name",
    "object"}``, by key. ``after`` is made whole in itself first.
    """
    try:
        rewind.fold(after)
        for item in rewind.difference(before, after):
            yield {"verb": item.verb} | _described(item)
    except StoreError as err:
        raise CannotSave(f"what was written cannot be told: {err}") from err


def go_on_from(path: Path, other: Path | None) -> None:
    """Let a copy take over from ``other``, which was in use: see :mod:`.store.rewind`."""
    try:
        rewind.supersede(path, other)
    except StoreError as err:
        raise CannotSave(str(err)) from err


def _described(item: rewind.Written) -> dict[str, Any]:
    parts = item.key.strip("/").split("/")
    plain = {"kind": parts[1] if len(parts) > 1 else "", "namespace": "", "name": parts[-1]}
    try:
        found = json.loads(item.value)
        metadata = found["metadata"]
        return {
            "apiVersion": str(found.get("apiVersion", "")),
            "kind": str(found.get("kind", plain["kind"])),
            "namespace": str(metadata.get("namespace", "")),
            "name": str(metadata["name"]),
            "object": found,
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return {"apiVersion": "", "object": None} | plain  # not an object: a counter of ours
