"""
The manifests folder on disk: which files count, in what order, and what is put there at start.

Everything here blocks and runs in a thread.
Source: K3s, "Auto-Deploying Manifests".
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controlplane.deploy.manifest import substitute

_HERE = Path(__file__).parent
PACKAGED = _HERE / "packaged"  # manifests of the node's own components
STATIC = _HERE / "static"  # served below /static; the charts in it are packed by make
SUFFIXES = frozenset({".yaml", ".yml", ".json"})


@dataclass(frozen=True, slots=True)
class File:
    """One manifest. ``problem`` is set where it could not be read."""

    path: Path
    data: bytes
    problem: str = ""

    @property
    def name(self) -> str:
        """Of its AddOn: the file's name up to the first dot."""
        return addon_name(self.path)

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True, slots=True)
class Listing:
    files: tuple[File, ...]  # in the order of their paths
    folders: tuple[Path, ...]  # to be watched


def addon_name(path: Path) -> str:
    return path.name.partition(".")[0]


def is_disabled(path: Path, root: Path, disable: Iterable[str]) -> bool:
    """By the file's name (with or without ending) or the name of a folder it lies in."""
    names = {path.name, path.stem, addon_name(path)}
    if path.is_relative_to(root):
        names.update(path.relative_to(root).parts[:-1])
    return not names.isdisjoint(disable)


def read(root: Path) -> Listing:
    """Every manifest below the folder that is not skipped; links to folders at the top count."""
    folders: list[Path] = []
    files: list[File] = []
    for path in sorted(_walk(root, folders)):
        if path.suffix.lower() not in SUFFIXES or path.name.startswith("."):
            continue
        if path.with_name(f"{path.name}.skip").exists():
            continue
        try:
            files.append(File(path, path.read_bytes()))
        except OSError as err:
            files.append(File(path, b"", str(err)))
    return Listing(tuple(files), tuple(folders))


def _walk(root: Path, folders: list[Path]) -> Iterator[Path]:
    tops = [root]
    if root.is_dir():
        tops += [path for path in root.iterdir() if path.is_symlink() and path.is_dir()]
    for top in tops:
        for folder, _, names in os.walk(top):
            folders.append(Path(folder))
            yield from (Path(folder) / name for name in names)


def stage_packaged(
    source: Path, manifests: Path, disable: frozenset[str], variables: Mapping[str, str]
) -> list[Path]:
    """
    Put the packaged manifests into the folder and return what was written.

    ``variables`` are filled in here, as with K3s: a user's own manifest is taken as it is. A
    file that is there with the same content is not touched; of a disabled component nothing
    is put there.
    """
    written: list[Path] = []
    manifests.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in sorted(source.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or is_disabled(path, source, disable):
            continue
        target = manifests / path.relative_to(source)
        data = substitute(path.read_text(), variables).encode()
        if target.exists() and target.read_bytes() == data:
            continue
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # With a name that is no manifest, so that a half-written one is never applied.
        draft = target.with_name(f".{target.name}.new")
        draft.write_bytes(data)
        draft.chmod(0o600)
        draft.replace(target)
        written.append(target)
    return written
