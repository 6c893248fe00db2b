"""
The built-in kinds and their schemas, from the generated files in ``data``.

A file is read when a type of it is first asked for, a type is built when it is first
reached: an API server touches a fraction of them, and every kibibyte counts four times
(once a process). Source of the facts: the Go types of Kubernetes v1.36, read by
:mod:`controlplane.generate`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from controlplane.objects.builtin import BODIES, KINDS
from controlplane.objects.kinds import Kind
from controlplane.objects.schema import Field, Schema, Schemas, Type

_DATA = Path(__file__).parent / "data"
_META = "meta/v1"
_META_PREFIX = "io.k8s.apimachinery.pkg.apis.meta.v1"
_PREFIXES = {
    _META: _META_PREFIX,
    "apiextensions/v1": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1",
    "apiregistration/v1": "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1",
}
_SCALARS = {
    "string": Schema(type=Type.STRING),
    "bool": Schema(type=Type.BOOLEAN),
    "int": Schema(type=Type.INTEGER, format="int32"),
    "int32": Schema(type=Type.INTEGER, format="int32"),
    "int64": Schema(type=Type.INTEGER, format="int64"),
    "uint8": Schema(type=Type.INTEGER, format="byte"),
    "float64": Schema(type=Type.NUMBER, format="double"),
    "bytes": Schema(type=Type.BYTES, format="byte"),
}


def _special(type_: Type, name: str, format_: str = "") -> Schema:
    return Schema(type=type_, name=name, format=format_)


_JSON_PREFIX = _PREFIXES["apiextensions/v1"]
_SPECIALS = {
    "Quantity": _special(Type.QUANTITY, "io.k8s.apimachinery.pkg.api.resource.Quantity"),
    "IntOrString": _special(
        Type.INT_OR_STRING, "io.k8s.apimachinery.pkg.util.intstr.IntOrString", "int-or-string"
    ),
    "RawExtension": _special(Type.ANY, "io.k8s.apimachinery.pkg.runtime.RawExtension"),
    "Time": _special(Type.TIME, f"{_META_PREFIX}.Time", "date-time"),
    "MicroTime": _special(Type.MICRO_TIME, f"{_META_PREFIX}.MicroTime", "date-time"),
    "Duration": _special(Type.DURATION, f"{_META_PREFIX}.Duration"),
    "FieldsV1": _special(Type.FIELDS_V1, f"{_META_PREFIX}.FieldsV1"),
    # Either a schema or something else: no structural type can say that.
    "JSON": _special(Type.ANY, f"{_JSON_PREFIX}.JSON"),
    "JSONSchemaPropsOrBool": _special(Type.ANY, f"{_JSON_PREFIX}.JSONSchemaPropsOrBool"),
    "JSONSchemaPropsOrArray": _special(Type.ANY, f"{_JSON_PREFIX}.JSONSchemaPropsOrArray"),
    "JSONSchemaPropsOrStringArray": _special(
        Type.ANY, f"{_JSON_PREFIX}.JSONSchemaPropsOrStringArray"
    ),
}

Make = Callable[[], Schema]


class _Ref:
    """A schema that is made when it is first asked for."""

    __slots__ = ("_make", "_schema")

    def __init__(self, make: Make) -> None:
        self._make: Make | None = make
        self._schema: Schema | None = None

    def __call__(self) -> Schema:
        schema = self._schema
        if schema is None:
            make = self._make
            # Threads may make the same schema twice (they are equal); none sees neither.
            schema = self._schema = make() if make is not None else self._schema
            assert schema is not None
            self._make = None
        return schema


class _Given:
    """A schema that exists already."""

    __slots__ = ("_schema",)

    def __init__(self, schema: Schema) -> None:
        self._schema = schema

    def __call__(self) -> Schema:
        return self._schema


class _File:
    """The types of one group and version: bytes until they are asked for."""

    def __init__(self, key: str) -> None:
        self.key = key
        folder, _, version = key.partition("/")
        self.prefix = _PREFIXES.get(key, f"io.k8s.api.{folder}.{version}")
        self.group, self.version = _GROUPS.get(key, ("", "v1"))
        self._lines: dict[str, bytes] = {}
        for line in (_DATA / f"{folder}_{version}.json").read_bytes().split(b"\n"):
            if line.startswith(b'"'):
                name, _, row = line[1:].partition(b'":')
                self._lines[name.decode()] = row.rstrip(b",")

    def __contains__(self, name: str) -> bool:
        return name in self._lines

    def row(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = orjson.loads(self._lines[name])
        return row


class _Facts:
    """Its mutable state is what was loaded so far; nothing is ever dropped or changed."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._types: dict[str, _Ref] = {}  # file.Name
        self._made: dict[str, _Ref] = {}  # by type text and extras
        self._givens: dict[str, _Given] = {}

    def file(self, key: str) -> _File:
        if key not in self._files:
            self._files[key] = _File(key)
        return self._files[key]

    def type(self, key: str, name: str) -> _Ref:
        full = f"{key}.{name}"
        if full not in self._types:
            self._types[full] = _Ref(lambda: self._build(key, name))
        return self._types[full]

    def _build(self, key: str, name: str) -> Schema:
        file = self.file(key)
        row = file.row(name)
        if "enum" in row:
            name = f"{file.prefix}.{name}"
            return Schema(type=Type.STRING, name=name, enum=tuple(row["enum"]))
        if "is" in row:
            items = self._make(key, row["is"].removeprefix("[]"), {})
            return Schema(type=Type.LIST, name=f"{file.prefix}.{name}", items_ref=items)
        fields: dict[str, Field] = {}
        inlined: list[tuple[int, Make]] = []
        for text, number in row.get("inline", ()):
            embedded = self._make(key, text, {})
            if number:
                inlined.append((number, embedded))
            for field in embedded().fields.values():
                fields[field.name] = dataclasses.replace(field, number=0)
        for field_name, field_row in row["fields"].items():
            fields[field_name] = self._field(key, field_name, field_row)
        is_kind = any(text.endswith("TypeMeta") for text, _ in row.get("inline", ()))
        return Schema(
            type=Type.OBJECT,
            name=f"{file.prefix}.{name}",
            fields=fields,
            atomic=row.get("atomic", False),
            gvks=((file.group, file.version, name),) if is_kind else (),
            inlined=tuple(inlined),
        )

    def _field(self, key: str, name: str, row: list[Any]) -> Field:
        text, number, flags, *rest = row
        extras = rest[0] if rest else {}
        pointer = text.startswith("*")
        return Field(
            name=name,
            ref=self._make(key, text.removeprefix("*"), extras),
            number=number,
            required="r" in flags,
            has_default="default" in extras,
            default=extras.get("default"),
            pointer=pointer,
            omit_empty="z" in flags or ("o" in flags and (pointer or self._omits(key, text))),
        )

    def _omits(self, key: str, text: str) -> bool:
        """Whether ``omitempty`` has an effect: on a struct it has none."""
        if text.startswith(("[]", "{}")) or text in _SCALARS:
            return True
        if text.startswith("!"):
            # Of the special ones only these are no structs.
            return False
        home, _, name = text.rpartition(".")
        row = self.file(home or key).row(name)
        return "fields" not in row

    def _make(self, key: str, text: str, extras: Mapping[str, Any]) -> Make:
        if text in _SCALARS:
            return self._given(text, _SCALARS[text])
        if text.startswith("!"):
            return self._given(text, _SPECIALS[text[1:]])
        marks = {name: value for name, value in extras.items() if name != "default"}
        if not text.startswith(("[]", "{}")) and not marks:
            home, _, name = text.rpartition(".")
            return self.type(home or key, name)
        spelled = f"{key} {text} {marks}" if marks else f"{key} {text}"
        if spelled not in self._made:
            self._made[spelled] = _Ref(lambda: self._marked(key, text, marks))
        return self._made[spelled]

    def _given(self, text: str, schema: Schema) -> _Given:
        if text not in self._givens:
            self._givens[text] = _Given(schema)
        return self._givens[text]

    def _marked(self, key: str, text: str, marks: Mapping[str, Any]) -> Schema:
        strategy = frozenset(marks.get("strategy", ()))
        merge = marks.get("merge", "")
        if text.startswith("[]"):
            return Schema(
                type=Type.LIST,
                items_ref=self._make(key, text[2:], {}),
                list_type=marks.get("list", "atomic"),
                map_keys=tuple(marks.get("keys", ())),
                patch_strategy=strategy,
                merge_key=merge,
            )
        if text.startswith("{}"):
            return Schema(
                type=Type.MAP,
                items_ref=self._make(key, text[2:], {}),
                atomic=marks.get("map") == "atomic",
                patch_strategy=strategy,
            )
        schema = self._make(key, text, {})()
        atomic = schema.atomic
        if "struct" in marks or "map" in marks:
            atomic = "atomic" in (marks.get("struct"), marks.get("map"))
        return dataclasses.replace(schema, atomic=atomic, patch_strategy=strategy)


def _folder(group: str, version: str) -> str:
    """``rbac.authorization.k8s.io`` and ``v1`` → ``rbac/v1``."""
    return f"{group.partition('.')[0] or 'core'}/{version}"


_GROUPS = {_folder(kind.group, kind.version): (kind.group, kind.version) for kind in KINDS}
_BODIES = {(group, version, kind) for group, version, kind in BODIES}
_META_KINDS = {kind for group, _, kind in BODIES if group == "meta.k8s.io"}
_BY_KIND = {(kind.group, kind.version, kind.kind): kind for kind in KINDS}
_BUILTIN = ("io.k8s.api.", "io.k8s.apimachinery.", *_PREFIXES.values())
_FACTS = _Facts()


def builtin_kinds() -> tuple[Kind, ...]:
    """In the order of discovery: groups as upstream has them, preferred versions first."""
    return KINDS


def load_schemas() -> Schemas:
    """A table for a server: built-in kinds now, custom ones as their definitions come."""
    return Schemas(schema_of)


def schema_of(kind: Kind) -> Schema:
    """KeyError where the kind is not built in."""
    return _FACTS.type(_folder(kind.group, kind.version), kind.kind)()


def is_builtin(schema: Schema) -> bool:
    """Whether a named schema is one of ours, not one from a custom resource definition."""
    return schema.name.startswith(_BUILTIN)


def list_schema_of(kind: Kind) -> Schema:
    """Of ``PodList`` and its like; KeyError for kinds that are created only."""
    name = kind.list_kind or f"{kind.kind}List"
    return _FACTS.type(_folder(kind.group, kind.version), name)()


def schema_by_name(name: str) -> Schema:
    """``io.k8s.api.core.v1.PodSpec``, as OpenAPI names it; KeyError where there is none."""
    for special in _SPECIALS.values():
        if special.name == name:
            return special
    prefix, _, type_name = name.rpartition(".")
    for key, known in _PREFIXES.items():
        if prefix == known:
            return _FACTS.type(key, type_name)()
    folder, _, version = prefix.removeprefix("io.k8s.api.").partition(".")
    if f"{folder}/{version}" not in _GROUPS:
        raise KeyError(name)
    return _FACTS.type(f"{folder}/{version}", type_name)()


def schema_of_body(api_version: str, kind: str) -> Schema | None:
    """
    What a request or an answer may carry: a kind, ``Eviction``, ``Scale``, ``DeleteOptions``…

    The options of the meta group are known under any group and version, because
    clients send them with that of the resource they are about. None: unknown.
    """
    group, _, version = api_version.rpartition("/")
    if kind in _META_KINDS:
        return _FACTS.type(_META, kind)()
    single = kind.removesuffix("List")
    found = {(group, version, kind), (group, version, single)} & _BY_KIND.keys()
    key = _folder(group, version)
    if (found or (group, version, kind) in _BODIES) and kind in _FACTS.file(key):
        return _FACTS.type(key, kind)()
    return None
