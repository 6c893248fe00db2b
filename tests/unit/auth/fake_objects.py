"""Reads, Feed and a small Client over a dictionary, for what only looks objects up."""

import copy
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any

from controlplane.client.base import (
    EVERYTHING,
    Change,
    Object,
    ObjectList,
    PatchType,
    Selection,
    WatchEvent,
)
from controlplane.objects.errors import already_exists, conflict, not_found
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import PODS


class Objects:
    def __init__(self) -> None:
        self._objects: dict[tuple[Resource, str, str], Object] = {}
        self._subscribers: list[tuple[frozenset[Resource], Callable[[Change], None]]] = []
        self.writes: list[tuple[str, str, str]] = []  # verb, plural, name

    # --- the test's side ---

    def put(self, resource: Resource, body: dict[str, Any]) -> Object:
        metadata = body["metadata"]
        metadata.setdefault("uid", f"uid-{metadata['name']}")
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        old = self._objects.get(key)
        self._objects[key] = body
        self._tell(key, old, body)
        return body

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        key = (resource, namespace, name)
        self._tell(key, self._objects.pop(key), None)

    def _tell(self, key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> None:
        change = _change(key, old, new)
        for resources, deliver in self._subscribers:
            if key[0] in resources:
                deliver(change)

    # --- Reads ---

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._objects.get((resource, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        return [
            self._objects[key]
            for key in sorted(self._objects)
            if key[0] == resource and namespace in {"", key[1]}
        ]

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        return [
            obj
            for obj in self.list(resource)
            if any(o["uid"] == uid for o in obj["metadata"].get("ownerReferences", ()))
        ]

    def on_node(self, node: str) -> Sequence[Object]:
        return [p for p in self.list(PODS) if p.get("spec", {}).get("nodeName") == node]

    # --- Feed ---

    def subscribe(
        self, resources: Iterable[Resource], deliver: Callable[[Change], None]
    ) -> Callable[[], None]:
        entry = (frozenset(resources), deliver)
        for key, obj in list(self._objects.items()):
            if key[0] in entry[0]:
                deliver(_change(key, None, obj))
        self._subscribers.append(entry)
        return lambda: self._subscribers.remove(entry)


class Writer:
    """A Client over :class:`Objects`, without watch and patch."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        assert not subresource
        assert not name
        metadata = body["metadata"]
        if self._objects.get(resource, metadata.get("namespace", ""), metadata["name"]):
            raise already_exists(resource.group_resource, metadata["name"])
        self._objects.writes.append(("create", resource.plural, metadata["name"]))
        return self._objects.put(resource, _stored(body, "1"))

    async def update(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        assert subresource in {"", "status"}
        metadata = body["metadata"]
        seen = self._objects.get(resource, metadata.get("namespace", ""), metadata["name"])
        if seen is None:
            raise not_found(resource.group_resource, metadata["name"])
        version = seen["metadata"].get("resourceVersion")
        if metadata.get("resourceVersion") not in {None, version}:
            raise conflict(resource.group_resource, metadata["name"])
        self._objects.writes.append(("update", resource.plural, metadata["name"]))
        return self._objects.put(resource, _stored(body, str(int(version) + 1)))

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Object:
        seen = await self.get(resource, namespace, name)
        self._objects.writes.append(("delete", resource.plural, name))
        self._objects.remove(resource, namespace, name)
        return seen

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        seen = self._objects.get(resource, namespace, name)
        if seen is None:
            raise not_found(resource.group_resource, name)
        return seen

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        return ObjectList("1", self._objects.list(resource, selection.namespace))

    def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        raise NotImplementedError

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Any,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the contract's word
        subresource: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Object:
        raise NotImplementedError


def _stored(body: Object, version: str) -> dict[str, Any]:
    stored = copy.deepcopy(dict(body))
    stored["metadata"]["resourceVersion"] = version
    return stored


def _change(key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> Change:
    resource, namespace, name = key
    load_old = None if old is None else lambda: old
    load_new = None if new is None else lambda: new
    return Change(resource, namespace, name, load_old, load_new)
