"""
Turns Go declarations into the rows of the data files.

A file maps type names to types, one a line. A struct is
``{"fields": {json name: [type, protobuf number, flags, extras?]}, "inline": [[type, number]]}``.
Flags: ``r`` required, ``o`` omitted from JSON when empty, ``z`` also when a zero struct. A type
is ``*T`` (pointer: an explicit zero is kept), ``[]T``, ``{}T`` (a map), ``!T`` (a special
scalar), a Go scalar, or another type's name with its file in front where that is another
one (``core/v1.PodSpec``). A named string with values is ``{"enum": […]}``, a slice that is a
message in protobuf ``{"is": type}``.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.generate.gotypes import Declaration, Member, Package
from controlplane.generate.packages import META, Source

Rows = dict[str, dict[str, Any]]

_SCALARS = {"string", "bool", "int32", "int64", "float64", "uint8", "int"}
# Types with an encoding of their own, by import path and name.
_SPECIAL = {
    ("k8s.io/apimachinery/pkg/api/resource", "Quantity"): "!Quantity",
    ("k8s.io/apimachinery/pkg/util/intstr", "IntOrString"): "!IntOrString",
    ("k8s.io/apimachinery/pkg/runtime", "RawExtension"): "!RawExtension",
    ("k8s.io/apimachinery/pkg/types", "UID"): "string",
}
_SPECIAL_HERE = {
    META: ("Time", "MicroTime", "Duration", "FieldsV1"),
    "apiextensions/v1": (
        "JSON",
        "JSONSchemaPropsOrBool",
        "JSONSchemaPropsOrArray",
        "JSONSchemaPropsOrStringArray",
    ),
}
_MAP = re.compile(r"^map\[[\w.]+\](.+)$")


class Emitter:
    """Emits one package after another; knows all of them, because types refer to each other."""

    def __init__(self, packages: Mapping[str, Package], sources: Iterable[Source]) -> None:
        self._packages = packages
        self._sources = {source.key: source for source in sources}
        self._by_path = {source.import_path: source.key for source in sources}

    def rows(self, key: str) -> Rows:
        rows: Rows = {}
        for name, declaration in sorted(self._packages[key].types.items()):
            if name in _SPECIAL_HERE.get(key, ()):
                continue
            row = self._row(key, declaration)
            if row:
                rows[name] = row
        return rows

    def _row(self, key: str, declaration: Declaration) -> dict[str, Any] | None:
        if declaration.members is not None:
            return self._struct(key, declaration)
        if "enum" in declaration.markers:
            return {"enum": self._packages[key].values_of(declaration.name)}
        if "protobuf.nullable" in declaration.markers and declaration.target.startswith("[]"):
            return {"is": self._type(key, declaration, declaration.target)}
        return None

    def _struct(self, key: str, declaration: Declaration) -> dict[str, Any]:
        fields: dict[str, list[Any]] = {}
        inline: list[list[Any]] = []
        for member in declaration.members or ():
            name, _, options = member.tags.get("json", "").partition(",")
            if name == "-" or not (name or options or member.name):
                continue
            if not name:
                if "inline" in options:
                    type_ = self._type(key, declaration, member.type)
                    inline.append([type_, _number(member)])
                continue
            fields[name] = self._field(key, declaration, member, options)
        row: dict[str, Any] = {"fields": fields}
        if inline:
            row["inline"] = inline
        if declaration.markers.get("structType") == ["atomic"]:
            row["atomic"] = True
        return row

    def _field(self, key: str, declaration: Declaration, member: Member, options: str) -> list[Any]:
        flags = "r" if _required(member, options) else ""
        if "omit" in options:
            flags += "z" if "omitzero" in options else "o"
        row = [self._type(key, declaration, member.type), _number(member), flags]
        extras = self._extras(key, member)
        return [*row, extras] if extras else row

    def _extras(self, key: str, member: Member) -> dict[str, Any]:
        extras: dict[str, Any] = {}
        markers = member.markers
        for marker, extra in (
            ("listType", "list"),
            ("mapType", "map"),
            ("structType", "struct"),
        ):
            if marker in markers:
                extras[extra] = markers[marker][0]
        if "listMapKey" in markers:
            extras["keys"] = markers["listMapKey"]
        if "patchStrategy" in member.tags:
            extras["strategy"] = member.tags["patchStrategy"].split(",")
        if "patchMergeKey" in member.tags:
            extras["merge"] = member.tags["patchMergeKey"]
        if "default" in markers:
            extras["default"] = self._default(key, markers["default"][0])
        return extras

    def _default(self, key: str, literal: str) -> Any:
        if match := re.fullmatch(r"ref\((\w+)\)", literal):
            return self._packages[key].text_of(match[1])
        return json.loads(literal)

    def _type(self, key: str, declaration: Declaration, text: str) -> str:
        if text.startswith("*"):
            return "*" + self._type(key, declaration, text[1:])
        if text == "[]byte":
            return "bytes"
        if text.startswith("[]"):
            return "[]" + self._type(key, declaration, text[2:])
        if match := _MAP.match(text):
            return "{}" + self._type(key, declaration, match[1])
        if text in _SCALARS:
            return text
        qualifier, _, name = text.rpartition(".")
        if not qualifier:
            return self._named(key, name, home=key)
        path = declaration.imports[qualifier]
        if special := _SPECIAL.get((path, name)):
            return special
        if path not in self._by_path:
            return "!RawExtension"  # runtime.Object and the like, in types nobody reaches
        return self._named(self._by_path[path], name, home=key)

    def _named(self, key: str, name: str, *, home: str) -> str:
        """A type of the package ``key``, seen from the package ``home``."""
        if name in _SPECIAL_HERE.get(key, ()):
            return f"!{name}"
        target = self._packages[key].types[name]
        shown = name if key == home else f"{key}.{name}"
        if target.members is not None or "enum" in target.markers:
            return shown
        if "protobuf.nullable" in target.markers and target.target.startswith("[]"):
            return shown  # a message of its own in protobuf
        return self._type(key, target, target.target)


def _required(member: Member, options: str) -> bool:
    if "required" in member.markers:
        return True
    return not ("optional" in member.markers or "omit" in options)


def _number(member: Member) -> int:
    parts = member.tags.get("protobuf", "").split(",")
    return int(parts[1]) if len(parts) > 1 else 0


def references(row: Mapping[str, Any], key: str) -> set[str]:
    """The types, as ``file.Name``, that a row names."""
    types = [row["is"]] if "is" in row else []
    types += [field[0] for field in row.get("fields", {}).values()]
    types += [type_ for type_, _ in row.get("inline", ())]
    found = set()
    for text in types:
        name = re.sub(r"^(\*|\[\]|\{\})+", "", text)
        if name not in _SCALARS and name != "bytes" and not name.startswith("!"):
            found.add(name if "." in name else f"{key}.{name}")
    return found


def render(rows: Rows) -> str:
    """One type a line, so that a reader can find one without parsing the rest."""
    lines = [
        f"{json.dumps(name)}:{json.dumps(row, separators=(',', ':'), ensure_ascii=False)}"
        for name, row in rows.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"
