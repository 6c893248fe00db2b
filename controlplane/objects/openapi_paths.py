"""
The paths of a kind in OpenAPI: which methods, which query parameters, which bodies.

kubectl looks here for ``fieldValidation`` and ``dryRun`` before it relies on them; client
generators take the operations. The deprecated ``/watch/`` paths are served and not listed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.objects.facts import list_schema_of, schema_of_body
from controlplane.objects.kinds import Kind
from controlplane.objects.openapi_models import Flavour, Models, Node, list_model
from controlplane.objects.schema import Schema

_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_JSON = "application/json"
_YAML = "application/yaml"
_PROTOBUF = "application/vnd.kubernetes.protobuf"
_PATCHES = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
_WRITE = {"dryRun": "string", "fieldManager": "string", "fieldValidation": "string"}
_SELECT = {
    "continue": "string",
    "fieldSelector": "string",
    "labelSelector": "string",
    "limit": "integer",
    "resourceVersion": "string",
    "resourceVersionMatch": "string",
    "sendInitialEvents": "boolean",
    "timeoutSeconds": "integer",
}
_DELETE = {
    "dryRun": "string",
    "gracePeriodSeconds": "integer",
    "ignoreStoreReadErrorWithClusterBreakingPotential": "boolean",
    "orphanDependents": "boolean",
    "propagationPolicy": "string",
}
_LOG = {
    "container": "string",
    "follow": "boolean",
    "insecureSkipTLSVerifyBackend": "boolean",
    "limitBytes": "integer",
    "previous": "boolean",
    "sinceSeconds": "integer",
    "stream": "string",
    "tailLines": "integer",
    "timestamps": "boolean",
}
_QUERY: dict[str, dict[str, str]] = {
    "get": {},
    "list": _SELECT | {"allowWatchBookmarks": "boolean", "watch": "boolean"},
    "post": _WRITE,
    "put": _WRITE,
    "patch": _WRITE | {"force": "boolean"},
    "delete": _DELETE,
    "deletecollection": _SELECT | _DELETE,
    "connect": {},
}
# What operation identifiers call an action.
_VERBS = {
    "get": "read",
    "list": "list",
    "post": "create",
    "put": "replace",
    "patch": "patch",
    "delete": "delete",
    "deletecollection": "delete",
    "connect": "connect",
}
_READ_WRITE = ("get", "put", "patch")
# Methods of each subresource, and the kind of its body where that is another one.
_SUBRESOURCES: dict[str, tuple[tuple[str, ...], tuple[str, str] | None]] = {
    "status": (_READ_WRITE, None),
    "scale": (_READ_WRITE, ("autoscaling/v1", "Scale")),
    "approval": (_READ_WRITE, None),
    "ephemeralcontainers": (_READ_WRITE, None),
    "resize": (_READ_WRITE, None),
    "finalize": (("put",), None),
    "binding": (("post",), ("v1", "Binding")),
    "eviction": (("post",), ("policy/v1", "Eviction")),
    "token": (("post",), ("authentication.k8s.io/v1", "TokenRequest")),
}
_CONNECTS = {
    "attach": ("get", "post"),
    "exec": ("get", "post"),
    "portforward": ("get", "post"),
    "proxy": ("get", "put", "post", "delete", "patch", "head", "options"),
    "log": ("get",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    action: str  # get, list, post, put, patch, delete, deletecollection, connect
    name: str  # the rest of its identifier: NamespacedPodStatus
    kind: Kind
    answer: Node | None  # a reference; None: text
    body: Node | None = None
    query: Mapping[str, str] | None = None
    gvk: tuple[str, str, str] | None = None


class Paths:
    """Writes the paths of one document; the models they refer to go to ``models``."""

    def __init__(self, flavour: Flavour, models: Models) -> None:
        self._flavour = flavour
        self._models = models

    def of(self, kind: Kind, schema: Schema) -> Iterator[tuple[str, Node]]:
        own = self._models.ref(schema)
        base = kind.resource.path()
        scope = "Namespaced" if kind.namespaced else ""
        where = ("namespace",) if kind.namespaced else ()
        if kind.namespaced:
            if "list" in kind.verbs:
                listing = self._list(kind, schema, f"{kind.kind}ForAllNamespaces")
                yield base, self._item({"get": listing}, ())
            base = base.removesuffix(kind.plural) + "namespaces/{namespace}/" + kind.plural
        name = f"{scope}{kind.kind}"
        if collection := self._collection(kind, schema, own, name):
            yield base, self._item(collection, where)
        if item := self._single(kind, own, name):
            yield f"{base}/{{name}}", self._item(item, (*where, "name"))
        for subresource in sorted(kind.subresources):
            yield from self._subresource(kind, own, f"{base}/{{name}}", subresource)

    def root(self, kind: Kind) -> tuple[str, Node]:
        """The resources of the group and version."""
        answer = self._meta("APIResourceList")
        operation = _Operation(action="get", name="APIResources", kind=kind, answer=answer)
        path = kind.resource.path().removesuffix(kind.plural)
        written = self._write(operation)
        written["operationId"] = f"get{_title(kind)}APIResources"
        del written["x-kubernetes-action"], written["x-kubernetes-group-version-kind"]
        return path, {"get": written}

    def _meta(self, name: str) -> Node:
        schema = schema_of_body("v1", name)
        assert schema is not None
        return self._models.ref(schema)

    def _list(self, kind: Kind, schema: Schema, name: str) -> Node:
        if kind.custom:
            listed = kind.list_kind or f"{kind.kind}List"
            answer = list_model(self._models, schema, (kind.group, kind.version, listed))
        else:
            answer = self._models.ref(list_schema_of(kind))
        return self._write(_Operation(action="list", name=name, kind=kind, answer=answer))

    def _collection(self, kind: Kind, schema: Schema, own: Node, name: str) -> Node:
        methods: Node = {}
        if "list" in kind.verbs:
            methods["get"] = self._list(kind, schema, name)
        if "create" in kind.verbs:
            operation = _Operation(action="post", name=name, kind=kind, answer=own, body=own)
            methods["post"] = self._write(operation)
        if "deletecollection" in kind.verbs:
            operation = _Operation(
                action="deletecollection",
                name=f"Collection{name}",
                kind=kind,
                answer=self._meta("Status"),
                body=self._meta("DeleteOptions"),
            )
            methods["delete"] = self._write(operation)
        return methods

    def _single(self, kind: Kind, own: Node, name: str) -> Node:
        methods: Node = {}
        wanted = {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}
        for action, verb in wanted.items():
            if verb not in kind.verbs:
                continue
            answer = self._meta("Status") if action == "delete" else own
            operation = _Operation(
                action=action, name=name, kind=kind, answer=answer, body=self._body(action, own)
            )
            methods[action] = self._write(operation)
        return methods

    def _body(self, action: str, own: Node) -> Node | None:
        if action == "delete":
            return self._meta("DeleteOptions")
        if action == "patch":
            return self._meta("Patch")
        return own if action in ("put", "post") else None

    def _subresource(
        self, kind: Kind, own: Node, path: str, subresource: str
    ) -> Iterator[tuple[str, Node]]:
        scope = "Namespaced" if kind.namespaced else ""
        name = f"{scope}{kind.kind}{subresource.capitalize()}"
        methods: Node = {}
        for method in _CONNECTS.get(subresource, ()):
            operation = _Operation(
                action="get" if subresource == "log" else "connect",
                name=name if subresource == "log" else f"{method.capitalize()}{name}",
                kind=kind,
                answer=None,
                query=_LOG if subresource == "log" else None,
                gvk=_connected(kind, subresource),
            )
            methods[method] = self._write(operation)
        actions, other = _SUBRESOURCES.get(subresource, ((), None))
        answer, gvk = own, None
        if other is not None:
            body = schema_of_body(*other)
            assert body is not None
            answer, gvk = self._models.ref(body), body.gvks[0]
        for action in actions:
            operation = _Operation(
                action=action,
                name=name,
                kind=kind,
                answer=answer,
                body=self._body(action, answer),
                gvk=gvk,
            )
            methods[action] = self._write(operation)
        where = ("namespace", "name") if kind.namespaced else ("name",)
        yield f"{path}/{subresource}", self._item(methods, where)

    def _item(self, methods: Node, names: tuple[str, ...]) -> Node:
        parameters = [self._parameter("path", name, "string") for name in names]
        parameters.append(self._parameter("query", "pretty", "string"))
        return methods | {"parameters": parameters}

    def _parameter(self, place: str, name: str, type_: str) -> Node:
        parameter: Node = {"in": place, "name": name}
        if place == "path":
            parameter["required"] = True
        described = {"type": type_, "uniqueItems": True}
        return parameter | (described if self._flavour is Flavour.V2 else {"schema": described})

    def _write(self, operation: _Operation) -> Node:
        kind = operation.kind
        group, version, name = operation.gvk or (kind.group, kind.version, kind.kind)
        query = _QUERY[operation.action] if operation.query is None else operation.query
        written: Node = {
            "operationId": f"{_VERBS[operation.action]}{_title(kind)}{operation.name}",
            "tags": [f"{_tag(kind)}_{kind.version}"],
            "parameters": [self._parameter("query", key, type_) for key, type_ in query.items()],
            "x-kubernetes-action": operation.action,
            "x-kubernetes-group-version-kind": {"group": group, "kind": name, "version": version},
        }
        codes = {"200": "OK"}
        if operation.action in ("post", "put", "patch"):
            codes["201"] = "Created"
        if operation.action in ("post", "delete"):
            codes["202"] = "Accepted"
        if self._flavour is Flavour.V2:
            return written | self._bodies_v2(operation, codes, written["parameters"])
        return written | self._bodies_v3(operation, codes)

    def _bodies_v3(self, operation: _Operation, codes: Mapping[str, str]) -> Node:
        types = self._types(operation)
        content: Node = {media: {"schema": operation.answer} for media in types}
        if operation.answer is None:
            content = {"*/*": {"schema": {"type": "string"}}}
        answers: Node = {
            code: {"description": text, "content": content} for code, text in codes.items()
        }
        written: Node = {"responses": answers | {"401": {"description": "Unauthorized"}}}
        if operation.body is not None:
            media = self._patches(operation) if operation.action == "patch" else ("*/*",)
            written["requestBody"] = {
                "content": {name: {"schema": operation.body} for name in media},
                "required": not operation.action.startswith("delete"),
            }
        return written

    def _bodies_v2(
        self, operation: _Operation, codes: Mapping[str, str], parameters: list[Any]
    ) -> Node:
        answer = operation.answer or {"type": "string"}
        answers: Node = {
            code: {"description": text, "schema": answer} for code, text in codes.items()
        }
        written: Node = {
            "consumes": ["*/*"],
            "produces": list(self._types(operation)) if operation.answer else ["*/*"],
            "schemes": ["https"],
            "responses": answers | {"401": {"description": "Unauthorized"}},
        }
        if operation.body is not None:
            body: Node = {"in": "body", "name": "body", "schema": operation.body}
            if not operation.action.startswith("delete"):
                body["required"] = True
            parameters.insert(0, body)
        if operation.action == "patch":
            written["consumes"] = list(self._patches(operation))
        return written

    @staticmethod
    def _types(operation: _Operation) -> tuple[str, ...]:
        return (_JSON, _YAML) if operation.kind.custom else (_JSON, _YAML, _PROTOBUF)

    @staticmethod
    def _patches(operation: _Operation) -> tuple[str, ...]:
        strategic = "application/strategic-merge-patch+json"
        if operation.kind.custom:
            return tuple(media for media in _PATCHES if media != strategic)
        return _PATCHES


def _connected(kind: Kind, subresource: str) -> tuple[str, str, str] | None:
    """
    The options that a connection is made with stand where another operation names its kind.

    kubectl takes the first PATCH of a kind that it comes across, in any order, to say
    whether the kind knows ``fieldValidation``; that of a proxy must not be mistaken for it.
    """
    names = {"attach": "Attach", "exec": "Exec", "portforward": "PortForward", "proxy": "Proxy"}
    if subresource not in names:
        return None
    return (kind.group, kind.version, f"{kind.kind}{names[subresource]}Options")


def _words(kind: Kind) -> list[str]:
    group = kind.group or "core"
    return group.removesuffix(".k8s.io").split(".") if not kind.custom else group.split(".")


def _title(kind: Kind) -> str:
    """``CoreV1``, ``RbacAuthorizationV1``, ``ExampleComV1``."""
    return "".join(word.capitalize() for word in [*_words(kind), kind.version])


def _tag(kind: Kind) -> str:
    first, *rest = _words(kind)
    return first + "".join(word.capitalize() for word in rest)
