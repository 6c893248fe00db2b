"""
Which parts of the history of volatile keys are gone, so that nobody is told half of it.

Changes of volatile keys live in the window of recent changes only. When one
falls out of it, or at a restart, the history of its family of keys (those of
one resource: ``/<group>/<plural>/``) begins anew; a reader of older history
that could have seen it must list again. The names of the families are kept on
disk, one write in the life of each.
"""

from collections.abc import Iterable


def family(key: str) -> str:
    """``/<group>/<plural>/`` of an object's key; "" (overlaps with all) for other keys."""
    parts = key.split("/", 3)
    return f"/{parts[1]}/{parts[2]}/" if len(parts) == 4 and not parts[0] else ""


class Families:
    """The families with volatile keys, each with the revision its history begins after."""

    __slots__ = ("_begins",)

    def __init__(self, known: Iterable[str], *, revision: int) -> None:
        """``revision``: of the last start; what was volatile before is gone."""
        self._begins = dict.fromkeys(known, revision)

    def __contains__(self, key: str) -> bool:
        return family(key) in self._begins

    def add(self, names: Iterable[str]) -> None:
        for name in names:
            self._begins.setdefault(name, 0)

    def dropped(self, key: str, revision: int) -> None:
        """A change has left the window; for durable keys of no family this does nothing."""
        name = family(key)
        if name in self._begins:
            self._begins[name] = revision

    def begins(self, prefix: str) -> int:
        """History of keys with the prefix is whole after this revision, as far as volatile."""
        overlapping = (
            revision
            for name, revision in self._begins.items()
            if name.startswith(prefix) or prefix.startswith(name)
        )
        return max(overlapping, default=0)
