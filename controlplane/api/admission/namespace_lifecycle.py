"""
NamespaceLifecycle: nothing is written into a namespace that is not there or is going.
"""

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.objects import meta
from controlplane.objects.errors import StatusError, forbidden, not_found
from controlplane.objects.resources import NAMESPACES

_IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
_REVIEW = "localsubjectaccessreviews.authorization.k8s.io"  # asked of namespaces yet to come


class NamespaceLifecycle(Plugin):
    name = "NamespaceLifecycle"

    async def mutate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource == "namespaces":
            _keep_immortal(request)
            return
        if not request.kind.namespaced or request.kind.group_resource == _REVIEW:
            return
        # What is left in a namespace that vanished may always be removed.
        if request.operation is Operation.DELETE:
            return
        namespace = request.reads.get(NAMESPACES, "", request.namespace)
        if namespace is None:
            raise not_found("namespaces", request.namespace)
        if request.operation is not Operation.CREATE:
            return
        terminating = (namespace.get("status") or {}).get("phase") == "Terminating"
        if terminating or meta.is_deleting(namespace):
            raise _terminating(request)


def _keep_immortal(request: AdmissionRequest) -> None:
    if request.operation is Operation.DELETE and request.name in _IMMORTAL:
        raise forbidden("namespaces", request.name, "this namespace may not be deleted")


def _terminating(request: AdmissionRequest) -> StatusError:
    namespace = request.namespace
    error = refused(
        request,
        f"unable to create new content in namespace {namespace} because it is being terminated",
    )
    cause = {
        "reason": "NamespaceTerminating",
        "message": f"namespace {namespace} is being terminated",
        "field": "metadata.namespace",
    }
    error.details = {**(error.details or {}), "causes": [cause]}
    return error
