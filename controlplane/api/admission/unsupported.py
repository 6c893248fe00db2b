"""
What this server has the kinds for, and not what is behind them.

Where it is the API server that would have to act (aggregation), the object is
refused by name: stored, it would let people believe that it serves. Where
others act on the objects (autoscalers), they are kept, as any API server keeps
them, and a Warning header, which kubectl and Helm show, says that nobody does
yet. Both lists are those of docs/compatibility.md.
"""

from controlplane.api.admission.plugin import Plugin
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects.errors import not_implemented

NOT_ACTED_ON = {
    "horizontalpodautoscalers.autoscaling": "nothing scales by autoscalers yet",
}
_APISERVICES = "apiservices.apiregistration.k8s.io"
_AGGREGATION = "aggregated API servers (spec.service) yet"


class Unsupported(Plugin):
    """Refuses (501) or warns, at creations and updates."""

    name = "Unsupported"

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource or request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        kind = request.kind.group_resource
        spec = (request.object or {}).get("spec") or {}
        if kind == _APISERVICES and spec.get("service"):
            raise not_implemented(_AGGREGATION)
        if kind in NOT_ACTED_ON:
            request.warnings.append(f"{request.kind.kind} is stored, but {NOT_ACTED_ON[kind]}")
