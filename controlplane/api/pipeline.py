"""
What every written object goes through, by its schema: decode, default, own, validate.

The verbs know the order; this module knows the walks of
:mod:`controlplane.objects` that do each step.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import orjson

from controlplane.api.allocate import Allocator
from controlplane.api.cache import ObjectCache
from controlplane.api.call import Call, Parts
from controlplane.api.strategy import reset_fields
from controlplane.client.base import Object
from controlplane.objects import convert, defaults, managed, walk
from controlplane.objects import validate as rules
from controlplane.objects.errors import StatusError, bad_request, invalid
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import clone
from controlplane.objects.schema import Schema, Schemas, Type

_ALLOCATORS: "WeakKeyDictionary[ObjectCache, Allocator]" = WeakKeyDictionary()


def allocator(parts: Parts) -> Allocator:
    """The one of this server; made at the first Service."""
    found = _ALLOCATORS.get(parts.cache)
    if found is None:
        found = _ALLOCATORS[parts.cache] = Allocator(parts.network)
        found.follow(parts.cache)
    return found


def copy(obj: Object) -> dict[str, Any]:
    """A deep copy; through JSON, which is several times faster than a walk in Python."""
    copied: dict[str, Any] = orjson.loads(orjson.dumps(obj))
    return copied


def check_type(kind: Kind, obj: dict[str, Any]) -> None:
    """400 where a body names another kind; a body without one is of this kind."""
    api_version = obj.setdefault("apiVersion", "") or kind.api_version
    name = obj.setdefault("kind", "") or kind.kind
    if api_version != kind.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API "
            f"version ({kind.api_version})"
        )
    if name != kind.kind:
        raise bad_request(
            f'{name} in version "{kind.version}" cannot be handled as a {kind.kind}: '
            f'no kind "{name}" is registered for version "{kind.api_version}" here'
        )
    obj["apiVersion"], obj["kind"] = api_version, name


def check_namespace(call: Call, metadata: dict[str, Any]) -> None:
    """400 where the body contradicts the URL; an empty one is filled in."""
    named = metadata.get("namespace") or ""
    if not call.kind.namespaced:
        metadata.pop("namespace", None)
        if named:
            raise bad_request("namespace may not be set on cluster-scoped resources")
        return
    if not call.namespace:
        raise bad_request("an empty namespace may not be set during creation")
    if named and named != call.namespace:
        raise bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )
    metadata["namespace"] = call.namespace


def decode(
    schemas: Schemas, call: Call, obj: dict[str, Any], duplicates: Sequence[str] = ()
) -> dict[str, Any]:
    """
    The object without what its schema does not know, as ``fieldValidation`` wants it told.

    ``duplicates``: the texts of fields that the body had twice. 400 with Strict.
    """
    schema = schemas.of(call.kind)
    try:
        found, unknown = walk.decode(obj, schema, strict=False)
    except RecursionError:
        raise bad_request("the object is nested too deeply") from None
    complain(call, obj, [*unknown, *duplicates])
    return found


def complain(call: Call, obj: dict[str, Any], complaints: Sequence[str]) -> None:
    """Tell of fields as ``fieldValidation`` wants it: 400, warnings, or nothing."""
    mode = call.options.field_validation or "Warn"
    if complaints and mode == "Strict":
        raise walk.strict_error(obj, list(complaints))
    if mode == "Warn":
        call.warnings += complaints


def default(schemas: Schemas, kind: Kind, obj: dict[str, Any]) -> None:
    """Fill in what was left out, in place."""
    if kind.custom:
        fill(obj, schemas.of(kind))
    else:
        defaults.apply_defaults(kind, obj)


def fill(obj: dict[str, Any], schema: Schema) -> None:
    """The defaults of a custom resource, in place: they stand in its own schema."""
    for field in schema.fields.values():
        if field.name not in obj and field.has_default:
            obj[field.name] = clone(field.default)
        value = obj.get(field.name)
        if isinstance(value, dict | list):
            _fill_value(value, field.schema)


def _fill_value(value: Any, schema: Schema) -> None:
    match schema.type:
        case Type.OBJECT if isinstance(value, dict):
            fill(value, schema)
        case Type.MAP if isinstance(value, dict):
            for item in value.values():
                _fill_value(item, schema.items)
        case Type.LIST if isinstance(value, list):
            for item in value:
                _fill_value(item, schema.items)
        case _:
            return


def from_storage(schemas: Schemas, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """A custom resource as its definition of today shows it: pruned and defaulted."""
    schema = schemas.of(kind)
    shown = walk.prune(obj, schema)
    fill(shown, schema)
    return shown


async def to_storage(parts: Parts, kind: Kind, obj: dict[str, Any]) -> dict[str, Any]:
    """The object in the version that is stored; the same one where that is this version."""
    if kind.storage_version in ("", kind.api_version):
        return obj
    target = parts.kinds.by_kind(kind.storage_version, kind.kind)
    if target is None:
        raise StatusError(500, "InternalError", f"{kind.storage_version} is not served")
    if not kind.custom:
        return convert.convert(obj, kind, target)
    if parts.conversion is None:
        return {**obj, "apiVersion": target.api_version}
    converted = await parts.conversion.convert([obj], target)
    return dict(converted[0])


def own(parts: Parts, call: Call, old: Object | None, new: dict[str, Any]) -> None:
    """Note in the managed fields who set what, in place."""
    managed.track(
        old,
        new,
        schema=parts.schemas.of(call.kind),
        manager=call.manager,
        api_version=call.kind.api_version,
        now=parts.clock(),
        subresource=call.subresource,
        reset=reset_fields(call.kind, call.subresource),
    )


def validate(schemas: Schemas, call: Call, new: Object, old: Object | None) -> None:
    """422 with all that is wrong."""
    kind = call.kind
    schema = schemas.of(kind)
    if old is None:
        errors = rules.validate_create(kind, new, schema=schema)
    elif call.subresource in ("", "scale", "finalize"):
        errors = rules.validate_update(kind, new, old, schema=schema)
    elif call.subresource == "ephemeralcontainers":
        errors = rules.validate_ephemeral_containers(kind, new, old)
    elif call.subresource == "resize":
        errors = rules.validate_resize(kind, new, old)
    else:
        errors = rules.validate_status(kind, new, old)
    if errors:
        raise invalid(kind.group_kind, new["metadata"].get("name", ""), errors)


def same(new: Mapping[str, Any], old: Object) -> bool:
    """Whether a write would change nothing but the times of its managed fields."""
    if new == old:
        return True
    for field, value in new.items():
        if field != "metadata" and old.get(field) != value:
            return False
    if len(new) != len(old):
        return False
    return _timeless(new["metadata"]) == _timeless(old["metadata"])


def _timeless(metadata: Mapping[str, Any]) -> dict[str, Any]:
    shown = dict(metadata)
    shown["managedFields"] = [
        {key: value for key, value in entry.items() if key != "time"}
        for entry in metadata.get("managedFields") or ()
    ]
    return shown
