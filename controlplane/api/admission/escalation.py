"""
Nobody hands out more than they hold: changes to roles and bindings.

Not a plugin of upstream, where the storage of these kinds checks it; here it is
one more refusal, told in the same words. ``escalate`` and ``bind`` lift it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.base import (
    MASTERS_GROUP,
    AdmissionRequest,
    Attributes,
    Authorizer,
    Decision,
    Operation,
)
from controlplane.api.rbac import GROUP, Rbac
from controlplane.client.base import Object
from controlplane.objects import meta
from controlplane.objects.errors import not_found
from controlplane.objects.resources import CLUSTER_ROLES, ROLES

_ROLES = {"roles", "clusterroles"}
_BINDINGS = {"rolebindings", "clusterrolebindings"}
_EVERYTHING: tuple[Mapping[str, Any], ...] = (
    {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
    {"verbs": ["*"], "nonResourceURLs": ["*"]},
)

Rules = Sequence[Mapping[str, Any]]


class EscalationCheck(Plugin):
    name = "RBACEscalationCheck"

    def __init__(self, authorizer: Authorizer, rbac: Rbac) -> None:
        self._authorizer = authorizer
        self._rbac = rbac

    async def validate(self, request: AdmissionRequest) -> None:
        if request.kind.group != GROUP or request.object is None or request.subresource:
            return
        if request.operation is Operation.DELETE or MASTERS_GROUP in request.user.groups:
            return
        if request.old is not None and not _says_more(request.object, request.old):
            return
        if request.kind.plural in _ROLES:
            self._check_role(request, request.object)
        elif request.kind.plural in _BINDINGS:
            self._check_binding(request, request.object)

    def _check_role(self, request: AdmissionRequest, role: Object) -> None:
        if self._may(request, "escalate", request.kind.plural, request.name or meta.name(role)):
            return
        self._check_rules(request, role.get("rules") or ())
        if _aggregates(role) or _aggregates(request.old or {}):
            held = self._missing(request, _EVERYTHING)
            if held:
                raise refused(
                    request, "must have cluster-admin privileges to use the aggregationRule"
                )

    def _check_binding(self, request: AdmissionRequest, binding: Object) -> None:
        reference = binding.get("roleRef") or {}
        name = reference.get("name") or ""
        cluster = reference.get("kind") == "ClusterRole"
        plural = "clusterroles" if cluster else "roles"
        if self._may(request, "bind", plural, name):
            return
        resource = CLUSTER_ROLES if cluster else ROLES
        role = request.reads.get(resource, "" if cluster else request.namespace, name)
        if role is None:
            raise not_found(resource.group_resource, name)
        self._check_rules(request, role.get("rules") or ())

    def _may(self, request: AdmissionRequest, verb: str, plural: str, name: str) -> bool:
        asked = Attributes(
            user=request.user,
            verb=verb,
            group=GROUP,
            version="*",
            resource=plural,
            namespace=request.namespace,
            name=name,
        )
        return self._authorizer.authorize(asked)[0] is Decision.ALLOW

    def _check_rules(self, request: AdmissionRequest, rules: Rules) -> None:
        missing = self._missing(request, rules)
        if missing:
            user = request.user
            groups = " ".join(f'"{group}"' for group in user.groups)
            shown = "\n".join(sorted({_compact(rule) for rule in missing}))
            raise refused(
                request,
                f'user "{user.name}" (groups=[{groups}]) is attempting to grant RBAC permissions '
                f"not currently held:\n{shown}",
            )

    def _missing(self, request: AdmissionRequest, rules: Rules) -> list[Mapping[str, Any]]:
        user, namespace = request.user, request.namespace
        return [rule for rule in rules if not self._rbac.holds(user, namespace, rule)]


def _says_more(new: Object, old: Object) -> bool:
    """False if only metadata changed, as the garbage collector does."""
    fields = ("rules", "aggregationRule", "roleRef", "subjects")
    return any((new.get(field) or None) != (old.get(field) or None) for field in fields)


def _aggregates(role: Object) -> bool:
    return bool((role.get("aggregationRule") or {}).get("clusterRoleSelectors"))


def _compact(rule: Mapping[str, Any]) -> str:
    parts = (
        ("APIGroups", "apiGroups"),
        ("Resources", "resources"),
        ("NonResourceURLs", "nonResourceURLs"),
        ("ResourceNames", "resourceNames"),
        ("Verbs", "verbs"),
    )
    shown = ", ".join(f"{title}:{_quoted(rule[key])}" for title, key in parts if rule.get(key))
    return f"{{{shown}}}"


def _quoted(items: Iterable[str]) -> str:
    return "[" + " ".join(f'"{item}"' for item in items) + "]"
