"""
Requests for resources: from a route to a verb, and from its answer to a response.

Everything that HTTP adds to the verbs is here: bodies, query parameters, forms
of answers and streams. What a verb means is in its own module.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import orjson
from aiohttp import web

from controlplane.api import delete, forms, patching, pipeline, read, subresources, watch, write
from controlplane.api.base import User
from controlplane.api.bodies import read_json, read_yaml
from controlplane.api.call import Answer, Call, Parts, options_from
from controlplane.api.encoding import event_line
from controlplane.api.negotiate import (
    Output,
    has_duplicates,
    media_type,
    output_for,
    read_object,
    render,
    status_bytes,
    warning_header,
)
from controlplane.api.present import present, present_one
from controlplane.api.route import Route
from controlplane.api.selection import compile_matcher
from controlplane.api.subresources import not_allowed
from controlplane.client.base import PatchType
from controlplane.objects import walk
from controlplane.objects.errors import (
    StatusError,
    bad_request,
    no_such_path,
    not_acceptable,
    unsupported_media_type,
)
from controlplane.objects.kinds import Kind

MAX_BODY = 3 << 20
_DEPRECATED = {
    "componentstatuses": "v1 ComponentStatus is deprecated in v1.19+",
    "endpoints": "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
}
_PATCHES = {type_.value: type_ for type_ in PatchType}


Handler = Callable[[web.BaseRequest, Call], Awaitable[web.StreamResponse]]


class Relay(Protocol):
    """Connections to kubelets and pods: logs, exec, attach, port-forward, proxy."""

    async def serve(
        self, request: web.BaseRequest, call: Call, route: Route
    ) -> web.StreamResponse: ...


class Rest:
    """Stateless but for its parts."""

    def __init__(self, parts: Parts, relay: Relay) -> None:
        self._parts = parts
        self._relay = relay
        self._handlers: dict[str, Handler] = {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_collection,
        }

    async def serve(
        self, request: web.BaseRequest, route: Route, kind: Kind, user: User
    ) -> web.StreamResponse:
        """``kind`` is what the route names. StatusError for whatever is wrong."""
        call = _call(request, route, kind, user)
        if route.subresource:
            if route.subresource not in kind.subresources:
                raise no_such_path()
            if route.subresource in ("log", "exec", "attach", "portforward", "proxy"):
                return await self._relay.serve(request, call, route)
        elif route.verb not in kind.verbs:
            raise not_allowed()
        handler = self._handlers.get(route.verb)
        if handler is None:
            raise not_allowed()
        return await handler(request, call)

    async def _get(self, request: web.BaseRequest, call: Call) -> web.Response:
        output = _output(request)
        if call.subresource:
            data = await subresources.get(self._parts, call)
        else:
            entry = await read.get(self._parts, call, request.query.get("resourceVersion", ""))
            data = await present_one(self._parts, call.kind, entry.data)
        return self._respond(request, call, Answer(data), output)

    async def _list(self, request: web.BaseRequest, call: Call) -> web.Response:
        query = request.query
        output = _output(request)
        options = read.list_options(query)
        matcher = compile_matcher(call.kind, self._parts.cache, call.namespace, query)
        page = await read.list_page(self._parts, call, matcher, options)
        data = await present(self._parts, call.kind, [entry.data for entry in page.entries])
        body = forms.many(
            call.kind,
            data,
            output,
            metadata=page.metadata(),
            now=self._parts.clock(),
            include=query.get("includeObject", ""),
        )
        return _response(body, output, call.warnings)

    async def _watch(self, request: web.BaseRequest, call: Call) -> web.StreamResponse:
        if call.subresource or "watch" not in call.kind.verbs:
            raise not_allowed()
        output = _output(request)
        if output.media != "application/json":
            raise bad_request("watches are streams of JSON")
        query = request.query
        options = watch.watch_options(query)
        matcher = compile_matcher(
            call.kind, self._parts.cache, call.namespace, query, name=call.name
        )
        response = web.StreamResponse(
            headers={"Content-Type": "application/json", "Cache-Control": "no-cache, private"}
        )
        shaper = _Shaper(self._parts, call.kind, output, query.get("includeObject", ""))
        stream = watch.watch(self._parts, call, matcher, options)
        try:
            async for told in stream:
                if not response.prepared:
                    await response.prepare(request)
                if told:
                    await response.write(shaper.lines(told))
            await response.write_eof()
        except StatusError as error:
            if not response.prepared:
                raise
            await response.write(event_line(watch.ERROR, status_bytes(error)))
            await response.write_eof()
        finally:
            await stream.aclose()
        return response

    async def _create(self, request: web.BaseRequest, call: Call) -> web.Response:
        kind, parts = call.kind, self._parts
        if kind.namespaced and not call.namespace:
            raise not_allowed()
        output = _output(request)
        raw = await read_body(request)
        if call.subresource or subresources.is_special(kind):
            body = read_object(raw, _content_type(request), None, parts.schemas)
            if output.form:
                raise not_acceptable(f"{output.form} is not supported for {kind.kind}")
            answer = await subresources.create(parts, call, body)
            return self._respond(request, call, answer, output)
        if call.name:
            raise not_allowed()
        obj = self._decoded(request, call, raw)
        answer = await write.create(parts, call, obj)
        return self._respond(request, call, answer, output)

    async def _update(self, request: web.BaseRequest, call: Call) -> web.Response:
        if not call.name:
            raise not_allowed()
        output = _output(request)
        raw = await read_body(request)
        if call.subresource == "scale":
            body = read_object(raw, _content_type(request), None, self._parts.schemas)
            answer = await subresources.update_scale(self._parts, call, body)
        else:
            prepare = subresources.preparation(call.subresource)
            obj = self._decoded(request, call, raw)
            answer = await write.update(self._parts, call, obj, prepare)
        return self._respond(request, call, answer, output)

    def _decoded(self, request: web.BaseRequest, call: Call, raw: bytes) -> dict[str, Any]:
        """The body as an object of the call's kind, its fields checked."""
        content_type = _content_type(request)
        obj = read_object(raw, content_type, call.kind, self._parts.schemas)
        pipeline.check_type(call.kind, obj)
        return pipeline.decode(
            self._parts.schemas, call, obj, _doubles(call, raw, content_type, obj)
        )

    async def _patch(self, request: web.BaseRequest, call: Call) -> web.Response:
        if not call.name:
            raise not_allowed()
        output = _output(request)
        media = media_type(request.headers.get("Content-Type", "?"))
        type_ = _PATCHES.get(media)
        if type_ is None:
            raise unsupported_media_type(media, _PATCHES)
        raw = await read_body(request)
        body = read_yaml(raw) if type_ is PatchType.APPLY else read_json(raw)
        if call.subresource == "scale":
            answer = await subresources.patch_scale(self._parts, call, type_, body)
        else:
            answer = await patching.patch_object(
                self._parts,
                call,
                type_,
                body=body,
                prepare=subresources.preparation(call.subresource),
                duplicates=_doubles(call, raw, "application/json", body),
            )
        return self._respond(request, call, answer, output)

    async def _delete(self, request: web.BaseRequest, call: Call) -> web.Response:
        if call.subresource:
            raise not_allowed()
        output = _output(request)
        options = await self._delete_options(request)
        answer = await delete.delete(self._parts, call, options)
        if output.form and b'"kind":"Status"' in answer.data[:40]:
            output = Output(output.media, pretty=output.pretty)
        return self._respond(request, call, answer, output)

    async def _delete_options(self, request: web.BaseRequest) -> delete.DeleteOptions:
        raw = await read_body(request)
        body = None
        if raw.strip():
            body = read_object(raw, _content_type(request), None, self._parts.schemas)
        return delete.delete_options(body, request.query)

    async def _delete_collection(self, request: web.BaseRequest, call: Call) -> web.Response:
        query, parts = request.query, self._parts
        if call.kind.namespaced and not call.namespace:
            raise not_allowed()
        output = _output(request)
        options = await self._delete_options(request)
        matcher = compile_matcher(call.kind, parts.cache, call.namespace, query)
        page = await read.list_page(parts, call, matcher, read.list_options(query))
        data = await delete.delete_collection(parts, call, list(page.entries), options)
        body = forms.many(call.kind, data, output, metadata=page.metadata(), now=parts.clock())
        return _response(body, output, call.warnings)

    def _respond(
        self, request: web.BaseRequest, call: Call, answer: Answer, output: Output
    ) -> web.Response:
        data = answer.data
        if call.subresource == "scale":
            output = Output(output.media, pretty=output.pretty)  # a Scale has no other form
        if output.form:
            include = request.query.get("includeObject", "")
            data = forms.one(call.kind, data, output, now=self._parts.clock(), include=include)
        return _response(data, output, call.warnings, answer.code)


class _Shaper:
    """Events of a watch as lines, in the form asked for; only the first Table names columns."""

    def __init__(self, parts: Parts, kind: Kind, output: Output, include: str) -> None:
        self._parts = parts
        self._kind = kind
        self._output = output
        self._include = include
        self._named = False

    def lines(self, told: list[watch.Told]) -> bytes:
        if not self._output.form:
            return b"".join(event_line(type_, data) for type_, data in told)
        return b"".join(event_line(type_, self._shaped(type_, data)) for type_, data in told)

    def _shaped(self, type_: bytes, data: bytes) -> bytes:
        if type_ == watch.ERROR:
            return data
        output = self._output
        if output.form == "PartialObjectMetadataList":
            output = Output(output.media, "PartialObjectMetadata", output.version)
        if output.form == "Table" and type_ == watch.BOOKMARK:
            return self._table_bookmark(data)
        shaped = forms.one(self._kind, data, output, now=self._parts.clock(), include=self._include)
        if output.form == "Table":
            if self._named:
                table = orjson.loads(shaped)
                table["columnDefinitions"] = None
                shaped = orjson.dumps(table)
            self._named = True
        return shaped

    def _table_bookmark(self, data: bytes) -> bytes:
        obj = orjson.loads(data)
        metadata = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        row = {
            "cells": [],
            "object": {
                "kind": "PartialObjectMetadata",
                "apiVersion": f"meta.k8s.io/{self._output.version}",
                "metadata": obj["metadata"],
            },
        }
        return orjson.dumps(
            {
                "kind": "Table",
                "apiVersion": f"meta.k8s.io/{self._output.version}",
                "metadata": metadata,
                "columnDefinitions": None,
                "rows": [row],
            }
        )


def _call(request: web.BaseRequest, route: Route, kind: Kind, user: User) -> Call:
    query = request.query
    options = options_from(query) if query and route.verb not in ("get", "list", "watch") else None
    call = Call(
        user=user,
        kind=kind,
        namespace=route.namespace if kind.namespaced else "",
        name=route.name,
        subresource=route.subresource,
        agent=request.headers.get("User-Agent", "").encode(errors="replace").decode(),
    )
    if options is not None:
        call.options = options
    if kind.group_resource in _DEPRECATED:
        call.warnings.append(_DEPRECATED[kind.group_resource])
    return call


def _output(request: web.BaseRequest) -> Output:
    return output_for(
        request.headers.get("Accept", ""), pretty=request.query.get("pretty") in ("true", "1")
    )


def _content_type(request: web.BaseRequest) -> str:
    return request.headers.get("Content-Type", "")


def _doubles(call: Call, raw: bytes, content_type: str, obj: object) -> list[str]:
    """Fields that a body has twice, looked for only where somebody wants to know."""
    if call.options.field_validation == "Ignore" or "protobuf" in content_type:
        return []
    if not has_duplicates(raw, obj):
        return []
    return walk.duplicate_fields(raw)


async def read_body(request: web.BaseRequest) -> bytes:
    """413 beyond three MiB, as upstream limits it."""
    length = request.content_length
    if length is not None and length > MAX_BODY:
        raise _too_large()
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_BODY:
            raise _too_large()
    return bytes(body)


def _too_large() -> StatusError:
    text = f"Request entity too large: limit is {MAX_BODY}"
    return StatusError(413, "RequestEntityTooLarge", text, details={})


def _response(
    data: bytes, output: Output, warnings: Sequence[str] = (), code: int = 200
) -> web.Response:
    headers = {"Content-Type": output.media, "Cache-Control": "no-cache, private"}
    response = web.Response(body=render(data, output), status=code, headers=headers)
    if warnings:
        for text in dict.fromkeys(warnings):
            response.headers.add("Warning", warning_header(text))
    return response
