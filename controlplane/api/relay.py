"""
Connections through the server: logs, exec, attach, port-forward and proxy.

Everything is authorised and admitted before the first byte; then the server is
a pipe to the pod's kubelet (client certificate of kube-apiserver) or to the pod
itself. An answer that a kubelet refuses becomes a Status.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
from aiohttp import web
from yarl import URL

from controlplane.api import targets
from controlplane.api.authorize import forbidden_error
from controlplane.api.base import Attributes, Decision, Operation
from controlplane.api.call import Call, Parts, as_bool
from controlplane.api.proxy import relay_http
from controlplane.api.route import Route
from controlplane.api.subresources import not_allowed
from controlplane.api.targets import Target
from controlplane.api.upgrade import relay_upgrade, wants_upgrade
from controlplane.api.write import admit
from controlplane.client.base import Object
from controlplane.objects.errors import StatusError, bad_request, not_found, unavailable
from controlplane.objects.resources import PODS

_LOG_OPTIONS = (
    "follow",
    "previous",
    "timestamps",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "limitBytes",
    "stream",
)
_STREAMS = {"stdin": "input", "stdout": "output", "stderr": "error", "tty": "tty"}
_LOG_PROTOCOLS = ("binary.k8s.io", "")
_CONNECT_SECONDS = 30.0


class KubeletRelay:
    """Its mutable state: the client session, made at the first use, and who reads logs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._session: aiohttp.ClientSession | None = None
        self._insecure: ssl.SSLContext | None = None
        self._reading: set[asyncio.Task[Any]] = set()

    async def close(self) -> None:
        """A log that is followed never ends by itself; the listener would wait for it."""
        for task in self._reading:
            task.cancel()
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def serve(self, request: web.BaseRequest, call: Call, route: Route) -> web.StreamResponse:
        if call.subresource == "proxy":
            return await self._proxy(request, call, route)
        pod = self._parts.cache.get(PODS, call.namespace, call.name)
        if pod is None:
            raise not_found("pods", call.name)
        if call.subresource == "log":
            task = asyncio.current_task()
            assert task is not None
            self._reading.add(task)
            try:
                return await self._log(request, call, pod)
            finally:
                self._reading.discard(task)
        self._authorize_create(request, call)
        match call.subresource:
            case "portforward":
                return await self._port_forward(request, call, pod)
            case _:
                return await self._stream(request, call, pod)

    def _authorize_create(self, request: web.BaseRequest, call: Call) -> None:
        """
        To run a command in a pod is to create something, though a WebSocket begins with a GET.

        The right to read ``pods/exec`` is not enough; as upstream since v1.35.
        """
        if request.method not in ("GET", "POST"):
            raise not_allowed()
        authorizer = self._parts.authorizer
        if authorizer is None or request.method == "POST":
            return
        asked = Attributes(
            user=call.user,
            verb="create",
            version=call.kind.version,
            resource=call.kind.plural,
            subresource=call.subresource,
            namespace=call.namespace,
            name=call.name,
        )
        decision, reason = authorizer.authorize(asked)
        if decision is not Decision.ALLOW:
            raise forbidden_error(asked, reason)

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    def _tls(self, target: Target) -> ssl.SSLContext | None:
        if target.scheme != "https":
            return None
        if target.kubelet:
            return self._parts.kubelet_tls
        if self._insecure is None:
            self._insecure = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            self._insecure.check_hostname = False
            self._insecure.verify_mode = ssl.CERT_NONE  # as upstream: pods have no known names
        return self._insecure

    # exec, attach, port-forward

    async def _stream(
        self, request: web.BaseRequest, call: Call, pod: Object
    ) -> web.StreamResponse:
        query = request.query
        kind = "PodExecOptions" if call.subresource == "exec" else "PodAttachOptions"
        container = targets.container_of(pod, query.get("container", ""))
        streams = {name: as_bool(query.get(name, "false")) for name in _STREAMS}
        body: dict[str, Any] = {"kind": kind, "apiVersion": "v1", "container": container}
        body |= {name: True for name, wanted in streams.items() if wanted}
        if call.subresource == "exec":
            body["command"] = query.getall("command", [])
            if not body["command"]:
                raise bad_request("you must specify at least 1 command for the container")
        await admit(self._parts, call, Operation.CONNECT, body)
        asked = [(_STREAMS[name], "1") for name, wanted in streams.items() if wanted]
        asked += [("command", word) for word in body.get("command", ())]
        path = f"/{call.subresource}/{_pod_path(pod)}/{quote(container)}"
        return await self._upgrade(request, pod, f"{path}?{urlencode(asked)}")

    async def _port_forward(
        self, request: web.BaseRequest, call: Call, pod: Object
    ) -> web.StreamResponse:
        ports = request.query.getall("ports", [])
        body = {"kind": "PodPortForwardOptions", "apiVersion": "v1"}
        await admit(self._parts, call, Operation.CONNECT, {**body, "ports": ports})
        asked = urlencode([("port", port) for port in ports])
        path = f"/portForward/{_pod_path(pod)}" + (f"?{asked}" if asked else "")
        return await self._upgrade(request, pod, path)

    async def _upgrade(
        self, request: web.BaseRequest, pod: Object, path: str
    ) -> web.StreamResponse:
        if not wants_upgrade(request):
            raise bad_request("Upgrade request required")
        target = targets.kubelet_of(self._parts, _node_of(pod))
        return await relay_upgrade(request, target, path, tls=self._tls(target))

    # Logs

    async def _log(self, request: web.BaseRequest, call: Call, pod: Object) -> web.StreamResponse:
        if request.method not in ("GET", "HEAD"):
            raise not_allowed()
        query = request.query
        container = targets.container_of(pod, query.get("container", ""))
        if not (pod.get("spec") or {}).get("nodeName"):
            return web.Response(body=b"", headers={"Content-Type": "text/plain"})
        target = targets.kubelet_of(self._parts, _node_of(pod))
        asked = urlencode({name: query[name] for name in _LOG_OPTIONS if name in query})
        path = f"/containerLogs/{_pod_path(pod)}/{quote(container)}?{asked}".rstrip("?")
        tls = self._tls(target)
        try:
            async with self._client().get(
                URL(target.origin + path, encoded=True), ssl=tls if tls is not None else True
            ) as answer:
                if answer.status != 200:
                    raise await _kubelet_error(answer)
                if wants_upgrade(request):
                    return await _log_frames(request, answer)
                return await _log_text(request, answer)
        except (aiohttp.ClientConnectionError, TimeoutError) as error:
            if isinstance(error, ConnectionError) and not isinstance(error, aiohttp.ClientError):
                raise
            host = f"{target.host}:{target.port}"
            raise StatusError(500, "InternalError", f"Get {path!r} of {host}: {error}") from error

    # Proxy

    async def _proxy(
        self, request: web.BaseRequest, call: Call, route: Route
    ) -> web.StreamResponse:
        parts = self._parts
        match call.kind.plural:
            case "pods":
                target = targets.pod_target(parts, call.namespace, call.name)
            case "services":
                target = targets.service_target(parts, call.namespace, call.name)
            case _:
                _, name, _ = targets.split_name(call.name)
                target = targets.kubelet_of(parts, name)
        name = call.kind.kind
        body = {"kind": f"{name}ProxyOptions", "apiVersion": "v1", "path": f"/{route.rest}"}
        await admit(parts, call, Operation.CONNECT, body)
        raw = request.rel_url.raw_path
        # By number: a namespace or a pod may be called proxy, too.
        prefix = "/".join(raw.split("/")[: 8 if call.kind.namespaced else 6])
        rest = raw[len(prefix) :]
        if not rest and request.method in ("GET", "HEAD"):
            query = f"?{request.query_string}" if request.query_string else ""
            return web.Response(status=301, headers={"Location": f"{prefix}/{query}"})
        path = rest or "/"
        if request.rel_url.raw_query_string:
            path += f"?{request.rel_url.raw_query_string}"
        tls = self._tls(target)
        if wants_upgrade(request):
            return await relay_upgrade(request, target, path, tls=tls)
        return await relay_http(self._client(), request, target, path=path, prefix=prefix, tls=tls)


def _pod_path(pod: Object) -> str:
    metadata = pod["metadata"]
    return f"{quote(metadata['namespace'])}/{quote(metadata['name'])}"


def _node_of(pod: Object) -> str:
    node = (pod.get("spec") or {}).get("nodeName")
    if not node:
        raise bad_request(f"pod {pod['metadata']['name']} does not have a host assigned")
    return str(node)


async def _kubelet_error(answer: aiohttp.ClientResponse) -> StatusError:
    text = (await answer.text(errors="replace")).strip()
    reasons = {400: "BadRequest", 403: "Forbidden", 404: "NotFound"}
    if answer.status in reasons:
        return StatusError(answer.status, reasons[answer.status], text)
    if answer.status == 503:
        return unavailable(text)
    return StatusError(500, "InternalError", text or f"the kubelet answered {answer.status}")


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """What the kubelet sends; :class:`ConnectionError` where it goes away in the middle."""
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except aiohttp.ClientPayloadError as err:
        raise ConnectionResetError("the kubelet went away while it answered") from err


async def _log_text(request: web.BaseRequest, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        headers={"Content-Type": "text/plain", "Cache-Control": "no-cache, private"}
    )
    response.enable_chunked_encoding()
    await response.prepare(request)
    async for chunk in _chunks(answer):
        await response.write(chunk)
    await response.write_eof()
    return response


async def _log_frames(
    request: web.BaseRequest, answer: aiohttp.ClientResponse
) -> web.StreamResponse:
    """A log over a WebSocket, as browsers read it."""
    offered = request.headers.get("Sec-WebSocket-Protocol", "")
    protocols = tuple(p for p in _LOG_PROTOCOLS if p and p in offered)
    socket = web.WebSocketResponse(protocols=protocols, compress=False)
    await socket.prepare(request)
    async for chunk in _chunks(answer):
        await socket.send_bytes(chunk)
    await socket.close()
    return socket
