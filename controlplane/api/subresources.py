"""
Subresources and the kinds that are asked rather than stored.

Each entry of the tables below is one subresource: how its update differs from an
update of the whole (``preparation``), or what creating on it does.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from controlplane.api import pipeline
from controlplane.api.base import Operation
from controlplane.api.call import Answer, Call, Parts
from controlplane.api.delete import delete, delete_options
from controlplane.api.disruption import admit_eviction, mark_evicted
from controlplane.api.present import entry_object, present_one
from controlplane.api.scale import get_scale, patch_scale, update_scale
from controlplane.api.strategy import prepare_status, prepare_update
from controlplane.api.write import Change, Prepare, admit, change
from controlplane.client.base import Object
from controlplane.objects import defaults, walk
from controlplane.objects.errors import (
    FieldError,
    StatusError,
    bad_request,
    conflict,
    invalid,
    not_found,
    required,
)
from controlplane.objects.facts import schema_of_body
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import rfc3339

_REVIEWS = ("authentication.k8s.io", "authorization.k8s.io")


def not_allowed() -> StatusError:
    text = "the server does not allow this method on the requested resource"
    return StatusError(405, "MethodNotAllowed", text, details={})


# Updates


def preparation(subresource: str) -> Prepare:
    """
    How the new state of the object follows from what a client wrote to a subresource.

    405 for those that are created on only, such as evictions.
    """
    prepare = _PREPARATIONS.get(subresource)
    if prepare is None:
        raise not_allowed()
    return prepare


def _prepare_status(kind: Kind, new: dict[str, Any], old: Object) -> None:
    written = new.get("status") or {}
    prepare_status(kind, new, old)
    if kind.kind == "CertificateSigningRequest":
        new["status"] = {**written, "conditions": _with_decisions(written, old)}


_DECISIONS = ("Approved", "Denied")


def _conditions(request: Object) -> list[dict[str, Any]]:
    return list((request.get("status") or {}).get("conditions") or ())


def _with_decisions(written: Object, old: Object) -> list[dict[str, Any]]:
    """What was decided stays as it is and where it is; a signer cannot add or take it back."""
    decided = {c["type"]: c for c in _conditions(old) if c.get("type") in _DECISIONS}
    conditions = _conditions({"status": written})
    given = {c.get("type") for c in conditions}
    kept = [
        decided.get(c.get("type"), c)
        for c in conditions
        if c.get("type") not in _DECISIONS or c.get("type") in decided
    ]
    return [*(c for kind, c in decided.items() if kind not in given), *kept]


def _prepare_approval(kind: Kind, new: dict[str, Any], old: Object) -> None:
    """Only the conditions change; the certificate and the rest of the status stay."""
    conditions = _conditions(new)
    before = dict(old.get("status") or {})
    prepare_status(kind, new, old)
    new["status"] = {**before, "conditions": conditions}


def _prepare_finalize(_kind: Kind, new: dict[str, Any], old: Object) -> None:
    finalizers = (new.get("spec") or {}).get("finalizers")
    new["spec"] = dict(old.get("spec") or {})
    new["spec"].pop("finalizers", None)
    if finalizers:
        new["spec"]["finalizers"] = finalizers
    if "status" in old:
        new["status"] = old["status"]


def _prepare_ephemeral(kind: Kind, new: dict[str, Any], old: Object) -> None:
    added = (new.get("spec") or {}).get("ephemeralContainers")
    changed = pipeline.copy(old)
    changed["metadata"]["managedFields"] = new["metadata"].get("managedFields")
    _replace(new, changed)
    if added:
        new.setdefault("spec", {})["ephemeralContainers"] = added
    if added != (old.get("spec") or {}).get("ephemeralContainers"):
        _grow(new)


def _prepare_resize(kind: Kind, new: dict[str, Any], old: Object) -> None:
    """Of each container that exists only the resources can be written."""
    spec = new.get("spec") or {}
    changed = pipeline.copy(old)
    for field in ("containers", "initContainers"):
        wanted = {c.get("name"): c for c in spec.get(field) or ()}
        for container in changed["spec"].get(field) or ():
            given = wanted.get(container["name"])
            if given is None:
                continue
            for name in ("resources", "resizePolicy"):
                if name in given:
                    container[name] = given[name]
    if "resources" in spec:
        changed["spec"]["resources"] = spec["resources"]
    same = changed["spec"] == old["spec"]
    changed["metadata"]["managedFields"] = new["metadata"].get("managedFields")
    _replace(new, changed)
    if not same:
        _grow(new)


def _replace(new: dict[str, Any], by: dict[str, Any]) -> None:
    if by["metadata"].get("managedFields") is None:
        by["metadata"].pop("managedFields", None)
    new.clear()
    new.update(by)


def _grow(obj: dict[str, Any]) -> None:
    obj["metadata"]["generation"] = (obj["metadata"].get("generation") or 0) + 1


_PREPARATIONS: Mapping[str, Prepare] = {
    "": prepare_update,
    "status": _prepare_status,
    "approval": _prepare_approval,
    "finalize": _prepare_finalize,
    "ephemeralcontainers": _prepare_ephemeral,
    "resize": _prepare_resize,
}


# Reads


async def get(parts: Parts, call: Call) -> bytes:
    """Of status and its like the whole object; of scale a Scale."""
    entry = parts.cache.entry(call.key)
    if entry is None:
        raise not_found(call.kind.group_resource, call.name)
    if call.subresource == "scale":
        return await get_scale(parts, call)
    if call.subresource in ("binding", "eviction", "token", "finalize"):
        raise not_allowed()
    return await present_one(parts, call.kind, entry.data)


# Creates


def is_special(kind: Kind) -> bool:
    """Whether creating one stores nothing: reviews and bindings."""
    return (kind.group in _REVIEWS and "list" not in kind.verbs) or (
        kind.plural == "bindings" and not kind.group
    )


async def create(parts: Parts, call: Call, body: dict[str, Any]) -> Answer:
    """POST to a subresource, or of a review."""
    match call.subresource:
        case "":
            return await _create_special(parts, call, body)
        case "binding":
            return await _bind(parts, call, _decoded(body, "v1", "Binding"))
        case "eviction":
            return await _evict(parts, call, _decoded(body, "policy/v1", "Eviction"))
        case "token":
            decoded = _decoded(body, "authentication.k8s.io/v1", "TokenRequest")
            return await _issue_token(parts, call, decoded)
        case _:
            raise not_allowed()


def _decoded(body: dict[str, Any], api_version: str, kind: str) -> dict[str, Any]:
    """What is sent to a subresource, of a kind that no resource serves; 400 for another."""
    given = (body.get("apiVersion") or api_version, body.get("kind") or kind)
    if given != (api_version, kind):
        raise bad_request(
            f"the {given[1]} of {given[0]} cannot be handled as a {kind} of {api_version}"
        )
    schema = schema_of_body(api_version, kind)
    assert schema is not None
    named = {**body, "apiVersion": api_version, "kind": kind}
    return walk.decode(named, schema, strict=False)[0]


async def _create_special(parts: Parts, call: Call, body: dict[str, Any]) -> Answer:
    kind = call.kind
    pipeline.check_type(kind, body)
    body = pipeline.decode(parts.schemas, call, body)
    if kind.plural == "bindings":
        pods = parts.kinds.by_resource("", "v1", "pods")
        assert pods is not None
        metadata = body.get("metadata") or {}
        bound = Call(
            user=call.user,
            kind=pods,
            namespace=call.namespace,
            name=metadata.get("name") or "",
            subresource="binding",
            options=call.options,
            agent=call.agent,
            warnings=call.warnings,
        )
        return await _bind(parts, bound, body)
    if parts.reviews is None:
        raise StatusError(503, "ServiceUnavailable", "reviews are not served")
    review = await parts.reviews.create(kind, namespace=call.namespace, body=body, user=call.user)
    return Answer(orjson.dumps(review), 201)


async def _issue_token(parts: Parts, call: Call, body: dict[str, Any]) -> Answer:
    if parts.reviews is None:
        raise StatusError(503, "ServiceUnavailable", "tokens are not issued here")
    if parts.cache.entry(call.key) is None:
        raise not_found(call.kind.group_resource, call.name)
    defaults.apply_body_defaults("authentication.k8s.io/v1", "TokenRequest", body)
    await admit(parts, call, Operation.CREATE, body)
    answer = await parts.reviews.issue_token(
        namespace=call.namespace, service_account=call.name, body=body, user=call.user
    )
    return Answer(orjson.dumps(answer), 201)


async def _bind(parts: Parts, call: Call, body: dict[str, Any]) -> Answer:
    """Give a pod its node; the scheduler's one write."""
    target = body.get("target") or {}
    node = target.get("name") or ""
    if target.get("kind", "") not in ("", "Node"):
        text = f'Unsupported value: "{target["kind"]}": supported values: "Node", "<empty>"'
        raise invalid(
            "Binding", call.name, [FieldError("FieldValueNotSupported", "target.kind", text)]
        )
    if not node:
        raise invalid("Binding", call.name, [required("target.name")])
    metadata = body.get("metadata") or {}
    await admit(parts, call, Operation.CREATE, body)
    now = rfc3339(parts.clock())

    async def make(old: Object) -> dict[str, Any]:
        return _bound(call, old, node, metadata=metadata, now=now)

    await change(parts, call, Change(make=make, prepare=_as_made, admitted=True))
    return Answer(_SUCCESS, 201)


def _bound(
    call: Call, old: Object, node: str, *, metadata: Mapping[str, Any], now: str
) -> dict[str, Any]:
    if metadata.get("uid") and metadata["uid"] != old["metadata"]["uid"]:
        why = (
            f"Precondition failed: UID in precondition: {metadata['uid']}, "
            f"UID in object meta: {old['metadata']['uid']}"
        )
        raise conflict("pods", call.name, why)
    if old["metadata"].get("deletionTimestamp"):
        raise conflict(
            "pods/binding",
            call.name,
            f"pod {call.name} is being deleted, cannot be assigned to a host",
        )
    current = (old.get("spec") or {}).get("nodeName")
    if current:
        raise conflict(
            "pods/binding", call.name, f'pod {call.name} is already assigned to node "{current}"'
        )
    if (old.get("spec") or {}).get("schedulingGates"):
        raise conflict(
            "pods/binding", call.name, f"pod {call.name} has non-empty .spec.schedulingGates"
        )
    new: dict[str, Any] = pipeline.copy(old)
    new["spec"]["nodeName"] = node
    for field in ("labels", "annotations"):
        if metadata.get(field):
            new["metadata"][field] = {**(new["metadata"].get(field) or {}), **metadata[field]}
    status = new.setdefault("status", {})
    conditions = [c for c in status.get("conditions") or () if c.get("type") != "PodScheduled"]
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": now,
    }
    status["conditions"] = [*conditions, scheduled]
    return new


def _as_made(_kind: Kind, _new: dict[str, Any], _old: Object) -> None:
    """The maker has done all."""


async def _evict(parts: Parts, call: Call, body: dict[str, Any]) -> Answer:
    """Delete a pod if its disruption budgets allow it now; 429 if not."""
    metadata = body.get("metadata") or {}
    if metadata.get("name", call.name) != call.name:
        raise bad_request("name in URL does not match name in Eviction object")
    entry = parts.cache.entry(call.key)
    if entry is None:
        raise not_found("pods", call.name)
    options = delete_options(body.get("deleteOptions"), {})
    if options.dry_run:
        call.options = replace(call.options, dry_run=True)
    await admit(parts, call, Operation.CREATE, body)
    pod = await entry_object(parts, call.kind, entry)
    await admit_eviction(parts, call, pod)
    if not options.resource_version:  # what the client has seen must be what is deleted
        await mark_evicted(parts, call)
    removal = Call(
        user=call.user,
        kind=call.kind,
        namespace=call.namespace,
        name=call.name,
        options=call.options,
        agent=call.agent,
        warnings=call.warnings,
    )
    await delete(parts, removal, options)
    return Answer(_SUCCESS, 201)


_SUCCESS = orjson.dumps(
    {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
)

__all__ = ["create", "get", "is_special", "patch_scale", "preparation", "update_scale"]
