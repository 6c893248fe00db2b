"""
From stored versions to the version that a request names.

Most objects are stored in the one version that is served, and their bytes go
out as they are. Kinds with several versions, and custom resources that may have
been stored under an older definition, are decoded, converted, defaulted and
encoded again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson

from controlplane.api import pipeline
from controlplane.api.call import Parts
from controlplane.api.entry import Entry
from controlplane.client.base import Object
from controlplane.objects import convert
from controlplane.objects.kinds import Kind, Kinds, Resource


def is_native(kind: Kind) -> bool:
    """Whether the bytes of this kind can be served without a look at them."""
    return not kind.custom and kind.storage_version in ("", kind.api_version)


async def present(parts: Parts, kind: Kind, data: Iterable[bytes]) -> list[bytes]:
    """The served bytes of each object, in the version of ``kind``."""
    if is_native(kind):
        return list(data)
    objects = [orjson.loads(item) for item in data]
    return [orjson.dumps(obj) for obj in await objects_in(parts, kind, objects)]


async def present_one(parts: Parts, kind: Kind, data: bytes) -> bytes:
    if is_native(kind):
        return data
    return (await present(parts, kind, (data,)))[0]


async def objects_in(parts: Parts, kind: Kind, objects: Sequence[Object]) -> list[dict[str, Any]]:
    """The objects in the version of ``kind``; the ones given are not changed."""
    if not kind.custom:
        return [_builtin(parts.kinds, obj, kind) for obj in objects]
    other = [at for at, obj in enumerate(objects) if obj["apiVersion"] != kind.api_version]
    result = [dict(obj) for obj in objects]
    if other:
        converted: Sequence[Object]
        if parts.conversion is not None:
            converted = await parts.conversion.convert([objects[at] for at in other], kind)
        else:
            converted = [{**objects[at], "apiVersion": kind.api_version} for at in other]
        for at, obj in zip(other, converted, strict=True):
            result[at] = dict(obj)
    return [pipeline.from_storage(parts.schemas, kind, obj) for obj in result]


def _builtin(kinds: Kinds, obj: Object, kind: Kind) -> dict[str, Any]:
    source = kinds.by_kind(obj["apiVersion"], kind.kind)
    if source is None:
        return {**obj, "apiVersion": kind.api_version}
    return convert.convert(obj, source, kind)


def presenter(kinds: Kinds) -> Callable[[Object, Resource], Object]:
    """For the cache's own readers, who cannot wait for a webhook: built-in conversions only."""

    def shown(obj: Object, resource: Resource) -> Object:
        kind = kinds.by_resource(resource.group, resource.version, resource.plural)
        return obj if kind is None else _builtin(kinds, obj, kind)

    return shown


async def entry_object(parts: Parts, kind: Kind, entry: Entry) -> Object:
    """The decoded object of an entry in the version of ``kind``. Shared: do not change it."""
    obj = parts.cache.load_object(entry)
    if is_native(kind):
        return obj
    return (await objects_in(parts, kind, [obj]))[0]
