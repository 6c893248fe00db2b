"""
Values of a YAML file that know their line, and say what is wrong with them all in one pass.

The text of a value is taken as it was written: a pass phrase ``00012345`` is no octal
number here, the country ``NO`` is no ``false`` and a MAC address counts no minutes.
"""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import yaml

from node.firstboot.base import Problem

T = TypeVar("T")
_NULL = "tag:yaml.org,2002:null"
_YES = frozenset({"true", "yes", "on"})
_NO = frozenset({"false", "no", "off"})
CURLY = "“”„‟‘’‚‛"
KINDS = {"MappingNode": "keys and values", "SequenceNode": "a list", "ScalarNode": "one value"}


class At:
    """
    A value and where it stands. Its readers return None, or nothing, for what they blame.

    A value of the wrong sort is blamed once: what else is wrong with it nobody can know.
    """

    __slots__ = ("_found", "_unreadable", "line", "node", "path")

    def __init__(self, node: yaml.Node, path: str, found: list[Problem], line: int = 0) -> None:
        self.node = node
        self.path = path
        self.line = line or node.start_mark.line + 1
        self._found = found
        self._unreadable = False

    def wrong(self, message: str) -> None:
        if not self._unreadable:
            # One line, whatever characters of the file are quoted in it.
            plain = "".join(c if c.isprintable() else "?" for c in message)
            self._found.append(Problem(self.line, self.path, plain))

    def _wrong_sort(self, message: str) -> None:
        self.wrong(message)
        self._unreadable = True

    @property
    def empty(self) -> bool:
        return self.node.tag == _NULL and isinstance(self.node, yaml.ScalarNode)

    def text(self) -> str | None:
        """The characters of a single value."""
        if isinstance(self.node, yaml.ScalarNode) and not self.empty:
            if self.node.style is None and self.node.value[0] in CURLY:
                self._wrong_sort(
                    'is in curly quotes, which are letters to YAML: use plain ones (")'
                )
            return str(self.node.value)
        self._wrong_sort(f"must be one value, not {self._kind()}")
        return None

    def boolean(self) -> bool | None:
        text = (self.text() or "").lower() if isinstance(self.node, yaml.ScalarNode) else ""
        if text in _YES | _NO:
            return text in _YES
        self._wrong_sort(f"must be true or false, not {shown(text) or self._kind()}")
        return None

    def number(self, low: int, high: int, example: str) -> int | None:
        text = self.text()
        if text is None:
            return None
        if text.isascii() and text.isdecimal() and len(text) < 12 and low <= int(text) <= high:
            return int(text)
        self.wrong(f"{shown(text)} is no number from {low} to {high}, such as {example}")
        return None

    def items(self) -> list["At"]:
        """Of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            self._wrong_sort(
                f"must be a list, each item on a line that begins with '- ', {self._not()}"
            )
            return []
        return [self._below(node, f"[{at}]") for at, node in enumerate(self.node.value)]

    def one_or_more(self) -> list["At"]:
        """Of a list, or the one value that stands for a list of one."""
        return self.items() if isinstance(self.node, yaml.SequenceNode) else [self]

    def entries(self) -> list[tuple[str, "At"]]:
        """Of keys and values, empty ones too; a key that comes twice is blamed."""
        if not isinstance(self.node, yaml.MappingNode):
            self._wrong_sort(f"must be keys and values, as in 'key: value', {self._not()}")
            return []
        found: dict[str, At] = {}
        for key_node, node in self.node.value:
            key = At(key_node, self.path, self._found)
            if not isinstance(key_node, yaml.ScalarNode):
                key.wrong("a key must be one word")
                continue
            name = _word(str(key_node.value))
            path = f"{self.path}.{name}" if self.path else name
            below = At(node, path, self._found, key.line)
            if key_node.value in found:
                below.wrong(f"is there twice; first on line {found[key_node.value].line}")
            found[str(key_node.value)] = below
        return list(found.items())

    def fields(
        self, known: Iterable[str], refused: Mapping[str, str] | None = None
    ) -> dict[str, "At"]:
        """Of keys that are known; without those that have no value. All others are blamed."""
        names = tuple(known)
        found = {}
        for name, below in self.entries():
            if name in names:
                if not below.empty:
                    found[name] = below
            elif refused and name in refused:
                below.wrong(refused[name])
            else:
                below.wrong(unknown(name, names))
        return found

    def plain(self) -> Any:
        """Any value, as YAML means it. Blames what YAML itself refuses."""
        try:
            return yaml.SafeLoader("").construct_document(self.node)
        except (yaml.YAMLError, ValueError, OverflowError) as err:
            self._wrong_sort(f"cannot be read: {' '.join(str(err).split())}")
            return None

    def _below(self, node: yaml.Node, suffix: str) -> "At":
        return At(node, f"{self.path}{suffix}", self._found)

    def _kind(self) -> str:
        return "empty" if self.empty else KINDS.get(type(self.node).__name__, "this")

    def _not(self) -> str:
        return f"not {self._kind()}"


def shown(text: str) -> str:
    """A value in a message: quoted, and not longer than a line."""
    if not text:
        return ""
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _word(name: str) -> str:
    """A key in a path; quoted where it would not be read as one."""
    return name if name.isprintable() and len(name) <= 60 else shown(name)


def unknown(name: str, known: Iterable[str]) -> str:
    """That a name is not known, with the one that was probably meant."""
    names = list(known)
    plain = {_plain(n): n for n in names}
    near = plain.get(_plain(name))
    if near is None:
        close = difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.7)
        near = plain[close[0]] if close else None
    if near is not None:
        return f"is unknown; did you mean {near!r}?"
    return f"is unknown; here may be: {', '.join(sorted(names))}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "").replace(" ", "")


def present(values: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(value for value in values if value is not None)
