"""
The API server: the one place where the order of the steps stands.

For each request: who asks (authentication), as whom (impersonation), whether
they may (authorisation), what is asked for (route), and then the verb with its
own steps (:mod:`controlplane.api.write`): decode, mutating admission, defaults
and validation, validating admission, store.

The object below knows nothing of listeners or TLS; ``server.py`` does.
"""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web
from multidict import MultiMapping

from controlplane.api.authorize import forbidden_error
from controlplane.api.base import AUTHENTICATED_GROUP, Attributes, Credentials, Decision, User
from controlplane.api.call import NOBODY, Parts
from controlplane.api.health import Check, Health
from controlplane.api.impersonate import impersonated
from controlplane.api.metrics import Metrics
from controlplane.api.negotiate import status_bytes
from controlplane.api.relay import KubeletRelay
from controlplane.api.rest import Rest
from controlplane.api.root import Root
from controlplane.api.route import Route, parse
from controlplane.api.upgrade import Finished
from controlplane.objects.errors import (
    StatusError,
    bad_request,
    insufficient_storage,
    internal,
    no_such_path,
    timed_out,
    too_many_requests,
    unauthorized,
)
from controlplane.objects.kinds import Kind
from controlplane.objects.meta import uid as random_uid
from controlplane.store.base import NoSpace, StoreError

log = logging.getLogger(__name__)

REQUEST_SECONDS = 60.0
MOST_REQUESTS = 400  # in flight, long-running ones not counted
_LONG_RUNNING = frozenset({"log", "exec", "attach", "portforward", "proxy"})
_IMPERSONATION = ("Impersonate-User", "Impersonate-Group", "Impersonate-Uid")
_LONGEST_AUDIT_ID = 64
_HEALTH = ("/livez", "/readyz", "/healthz")

# Paths beside the API (the supervisor's): each decides itself who may.
Extra = Callable[[web.BaseRequest, User], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What surrounds the API: more health checks, more paths, the address to tell clients."""

    live: Mapping[str, Check] = field(default_factory=dict)
    ready: Mapping[str, Check] = field(default_factory=dict)
    extra: Mapping[str, Extra] = field(default_factory=dict)  # by the first part of the path
    address: str = ""  # host:port


class ApiServer:
    """
    Serves requests; its only mutable state is its metrics and what is cached of discovery.

    :meth:`handle` is what a low-level aiohttp server calls.
    """

    def __init__(self, parts: Parts, around: Around | None = None) -> None:
        around = around or Around()
        self.parts = parts
        self.metrics = Metrics()
        self.health = Health(around.live, around.ready)
        self._extra = around.extra
        self._root = Root(parts, self.metrics, around.address)
        self._relay = KubeletRelay(parts)
        self._rest = Rest(parts, self._relay)

    def kinds_changed(self) -> None:
        """The table of kinds changed: forget discovery, end the watches of what is gone."""
        self._root.forget()
        served = {kind.storage_key for kind in self.parts.kinds}
        for key in self.parts.cache.counts():
            if key not in served:
                self.parts.cache.end_watches(key)

    async def stop(self) -> None:
        """End the watches and the relayed connections; the listener stops next."""
        self.health.stopping = True
        self.parts.cache.end_watches()
        await self._relay.close()
        for close in self.parts.closing:
            await close()

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        started = asyncio.get_running_loop().time()
        route = parse(request.method, request.rel_url.raw_path, request.query)
        response = await self._answered(request, route)
        seconds = asyncio.get_running_loop().time() - started
        verb = "CONNECT" if route.subresource in _LONG_RUNNING else route.verb.upper()
        labels = (verb, route.plural, route.subresource, response.status)
        self.metrics.observe(labels, seconds)
        return response

    async def _answered(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        try:
            if route.verb == "watch" or route.subresource in _LONG_RUNNING:
                return await self._serve(request, route)
            return await self._soon(request, route)
        except StatusError as error:
            return _failed(request, error)
        except TimeoutError:
            why = "request did not complete within the allotted time"
            return _failed(request, timed_out(why))
        except NoSpace as error:
            return _failed(request, insufficient_storage(str(error)))
        except StoreError as error:
            log.warning("%s %s: %s", request.method, request.rel_url.raw_path, error)
            return _failed(request, internal(str(error)))
        except ConnectionError:
            return Finished(499)  # the client has gone
        except RecursionError:
            # Whatever walk it was: nothing is written before the last one.
            return _failed(request, bad_request("the object is nested too deeply"))
        except Exception:
            log.exception("%s %s failed", request.method, request.rel_url.raw_path)
            return _failed(request, internal("the request could not be handled"))

    async def _soon(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        """Within a time, and not too many at once: watches and streams are not counted."""
        if self.metrics.running >= MOST_REQUESTS:
            raise too_many_requests("Too many requests, please try again later.", 1)
        self.metrics.running += 1
        try:
            if route.verb in ("get", "list"):
                return await self._serve(request, route)
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._serve(request, route)
        finally:
            self.metrics.running -= 1

    async def _serve(self, request: web.BaseRequest, route: Route) -> web.StreamResponse:
        extra = self._extra.get(route.path.split("/", 2)[1])
        if extra is not None and not route.plural:
            return await extra(request, await self._authenticated(request))
        if not route.plural and route.path.startswith(_HEALTH):
            return self._healthy(request, route)
        user = await self._authenticated(request)
        if any(name in request.headers for name in _IMPERSONATION):
            user = impersonated(request.headers, user, self.parts.authorizer)
        self._authorize(user, route, request.query.get("fieldSelector", ""))
        if not route.plural:
            return await self._root.serve(request, route, user)
        kind = self.parts.kinds.by_resource(route.group, route.version, route.plural)
        if kind is None or (route.namespace and not _has_namespace(kind, route)):
            return await self._elsewhere(request, route, user)
        return await self._rest.serve(request, route, kind, user)

    async def _authenticated(self, request: web.BaseRequest) -> User:
        credentials = _credentials(request)
        for authenticator in self.parts.authenticators:
            user = await authenticator.authenticate(credentials)
            if user is not None:
                if AUTHENTICATED_GROUP in user.groups or user.name == NOBODY.name:
                    return user
                groups = (*user.groups, AUTHENTICATED_GROUP)
                return User(name=user.name, uid=user.uid, groups=groups, extra=user.extra)
        return NOBODY

    def _authorize(self, user: User, route: Route, fields: str) -> None:
        authorizer = self.parts.authorizer
        if authorizer is None:
            return
        if route.plural:
            attributes = Attributes(
                user=user,
                verb=route.verb,
                group=route.group,
                version=route.version,
                resource=route.plural,
                subresource=route.subresource,
                namespace=route.namespace,
                name=route.name or _named_by(fields),
                field_selector=fields,
            )
        else:
            attributes = Attributes(user=user, verb=route.verb, path=route.path)
        decision, reason = authorizer.authorize(attributes)
        if decision is not Decision.ALLOW:
            raise forbidden_error(attributes, reason)

    async def _elsewhere(
        self, request: web.BaseRequest, route: Route, user: User
    ) -> web.StreamResponse:
        for aggregator in self.parts.aggregators:
            if aggregator.serves(route.group, route.version):
                response: web.StreamResponse = await aggregator.relay(request, user)
                return response
        raise no_such_path()

    def _healthy(self, request: web.BaseRequest, route: Route) -> web.Response:
        excluded = request.query.getall("exclude", [])
        code, text = self.health.answer(route.path, request.query, excluded)
        headers = {"X-Content-Type-Options": "nosniff", "Content-Type": "text/plain; charset=utf-8"}
        return web.Response(status=code, body=text.encode(), headers=headers)


def _has_namespace(kind: Kind, route: Route) -> bool:
    """A Namespace is in itself and in no other: rights within one do not reach further."""
    if kind.kind == "Namespace" and not kind.group:
        return route.name == route.namespace
    return kind.namespaced


def _named_by(field_selector: str) -> str:
    """The one name that a list or watch asks for: it is authorised like a get of it."""
    for term in field_selector.split(","):
        field, _, name = term.replace("==", "=", 1).partition("=")
        if field == "metadata.name":
            return name
    return ""


def _credentials(request: web.BaseRequest) -> Credentials:
    transport = request.transport
    certificate = b""
    if transport is not None:
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            certificate = ssl_object.getpeercert(True) or b""
    authorization = request.headers.get("Authorization", "")
    if not authorization.isascii():
        raise unauthorized()  # no proof of ours holds anything else
    scheme, _, token = authorization.partition(" ")
    return Credentials(
        peer_certificate=certificate,
        bearer_token=token.strip() if scheme.lower() == "bearer" else "",
        headers=_Lower(request.headers),
    )


class _Lower(Mapping[str, str]):
    """Headers by their lower-case names, repeated ones one a line: a value may hold commas."""

    __slots__ = ("_headers",)

    def __init__(self, headers: MultiMapping[str]) -> None:
        self._headers = headers

    def __getitem__(self, name: str) -> str:
        return "\n".join(self._headers.getall(name))

    def __iter__(self):  # type: ignore[no-untyped-def]
        return (name.lower() for name in self._headers)

    def __len__(self) -> int:
        return len(self._headers)


def _failed(request: web.BaseRequest, error: StatusError) -> web.StreamResponse:
    """An answer that has begun can only be cut off, so that nobody takes it for whole."""
    if request.writer.output_size:
        if request.transport is not None:
            request.transport.abort()
        return Finished(error.code)
    return failure(error)


def failure(error: StatusError) -> web.Response:
    """A Status as a response."""
    headers = {
        "Content-Type": "application/json",
        "Cache-Control": "no-cache, private",
        **error.headers,
    }
    return web.Response(status=error.code, body=status_bytes(error) + b"\n", headers=headers)


def audit_id(request: web.BaseRequest) -> str:
    """The client's, or a new one: it ties log lines of both sides together."""
    given = request.headers.get("Audit-Id", "")
    if given and len(given) <= _LONGEST_AUDIT_ID and given.isascii() and given.isprintable():
        return given
    return random_uid(os.urandom(16))
