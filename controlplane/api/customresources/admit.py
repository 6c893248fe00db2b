"""
What is asked of definitions and of custom resources before they are stored.

As admission plugins, so that the order of a write's steps stays in one place.
"""

import importlib
from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects.definitions import CLEANUP_FINALIZER, definition_errors
from controlplane.objects.errors import FieldError, forbidden_field, invalid
from controlplane.objects.kinds import Kind, Resource
from controlplane.objects.schema import Schema, Schemas
from controlplane.objects.structural import has_rules, uses_cel
from controlplane.objects.values import value_errors

DEFINITION = "customresourcedefinitions.apiextensions.k8s.io"
_CEL = "controlplane.objects.cel.validations"  # loaded where somebody has rules alone


class Definitions:
    """Definitions are complete, structural, and leave only after their resources."""

    name = "CustomResourceDefinition"

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != DEFINITION or request.subresource:
            return
        if request.operation is not Operation.CREATE or request.object is None:
            return
        finalizers = request.object["metadata"].setdefault("finalizers", [])
        if CLEANUP_FINALIZER not in finalizers:
            finalizers.append(CLEANUP_FINALIZER)

    async def validate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != DEFINITION or request.subresource:
            return
        if request.object is None:
            return
        errors = [*definition_errors(request.object), *_rule_errors(request.object)]
        if request.old is not None and request.old.get("spec"):
            before, after = request.old["spec"], request.object["spec"]
            errors += [
                forbidden_field(f"spec.{key}", "field is immutable")
                for key in ("group", "scope")
                if before.get(key) != after.get(key)
            ]
        if errors:
            name = request.object["metadata"].get("name", "")
            raise invalid(request.kind.group_kind, name, errors)


def _rule_errors(definition: Mapping[str, Any]) -> Iterator[FieldError]:
    for index, version in enumerate((definition.get("spec") or {}).get("versions") or ()):
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        if uses_cel(schema):
            path = f"spec.versions[{index}].schema.openAPIV3Schema"
            yield from importlib.import_module(_CEL).rule_errors(schema, path)


class Values:
    """Custom resources are what their schema says."""

    name = "CustomResourceValues"

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._ruled: dict[Resource, tuple[Schema, bool]] = {}

    async def mutate(self, request: AdmissionRequest) -> None:
        return

    async def validate(self, request: AdmissionRequest) -> None:
        if not request.kind.custom or request.object is None:
            return
        if request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        if request.subresource not in ("", "status", "scale"):
            return
        schema = self._schemas.of(request.kind)
        errors = value_errors(request.object, schema)
        if not errors and self._has_rules(request.kind, schema):
            cel = importlib.import_module(_CEL)
            errors = cel.validation_errors(request.object, request.old, schema)
        if errors:
            name = request.object["metadata"].get("name", "")
            raise invalid(request.kind.group_kind, name, errors)

    def _has_rules(self, kind: Kind, schema: Schema) -> bool:
        known = self._ruled.get(kind.resource)
        if known is None or known[0] is not schema:
            known = self._ruled[kind.resource] = (schema, has_rules(schema))
        return known[1]
