"""
What the plugins share: doing nothing by default, and how a refusal is told.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects.errors import StatusError, forbidden

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"


class Plugin:
    """An :class:`~controlplane.api.base.Admission` that minds nothing."""

    name = ""

    async def mutate(self, request: AdmissionRequest) -> None:
        pass

    async def validate(self, request: AdmissionRequest) -> None:
        pass


def refused(request: AdmissionRequest, why: str) -> StatusError:
    """The 403 of a plugin; an object not yet named shows its ``generateName``."""
    metadata = (request.object or {}).get("metadata") or {}
    name = request.name or metadata.get("name") or metadata.get("generateName") or "Unknown"
    return forbidden(request.kind.group_resource, name, why)


def created(request: AdmissionRequest, group_resource: str) -> dict[str, Any] | None:
    """The object if one of that kind is being created."""
    if request.operation is not Operation.CREATE or request.subresource:
        return None
    return request.object if request.kind.group_resource == group_resource else None


def spec_of(obj: dict[str, Any]) -> dict[str, Any]:
    """The spec to change; made if there is none."""
    spec = obj.get("spec")
    if spec is None:
        spec = obj["spec"] = {}
    made: dict[str, Any] = spec
    return made


def old_spec(request: AdmissionRequest) -> Mapping[str, Any]:
    return (request.old or {}).get("spec") or {}
