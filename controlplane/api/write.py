"""
CREATE, UPDATE and PATCH, in the order in which upstream takes the steps.

Decoded and defaulted objects come in; mutating admission, the strategy of the
kind, managed fields, validation and validating admission follow; then the store
decides who was first. A write that changes nothing writes nothing. A patch, and
an update that names no resourceVersion, tries again when somebody else was
faster.
"""

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.api import pipeline
from controlplane.api.allocate import Hold
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.api.call import Answer, Call, Parts
from controlplane.api.encoding import encode, splice
from controlplane.api.entry import Entry
from controlplane.api.present import entry_object, present_one
from controlplane.api.services import assign
from controlplane.api.strategy import (
    CONDITIONAL_UPDATE,
    CREATE_ON_UPDATE,
    merge_string_data,
    prepare_create,
    prepare_update,
    stamp_request,
)
from controlplane.client.base import Object
from controlplane.objects.errors import (
    FieldError,
    StatusError,
    already_exists,
    bad_request,
    conflict,
    invalid,
    not_found,
)
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import generated_name, rfc3339, uid
from controlplane.store.base import Mismatch

_TRIES = 64  # each round somebody wins, so that a crowd gets through
_NAME_TRIES = 8
_GIVEN_BY_SERVER = (
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "generation",
    "selfLink",
    "generateName",
)

# From the old object to the new one, in the version of the call; a copy of its own.
Make = Callable[[Object], Awaitable[dict[str, Any]]]
Prepare = Callable[[Kind, dict[str, Any], Object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What an update or a patch does, apart from the object itself."""

    make: Make
    prepare: Prepare = prepare_update
    retry: bool = True  # when somebody else was faster
    applied: bool = False  # managed fields are set already
    admitted: bool = False  # as part of another request
    options_kind: str = "UpdateOptions"


async def create(parts: Parts, call: Call, obj: dict[str, Any], *, applied: bool = False) -> Answer:
    """``obj``, decoded, becomes the object; 201. ``applied``: managed fields are set already."""
    kind = call.kind
    pipeline.check_type(kind, obj)
    metadata = _begin(call, obj)
    request = _admission(
        parts, call, Operation.CREATE, obj=obj, old=None, options_kind="CreateOptions"
    )
    await mutate(parts, request)
    given = metadata.get("generateName") if not metadata.get("name") else None
    for attempt in range(_NAME_TRIES):
        if given:
            metadata = obj["metadata"]
            metadata["name"] = generated_name(given, os.urandom(8))
        try:
            return await _create_once(parts, call, request, applied=applied)
        except Mismatch:
            if not given or attempt == _NAME_TRIES - 1:
                name = obj["metadata"]["name"]
                raise already_exists(kind.group_resource, name) from None
    raise AssertionError("the last attempt raises")


def _begin(call: Call, obj: dict[str, Any]) -> dict[str, Any]:
    """The metadata of a new object; 400 where it contradicts the URL."""
    metadata: dict[str, Any] = obj.setdefault("metadata", {})
    pipeline.check_namespace(call, metadata)
    if metadata.get("resourceVersion"):
        text = "resourceVersion should not be set on objects to be created"
        raise StatusError(500, "", text)
    for field in _GIVEN_BY_SERVER[:-1]:
        metadata.pop(field, None)
    metadata.pop("resourceVersion", None)
    return metadata


async def _create_once(
    parts: Parts, call: Call, request: AdmissionRequest, *, applied: bool
) -> Answer:
    kind, obj = call.kind, request.object
    assert obj is not None
    metadata = obj["metadata"]
    metadata["uid"] = uid(os.urandom(16))
    metadata["creationTimestamp"] = rfc3339(parts.clock())
    pipeline.default(parts.schemas, kind, obj)
    merge_string_data(obj) if kind.kind == "Secret" else None
    prepare_create(kind, obj)
    if kind.kind == "CertificateSigningRequest":
        _name_requester(call, obj)
    hold = Hold()
    try:
        if kind.kind == "Service" and not kind.group:
            assign(pipeline.allocator(parts), obj, None, hold)
        _own(parts, call, request, None, applied=applied)
        pipeline.validate(parts.schemas, call, obj, None)
        request.name = metadata["name"]
        for plugin in parts.admissions:
            await plugin.validate(request)
        return await _store_new(parts, call, obj)
    finally:
        if hold.numbers:
            pipeline.allocator(parts).release(hold)


def _name_requester(call: Call, obj: dict[str, Any]) -> None:
    spec = obj.setdefault("spec", {})
    spec["username"] = call.user.name
    spec["groups"] = list(call.user.groups)
    for field in ("uid", "extra"):
        spec.pop(field, None)
    if call.user.uid:
        spec["uid"] = call.user.uid
    if call.user.extra:
        spec["extra"] = {key: list(values) for key, values in call.user.extra.items()}


async def _store_new(parts: Parts, call: Call, obj: dict[str, Any]) -> Answer:
    kind = call.kind
    key = kind.key(call.namespace, obj["metadata"]["name"])
    data = encode(obj)
    if call.options.dry_run:
        if parts.cache.entry(key) is not None:
            raise Mismatch(None)
        return Answer(data, 201)
    stored = await pipeline.to_storage(parts, kind, obj)
    value = data if stored is obj else encode(stored)
    revision = await parts.store.create(key, value, volatile=kind.volatile)
    await parts.cache.wait_for(revision)
    shown = await _shown(parts, kind, splice(value, revision), own=value is data)
    return Answer(shown, 201)


async def _shown(parts: Parts, kind: Kind, value: bytes, *, own: bool) -> bytes:
    """What a read would show: another version that is stored may have its own defaults."""
    return value if own else await present_one(parts, kind, value)


async def update(parts: Parts, call: Call, obj: dict[str, Any], prepare: Prepare) -> Answer:
    """Replace an object, or what a subresource shows of it."""
    pipeline.check_type(call.kind, obj)
    metadata = obj.setdefault("metadata", {})
    _check_name(call, metadata)
    pipeline.check_namespace(call, metadata)
    pipeline.default(parts.schemas, call.kind, obj)
    wanted = metadata.get("resourceVersion") or ""
    if not wanted and (call.kind.custom or call.kind.group_kind in CONDITIONAL_UPDATE):
        error = FieldError(
            "FieldValueInvalid",
            "metadata.resourceVersion",
            "Invalid value: 0: must be specified for an update",
        )
        if parts.cache.entry(call.key) is not None:
            raise invalid(call.kind.group_kind, call.name, [error])

    async def make(old: Object) -> dict[str, Any]:
        check_preconditions(call, old, metadata.get("uid"), wanted)
        new: dict[str, Any] = pipeline.copy(obj)
        return new

    if (
        parts.cache.entry(call.key) is None
        and not call.subresource
        and call.kind.group_kind in CREATE_ON_UPDATE
        and not wanted
    ):
        return await create(parts, call, obj)
    return await change(parts, call, Change(make=make, prepare=prepare, retry=not wanted))


def _check_name(call: Call, metadata: Mapping[str, Any]) -> None:
    name = metadata.get("name") or ""
    if not name:
        raise bad_request(
            f"the name of the object ({call.name} based on URL) was undeterminable: "
            "name must be provided"
        )
    if name != call.name:
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.name})"
        )


def check_preconditions(
    call: Call, old: Object, wanted_uid: str | None, wanted_version: str | None
) -> None:
    """409 where the object is another one or has moved on."""
    metadata = old["metadata"]
    resource = call.kind.group_resource
    if wanted_uid and wanted_uid != metadata.get("uid"):
        why = (
            f"Precondition failed: UID in precondition: {wanted_uid}, "
            f"UID in object meta: {metadata.get('uid')}"
        )
        raise conflict(resource, call.name, why)
    if wanted_version and wanted_version != metadata.get("resourceVersion"):
        if wanted_version == "0":
            return
        raise conflict(resource, call.name)


async def change(parts: Parts, call: Call, what: Change) -> Answer:
    """Make the new state of an object from its old one, and store it."""
    for attempt in range(_TRIES):
        entry = parts.cache.entry(call.key)
        if entry is None:
            raise not_found(call.kind.group_resource, call.name)
        old = await entry_object(parts, call.kind, entry)
        new = await what.make(old)
        try:
            return await _replace(parts, call, what, _Step(entry, old, new))
        except Mismatch as mismatch:
            if mismatch.found is None:
                raise not_found(call.kind.group_resource, call.name) from None
            # Also before a refusal: who reads again must find what it was refused for.
            await parts.cache.wait_for(mismatch.found.revision)
            if not what.retry or attempt == _TRIES - 1:
                raise conflict(call.kind.group_resource, call.name) from None
    raise AssertionError("the last attempt raises")


@dataclass(frozen=True, slots=True)
class _Step:
    entry: Entry
    old: Object
    new: dict[str, Any]


async def _replace(parts: Parts, call: Call, what: Change, step: _Step) -> Answer:
    kind, old, new = call.kind, step.old, step.new
    _carry(new, old)
    if kind.kind == "Secret" and not kind.group:
        merge_string_data(new)
    request = _admission(
        parts, call, Operation.UPDATE, obj=new, old=old, options_kind=what.options_kind
    )
    if not what.admitted:
        await mutate(parts, request)
    pipeline.default(parts.schemas, kind, new)
    hold = Hold()
    try:
        if kind.kind == "Service" and not kind.group and not call.subresource:
            assign(pipeline.allocator(parts), new, old, hold)
        what.prepare(kind, new, old)
        if kind.kind == "CertificateSigningRequest" and not kind.custom:
            stamp_request(new, old, rfc3339(parts.clock()))
        _own(parts, call, request, old, applied=what.applied)
        pipeline.validate(parts.schemas, call, new, old)
        for plugin in () if what.admitted else parts.admissions:
            await plugin.validate(request)
        return await _store_change(parts, call, step)
    finally:
        if hold.numbers:
            pipeline.allocator(parts).release(hold)


def _carry(new: dict[str, Any], old: Object) -> None:
    """What only the server changes stays as it was."""
    metadata, before = new.setdefault("metadata", {}), old["metadata"]
    for field in _GIVEN_BY_SERVER:
        if field in before:
            metadata[field] = before[field]
        else:
            metadata.pop(field, None)
    for field in ("name", "namespace", "resourceVersion"):
        if field in before:
            metadata[field] = before[field]


async def _store_change(parts: Parts, call: Call, step: _Step) -> Answer:
    kind, entry, new = call.kind, step.entry, step.new
    if pipeline.same(new, step.old):
        return Answer(splice(encode(step.old), entry.revision))
    data = value = encode(new)
    if call.options.dry_run:
        return Answer(splice(data, entry.revision))
    if is_finished(kind, new):
        revision = await parts.store.delete(entry.key, expected=entry.revision)
    else:
        stored = await pipeline.to_storage(parts, kind, new)
        value = data if stored is new else encode(stored)
        revision = await parts.store.update(entry.key, value, expected=entry.revision)
    await parts.cache.wait_for(revision)
    return Answer(await _shown(parts, kind, splice(value, revision), own=value is data))


def is_finished(kind: Kind, obj: Object) -> bool:
    """Whether an object that is being deleted has nothing left to wait for."""
    metadata = obj["metadata"]
    if not metadata.get("deletionTimestamp") or metadata.get("finalizers"):
        return False
    if kind.kind == "Namespace" and not kind.group and (obj.get("spec") or {}).get("finalizers"):
        return False
    return not metadata.get("deletionGracePeriodSeconds")


def _admission(
    parts: Parts,
    call: Call,
    operation: Operation,
    *,
    obj: dict[str, Any] | None,
    old: Object | None,
    options_kind: str,
) -> AdmissionRequest:
    name = call.name or ((obj or {}).get("metadata") or {}).get("name") or ""
    return AdmissionRequest(
        operation=operation,
        kind=call.kind,
        subresource=call.subresource,
        namespace=call.namespace,
        name=name,
        user=call.user,
        object=obj,
        old=old,
        options=call.options.as_object(options_kind),
        dry_run=call.options.dry_run,
        reads=parts.cache,
        warnings=call.warnings,
    )


def _own(
    parts: Parts, call: Call, request: AdmissionRequest, old: Object | None, *, applied: bool
) -> None:
    """After an apply, what webhooks changed belongs to whoever applied, as an update of theirs."""
    assert request.object is not None
    if not applied:
        pipeline.own(parts, call, old, request.object)
    elif request.unchanged is not None:
        pipeline.own(parts, call, request.unchanged, request.object)


async def mutate(parts: Parts, request: AdmissionRequest) -> None:
    """What a webhook changed the built-in plugins look at once more, as upstream's do."""
    for plugin in parts.admissions:
        await plugin.mutate(request)
    if request.unchanged is not None:
        request.again = frozenset(request.asked_again)
        for plugin in parts.admissions:
            await plugin.mutate(request)


async def admit(
    parts: Parts,
    call: Call,
    operation: Operation,
    obj: dict[str, Any] | None,
    *,
    old: Object | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Both halves of admission, for what has no object to prepare in between."""
    request = _admission(parts, call, operation, obj=obj, old=old, options_kind="")
    if options is not None:
        request.options = options
    await mutate(parts, request)
    for plugin in parts.admissions:
        await plugin.validate(request)
