"""A small API for the kubelet's tests: objects in memory, with just what it asks of a client."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
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
from controlplane.objects.errors import StatusError, not_found
from controlplane.objects.kinds import Resource
from node.kubelet.base import EVENTS, PODS

_MERGE_KEYS = {"conditions": "type", "podIPs": "ip", "hostIPs": "ip", "addresses": "type"}


class Api:
    """Client, Reads and Feed in one."""

    def __init__(self) -> None:
        self._objects: dict[tuple[Resource, str, str], dict[str, Any]] = {}
        self._versions = itertools.count(1)
        self._listeners: list[tuple[frozenset[Resource], Callable[[Change], None]]] = []
        self._watches: list[tuple[Resource, Selection, asyncio.Queue[WatchEvent]]] = []
        self._changed = asyncio.Condition()
        self.writes: list[tuple[str, str]] = []

    # -- what a test does

    def put(self, resource: Resource, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create or replace."""
        obj = copy.deepcopy(dict(body))
        meta = obj["metadata"]
        key = (resource, meta.get("namespace", ""), meta["name"])
        old = self._objects.get(key)
        meta.setdefault("uid", old["metadata"]["uid"] if old else f"uid-{next(self._versions)}")
        meta["resourceVersion"] = str(next(self._versions))
        self._objects[key] = obj
        self._tell(key, old, obj)
        return obj

    def pod(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return self._objects[PODS, namespace, name]

    def has(self, resource: Resource, namespace: str, name: str) -> bool:
        return (resource, namespace, name) in self._objects

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        key = (resource, namespace, name)
        self._tell(key, self._objects.pop(key), None)

    def ask_to_delete(self, name: str, grace: int = 30, namespace: str = "default") -> None:
        pod = copy.deepcopy(self.pod(name, namespace))
        pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        pod["metadata"]["deletionGracePeriodSeconds"] = grace
        self.put(PODS, pod)

    def events(self, reason: str = "") -> list[dict[str, Any]]:
        found = [o for (r, _, _), o in self._objects.items() if r == EVENTS]
        return [e for e in found if not reason or e["reason"] == reason]

    async def until(self, holds: Callable[[], Any], seconds: float = 20) -> Any:
        async with asyncio.timeout(seconds):
            async with self._changed:
                while True:
                    try:
                        if result := holds():
                            return result
                    except (KeyError, IndexError):
                        pass
                    await self._changed.wait()

    # -- what the kubelet does

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        try:
            return self._objects[resource, namespace, name]
        except KeyError:
            raise not_found(resource.group_resource, name) from None

    async def list_async(self, resource: Resource, selection: Selection) -> ObjectList:
        items = [
            o for (r, _, _), o in self._objects.items() if r == resource and _fits(o, selection)
        ]
        return ObjectList(str(next(self._versions)), items)

    async def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        queue: asyncio.Queue[WatchEvent] = asyncio.Queue()
        entry = (resource, selection, queue)
        self._watches.append(entry)
        try:
            while True:
                yield await queue.get()
        finally:
            self._watches.remove(entry)

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        if subresource == "token":
            seconds = body["spec"]["expirationSeconds"]
            expires = datetime.now(UTC) + timedelta(seconds=seconds)
            status = {
                "token": f"token-{next(self._versions)}",
                "expirationTimestamp": expires.strftime("%Y-%m-%dT%H:%M:%SZ"),
            }
            return {**body, "status": status}
        self.writes.append(("create", resource.plural))
        return self.put(resource, body)

    async def update(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        self.writes.append(("update", resource.plural))
        return self.put(resource, body)

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Any,
        type: PatchType = PatchType.MERGE,  # noqa: A002
        subresource: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Object:
        self.writes.append(("patch", f"{resource.plural}/{subresource}"))
        old = await self.get(resource, namespace, name)
        wanted = body.get("metadata", {}).get("uid", old["metadata"]["uid"])
        if wanted != old["metadata"]["uid"]:
            raise StatusError(409, "Conflict", "uid")
        new = copy.deepcopy(dict(old))
        _merge(new, body, strategic=type is PatchType.STRATEGIC)
        return self.put(resource, new)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Object:
        found = await self.get(resource, namespace, name)
        self.remove(resource, namespace, name)
        return found

    def on_node(self, node: str) -> list[Object]:
        return [o for (r, _, _), o in self._objects.items() if r == PODS]

    def owned(self, resource: Resource, uid: str) -> list[Object]:
        return []

    def subscribe(
        self, resources: Iterable[Resource], deliver: Callable[[Change], None]
    ) -> Callable[[], None]:
        kinds = frozenset(resources)
        for (resource, namespace, name), obj in list(self._objects.items()):
            if resource in kinds:
                deliver(Change(resource, namespace, name, None, lambda obj=obj: obj))  # type: ignore[misc]
        entry = (kinds, deliver)
        self._listeners.append(entry)
        return lambda: self._listeners.remove(entry)

    def _tell(self, key: tuple[Resource, str, str], old: Object | None, new: Object | None) -> None:
        change = Change(
            *key,
            (lambda: old) if old is not None else None,
            (lambda: new) if new is not None else None,
        )
        for kinds, deliver in list(self._listeners):
            if key[0] in kinds:
                deliver(change)
        kind = "DELETED" if new is None else "ADDED" if old is None else "MODIFIED"
        for resource, selection, queue in self._watches:
            shown = new if new is not None else old
            if resource == key[0] and shown is not None and _fits(shown, selection):
                queue.put_nowait(WatchEvent(kind, shown))
        asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


class ApiClient:
    """The Client side: ``list`` means something else to Reads."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.get = api.get
        self.watch = api.watch
        self.create = api.create
        self.update = api.update
        self.patch = api.patch
        self.delete = api.delete

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        return await self._api.list_async(resource, selection)


class ApiReads:
    """The Reads side."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.owned = api.owned
        self.on_node = api.on_node

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self._api._objects.get((resource, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> list[Object]:
        return [
            o
            for (r, n, _), o in self._api._objects.items()
            if r == resource and namespace in ("", n)
        ]


def _fits(obj: Object, selection: Selection) -> bool:
    if selection.namespace and obj["metadata"].get("namespace") != selection.namespace:
        return False
    name = selection.fields.removeprefix("metadata.name=")
    return not selection.fields or obj["metadata"]["name"] == name


def _merge(target: dict[str, Any], change: Mapping[str, Any], *, strategic: bool) -> None:
    for key, value in change.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, Mapping):
            inner = target.setdefault(key, {})
            _merge(inner, value, strategic=strategic)
        elif strategic and key in _MERGE_KEYS:
            target[key] = _merged(target.get(key, []), value, _MERGE_KEYS[key])
        else:
            target[key] = copy.deepcopy(value)


def _merged(old: list[Any], new: list[Any], key: str) -> list[Any]:
    gone = {item[key] for item in new if item.get("$patch") == "delete"}
    kept = {item[key]: item for item in old if item[key] not in gone}
    for item in new:
        if item.get("$patch") != "delete":
            kept[item[key]] = {**kept.get(item[key], {}), **item}
    return list(kept.values())
