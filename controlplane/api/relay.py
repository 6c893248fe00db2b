"""
Connections through the server to kubelets and pods: logs, exec, attach, proxy.

The kubelet speaks the same streaming protocols as the API server, so that frames
pass through as they are; an HTTP upgrade that is no WebSocket (SPDY) is passed
on byte by byte. Everything is authorised and admitted before the first byte.
"""

import ssl

import aiohttp
from aiohttp import web

from controlplane.api.call import Call, Parts
from controlplane.api.route import Route
from controlplane.objects.errors import (
    StatusError,
    not_found,
    not_implemented,
)
from controlplane.objects.kinds import Resource

NODES = Resource("", "v1", "nodes", False)
KUBELET_PORT = 10250
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailers",
        "transfer-encoding",
        "upgrade",
        "authorization",
        "content-length",
        "host",
    }
)
_LOG_OPTIONS = (
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
    "insecureSkipTLSVerifyBackend",
)


class KubeletRelay:
    """Its mutable state: the client session, made at the first use, and open sockets."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._session: aiohttp.ClientSession | None = None
        self._insecure = _insecure()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=None, connect=30)
            self._session = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        return self._session

    async def serve(self, request: web.BaseRequest, call: Call, route: Route) -> web.StreamResponse:
        parts = self._parts
        entry = parts.cache.entry(call.key)
        if entry is None:
            raise (
                not_found(call.kind.group_resource, call.name.split(":")[0])
                if (call.subresource != "proxy")
                else _no_target(call)
            )
        return await self._serve_object(request, call, route)

    async def _serve_object(
        self, request: web.BaseRequest, call: Call, route: Route
    ) -> web.StreamResponse:
        raise not_implemented(call.subresource)


def _no_target(call: Call) -> StatusError:
    return not_found(call.kind.group_resource, call.name)


def _insecure() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
