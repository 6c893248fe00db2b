"""
Classes and marks that objects get when their author says nothing.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.api.admission.plugin import Plugin, created, old_spec, refused, spec_of
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.client.base import Object
from controlplane.objects import meta, quantity
from controlplane.objects.resources import INGRESS_CLASSES, STORAGE_CLASSES

_CLAIMS = "persistentvolumeclaims"
_STORAGE_DEFAULTS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_STORAGE_ANNOTATION = "volume.beta.kubernetes.io/storage-class"
_INGRESS_DEFAULTS = ("ingressclass.kubernetes.io/is-default-class",)
_INGRESS_ANNOTATION = "kubernetes.io/ingress.class"
_NOT_READY = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_PROTECTION = {
    "persistentvolumes": "kubernetes.io/pv-protection",
    "persistentvolumeclaims": "kubernetes.io/pvc-protection",
    "volumeattributesclasses.storage.k8s.io": "kubernetes.io/vac-protection",
}


class TaintNodesByCondition(Plugin):
    """A new node takes no pods until somebody has seen it ready."""

    name = "TaintNodesByCondition"

    async def mutate(self, request: AdmissionRequest) -> None:
        node = created(request, "nodes")
        if node is None:
            return
        spec = spec_of(node)
        taints = spec.get("taints") or []
        if not any(_is_not_ready(taint) for taint in taints):
            spec["taints"] = [*taints, dict(_NOT_READY)]


def _is_not_ready(taint: dict[str, Any]) -> bool:
    return all(taint.get(key) == value for key, value in _NOT_READY.items())


class DefaultStorageClass(Plugin):
    name = "DefaultStorageClass"

    async def mutate(self, request: AdmissionRequest) -> None:
        claim = created(request, _CLAIMS)
        if claim is None:
            return
        # An empty name is a choice too: no class.
        if "storageClassName" in spec_of(claim) and claim["spec"]["storageClassName"] is not None:
            return
        if _STORAGE_ANNOTATION in meta.annotations(claim):
            return
        default = newest_default(request.reads.list(STORAGE_CLASSES), _STORAGE_DEFAULTS)
        if default is not None:
            claim["spec"]["storageClassName"] = meta.name(default)


class DefaultIngressClass(Plugin):
    name = "DefaultIngressClass"

    async def mutate(self, request: AdmissionRequest) -> None:
        ingress = created(request, "ingresses.networking.k8s.io")
        if ingress is None or spec_of(ingress).get("ingressClassName") is not None:
            return
        if _INGRESS_ANNOTATION in meta.annotations(ingress):
            return
        default = newest_default(request.reads.list(INGRESS_CLASSES), _INGRESS_DEFAULTS)
        if default is not None:
            ingress["spec"]["ingressClassName"] = meta.name(default)


def newest_default(classes: Sequence[Object], annotations: Sequence[str]) -> Object | None:
    """The class marked as default; of several the newest, of equally old the first by name."""
    marked = [
        c for c in classes if any(meta.annotations(c).get(mark) == "true" for mark in annotations)
    ]
    if not marked:
        return None
    newest = max(meta.metadata(c).get("creationTimestamp") or "" for c in marked)
    return min(
        (c for c in marked if (meta.metadata(c).get("creationTimestamp") or "") == newest),
        key=meta.name,
    )


class StorageObjectInUseProtection(Plugin):
    """Volumes and claims stay until nobody uses them: a controller takes the finalizer off."""

    name = "StorageObjectInUseProtection"

    async def mutate(self, request: AdmissionRequest) -> None:
        finalizer = _PROTECTION.get(request.kind.group_resource)
        if finalizer is None:
            return
        obj = created(request, request.kind.group_resource)
        if obj is None:
            return
        metadata = obj.setdefault("metadata", {})
        finalizers = metadata.get("finalizers") or []
        if finalizer not in finalizers:
            metadata["finalizers"] = [*finalizers, finalizer]


class PersistentVolumeClaimResize(Plugin):
    """A claim grows only where its class says that volumes can."""

    name = "PersistentVolumeClaimResize"

    async def validate(self, request: AdmissionRequest) -> None:
        if request.kind.group_resource != _CLAIMS or request.subresource:
            return
        if request.operation is not Operation.UPDATE or request.object is None:
            return
        new, old = request.object.get("spec") or {}, old_spec(request)
        if quantity.compare(_size(new), _size(old)) <= 0:
            return
        if ((request.old or {}).get("status") or {}).get("phase") != "Bound":
            raise refused(request, "Only bound persistent volume claims can be expanded")
        if not self._can_grow(request, new, old):
            raise refused(
                request,
                "only dynamically provisioned pvc can be resized and the storageclass that "
                "provisions the pvc must support resize",
            )

    def _can_grow(self, request: AdmissionRequest, new: Object, old: Object) -> bool:
        name = new.get("storageClassName") or ""
        if not name or name != old.get("storageClassName"):
            return False
        found = request.reads.get(STORAGE_CLASSES, "", name)
        return found is not None and bool(found.get("allowVolumeExpansion"))


def _size(spec: Object) -> str:
    return str(((spec.get("resources") or {}).get("requests") or {}).get("storage") or "0")
