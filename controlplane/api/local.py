"""
The API without HTTP, for the controllers and the scheduler in this process.

The same verbs, with the same admission and validation, as a given user; only
bytes and sockets are left out. Written objects are copied on the way in,
because the verbs change them.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from controlplane.api import delete, patching, pipeline, read, subresources, watch, write
from controlplane.api.authorize import forbidden_error
from controlplane.api.base import Attributes, Decision, User
from controlplane.api.call import Answer, Call, Options, Parts, options_from
from controlplane.api.present import entry_object, objects_in
from controlplane.api.selection import Matcher, compile_matcher
from controlplane.client.base import (
    EVERYTHING,
    Object,
    ObjectList,
    PatchType,
    Selection,
    WatchEvent,
)
from controlplane.objects.errors import StatusError, no_such_path
from controlplane.objects.kinds import Resource
from controlplane.objects.meta import clone


class LocalClient:
    """Implements Client of :mod:`controlplane.client.base`; ``manager`` names the field manager."""

    def __init__(self, parts: Parts, user: User, *, manager: str = "") -> None:
        self._parts = parts
        self._user = user
        self._manager = manager or user.name.rpartition(":")[2]

    def _call(
        self,
        resource: Resource,
        verb: str,
        *,
        namespace: str = "",
        name: str = "",
        subresource: str = "",
        options: Options | None = None,
    ) -> Call:
        kind = self._parts.kinds.by_resource(resource.group, resource.version, resource.plural)
        if kind is None:
            raise no_such_path()
        call = Call(
            user=self._user,
            kind=kind,
            namespace=namespace if kind.namespaced else "",
            name=name,
            subresource=subresource,
            options=options or Options(),
            agent=self._manager,
        )
        self._authorize(call, verb)
        return call

    def _authorize(self, call: Call, verb: str) -> None:
        authorizer = self._parts.authorizer
        if authorizer is None:
            return
        attributes = Attributes(
            user=self._user,
            verb=verb,
            group=call.kind.group,
            version=call.kind.version,
            resource=call.kind.plural,
            subresource=call.subresource,
            namespace=call.namespace,
            name=call.name,
        )
        decision, reason = authorizer.authorize(attributes)
        if decision is not Decision.ALLOW:
            raise forbidden_error(attributes, reason)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        call = self._call(resource, "get", namespace=namespace, name=name)
        entry = await read.get(self._parts, call)
        return await entry_object(self._parts, call.kind, entry)

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        call = self._call(resource, "list", namespace=selection.namespace)
        matcher = self._matcher(call, selection)
        page = await read.list_page(self._parts, call, matcher, read.ListOptions())
        cache = self._parts.cache
        objects = [cache.load_object(entry) for entry in page.entries]
        items: Any = objects
        if call.kind.custom or call.kind.storage_version not in ("", call.kind.api_version):
            items = await objects_in(self._parts, call.kind, objects)
        return ObjectList(str(page.revision), items)

    def _matcher(self, call: Call, selection: Selection) -> Matcher:
        query = {"labelSelector": selection.labels, "fieldSelector": selection.fields}
        return compile_matcher(call.kind, self._parts.cache, call.namespace, query)

    async def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        call = self._call(resource, "watch", namespace=selection.namespace)
        matcher = self._matcher(call, selection)
        options = watch.WatchOptions(resource_version=after, bookmarks=True)
        stream = watch.watch(self._parts, call, matcher, options)
        try:
            async for told in stream:
                for type_, data in told:
                    obj = orjson.loads(data)
                    if type_ == watch.ERROR:
                        raise StatusError(obj["code"], obj.get("reason", ""), obj["message"])
                    yield WatchEvent(type_.decode(), obj)
        finally:
            await stream.aclose()

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        metadata = body.get("metadata") or {}
        call = self._call(
            resource,
            "create",
            namespace=metadata.get("namespace") or "",
            name=name if subresource else "",
            subresource=subresource,
        )
        obj = clone(body)
        if subresource or subresources.is_special(call.kind):
            return _object(await subresources.create(self._parts, call, obj))
        pipeline.check_type(call.kind, obj)
        obj = pipeline.decode(self._parts.schemas, call, obj)
        return _object(await write.create(self._parts, call, obj))

    async def update(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        metadata = body.get("metadata") or {}
        call = self._call(
            resource,
            "update",
            namespace=metadata.get("namespace") or "",
            name=metadata.get("name") or "",
            subresource=subresource,
        )
        if subresource == "scale":
            return _object(await subresources.update_scale(self._parts, call, clone(body)))
        prepare = subresources.preparation(subresource)
        obj = clone(body)
        pipeline.check_type(call.kind, obj)
        obj = pipeline.decode(self._parts.schemas, call, obj)
        return _object(await write.update(self._parts, call, obj, prepare))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Any,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's own word
        subresource: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Object:
        call = self._call(
            resource,
            "patch",
            namespace=namespace,
            name=name,
            subresource=subresource,
            options=options_from(options or {}),
        )
        if type is PatchType.APPLY and not call.options.field_manager:
            call.options = options_from({**(options or {}), "fieldManager": self._manager})
        if subresource == "scale":
            return _object(await subresources.patch_scale(self._parts, call, type, clone(body)))
        prepare = subresources.preparation(subresource)
        answer = await patching.patch_object(
            self._parts, call, type, body=clone(body), prepare=prepare
        )
        return _object(answer)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Object:
        call = self._call(resource, "delete", namespace=namespace, name=name)
        given = delete.delete_options(options, {})
        return _object(await delete.delete(self._parts, call, given))


def _object(answer: Answer) -> Object:
    obj: Object = orjson.loads(answer.data)
    return obj
