"""
Say so when an object is stored but nothing acts on it yet.

Refusing these kinds would keep whole charts from being installed for one object
that does no harm by itself; taking them silently would let people believe that
they are protected. So each write is answered with a Warning header, which
kubectl and Helm show. The list is that of docs/compatibility.md.
"""

from controlplane.api.admission.plugin import Plugin
from controlplane.api.base import AdmissionRequest, Operation

_WEBHOOKS = "this server does not call admission webhooks yet"
_POLICIES = "this server does not evaluate admission policies yet"
NOT_ACTED_ON = {
    "mutatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "validatingwebhookconfigurations.admissionregistration.k8s.io": _WEBHOOKS,
    "mutatingadmissionpolicies.admissionregistration.k8s.io": _POLICIES,
    "mutatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICIES,
    "validatingadmissionpolicies.admissionregistration.k8s.io": _POLICIES,
    "validatingadmissionpolicybindings.admissionregistration.k8s.io": _POLICIES,
    "networkpolicies.networking.k8s.io": "network policies are not enforced yet",
    "horizontalpodautoscalers.autoscaling": "nothing scales by autoscalers yet",
}
_APISERVICES = "apiservices.apiregistration.k8s.io"
_RELAY = "this server does not relay to aggregated API servers yet"


class StoredOnly(Plugin):
    """Warns at creations and updates; refuses nothing."""

    name = "StoredOnly"

    async def validate(self, request: AdmissionRequest) -> None:
        if request.subresource or request.operation not in (Operation.CREATE, Operation.UPDATE):
            return
        kind = request.kind.group_resource
        spec = (request.object or {}).get("spec") or {}
        text = _RELAY if kind == _APISERVICES and spec.get("service") else NOT_ACTED_ON.get(kind)
        if text:
            request.warnings.append(f"{request.kind.kind} is stored, but {text}")
