"""
The copy of the datastore that is made before another version is tried, and its way back.

It is made when the control plane has ended and before the other slot is chosen. On the way back
the trial's datastore is moved to the folder of kept things, and the copy is moved into its place:
renames within one filesystem, which need no space and can be done again from any point.
Everything blocks; it runs where no event loop does.
"""

import importlib
import json
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from node.host.files import sync_directory, write_atomic
from node.update import kept
from node.update.base import InstallError
from node.update.steps import Kept, Taken

LOG = logging.getLogger(__name__)
_SPARE_BYTES = 16 << 20  # to be left for the node after a copy
_MOST_MANIFESTS = 32 << 20


class Datastore:
    """The embedded datastore of one data folder, and the manifests that belong to it."""

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / "server" / "db" / "state.db"
        self.manifests = data_dir / "server" / "manifests"
        self.snapshots = data_dir / "update" / "snapshot"
        self.previous = data_dir / "update" / "previous"
        self.kept = data_dir / "update" / "kept"

    def take(self, name: str) -> Taken | None:
        """
        Make the snapshot ``name``; older ones go. None: there is no datastore yet.

        Raises :class:`InstallError`.
        """
        self.drop()
        if not self.path.exists():
            return None
        try:
            self.snapshots.mkdir(mode=0o700, parents=True)
            sync_directory(self.snapshots.parent)
            self._check_space()
            self._copy_manifests(self.snapshots / "manifests")
            return Taken(name=name, schema=self._copy(self.snapshots / f"{name}.db"))
        except OSError as err:
            raise InstallError(f"cannot write the snapshot: {err}") from err

    def _check_space(self) -> None:
        wanted = sum(
            p.stat().st_size for p in (self.path, _beside(self.path, "-wal")) if p.exists()
        )
        free = shutil.disk_usage(self.snapshots).free
        if free < wanted + _SPARE_BYTES:
            raise InstallError(
                f"no space for a snapshot of the datastore: {free >> 20} MiB are free and "
                f"{(wanted + _SPARE_BYTES) >> 20} MiB needed"
            )

    def _copy(self, target: Path) -> int:
        module = importlib.import_module("controlplane.snapshot")
        try:
            return int(module.take(self.path, target))
        except module.CannotSave as err:
            raise InstallError(str(err)) from err

    def restore(self, name: str, keep_as: str) -> Kept:
        """
        Put the snapshot in the datastore's place, and keep what was there as ``keep_as``.

        It may be called again after any interruption, with the same names. ``name`` "": there is
        none, and nothing is done. Raises ``OSError``: then the datastore is as the trial left it.
        """
        if not name:
            return Kept(count=0, note="no snapshot belonged to it: the datastore is as it was left")
        folder, source = self.kept / keep_as, self.snapshots / f"{name}.db"
        if not source.exists() and not (folder / "state.db").exists():
            raise FileNotFoundError(f"the snapshot {source} is gone")
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_directory(self.kept)
        self._swap(source, folder)
        told = self._tell(folder)
        try:
            self._swap_manifests(folder / "manifests")
        except OSError as err:
            note = f"the manifests are as it left them: {err}"
            return Kept(count=told.count, note=f"{told.note}; {note}" if told.note else note)
        return told

    def _swap(self, source: Path, folder: Path) -> None:
        """
        There is a datastore at every instant: the trial's, until the snapshot replaces it.

        Its file gets a second name, when all that belongs to it is in it or was moved.
        """
        aside = folder / "state.db"
        if not aside.exists() and self.path.exists():
            self._fold(_beside(aside, "-wal"))
            _beside(self.path, "-shm").unlink(missing_ok=True)
            sync_directory(folder)
            sync_directory(self.path.parent)
            _second_name(self.path, aside)
            sync_directory(folder)
        if source.exists():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            source.replace(self.path)
            sync_directory(self.path.parent)
            sync_directory(source.parent)

    def _fold(self, aside: Path) -> None:
        """Take the write-ahead log into the file; a damaged one is kept beside it."""
        log, module = _beside(self.path, "-wal"), importlib.import_module("controlplane.snapshot")
        if log.exists():
            try:
                module.make_whole(self.path)
            except module.CannotSave as err:
                LOG.warning("%s", err)
        if log.exists():
            log.replace(aside)

    def _tell(self, folder: Path) -> Kept:
        """The lists, and a datastore that its readers can follow; neither stops the way back."""
        module = importlib.import_module("controlplane.snapshot")
        aside = folder / "state.db"
        other = aside if aside.exists() else None
        count, note = 0, ""
        try:
            if other is not None:
                count = kept.write_list(folder, module.written(self.path, other))
        except (OSError, module.CannotSave) as err:
            note = f"what it wrote is in {folder}, and no list could be made of it: {err}"
        if count:
            note = f"what it wrote is kept in {folder}: {kept.summary(kept.read_list(folder))}"
        try:
            module.go_on_from(self.path, other)
        except module.CannotSave as err:
            LOG.warning("watchers may miss what is gone: %s", err)
        return Kept(count=count, note=note)

    # -- the manifests of the server: another version brings others of its own

    def _copy_manifests(self, target: Path) -> None:
        files = {p: p.stat().st_size for p in self.manifests.rglob("*") if p.is_file()}
        if sum(files.values()) > _MOST_MANIFESTS:
            LOG.warning("%s is too large for a snapshot and stays as it is", self.manifests)
            return
        staged = target.with_name(f".{target.name}")
        for path in files:
            copy = staged / path.relative_to(self.manifests)
            copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copy2(path, copy)
        if staged.exists():
            os.sync()
            staged.replace(target)
            sync_directory(target.parent)

    def _swap_manifests(self, aside: Path) -> None:
        """Files that the trial wrote or changed are kept; those of the snapshot come back."""
        source = self.snapshots / "manifests"
        if not source.is_dir():
            return
        theirs, ours = _contents(self.manifests), _contents(source)
        for name, content in theirs.items():
            if ours.get(name) != content and not (aside / name).exists():
                (aside / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_atomic(aside / name, content, mode=0o600)
            if name not in ours:
                (self.manifests / name).unlink()
        for name, content in ours.items():
            if theirs.get(name) != content:
                (self.manifests / name).parent.mkdir(parents=True, exist_ok=True)
                write_atomic(self.manifests / name, content, mode=0o600)

    # -- what becomes of a snapshot that is not needed any more

    def keep_previous(self, name: str, about: Mapping[str, Any]) -> None:
        """
        A trial was committed: its snapshot is the last word of the version before.

        ``about``: ``{"version": …, "schema": …}``. It is never restored by itself, since it
        would take back what was written after it. The next one takes its place.
        """
        source = self.snapshots / f"{name}.db"
        if name and source.exists():
            self.previous.mkdir(mode=0o700, parents=True, exist_ok=True)
            source.replace(self.previous / "state.db")
            write_atomic(self.previous / "about.json", json.dumps(about) + "\n", mode=0o600)
        self.drop()

    def previous_schema(self, version: str) -> int | None:
        """Of the datastore that this version last wrote, where that is known."""
        try:
            about = json.loads((self.previous / "about.json").read_text())
            return int(about["schema"]) if about["version"] == version else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def drop(self) -> None:
        if self.snapshots.exists():
            shutil.rmtree(self.snapshots)
            sync_directory(self.snapshots.parent)


def file_name(text: str) -> str:
    """A version, or what was given as one, as part of a file's name."""
    return re.sub(r"[^A-Za-z0-9.+_-]", "_", text)[:100] or "unknown"


def _contents(folder: Path) -> dict[str, bytes]:
    if not folder.is_dir():
        return {}
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _second_name(path: Path, other: Path) -> None:
    try:
        other.hardlink_to(path)
    except OSError:
        path.replace(other)  # a filesystem without links


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)
