"""
The contract between the API server and everybody who uses it from Python.

:class:`Client` reads and writes with the API's own semantics (admission,
defaults, conflicts); it is spoken over HTTPS by ``http.HttpClient`` and without
HTTP, inside the control plane, by ``api.local.LocalClient``; one suite
(``tests/conformance/test_client.py``) runs over both. :class:`Reads` and
:class:`Feed` are the indexed, always current view of all objects that level
triggered code works from: the API server's own cache inside the control plane,
``cache.Cache`` elsewhere.

Objects are ``dict`` values as the API's JSON gives them. What a read returns is
shared: whoever changes it makes a copy first.

Errors are :class:`controlplane.objects.errors.StatusError`, as the server said;
:class:`Unreachable` where no server answered.
"""

import enum
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from controlplane.objects.kinds import Resource

Object = Mapping[str, Any]


class Unreachable(Exception):
    """No API server answered; whether a write was done is unknown."""


class PatchType(enum.Enum):
    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class ObjectList:
    resource_version: str
    items: Sequence[Object]


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: str  # ADDED, MODIFIED, DELETED, BOOKMARK
    object: Object


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which objects of a kind: all, or those that match every part given."""

    namespace: str = ""  # "": all namespaces
    labels: str = ""  # label selector as in a URL: app=web,tier in (a,b)
    fields: str = ""  # field selector: spec.nodeName=n1


EVERYTHING = Selection()


class Client(Protocol):
    async def get(self, resource: Resource, namespace: str, name: str) -> Object: ...

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList: ...

    def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        """
        Changes after a resourceVersion, bookmarks included; ends when the server says so.

        A 410 (:class:`StatusError` with reason Expired or Gone) means: list again.
        """

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        """
        Namespace from the body. ``name`` is the parent of a subresource: binding, eviction, token.
        """

    async def update(
        self, resource: Resource, body: Object, *, subresource: str = ""
    ) -> Object: ...

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Any,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's own word
        subresource: str = "",
        options: Mapping[str, str] | None = None,  # fieldManager, force, dryRun, …
    ) -> Object: ...

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,  # DeleteOptions: preconditions, propagationPolicy
    ) -> Object: ...


class Reads(Protocol):
    """The current objects, indexed. Synchronous: never waits, never does I/O."""

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None: ...

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        """In the order of their keys; namespace "": all."""

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        """Those with an owner reference (controller or not) to that uid."""

    def on_node(self, node: str) -> Sequence[Object]:
        """The pods bound to a node, finished ones included."""


@dataclass(frozen=True, slots=True)
class Change:
    """
    One change to one object; ``old`` None: created, ``new`` None: deleted.

    Both are decoded on first use only.
    """

    resource: Resource
    namespace: str
    name: str
    load_old: Callable[[], Object] | None
    load_new: Callable[[], Object] | None

    @property
    def old(self) -> Object | None:
        return self.load_old() if self.load_old is not None else None

    @property
    def new(self) -> Object | None:
        return self.load_new() if self.load_new is not None else None


class Feed(Protocol):
    """Tells of changes after :class:`Reads` shows them."""

    def subscribe(
        self, resources: Iterable[Resource], deliver: Callable[[Change], None]
    ) -> Callable[[], None]:
        """
        Call ``deliver`` on the event loop for each change from now on, in revision order.

        Everything that exists now is delivered first, as created, before this
        returns. The result unsubscribes. ``deliver`` must be quick and not raise.
        A kind may be named before it is served (its CRD comes later).
        """
