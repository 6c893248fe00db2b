"""
Random objects for every kind: right by their schema, or wrong at one place or many.

Everything is drawn from a ``random.Random``, so that a seed says all.
"""

import copy
import random
from collections.abc import Iterator
from typing import Any

from controlplane.objects.kinds import Kind
from controlplane.objects.schema import Schema, Type
from tests.unit.api_fuzz.minimal import NAMES, minimal

DEEP: Any = {}
for _ in range(40):
    DEEP = {"a": [DEEP]}

JUNK: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    1,
    -1,
    2**31,
    -(2**31),
    2**53 + 1,
    2**63 - 1,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    1e308,
    5e-324,
    "",
    "a",
    "0",
    "-1",
    "1Gi",
    "1e3",
    "9" * 400,
    "9" * 5000,
    "1e999999999",
    ".",
    "..",
    "/",
    "a/b",
    "%2F",
    "a" * 300,
    "A_b",
    "ü",
    "\u0000",
    "\ud7ff\uffff",
    "\U0001f600",
    "a\nb\r\n: x",
    "{}",
    "$(x)",
    "[",
    "*",
    "2026-01-02T03:04:05Z",
    "9999-12-31T23:59:59-23:00",
    "0001-01-01T00:00:00+23:59",
    "10.0.0.1",
    "::1",
    "10.0.0.0/8",
    "::/0",
    "Always",
    "TCP",
    "80%",
    "999999999999999999999%",
    [],
    [None],
    [[]],
    [{}],
    [""],
    ["a", "a"],
    [1, "a", None, {}],
    {},
    {"": None},
    {"a": "b"},
    {"a": None},
    {"a": 1},
    {"a": {"b": []}},
    {"name": "a"},
    {"name": None, "type": None},
    {"matchLabels": {"a": "b"}},
    {"matchExpressions": [{"key": "a", "operator": "In", "values": []}]},
    {"kind": "Pod", "apiVersion": "v1", "metadata": None},
    {"$patch": "delete"},
    {"$patch": "replace", "$retainKeys": ["a"]},
    {"$setElementOrder/containers": [{"name": "a"}]},
    {"$deleteFromPrimitiveList/finalizers": ["a"]},
    {"x-kubernetes-preserve-unknown-fields": True},
    DEEP,
)


def junk(rng: random.Random) -> Any:
    value = rng.choice(JUNK)
    value = copy.deepcopy(value) if isinstance(value, dict | list) else value
    if rng.random() < 0.1:
        return [value, rng.choice(JUNK)]
    if rng.random() < 0.1:
        return {str(rng.choice(JUNK)): value}
    return value


_STRINGS = (
    "a", "b", "web", "80", "10.0.0.1", "10.43.0.9", "a.example.com", "example.com/a", "TCP",
    "Always",
    "In", "Exists", "Equal", "NoSchedule", "Foreground", "ClusterIP", "NodePort", "ExternalName",
    "None", "Never", "http", "1Gi", "self.a == 1", "object.spec", "", "kubernetes.io/x", "*",
    "Delete",
    "RuntimeDefault", "/a", "a/../b", "2", "v1", "apps/v1", "Pod", "Utilization", "IPv4", "Local",
)  # fmt: skip


class Maker:
    """Objects by their schema. ``wrong``: how often a value has another type than it should."""

    def __init__(self, rng: random.Random, *, wrong: float = 0.0, full: float = 0.3) -> None:
        self._rng = rng
        self._wrong = wrong
        self._full = full

    def value(self, schema: Schema, depth: int = 0) -> Any:
        rng = self._rng
        if rng.random() < self._wrong:
            return junk(rng)
        match schema.type:
            case Type.OBJECT:
                return self.fields(schema, depth + 1)
            case Type.LIST if depth < 12:
                many = rng.choice((0, 1, 1, 2))
                return [self.value(schema.items, depth + 1) for _ in range(many)]
            case Type.MAP if depth < 12:
                many = rng.choice((0, 1, 1, 2))
                return {
                    self._string(schema): self.value(schema.items, depth + 1) for _ in range(many)
                }
            case Type.LIST:
                return []
            case Type.MAP:
                return {}
            case _:
                return self._scalar(schema)

    def fields(self, schema: Schema, depth: int) -> dict[str, Any]:
        rng = self._rng
        share = self._full if depth < 12 else 0.05
        return {
            name: self.value(field.schema, depth)
            for name, field in schema.fields.items()
            if rng.random() < (0.9 if field.required else share)
        }

    def _string(self, schema: Schema) -> str:
        if schema.enum and self._rng.random() < 0.8:
            return str(self._rng.choice(schema.enum))
        return self._rng.choice(_STRINGS)

    def _scalar(self, schema: Schema) -> Any:
        if schema.type is Type.STRING:
            return self._string(schema)
        values = _SCALARS.get(schema.type)
        return self._rng.choice(values) if values is not None else junk(self._rng)


_SCALARS: dict[Type, tuple[Any, ...]] = {
    Type.INTEGER: (0, 1, 1, 2, 80, 443, 30000, -1, 2**31 - 1, -(2**31)),
    Type.NUMBER: (0, 1, 1.5, -1, 1e300),
    Type.BOOLEAN: (True, False),
    Type.BYTES: ("", "YQ==", "AAAA", "LS0tLS1CRUdJTg=="),
    Type.QUANTITY: ("1", "100m", "1Gi", "0", "-1", "1e3", 5, 0.1, "9" * 30),
    Type.INT_OR_STRING: (1, 80, "50%", "http", "0%", -1),
    Type.TIME: ("2026-01-02T03:04:05Z",),
    Type.MICRO_TIME: ("2026-01-02T03:04:05.000001Z",),
    Type.DURATION: ("1h", "5m0s", "x"),
}


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of everything within a value."""
    match value:
        case dict():
            for key, inner in value.items():
                yield (*path, key)
                yield from places(inner, (*path, key))
        case list():
            for at, inner in enumerate(value):
                yield (*path, at)
                yield from places(inner, (*path, at))
        case _:
            pass


def spoil(rng: random.Random, value: Any, times: int) -> Any:
    """Replace, drop or add something at random places, in place."""
    for _ in range(times):
        found = list(places(value))
        if not found:
            return junk(rng)
        *way, last = rng.choice(found)
        parent = value
        for step in way:
            parent = parent[step]
        if rng.random() < 0.1:
            del parent[last]
        elif rng.random() < 0.1 and isinstance(parent, dict):
            parent[str(rng.choice(JUNK))] = junk(rng)
        elif rng.random() < 0.1 and isinstance(parent, list):
            parent.append(parent[last])
        else:
            parent[last] = junk(rng)
    return value


def body(rng: random.Random, kind: Kind, schema: Schema) -> Any:
    """An object of a kind, from valid to absurd."""
    obj: Any = minimal(kind)
    match rng.randrange(5):
        case 0:
            pass
        case 1:
            spoil(rng, obj, rng.choice((1, 1, 2, 5)))
        case 2 | 3:
            wrong = rng.choice((0.0, 0.01, 0.05))
            made = Maker(rng, wrong=wrong, full=rng.choice((0.1, 0.3, 0.7))).fields(schema, 0)
            obj = merged(obj, made)
        case _:
            made = Maker(rng, full=rng.choice((0.1, 0.3))).fields(schema, 0)
            obj = spoil(rng, merged(obj, made), rng.choice((1, 3)))
    if isinstance(obj, dict) and rng.random() < 0.9:
        obj["apiVersion"], obj["kind"] = kind.api_version, kind.kind
        if rng.random() < 0.9:
            obj["metadata"] = metadata = obj.get("metadata")
            if isinstance(metadata, dict) and rng.random() < 0.9:
                metadata["name"] = rng.choice(NAMES)
                metadata.pop("namespace", None)
                metadata.pop("resourceVersion", None)
    return obj


def merged(base: Any, over: Any) -> Any:
    """``over`` with what only ``base`` has."""
    if isinstance(base, dict) and isinstance(over, dict):
        both = {key: merged(base[key], over[key]) for key in base.keys() & over.keys()}
        return {**base, **over, **both}
    return over
