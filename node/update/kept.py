"""
What trials wrote that were left again: kept in ``<data>/update/kept/<version>-<time>/``.

There lie the datastore as the trial left it (``state.db``), a list of what differs from the
snapshot that was restored (``writes.json``) and, fit for ``kubectl apply -f``, what was created or
changed (``objects.json``). Nothing here is ever removed by itself.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from node.host.files import sync_directory, write_atomic

_OF_THE_SERVER = (
    "resourceVersion",
    "uid",
    "creationTimestamp",
    "generation",
    "managedFields",
    "selfLink",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    verb: str  # created | changed | deleted
    kind: str
    namespace: str  # "": of the cluster
    name: str

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.verb} {self.kind} {place}{self.name}"


def write_list(folder: Path, found: Iterable[Mapping[str, Any]]) -> int:
    """
    Write both lists, one entry after the other: there may be more than fits in memory.

    ``found``: as ``controlplane.snapshot.written`` gives it. The number of entries.
    """
    staged = folder / ".objects.json"
    entries: list[dict[str, str]] = []
    opener = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(opener, "w") as out:  # noqa: PTH123 - a descriptor, not a path
        out.write('{"apiVersion":"v1","kind":"List","items":[')
        separator = ""
        for item in found:
            entries.append({k: item[k] for k in ("verb", "kind", "namespace", "name")})
            if item["verb"] != "deleted" and item["object"] is not None:
                out.write(separator)
                _write_object(out, item["object"])
                separator = ",\n"
        out.write("]}\n")
        out.flush()
        os.fsync(out.fileno())
    staged.replace(folder / "objects.json")
    write_atomic(folder / "writes.json", json.dumps({"writes": entries}) + "\n", mode=0o600)
    return len(entries)


def _write_object(out: TextIO, found: Mapping[str, Any]) -> None:
    metadata = {k: v for k, v in found["metadata"].items() if k not in _OF_THE_SERVER}
    plain = {k: v for k, v in found.items() if k not in ("metadata", "status")}
    json.dump(plain | {"metadata": metadata}, out)


def read_list(folder: Path) -> Sequence[Write]:
    """Empty where the list could not be made; the datastore is there all the same."""
    try:
        found = json.loads((folder / "writes.json").read_text())["writes"]
        return [Write(**{k: str(item[k]) for k in Write.__dataclass_fields__}) for item in found]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def folders(root: Path) -> Sequence[Path]:
    """The oldest first; ``root``: ``<data>/update/kept``."""
    with contextlib.suppress(FileNotFoundError):
        found = [path for path in root.iterdir() if path.is_dir()]
        return sorted(found, key=lambda path: path.name.rpartition("-")[2])
    return []


def remove(folder: Path) -> None:
    shutil.rmtree(folder)
    sync_directory(folder.parent)


def summary(writes: Sequence[Write], most: int = 10) -> str:
    """One line: who would be missed first."""
    ranked = sorted(writes, key=lambda w: ("created", "deleted", "changed").index(w.verb))
    shown = ", ".join(str(write) for write in ranked[:most])
    return shown + (f" and {len(writes) - most} more" if len(writes) > most else "")
