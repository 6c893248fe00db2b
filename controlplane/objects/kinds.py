"""
Kinds as data: what a resource is called, where it is stored, what can be done with it.

The built-in kinds come from the generated facts (:mod:`controlplane.objects.facts`);
custom resource definitions add theirs while the server runs. Every part of the API
server asks this table; none has a list of kinds of its own.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

CORE = "core"  # stands for the empty group where an empty path segment cannot


class Resource(NamedTuple):
    """How clients name a kind: the path below /api or /apis."""

    group: str  # "" is the core group
    version: str
    plural: str
    namespaced: bool

    @property
    def group_resource(self) -> str:
        """``pods`` or ``deployments.apps``, as error messages and RBAC name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path; an empty namespace of a namespaced kind means all of them."""
        parts = ["/apis", self.group] if self.group else ["/api"]
        parts.append(self.version)
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One printer column of a custom resource definition."""

    name: str
    type: str  # string, integer, number, boolean, date
    json_path: str
    description: str = ""
    format: str = ""
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind in one version. Two versions of a kind share ``storage_key`` and the objects."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    # get list watch create update patch delete deletecollection; reviews have create only.
    verbs: frozenset[str] = frozenset()
    subresources: frozenset[str] = frozenset()  # status, scale, eviction, log, …
    storage_version: str = ""  # group/version in which objects are stored; "": this one
    storage_key: str = ""  # "/core/pods": the first part of each object's key
    volatile: bool = False  # kept in memory only: Leases, Events
    custom: bool = False  # from a CustomResourceDefinition
    columns: tuple[Column, ...] = ()
    selectable_fields: tuple[str, ...] = ()  # JSON paths, of custom resources
    # JSON paths of the scale subresource of custom resources; empty: none.
    scale_paths: tuple[str, str, str] | None = None  # spec replicas, status replicas, selector
    list_kind: str = ""  # "": kind + "List"

    @property
    def resource(self) -> Resource:
        return Resource(self.group, self.version, self.plural, self.namespaced)

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    def prefix(self, namespace: str = "") -> str:
        """What the keys of all objects of this kind (in that namespace) start with."""
        return f"{self.storage_key}/{namespace}/" if namespace else f"{self.storage_key}/"

    def key(self, namespace: str, name: str) -> str:
        """``/core/pods/<namespace>/<name>`` or ``/core/nodes/<name>``."""
        if self.namespaced:
            return f"{self.storage_key}/{namespace}/{name}"
        return f"{self.storage_key}/{name}"


class Kinds:
    """
    The kinds that are served now.

    Its mutable state is the two indexes, changed by :meth:`add` and :meth:`remove`
    only, on the event loop; readers never keep a result across an await.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._by_resource: dict[tuple[str, str, str], Kind] = {}
        self._by_kind: dict[tuple[str, str, str], Kind] = {}
        for kind in kinds:
            self.add(kind)

    def __iter__(self) -> Iterator[Kind]:
        return iter(list(self._by_resource.values()))

    def add(self, kind: Kind) -> None:
        self._by_resource[kind.group, kind.version, kind.plural] = kind
        # A plural may share its kind with another (none of ours does): first come, first named.
        self._by_kind.setdefault((kind.group, kind.version, kind.kind), kind)

    def remove(self, kind: Kind) -> None:
        self._by_resource.pop((kind.group, kind.version, kind.plural), None)
        self._by_kind.pop((kind.group, kind.version, kind.kind), None)

    def replace(self, kind: Kind) -> None:
        self.remove(kind)
        self.add(kind)

    def by_resource(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_resource.get((group, version, plural))

    def by_kind(self, api_version: str, kind: str) -> Kind | None:
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def versions(self, group: str) -> list[str]:
        """In the order of the table: the preferred one first."""
        return list(dict.fromkeys(k.version for k in self if k.group == group))

    def groups(self) -> list[str]:
        """Core first, then as the table has them."""
        return list(dict.fromkeys(k.group for k in self))
