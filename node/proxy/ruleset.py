"""
An nftables table put together from parts, and the difference one change makes.

Each owner (a service, a pod) contributes a part: chains, sets and map elements.
Replacing parts yields the text of one nft transaction with only what differs, so
its cost follows the change and not the table. Two owners may want one element
(the same load balancer address and port): the lower rank has it, and the other
gets it when the first lets go.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

Owner = tuple[str, ...]  # (namespace, name) of a service, ("pod", namespace, name)


class Element(NamedTuple):
    """A key of a named map or set, in nft's language: ``10.43.0.1 . tcp . 443``."""

    container: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """
    What one owner contributes.

    Names of chains and sets are the owner's alone. Elements may be wanted by
    several owners. ``rank``: who has an element that several want; the lowest.
    """

    rank: tuple[str, ...] = ()
    chains: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name → rules
    sets: Mapping[str, str] = field(default_factory=dict)  # name → declaration: "type …; …"
    elements: Mapping[Element, str] = field(default_factory=dict)  # → value; "": of a set
    # UDP destinations, address "" for any of the node's, and who may answer there.
    udp: Mapping[tuple[str, int], frozenset[tuple[str, int]]] = field(default_factory=dict)


EMPTY = Part()


class Ruleset:
    """
    The wanted content of one table.

    Its mutable state is the parts by owner and who claims which element. The
    fixed text holds the base chains and the named maps.
    """

    def __init__(self, family: str, table: str, fixed: str) -> None:
        self._target = f"{family} {table}"
        self._fixed = fixed
        self._parts: dict[Owner, Part] = {}
        self._claims: dict[Element, dict[Owner, tuple[tuple[str, ...], str]]] = {}

    def part(self, owner: Owner) -> Part:
        return self._parts.get(owner, EMPTY)

    def owners(self) -> list[Owner]:
        return list(self._parts)

    def value(self, element: Element) -> str | None:
        """What the table says; None: the element is absent."""
        claims = self._claims.get(element)
        return min(claims.values())[1] if claims else None

    def losers(self, owner: Owner) -> list[Element]:
        """What the owner wants and another has."""
        return [
            element
            for element in self.part(owner).elements
            if len(claims := self._claims[element]) > 1
            and min(claims.values()) < claims[owner]
            and self.value(element) != ""
        ]

    def replace(self, parts: Mapping[Owner, Part]) -> str:
        """
        Put new parts in place of old ones (:data:`EMPTY` removes an owner).

        The result is the transaction that takes the table from what it was to what
        it is now; "" if they are the same.
        """
        changed = {owner: (self.part(owner), new) for owner, new in parts.items()}
        touched = {e for pair in changed.values() for part in pair for e in part.elements}
        before = {element: self.value(element) for element in touched}
        for owner, (old, new) in changed.items():
            self._release(owner, old)
            self._claim(owner, new)
        return "".join(
            (
                *self._declare(changed.values()),
                *self._elements(before),
                *self._remove(changed.values()),
            )
        )

    def full(self) -> str:
        """The transaction that replaces whatever the table was, without a gap."""
        target = self._target
        lines = [f"add table {target}\n", f"delete table {target}\n", f"table {target} {{\n"]
        lines.append(self._fixed)
        for part in self._parts.values():
            lines += [f"set {name} {{ {body} }}\n" for name, body in part.sets.items()]
        chains = [item for part in self._parts.values() for item in part.chains.items()]
        lines += [f"chain {name} {{ }}\n" for name, _ in chains]
        lines.append("}\n")
        lines += [f"add rule {target} {name} {rule}\n" for name, rules in chains for rule in rules]
        lines += self._add({e: self.value(e) or "" for e in self._claims})
        return "".join(lines)

    def _claim(self, owner: Owner, part: Part) -> None:
        if part == EMPTY:
            return
        self._parts[owner] = part
        for element, value in part.elements.items():
            self._claims.setdefault(element, {})[owner] = (part.rank, value)

    def _release(self, owner: Owner, part: Part) -> None:
        self._parts.pop(owner, None)
        for element in part.elements:
            claims = self._claims[element]
            del claims[owner]
            if not claims:
                del self._claims[element]

    def _declare(self, changed: Iterable[tuple[Part, Part]]) -> list[str]:
        """New sets, then new chains, then rules: each may refer to what came before."""
        lines, rules = [], []
        for old, new in changed:
            for name, body in new.sets.items():
                if name not in old.sets:
                    lines.append(f"add set {self._target} {name} {{ {body} }}\n")
        for old, new in changed:
            for name, wanted in new.chains.items():
                if name not in old.chains:
                    lines.append(f"add chain {self._target} {name}\n")
                elif old.chains[name] == wanted:
                    continue
                else:
                    rules.append(f"flush chain {self._target} {name}\n")
                rules += [f"add rule {self._target} {name} {rule}\n" for rule in wanted]
        return lines + rules

    def _elements(self, before: Mapping[Element, str | None]) -> list[str]:
        gone: dict[str, list[str]] = {}
        fresh: dict[Element, str] = {}
        for element, old in before.items():
            new = self.value(element)
            if new == old:
                continue
            if old is not None:
                gone.setdefault(element.container, []).append(element.key)
            if new is not None:
                fresh[element] = new
        lines = [
            f"delete element {self._target} {container} {{ {', '.join(keys)} }}\n"
            for container, keys in gone.items()
        ]
        return lines + self._add(fresh)

    def _add(self, elements: Mapping[Element, str]) -> list[str]:
        by_container: dict[str, list[str]] = {}
        for (container, key), value in elements.items():
            text = f"{key} : {value}" if value else key
            by_container.setdefault(container, []).append(text)
        return [
            f"add element {self._target} {container} {{ {', '.join(texts)} }}\n"
            for container, texts in by_container.items()
        ]

    def _remove(self, changed: Iterable[tuple[Part, Part]]) -> list[str]:
        """Flush all that goes before deleting any: they may refer to each other."""
        pairs = list(changed)
        chains = [name for old, new in pairs for name in old.chains if name not in new.chains]
        sets = [name for old, new in pairs for name in old.sets if name not in new.sets]
        return [
            *(f"flush chain {self._target} {name}\n" for name in chains),
            *(f"delete chain {self._target} {name}\n" for name in chains),
            *(f"delete set {self._target} {name}\n" for name in sets),
        ]
