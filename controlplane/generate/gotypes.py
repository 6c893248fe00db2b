"""
Reads the type declarations of one Go package: structs with their tags and markers.

It understands the shape that the Kubernetes API types have, not Go: one field a
line, tags in backticks, markers (``+optional``) in the comment right above.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path

_IMPORT = re.compile(r'^\s*(?:(\w+)\s+)?"([^"]+)"\s*$')
_TYPE = re.compile(r"^type (\w+)\s+(=\s*)?(.+?)\s*$")
_FIELD = re.compile(r"^\t(?:(\w+)\s+)?([\w.*\[\]]+)(?:\s+`([^`]*)`)?\s*(?://.*)?$")
_TAG = re.compile(r'(\w+):"((?:[^"\\]|\\.)*)"')
_CONSTANT = re.compile(r'^(?:const )?\s*(\w+)\s+(\w+)\s*=\s*("(?:[^"\\]|\\.)*"|\w+)\s*(?://.*)?$')


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One field of a struct; ``name`` is empty for an embedded type."""

    name: str
    type: str
    tags: dict[str, str]
    markers: dict[str, list[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """A struct with its members, or (``members`` is None) a name for another type."""

    name: str
    markers: dict[str, list[str]]
    imports: dict[str, str]
    members: list[Member] | None = None
    target: str = ""


@dataclass(slots=True)
class Package:
    types: dict[str, Declaration] = field(default_factory=dict)
    constants: dict[str, tuple[str, str]] = field(default_factory=dict)  # name: type, literal

    def values_of(self, type_name: str) -> list[str]:
        """The constants of a string type, sorted."""
        texts = (text for kind, text in self.constants.values() if kind == type_name)
        return sorted({self.text_of(text) for text in texts})

    def text_of(self, literal: str) -> str:
        while not literal.startswith('"'):
            literal = self.constants[literal][1]
        return literal[1:-1]


def read_package(folder: Path) -> Package:
    package = Package()
    for path in sorted(folder.glob("*.go")):
        if path.name.endswith("_test.go") or path.name.startswith(("zz_", "generated")):
            continue
        _read_file(path.read_text(encoding="utf-8").split("\n"), package)
    return package


def _read_file(lines: list[str], package: Package) -> None:
    imports: dict[str, str] = {}
    comment: list[str] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if line.startswith("import"):
            at = _read_imports(lines, at, imports)
        elif line.lstrip().startswith("//"):
            comment.append(line.strip())
            continue
        elif match := _TYPE.match(line):
            at = _read_type(lines, at, match, _Context(package, comment, imports))
        elif match := _CONSTANT.match(line):
            name, kind, literal = match.groups()
            package.constants[name] = (kind, literal)
        comment = []


@dataclass(frozen=True, slots=True)
class _Context:
    package: Package
    comment: list[str]
    imports: dict[str, str]


def _read_imports(lines: list[str], at: int, imports: dict[str, str]) -> int:
    """From behind the word ``import`` to behind its closing bracket."""
    block = lines[at - 1].rstrip().endswith("(")
    rows = [lines[at - 1].removeprefix("import")]
    while block and lines[at].strip() != ")":
        rows.append(lines[at])
        at += 1
    for row in rows:
        if match := _IMPORT.match(row):
            alias, path = match.groups()
            imports[alias or path.rpartition("/")[2]] = path
    return at


def _read_type(lines: list[str], at: int, match: re.Match[str], context: _Context) -> int:
    name, _, target = match.groups()
    markers = _markers(context.comment)
    members: list[Member] | None = None
    if target.startswith(("interface", "func", "(")):
        return at
    if target.startswith("struct"):
        members = []
        if not target.endswith("}"):
            at = _read_members(lines, at, members)
    context.package.types[name] = Declaration(
        name=name, markers=markers, imports=context.imports, members=members, target=target
    )
    return at


def _read_members(lines: list[str], at: int, members: list[Member]) -> int:
    comment: list[str] = []
    while lines[at] != "}":
        line = lines[at]
        at += 1
        if line.strip().startswith("//"):
            comment.append(line.strip())
            continue
        if match := _FIELD.match(line):
            name, kind, tags = match.groups()
            members.append(
                Member(
                    name=name or "",
                    type=kind,
                    tags=dict(_TAG.findall(tags or "")),
                    markers=_markers(comment),
                )
            )
        comment = []
    return at + 1


def _markers(comment: list[str]) -> dict[str, list[str]]:
    """``// +listMapKey=name`` → ``{"listMapKey": ["name"]}``."""
    markers: dict[str, list[str]] = {}
    for line in comment:
        text = line.removeprefix("//").strip()
        if text.startswith("+"):
            name, _, value = text[1:].partition("=")
            markers.setdefault(name.strip(), []).append(value.strip())
    return markers
