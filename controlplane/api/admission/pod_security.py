"""
PodSecurity: the level that a namespace's labels ask for, enforced on pods, warned about
on whatever makes pods.

``audit`` labels are read and validated; there is no audit log to write into.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.admission.pod_security_checks import evaluate
from controlplane.api.admission.pod_security_reading import Violation
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.client.base import Object
from controlplane.objects import meta
from controlplane.objects.errors import FieldError, invalid, invalid_value
from controlplane.objects.resources import NAMESPACES, PODS

LEVELS = ("privileged", "baseline", "restricted")  # in order of strictness
_PREFIX = "pod-security.kubernetes.io/"
_VERSION = re.compile(r"v1\.(0|[1-9][0-9]*)")
_IGNORED = frozenset("exec attach binding eviction log portforward proxy status".split())
_TEMPLATES: Mapping[str, tuple[str, ...]] = {
    "replicationcontrollers": ("spec", "template"),
    "podtemplates": ("template",),
    "replicasets.apps": ("spec", "template"),
    "deployments.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}


@dataclass(frozen=True, slots=True)
class Level:
    name: str = "privileged"
    minor: int | None = None  # of Kubernetes 1.x; None: latest

    def __str__(self) -> str:
        return f"{self.name}:{'latest' if self.minor is None else f'v1.{self.minor}'}"

    def violations(self, holder: Object, spec: Object) -> list[Violation]:
        return evaluate(self.name, self.minor, holder, spec)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    enforce: Level
    warn: Level
    errors: tuple[FieldError, ...]


def policy_of(labels: Mapping[str, str]) -> Policy:
    """A label that makes no sense enforces the most, and warns of nothing."""
    errors: list[FieldError] = []
    enforce = Level(
        _level(labels, "enforce", errors, otherwise="restricted"),
        _version(labels, "enforce", errors),
    )
    _level(labels, "audit", errors, otherwise="privileged")
    _version(labels, "audit", errors)
    warn = Level(
        _level(labels, "warn", errors, otherwise="privileged"), _version(labels, "warn", errors)
    )
    if f"{_PREFIX}warn" not in labels and labels.get(f"{_PREFIX}enforce") in LEVELS:
        # Whoever is stopped at the pod is told at its Deployment.
        versioned = f"{_PREFIX}warn-version" in labels
        warn = Level(enforce.name, warn.minor if versioned else enforce.minor)
    return Policy(enforce=enforce, warn=warn, errors=tuple(errors))


def _level(
    labels: Mapping[str, str], mode: str, errors: list[FieldError], *, otherwise: str
) -> str:
    label = f"{_PREFIX}{mode}"
    value = labels.get(label, "privileged")
    if value in LEVELS:
        return value
    detail = f"must be one of {', '.join(LEVELS)}"
    errors.append(invalid_value(f"metadata.labels[{label}]", value, detail))
    return otherwise


def _version(labels: Mapping[str, str], mode: str, errors: list[FieldError]) -> int | None:
    label = f"{_PREFIX}{mode}-version"
    value = labels.get(label, "latest")
    if value == "latest":
        return None
    match = _VERSION.fullmatch(value)
    if match is None:
        detail = 'must be "latest" or "v1.x"'
        errors.append(invalid_value(f"metadata.labels[{label}]", value, detail))
        return None
    return int(match[1])


class PodSecurity(Plugin):
    name = "PodSecurity"

    async def validate(self, request: AdmissionRequest) -> None:
        if request.operation not in {Operation.CREATE, Operation.UPDATE} or request.object is None:
            return
        group_resource = request.kind.group_resource
        if group_resource == "pods":
            _check_pod(request, request.object)
        elif group_resource in _TEMPLATES and not request.subresource:
            _warn_of_template(request, request.object)
        elif group_resource == "namespaces" and not request.subresource:
            _check_namespace(request, request.object)


def _policy(request: AdmissionRequest) -> Policy:
    namespace = request.reads.get(NAMESPACES, "", request.namespace) or {}
    return policy_of(meta.labels(namespace))


def _check_pod(request: AdmissionRequest, pod: Object) -> None:
    if request.subresource in _IGNORED:
        return
    policy = _policy(request)
    if policy.enforce.name == policy.warn.name == "privileged":
        return
    if request.old is not None and not _changes_images(pod, request.old):
        return
    spec = pod.get("spec") or {}
    violations = policy.enforce.violations(pod, spec)
    if violations:
        shown = _shown(violations)
        raise refused(request, f'violates PodSecurity "{policy.enforce}": {shown}')
    _warn(request, policy, pod, spec)


def _warn_of_template(request: AdmissionRequest, obj: Object) -> None:
    policy = _policy(request)
    if policy.warn.name == "privileged":
        return
    template: Any = obj
    for field in _TEMPLATES[request.kind.group_resource]:
        template = template.get(field) or {}
    if template:
        _warn(request, policy, template, template.get("spec") or {})


def _warn(request: AdmissionRequest, policy: Policy, holder: Object, spec: Object) -> None:
    violations = policy.warn.violations(holder, spec)
    if violations:
        shown = _shown(violations)
        request.warnings.append(f'would violate PodSecurity "{policy.warn}": {shown}')


def _shown(violations: Sequence[Violation]) -> str:
    return ", ".join(map(str, violations))


def _changes_images(new: Object, old: Object) -> bool:
    """Whether an update could change what was judged at the pod's creation."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    for kind in ("containers", "initContainers"):
        if _images(after, kind) != _images(before, kind):
            return True
    known = {c.get("name"): c.get("image") for c in before.get("ephemeralContainers") or ()}
    return any(
        container.get("name") not in known or known[container.get("name")] != container.get("image")
        for container in after.get("ephemeralContainers") or ()
    )


def _images(spec: Object, kind: str) -> list[Any]:
    return [container.get("image") for container in spec.get(kind) or ()]


def _check_namespace(request: AdmissionRequest, namespace: Object) -> None:
    new = policy_of(meta.labels(namespace))
    old = policy_of(meta.labels(request.old)) if request.old is not None else None
    # Labels that were wrong before may stay, so that the object can still be changed.
    if new.errors and (old is None or new.errors != old.errors):
        raise invalid(request.kind.group_kind, meta.name(namespace), new.errors)
    if old is None or not _is_stricter(new.enforce, old.enforce):
        return
    _warn_of_pods(request, meta.name(namespace), new.enforce)


def _is_stricter(new: Level, old: Level) -> bool:
    if new == old or new.name == "privileged":
        return False
    return new.minor != old.minor or LEVELS.index(new.name) > LEVELS.index(old.name)


def _warn_of_pods(request: AdmissionRequest, namespace: str, enforce: Level) -> None:
    first: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for pod in request.reads.list(PODS, namespace):
        violations = enforce.violations(pod, pod.get("spec") or {})
        if violations:
            reason = ", ".join(violation.reason for violation in violations)
            first[reason] = min(first.get(reason, meta.name(pod)), meta.name(pod))
            counts[reason] += 1
    if not first:
        return
    request.warnings.append(
        f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level '
        f'"{enforce}"'
    )
    request.warnings += sorted(
        f"{first[reason]}{_and_others(count - 1)}: {reason}" for reason, count in counts.items()
    )


def _and_others(count: int) -> str:
    match count:
        case 0:
            return ""
        case 1:
            return " (and 1 other pod)"
        case _:
            return f" (and {count} other pods)"
