"""
An nftables table put together from parts, and the difference that a change makes. Pure.

Each owner (a pod, a policy, a group of peers) contributes a part. Putting new
parts in place of old ones yields the text of one nft transaction with only what
differs, so its cost follows the change and not the table.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")
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


@dataclass(frozen=True, slots=True)
class Difference:
    """
    One transaction, in this order. ``elements_only``: nothing is declared, no rule changes.

    ``before`` and ``after`` are in nft's language.
    """

    target: str
    before: str = ""
    gone: Mapping[str, list[str]] = field(default_factory=dict)
    fresh: Mapping[str, list[tuple[str, str]]] = field(default_factory=dict)
    after: str = ""

    @property
    def elements_only(self) -> bool:
        return not self.before and not self.after

    def __bool__(self) -> bool:
        return bool(self.before or self.gone or self.fresh or self.after)

    @property
    def text(self) -> str:
        """All of it in nft's language."""
        gone = [self._list("delete", name, keys) for name, keys in self.gone.items()]
        fresh = [
            self._list("add", name, [f"{key} : {value}" if value else key for key, value in found])
            for name, found in self.fresh.items()
        ]
        return "".join((self.before, *gone, *fresh, self.after))

    def _list(self, verb: str, name: str, texts: list[str]) -> str:
        return f"{verb} element {self.target} {name} {{ {', '.join(texts)} }}\n"


class Table:
    """
    The wanted content of one table. Its mutable state is the parts by owner.

    ``fixed`` holds the base chains and the table's own sets and maps.
    """

    def __init__(self, family: str, name: str) -> None:
        self._target = f"{family} {name}"
        self._parts: dict[Owner, Part] = {}

    def replace(self, parts: Mapping[Owner, Part]) -> Difference:
        """The transaction that is needed. :data:`EMPTY` removes an owner."""
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
        return self._difference(pairs)

    def full(self, fixed: str, *, without: Collection[str] = ()) -> str:
        """
        The transaction that replaces whatever the table was, without a gap.

        ``without``: chains that stay empty.
        """
        target = self._target
        every = self._difference([(EMPTY, part) for part in self._parts.values()], without)
        start = f"add table {target}\ndelete table {target}\ntable {target} {{\n{fixed}}}\n"
        return start + every.text

    def chains(self, prefix: str) -> list[str]:
        """Those whose names begin so."""
        names = (name for part in self._parts.values() for name in part.chains)
        return [name for name in names if name.startswith(prefix)]

    def _difference(
        self, pairs: Sequence[tuple[Part, Part]], without: Collection[str] = ()
    ) -> Difference:
        gone, fresh = _elements(pairs)
        before, after = "".join(self._declare(pairs, without)), "".join(self._remove(pairs))
        return Difference(self._target, before, gone, fresh, after)

    def _declare(self, pairs: Iterable[tuple[Part, Part]], without: Collection[str]) -> list[str]:
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
                if name not in without:
                    rules += [f"add rule {self._target} {name} {rule}\n" for rule in wanted]
        return sets + chains + rules

    def _remove(self, pairs: Iterable[tuple[Part, Part]]) -> list[str]:
        """Flush all that goes before deleting any: they may refer to each other."""
        chains = [name for old, new in pairs for name in old.chains if name not in new.chains]
        sets = [name for old, new in pairs for name in old.sets if name not in new.sets]
        return [
            *(f"flush chain {self._target} {name}\n" for name in chains),
            *(f"delete chain {self._target} {name}\n" for name in chains),
            *(f"delete set {self._target} {name}\n" for name in sets),
        ]


def _elements(
    pairs: Iterable[tuple[Part, Part]],
) -> tuple[dict[str, list[str]], dict[str, list[tuple[str, str]]]]:
    gone: dict[str, list[str]] = {}
    fresh: dict[str, list[tuple[str, str]]] = {}
    for old, new in pairs:
        for name in {**old.elements, **new.elements}:
            before, now = old.elements.get(name, {}), new.elements.get(name, {})
            if name in new.sets or name not in old.sets:  # else it goes as a whole
                lost = [key for key, value in before.items() if now.get(key) != value]
                gone.setdefault(name, []).extend(lost)
            added = [(key, value) for key, value in now.items() if before.get(key) != value]
            fresh.setdefault(name, []).extend(added)
    return _filled(gone), _filled(fresh)


def _filled(found: dict[str, list[T]]) -> dict[str, list[T]]:
    return {name: elements for name, elements in found.items() if elements}
