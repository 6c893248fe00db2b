"""
The Client over HTTPS, for the node and for tests.

It speaks JSON, keeps one pool of connections, and turns whatever goes wrong on
the way into :class:`Unreachable`; what the server refused is a
:class:`StatusError` with the server's own code, reason and text.
"""

import random
import ssl
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from yarl import URL

from controlplane.client.base import (
    EVERYTHING,
    Object,
    ObjectList,
    PatchType,
    Selection,
    Unreachable,
    WatchEvent,
)
from controlplane.objects.errors import StatusError
from controlplane.objects.kinds import Resource

_REQUEST_SECONDS = 60.0
_CONNECT_SECONDS = 10.0
_WATCH_SECONDS = (300, 600)  # how long one watch request may last; drawn for each
_GRACE_SECONDS = 30.0  # beyond which a watch that did not end is dead


class HttpClient:
    """
    Implements Client of :mod:`controlplane.client.base`.

    ``server``: https://host:port. ``agent`` names the field manager. Made without
    a running loop; the session begins with the first request. Close it.
    """

    def __init__(
        self,
        server: str,
        *,
        tls: ssl.SSLContext | None = None,
        token: str = "",
        agent: str = "pinnace",
    ) -> None:
        self._server = server.rstrip("/")
        self._tls = tls
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
            "User-Agent": agent,
        }
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._session: aiohttp.ClientSession | None = None

    @property
    def tls(self) -> ssl.SSLContext | None:
        """A certificate that is loaded into it is shown on the connections made after that."""
        return self._tls

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def __aenter__(self) -> "HttpClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, ssl=self._tls if self._tls is not None else True, keepalive_timeout=120
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=_REQUEST_SECONDS, connect=_CONNECT_SECONDS),
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "",
    ) -> Any:
        """One request for a path; the decoded JSON of its answer."""
        headers = {"Content-Type": content_type} if content_type else {}
        data = orjson.dumps(body) if body is not None else None
        return _decoded(await self._ask(method, self._url(path, query), data, headers))

    async def text(self, path: str) -> str:
        """What a GET of a page that is no object answers, such as /readyz."""
        raw = await self._ask("GET", self._url(path, None), None, {"Accept": "*/*"})
        return raw.decode(errors="replace")

    async def _ask(
        self, method: str, url: URL, data: bytes | None, headers: Mapping[str, str]
    ) -> bytes:
        try:
            async with self._client().request(method, url, data=data, headers=headers) as response:
                raw = await response.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"{method} {url.path}: {_why(error)}") from error
        if response.status >= 400:
            raise _refusal(response.status, raw, response.headers)
        return raw

    def _url(self, path: str, query: Mapping[str, str] | None) -> URL:
        text = f"?{urlencode(query)}" if query else ""
        return URL(f"{self._server}{quote(path, safe='/:')}{text}", encoded=True)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        found: Object = await self.request("GET", resource.path(namespace, name))
        return found

    async def list(self, resource: Resource, selection: Selection = EVERYTHING) -> ObjectList:
        path = resource.path(selection.namespace)
        found = await self.request("GET", path, query=_selectors(selection))
        items = found.get("items") or []
        return ObjectList(found["metadata"]["resourceVersion"], items)

    async def watch(
        self, resource: Resource, selection: Selection = EVERYTHING, *, after: str
    ) -> AsyncIterator[WatchEvent]:
        seconds = random.randint(*_WATCH_SECONDS)  # noqa: S311 - spreads reconnects
        query = {
            **_selectors(selection),
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": after,
            "timeoutSeconds": str(seconds),
        }
        path = resource.path(selection.namespace)
        timeout = aiohttp.ClientTimeout(total=seconds + _GRACE_SECONDS, connect=_CONNECT_SECONDS)
        try:
            async with self._client().get(self._url(path, query), timeout=timeout) as response:
                if response.status >= 400:
                    raise _refusal(response.status, await response.read(), response.headers)
                async for line in _lines(response.content):
                    yield _event(line)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(f"watch of {path}: {_why(error)}") from error

    async def create(
        self, resource: Resource, body: Object, *, subresource: str = "", name: str = ""
    ) -> Object:
        namespace = (body.get("metadata") or {}).get("namespace") or ""
        path = resource.path(namespace, name if subresource else "", subresource)
        made: Object = await self.request("POST", path, body=body)
        return made

    async def update(self, resource: Resource, body: Object, *, subresource: str = "") -> Object:
        metadata = body["metadata"]
        path = resource.path(metadata.get("namespace") or "", metadata["name"], subresource)
        updated: Object = await self.request("PUT", path, body=body)
        return updated

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        body: Any,
        type: PatchType = PatchType.MERGE,  # noqa: A002 - the API's own word
        subresource: str = "",
        options: Mapping[str, str] | None = None,
    ) -> Object:
        query = dict(options or {})
        if type is PatchType.APPLY:
            query.setdefault("fieldManager", self._headers["User-Agent"].split("/")[0])
        path = resource.path(namespace, name, subresource)
        patched: Object = await self.request(
            "PATCH", path, query=query, body=body, content_type=type.value
        )
        return patched

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        options: Mapping[str, Any] | None = None,
    ) -> Object:
        body = None
        if options:
            body = {"kind": "DeleteOptions", "apiVersion": "v1", **options}
        gone: Object = await self.request("DELETE", resource.path(namespace, name), body=body)
        return gone


def tls_from_files(
    server_ca: Path, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """PEM files; blocks on them, so call it before serving or in a thread."""
    context = ssl.create_default_context(cafile=server_ca)
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return context


def from_kubeconfig(path: Path, *, agent: str = "pinnace") -> HttpClient:
    """
    The current context of a kubeconfig: certificates by file or inline, or a token.

    Blocks on the file. KeyError where it lacks a part; exec plugins are not run.
    """
    import yaml

    config = yaml.safe_load(path.read_text())
    context = _named(config["contexts"], config["current-context"])["context"]
    cluster = _named(config["clusters"], context["cluster"])["cluster"]
    user = _named(config["users"], context["user"]).get("user") or {}
    return HttpClient(
        cluster["server"], tls=_kubeconfig_tls(cluster, user), token=_token(user), agent=agent
    )


def _token(user: Mapping[str, Any]) -> str:
    if "tokenFile" in user:
        return Path(user["tokenFile"]).read_text().strip()
    return str(user.get("token", ""))


def _named(entries: Any, name: str) -> Any:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise KeyError(name)


def _kubeconfig_tls(cluster: Mapping[str, Any], user: Mapping[str, Any]) -> ssl.SSLContext | None:
    import base64
    import tempfile

    if not cluster["server"].startswith("https://"):
        return None
    authority = cluster.get("certificate-authority-data")
    context = ssl.create_default_context(
        cafile=cluster.get("certificate-authority"),
        cadata=base64.b64decode(authority).decode() if authority else None,
    )
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    elif "client-certificate-data" in user:
        # The ssl module reads certificates from files only.
        with tempfile.NamedTemporaryFile() as joined:
            for field in ("client-key-data", "client-certificate-data"):
                joined.write(base64.b64decode(user[field]) + b"\n")
            joined.flush()
            context.load_cert_chain(joined.name)
    return context


def _why(error: BaseException) -> str:
    return str(error) or type(error).__name__


def _selectors(selection: Selection) -> dict[str, str]:
    query = {"labelSelector": selection.labels, "fieldSelector": selection.fields}
    return {key: value for key, value in query.items() if value}


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Lines of any length; the reader's own have a limit."""
    parts: list[bytes] = []
    async for chunk in content.iter_any():
        *whole, rest = chunk.split(b"\n")
        for line in whole:
            parts.append(line)
            yield b"".join(parts)
            parts.clear()
        if rest:
            parts.append(rest)


def _event(line: bytes) -> WatchEvent:
    event = orjson.loads(line)
    obj = event["object"]
    if event["type"] == "ERROR":
        raise StatusError(
            obj.get("code", 500),
            obj.get("reason", ""),
            obj.get("message", ""),
            details=obj.get("details"),
        )
    return WatchEvent(event["type"], obj)


def _decoded(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise Unreachable(f"the answer is no JSON: {raw[:80]!r}") from error


def _refusal(code: int, raw: bytes, headers: Mapping[str, str]) -> StatusError:
    kept = {"Retry-After": headers["Retry-After"]} if "Retry-After" in headers else {}
    try:
        status = orjson.loads(raw)
    except orjson.JSONDecodeError:
        status = {}
    if not isinstance(status, dict) or status.get("kind") != "Status":
        return StatusError(code, "", raw[:1024].decode(errors="replace"), headers=kept)
    return StatusError(
        code,
        status.get("reason", ""),
        status.get("message", ""),
        details=status.get("details"),
        headers=kept,
    )
