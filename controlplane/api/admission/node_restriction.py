"""
NodeRestriction: a node writes about itself and its own pods only.

A stolen node certificate then opens that node, not the cluster. What nodes may
read is :mod:`controlplane.api.node_authorizer`'s business.
"""

import base64
from collections.abc import Mapping
from typing import Any

from cryptography import x509
from cryptography.x509.oid import NameOID

from controlplane.api.admission.plugin import MIRROR_ANNOTATION, Plugin, refused
from controlplane.api.base import AdmissionRequest, Attributes, Authorizer, Decision, Operation
from controlplane.api.node_authorizer import LEASE_NAMESPACE, node_of, pod_references
from controlplane.client.base import Object
from controlplane.objects import meta
from controlplane.objects.errors import not_found
from controlplane.objects.resources import (
    CSI_DRIVERS,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
)

_RESTRICTED = "node-restriction.kubernetes.io"
_KUBELET_PREFIXES = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBELET_LABELS = frozenset(
    {
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "failure-domain.beta.kubernetes.io/region",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.kubernetes.io/region",
        "failure-domain.kubernetes.io/zone",
        "kubernetes.io/arch",
        "kubernetes.io/hostname",
        "kubernetes.io/instance-type",
        "kubernetes.io/os",
        "node.kubernetes.io/instance-type",
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/zone",
    }
)
_CLAIM_STATUS = ("capacity", "conditions", "allocatedResources", "allocatedResourceStatuses")


class NodeRestriction(Plugin):
    name = "NodeRestriction"

    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def mutate(self, request: AdmissionRequest) -> None:
        node = node_of(request.user)
        if not node:
            return
        match request.kind.group_resource:
            case "nodes":
                _check_node(request, node)
            case "pods":
                _check_pod(request, node)
            case "persistentvolumeclaims":
                _check_claim(request, node)
            case "serviceaccounts":
                self._check_token(request, node)
            case "leases.coordination.k8s.io":
                _check_named(request, node, "node lease", LEASE_NAMESPACE)
            case "csinodes.storage.k8s.io":
                _check_named(request, node, "CSINode", "")
            case "resourceslices.resource.k8s.io":
                _check_slice(request, node)
            case "certificatesigningrequests.certificates.k8s.io":
                _check_signing(request)
            case _:
                pass

    def _check_token(self, request: AdmissionRequest, node: str) -> None:
        if request.subresource != "token" or request.operation is not Operation.CREATE:
            return
        spec = (request.object or {}).get("spec") or {}
        bound = spec.get("boundObjectRef") or {}
        if (bound.get("apiVersion"), bound.get("kind")) != ("v1", "Pod") or not bound.get("name"):
            raise refused(request, "node requested token not bound to a pod")
        if not bound.get("uid"):
            raise refused(request, "node requested token with a pod binding without a uid")
        pod = _existing_pod(request, bound["name"])
        if bound["uid"] != meta.uid_of(pod):
            raise refused(
                request,
                f"the UID in the bound object reference ({bound['uid']}) does not match the UID in "
                "record. The object might have been deleted and then recreated",
            )
        if _node_name(pod) != node:
            raise refused(
                request, "node requested token bound to a pod scheduled on a different node"
            )
        self._check_audience(request, spec.get("audiences") or [], pod)

    def _check_audience(self, request: AdmissionRequest, audiences: list[str], pod: Object) -> None:
        if len(audiences) > 1:
            raise refused(request, "node may only request 0 or 1 audiences")
        audience = audiences[0] if audiences else ""
        if _names_audience(request, pod, audience):
            return
        asked = Attributes(
            user=request.user,
            verb="request-serviceaccounts-token-audience",
            version="v1",
            resource=audience,
            namespace=request.namespace,
            name=request.name,
        )
        if self._authorizer.authorize(asked)[0] is not Decision.ALLOW:
            raise refused(
                request,
                f'audience "{audience}" not found in pod spec volume, {request.user.name} is not '
                "authorized to request tokens for this audience",
            )


def _names_audience(request: AdmissionRequest, pod: Object, audience: str) -> bool:
    for volume in (pod.get("spec") or {}).get("volumes") or ():
        for source in (volume.get("projected") or {}).get("sources") or ():
            token = source.get("serviceAccountToken")
            if token is not None and (token.get("audience") or "") == audience:
                return True
        driver = _driver_of(request, volume, pod)
        found = request.reads.get(CSI_DRIVERS, "", driver) if driver else None
        requests = ((found or {}).get("spec") or {}).get("tokenRequests") or ()
        if any((wanted.get("audience") or "") == audience for wanted in requests):
            return True
    return False


def _driver_of(request: AdmissionRequest, volume: Mapping[str, Any], pod: Object) -> str:
    if "csi" in volume:
        return str(volume["csi"].get("driver") or "")
    claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
    if "ephemeral" in volume:
        claim = f"{meta.name(pod)}-{volume['name']}"
    found = request.reads.get(PERSISTENT_VOLUME_CLAIMS, request.namespace, claim or "")
    name = ((found or {}).get("spec") or {}).get("volumeName")
    bound = request.reads.get(PERSISTENT_VOLUMES, "", name or "")
    return str((((bound or {}).get("spec") or {}).get("csi") or {}).get("driver") or "")


def _node_name(pod: Object) -> str:
    return str((pod.get("spec") or {}).get("nodeName") or "")


def _existing_pod(request: AdmissionRequest, name: str) -> Object:
    pod = request.reads.get(PODS, request.namespace, name)
    if pod is None:
        raise not_found("pods", name)
    return pod


def _check_pod(request: AdmissionRequest, node: str) -> None:
    match request.subresource, request.operation:
        case "", Operation.CREATE:
            _check_mirror(request, node)
        case "", Operation.DELETE:
            if _node_name(_existing_pod(request, request.name)) != node:
                raise refused(
                    request, f'node "{node}" can only delete pods with spec.nodeName set to itself'
                )
        case "", operation:
            raise refused(
                request,
                f'unexpected operation "{operation.value}", node "{node}" can only create and '
                "delete mirror pods",
            )
        case "status", Operation.UPDATE:
            _check_pod_status(request, node)
        case "eviction", Operation.CREATE:
            if _node_name(_existing_pod(request, request.name)) != node:
                raise refused(
                    request, f"node {node} can only evict pods with spec.nodeName set to itself"
                )
        case "status" | "eviction", operation:
            raise refused(request, f'unexpected operation "{operation.value}"')
        case subresource, _:
            raise refused(
                request,
                f"unexpected pod subresource \"{subresource}\", only 'status' and 'eviction' are "
                "allowed",
            )


def _check_pod_status(request: AdmissionRequest, node: str) -> None:
    old, new = request.old or {}, request.object or {}
    if _node_name(old) != node:
        raise refused(
            request,
            f'node "{node}" can only update pod status for pods with spec.nodeName set to itself',  # noqa: S608 - no SQL
        )
    if dict(meta.labels(old)) != dict(meta.labels(new)):
        raise refused(request, f'node "{node}" cannot update labels through pod status')
    for field, title in (
        ("resourceClaimStatuses", "resource claim statues"),
        ("extendedResourceClaimStatus", "extended resource claim status"),
    ):
        before, after = ((obj.get("status") or {}).get(field) for obj in (old, new))
        if (before or None) != (after or None):
            raise refused(request, f'node "{node}" cannot update {title}')


def _check_mirror(request: AdmissionRequest, node: str) -> None:
    pod = request.object or {}
    if MIRROR_ANNOTATION not in meta.annotations(pod):
        raise refused(
            request,
            f'pod does not have "{MIRROR_ANNOTATION}" annotation, node "{node}" can only create '
            "mirror pods",
        )
    if _node_name(pod) != node:
        raise refused(
            request, f'node "{node}" can only create pods with spec.nodeName set to itself'
        )
    _check_mirror_owner(request, node, pod)
    referenced = next((resource for resource, _ in pod_references(pod)), "")
    if referenced:
        raise refused(request, f'node "{node}" can not create pods that reference {referenced}')


def _check_mirror_owner(request: AdmissionRequest, node: str, pod: Object) -> None:
    only = f'node "{node}" can only create pods with'
    owners = meta.owners(pod)
    if len(owners) > 1:
        raise refused(request, f"{only} a single owner reference set to itself")
    owner = owners[0] if owners else {}
    identity = tuple(owner.get(key) for key in ("apiVersion", "kind", "name"))
    if identity != ("v1", "Node", node):
        raise refused(request, f"{only} an owner reference set to itself")
    if not owner.get("controller"):
        raise refused(request, f"{only} a controller owner reference set to itself")
    if owner.get("blockOwnerDeletion"):
        raise refused(
            request, f'node "{node}" must not set blockOwnerDeletion on an owner reference'
        )
    found = request.reads.get(NODES, "", node)
    if found is None:
        raise not_found("nodes", node)
    if owner.get("uid") != meta.uid_of(found):
        raise refused(
            request,
            f"node {node} UID mismatch: expected {owner.get('uid')} got {meta.uid_of(found)}",
        )


def _check_node(request: AdmissionRequest, node: str) -> None:
    new, old = request.object or {}, request.old or {}
    name = request.name or meta.name(new)
    if name != node:
        raise refused(request, f'node "{node}" is not allowed to modify node "{name}"')
    if request.operation is Operation.CREATE:
        labels = _forbidden_labels(new, {})
        if labels:
            raise refused(
                request,
                f'node "{node}" is not allowed to set the following labels: {", ".join(labels)}',
            )
    elif request.operation is Operation.UPDATE:
        before, after = ((obj.get("spec") or {}).get("taints") or [] for obj in (old, new))
        if before != after:
            raise refused(request, f'node "{node}" is not allowed to modify taints')
        if list(meta.owners(old)) != list(meta.owners(new)):
            raise refused(request, f'node "{node}" is not allowed to modify ownerReferences')
        labels = _forbidden_labels(new, old)
        if labels:
            raise refused(request, f"is not allowed to modify labels: {', '.join(labels)}")


def _forbidden_labels(new: Object, old: Object) -> list[str]:
    changed = dict(meta.labels(new).items() ^ meta.labels(old).items())
    return sorted(label for label in changed if _is_forbidden(label))


def _is_forbidden(label: str) -> bool:
    namespace, found, _ = label.partition("/")
    if not found:
        return False
    if _is_within(namespace, _RESTRICTED):
        return True
    kubernetes = _is_within(namespace, "kubernetes.io") or _is_within(namespace, "k8s.io")
    by_kubelet = label in _KUBELET_LABELS or any(
        _is_within(namespace, prefix) for prefix in _KUBELET_PREFIXES
    )
    return kubernetes and not by_kubelet


def _is_within(namespace: str, domain: str) -> bool:
    return namespace == domain or namespace.endswith(f".{domain}")


def _check_claim(request: AdmissionRequest, node: str) -> None:
    if request.subresource != "status" or request.operation is not Operation.UPDATE:
        raise refused(request, "may only update PVC status")
    if _without_size(request.old or {}) != _without_size(request.object or {}):
        raise refused(
            request,
            f'node "{node}" is not allowed to update fields other than status.quantity and '
            "status.conditions",
        )


def _without_size(claim: Object) -> Object:
    metadata = {
        key: value
        for key, value in meta.metadata(claim).items()
        if key not in {"resourceVersion", "managedFields"}
    }
    status = {k: v for k, v in (claim.get("status") or {}).items() if k not in _CLAIM_STATUS}
    return {**claim, "metadata": metadata, "status": status}


def _check_named(request: AdmissionRequest, node: str, title: str, namespace: str) -> None:
    if request.namespace != namespace:
        raise refused(request, f'can only access leases in the "{namespace}" system namespace')
    name = request.name or meta.name(request.object or {})
    if name != node:
        raise refused(request, f"can only access {title} with the same name as the requesting node")


def _check_slice(request: AdmissionRequest, node: str) -> None:
    for obj in (request.object, request.old):
        if obj is not None and _node_name(obj) != node:
            raise refused(
                request, "can only access ResourceSlices with the same spec.nodeName as the node"
            )


def _check_signing(request: AdmissionRequest) -> None:
    if request.operation is not Operation.CREATE or request.subresource:
        return
    spec = (request.object or {}).get("spec") or {}
    signers = {"kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"}
    if spec.get("signerName") not in signers:
        return
    if _common_name(spec.get("request") or "") != request.user.name:
        raise refused(request, "can only create a node CSR with CN=" + request.user.name)


def _common_name(request: str) -> str:
    """Of a signing request in base64 of PEM; "" for what is none."""
    try:
        parsed = x509.load_pem_x509_csr(base64.b64decode(request))
    except ValueError:
        return ""
    names = parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""
