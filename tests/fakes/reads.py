"""
A small world of objects in memory: Reads, Feed and Client over one dict.

It has what controllers depend on (names, uids, revisions, conflicts, generations,
finalizers, graceful deletion of bound pods) and nothing of admission or defaults.
"""

import asyncio
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
from controlplane.objects.errors import StatusError, already_exists, conflict, not_found
from controlplane.objects.facts import builtin_kinds
from controlplane.objects.kinds import Kinds, Resource
from controlplane.objects.meta import clone, generated_name, spec_changed
from controlplane.objects.resources import NAMESPACES, PODS
from controlplane.objects.selectors import parse

KINDS = Kinds(builtin_kinds())
CREATED = "2026-01-01T00:00:00Z"
Deliver = Callable[[Change], None]
Address = tuple[str, str, str, str]  # group, plural, namespace, name


class World:
    """``refuse`` is asked before each write and may raise."""

    def __init__(self) -> None:
        self.objects: dict[Address, dict[str, Any]] = {}
        self.revision = 0
        self.writes: list[tuple[str, str, str]] = []  # verb, plural[/subresource], name
        self.refuse: Callable[[str, Resource, Object], None] | None = None
        self.created_at = CREATED
        self._feeds: list[tuple[Resource, Deliver]] = []

    # -- Reads

    def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        return self.objects.get(_address(resource, namespace, name))

    def list(self, resource: Resource, namespace: str = "") -> Sequence[Object]:
        found = [
            (address, item)
            for address, item in self.objects.items()
            if address[:2] == (resource.group, resource.plural)
            and (not namespace or address[2] == namespace)
        ]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def owned(self, resource: Resource, uid: str) -> Sequence[Object]:
        return [
            item
            for item in self.list(resource)
            if any(r["uid"] == uid for r in item["metadata"].get("ownerReferences") or ())
        ]

    def on_node(self, node: str) -> Sequence[Object]:
        return [pod for pod in self.list(PODS) if pod["spec"].get("nodeName") == node]

    # -- Feed

    def subscribe(self, resources: Iterable[Resource], deliver: Deliver) -> Callable[[], None]:
        feeds = [(resource, deliver) for resource in resources]
        for resource, _ in feeds:
            for item in self.list(resource):
                deliver(_change(resource, None, item))
        self._feeds += feeds

        def unsubscribe() -> None:
            for feed in feeds:
                self._feeds.remove(feed)

        return unsubscribe

    # -- putting things into the world

    def put(self, resource: Resource, body: Object) -> dict[str, Any]:
        """Create or replace, as somebody else would; every default is the caller's."""
        made: dict[str, Any] = clone(dict(body))
        meta = made.setdefault("metadata", {})
        meta.setdefault("uid", f"uid-{self.revision + 1}")
        meta.setdefault("creationTimestamp", self.created_at)
        meta.setdefault("generation", 1)
        made.setdefault("apiVersion", resource.api_version)
        made.setdefault("kind", _kind(resource))
        return self._store(resource, made)

    def change(self, resource: Resource, namespace: str, name: str, **fields: Any) -> None:
        """Merge fields into an object: ``status={"phase": "Running"}``."""
        old = self.objects[_address(resource, namespace, name)]
        self._replace(resource, old, _merged(old, fields))

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        old = self.objects.pop(_address(resource, namespace, name))
        self.revision += 1
        self._tell(resource, old, None)

    # -- Client

    async def list_objects(self, resource: Resource) -> ObjectList:
        return ObjectList(str(self.revision), self.list(resource))

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        await asyncio.sleep(0)
        self._note("create", resource, body, subresource, name)
        if subresource == "binding":
            return self._bind(body, name)
        made: dict[str, Any] = clone(dict(body))
        meta = made["metadata"]
        if not meta.get("name"):
            self.revision += 1
            meta["name"] = generated_name(meta["generateName"], self.revision.to_bytes(8)[::-1])
        address = _address(resource, meta.get("namespace", ""), meta["name"])
        if address in self.objects:
            raise already_exists(resource.group_resource, meta["name"])
        return self.put(resource, made)

    def _bind(self, body: Object, name: str) -> Object:
        namespace = body["metadata"]["namespace"]
        self.change(PODS, namespace, name, spec={"nodeName": body["target"]["name"]})
        return {"kind": "Status", "status": "Success"}

    async def update(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        await asyncio.sleep(0)
        self._note("update", resource, body, subresource)
        meta = body["metadata"]
        old = self._found(resource, meta.get("namespace", ""), meta["name"])
        self._check(resource, old, meta)
        made = clone(dict(body))
        if subresource == "status":
            made = {**clone(dict(old)), "status": made.get("status", {})}
        elif "status" in old and subresource != "finalize":
            made["status"] = old["status"]
        return self._replace(resource, old, made)

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
        await asyncio.sleep(0)
        self._note("patch", resource, body, subresource, name)
        missing = self.get(resource, namespace, name) is None
        if type is PatchType.APPLY and missing:
            return self.put(resource, body)
        old = self._found(resource, namespace, name)
        self._check(resource, old, body.get("metadata") or {})
        if type is PatchType.STRATEGIC and subresource == "status":
            body = _with_old_conditions(old, body)
        return self._replace(resource, old, _merged(old, body))

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Object:
        await asyncio.sleep(0)
        options = options or {}
        old = self._found(resource, namespace, name)
        self._note("delete", resource, old)
        self._check(resource, old, options.get("preconditions") or {})
        meta = clone(dict(old["metadata"]))
        finalizers = list(meta.get("finalizers") or ())
        wanted = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
        extra = wanted.get(options.get("propagationPolicy", ""))
        if extra and extra not in finalizers:
            finalizers.append(extra)
        bound = resource == PODS and bool(old["spec"].get("nodeName"))
        graceful = bound and options.get("gracePeriodSeconds") != 0
        if resource == NAMESPACES or finalizers or graceful:
            meta |= {"deletionTimestamp": meta.get("deletionTimestamp", CREATED)}
            if finalizers:
                meta["finalizers"] = finalizers
            return self._replace(resource, old, {**old, "metadata": meta})
        self.remove(resource, namespace, name)
        return old

    async def get_object(self, resource: Resource, namespace: str, name: str) -> Object:
        return self._found(resource, namespace, name)

    # -- inside

    def _note(self, verb: str, resource: Resource, body: Object, *rest: str) -> None:
        subresource, name = (*rest, "", "")[:2]
        if self.refuse is not None:
            self.refuse(verb, resource, body)
        what = f"{resource.plural}/{subresource}" if subresource else resource.plural
        meta = body.get("metadata") or {}
        called = name or meta.get("name") or meta.get("generateName", "")
        self.writes.append((verb, what, called))

    def _found(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        found = self.objects.get(_address(resource, namespace, name))
        if found is None:
            raise not_found(resource.group_resource, name)
        return found

    def _check(self, resource: Resource, old: Object, expected: Object) -> None:
        for key in ("resourceVersion", "uid"):
            if expected.get(key) and expected[key] != old["metadata"][key]:
                raise conflict(resource.group_resource, old["metadata"]["name"])

    def _replace(self, resource: Resource, old: Object, new: Object) -> dict[str, Any]:
        made: dict[str, Any] = clone(dict(new))
        if spec_changed(made, old):
            made["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
        meta = made["metadata"]
        waiting = (made.get("spec") or {}).get("finalizers") or _is_graceful(resource, made)
        if meta.get("deletionTimestamp") and not meta.get("finalizers") and not waiting:
            self.remove(resource, meta.get("namespace", ""), meta["name"])
            return made
        return self._store(resource, made)

    def _store(self, resource: Resource, made: dict[str, Any]) -> dict[str, Any]:
        meta = made["metadata"]
        address = _address(resource, meta.get("namespace", ""), meta["name"])
        old = self.objects.get(address)
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        self.objects[address] = made
        self._tell(resource, old, made)
        return made

    def _tell(self, resource: Resource, old: Object | None, new: Object | None) -> None:
        for wanted, deliver in list(self._feeds):
            if (wanted.group, wanted.plural) == (resource.group, resource.plural):
                deliver(_change(wanted, old, new))


class WorldClient:
    """The Client of a world; apart from it, because Reads has a ``get`` and a ``list`` too."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.create = world.create
        self.update = world.update
        self.patch = world.patch
        self.delete = world.delete

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return await self.world.get_object(resource, namespace, name)

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        selector = parse(selection.labels)
        items = [
            item
            for item in self.world.list(resource, selection.namespace)
            if selector.matches(item["metadata"].get("labels"))
        ]
        return ObjectList(str(self.world.revision), items)

    def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        raise StatusError(501, "NotImplemented", "this world has a Feed, not watches")


def _is_graceful(resource: Resource, item: Object) -> bool:
    return resource == PODS and bool(item["spec"].get("nodeName"))


def _address(resource: Resource, namespace: str, name: str) -> Address:
    return (resource.group, resource.plural, namespace if resource.namespaced else "", name)


def _kind(resource: Resource) -> str:
    found = KINDS.by_resource(resource.group, resource.version, resource.plural)
    return found.kind if found is not None else resource.plural.removesuffix("s").title()


def _change(resource: Resource, old: Object | None, new: Object | None) -> Change:
    meta = (new or old or {})["metadata"]
    return Change(
        resource,
        meta.get("namespace", ""),
        meta["name"],
        (lambda: old) if old is not None else None,
        (lambda: new) if new is not None else None,
    )


def _merged(old: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, Mapping):
        return patch
    made = dict(old) if isinstance(old, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = _merged(made.get(key), value)
    return made


def _with_old_conditions(old: Object, body: Mapping[str, Any]) -> dict[str, Any]:
    """A strategic merge of the one list that matters here."""
    status = dict(body["status"])
    types = {c["type"] for c in status.get("conditions", ())}
    kept = [c for c in (old.get("status") or {}).get("conditions", ()) if c["type"] not in types]
    return {**body, "status": {**status, "conditions": [*kept, *status.get("conditions", ())]}}
