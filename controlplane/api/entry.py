"""
One object in the cache: its bytes and the few facts that indexes and selectors need.

Thousands of these live for as long as the server does, so they have slots, share
what they can and keep nothing that the key or the bytes say.
"""

import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from controlplane.api.encoding import decode, metadata_of

PODS = "/core/pods"
_NONE: Mapping[str, str] = MappingProxyType({})


class Entry:
    """An object at one revision; immutable. ``data`` carries the resourceVersion."""

    __slots__ = ("created", "data", "key", "labels", "node", "owners", "revision")

    def __init__(self, key: str, data: bytes, *, revision: int, created: int) -> None:
        self.key = key
        self.data = data
        self.revision = revision
        self.created = created
        self.node = ""
        if key.startswith(PODS) and key[len(PODS)] == "/":
            obj = decode(data)
            metadata = obj["metadata"]
            self.node = sys.intern(obj.get("spec", {}).get("nodeName") or "")
        else:
            metadata = metadata_of(data)
        self.labels = _shared(metadata.get("labels"))
        self.owners = _owners(metadata.get("ownerReferences"))

    @property
    def name(self) -> str:
        return self.key.rsplit("/", 1)[1]

    @property
    def namespace(self) -> str:
        parts = self.key.split("/")
        return parts[3] if len(parts) == 5 else ""


def _shared(labels: Any) -> Mapping[str, str]:
    """Label keys and values repeat over thousands of objects."""
    if not labels:
        return _NONE
    return {sys.intern(key): sys.intern(value) for key, value in labels.items()}


def _owners(references: Any) -> tuple[str, ...]:
    if not references:
        return ()
    return tuple(sys.intern(reference.get("uid", "")) for reference in references)
