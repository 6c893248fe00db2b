"""What ``authorizer`` in an expression answers: the authorizers of this server."""

from typing import TYPE_CHECKING

from controlplane.api.base import AdmissionRequest, Attributes, Authorizer, Decision, User

if TYPE_CHECKING:
    from controlplane.objects.cel.authorizer import Check


def asker(authorizer: Authorizer | None, request: AdmissionRequest) -> "Check":
    """Of what the request's user may do; without an authorizer, as in tests, everything."""
    # Expressions are loaded by those who use them alone.
    from controlplane.objects.cel.authorizer import Check

    def decide(check: Check, verb: str) -> tuple[bool, str]:
        if authorizer is None:
            return True, ""
        decision, reason = authorizer.authorize(_attributes(check, verb, request.user))
        return decision is Decision.ALLOW, reason

    kind = request.kind
    return Check(
        decide=decide,
        request=Check(
            decide=decide,
            group=kind.group,
            resource=kind.plural,
            subresource=request.subresource,
            namespace=request.namespace,
            name=request.name,
        ),
    )


def _attributes(check: "Check", verb: str, user: User) -> Attributes:
    namespace, name = check.account
    if name:
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        user = User(
            name=f"system:serviceaccount:{namespace}:{name}",
            groups=(*groups, "system:authenticated"),
        )
    if check.path:
        return Attributes(user=user, verb=verb.lower(), path=f"/{check.path.strip().lstrip('/')}")
    return Attributes(
        user=user,
        verb=verb,
        group=check.group,
        version="*",
        resource=check.resource,
        subresource=check.subresource,
        namespace=check.namespace,
        name=check.name,
        field_selector=check.fields,
    )
