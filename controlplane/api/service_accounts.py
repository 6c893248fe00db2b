"""
Who a service account token names, if all that it is bound to still lives.
"""

import base64
import hmac
from collections.abc import Callable
from datetime import datetime

from controlplane.api.base import Credentials, User
from controlplane.api.tokens import (
    LEEWAY,
    Claims,
    Reference,
    ServiceAccountTokens,
    TokenError,
    username,
)
from controlplane.client.base import Object, Reads
from controlplane.objects import meta
from controlplane.objects.errors import unauthorized
from controlplane.objects.kinds import Resource
from controlplane.objects.moment import elapsed
from controlplane.objects.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS

_EXTRA = "authentication.kubernetes.io"
INVALID_SINCE_LABEL = "kubernetes.io/legacy-token-invalid-since"


class ServiceAccountAuthenticator:
    """Bearer tokens of service accounts; others' tokens are not its business."""

    def __init__(
        self, tokens: ServiceAccountTokens, reads: Reads, clock: Callable[[], datetime]
    ) -> None:
        self._tokens = tokens
        self._reads = reads
        self._clock = clock

    async def authenticate(self, credentials: Credentials) -> User | None:
        if not credentials.bearer_token:
            return None
        try:
            review = self.review(credentials.bearer_token, self._tokens.audiences)
        except TokenError as err:
            raise unauthorized() from err
        return review[0] if review else None

    def review(self, token: str, audiences: tuple[str, ...]) -> tuple[User, tuple[str, ...]] | None:
        """
        The user and those of ``audiences`` that the token is for; None: not our token.

        Raises :class:`TokenError` with a text that is safe to show.
        """
        now = self._clock()
        claims = self._tokens.read(token, now)
        if claims is None:
            return None
        meant_for = claims.audiences or self._tokens.audiences
        shared = tuple(audience for audience in audiences if audience in meant_for)
        if not shared:
            raise TokenError(
                f"token audiences {list(meant_for)!r} is invalid for the target audiences "
                f"{list(audiences)!r}"
            )
        if claims.legacy:
            self._check_legacy(claims, token)
        else:
            self._check_bound(claims, now)
        return _user(claims), shared

    def _check_bound(self, claims: Claims, now: datetime) -> None:
        namespace, account = claims.namespace, claims.service_account
        found = self._reads.get(SERVICE_ACCOUNTS, namespace, account.name)
        if found is None:
            raise TokenError(f'serviceaccounts "{account.name}" not found')
        if meta.uid_of(found) != account.uid:
            raise TokenError(
                f"service account UID ({meta.uid_of(found)}) does not match claim ({account.uid})"
            )
        if _is_gone(found, now):
            raise TokenError(f"service account {namespace}/{account.name} has been deleted")
        self._check_reference(SECRETS, namespace, claims.secret, now)
        self._check_reference(PODS, namespace, claims.pod, now)
        if claims.pod is None:
            self._check_reference(NODES, "", claims.node, now)

    def _check_reference(
        self, resource: Resource, namespace: str, reference: Reference | None, now: datetime
    ) -> None:
        if reference is None:
            return
        found = self._reads.get(resource, namespace, reference.name)
        if found is None or meta.uid_of(found) != reference.uid or _is_gone(found, now):
            raise TokenError("service account token has been invalidated")

    def _check_legacy(self, claims: Claims, token: str) -> None:
        assert claims.secret is not None
        secret = self._reads.get(SECRETS, claims.namespace, claims.secret.name)
        if secret is None or meta.is_deleting(secret):
            raise TokenError("Token has been invalidated")
        stored = base64.b64decode((secret.get("data") or {}).get("token", ""))
        if not hmac.compare_digest(stored, token.encode()):
            raise TokenError("Token does not match server's copy")
        account = self._reads.get(SERVICE_ACCOUNTS, claims.namespace, claims.service_account.name)
        if account is None or meta.uid_of(account) != claims.service_account.uid:
            raise TokenError("ServiceAccount has been deleted")
        if meta.labels(secret).get(INVALID_SINCE_LABEL):
            raise TokenError("the token has been marked invalid")


def _is_gone(obj: Object, now: datetime) -> bool:
    deleted = str(meta.metadata(obj).get("deletionTimestamp") or "")
    return deleted != "" and elapsed(meta.parse_time(deleted), now) > LEEWAY


def _user(claims: Claims) -> User:
    extra: dict[str, tuple[str, ...]] = {}
    if claims.pod is not None:
        extra[f"{_EXTRA}/pod-name"] = (claims.pod.name,)
        extra[f"{_EXTRA}/pod-uid"] = (claims.pod.uid,)
    if claims.node is not None:
        extra[f"{_EXTRA}/node-name"] = (claims.node.name,)
        if claims.node.uid:
            extra[f"{_EXTRA}/node-uid"] = (claims.node.uid,)
    if claims.jti:
        extra[f"{_EXTRA}/credential-id"] = (f"JTI={claims.jti}",)
    return User(
        name=username(claims.namespace, claims.service_account.name),
        uid=claims.service_account.uid,
        groups=service_account_groups(claims.namespace),
        extra=extra,
    )


def service_account_groups(namespace: str) -> tuple[str, str]:
    return "system:serviceaccounts", f"system:serviceaccounts:{namespace}"
