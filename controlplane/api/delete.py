"""
DELETE: at once, after a grace period, or once the finalizers are gone.

Pods are deleted gracefully: the first DELETE marks them, the kubelet stops them
and deletes them for good. Everything with finalizers is marked and goes with
the last of them. How dependents fare (``propagationPolicy``) is written down as
finalizers, too, for the garbage collector. Source: the API conventions and KEP-2840.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import orjson

from controlplane.api.base import Operation
from controlplane.api.call import Answer, Call, Options, Parts
from controlplane.api.encoding import encode, splice
from controlplane.api.entry import Entry
from controlplane.api.pipeline import copy
from controlplane.api.present import entry_object, present_one
from controlplane.api.strategy import ORPHANS_BY_DEFAULT, RETURNS_DELETED
from controlplane.api.write import admit, check_preconditions, is_finished
from controlplane.client.base import Object
from controlplane.objects import walk
from controlplane.objects.errors import (
    FieldError,
    StatusError,
    bad_request,
    conflict,
    invalid,
    not_found,
    not_supported,
)
from controlplane.objects.facts import schema_by_name
from controlplane.objects.meta import FOREGROUND, ORPHAN, parse_time, rfc3339
from controlplane.store.base import Mismatch

_OPTIONS = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
_POLICIES = ("Foreground", "Background", "Orphan")
_TRIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteOptions:
    grace_seconds: int | None = None
    policy: str = ""
    orphan: bool | None = None  # orphanDependents, deprecated
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False

    def as_object(self) -> dict[str, Any]:
        """As admission webhooks see it."""
        options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "meta.k8s.io/v1"}
        if self.grace_seconds is not None:
            options["gracePeriodSeconds"] = self.grace_seconds
        if self.policy:
            options["propagationPolicy"] = self.policy
        preconditions = {"uid": self.uid, "resourceVersion": self.resource_version}
        if any(preconditions.values()):
            options["preconditions"] = {k: v for k, v in preconditions.items() if v}
        if self.dry_run:
            options["dryRun"] = ["All"]
        return options


def delete_options(body: Mapping[str, Any] | None, query: Mapping[str, str]) -> DeleteOptions:
    """From a body or, if there is none, from the query; 400 and 422 as upstream."""
    given = _decoded(body) if body else _from_query(query)
    _check_options(given)
    preconditions = given.get("preconditions") or {}
    return DeleteOptions(
        grace_seconds=given.get("gracePeriodSeconds"),
        policy=given.get("propagationPolicy") or "",
        orphan=given.get("orphanDependents"),
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run="All" in (given.get("dryRun") or ()) or query.get("dryRun") == "All",
    )


def _decoded(body: Mapping[str, Any]) -> dict[str, Any]:
    """Checked against the schema: nobody has looked at it yet."""
    kind = body.get("kind")
    if kind and kind != "DeleteOptions":
        raise bad_request(f'{kind} cannot be handled as a DeleteOptions: no kind "{kind}" here')
    return walk.decode(body, schema_by_name(_OPTIONS), strict=False)[0]


def _from_query(query: Mapping[str, str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if "gracePeriodSeconds" in query:
        try:
            given["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
        except ValueError:
            raise bad_request("gracePeriodSeconds must be an integer") from None
    if "propagationPolicy" in query:
        given["propagationPolicy"] = query["propagationPolicy"]
    if "orphanDependents" in query:
        given["orphanDependents"] = query["orphanDependents"] == "true"
    return given


def _check_options(given: Mapping[str, Any]) -> None:
    errors: list[FieldError] = []
    policy = given.get("propagationPolicy")
    if policy and policy not in _POLICIES:
        errors.append(not_supported("propagationPolicy", policy, (*_POLICIES, "nil")))
    if policy and given.get("orphanDependents") is not None:
        text = "Invalid value: orphanDependents and deletionPropagation cannot be both set"
        errors.append(FieldError("FieldValueInvalid", "propagationPolicy", text))
    if errors:
        raise invalid("DeleteOptions.meta.k8s.io", "", errors)


async def delete(parts: Parts, call: Call, options: DeleteOptions) -> Answer:
    """200 with the object while it is there, else with a Status or the deleted object."""
    if options.dry_run and not call.options.dry_run:
        call.options = Options(dry_run=True)
    admitted = False
    for attempt in range(_TRIES):
        entry = parts.cache.entry(call.key)
        if entry is None:
            raise not_found(call.kind.group_resource, call.name)
        old = await entry_object(parts, call.kind, entry)
        check_preconditions(call, old, options.uid, options.resource_version)
        if not admitted:
            await admit(parts, call, Operation.DELETE, None, old=old, options=options.as_object())
            admitted = True
        try:
            return await _delete_once(parts, call, entry, options)
        except Mismatch as mismatch:
            if mismatch.found is None:
                raise not_found(call.kind.group_resource, call.name) from None
            if attempt == _TRIES - 1:
                raise conflict(call.kind.group_resource, call.name) from None
            await parts.cache.wait_for(mismatch.found.revision)
    raise AssertionError("the last attempt raises")


async def _delete_once(parts: Parts, call: Call, entry: Entry, options: DeleteOptions) -> Answer:
    """On the stored version: no conversion is needed to mark or remove an object."""
    old = parts.cache.load_object(entry)
    new = copy(old)
    metadata = new["metadata"]
    metadata.pop("resourceVersion", None)
    _set_finalizers(call, metadata, options)
    grace = _grace(call, old, options)
    _mark(parts, call, new, grace)
    if is_finished(call.kind, new):
        return await _remove(parts, call, entry)
    if new["metadata"] == {k: v for k, v in old["metadata"].items() if k != "resourceVersion"}:
        return Answer(await present_one(parts, call.kind, entry.data))
    data = encode(new)
    revision = entry.revision
    if not call.options.dry_run:
        revision = await parts.store.update(entry.key, data, expected=entry.revision)
        await parts.cache.wait_for(revision)
    return Answer(await present_one(parts, call.kind, splice(data, revision)))


def _set_finalizers(call: Call, metadata: dict[str, Any], options: DeleteOptions) -> None:
    """What becomes of dependents, as the garbage collector reads it."""
    finalizers = list(metadata.get("finalizers") or ())
    policy = options.policy
    if options.orphan is not None:
        policy = "Orphan" if options.orphan else "Background"
    if not policy:
        if ORPHAN in finalizers or FOREGROUND in finalizers:
            return
        policy = "Orphan" if call.kind.group_kind in ORPHANS_BY_DEFAULT else "Background"
    wanted = {"Orphan": ORPHAN, "Foreground": FOREGROUND}.get(policy)
    kept = [name for name in finalizers if name not in (ORPHAN, FOREGROUND) or name == wanted]
    if wanted and wanted not in kept:
        kept.append(wanted)
    if kept:
        metadata["finalizers"] = kept
    else:
        metadata.pop("finalizers", None)


def _grace(call: Call, old: Object, options: DeleteOptions) -> int:
    """Seconds; other kinds than pods have none."""
    if call.kind.kind != "Pod" or call.kind.group:
        return 0
    spec, status = old.get("spec") or {}, old.get("status") or {}
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    seconds = options.grace_seconds
    if seconds is None:
        seconds = spec.get("terminationGracePeriodSeconds", 30)
    return 1 if seconds < 0 else int(seconds)


def _mark(parts: Parts, call: Call, new: dict[str, Any], grace: int) -> None:
    """Set or shorten the time of deletion."""
    metadata = new["metadata"]
    now = parts.clock()
    if metadata.get("deletionTimestamp"):
        before = metadata.get("deletionGracePeriodSeconds") or 0
        if before <= grace or not before:
            return
        # Never later than it was: the clock of the grace period began at the first DELETE.
        began = parse_time(metadata["deletionTimestamp"]) - timedelta(seconds=before)
        metadata["deletionTimestamp"] = rfc3339(max(now, began + timedelta(seconds=grace)))
        metadata["deletionGracePeriodSeconds"] = grace
        return
    metadata["deletionTimestamp"] = rfc3339(now + timedelta(seconds=grace))
    metadata["deletionGracePeriodSeconds"] = grace
    if metadata.get("generation"):
        metadata["generation"] += 1
    if call.kind.kind == "Namespace" and not call.kind.group:
        new["status"] = {**(new.get("status") or {}), "phase": "Terminating"}


async def _remove(parts: Parts, call: Call, entry: Entry) -> Answer:
    revision = entry.revision
    if not call.options.dry_run:
        revision = await parts.store.delete(entry.key, expected=entry.revision)
        await parts.cache.wait_for(revision)
    if call.kind.group_kind in RETURNS_DELETED:
        return Answer(await present_one(parts, call.kind, entry.data))
    return Answer(_success(call, entry, parts))


def _success(call: Call, entry: Entry, parts: Parts) -> bytes:
    metadata = parts.cache.load_object(entry)["metadata"]
    details = {
        "name": metadata["name"],
        "group": call.kind.group,
        "kind": call.kind.plural,
        "uid": metadata.get("uid", ""),
    }
    return orjson.dumps(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {key: value for key, value in details.items() if value},
        }
    )


async def delete_collection(
    parts: Parts, call: Call, entries: list[Entry], options: DeleteOptions
) -> list[bytes]:
    """Delete each; the list of what was there is the answer. Gone ones are no error."""
    deleted: list[bytes] = []
    for entry in entries:
        one = Call(
            user=call.user,
            kind=call.kind,
            namespace=entry.namespace,
            name=entry.name,
            options=call.options,
            agent=call.agent,
            warnings=call.warnings,
        )
        data = await present_one(parts, call.kind, entry.data)
        try:
            await delete(parts, one, options)
        except StatusError as error:
            if error.code != 404:
                raise
        deleted.append(data)
    return deleted
