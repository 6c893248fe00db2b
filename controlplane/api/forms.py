"""
The forms of an answer other than the object itself: Table, and metadata alone.

The metadata is cut out of the bytes; a Table decodes each object once and keeps
nothing of it but its cells and its metadata.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from controlplane.api.encoding import decode, list_of, metadata_of
from controlplane.api.negotiate import Output
from controlplane.client.base import Object
from controlplane.objects.errors import not_acceptable
from controlplane.objects.kinds import Kind


def one(kind: Kind, data: bytes, output: Output, *, now: datetime, include: str = "") -> bytes:
    """The form of one object. ``include``: None, Metadata or Object, of the rows of a Table."""
    match output.form:
        case "":
            return data
        case "Table":
            return _table(kind, [decode(data)], output, now=now, include=include)
        case "PartialObjectMetadata":
            return partial(data, output)
        case form:
            raise not_acceptable(f"{form} is no form of a single object")


def many(
    kind: Kind,
    data: Sequence[bytes],
    output: Output,
    *,
    metadata: dict[str, Any],
    now: datetime,
    include: str = "",
) -> bytes:
    """The form of a list; ``metadata`` is the list's."""
    match output.form:
        case "":
            name = kind.list_kind or f"{kind.kind}List"
            return list_of(name, kind.api_version, metadata, data)
        case "Table":
            objects = [decode(item) for item in data]
            return _table(kind, objects, output, now=now, include=include, metadata=metadata)
        case "PartialObjectMetadataList":
            version = f"meta.k8s.io/{output.version}"
            items = [partial(item, output) for item in data]
            return list_of("PartialObjectMetadataList", version, metadata, items)
        case form:
            raise not_acceptable(f"{form} is no form of a list")


def partial(data: bytes, output: Output) -> bytes:
    metadata = orjson.dumps(metadata_of(data))
    return b'{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/%b","metadata":%b}' % (
        output.version.encode(),
        metadata,
    )


def _table(
    kind: Kind,
    objects: Sequence[Object],
    output: Output,
    *,
    now: datetime,
    include: str = "",
    metadata: dict[str, Any] | None = None,
) -> bytes:
    from controlplane.objects import tables  # loaded with the first kubectl get

    if metadata is None:
        version = objects[0]["metadata"].get("resourceVersion", "") if objects else ""
        metadata = {"resourceVersion": version}
    table = tables.table(kind, objects, now=now, include_object=include)
    table["metadata"] = metadata
    if output.version != "v1":
        table["apiVersion"] = f"meta.k8s.io/{output.version}"
    return orjson.dumps(table)
