"""
What every field of a kind is: the one structure that all walks over objects use.

Validation, field validation, defaulting, pruning, strategic merge patch,
server-side apply, protobuf decoding, OpenAPI and ``kubectl explain`` read it.
Built-in kinds get theirs from the generated facts, custom resources from their
``openAPIV3Schema``, so that both take one path through the code.

Schemas are immutable once built and shared freely. Recursion (a JSON schema
within a JSON schema) goes through a :class:`Field` or ``items_ref``, which
look their target up by name on first use.
"""

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from controlplane.objects.kinds import Kind


class Type(enum.Enum):
    OBJECT = "object"  # known fields
    MAP = "map"  # any keys, values of one schema (``items``)
    LIST = "list"
    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    BYTES = "bytes"  # base64 in JSON
    QUANTITY = "quantity"
    INT_OR_STRING = "int-or-string"
    TIME = "time"  # RFC 3339, whole seconds
    MICRO_TIME = "micro-time"  # RFC 3339, six digits
    DURATION = "duration"
    FIELDS_V1 = "fields-v1"
    ANY = "any"  # RawExtension, JSON: kept as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The value validations of OpenAPI v3 that a custom resource's schema may carry."""

    minimum: float | None = None
    maximum: float | None = None
    exclusive_minimum: bool = False
    exclusive_maximum: bool = False
    multiple_of: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    pattern: str = ""
    min_items: int | None = None
    max_items: int | None = None
    unique_items: bool = False
    min_properties: int | None = None
    max_properties: int | None = None
    # Raw JSON schemas, since logical junctors hold value validations only.
    all_of: tuple[Mapping[str, Any], ...] = ()
    any_of: tuple[Mapping[str, Any], ...] = ()
    one_of: tuple[Mapping[str, Any], ...] = ()
    not_: Mapping[str, Any] | None = None
    validations: tuple[Mapping[str, Any], ...] = ()  # x-kubernetes-validations


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    type: Type
    name: str = ""  # "io.k8s.api.core.v1.PodSpec"; "" for what has no name of its own
    fields: "Mapping[str, Field]" = field(default_factory=dict)  # of OBJECT, by JSON name
    items_ref: "Callable[[], Schema] | None" = None  # of LIST and MAP
    format: str = ""  # int32, int64, double, float, date-time, byte, ipv4, …
    enum: tuple[Any, ...] = ()
    nullable: bool = False
    # Of LIST: atomic (also when nothing was said), set or map, and the keys of map.
    list_type: str = "atomic"
    map_keys: tuple[str, ...] = ()
    # Of LIST, MAP and OBJECT, for strategic merge patch: merge, replace, retainKeys.
    patch_strategy: frozenset[str] = frozenset()
    merge_key: str = ""
    atomic: bool = False  # of OBJECT and MAP: owned as a whole by server-side apply
    preserve_unknown: bool = False  # unknown fields stay, of OBJECT
    embedded: bool = False  # an object with apiVersion, kind and metadata of its own
    gvks: tuple[tuple[str, str, str], ...] = ()  # of top-level kinds: group, version, kind
    rules: Rules | None = None
    description: str = ""  # custom resources only; built-in prose is not kept
    # Of OBJECT: what is part of it in JSON but a message of its own in protobuf, by number.
    inlined: "tuple[tuple[int, Callable[[], Schema]], ...]" = ()

    @property
    def items(self) -> "Schema":
        """Of LIST and MAP; the value's schema."""
        if self.items_ref is None:
            raise TypeError(f"{self.type} has no items")
        return self.items_ref()


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One field of an object."""

    name: str  # JSON name
    ref: Callable[[], Schema]
    number: int = 0  # protobuf field number; 0: not in the protobuf form
    required: bool = False
    has_default: bool = False
    default: Any = None  # JSON value; meaningful only with has_default
    # How the server's own encoder treats it. A pointer keeps an explicit 0, "" and false;
    # what is not omitted when empty is written as null, "", 0 or {}.
    pointer: bool = True
    omit_empty: bool = True

    @property
    def schema(self) -> Schema:
        return self.ref()


class Schemas:
    """
    The schema of each kind that is served.

    Built-in schemas are loaded on first use; those of custom resources come and go
    with their definitions. Its mutable state is the custom ones, by group, version, plural.
    """

    def __init__(self, builtin: Callable[[Kind], Schema]) -> None:
        self._builtin = builtin
        self._custom: dict[tuple[str, str, str], Schema] = {}

    def of(self, kind: Kind) -> Schema:
        if kind.custom:
            return self._custom[kind.group, kind.version, kind.plural]
        return self._builtin(kind)

    def set(self, kind: Kind, schema: Schema) -> None:
        self._custom[kind.group, kind.version, kind.plural] = schema

    def drop(self, kind: Kind) -> None:
        self._custom.pop((kind.group, kind.version, kind.plural), None)
