"""
Which requests a webhook wants to see, by its rules and selectors. Pure.

A rule names a resource of one version; with ``matchPolicy: Equivalent`` it also
catches requests for the same objects in another version, which are then shown to
the webhook in the version that it knows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.base import AdmissionRequest, Operation
from controlplane.client.base import Object
from controlplane.objects import selectors
from controlplane.objects.errors import not_found
from controlplane.objects.kinds import Kind
from controlplane.objects.resources import NAMESPACES

_ADMISSION = "admissionregistration.k8s.io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """One webhook of one configuration."""

    configuration: str  # the name of the configuration
    name: str
    settings: Mapping[str, Any]  # the webhook as the API has it

    @property
    def key(self) -> tuple[str, str]:
        return self.configuration, self.name

    @property
    def ignores_failure(self) -> bool:
        return self.settings.get("failurePolicy") == "Ignore"

    @property
    def seconds(self) -> int:
        return int(self.settings.get("timeoutSeconds") or 10)

    @property
    def reinvocable(self) -> bool:
        return self.settings.get("reinvocationPolicy") == "IfNeeded"


def hooks_of(configurations: Sequence[Object]) -> list[Hook]:
    """In the order in which they are called: by the name of their configuration."""
    return [
        Hook(configuration=name, name=settings["name"], settings=settings)
        for name, configuration in sorted((c["metadata"]["name"], c) for c in configurations)
        for settings in configuration.get("webhooks") or ()
    ]


def is_exempt(request: AdmissionRequest) -> bool:
    """No webhook may keep its own configuration from being changed or removed."""
    return request.kind.group == _ADMISSION


def kind_for(hook: Hook, request: AdmissionRequest, versions: Sequence[Kind]) -> Kind | None:
    """
    The kind in which the webhook is to see the request; None: it is not concerned.

    ``versions``: the kind in every version that is served. 404 where the namespace, whose
    labels decide, does not exist.
    """
    if not _selects_object(hook, request):
        return None
    found = _by_rules(hook.settings, request, versions)
    return found if found is not None and _selects_namespace(hook, request) else None


def is_selected(hook: Hook, request: AdmissionRequest) -> bool:
    """By both selectors alone."""
    return _selects_object(hook, request) and _selects_namespace(hook, request)


def _by_rules(
    settings: Mapping[str, Any], request: AdmissionRequest, versions: Sequence[Kind]
) -> Kind | None:
    rules = settings.get("rules") or ()
    if any(matches(rule, request, request.kind) for rule in rules):
        return request.kind
    if settings.get("matchPolicy") == "Exact":
        return None
    others = [kind for kind in versions if kind.version != request.kind.version]
    return next((kind for r in rules for kind in others if matches(r, request, kind)), None)


def matches(rule: Mapping[str, Any], request: AdmissionRequest, kind: Kind) -> bool:
    """``kind``: the request's, or another version of it."""
    return (
        _has(rule.get("operations") or (), request.operation.value)
        and _has(rule.get("apiGroups") or (), kind.group)
        and _has(rule.get("apiVersions") or (), kind.version)
        and _has_scope(rule.get("scope") or "*", kind)
        and any(_is_resource(r, kind, request.subresource) for r in rule.get("resources") or ())
    )


def _has(values: Sequence[str], value: str) -> bool:
    return "*" in values or value in values


def _has_scope(scope: str, kind: Kind) -> bool:
    # A Namespace is an object of the cluster, though its requests carry a namespace.
    return scope == "*" or scope == ("Namespaced" if kind.namespaced else "Cluster")


def _is_resource(pattern: str, kind: Kind, subresource: str) -> bool:
    resource, _, part = pattern.partition("/")
    return resource in ("*", kind.plural) and part in ("*", subresource)


def _selects_object(hook: Hook, request: AdmissionRequest) -> bool:
    """The new or the old object has the labels: a change of them must not hide it."""
    selector = selectors.of_object(hook.settings.get("objectSelector") or {})
    if selector.empty:
        return True
    objects = (request.object, request.old)
    if request.operation is Operation.CONNECT:
        return False
    return any(obj is not None and selector.matches(_labels(obj)) for obj in objects)


def _selects_namespace(hook: Hook, request: AdmissionRequest) -> bool:
    is_namespace = request.kind.kind == "Namespace" and not request.kind.group
    if not request.kind.namespaced and not is_namespace:
        return True
    selector = selectors.of_object(hook.settings.get("namespaceSelector") or {})
    if selector.empty:
        return True
    changed = request.operation in (Operation.CREATE, Operation.UPDATE)
    if is_namespace and changed and not request.subresource:
        return selector.matches(_labels(request.object or {}))
    name = request.name if is_namespace else request.namespace
    namespace = request.reads.get(NAMESPACES, "", name)
    if namespace is None:
        raise not_found("namespaces", name)
    return selector.matches(_labels(namespace))


def _labels(obj: Object) -> Mapping[str, str]:
    labels: Mapping[str, str] = (obj.get("metadata") or {}).get("labels") or {}
    return labels
