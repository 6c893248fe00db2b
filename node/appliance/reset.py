"""
Factory reset: everything that was made since the first start goes; volumes stay where wanted.

``keep`` keeps what is in local-path volumes (images, snapshots and quotas of them too) and the
PersistentVolumes that say where it is: they are written to the manifests folder, each
reserved for the claim that had it, so that a claim of the same name in the same namespace finds
its data again. All else goes: objects, certificates, tokens, container images, updates, and on an
appliance ``/etc``, ``/var`` and ``/root`` of both slots. ``wipe`` keeps nothing, and tells the
flash that its blocks are free; what a card does with that is the card's affair.

Whoever is cut off in between begins again and comes to the same end: what is needed to go on is
written before anything is removed. The marker that asked for it goes last.
"""

import contextlib
import fcntl
import importlib
import json
import os
import shutil
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from node.host import mounts

MARKER = "factory-reset"  # on the config partition
MODES = ("keep", "wipe")
VOLUMES = "kept-volumes.json"  # what keep writes down first; beside the volumes
MANIFEST = "kept-volumes.yaml"  # JSON is YAML
DONE = ".factory-reset-done"  # which marker was followed, where it cannot be removed
_SYSTEM = Path("/var/lib/pinnace")  # what volumes' paths begin with, on an appliance
_OWN = ".pinnace"
_FITRIM = 0xC0185879
_NEVER_PRUNED = {"objectset.rio.cattle.io/prune": "false"}


def requested(config: Path) -> str:
    """ "keep", "wipe" or "": nothing is asked for. ValueError for any other word."""
    try:
        words = (config / MARKER).read_text(errors="replace").split()
    except (FileNotFoundError, NotADirectoryError):
        return ""
    word = words[0].lower() if words else ""
    if word not in MODES:
        raise ValueError(f'{MARKER} must hold the word "keep" or "wipe", not {word[:40]!r}')
    return word


def perform(mode: str, data: Path) -> None:
    """
    Reset a data partition on which nothing runs and below which nothing is mounted.

    Raises OSError; it may be called again.
    """
    if mode == "keep":
        clear(mode, data / "pinnace", system=_SYSTEM, above=data)
    else:
        _remove(data, frozenset())
        _trim(data)
    _sync(data)


def clear(
    mode: str, folder: Path, *, system: Path | None = None, above: Path | None = None
) -> None:
    """
    Reset one data folder. ``system``: what paths in the datastore begin with instead of
    ``folder``. ``above``: the folder around it, in which nothing else is kept. Raises OSError.
    """
    if mode == "wipe":
        _remove(folder, frozenset())
        _sync(folder)
        return
    kept = _write_down(folder, system or folder)
    places = {folder / "storage", *(_place(v, folder, system or folder) for v in kept)}
    inside = frozenset(place for place in places if place.is_relative_to(folder))
    if above is not None:
        inside |= {place for place in places if place.is_relative_to(above)}
    _remove(above or folder, inside)
    if kept:
        manifests = folder / "server" / "manifests"
        manifests.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(manifests / MANIFEST, {"apiVersion": "v1", "kind": "List", "items": kept})


def follow(config: Path, data: Path, *, flags: int) -> str:
    """
    Do what is asked for, once; what was done, "": nothing. ``config`` is mounted read-only, with
    ``flags``. Raises ValueError as :func:`requested`, and OSError.
    """
    mode = requested(config)
    if not mode or was_followed(config, data):
        return ""
    perform(mode, data)
    try:
        mounts.remount(config, flags=flags & ~mounts.READ_ONLY)
        (config / MARKER).unlink()
        _sync(config)
    except OSError:
        remember(config, data)
    finally:
        with contextlib.suppress(OSError):
            mounts.remount(config, flags=flags)
    return "volumes were kept, all else is as new" if mode == "keep" else "all is as new"


def was_followed(config: Path, data: Path) -> bool:
    """Whether this very marker was followed before, and only could not be removed."""
    with contextlib.suppress(OSError):
        return (data / DONE).read_text() == _identity(config / MARKER)
    return False


def remember(config: Path, data: Path) -> None:
    """The marker cannot be removed: another start must not reset again."""
    (data / DONE).write_text(_identity(config / MARKER))
    _sync(data)


def _identity(marker: Path) -> str:
    found = marker.stat()
    return f"{marker.read_text(errors='replace').strip()} {found.st_size} {found.st_mtime_ns}"


# -- the volumes


def _write_down(folder: Path, system: Path) -> list[dict[str, Any]]:
    """The volumes to be found again: of the datastore, or as they were written down before."""
    path = folder / "storage" / _OWN / VOLUMES
    state = folder / "server" / "db" / "state.db"
    before: list[dict[str, Any]] = []
    with contextlib.suppress(OSError, ValueError):
        before = json.loads(path.read_text())
    if not state.exists():
        return before
    module = importlib.import_module("controlplane.salvage")
    found = {
        volume["metadata"]["name"]: _bare(volume)
        for volume in module.volumes(state)
        if _is_local(volume, system) and _place(volume, folder, system).is_dir()
    }
    kept = [v for v in before if v["metadata"]["name"] not in found] + list(found.values())
    if kept:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        _write(path, kept)
    return kept


def _source(volume: Mapping[str, Any]) -> Mapping[str, Any]:
    spec = volume.get("spec") or {}
    return spec.get("local") or spec.get("hostPath") or {}


def _is_local(volume: Mapping[str, Any], system: Path) -> bool:
    path = Path(str(_source(volume).get("path") or "/"))
    return path.is_relative_to(system) and path != system and ".." not in path.parts


def _place(volume: Mapping[str, Any], folder: Path, system: Path) -> Path:
    return folder / Path(str(_source(volume)["path"])).relative_to(system)


def _bare(volume: Mapping[str, Any]) -> dict[str, Any]:
    """What can be created again: reserved for its claim by name, whatever that will be."""
    meta, spec = volume["metadata"], dict(volume["spec"])
    held = spec.get("claimRef")
    if held:
        spec["claimRef"] = {k: v for k, v in held.items() if k not in {"uid", "resourceVersion"}}
    annotations = {
        name: text
        for name, text in (meta.get("annotations") or {}).items()
        if not name.startswith("pv.kubernetes.io/bound-by")
        and name != "kubectl.kubernetes.io/last-applied-configuration"
    }
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {
            "name": meta["name"],
            "labels": {**(meta.get("labels") or {}), **_NEVER_PRUNED},
            "annotations": annotations,
        },
        "spec": spec,
    }


# -- the disk


def _remove(folder: Path, kept: Iterable[Path]) -> None:
    """All that is in the folder but what is kept; links are removed, never followed."""
    kept = frozenset(kept)
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        if child in kept or child.name == "lost+found":
            continue
        is_folder = stat.S_ISDIR(child.lstat().st_mode)
        if is_folder and any(place.is_relative_to(child) for place in kept):
            _remove(child, kept)
        elif is_folder:
            shutil.rmtree(child)
        else:
            child.unlink()


def _write(path: Path, content: Any) -> None:
    draft = path.with_name(f".{path.name}.new")
    with draft.open("w") as file:
        draft.chmod(0o600)
        json.dump(content, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    _sync(path.parent)


def _sync(folder: Path) -> None:
    if not folder.is_dir():
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
    os.sync()


def _trim(folder: Path) -> None:
    """Tell the flash what is free, so that it may erase it. Many cards cannot, and say so."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(handle, _FITRIM, struct.pack("=QQQ", 0, 2**64 - 1, 0))
    finally:
        os.close(handle)
