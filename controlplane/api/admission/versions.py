"""
An object in the version that a webhook or a policy of users knows, and what they make of it.

Shared by :mod:`controlplane.api.webhooks` and :mod:`controlplane.api.policies`.
"""

from typing import Any

from controlplane.api import pipeline
from controlplane.api.base import AdmissionRequest
from controlplane.api.call import Parts
from controlplane.api.present import objects_in
from controlplane.client.base import Object
from controlplane.objects import patch, walk
from controlplane.objects.kinds import Kind

# The subresources whose objects are of the resource's own kind.
_WHOLE = ("", "status", "ephemeralcontainers")


def versions_of(parts: Parts, kind: Kind) -> list[Kind]:
    """The kind in every version that is served."""
    same = (kind.group, kind.plural)
    return [one for one in parts.kinds if (one.group, one.plural) == same]


async def seen(
    parts: Parts, request: AdmissionRequest, kind: Kind
) -> tuple[Object | None, Object | None]:
    """The new and the old object of a request in the version of ``kind``."""
    if kind is request.kind or request.subresource not in _WHOLE:
        return request.object, request.old
    new, old = request.object, request.old
    given = [obj for obj in (new, old) if obj is not None]
    shown = iter(await objects_in(parts, kind, given))
    return (None if new is None else next(shown)), (None if old is None else next(shown))


async def take(parts: Parts, request: AdmissionRequest, kind: Kind, changed: Any) -> bool:
    """
    Let a changed object, in the version of ``kind``, take the place of the request's.

    Without fields that its schema does not know, and with defaults. False: nothing is
    different. Raises :class:`StatusError` for what is no such object.
    """
    new = await _decoded(parts, request, kind, changed)
    if request.object is None or patch.same(new, request.object):
        return False
    if request.unchanged is None:
        request.unchanged = pipeline.copy(request.object)
    # In place: the steps that follow hold this object.
    request.object.clear()
    request.object.update(new)
    return True


async def _decoded(
    parts: Parts, request: AdmissionRequest, kind: Kind, changed: Any
) -> dict[str, Any]:
    if request.subresource not in _WHOLE:
        return dict(changed)
    if kind is not request.kind:
        changed = (await objects_in(parts, request.kind, [changed]))[0]
    new, _ = walk.decode(changed, parts.schemas.of(request.kind), strict=False)
    pipeline.default(parts.schemas, request.kind, new)
    return new
