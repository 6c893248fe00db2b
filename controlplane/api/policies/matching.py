"""Which requests a policy and its bindings are about, and with which parameters. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.base import AdmissionRequest
from controlplane.api.webhooks.rules import Hook, is_selected, matches
from controlplane.client.base import Object, Reads
from controlplane.objects import selectors
from controlplane.objects.kinds import Kind, Kinds


@dataclass(frozen=True, slots=True)
class Bound:
    """A policy where one of its bindings puts it; ``kind``: how it sees the object."""

    policy: Object
    binding: Object
    kind: Kind

    @property
    def name(self) -> str:
        return str(self.policy["metadata"]["name"])


class ParameterError(Exception):
    """What a binding names as parameters is not there, and that matters."""


def bound(
    policies: Sequence[Object],
    bindings: Sequence[Object],
    request: AdmissionRequest,
    versions: Sequence[Kind],
) -> list[Bound]:
    """By the names of policies, then of bindings."""
    found = []
    for policy in policies:
        spec = policy.get("spec") or {}
        kind = _kind(spec.get("matchConstraints") or {}, request, versions)
        if kind is None:
            continue
        for binding in bindings:
            where = binding.get("spec") or {}
            if where.get("policyName") != policy["metadata"]["name"]:
                continue
            narrower = where.get("matchResources")
            if not narrower or _kind(narrower, request, versions) is not None:
                found.append(Bound(policy, binding, kind))
    return found


def _kind(
    resources: Mapping[str, Any], request: AdmissionRequest, versions: Sequence[Kind]
) -> Kind | None:
    """As :func:`controlplane.api.webhooks.rules.kind_for`, with MatchResources."""
    hook = Hook(configuration="", name="", settings=resources)
    if any(_rule(rule, request, request.kind) for rule in _list(resources, "excludeResourceRules")):
        return None
    rules = _list(resources, "resourceRules")
    found: Kind | None = request.kind
    if rules and not any(_rule(rule, request, request.kind) for rule in rules):
        others = [kind for kind in versions if kind.version != request.kind.version]
        exact = resources.get("matchPolicy") == "Exact"
        found = next(
            (k for rule in rules for k in others if not exact and _rule(rule, request, k)), None
        )
    return found if found is not None and is_selected(hook, request) else None


def _list(resources: Mapping[str, Any], field: str) -> Sequence[Mapping[str, Any]]:
    return resources.get(field) or ()


def _rule(rule: Mapping[str, Any], request: AdmissionRequest, kind: Kind) -> bool:
    names = rule.get("resourceNames") or ()
    return matches(rule, request, kind) and (not names or request.name in names)


def parameters(one: Bound, request: AdmissionRequest, kinds: Kinds) -> list[Object | None]:
    """
    What ``params`` is, once for each; one None where the policy takes none.

    Empty: the parameters are not there and that is allowed. Raises :class:`ParameterError`.
    """
    asked = (one.policy.get("spec") or {}).get("paramKind")
    reference = (one.binding.get("spec") or {}).get("paramRef")
    if not asked:
        return [None]
    if not reference:
        return [None]
    kind = kinds.by_kind(asked["apiVersion"], asked["kind"])
    if kind is None:
        raise ParameterError(f"failed to find resource referenced by paramKind: '{_named(asked)}'")
    found = _found(reference, kind, request)
    if not found and reference.get("parameterNotFoundAction") != "Allow":
        text = "no params found for policy binding with `Deny` parameterNotFoundAction"
        raise ParameterError(text)
    return list(found)


def _found(reference: Mapping[str, Any], kind: Kind, request: AdmissionRequest) -> list[Object]:
    namespace = ""
    if kind.namespaced:
        namespace = reference.get("namespace") or request.namespace
        if not namespace:
            text = "can't use namespaced paramRef to match cluster-scoped resources"
            raise ParameterError(text)
    reads: Reads = request.reads
    if name := reference.get("name"):
        one = reads.get(kind.resource, namespace, name)
        return [] if one is None else [one]
    selector = selectors.of_object(reference.get("selector") or {})
    listed = reads.list(kind.resource, namespace)
    return [o for o in listed if selector.matches((o.get("metadata") or {}).get("labels"))]


def _named(asked: Mapping[str, Any]) -> str:
    group, _, version = str(asked["apiVersion"]).rpartition("/")
    return f"{group}/{version}, Kind={asked['kind']}"
