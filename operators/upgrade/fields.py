"""
Reads one object of a user, field by field, and collects what is wrong with it. Pure.

A schema says most of it when an object is stored, but not everything (what excludes what, what a
text must look like), and an object may be older than its schema. Each error is one line,
``<path>: <why>``.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Fields:
    """``errors`` is shared with the fields inside."""

    value: Mapping[str, Any]
    path: str
    errors: list[str] = field(default_factory=list)

    def wrong(self, name: str, why: str) -> None:
        place = f"{self.path}.{name}" if name and self.path else name or self.path
        self.errors.append(f"{place}: {why}")

    def only(self, *names: str) -> None:
        """Whatever else is there would have no effect."""
        for name in sorted(self.value.keys() - set(names)):
            self.wrong(name, "unknown field")

    def text(self, name: str, default: str = "", *, required: bool = False) -> str:
        found = self.value.get(name)
        if found is None or (found == "" and required):
            if required:
                self.wrong(name, "is needed")
            return default
        if not isinstance(found, str):
            self.wrong(name, "must be a text")
            return default
        return found

    def number(self, name: str, default: int | None, *, low: int, high: int) -> int | None:
        found = self.value.get(name)
        if found is None:
            return default
        if not isinstance(found, int) or isinstance(found, bool) or not low <= found <= high:
            self.wrong(name, f"must be a number from {low} to {high}")
            return default
        return found

    def flag(self, name: str, *, default: bool = False) -> bool:
        found = self.value.get(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            self.wrong(name, "must be true or false")
            return default
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        found = self.items(name)
        if not all(isinstance(item, str) for item in found):
            self.wrong(name, "must be a list of texts")
            return ()
        return tuple(found)

    def items(self, name: str) -> Sequence[Any]:
        found = self.value.get(name)
        if found is None:
            return ()
        if not isinstance(found, list | tuple):
            self.wrong(name, "must be a list")
            return ()
        return found

    def inside(self, name: str) -> "Fields | None":
        found = self.value.get(name)
        if found is None:
            return None
        if not isinstance(found, Mapping):
            self.wrong(name, "must be an object")
            return None
        return Fields(found, f"{self.path}.{name}" if self.path else name, self.errors)

    def one_of(self, names: Collection[str]) -> str:
        """The one of these that is there; "" after an error."""
        there = [name for name in names if self.value.get(name) is not None]
        if len(there) == 1:
            return there[0]
        also = f", not {' and '.join(there)}" if there else ""
        self.wrong("", f"exactly one of {', '.join(names)} is needed{also}")
        return ""
