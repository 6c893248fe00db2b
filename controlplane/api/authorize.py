"""
Whether they may: the authorizers in order, and how a refusal reads.

Masters first, since nothing may lock them out; then nodes, which get what the
pods on them need; then RBAC. Whoever none of them lets through is refused.
"""

from collections.abc import Iterable, Sequence

from controlplane.api.base import (
    MASTERS_GROUP,
    Attributes,
    Authorizer,
    Decision,
    NonResourceRule,
    ResourceRule,
    Rule,
    User,
)
from controlplane.objects.errors import StatusError, forbidden

_EVERYTHING: tuple[Rule, ...] = (
    ResourceRule(verbs=("*",), api_groups=("*",), resources=("*",)),
    NonResourceRule(verbs=("*",), urls=("*",)),
)


class Masters:
    """``system:masters`` may everything, whatever roles say."""

    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        if MASTERS_GROUP in attributes.user.groups:
            return Decision.ALLOW, ""
        return Decision.NO_OPINION, ""

    def rules(self, user: User, _namespace: str) -> Iterable[Rule]:
        return _EVERYTHING if MASTERS_GROUP in user.groups else ()


class Chain:
    """The first opinion counts; the reasons of those without one are shown with a refusal."""

    def __init__(self, authorizers: Sequence[Authorizer]) -> None:
        self._authorizers = tuple(authorizers)

    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        reasons = []
        for authorizer in self._authorizers:
            decision, reason = authorizer.authorize(attributes)
            if decision is not Decision.NO_OPINION:
                return decision, reason
            if reason:
                reasons.append(reason)
        return Decision.NO_OPINION, "\n".join(reasons)

    def rules(self, user: User, namespace: str) -> Iterable[Rule]:
        for authorizer in self._authorizers:
            yield from authorizer.rules(user, namespace)


def forbidden_error(attributes: Attributes, reason: str = "") -> StatusError:
    """The 403 of a request that was not allowed; ``reason`` as the authorizer gave it."""
    why = _why(attributes)
    if reason:
        why = f"{why}: {reason}"
    if attributes.path:
        return StatusError(403, "Forbidden", f"forbidden: {why}", details={})
    group_resource = attributes.resource
    if attributes.group:
        group_resource = f"{group_resource}.{attributes.group}"
    return forbidden(group_resource, attributes.name, why)


def _why(attributes: Attributes) -> str:
    who = f'User "{attributes.user.name}"'
    if attributes.path:
        return f'{who} cannot {attributes.verb} path "{attributes.path}"'
    resource = attributes.resource
    if attributes.subresource:
        resource = f"{resource}/{attributes.subresource}"
    what = f'{who} cannot {attributes.verb} resource "{resource}"'
    what = f'{what} in API group "{attributes.group}"'
    if attributes.namespace:
        return f'{what} in the namespace "{attributes.namespace}"'
    return f"{what} at the cluster scope"
