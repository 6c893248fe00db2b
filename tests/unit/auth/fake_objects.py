"""Reads, Feed and a small Client over a dictionary, for what only looks objects up."""

import copy
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from controlplane.client.base import Change, Object
from controlplane.objects.errors import already_exists, conflict, not_found
from controlplane.objects.kinds import Resource

NAMESPACES = Resource("", "v1", "namespaces", False)
NODES = Resource("", "v1", "nodes", False)
PODS = Resource("", "v1", "pods", True)
SECRETS = Resource("", "v1", "secrets", True)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", True)


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
    """The writing half of a Client over :class:`Objects`."""

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
        assert not subresource
        metadata = body["metadata"]
        seen = self._objects.get(resource, metadata.get("namespace", ""), metadata["name"])
        if seen is None:
            raise not_found(resource.group_resource, metadata["name"])
        version = seen["metadata"].get("resourceVersion")
        if metadata.get("resourceVersion") not in {None, version}:
            raise conflict(resource.group_resource, metadata["name"])
        self._objects.writes.append(("update", resource.plural, metadata["name"]))
        return self._objects.put(resource, _stored(body, str(int(version) + 1)))


def _stored(body: Object, version: str) -> dict[str, Any]:
    stored = copy.deepcopy(dict(body))
    stored["metadata"]["resourceVersion"] = version
    return stored


def _change(key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> Change:
    resource, namespace, name = key
    load_old = None if old is None else lambda: old
    load_new = None if new is None else lambda: new
    return Change(resource, namespace, name, load_old, load_new)
