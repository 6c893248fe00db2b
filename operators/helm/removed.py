"""
API versions that Kubernetes no longer serves, and what serves the same objects now. Pure.

Source: the Kubernetes "Deprecated API Migration Guide", up to v1.32. Only the name of the
version is changed: it says which object is meant; how the object shall look, the chart says.
"""

import re

_APPS = ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet")
_STORAGE = ("CSIDriver", "CSINode", "CSIStorageCapacity", "StorageClass", "VolumeAttachment")
_RBAC = ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
_WEBHOOKS = ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration")
_REVIEWS = ("LocalSubjectAccessReview", "SelfSubjectAccessReview", "SubjectAccessReview")
_FLOWS = ("FlowSchema", "PriorityLevelConfiguration")
_CHANGES: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("extensions/v1beta1", _APPS, "apps/v1"),
    ("extensions/v1beta1", ("Ingress", "NetworkPolicy"), "networking.k8s.io/v1"),
    ("apps/v1beta1", _APPS, "apps/v1"),
    ("apps/v1beta2", _APPS, "apps/v1"),
    ("networking.k8s.io/v1beta1", ("Ingress", "IngressClass"), "networking.k8s.io/v1"),
    ("policy/v1beta1", ("PodDisruptionBudget",), "policy/v1"),
    ("batch/v1beta1", ("CronJob",), "batch/v1"),
    ("batch/v2alpha1", ("CronJob",), "batch/v1"),
    ("autoscaling/v2beta1", ("HorizontalPodAutoscaler",), "autoscaling/v2"),
    ("autoscaling/v2beta2", ("HorizontalPodAutoscaler",), "autoscaling/v2"),
    ("rbac.authorization.k8s.io/v1alpha1", _RBAC, "rbac.authorization.k8s.io/v1"),
    ("rbac.authorization.k8s.io/v1beta1", _RBAC, "rbac.authorization.k8s.io/v1"),
    ("admissionregistration.k8s.io/v1beta1", _WEBHOOKS, "admissionregistration.k8s.io/v1"),
    ("apiextensions.k8s.io/v1beta1", ("CustomResourceDefinition",), "apiextensions.k8s.io/v1"),
    ("apiregistration.k8s.io/v1beta1", ("APIService",), "apiregistration.k8s.io/v1"),
    ("authentication.k8s.io/v1beta1", ("TokenReview",), "authentication.k8s.io/v1"),
    ("authorization.k8s.io/v1beta1", _REVIEWS, "authorization.k8s.io/v1"),
    ("certificates.k8s.io/v1beta1", ("CertificateSigningRequest",), "certificates.k8s.io/v1"),
    ("coordination.k8s.io/v1beta1", ("Lease",), "coordination.k8s.io/v1"),
    ("discovery.k8s.io/v1beta1", ("EndpointSlice",), "discovery.k8s.io/v1"),
    ("events.k8s.io/v1beta1", ("Event",), "events.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta1", _FLOWS, "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta2", _FLOWS, "flowcontrol.apiserver.k8s.io/v1"),
    ("flowcontrol.apiserver.k8s.io/v1beta3", _FLOWS, "flowcontrol.apiserver.k8s.io/v1"),
    ("node.k8s.io/v1beta1", ("RuntimeClass",), "node.k8s.io/v1"),
    ("scheduling.k8s.io/v1alpha1", ("PriorityClass",), "scheduling.k8s.io/v1"),
    ("scheduling.k8s.io/v1beta1", ("PriorityClass",), "scheduling.k8s.io/v1"),
    ("storage.k8s.io/v1beta1", _STORAGE, "storage.k8s.io/v1"),
)
_NOW = {(old, kind): new for old, kinds, new in _CHANGES for kind in kinds}
# Gone without anything in their place: no such object exists any more.
_GONE = frozenset(
    {("policy/v1beta1", "PodSecurityPolicy"), ("extensions/v1beta1", "PodSecurityPolicy")}
)
_BREAK = re.compile(r"^---[^\n]*\n", re.MULTILINE)
_VERSION = re.compile(r"^apiVersion:[ \t]*[\"']?([^\s\"'#]+)[\"']?", re.MULTILINE)
_KIND = re.compile(r"^kind:[ \t]*[\"']?([^\s\"'#]+)[\"']?", re.MULTILINE)


def convert(manifest: str) -> str:
    """``manifest``: YAML documents, as Helm keeps them. The same text where nothing is removed."""
    documents = _BREAK.split(manifest)
    converted = [_document(document) for document in documents]
    if converted == documents:
        return manifest
    return "".join(f"---\n{document}" for document in converted if document.strip())


def _document(text: str) -> str:
    version, kind = _VERSION.search(text), _KIND.search(text)
    if not version or not kind:
        return text
    named = version[1], kind[1]
    if named in _GONE:
        return ""
    if replacement := _NOW.get(named):
        return f"{text[: version.start()]}apiVersion: {replacement}{text[version.end() :]}"
    return text
