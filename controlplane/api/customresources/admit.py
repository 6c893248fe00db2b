"""
What is asked of definitions and of custom resources before they are stored.

As admission plugins, so that the order of a write's steps stays in one place.
"""

from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects.definitions import CLEANUP_FINALIZER, definition_errors
from controlplane.objects.errors import forbidden_field, invalid
from controlplane.objects.schema import Schemas
from controlplane.objects.structural import uses_cel
from controlplane.objects.values import value_errors

DEFINITION = "customresourcedefinitions.apiextensions.k8s.io"
NOT_EVALUATED = "x-kubernetes-validations: rules in CEL are kept but not evaluated by this server"


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
        errors = definition_errors(request.object)
        if request.old is not None and request.old.get("spec"):
            for key in ("group", "scope"):
                if request.old["spec"].get(key) != request.object["spec"].get(key):
                    errors.append(forbidden_field(f"spec.{key}", "field is immutable"))
        if errors:
            name = request.object["metadata"].get("name", "")
            raise invalid(request.kind.group_kind, name, errors)
        for version in request.object["spec"]["versions"]:
            if uses_cel((version.get("schema") or {}).get("openAPIV3Schema") or {}):
                request.warnings.append(NOT_EVALUATED)
                break


class Values:
    """Custom resources are what their schema says."""

    name = "CustomResourceValues"

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas

    async def mutate(self, request: AdmissionRequest) -> None:
        return

    async def validate(self, request: AdmissionRequest) -> None:
        if not request.kind.custom or request.object is None:
            return
        if request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        if request.subresource not in ("", "status", "scale"):
            return
        errors = value_errors(request.object, self._schemas.of(request.kind))
        if errors:
            name = request.object["metadata"].get("name", "")
            raise invalid(request.kind.group_kind, name, errors)
