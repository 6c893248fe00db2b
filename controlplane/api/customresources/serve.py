"""
Keep the tables of kinds and schemas in step with the definitions that are established.

Driven by the feed of definitions, so that the server's start, a new definition
and a changed one take the same path.
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane.client.base import Change, Feed
from controlplane.objects.definitions import kinds_of
from controlplane.objects.kinds import Kind, Kinds, Resource
from controlplane.objects.schema import Schema, Schemas
from controlplane.objects.structural import compile_schema

DEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", False)


class CustomKinds:
    """Its mutable state: the kinds that each definition, by name, contributes now."""

    def __init__(
        self, kinds: Kinds, schemas: Schemas, *, metadata: Schema, changed: Callable[[], None]
    ) -> None:
        """``changed`` is called after the tables changed: discovery and OpenAPI are made anew."""
        self._kinds = kinds
        self._schemas = schemas
        self._metadata = metadata
        self._changed = changed
        self._served: dict[str, tuple[Kind, ...]] = {}
        self._specs: dict[str, Any] = {}
        # A definition cannot take over what is built in, nor its objects by another version.
        self._builtin = {kind.storage_key for kind in kinds if not kind.custom}

    def follow(self, feed: Feed) -> Callable[[], None]:
        """From now on; the result ends it."""
        return feed.subscribe((DEFINITIONS,), self._hear)

    def _hear(self, change: Change) -> None:
        crd = change.new
        if crd is None or not established(crd):
            self._drop(change.name)
            return
        if self._specs.get(change.name) == crd["spec"]:
            return  # only its status or metadata changed
        self._drop(change.name)
        self._serve(crd)

    def _serve(self, crd: Mapping[str, Any]) -> None:
        name = crd["metadata"]["name"]
        versions = {v["name"]: v for v in crd["spec"]["versions"]}
        kinds = tuple(kind for kind in kinds_of(crd) if kind.storage_key not in self._builtin)
        for kind in kinds:
            gvk = (kind.group, kind.version, kind.kind)
            said = (versions[kind.version].get("schema") or {}).get("openAPIV3Schema")
            schema = compile_schema(said, gvk=gvk, metadata=self._metadata)
            self._schemas.set(kind, schema)
            self._kinds.add(kind)
        self._served[name] = kinds
        self._specs[name] = crd["spec"]
        self._changed()

    def _drop(self, name: str) -> None:
        kinds = self._served.pop(name, ())
        self._specs.pop(name, None)
        for kind in kinds:
            self._kinds.remove(kind)
            self._schemas.drop(kind)
        if kinds:
            self._changed()


def established(crd: Mapping[str, Any]) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
