"""
Who may ask the kubelet what: by certificate or token, as the API server judges them.

The API server itself and ``system:masters`` are let in without a question. For everybody
else (Prometheus with its service account's token) the API server is asked with a TokenReview and
a SubjectAccessReview about ``nodes/<subresource>``; its answers are kept for a while.
Source: "Kubelet authentication/authorization", KEP-2862.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from controlplane.client.base import Client, Unreachable
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import SUBJECT_ACCESS_REVIEWS, TOKEN_REVIEWS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Seconds = Callable[[], float]
_TOKEN_SECONDS, _ALLOWED_SECONDS, _DENIED_SECONDS = 120.0, 300.0, 30.0
_MOST = 256
_VERBS = {"POST": "create", "GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# The first part of a path → the subresource of nodes that it is a question of.
_SPECIFIC = {"pods": "pods", "runningpods": "pods", "healthz": "healthz", "configz": "configz"}
_WHOLE = {"stats": "stats", "metrics": "metrics", "logs": "log"}


@dataclass(frozen=True, slots=True)
class User:
    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()

    @property
    def is_trusted(self) -> bool:
        return self.name == "system:apiserver" or "system:masters" in self.groups


def subresources(path: str) -> tuple[str, ...]:
    """Any one of them is enough."""
    first = path.strip("/").partition("/")[0]
    if first in _WHOLE:
        return (_WHOLE[first],)
    return (_SPECIFIC[first], "proxy") if first in _SPECIFIC else ("proxy",)


class Authorizer:
    """Its mutable state: answers of the API server with the time they are good until."""

    def __init__(self, client: Client | None, node_name: str, seconds: Seconds) -> None:
        """Without a client only the API server and masters get in; ``seconds``: monotonic."""
        self._client = client
        self._node = node_name
        self._seconds = seconds
        self._known: OrderedDict[Any, tuple[float, Any]] = OrderedDict()

    async def refusal(self, request: web.Request) -> web.Response | None:
        """None: go ahead."""
        try:
            user = _of_certificate(request) or await self._of_token(request)
        except (StatusError, Unreachable):
            user = None
        if user is None:
            return web.Response(status=401, text="Unauthorized")
        if user.is_trusted:
            return None
        verb = _VERBS.get(request.method, "")
        asked = subresources(request.path)
        about = f"user={user.name}, verb={verb}, resource=nodes, subresource(s)=[{' '.join(asked)}]"
        try:
            for subresource in asked:
                if await self._is_allowed(user, verb, subresource):
                    return None
        except (StatusError, Unreachable):
            return web.Response(status=500, text=f"Authorization error ({about})")
        return web.Response(status=403, text=f"Forbidden ({about})")

    async def _of_token(self, request: web.Request) -> User | None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not token.strip() or self._client is None:
            return None
        key = hashlib.sha256(token.strip().encode()).digest()
        found, user = self._recall(key)
        if not found:
            body = {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": {"token": token.strip()},
            }
            status = (await self._client.create(TOKEN_REVIEWS, body)).get("status") or {}
            user = _of_review(status.get("user") or {}) if status.get("authenticated") else None
            if user is not None:
                self._remember(key, user, _TOKEN_SECONDS)
        return user  # type: ignore[no-any-return]

    async def _is_allowed(self, user: User, verb: str, subresource: str) -> bool:
        key = (user, verb, subresource)
        found, allowed = self._recall(key)
        if found or self._client is None:
            return bool(allowed)
        attributes = {
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node,
            "verb": verb,
        }
        spec = {
            "user": user.name,
            "groups": list(user.groups),
            "uid": user.uid,
            "extra": {name: list(values) for name, values in user.extra},
            "resourceAttributes": attributes,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, body)
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._remember(key, allowed, _ALLOWED_SECONDS if allowed else _DENIED_SECONDS)
        return allowed

    def _recall(self, key: Any) -> tuple[bool, Any]:
        until, value = self._known.get(key, (0.0, None))
        return self._seconds() < until, value

    def _remember(self, key: Any, value: Any, seconds: float) -> None:
        self._known[key] = self._seconds() + seconds, value
        self._known.move_to_end(key)
        while len(self._known) > _MOST:
            self._known.popitem(last=False)


def _of_certificate(request: web.Request) -> User | None:
    """TLS has checked that the cluster's client CA signed it."""
    transport = request.transport
    certificate = transport.get_extra_info("peercert") if transport is not None else None
    subject = [pair for part in (certificate or {}).get("subject", ()) for pair in part]
    names = [value for key, value in subject if key == "commonName"]
    if not names:
        return None
    groups = [value for key, value in subject if key == "organizationName"]
    return User(names[0], (*groups, "system:authenticated"))


def _of_review(user: Mapping[str, Any]) -> User:
    extra = {name: tuple(values) for name, values in (user.get("extra") or {}).items()}
    groups = tuple(user.get("groups") or ())
    return User(user.get("username", ""), groups, user.get("uid", ""), tuple(extra.items()))
