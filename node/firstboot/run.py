"""
``pinnace firstboot``: read the file, put it into effect, say what is wrong with it.

At each boot, before the network. A digest of all that was read says that nothing changed; then
nothing is parsed. What cannot be read never keeps a machine from coming up: the last good
settings stay, or the defaults hold, and the mistakes are shown.
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from controlplane.objects.version import VERSION
from node.firstboot.places import CONFIG_NAME, MANIFESTS_NAME, Places

LAST_GOOD = "last-good.yaml"
NAMES = "names.json"
MISNAMED = ("pinnace.yaml.txt", "pinnace.yml", "pinnace.txt", "pinnace.yaml.yaml")


def say_to_journal(text: str) -> None:
    sys.stderr.write(f"pinnace: {text}\n")
    sys.stderr.flush()


def main(places: Places, say: Callable[[str], None]) -> None:
    """Never raises for what is in the file, nor for a disk that is full."""
    raw = _read(places.partition / CONFIG_NAME)
    digest = _digest(places, raw)
    source = _done(places, digest)
    if source:
        result: Mapping[str, Any] = {"source": source, "problems": []}
    else:
        # Loaded late: most boots end above.
        from node.firstboot import steps

        try:
            result = steps.run(places, raw, digest, say)
        except OSError as err:
            say(f"{CONFIG_NAME} could not be put into effect: {err}")
            result = {"source": "file", "problems": [f"could not be put into effect: {err}"]}
    places.run.mkdir(parents=True, exist_ok=True)
    places.result.write_text(json.dumps(result))


def _read(path: Path) -> bytes | None:
    """None: it is not there. What cannot be read is as if it had been cut off."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError:
        return b"\0"


def _digest(places: Places, raw: bytes | None) -> str:
    """Of the file and of every manifest beside it, for this version of the program."""
    found = hashlib.sha256(VERSION.encode())
    found.update(raw if raw is not None else b"none")
    for name in _everything(places.partition / MANIFESTS_NAME):
        content = _read(name) or b""
        found.update(f"{name}:{len(content)}:".encode(errors="surrogateescape"))
        found.update(content)
    return found.hexdigest()


def _everything(folder: Path) -> Iterable[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(names))


def _done(places: Places, digest: str) -> str:
    """Where the settings are from that were put into effect to the end and are still; else ""."""
    try:
        before: Mapping[str, Any] = json.loads(places.summary.read_text())
        if before["digest"] != digest:
            return ""
        same = all(_mark(Path(path)) == mark for path, mark in before["files"].items())
        return str(before["source"]) if same else ""
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _mark(path: Path) -> list[int] | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    return [found.st_size, found.st_mtime_ns]


def marks(paths: Iterable[Path]) -> Mapping[str, Any]:
    """How each of the files that were written is recognised as untouched."""
    return {str(path): _mark(path) for path in paths}


if __name__ == "__main__":
    main(Places(), say_to_journal)
