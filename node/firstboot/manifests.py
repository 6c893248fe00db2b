"""
Manifests of the partition, and of ``pinnace.yaml`` itself, for the folder that the node deploys.

They lie in ``<data>/server/manifests/boot/``, which is a mirror: what is not on the partition
any more is removed there, and the node prunes its objects or not by its own rules.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.firstboot import document
from node.firstboot.base import ConfigError, Manifest, Problem
from node.firstboot.cluster import MANIFEST_ENDINGS, not_yaml
from node.firstboot.places import MANIFESTS_NAME
from node.host.files import sync_directory, write_if_changed

FOLDER = "boot"
INLINE = "pinnace-yaml"  # how the files of documents in pinnace.yaml itself are called
_MOST = 16 << 20  # bytes of all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    files: Mapping[str, str]  # path below the folder → text
    origins: Mapping[str, str]  # path on the partition → text; without those of pinnace.yaml
    problems: tuple[Problem, ...]  # of files that are left out


_NOTHING = Gathered(files={}, origins={}, problems=())


def gather(partition: Path, wanted: Iterable[Manifest], *, with_folder: bool = True) -> Gathered:
    """What ``manifests:`` names, and all of the folder ``manifests/``. Reads, and decides."""
    inline: dict[str, str] = {}
    named: dict[str, str] = {}
    problems: list[Problem] = []
    for manifest in wanted:
        if manifest.text:
            inline[f"{INLINE}-{len(inline) + 1}.yaml"] = manifest.text
            continue
        found = list(_below(partition / manifest.name))
        if not found:
            problems.append(Problem(0, "manifests", f"{manifest.name!r} is not on the partition"))
        _take(partition, found, named, problems)
    folder = gather_folder(partition / MANIFESTS_NAME) if with_folder else _NOTHING
    problems += [problem for problem in folder.problems if problem not in problems]
    # A file of manifests/ that is named too is one file.
    named = {name: text for name, text in named.items() if name not in folder.origins}
    return Gathered(
        files={**inline, **named, **folder.files},
        origins={**named, **folder.origins},
        problems=tuple(problems),
    )


def gather_folder(folder: Path) -> Gathered:
    """All manifests below a folder, as they would stand in ``manifests/``."""
    files: dict[str, str] = {}
    problems: list[Problem] = []
    _take(folder, _below(folder), files, problems, prefix=f"{MANIFESTS_NAME}/")
    origins = {f"{MANIFESTS_NAME}/{name}": text for name, text in files.items()}
    return Gathered(files=files, origins=origins, problems=tuple(problems))


def _below(path: Path) -> Iterator[Path]:
    """A file, or every manifest below a folder; what desktops leave behind is none."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for entry in sorted(path.iterdir()):
            if entry.name.startswith((".", "$")):
                continue
            if entry.is_dir() or entry.suffix.lower() in MANIFEST_ENDINGS:
                yield from _below(entry)


def _take(
    root: Path,
    paths: Iterable[Path],
    files: dict[str, str],
    problems: list[Problem],
    *,
    prefix: str = "",
) -> None:
    for path in paths:
        name = path.relative_to(root).as_posix()
        where = f"{prefix}{name}"
        try:
            text = document.decode(path.read_bytes())
        except ConfigError as err:
            problems.append(Problem(0, where, err.problems[0].message))
            continue
        except OSError as err:
            problems.append(Problem(0, where, f"cannot be read: {err.strerror}"))
            continue
        wrong = _wrong_with(path, text)
        if wrong:
            problems.append(Problem(0, where, wrong))
        elif sum(map(len, files.values())) + len(text) > _MOST:
            problems.append(
                Problem(0, where, f"does not fit: all have more than {_MOST >> 20} MiB")
            )
        else:
            files[name] = text


def _wrong_with(path: Path, text: str) -> str:
    if path.suffix.lower() not in MANIFEST_ENDINGS:
        return f"is no manifest: its name ends in none of {', '.join(MANIFEST_ENDINGS)}"
    if path.suffix.lower() != ".json":
        return not_yaml(text)
    try:
        json.loads(text)
    except (ValueError, RecursionError) as err:
        return f"is not JSON: {err}"
    return ""


def mirror(folder: Path, files: Mapping[str, str]) -> bool:
    """Make the folder have these files and no others; True: something was changed."""
    changed = False
    for name, text in files.items():
        path = folder / name
        _clear_the_way(folder, path.parent)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.is_dir():
            _remove(path)
        changed |= write_if_changed(path, text, mode=0o600)
    kept = {folder / name for name in files}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path in kept or any(path in one.parents for one in kept):
            continue
        _remove(path)
        changed = True
    return changed


def _clear_the_way(folder: Path, path: Path) -> None:
    """A file where a folder is to be."""
    for part in [path, *path.parents]:
        if part == folder.parent:
            return
        if part.is_file() or part.is_symlink():
            part.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        for below in path.iterdir():
            _remove(below)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
    sync_directory(path.parent)
