"""
What a node may: its own Node and Lease, its pods, and what those pods refer to.

RBAC cannot say "the Secrets of the pods that run there", so this walks the pods
bound to the node at each question; they are at most a few hundred, and a node
asks once for each object it mounts.

Source: the Node authorizer's documentation; reasons as kube-apiserver's.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from controlplane.api.base import Attributes, Decision, Rule, User
from controlplane.api.rbac import CompiledRule
from controlplane.client.base import Object, Reads
from controlplane.objects import meta
from controlplane.objects.kinds import Resource
from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    VOLUME_ATTACHMENTS,
)

NODES_GROUP = "system:nodes"
NODE_USER_PREFIX = "system:node:"
LEASE_NAMESPACE = "kube-node-lease"
_MIRROR = "kubernetes.io/config.mirror"

_SLICES = Resource("resource.k8s.io", "v1", "resourceslices", False)

_Answer = tuple[Decision, str]
_ALLOWED: _Answer = (Decision.ALLOW, "")


def _no(reason: str = "") -> _Answer:
    return Decision.NO_OPINION, reason


def node_of(user: User) -> str:
    """The node's name; "": not a node."""
    if NODES_GROUP in user.groups and user.name.startswith(NODE_USER_PREFIX):
        return user.name.removeprefix(NODE_USER_PREFIX)
    return ""


class NodeAuthorizer:
    """``rules``: those of the ClusterRole ``system:node``, for all that is not decided by name."""

    def __init__(self, reads: Reads, rules: Sequence[CompiledRule]) -> None:
        self._reads = reads
        self._rules = tuple(rules)
        self._by_resource: Mapping[tuple[str, str], Callable[[str, Attributes], _Answer]] = {
            ("", "secrets"): self._read_referenced,
            ("", "configmaps"): self._read_referenced,
            ("", "persistentvolumeclaims"): self._claim,
            ("", "persistentvolumes"): self._get_referenced,
            ("", "serviceaccounts"): self._service_account,
            ("", "nodes"): self._node,
            ("", "pods"): self._pod,
            ("resource.k8s.io", "resourceclaims"): self._get_referenced,
            ("resource.k8s.io", "resourceslices"): self._slice,
            ("storage.k8s.io", "volumeattachments"): self._get_referenced,
            ("storage.k8s.io", "csinodes"): self._csi_node,
            ("coordination.k8s.io", "leases"): self._lease,
        }

    def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        node = node_of(attributes.user)
        if not node:
            return _no()
        if not attributes.path:
            decide = self._by_resource.get((attributes.group, attributes.resource))
            if decide is not None:
                return decide(node, attributes)
        if any(rule.allows(attributes) for rule in self._rules):
            return _ALLOWED
        return _no()

    def rules(self, _user: User, _namespace: str) -> Iterable[Rule]:
        """None: its decisions depend on names and cannot be listed as rules."""
        return ()

    def _read_referenced(self, node: str, asked: Attributes) -> _Answer:
        if asked.verb not in {"get", "list", "watch"}:
            return _no("can only read resources of this type")
        if asked.subresource:
            return _no("cannot read subresource")
        if not asked.namespace:
            return _no("can only read namespaced object of this type")
        return self._referenced(node, asked)

    def _get_referenced(self, node: str, asked: Attributes) -> _Answer:
        if asked.verb != "get":
            return _no("can only get individual resources of this type")
        if asked.subresource:
            return _no("cannot get subresource")
        return self._referenced(node, asked)

    def _claim(self, node: str, asked: Attributes) -> _Answer:
        if asked.subresource != "status":
            return self._get_referenced(node, asked)
        if asked.verb not in {"update", "patch"}:
            return _no("can only get/update/patch this type")
        return self._referenced(node, asked)

    def _service_account(self, node: str, asked: Attributes) -> _Answer:
        if asked.verb == "get" and not asked.subresource:
            return self._read_referenced(node, asked)
        if asked.verb != "create" or not asked.name:
            return _no("can only create tokens for individual service accounts")
        if asked.subresource != "token":
            return _no("can only create token subresource of serviceaccount")
        return self._referenced(node, asked)

    def _node(self, node: str, asked: Attributes) -> _Answer:
        match asked.subresource, asked.verb:
            case "", "create" | "update" | "patch":
                return _ALLOWED
            case "status", "update" | "patch":
                return _ALLOWED
            case "", "get" | "list" | "watch":
                if asked.name == node:
                    return _ALLOWED
                if not asked.name:
                    return _no(f"node '{node}' cannot read all nodes, only its own Node object")
                return _no(f"node '{node}' cannot read '{asked.name}', only its own Node object")
            case _:
                return _no()

    def _pod(self, node: str, asked: Attributes) -> _Answer:
        match asked.subresource, asked.verb:
            case "", "get":
                return self._get_referenced(node, asked)
            case "", "list" | "watch":
                if _selects(asked.field_selector, "spec.nodeName", node):
                    return _ALLOWED
                if asked.name:
                    return self._referenced(node, asked)
                return _no("can only list/watch pods with spec.nodeName field selector")
            case "", "create" | "delete":
                return _ALLOWED
            case "status", "update" | "patch":
                return _ALLOWED
            case "eviction", "create":
                return _ALLOWED
            case _:
                return _no()

    def _lease(self, node: str, asked: Attributes) -> _Answer:
        if asked.verb not in {"get", "create", "update", "patch", "delete"}:
            return _no("can only get, create, update, patch, or delete a node lease")
        if asked.namespace != LEASE_NAMESPACE:
            return _no(f'can only access leases in the "{LEASE_NAMESPACE}" system namespace')
        if asked.verb != "create" and asked.name != node:
            return _no("can only access node lease with the same name as the requesting node")
        return _ALLOWED

    def _csi_node(self, node: str, asked: Attributes) -> _Answer:
        if asked.verb not in {"get", "create", "update", "patch", "delete"}:
            return _no("can only get, create, update, patch, or delete a CSINode")
        if asked.subresource:
            return _no("cannot authorize CSINode subresources")
        if asked.verb != "create" and asked.name != node:
            return _no("can only access CSINode with the same name as the requesting node")
        return _ALLOWED

    def _slice(self, node: str, asked: Attributes) -> _Answer:
        if asked.subresource:
            return _no("cannot authorize ResourceSlice subresources")
        match asked.verb:
            case "create":
                return _ALLOWED
            case "list" | "watch" | "deletecollection":
                if _selects(asked.field_selector, "spec.nodeName", node):
                    return _ALLOWED
                return _no(
                    "can only list/watch/deletecollection resourceslices with nodeName "
                    "field selector"
                )
            case "get" | "update" | "patch" | "delete":
                found = self._reads.get(_SLICES, "", asked.name)
                mine = found is not None and (found.get("spec") or {}).get("nodeName") == node
                return _ALLOWED if mine else _unrelated(node)
            case _:
                return _no()

    def _referenced(self, node: str, asked: Attributes) -> _Answer:
        if not asked.name:
            return _no("No Object name found")
        wanted = (asked.resource, asked.namespace, asked.name)
        if asked.resource == "volumeattachments":
            found = self._reads.get(VOLUME_ATTACHMENTS, "", asked.name)
            related = found is not None and (found.get("spec") or {}).get("nodeName") == node
        else:
            related = any(wanted in self._needs(pod) for pod in self._reads.on_node(node))
        return _ALLOWED if related else _unrelated(node)

    def _needs(self, pod: Object) -> Iterator[tuple[str, str, str]]:
        """All objects a pod's node must see for it: resource, namespace, name."""
        namespace = meta.namespace(pod)
        yield "pods", namespace, meta.name(pod)
        # A node makes mirror pods itself; through them it could name any Secret.
        if _MIRROR in meta.annotations(pod):
            return
        for resource, name in pod_references(pod):
            yield resource, namespace, name
            if resource == "persistentvolumeclaims":
                yield from self._volume_of(namespace, name)

    def _volume_of(self, namespace: str, claim: str) -> Iterator[tuple[str, str, str]]:
        found = self._reads.get(PERSISTENT_VOLUME_CLAIMS, namespace, claim)
        volume = str(((found or {}).get("spec") or {}).get("volumeName") or "")
        if not volume:
            return
        yield "persistentvolumes", "", volume
        bound = self._reads.get(PERSISTENT_VOLUMES, "", volume) or {}
        for secret in _secrets_in_volume(bound.get("spec") or {}):
            yield "secrets", secret.get("namespace") or namespace, secret["name"]


def _unrelated(node: str) -> _Answer:
    return _no(f"no relationship found between node '{node}' and this object")


def _selects(field_selector: str, field: str, value: str) -> bool:
    terms = {term.replace("==", "=", 1) for term in field_selector.split(",")}
    return f"{field}={value}" in terms


def pod_references(pod: Object) -> Iterator[tuple[str, str]]:
    """Resource and name of all in the pod's namespace that its spec names."""
    spec = pod.get("spec") or {}
    if account := spec.get("serviceAccountName"):
        yield "serviceaccounts", account
    for secret in spec.get("imagePullSecrets") or ():
        if secret.get("name"):
            yield "secrets", secret["name"]
    for volume in spec.get("volumes") or ():
        yield from _volume_references(volume, meta.name(pod))
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for container in spec.get(kind) or ():
            yield from _container_references(container)
    made = (pod.get("status") or {}).get("resourceClaimStatuses") or ()
    for claim in (*made, *(spec.get("resourceClaims") or ())):
        if claim.get("resourceClaimName"):
            yield "resourceclaims", claim["resourceClaimName"]


def _volume_references(volume: Mapping[str, Any], pod_name: str) -> Iterator[tuple[str, str]]:
    if "persistentVolumeClaim" in volume:
        yield "persistentvolumeclaims", volume["persistentVolumeClaim"].get("claimName", "")
    if "ephemeral" in volume:
        yield "persistentvolumeclaims", f"{pod_name}-{volume['name']}"
    if "secret" in volume:
        yield "secrets", volume["secret"].get("secretName", "")
    if "configMap" in volume:
        yield "configmaps", volume["configMap"].get("name", "")
    for source in (volume.get("projected") or {}).get("sources") or ():
        if "secret" in source:
            yield "secrets", source["secret"].get("name", "")
        if "configMap" in source:
            yield "configmaps", source["configMap"].get("name", "")
    for kind, field in _VOLUME_SECRETS:
        secret = (volume.get(kind) or {}).get(field)
        if secret:
            yield "secrets", secret if isinstance(secret, str) else secret.get("name", "")


_VOLUME_SECRETS = (
    ("csi", "nodePublishSecretRef"),
    ("azureFile", "secretName"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
)
_PERSISTENT_VOLUME_SECRETS = (
    ("azureFile", "secretName"),
    ("cephfs", "secretRef"),
    ("cinder", "secretRef"),
    ("csi", "nodePublishSecretRef"),
    ("csi", "nodeStageSecretRef"),
    ("csi", "nodeExpandSecretRef"),
    ("flexVolume", "secretRef"),
    ("iscsi", "secretRef"),
    ("rbd", "secretRef"),
    ("scaleIO", "secretRef"),
    ("storageos", "secretRef"),
)


def _secrets_in_volume(spec: Mapping[str, Any]) -> Iterator[Mapping[str, str]]:
    for kind, field in _PERSISTENT_VOLUME_SECRETS:
        source = spec.get(kind) or {}
        secret = source.get(field)
        if isinstance(secret, str):
            yield {"name": secret, "namespace": source.get("secretNamespace") or ""}
        elif secret:
            yield secret


def _container_references(container: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom") or ():
        if "secretRef" in source:
            yield "secrets", source["secretRef"].get("name", "")
        if "configMapRef" in source:
            yield "configmaps", source["configMapRef"].get("name", "")
    for variable in container.get("env") or ():
        source = variable.get("valueFrom") or {}
        if "secretKeyRef" in source:
            yield "secrets", source["secretKeyRef"].get("name", "")
        if "configMapKeyRef" in source:
            yield "configmaps", source["configMapKeyRef"].get("name", "")
