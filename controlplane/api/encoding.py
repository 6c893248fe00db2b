"""
How an object is bytes: compact JSON that begins with its metadata.

The stored form has no resourceVersion, since the store gives it out with the
write; it is spliced in behind ``{"metadata":{`` when the bytes enter the cache,
so that a GET, a LIST and a WATCH copy bytes and decode nothing. ``kind`` follows
the metadata at once, which lets the metadata be read alone: ``},"kind":"`` with
bare quotes cannot occur inside metadata before its end, because values there are
strings (their quotes are escaped) and references begin with their own brace.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from controlplane.objects.errors import bad_request

OPENING = b'{"metadata":{'
_SPLIT = b'},"kind":"'
_METADATA = len(b'{"metadata":')


def encode(obj: Mapping[str, Any]) -> bytes:
    """The stored form. The object has a ``metadata`` with at least a name or a uid."""
    metadata = obj["metadata"]
    if "resourceVersion" in metadata:
        metadata = {k: v for k, v in metadata.items() if k != "resourceVersion"}
    head = {"metadata": metadata, "kind": obj["kind"], "apiVersion": obj["apiVersion"]}
    try:
        return orjson.dumps(head | {k: v for k, v in obj.items() if k not in head})
    except TypeError as error:
        # Patches and managed fields may nest deeper than any body.
        raise bad_request(f"the object cannot be encoded: {error}") from None


def splice(value: bytes, revision: int) -> bytes:
    """The served form of a stored value."""
    return b'%b"resourceVersion":"%d",%b' % (OPENING, revision, value[len(OPENING) :])


def respliced(data: bytes, revision: int) -> bytes:
    """Served bytes with another resourceVersion, as a deletion shows it."""
    return splice(OPENING + data[data.index(b",") + 1 :], revision)


def stored(data: bytes) -> bytes:
    """The stored form of served bytes."""
    return OPENING + data[data.index(b",") + 1 :]


def decode(data: bytes) -> dict[str, Any]:
    obj: dict[str, Any] = orjson.loads(data)
    return obj


def metadata_of(data: bytes) -> dict[str, Any]:
    """The metadata alone; the rest of the object is not looked at."""
    end = data.find(_SPLIT)
    if end < 0:
        metadata: dict[str, Any] = orjson.loads(data)["metadata"]
    else:
        metadata = orjson.loads(memoryview(data)[_METADATA : end + 1])
    return metadata


def list_of(
    kind: str, api_version: str, metadata: Mapping[str, Any], items: Iterable[bytes]
) -> bytes:
    """A list as the API gives it, joined from the bytes of its items."""
    head = orjson.dumps({"kind": kind, "apiVersion": api_version, "metadata": metadata})
    return b'%b,"items":[%b]}\n' % (head[:-1], b",".join(items))


def event_line(type_: bytes, data: bytes) -> bytes:
    """One line of a watch stream."""
    return b'{"type":"%b","object":%b}\n' % (type_, data)
