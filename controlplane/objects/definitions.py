"""
CustomResourceDefinitions: what is wrong with one, and the kinds that it defines.

Source: the apiextensions.k8s.io/v1 API and its validation.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from controlplane.objects.errors import (
    FieldError,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
)
from controlplane.objects.kinds import Column, Kind
from controlplane.objects.structural import compile_node, structural_errors
from controlplane.objects.validation.registrations import client_config
from controlplane.objects.values import default_errors, pattern_errors

CLEANUP_FINALIZER = "customresourcecleanup.apiextensions.k8s.io"
VERBS = frozenset(
    ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
)
LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_STRATEGIES = ("None", "Webhook")
_REVIEWS = ("v1", "v1beta1")  # of ConversionReview
COLUMN_TYPES = ("integer", "number", "string", "boolean", "date")

JSON = Mapping[str, Any]


def definition_errors(crd: JSON) -> list[FieldError]:
    """What makes a definition invalid, as far as its schema's generic walk does not say it."""
    spec = crd.get("spec") or {}
    errors = list(_name_errors(crd, spec))
    versions = spec.get("versions") or []
    if not versions:
        errors.append(required("spec.versions", "must have at least one version"))
    elif sum(bool(version.get("storage")) for version in versions) != 1:
        names = [version.get("name") for version in versions]
        detail = "must have exactly one version marked as storage version"
        errors.append(invalid_value("spec.versions", names, detail))
    errors += _conversion_errors(spec.get("conversion") or {})
    if spec.get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in "
            "spec.versions[*].schema instead"
        )
        errors.append(invalid_value("spec.preserveUnknownFields", True, detail))
    for index, version in enumerate(versions):
        errors += _version_errors(version, f"spec.versions[{index}]")
    return errors


def _conversion_errors(conversion: JSON) -> Iterator[FieldError]:
    strategy, webhook = conversion.get("strategy", "None"), conversion.get("webhook") or {}
    path = "spec.conversion"
    if strategy not in _STRATEGIES:
        yield not_supported(f"{path}.strategy", strategy, _STRATEGIES)
    if strategy != "Webhook":
        if webhook:
            text = "should not be set when strategy is not set to Webhook"
            yield forbidden_field(f"{path}.webhook", text)
        return
    if not webhook.get("clientConfig"):
        text = "required when strategy is set to Webhook"
        yield required(f"{path}.webhook.clientConfig", text)
        return
    yield from client_config(webhook["clientConfig"], f"{path}.webhook.clientConfig")
    versions = webhook.get("conversionReviewVersions") or []
    if not set(versions) & set(_REVIEWS):
        text = f"must include at least one of {', '.join(_REVIEWS)}"
        yield invalid_value(f"{path}.webhook.conversionReviewVersions", versions, text)


def _name_errors(crd: JSON, spec: JSON) -> Iterator[FieldError]:
    names = spec.get("names") or {}
    group = spec.get("group", "")
    if not group:
        yield required("spec.group")
    elif not SUBDOMAIN.fullmatch(group) or "." not in group:
        yield invalid_value("spec.group", group, "should be a domain with at least one dot")
    if spec.get("scope") not in ("Cluster", "Namespaced"):
        if spec.get("scope"):
            yield not_supported("spec.scope", spec["scope"], ["Cluster", "Namespaced"])
        else:
            yield required("spec.scope")
    for key in ("plural", "kind"):
        if not names.get(key):
            yield required(f"spec.names.{key}")
    words = [("plural", names.get("plural")), ("singular", names.get("singular"))]
    words += [(f"shortNames[{i}]", name) for i, name in enumerate(names.get("shortNames") or ())]
    for key, word in words:
        if word and not LABEL.fullmatch(word):
            detail = "a DNS-1035 label must consist of lower case alphanumeric characters or '-'"
            yield invalid_value(f"spec.names.{key}", word, detail)
    whole = f"{names.get('plural', '')}.{group}"
    name = (crd.get("metadata") or {}).get("name", "")
    if name and names.get("plural") and group and name != whole:
        detail = 'must be spec.names.plural+"."+spec.group'
        yield invalid_value("metadata.name", name, detail)


def _version_errors(version: JSON, path: str) -> Iterator[FieldError]:
    if not LABEL.fullmatch(version.get("name", "")):
        detail = "a DNS-1035 label must consist of lower case alphanumeric characters or '-'"
        yield invalid_value(f"{path}.name", version.get("name", ""), detail)
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    where = f"{path}.schema.openAPIV3Schema"
    if not schema:
        yield required(where, "schemas are required")
    else:
        yield from structural_errors(schema, where)
        yield from pattern_errors(_patterns(schema, where))
        yield from _default_errors(schema, where)
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        here = f"{path}.additionalPrinterColumns[{index}]"
        for key in ("name", "jsonPath"):
            if not column.get(key):
                yield required(f"{here}.{key}")
        if column.get("type") not in COLUMN_TYPES:
            yield invalid_value(
                f"{here}.type", column.get("type", ""), f"must be one of {','.join(COLUMN_TYPES)}"
            )


def _default_errors(schema: JSON, path: str) -> Iterator[FieldError]:
    """Defaults are written into objects, so they must be what the schema itself accepts."""
    if "default" in schema and not path.endswith(".openAPIV3Schema"):
        yield from default_errors(schema["default"], compile_node(schema), f"{path}.default")
    for name, inner in (schema.get("properties") or {}).items():
        yield from _default_errors(inner, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _default_errors(schema[key], f"{path}.{key}")


def _patterns(schema: JSON, path: str) -> Iterator[tuple[str, str]]:
    if schema.get("pattern"):
        yield f"{path}.pattern", schema["pattern"]
    for name, inner in (schema.get("properties") or {}).items():
        yield from _patterns(inner, f"{path}.properties[{name}]")
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from _patterns(schema[key], f"{path}.{key}")


def kinds_of(crd: JSON) -> Iterable[Kind]:
    """One kind for each served version, in order of priority: the preferred first."""
    spec = crd["spec"]
    served = [version for version in spec["versions"] if version.get("served")]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    return [
        _kind(spec, version, storage)
        for version in sorted(served, key=lambda v: version_priority(v["name"]))
    ]


def _kind(spec: JSON, version: JSON, storage: str) -> Kind:
    names, group = spec["names"], spec["group"]
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    return Kind(
        group=group,
        version=version["name"],
        kind=names["kind"],
        plural=names["plural"],
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or names["kind"] + "List",
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        verbs=VERBS,
        subresources=frozenset(name for name in ("status", "scale") if name in subresources),
        storage_version=f"{group}/{storage}",
        storage_key=f"/{group}/{names['plural']}",
        custom=True,
        columns=tuple(_columns(version)),
        selectable_fields=tuple(
            field["jsonPath"] for field in version.get("selectableFields") or ()
        ),
        scale_paths=(
            scale["specReplicasPath"],
            scale["statusReplicasPath"],
            scale.get("labelSelectorPath", ""),
        )
        if scale
        else None,
    )


def _columns(version: JSON) -> Iterator[Column]:
    for column in version.get("additionalPrinterColumns") or ():
        yield Column(
            name=column["name"],
            type=column["type"],
            json_path=column["jsonPath"],
            description=column.get("description", ""),
            format=column.get("format", ""),
            priority=column.get("priority", 0),
        )


def version_priority(name: str) -> tuple[int, int, int, str]:
    """
    A key that sorts versions as Kubernetes prefers them: v10, v2, v1, v11beta2, v3alpha1, foo.
    """
    found = re.fullmatch(r"v(\d+)(?:(alpha|beta)(\d+))?", name)
    if not found:
        return (3, 0, 0, name)
    stage = {None: 0, "beta": 1, "alpha": 2}[found[2]]
    return (stage, -int(found[1]), -int(found[3] or 0), "")
