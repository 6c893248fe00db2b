"""
The OpenAPI documents: an index and one document a group and version (v3), and one of all (v2).

They are made from the kinds and their schemas when somebody asks, which takes up to a
second: callers make them in a thread and keep the bytes. Values of the returned
mappings may be encoded already (:class:`orjson.Fragment`), so encode them with orjson.
Source: the OpenAPI specifications 3.0 and 2.0; kubectl and Helm are the users.
"""

import hashlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from controlplane.objects.facts import schema_by_name
from controlplane.objects.kinds import Kind
from controlplane.objects.openapi_models import Flavour, Models
from controlplane.objects.openapi_paths import Paths
from controlplane.objects.openapi_prose import Descriptions, installed
from controlplane.objects.openapi_proto import encode_v2
from controlplane.objects.schema import Schemas

# What clients accept, and what it is answered as: "@" is not allowed in a content type.
V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
V2_PROTOBUF_CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_INFO = {"title": "Kubernetes", "version": "v1.36.3"}
_META = "io.k8s.apimachinery.pkg.apis.meta.v1."
_SECURITY = {
    "BearerToken": {
        "description": "Bearer Token authentication",
        "in": "header",
        "name": "authorization",
        "type": "apiKey",
    }
}


def v3_index(kinds: Iterable[Kind], schemas: Schemas) -> dict[str, Any]:
    """Where each document is; its hash changes when the document does."""
    paths = {}
    for path, members in _by_version(kinds).items():
        url = f"/openapi/v3/{path}?hash={_hash(members, schemas)}"
        paths[path] = {"serverRelativeURL": url}
    return {"paths": paths}


def v3(kinds: Iterable[Kind], schemas: Schemas, path: str) -> dict[str, Any] | None:
    """``path``: ``api/v1`` or ``apis/apps/v1``; None where no kind is served there."""
    members = _by_version(kinds).get(path)
    if members is None:
        return None
    models = Models(Flavour.V3, installed())
    paths = _paths(Flavour.V3, models, members, schemas)
    return {
        "openapi": "3.0.0",
        "info": _INFO,
        "paths": paths,
        "components": {"schemas": _models(models), "securitySchemes": _SECURITY},
    }


def v2(kinds: Iterable[Kind], schemas: Schemas) -> dict[str, Any]:
    models = Models(Flavour.V2, installed())
    paths: dict[str, Any] = {}
    for members in _by_version(kinds).values():
        paths |= _paths(Flavour.V2, models, members, schemas)
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": paths,
        "definitions": _models(models),
        "securityDefinitions": _SECURITY,
        "security": [{"BearerToken": []}],
    }


def index(kinds: Iterable[Kind], schemas: Schemas) -> bytes:
    return orjson.dumps(v3_index(kinds, schemas))


def group_version_document(
    group: str, version: str, kinds: Iterable[Kind], schemas: Schemas
) -> bytes | None:
    document = v3(kinds, schemas, _path(group, version))
    return None if document is None else orjson.dumps(document)


def group_version_hash(group: str, version: str, kinds: Iterable[Kind], schemas: Schemas) -> str:
    """The hash that the index has for it, for an ETag; empty where no kind is served there."""
    members = _by_version(kinds).get(_path(group, version))
    return _hash(members, schemas) if members else ""


def v2_document(kinds: Iterable[Kind], schemas: Schemas) -> bytes:
    return orjson.dumps(v2(kinds, schemas))


def v2_protobuf(document: bytes) -> bytes:
    """The v2 document (as :func:`v2_document` makes it) as ``V2_PROTOBUF_CONTENT_TYPE``."""
    return encode_v2(orjson.loads(document))


def _path(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


def _by_version(kinds: Iterable[Kind]) -> dict[str, list[Kind]]:
    found: dict[str, list[Kind]] = {}
    for kind in kinds:
        found.setdefault(_path(kind.group, kind.version), []).append(kind)
    return found


def _paths(
    flavour: Flavour, models: Models, members: list[Kind], schemas: Schemas
) -> dict[str, orjson.Fragment]:
    writer = Paths(flavour, models)
    paths = dict([writer.root(members[0])])
    for kind in members:
        paths.update(writer.of(kind, schemas.of(kind)))
    return {path: orjson.Fragment(orjson.dumps(item)) for path, item in sorted(paths.items())}


def _models(models: Models) -> Mapping[str, orjson.Fragment]:
    # Clients look for it whether or not a path refers to it.
    models.ref(schema_by_name(f"{_META}WatchEvent"))
    return models.all()


def _hash(members: list[Kind], schemas: Schemas) -> str:
    digest = hashlib.sha256(_facts_version())
    for kind in members:
        verbs, subresources = sorted(kind.verbs), sorted(kind.subresources)
        digest.update(repr((kind.api_version, kind.plural, verbs, subresources)).encode())
        if kind.custom:
            models = Models(Flavour.V3, Descriptions(None))
            models.ref(schemas.of(kind))
            digest.update(orjson.dumps(models.all()))
    return digest.hexdigest().upper()


@cache
def _facts_version() -> bytes:
    """Changes with the generated facts, so that an update makes clients ask anew."""
    digest = hashlib.sha256(_INFO["version"].encode())
    for path in sorted((Path(__file__).parent / "data").glob("*.json")):
        digest.update(path.read_bytes())
    return digest.digest()
