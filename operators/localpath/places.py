"""
Where things lie below a configured path, and whether a PersistentVolume tells the truth. Pure.

    <base>/<folder>                          a volume; an image is mounted on it
    <base>/.pinnace/images/<folder>.img      its image
    <base>/.pinnace/quotas/<folder>          says that it has a project quota
    <base>/.pinnace/snapshots/<name>[.img]   a snapshot
    <base>/.pinnace/making/<name>            what was begun and is not finished
    <base>/.pinnace/mounts/<name>            where an image is mounted for a moment

A PersistentVolume is an object that others can write: nothing of it is believed
that does not lie where a volume of ours would.
"""

from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from operators.localpath.base import OWN_FOLDER, Place, Refused, Volume

_LONGEST = 200  # bytes of a file's name, with room for our endings


def image(base: Path, folder: str) -> Path:
    return base / OWN_FOLDER / "images" / f"{file_name(folder)}.img"


def quota_mark(base: Path, folder: str) -> Path:
    return base / OWN_FOLDER / "quotas" / file_name(folder)


def snapshot(base: Path, name: str) -> Path:
    """As a folder; as an image, with .img behind it."""
    return base / OWN_FOLDER / "snapshots" / file_name(name)


def note(base: Path, name: str) -> Path:
    return base / OWN_FOLDER / "making" / file_name(name)


def scratch(base: Path, name: str) -> Path:
    return base / OWN_FOLDER / "mounts" / file_name(name)


def file_name(folder: str) -> str:
    quoted = quote(folder, safe=" @:+,=")
    if len(quoted.encode()) > _LONGEST:
        digest = sha256(folder.encode()).hexdigest()[:32]
        return f"{quoted[: _LONGEST - 40]}~{digest}"
    return quoted.replace(".", "%2E", 1) if quoted.startswith(".") else quoted


def clean(folder: str) -> str:
    """A folder below a base, without a slash at its end. Raises :class:`Refused`."""
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in folder:
        raise Refused(f"folder path contains invalid references: {folder}")
    if path.parts[0] == OWN_FOLDER:
        raise Refused(f"{OWN_FOLDER} is for images and snapshots: {folder}")
    return str(path)


def locate(volume: Volume, bases: Iterable[Path], *, node: str, shared: bool) -> Place:
    """Raises :class:`Refused` for a PersistentVolume that points where no volume of ours is."""
    path = PurePosixPath(volume.path)
    if ".." in path.parts or not path.is_absolute():
        raise Refused(f"path {volume.path!r} is not absolute and plain")
    inside = [base for base in bases if path.is_relative_to(base) and str(path) != str(base)]
    if not inside:
        raise Refused(f"path {volume.path!r} is not within a configured path of node {node}")
    base = max(inside, key=lambda found: len(found.parts))
    folder = clean(str(path.relative_to(base)))
    expected = image(base, folder)
    if volume.image is not None and volume.image != str(expected):
        raise Refused(f"image {volume.image!r} is not that of the volume, {str(expected)!r}")
    return Place(
        name=volume.name,
        node=node,
        base=base,
        folder=folder,
        size=volume.size,
        enforced_by=volume.enforced_by,
        image=expected if volume.image is not None else None,
        shared=shared,
    )
