"""
Everything that is no resource: discovery, OpenAPI, version, metrics, OpenID.

Documents are made when they are first asked for and kept, with their ETag,
until the table of kinds changes.
"""

import asyncio
import gzip
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from aiohttp import web

from controlplane.api import discovery
from controlplane.api.base import User
from controlplane.api.call import Parts
from controlplane.api.metrics import CONTENT_TYPE, Metrics
from controlplane.api.negotiate import Output, output_for, render
from controlplane.api.route import Route
from controlplane.objects.errors import StatusError, no_such_path
from controlplane.objects.version import VERSION

_FORM = "APIGroupDiscoveryList"
# Asked for with an @, which no Content-Type may hold.
_OPENAPI_V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"


def version_document() -> dict[str, str]:
    machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "arm")
    return {
        "major": "1",
        "minor": "36",
        "emulationMajor": "1",
        "emulationMinor": "36",
        "minCompatibilityMajor": "1",
        "minCompatibilityMinor": "35",
        "gitVersion": VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": f"python{platform.python_version()}",
        "compiler": "cpython",
        "platform": f"linux/{machine}",
    }


class Root:
    """Its mutable state is the documents made so far, by path and form."""

    def __init__(self, parts: Parts, metrics: Metrics, address: str) -> None:
        self._parts = parts
        self._metrics = metrics
        self._address = address
        self._made: dict[tuple[str, str], tuple[bytes, str]] = {}
        self._generation = 0

    def forget(self) -> None:
        """The kinds changed."""
        self._made.clear()
        self._generation += 1

    async def serve(self, request: web.BaseRequest, route: Route, user: User) -> web.StreamResponse:
        path = route.path.rstrip("/") or "/"
        if request.method not in ("GET", "HEAD"):
            text = "the server does not allow this method on the requested resource"
            raise StatusError(405, "MethodNotAllowed", text, details={})
        match path.strip("/").split("/"):
            case ["api"] | ["apis"]:
                return self._groups(request, path)
            case ["api" | "apis", *_]:
                return await self._group(request, route, path, user)
            case ["openapi", "v2"]:
                return await self._openapi_v2(request)
            case ["openapi", "v3", *rest]:
                return await self._openapi_v3(request, "/".join(rest))
            case _:
                return self._plain(request, path)

    def _plain(self, request: web.BaseRequest, path: str) -> web.Response:
        reviews = self._parts.reviews
        match path:
            case "/version":
                return self._json(request, version_document())
            case "/metrics":
                body = self._metrics.text(self._parts)
                return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE})
            case "/.well-known/openid-configuration" if reviews is not None:
                return self._json(request, reviews.openid_configuration())
            case "/openid/v1/jwks" if reviews is not None:
                body = orjson.dumps(reviews.jwks())
                headers = {"Content-Type": "application/jwk-set+json"}
                return web.Response(body=body, headers=headers)
            case "/":
                return self._json(request, {"paths": self._paths()})
            case _:
                raise no_such_path()

    def _paths(self) -> list[str]:
        paths = {"/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/metrics"}
        paths |= {"/openapi/v2", "/openapi/v3", "/version", "/openid/v1/jwks"}
        paths.add("/.well-known/openid-configuration")
        for kind in self._parts.kinds:
            if kind.group:
                paths |= {f"/apis/{kind.group}", f"/apis/{kind.group}/{kind.version}"}
        return sorted(paths)

    # Discovery

    def _groups(self, request: web.BaseRequest, path: str) -> web.Response:
        core = path == "/api"
        version = _aggregated_version(request.headers.get("Accept", ""))
        kinds, others = self._parts.kinds, self._others()
        if version:

            def make() -> Mapping[str, Any]:
                return discovery.aggregated(kinds, version, core=core, others=others)

            content_type = f"application/json;g=apidiscovery.k8s.io;v={version};as={_FORM}"
            return self._document(request, (path, version), make, content_type)
        if core:
            return self._json(request, discovery.api_versions(self._address))
        return self._document(request, (path, ""), lambda: discovery.group_list(kinds, others))

    def _others(self) -> Sequence[Mapping[str, Any]]:
        return [entry for other in self._parts.aggregators for entry in other.discovery()]

    async def _group(
        self, request: web.BaseRequest, route: Route, path: str, user: User
    ) -> web.StreamResponse:
        kinds = self._parts.kinds
        match path.strip("/").split("/"):
            case ["api", version]:
                document = discovery.resource_list(kinds, "", version)
            case ["apis", group] if group in kinds.groups():
                head = {"kind": "APIGroup", "apiVersion": "v1"}
                document = head | discovery.api_group(kinds, group)
            case ["apis", group]:
                document = self._other_group(group)
            case ["apis", group, version]:
                document = discovery.resource_list(kinds, group, version)
                if document is None:
                    return await self._aggregated(request, (group, version), user)
            case _:
                document = None
        if document is None:
            raise no_such_path()
        return self._json(request, document)

    def _other_group(self, group: str) -> dict[str, Any] | None:
        for entry in self._others():
            if entry["metadata"]["name"] == group:
                listed = discovery.group_list(self._parts.kinds, [entry])["groups"][-1]
                return {"kind": "APIGroup", "apiVersion": "v1", **listed}
        return None

    async def _aggregated(
        self, request: web.BaseRequest, version: tuple[str, str], user: User
    ) -> web.StreamResponse:
        for aggregator in self._parts.aggregators:
            if aggregator.serves(*version):
                response: web.StreamResponse = await aggregator.relay(request, user)
                return response
        raise no_such_path()

    # OpenAPI: large, so made in a thread and kept as bytes

    async def _openapi_v2(self, request: web.BaseRequest) -> web.Response:
        accept = request.headers.get("Accept", "")
        if "proto-openapi.spec.v2@v1.0+protobuf" in accept:
            return await self._openapi_document(request, "v2", "protobuf")
        return await self._openapi_document(request, "v2", "")

    async def _openapi_v3(self, request: web.BaseRequest, path: str) -> web.Response:
        return await self._openapi_document(request, "v3", path)

    async def _openapi_document(
        self, request: web.BaseRequest, version: str, path: str
    ) -> web.Response:
        """Kept compressed, and sent so to those who can read it: all real clients."""
        key = (f"/openapi/{version}", path)
        found = self._made.get(key)
        if found is None:
            generation = self._generation
            document = await asyncio.to_thread(self._make_openapi, version, path)
            found = (document, discovery.etag_of(document))
            if generation == self._generation:
                self._made[key] = found
        body, tag = found
        content_type = _OPENAPI_V2_PROTOBUF if path == "protobuf" else "application/json"
        if "gzip" not in request.headers.get("Accept-Encoding", ""):
            body = await asyncio.to_thread(gzip.decompress, body)
            return _cached(request, body, tag, content_type=content_type)
        response = _cached(request, body, tag, content_type=content_type)
        response.headers["Content-Encoding"] = "gzip"
        return response

    def _make_openapi(self, version: str, path: str) -> bytes:
        return gzip.compress(self._openapi(version, path), compresslevel=6, mtime=0)

    def _openapi(self, version: str, path: str) -> bytes:
        from controlplane.objects import openapi

        kinds, schemas = list(self._parts.kinds), self._parts.schemas
        if version == "v2":
            document = orjson.dumps(openapi.v2(kinds, schemas))
            return openapi.v2_protobuf(document) if path else document
        if not path:
            return orjson.dumps(openapi.v3_index(kinds, schemas))
        found = openapi.v3(kinds, schemas, path)
        if found is None:
            raise no_such_path()
        return orjson.dumps(found)

    # Answers

    def _document(
        self,
        request: web.BaseRequest,
        key: tuple[str, str],
        make: Callable[[], Mapping[str, Any]],
        content_type: str = "application/json",
    ) -> web.Response:
        found = self._made.get(key)
        if found is None:
            document = make()
            found = self._made[key] = (orjson.dumps(document), discovery.etag(document))
        return _cached(request, *found, content_type=content_type)

    def _json(self, request: web.BaseRequest, document: Mapping[str, Any]) -> web.Response:
        try:
            output = output_for(request.headers.get("Accept", ""))
        except StatusError:
            output = Output()
        if output.form:
            output = Output()
        body = render(orjson.dumps(document), output)
        return web.Response(body=body, headers={"Content-Type": output.media})


def _aggregated_version(accept: str) -> str:
    """v2 or v2beta1 where the client prefers aggregated discovery, else ""."""
    for clause in accept.replace(" ", "").split(","):
        media, *parameters = clause.split(";")
        if media == "application/json" and f"as={_FORM}" in parameters:
            for version in discovery.AGGREGATED:
                if f"v={version}" in parameters and "g=apidiscovery.k8s.io" in parameters:
                    return version
        elif media in ("application/json", "*/*", "application/*") and not parameters:
            return ""
    return ""


def _cached(
    request: web.BaseRequest, body: bytes, tag: str, *, content_type: str = "application/json"
) -> web.Response:
    headers = {"ETag": tag, "Vary": "Accept", "Content-Type": content_type}
    if request.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers=headers)
