"""
An nftables table put together from parts, and the difference that a change makes. Pure.

Each owner (a pod, a policy, a group of peers) contributes a part. Putting new
parts in place of old ones yields the text of one nft transaction with only what
differs, so its cost follows the change and not the table.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

Owner = tuple[Any, ...]
Elements = Mapping[str, str]  # key → value; "": of a set


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    What one owner contributes.

    Names of chains and of ``sets`` are the owner's alone; ``elements`` may go into
    the table's own sets and maps too, with keys that no other owner has.
    """

    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name → rules
    sets: Mapping[str, str] = field(default_factory=dict)  # name → declaration
    elements: Mapping[str, Elements] = field(default_factory=dict)  # set or map → its elements


EMPTY = Part()


class Table:
    """
    The wanted content of one table. Its mutable state is the parts by owner.

    ``fixed`` holds the base chains and the table's own sets and maps.
    """

    def __init__(self, family: str, name: str) -> None:
        self._target = f"{family} {name}"
        self._parts: dict[Owner, Part] = {}

    def replace(self, parts: Mapping[Owner, Part]) -> str:
        """The transaction; "" if nothing differs. :data:`EMPTY` removes an owner."""
        pairs = []
        for owner, new in parts.items():
            old = self._parts.get(owner, EMPTY)
            if new == old:
                continue
            pairs.append((old, new))
            if new == EMPTY:
                del self._parts[owner]
            else:
                self._parts[owner] = new
        if not pairs:
            return ""
        return "".join((*self._declare(pairs), *self._elements(pairs), *self._remove(pairs)))

    def full(self, fixed: str) -> str:
        """The transaction that replaces whatever the table was, without a gap."""
        target = self._target
        everything = [(EMPTY, part) for part in self._parts.values()]
        return "".join(
            (
                f"add table {target}\ndelete table {target}\ntable {target} {{\n{fixed}}}\n",
                *self._declare(everything),
                *self._elements(everything),
            )
        )

    def _declare(self, pairs: Iterable[tuple[Part, Part]]) -> list[str]:
        """New sets, then new chains, then rules: each may refer to what came before."""
        sets, chains, rules = [], [], []
        for old, new in pairs:
            for name, declaration in new.sets.items():
                if name not in old.sets:
                    sets.append(f"add set {self._target} {name} {{ {declaration} }}\n")
            for name, wanted in new.chains.items():
                if name not in old.chains:
                    chains.append(f"add chain {self._target} {name}\n")
                elif old.chains[name] == wanted:
                    continue
                else:
                    rules.append(f"flush chain {self._target} {name}\n")
                rules += [f"add rule {self._target} {name} {rule}\n" for rule in wanted]
        return sets + chains + rules

    def _elements(self, pairs: Iterable[tuple[Part, Part]]) -> list[str]:
        gone: dict[str, list[str]] = {}
        fresh: dict[str, list[str]] = {}
        for old, new in pairs:
            for name in {**old.elements, **new.elements}:
                before, now = old.elements.get(name, {}), new.elements.get(name, {})
                if name in new.sets or name not in old.sets:  # else it goes as a whole
                    lost = [key for key, value in before.items() if now.get(key) != value]
                    gone.setdefault(name, []).extend(lost)
                added = [key for key, value in now.items() if before.get(key) != value]
                fresh.setdefault(name, []).extend(
                    f"{key} : {now[key]}" if now[key] else key for key in added
                )
        return [*self._list("delete", gone), *self._list("add", fresh)]

    def _list(self, verb: str, elements: Mapping[str, list[str]]) -> list[str]:
        return [
            f"{verb} element {self._target} {name} {{ {', '.join(texts)} }}\n"
            for name, texts in elements.items()
            if texts
        ]

    def _remove(self, pairs: Iterable[tuple[Part, Part]]) -> list[str]:
        """Flush all that goes before deleting any: they may refer to each other."""
        chains = [name for old, new in pairs for name in old.chains if name not in new.chains]
        sets = [name for old, new in pairs for name in old.sets if name not in new.sets]
        return [
            *(f"flush chain {self._target} {name}\n" for name in chains),
            *(f"delete chain {self._target} {name}\n" for name in chains),
            *(f"delete set {self._target} {name}\n" for name in sets),
        ]
