"""
PATCH: four ways to say what shall be different, then the same way as an update.

A patch is applied to the newest state and tried again when somebody else wrote
meanwhile, unless it names a resourceVersion. Apply creates what does not exist.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import pipeline
from controlplane.api.call import Answer, Call, Parts
from controlplane.api.strategy import reset_fields
from controlplane.api.write import Change, Prepare, change, check_preconditions, create
from controlplane.client.base import Object, PatchType
from controlplane.objects import apply, patch, strategic, walk
from controlplane.objects.errors import (
    StatusError,
    bad_request,
    forbidden_field,
    invalid,
    not_found,
    required,
    unsupported_media_type,
)


async def patch_object(
    parts: Parts,
    call: Call,
    type_: PatchType,
    *,
    body: Any,
    prepare: Prepare,
    duplicates: Sequence[str] = (),
) -> Answer:
    """``body``: decoded. 415 for a strategic merge patch of a custom resource."""
    check_options(call, type_)
    if type_ is PatchType.APPLY:
        return await _apply(parts, call, body, prepare=prepare, duplicates=duplicates)

    async def make(old: Object) -> dict[str, Any]:
        changed = _patched(parts, call, type_, body=body, old=old)
        return _checked(parts, call, changed, old=old, duplicates=duplicates)

    named = _names_version(type_, body)
    what = Change(make=make, prepare=prepare, retry=not named, options_kind="PatchOptions")
    return await change(parts, call, what)


def check_options(call: Call, type_: PatchType) -> None:
    """422 for options that belong to the other kind of patch."""
    errors = []
    if type_ is PatchType.APPLY:
        if not call.options.field_manager:
            errors.append(required("fieldManager", "is required for apply patch"))
    elif call.options.force is not None:
        errors.append(forbidden_field("force", "may not be specified for non-apply patch"))
    if errors:
        raise invalid("PatchOptions.meta.k8s.io", "", errors)


def _names_version(type_: PatchType, body: Any) -> bool:
    if type_ is PatchType.JSON or not isinstance(body, Mapping):
        return False
    metadata = body.get("metadata")
    return isinstance(metadata, Mapping) and bool(metadata.get("resourceVersion"))


def _patched(
    parts: Parts, call: Call, type_: PatchType, *, body: Any, old: Object
) -> dict[str, Any]:
    base = pipeline.copy(old)
    try:
        match type_:
            case PatchType.JSON:
                changed = patch.json_patch(base, body)
            case PatchType.MERGE:
                changed = patch.merge_patch(base, body)
            case _:
                if call.kind.custom:
                    known = (PatchType.JSON, PatchType.MERGE, PatchType.APPLY)
                    raise unsupported_media_type(type_.value, (known.value for known in known))
                changed = strategic.strategic_patch(base, body, parts.schemas.of(call.kind))
    except RecursionError:
        raise bad_request("the patch is nested too deeply") from None
    if not isinstance(changed, dict):
        raise bad_request("the patch does not leave an object")
    return changed


def _checked(
    parts: Parts,
    call: Call,
    changed: dict[str, Any],
    *,
    old: Object,
    duplicates: Sequence[str],
) -> dict[str, Any]:
    """The patched object, decoded; 400, 409 or 422 where it says it is another one."""
    pipeline.check_type(call.kind, changed)
    metadata = changed.get("metadata")
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    before = old["metadata"]
    if metadata.get("name") != before["name"]:
        name = metadata.get("name") or ""
        raise bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({call.name})"
        )
    pipeline.check_namespace(call, metadata)
    check_preconditions(call, old, metadata.get("uid"), metadata.get("resourceVersion"))
    new = pipeline.decode(parts.schemas, call, changed, duplicates)
    pipeline.default(parts.schemas, call.kind, new)
    return new


async def _apply(
    parts: Parts, call: Call, body: Any, *, prepare: Prepare, duplicates: Sequence[str]
) -> Answer:
    if not isinstance(body, dict):
        raise bad_request("error decoding YAML: the patch is no object")
    pipeline.check_type(call.kind, body)
    metadata = body.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise bad_request("metadata must be an object")
    if metadata.get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    if metadata.get("name", call.name) != call.name:
        raise bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL "
            f"({call.name})"
        )
    metadata["name"] = call.name
    pipeline.check_namespace(call, metadata)
    wanted: Object = body
    pipeline.complain(call, body, duplicates)
    for _ in range(2):
        if parts.cache.entry(call.key) is not None:
            return await _apply_to(parts, call, wanted, prepare)
        if call.subresource or metadata.get("uid"):
            raise not_found(call.kind.group_resource, call.name)
        try:
            new = _merged(parts, call, None, wanted)
            return await create(parts, call, new, applied=True)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
    raise not_found(call.kind.group_resource, call.name)


async def _apply_to(parts: Parts, call: Call, wanted: Object, prepare: Prepare) -> Answer:
    metadata = wanted.get("metadata") or {}

    async def make(old: Object) -> dict[str, Any]:
        check_preconditions(call, old, metadata.get("uid"), metadata.get("resourceVersion"))
        return _merged(parts, call, old, wanted)

    what = Change(
        make=make,
        prepare=prepare,
        retry=not metadata.get("resourceVersion"),
        applied=True,
        options_kind="PatchOptions",
    )
    return await change(parts, call, what)


def _merged(parts: Parts, call: Call, old: Object | None, wanted: Object) -> dict[str, Any]:
    """The object after the apply, with its managed fields; 409 where another manager owns."""
    schema = parts.schemas.of(call.kind)
    new = apply.apply(
        old,
        wanted,
        schema=schema,
        manager=call.options.field_manager,
        api_version=call.kind.api_version,
        now=parts.clock(),
        subresource=call.subresource,
        force=bool(call.options.force),
        reset=reset_fields(call.kind, call.subresource),
    )
    new = walk.prune_empty(pipeline.copy(new), schema)
    pipeline.default(parts.schemas, call.kind, new)
    return new
