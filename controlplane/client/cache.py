"""
Reads and Feed outside the control plane: list and watch, kept in memory.

What is wanted is said by selections, which may come and go while it runs (a node
follows the pods bound to it and the few Secrets that they mount). After a broken
connection a watch goes on from the last resourceVersion, bookmarks included; a
410 lists again, and only real differences are told.
"""

import asyncio
import logging
import random
from bisect import insort
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import TypeVar, cast

from controlplane.client.base import (
    EVERYTHING,
    Change,
    Client,
    Object,
    Selection,
    Unreachable,
    WatchEvent,
)
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource

log = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 30.0
PODS = Resource("", "v1", "pods", True)

Want = tuple[Resource, Selection]
Name = tuple[str, str]  # namespace, name
Deliver = Callable[[Change], None]
_States = tuple[Object | None, Object | None]  # old, new
T = TypeVar("T")


class _Wanted:
    """One selection: what it found, and whether it was complete once."""

    __slots__ = ("names", "ready", "task")

    def __init__(self) -> None:
        self.names: set[Name] = set()
        self.ready = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class _Kind:
    """The objects of one resource; those that several selections found are held once."""

    __slots__ = ("feeds", "objects", "order")

    def __init__(self) -> None:
        self.objects: dict[Name, Object] = {}
        self.order: list[Name] = []
        self.feeds: dict[Deliver, None] = {}


class Cache:
    """
    Implements Reads and Feed of :mod:`controlplane.client.base`.

    :meth:`run` follows the server until it is cancelled; :meth:`want` may be
    called before and during it.
    """

    def __init__(
        self,
        client: Client,
        wanted: Iterable[Want] = (),
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._sleep = sleep
        self._wanted: dict[Want, _Wanted] = {}
        self._kinds: dict[Resource, _Kind] = {}
        self._owned: dict[str, set[tuple[Resource, Name]]] = {}
        self._on_node: dict[str, set[Name]] = {}
        self._group: asyncio.TaskGroup | None = None
        for resource, selection in wanted:
            self.want(resource, selection)

    # What to follow

    def want(self, resource: Resource, selection: Selection = EVERYTHING) -> None:
        """Follow a selection; a second time is no change."""
        want = (resource, selection)
        if want not in self._wanted:
            self._wanted[want] = _Wanted()
            if self._group is not None:
                self._start(want)

    def unwant(self, resource: Resource, selection: Selection = EVERYTHING) -> None:
        """Forget a selection and what only it found; that is told as deleted."""
        wanted = self._wanted.pop((resource, selection), None)
        if wanted is None:
            return
        if wanted.task is not None:
            wanted.task.cancel()
        for name in sorted(wanted.names):
            self._lose(resource, wanted, name)

    async def synced(self, resource: Resource | None = None) -> None:
        """Return once everything wanted now (of a resource) was listed completely."""
        for (of, _), wanted in list(self._wanted.items()):
            if resource is None or of == resource:
                await wanted.ready.wait()

    def is_synced(self, resource: Resource, selection: Selection = EVERYTHING) -> bool:
        wanted = self._wanted.get((resource, selection))
        return wanted is not None and wanted.ready.is_set()

    async def run(self) -> None:
        """Follow everything wanted, without end."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for want in list(self._wanted):
                    self._start(want)
                await asyncio.Event().wait()
        finally:
            self._group = None

    def _start(self, want: Want) -> None:
        assert self._group is not None
        wanted = self._wanted[want]
        wanted.task = self._group.create_task(self._follow(want, wanted))

    async def _follow(self, want: Want, wanted: _Wanted) -> None:
        after, pause = "", _FIRST_PAUSE
        while True:
            try:
                if not after:
                    after = await self._list(want, wanted)
                async for event in self._watch(want, after):
                    after = event.object["metadata"]["resourceVersion"]
                    self._take(want[0], wanted, event)
                    pause = _FIRST_PAUSE
                continue
            except StatusError as error:
                if error.code == 410:
                    after = ""
                    continue
                log.info("following %s: %s", want[0].group_resource, error.message)
                if error.code == 404:
                    after = ""  # not served yet, or no longer
            except Unreachable as error:
                log.info("following %s: %s", want[0].group_resource, error)
            await self._sleep(pause * (0.5 + random.random()))  # noqa: S311 - spreads retries
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _list(self, want: Want, wanted: _Wanted) -> str:
        resource, selection = want
        listed = await self._client.list(resource, selection)
        found = {_name(obj): obj for obj in listed.items}
        for name in sorted(wanted.names - found.keys()):
            self._lose(resource, wanted, name)
        for name, obj in found.items():
            self._have(resource, wanted, name, obj)
        wanted.ready.set()
        return listed.resource_version

    async def _watch(self, want: Want, after: str) -> AsyncIterator[WatchEvent]:
        events = self._client.watch(*want, after=after)
        async with aclosing(cast("_Closable", events)):
            async for event in events:
                yield event

    def _take(self, resource: Resource, wanted: _Wanted, event: WatchEvent) -> None:
        if event.type == "BOOKMARK":
            return
        name = _name(event.object)
        if event.type == "DELETED":
            self._lose(resource, wanted, name)
        else:
            self._have(resource, wanted, name, event.object)

    # What is known

    def _have(self, resource: Resource, wanted: _Wanted, name: Name, obj: Object) -> None:
        wanted.names.add(name)
        kind = self._kind(resource)
        old = kind.objects.get(name)
        if old is not None:
            if _is_newer(old, obj):
                return  # another selection told of it already
            self._index(resource, name, old, add=False)
        else:
            insort(kind.order, name)
        kind.objects[name] = obj
        self._index(resource, name, obj, add=True)
        self._tell(resource, kind, name, (old, obj))

    def _lose(self, resource: Resource, wanted: _Wanted, name: Name) -> None:
        wanted.names.discard(name)
        kind = self._kind(resource)
        old = kind.objects.get(name)
        if old is None or self._still_wanted(resource, name):
            return
        del kind.objects[name]
        kind.order.remove(name)
        self._index(resource, name, old, add=False)
        self._tell(resource, kind, name, (old, None))

    def _still_wanted(self, resource: Resource, name: Name) -> bool:
        return any(
            of == resource and name in wanted.names for (of, _), wanted in self._wanted.items()
        )

    def _kind(self, resource: Resource) -> _Kind:
        kind = self._kinds.get(resource)
        if kind is None:
            kind = self._kinds[resource] = _Kind()
        return kind

    def _index(self, resource: Resource, name: Name, obj: Object, *, add: bool) -> None:
        for reference in obj["metadata"].get("ownerReferences") or ():
            _note(self._owned, reference["uid"], (resource, name), add=add)
        if resource == PODS:
            node = (obj.get("spec") or {}).get("nodeName")
            if node:
                _note(self._on_node, node, name, add=add)

    def _tell(self, resource: Resource, kind: _Kind, name: Name, states: _States) -> None:
        if not kind.feeds:
            return
        change = _change(resource, name, *states)
        for deliver in list(kind.feeds):
            deliver(change)

    # Reads

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._kind(resource).objects.get((namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        kind = self._kind(resource)
        names = kind.order
        if namespace and resource.namespaced:
            names = [name for name in names if name[0] == namespace]
        return [kind.objects[name] for name in names]

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        objects = self._kind(resource).objects
        found = sorted(name for of, name in self._owned.get(uid, ()) if of == resource)
        return [objects[name] for name in found]

    def on_node(self, node: str) -> Sequence[Object]:
        objects = self._kind(PODS).objects
        return [objects[name] for name in sorted(self._on_node.get(node, ()))]

    # Feed

    def subscribe(self, resources: Iterable[Resource], deliver: Deliver) -> Callable[[], None]:
        kinds = []
        for resource in resources:
            kind = self._kind(resource)
            kinds.append(kind)
            for name in list(kind.order):
                deliver(_change(resource, name, None, kind.objects[name]))
            kind.feeds[deliver] = None

        def unsubscribe() -> None:
            for kind in kinds:
                kind.feeds.pop(deliver, None)

        return unsubscribe


class _Closable(AsyncIterator[WatchEvent]):
    """A watch is an async generator: closing it closes the connection."""

    async def aclose(self) -> None: ...


def _name(obj: Object) -> Name:
    metadata: Mapping[str, str] = obj["metadata"]
    return metadata.get("namespace") or "", metadata["name"]


def _is_newer(old: Object, new: Object) -> bool:
    """Whether what is known is as new as what comes; versions are numbers on our servers only."""
    known, coming = old["metadata"]["resourceVersion"], new["metadata"]["resourceVersion"]
    if known == coming:
        return True
    if known.isdecimal() and coming.isdecimal():
        return int(known) > int(coming)
    return False


def _note(index: dict[str, set[T]], at: str, what: T, *, add: bool) -> None:
    if add:
        index.setdefault(at, set()).add(what)
        return
    held = index.get(at)
    if held is not None:
        held.discard(what)
        if not held:
            del index[at]


def _change(resource: Resource, name: Name, old: Object | None, new: Object | None) -> Change:
    return Change(
        resource,
        *name,
        (lambda: old) if old is not None else None,
        (lambda: new) if new is not None else None,
    )
