"""
The datastore: sound, damaged or lost; a new one made of what can be read, or of a snapshot.
"""

import importlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from node.repair.base import Finding, Options, Place, Unmendable, fine, note, wrong
from node.supervise.clock import LAST_SEEN

AREA = "datastore"
_BESIDE = ("", "-wal", "-shm")


def look(place: Place, options: Options) -> Iterator[Finding]:
    salvage = importlib.import_module("controlplane.salvage")
    path = place.data / "server" / "db" / "state.db"
    sound = [s for s in snapshots(place.data) if not salvage.wrong_with(s)]
    if options.from_snapshot:
        yield _wanted_from(place, options, sound)
        return
    if not path.exists() or not path.stat().st_size:
        yield _lost(place, sound)
        return
    if why := salvage.wrong_with(path):
        count = salvage.objects(path)
        text = f"damaged ({why[:200]}); {count} objects can be read"
        if sound:
            held = salvage.objects(sound[0])
            text += f"; the newest sound snapshot, {sound[0]}, has {held}"
        if count:
            yield wrong(
                AREA,
                text,
                would="make a new one of what can be read, or with --from-snapshot of a snapshot",
                mend=lambda: _salvage(place, path),
            )
        else:
            yield _lost(place, sound, text)
        return
    yield fine(AREA, f"{salvage.objects(path)} objects")
    if sound:
        yield note(AREA, f"{len(sound)} sound snapshots, the newest is {sound[0]}")


def snapshots(data: Path) -> list[Path]:
    """The newest first: people's own, and those of updates."""
    folders = (data / "server" / "db" / "snapshots", data / "update" / "snapshot")
    found = [p for folder in folders if folder.is_dir() for p in folder.glob("*.db")]
    return sorted(found, key=lambda p: p.stat().st_mtime, reverse=True)


def _lost(place: Place, sound: list[Path], text: str = "") -> Finding:
    pods = place.data / "agent" / "pods"
    was_used = (place.data / LAST_SEEN).exists() or (pods.is_dir() and any(pods.iterdir()))
    if not text and not was_used:
        return fine(AREA, "none yet")
    text = text or "lost"
    if not sound:
        text += "; there is no sound snapshot: `pinnace server --begin-empty` begins anew"
        return wrong(AREA, text)
    return wrong(
        AREA,
        text,
        would=f"take the snapshot {sound[0]}",
        mend=lambda: _restore(place, sound[0]),
    )


def _wanted_from(place: Place, options: Options, sound: list[Path]) -> Finding:
    if options.from_snapshot == "newest":
        chosen = sound[0] if sound else None
    else:
        chosen = Path(options.from_snapshot)
        salvage = importlib.import_module("controlplane.salvage")
        if not chosen.is_file() or salvage.wrong_with(chosen):
            chosen = None
    if chosen is None:
        return wrong(AREA, f"there is no sound snapshot {options.from_snapshot}")
    return wrong(
        AREA,
        f"to be taken from the snapshot {chosen}",
        would="what was written since then goes aside",
        mend=lambda: _restore(place, chosen),
    )


def _salvage(place: Place, path: Path) -> str:
    salvage = importlib.import_module("controlplane.salvage")
    made = path.with_name("repaired.db")
    _remove(made)
    try:
        text: str = salvage.mend(path, made)
    except salvage.CannotMend as err:
        _remove(made)
        raise Unmendable(str(err)) from err
    _take_place(place, path, made)
    return f"a new one with {text}; the old one is in {place.aside}"


def _restore(place: Place, snapshot: Path) -> str:
    module = importlib.import_module("controlplane.snapshot")
    path = place.data / "server" / "db" / "state.db"
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name("repaired.db")
    _remove(made)
    shutil.copyfile(snapshot, made)
    made.chmod(0o600)
    try:
        module.go_on_from(made, path if path.exists() else None)
    except module.CannotSave as err:
        _remove(made)
        raise Unmendable(str(err)) from err
    _take_place(place, path, made)
    return f"taken from {snapshot}; what there was is in {place.aside}"


def _take_place(place: Place, path: Path, made: Path) -> None:
    """The log first: without it the old file is the older state, with it a strange one."""
    for suffix in reversed(_BESIDE):
        old = path.with_name(path.name + suffix)
        if old.exists():
            place.set_aside(old)
    made.rename(path)
    for suffix in ("-wal", "-shm", ".lock", ".reserve1", ".reserve2"):
        made.with_name(made.name + suffix).unlink(missing_ok=True)


def _remove(made: Path) -> None:
    for suffix in (*_BESIDE, ".lock"):
        made.with_name(made.name + suffix).unlink(missing_ok=True)
