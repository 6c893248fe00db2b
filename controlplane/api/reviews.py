"""
The kinds that are asked and not stored: whose token, who may, who am I, and a new token.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from controlplane.api.authn import with_authenticated_group
from controlplane.api.base import (
    Attributes,
    Authenticator,
    Authorizer,
    Credentials,
    Decision,
    NonResourceRule,
    ResourceRule,
    User,
)
from controlplane.api.node_authorizer import node_of
from controlplane.api.service_accounts import ServiceAccountAuthenticator
from controlplane.api.tokens import Claims, Reference, ServiceAccountTokens, TokenError
from controlplane.client.base import Object, Reads
from controlplane.objects import meta
from controlplane.objects.errors import (
    FieldError,
    StatusError,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    not_found,
)
from controlplane.objects.kinds import Kind, Resource
from controlplane.objects.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS

# Clients in pods ask for just this; see KEP-2800 and ``warnafter`` in tokens.py.
IN_CLUSTER_SECONDS = 3607
EXTENDED_LIFE = timedelta(days=365)
DEFAULT_SECONDS = 3600
_SHORTEST_SECONDS = 600
_LONGEST_SECONDS = 1 << 32
_TOKEN_REQUEST = "TokenRequest.authentication.k8s.io"  # noqa: S105 - a kind, not a secret

Body = Mapping[str, Any]


class StandardReviews:
    """Implements :class:`controlplane.api.base.Reviews`."""

    def __init__(
        self,
        *,
        authorizer: Authorizer,
        service_accounts: ServiceAccountAuthenticator,
        bearers: Sequence[Authenticator],  # of other bearer tokens: bootstrap, join
        tokens: ServiceAccountTokens,
        reads: Reads,
        clock: Callable[[], datetime],
    ) -> None:
        self._authorizer = authorizer
        self._service_accounts = service_accounts
        self._bearers = tuple(bearers)
        self._tokens = tokens
        self._reads = reads
        self._clock = clock

    async def create(
        self, kind: Kind, *, namespace: str, body: Mapping[str, Any], user: User
    ) -> dict[str, Any]:
        match kind.plural:
            case "tokenreviews":
                return await self._token_review(body)
            case "selfsubjectreviews":
                return self._self_review(body, user)
            case "selfsubjectrulesreviews":
                return self._rules_review(body, user)
            case "selfsubjectaccessreviews":
                _check_access_spec(kind, body, named=False)
                return self._access_review(body, user)
            case "subjectaccessreviews":
                _check_access_spec(kind, body, named=True)
                return self._access_review(body, _named_user(body["spec"]))
            case "localsubjectaccessreviews":
                _check_access_spec(kind, body, named=True, namespace=namespace)
                return self._access_review(body, _named_user(body["spec"]))
            case _:
                raise bad_request(f"not a review: {kind.kind}")

    async def issue_token(
        self, *, namespace: str, service_account: str, body: Mapping[str, Any], user: User
    ) -> dict[str, Any]:
        """``user`` may do it: that was decided before."""
        account = self._reads.get(SERVICE_ACCOUNTS, namespace, service_account)
        if account is None:
            raise not_found("serviceaccounts", service_account)
        _check_token_request(body, account)
        spec = body.get("spec") or {}
        seconds = int(spec.get("expirationSeconds") or DEFAULT_SECONDS)
        audiences = tuple(spec.get("audiences") or self._tokens.audiences)
        claims = self._claims(account, audiences, spec.get("boundObjectRef"))
        now = self._clock()
        lifetime, warn_after = self._lifetime(claims, seconds)
        token = self._tokens.sign(claims, now=now, lifetime=lifetime, warn_after=warn_after)
        expires = now + timedelta(seconds=seconds)
        metadata = {
            **(body.get("metadata") or {}),
            "name": service_account,
            "namespace": namespace,
            "uid": meta.uid_of(account),
            "creationTimestamp": meta.rfc3339(now),
        }
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": metadata,
            "spec": {
                **spec,
                "audiences": list(audiences),
                "expirationSeconds": seconds,
                "boundObjectRef": spec.get("boundObjectRef"),
            },
            "status": {"token": token, "expirationTimestamp": meta.rfc3339(expires)},
        }

    def openid_configuration(self) -> dict[str, Any]:
        return self._tokens.openid_configuration()

    def jwks(self) -> dict[str, Any]:
        return self._tokens.jwks()

    # --- tokens ---

    def _lifetime(self, claims: Claims, seconds: int) -> tuple[timedelta, timedelta | None]:
        asked = timedelta(seconds=seconds)
        ours = set(claims.audiences) <= set(self._tokens.audiences)
        if claims.pod is not None and seconds == IN_CLUSTER_SECONDS and ours:
            return EXTENDED_LIFE, asked
        return asked, None

    def _claims(self, account: Object, audiences: tuple[str, ...], bound: Body | None) -> Claims:
        namespace, name = meta.namespace(account), meta.name(account)
        pod = secret = node = None
        if bound:
            found = self._bound_object(namespace, bound)
            reference = _reference(found)
            match bound["kind"]:
                case "Pod":
                    pod = reference
                    node = self._node_of_pod(found, name)
                case "Secret":
                    secret = reference
                case _:
                    node = reference
        return Claims(
            namespace=namespace,
            service_account=_reference(account),
            pod=pod,
            secret=secret,
            node=node,
            audiences=audiences,
            jti=str(uuid.uuid4()),
        )

    def _bound_object(self, namespace: str, bound: Body) -> Object:
        resources: dict[tuple[str, str], Resource] = {
            ("v1", "Pod"): PODS,
            ("v1", "Secret"): SECRETS,
            ("v1", "Node"): NODES,
        }
        kind, version = bound.get("kind", ""), bound.get("apiVersion", "")
        resource = resources.get((version, kind))
        name = bound.get("name", "")
        if resource is None:
            group, _, number = version.rpartition("/")
            raise bad_request(f"cannot bind token to object of type {group}/{number}, Kind={kind}")
        found = self._reads.get(resource, namespace if resource.namespaced else "", name)
        if found is None:
            raise not_found(resource.group_resource, name)
        uid = meta.uid_of(found)
        if bound.get("uid") not in {None, "", uid}:
            raise conflict(
                kind,
                name,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in "
                "record. The object might have been deleted and then recreated",
            )
        return found

    def _node_of_pod(self, pod: Object, account: str) -> Reference | None:
        spec = pod.get("spec") or {}
        if spec.get("serviceAccountName") != account:
            raise bad_request(
                f'cannot bind token for serviceaccount "{account}" to pod running with different '
                "serviceaccount name."
            )
        name = spec.get("nodeName") or ""
        if not name:
            return None
        node = self._reads.get(NODES, "", name)
        return Reference(name=name, uid=meta.uid_of(node) if node is not None else "")

    async def _token_review(self, body: Body) -> dict[str, Any]:
        spec = body.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._tokens.audiences)
        try:
            user, shared = await self._bearer(token, audiences)
        except TokenError as err:
            return {**body, "status": {"user": {}, "error": f"[invalid bearer token, {err}]"}}
        if user is None:
            return {**body, "status": {"user": {}, "error": "invalid bearer token"}}
        shown = _user_info(with_authenticated_group(user))
        return {
            **body,
            "status": {"authenticated": True, "user": shown, "audiences": list(shared)},
        }

    async def _bearer(
        self, token: str, audiences: tuple[str, ...]
    ) -> tuple[User | None, tuple[str, ...]]:
        reviewed = self._service_accounts.review(token, audiences)
        if reviewed is not None:
            return reviewed
        # Tokens without audiences are for the API server itself.
        shared = tuple(a for a in audiences if a in self._tokens.audiences)
        for authenticator in self._bearers if shared else ():
            try:
                user = await authenticator.authenticate(Credentials(bearer_token=token))
            except StatusError:
                continue
            if user is not None:
                return user, shared
        return None, ()

    # --- access ---

    def _access_review(self, body: Body, user: User) -> dict[str, Any]:
        decision, reason = self._authorizer.authorize(_asked(body["spec"], user))
        status: dict[str, Any] = {"allowed": decision is Decision.ALLOW}
        if decision is Decision.DENY:
            status["denied"] = True
        if reason:
            status["reason"] = reason
        return {**body, "status": status}

    def _rules_review(self, body: Body, user: User) -> dict[str, Any]:
        namespace = (body.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        resource_rules, other_rules = [], []
        for rule in self._authorizer.rules(user, namespace):
            match rule:
                case ResourceRule():
                    resource_rules.append(_shown_rule(rule))
                case NonResourceRule():
                    urls = list(rule.urls)
                    other_rules.append({"verbs": list(rule.verbs), "nonResourceURLs": urls})
        status: dict[str, Any] = {
            "resourceRules": resource_rules,
            "nonResourceRules": other_rules,
            "incomplete": bool(node_of(user)),
        }
        if status["incomplete"]:
            status["evaluationError"] = "node authorizer does not support user rule resolution"
        return {**body, "metadata": body.get("metadata") or {}, "spec": {}, "status": status}

    def _self_review(self, body: Body, user: User) -> dict[str, Any]:
        metadata = {
            **(body.get("metadata") or {}),
            "creationTimestamp": meta.rfc3339(self._clock()),
        }
        return {**body, "metadata": metadata, "status": {"userInfo": _user_info(user)}}


def _reference(obj: Object) -> Reference:
    return Reference(name=meta.name(obj), uid=meta.uid_of(obj))


def _check_token_request(body: Body, account: Object) -> None:
    asked = body.get("metadata") or {}
    for field, mine in (("name", meta.name(account)), ("namespace", meta.namespace(account))):
        if asked.get(field) not in {None, "", mine}:
            detail = f"must match the service account {field} if specified"
            error = invalid_value(f"metadata.{field}", asked[field], detail)
            raise invalid(_TOKEN_REQUEST, meta.name(account), [error])
    uid = meta.uid_of(account)
    if asked.get("uid") not in {None, "", uid}:
        why = (
            f"the UID in the token request ({asked['uid']}) does not match the UID of the service "
            f"account ({uid})"
        )
        raise conflict(_TOKEN_REQUEST, meta.name(account), why)
    seconds = (body.get("spec") or {}).get("expirationSeconds") or DEFAULT_SECONDS
    detail = ""
    if seconds < _SHORTEST_SECONDS:
        detail = "may not specify a duration less than 10 minutes"
    elif seconds > _LONGEST_SECONDS:
        detail = "may not specify a duration larger than 2^32 seconds"
    if detail:
        error = invalid_value("spec.expirationSeconds", seconds, detail)
        raise invalid(_TOKEN_REQUEST, "", [error])


def _check_access_spec(kind: Kind, body: Body, *, named: bool, namespace: str = "") -> None:
    spec = body.get("spec") or {}
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    errors: list[FieldError] = []
    if resource is not None and other is not None:
        detail = "cannot be specified in combination with resourceAttributes"
        errors.append(invalid_value("spec.nonResourceAttributes", other, detail))
    if resource is None and other is None:
        detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(invalid_value("spec.resourceAttributes", None, detail))
    if named and not spec.get("user") and not spec.get("groups"):
        detail = "at least one of user or group must be specified"
        errors.append(invalid_value("spec.user", "", detail))
    if kind.namespaced:
        errors += _local_errors(resource, other, namespace)
    if errors:
        raise invalid(kind.group_kind, "", errors)


def _local_errors(resource: Body | None, other: Body | None, namespace: str) -> list[FieldError]:
    errors = []
    if resource is not None and (resource.get("namespace") or "") != namespace:
        field, asked = "spec.resourceAttributes.namespace", resource.get("namespace") or ""
        errors.append(invalid_value(field, asked, "must match metadata.namespace"))
    if other is not None:
        detail = "disallowed on this kind of request"
        errors.append(invalid_value("spec.nonResourceAttributes", other, detail))
    return errors


def _asked(spec: Body, user: User) -> Attributes:
    other = spec.get("nonResourceAttributes")
    if other is not None:
        return Attributes(user=user, verb=other.get("verb", ""), path=other.get("path", ""))
    resource = spec["resourceAttributes"]
    return Attributes(
        user=user,
        verb=resource.get("verb", ""),
        group=resource.get("group", ""),
        version=resource.get("version", "") or "*",
        resource=resource.get("resource", ""),
        subresource=resource.get("subresource", ""),
        namespace=resource.get("namespace", ""),
        name=resource.get("name", ""),
        field_selector=_field_selector(resource.get("fieldSelector") or {}),
    )


def _field_selector(selector: Body) -> str:
    if selector.get("rawSelector"):
        return str(selector["rawSelector"])
    # What is not understood is left out: the question is then about more objects, not fewer.
    return ",".join(
        f"{requirement['key']}={requirement['values'][0]}"
        for requirement in selector.get("requirements") or ()
        if requirement.get("operator") == "In" and len(requirement.get("values") or ()) == 1
    )


def _named_user(spec: Body) -> User:
    return User(
        name=spec.get("user") or "",
        uid=spec.get("uid") or "",
        groups=tuple(spec.get("groups") or ()),
        extra={key: tuple(values) for key, values in (spec.get("extra") or {}).items()},
    )


def _user_info(user: User) -> dict[str, Any]:
    info: dict[str, Any] = {"username": user.name}
    if user.uid:
        info["uid"] = user.uid
    if user.groups:
        info["groups"] = list(user.groups)
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def _shown_rule(rule: ResourceRule) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "verbs": list(rule.verbs),
        "apiGroups": list(rule.api_groups),
        "resources": list(rule.resources),
    }
    if rule.resource_names:
        shown["resourceNames"] = list(rule.resource_names)
    return shown
