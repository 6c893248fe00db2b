"""Metadata of all kinds, and the label selectors in their specs."""

from collections.abc import Iterable
from typing import Any

from controlplane.objects.errors import forbidden_field, invalid_value, required
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import FOREGROUND, ORPHAN
from controlplane.objects.validation import names
from controlplane.objects.validation.checks import (
    IMMUTABLE,
    Found,
    Object,
    formed,
    non_negative,
    too_long,
)

_ANNOTATIONS_LIMIT = 256 * 1024
# Served by API servers of their own upstream, which have no list of standard finalizers.
_OUTSIDE = ("apiextensions.k8s.io", "apiregistration.k8s.io")
_PATH = "metadata"

_LABEL_NAMES = {"Namespace", "StatefulSet"}
_ANY_NAMES = {
    "Role",
    "RoleBinding",
    "ClusterRole",
    "ClusterRoleBinding",
    "Event",
    "CertificateSigningRequest",
    "APIService",
    "IPAddress",
    "ComponentStatus",
}


def name_form(kind: Kind) -> names.Form:
    """What the name of an object of this kind must look like."""
    if kind.custom:
        return names.dns1123_subdomain
    if kind.kind in _LABEL_NAMES:
        return names.dns1123_label
    if kind.kind in _ANY_NAMES:
        return names.path_segment
    if (kind.group, kind.kind) == ("", "Service"):
        return names.dns1035_label
    if (kind.group, kind.kind) == ("batch", "CronJob"):
        return _cron_job_name
    return names.dns1123_subdomain


def _cron_job_name(value: str) -> list[str]:
    # Eleven more are appended for each Job.
    return names.dns1123_subdomain(value) or (
        ["must be no more than 52 characters"] if len(value) > 52 else []
    )


def created(kind: Kind, obj: Object) -> Found:
    metadata = obj.get("metadata") or {}
    form = name_form(kind)
    if prefix := metadata.get("generateName"):
        yield from formed(form, _masked(prefix), f"{_PATH}.generateName")
    if name := metadata.get("name"):
        yield from formed(form, name, f"{_PATH}.name")
    else:
        yield required(f"{_PATH}.name", "name or generateName is required")
    yield from _namespace(kind, metadata)
    yield from non_negative(metadata.get("generation"), f"{_PATH}.generation")
    yield from common(metadata, _PATH)
    yield from _finalizers(
        metadata.get("finalizers") or (), short_names=kind.custom or kind.group in _OUTSIDE
    )


def updated(kind: Kind, new: Object, old: Object) -> Found:
    after, before = new.get("metadata") or {}, old.get("metadata") or {}
    finalizers = after.get("finalizers") or ()
    if before.get("deletionTimestamp"):
        extra = [f for f in finalizers if f not in (before.get("finalizers") or ())]
        if extra:
            shown = ", ".join(f'"{name}"' for name in sorted(extra))
            yield forbidden_field(
                f"{_PATH}.finalizers",
                "no new finalizers can be added if the object is being deleted, "
                f"found new finalizers []string{{{shown}}}",
            )
    if not after.get("resourceVersion"):
        text = "must be specified for an update"
        yield invalid_value(f"{_PATH}.resourceVersion", "", text)
    if (after.get("generation") or 0) < (before.get("generation") or 0):
        text = "must not be decremented"
        yield invalid_value(f"{_PATH}.generation", after.get("generation") or 0, text)
    for field in _IMMUTABLE:
        if after.get(field) != before.get(field):
            yield invalid_value(f"{_PATH}.{field}", after.get(field), IMMUTABLE)
    yield from common(after, _PATH)
    yield from _finalizers(finalizers, short_names=True)


_IMMUTABLE = (
    "name",
    "namespace",
    "uid",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
)


def common(metadata: Object, path: str) -> Found:
    """What also templates have."""
    yield from labels(metadata.get("labels"), f"{path}.labels")
    yield from annotations(metadata.get("annotations"), f"{path}.annotations")
    yield from _owners(metadata.get("ownerReferences") or (), f"{path}.ownerReferences")


def labels(given: Object | None, path: str) -> Found:
    for key, value in (given or {}).items():
        yield from formed(names.qualified_name, key, path)
        yield from formed(names.label_value, value, path)


def annotations(given: Object | None, path: str) -> Found:
    size = 0
    for key, value in (given or {}).items():
        for complaint in names.qualified_name(key.lower()):
            yield invalid_value(path, key, complaint)
        size += len(key.encode()) + len(value.encode())
    if size > _ANNOTATIONS_LIMIT:
        yield too_long(path, _ANNOTATIONS_LIMIT)


def selector(given: Object | None, path: str) -> Found:
    """A LabelSelector; whether it may be missing or empty is its owner's affair."""
    given = given or {}
    yield from labels(given.get("matchLabels"), f"{path}.matchLabels")
    for index, requirement in enumerate(given.get("matchExpressions") or ()):
        yield from _requirement(requirement, f"{path}.matchExpressions[{index}]")


def _requirement(requirement: Object, path: str) -> Found:
    values = requirement.get("values") or ()
    match requirement.get("operator"):
        case "In" | "NotIn":
            if not values:
                text = "must be specified when `operator` is 'In' or 'NotIn'"
                yield required(f"{path}.values", text)
        case "Exists" | "DoesNotExist":
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                yield forbidden_field(f"{path}.values", text)
        case other:
            yield invalid_value(f"{path}.operator", other or "", "not a valid selector operator")
    yield from formed(names.qualified_name, requirement.get("key") or "", f"{path}.key")
    for index, value in enumerate(values):
        yield from formed(names.label_value, value, f"{path}.values[{index}]")


def _masked(prefix: str) -> str:
    """The prefix as if a suffix followed: it may end with a dash."""
    return prefix[:-1] + "a" if len(prefix) > 1 and prefix.endswith("-") else prefix


def _namespace(kind: Kind, metadata: Object) -> Found:
    namespace, path = metadata.get("namespace"), f"{_PATH}.namespace"
    if not kind.namespaced:
        if namespace:
            yield forbidden_field(path, "not allowed on this type")
    elif namespace:
        yield from formed(names.dns1123_label, namespace, path)
    else:
        yield required(path)


def _owners(owners: Iterable[dict[str, Any]], path: str) -> Found:
    controller = ""
    for owner in owners:
        yield from _owner(owner, path)
        if owner.get("controller"):
            name = f"{owner.get('kind')}/{owner.get('name')}"
            if controller:
                text = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {name}'
                )
                yield invalid_value(path, list(owners), text)
            controller = controller or name


def _owner(owner: Object, path: str) -> Found:
    if not owner.get("apiVersion"):
        yield invalid_value(f"{path}.apiVersion", "", "version must not be empty")
    for field in ("kind", "name", "uid"):
        if not owner.get(field):
            yield invalid_value(f"{path}.{field}", "", "must not be empty")
    if (owner.get("apiVersion"), owner.get("kind")) == ("v1", "Event"):
        text = "/v1, Kind=Event is disallowed from being an owner"
        yield invalid_value(path, dict(owner), text)


def _finalizers(finalizers: Iterable[str], *, short_names: bool) -> Found:
    path, listed = f"{_PATH}.finalizers", list(finalizers)
    for name in listed:
        yield from formed(names.qualified_name, name, path)
        # Short names are kept for the few that came before qualified ones.
        standard = short_names or "/" in name or name in (ORPHAN, FOREGROUND, "kubernetes")
        if not standard:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            yield invalid_value(path, name, text)
    if ORPHAN in listed and FOREGROUND in listed:
        text = f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"
        yield invalid_value(path, listed, text)
