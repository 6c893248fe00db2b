"""
What the server itself sets on an object, by kind, before it is validated and stored.

A create begins with an empty status (whatever the client sent); an update of
the object cannot touch its status, and an update of the status nothing else;
the generation counts the changes of what the user wants. What differs from
kind to kind stands in the tables here, as upstream's strategies have it.
"""

import base64
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api.strategy_pods import create_job, create_pod
from controlplane.objects.kinds import Kind

Object = Mapping[str, Any]

# What an object of the kind may be created by: PUT to a name that does not exist.
CREATE_ON_UPDATE = frozenset(
    {
        "Service",
        "Endpoints",
        "Event",
        "LimitRange",
        "Event.events.k8s.io",
        "Lease.coordination.k8s.io",
        "Role.rbac.authorization.k8s.io",
        "RoleBinding.rbac.authorization.k8s.io",
        "ClusterRole.rbac.authorization.k8s.io",
        "ClusterRoleBinding.rbac.authorization.k8s.io",
    }
)
# PUT needs a resourceVersion; custom resources do, too.
CONDITIONAL_UPDATE = frozenset(
    {
        "APIService.apiregistration.k8s.io",
        "CustomResourceDefinition.apiextensions.k8s.io",
        "IPAddress.networking.k8s.io",
        "Lease.coordination.k8s.io",
        "PodDisruptionBudget.policy",
        "CSINode.storage.k8s.io",
        "CSIDriver.storage.k8s.io",
        "VolumeAttachment.storage.k8s.io",
        "FlowSchema.flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
    }
)
# Without a policy in the options, dependents of these stay (for old clients).
ORPHANS_BY_DEFAULT = frozenset({"Job.batch", "ReplicationController"})
# DELETE of these answers with the object, of others with a Status.
RETURNS_DELETED = frozenset(
    {
        "Pod",
        "Service",
        "ServiceAccount",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ResourceQuota",
        "CSIDriver.storage.k8s.io",
        "CSINode.storage.k8s.io",
        "StorageClass.storage.k8s.io",
        "VolumeAttachment.storage.k8s.io",
        "VolumeAttributesClass.storage.k8s.io",
        "ResourceClaim.resource.k8s.io",
    }
)
_GENERATION = frozenset(
    {
        "Pod",
        "PodTemplate",
        "ReplicationController",
        "Deployment.apps",
        "ReplicaSet.apps",
        "DaemonSet.apps",
        "StatefulSet.apps",
        "Job.batch",
        "CronJob.batch",
        "Ingress.networking.k8s.io",
        "IngressClass.networking.k8s.io",
        "NetworkPolicy.networking.k8s.io",
        "PodDisruptionBudget.policy",
        "EndpointSlice.discovery.k8s.io",
        "FlowSchema.flowcontrol.apiserver.k8s.io",
        "PriorityLevelConfiguration.flowcontrol.apiserver.k8s.io",
        "PriorityClass.scheduling.k8s.io",
        "MutatingWebhookConfiguration.admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration.admissionregistration.k8s.io",
        "MutatingAdmissionPolicy.admissionregistration.k8s.io",
        "MutatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        "ValidatingAdmissionPolicy.admissionregistration.k8s.io",
        "ValidatingAdmissionPolicyBinding.admissionregistration.k8s.io",
        "CustomResourceDefinition.apiextensions.k8s.io",
        "CSIDriver.storage.k8s.io",
        "DeviceClass.resource.k8s.io",
        "ResourceSlice.resource.k8s.io",
    }
)
# The status that a new object shows, where that is not empty.
_FIRST_STATUS: Mapping[str, Object] = {
    "Namespace": {"phase": "Active"},
    "PersistentVolume": {"phase": "Pending"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "Service": {"loadBalancer": {}},
    "Ingress.networking.k8s.io": {"loadBalancer": {}},
    "ReplicationController": {"replicas": 0},
    "ReplicaSet.apps": {"replicas": 0},
    "StatefulSet.apps": {"replicas": 0, "availableReplicas": 0},
    "DaemonSet.apps": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "PodDisruptionBudget.policy": {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    },
    "HorizontalPodAutoscaler.autoscaling": {"currentReplicas": 0, "desiredReplicas": 0},
}
_LABELLED_BY_TEMPLATE = frozenset({"Job.batch", "ReplicationController"})
# Their status may be given at the create.
_STATUS_AT_CREATE = frozenset({"Node"})


def has_generation(kind: Kind) -> bool:
    return kind.custom or kind.group_kind in _GENERATION


def prepare_create(kind: Kind, obj: dict[str, Any]) -> None:
    """Change a new object, which has its name and uid already, in place."""
    name = kind.group_kind
    if "status" in kind.subresources and name not in _STATUS_AT_CREATE:
        if kind.custom:
            obj.pop("status", None)
        else:
            obj["status"] = dict(_FIRST_STATUS.get(name, {}))
    if has_generation(kind):
        obj["metadata"]["generation"] = 1
    prepare = _CREATE.get(name)
    if prepare is not None:
        prepare(obj)


def prepare_update(kind: Kind, new: dict[str, Any], old: Object) -> None:
    """Change the new state of an object, in place, so that it can follow the old one."""
    name = kind.group_kind
    if "status" in kind.subresources:
        _keep(new, old, "status")
    prepare = _UPDATE.get(name)
    if prepare is not None:
        prepare(new, old)
    _generation(kind, new, old)


def prepare_status(kind: Kind, new: dict[str, Any], old: Object) -> None:
    """A write to the status subresource changes the status and some metadata only."""
    for field in [field for field in new if field not in ("metadata", "status")]:
        if field not in ("kind", "apiVersion"):
            del new[field]
    kept_fields = ("metadata", "status", "kind", "apiVersion")
    new |= {field: value for field, value in old.items() if field not in kept_fields}
    metadata, before = new["metadata"], old["metadata"]
    if not metadata.get("labels") and kind.group_kind in _LABELLED_BY_TEMPLATE:
        _keep(metadata, before, "labels")  # their defaults would bring them back at the next write
    _keep(metadata, before, "ownerReferences")
    _keep(metadata, before, "finalizers")
    if kind.custom:
        kept = {k: v for k, v in before.items() if k != "managedFields"}
        kept["managedFields"] = metadata.get("managedFields")
        new["metadata"] = {k: v for k, v in kept.items() if v is not None}
    _keep(new["metadata"], before, "generation")


def _keep(new: dict[str, Any], old: Object, field: str) -> None:
    if field in old:
        new[field] = old[field]
    else:
        new.pop(field, None)


def _generation(kind: Kind, new: dict[str, Any], old: Object) -> None:
    if not has_generation(kind):
        return
    generation = old["metadata"].get("generation") or 0
    if _wish(kind, new) != _wish(kind, old):
        generation += 1
    if generation:
        new["metadata"]["generation"] = generation


def _wish(kind: Kind, obj: Object) -> list[Any]:
    """What the generation counts changes of."""
    skipped = {"metadata", "status", "kind", "apiVersion"}
    if kind.custom and "status" not in kind.subresources:
        skipped.discard("status")
    wish: list[Any] = [{k: v for k, v in obj.items() if k not in skipped}]
    if kind.kind == "Deployment":
        wish.append(obj["metadata"].get("annotations") or {})
    elif kind.kind == "EndpointSlice":
        wish.append(obj["metadata"].get("labels") or {})
    return wish


# One kind each


def _create_namespace(namespace: dict[str, Any]) -> None:
    spec = namespace["spec"] = dict(namespace.get("spec") or {})
    finalizers = list(spec.get("finalizers") or ())
    if "kubernetes" not in finalizers:
        finalizers.append("kubernetes")
    spec["finalizers"] = finalizers
    _label_namespace(namespace)


def _label_namespace(namespace: dict[str, Any]) -> None:
    metadata = namespace["metadata"]
    if metadata.get("name"):
        labels = dict(metadata.get("labels") or {})
        labels["kubernetes.io/metadata.name"] = metadata["name"]
        metadata["labels"] = labels


def _update_namespace(new: dict[str, Any], old: Object) -> None:
    _keep(new.setdefault("spec", {}), old.get("spec") or {}, "finalizers")
    _label_namespace(new)


def merge_string_data(secret: dict[str, Any]) -> None:
    """``stringData`` is a way to write ``data``; it is never stored."""
    given = secret.pop("stringData", None)
    if given:
        data = dict(secret.get("data") or {})
        for key, value in given.items():
            data[key] = base64.b64encode(value.encode()).decode()
        secret["data"] = data


def _create_definition(definition: dict[str, Any]) -> None:
    versions = definition.get("spec", {}).get("versions") or ()
    stored = [version["name"] for version in versions if version.get("storage")]
    definition["status"] = {
        "conditions": None,
        "acceptedNames": {"plural": "", "kind": ""},
        "storedVersions": stored,
    }


def _update_definition(new: dict[str, Any], _old: Object) -> None:
    """A version that becomes the storage version counts as stored from now on."""
    status = dict(new.get("status") or {})
    stored = list(status.get("storedVersions") or ())
    for version in new.get("spec", {}).get("versions") or ():
        if version.get("storage") and version["name"] not in stored:
            stored.append(version["name"])
    status["storedVersions"] = stored
    new["status"] = status


def _update_request(new: dict[str, Any], old: Object) -> None:
    """Nothing of a certificate signing request can be changed but its metadata."""
    _keep(new, old, "spec")
    _keep(new, old, "status")


def _update_pod(new: dict[str, Any], old: Object) -> None:
    spec, before = new.setdefault("spec", {}), old.get("spec") or {}
    _keep(spec, before, "ephemeralContainers")


def _update_node(new: dict[str, Any], old: Object) -> None:
    """A CIDR that was given stays: clients that do not know the field leave it out."""
    spec, before = new.setdefault("spec", {}), old.get("spec") or {}
    for field in ("podCIDR", "podCIDRs", "providerID"):
        if not spec.get(field):
            _keep(spec, before, field)


# Counts changes of the template; long deprecated, and still on every DaemonSet and its pods.
_TEMPLATE_GENERATION = "deprecated.daemonset.template.generation"


def _create_daemon_set(daemon_set: dict[str, Any]) -> None:
    given = (daemon_set["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "")
    _set_template_generation(daemon_set, max(_number(given), 1))


def _update_daemon_set(new: dict[str, Any], old: Object) -> None:
    before = (old["metadata"].get("annotations") or {}).get(_TEMPLATE_GENERATION, "")
    same = (new.get("spec") or {}).get("template") == (old.get("spec") or {}).get("template")
    _set_template_generation(new, _number(before) + (0 if same else 1))


def _set_template_generation(daemon_set: dict[str, Any], number: int) -> None:
    metadata = daemon_set["metadata"]
    annotations = metadata.get("annotations") or {}
    metadata["annotations"] = {**annotations, _TEMPLATE_GENERATION: str(number)}


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


_CREATE: Mapping[str, Callable[[dict[str, Any]], None]] = {
    "Namespace": _create_namespace,
    "Pod": create_pod,
    "Job.batch": create_job,
    "DaemonSet.apps": _create_daemon_set,
    "CustomResourceDefinition.apiextensions.k8s.io": _create_definition,
}
_UPDATE: Mapping[str, Callable[[dict[str, Any], Object], None]] = {
    "Namespace": _update_namespace,
    "Pod": _update_pod,
    "Node": _update_node,
    "DaemonSet.apps": _update_daemon_set,
    "CertificateSigningRequest.certificates.k8s.io": _update_request,
    "CustomResourceDefinition.apiextensions.k8s.io": _update_definition,
}


def stamp_request(new: dict[str, Any], old: Object, now: str) -> None:
    """The conditions of a certificate signing request say when they came, if nobody did."""
    before = {c.get("type"): c for c in (old.get("status") or {}).get("conditions") or ()}
    for condition in (new.get("status") or {}).get("conditions") or ():
        was = before.get(condition.get("type"), {})
        condition.setdefault("lastUpdateTime", was.get("lastUpdateTime") or now)
        if "lastTransitionTime" not in condition:
            same = was.get("status") == condition.get("status")
            stamp = was.get("lastTransitionTime") if same else None
            condition["lastTransitionTime"] = stamp or now


def reset_fields(kind: Kind, subresource: str) -> frozenset[tuple[str, ...]]:
    """What a write there takes from the old object: nobody comes to own it."""
    if subresource == "status":
        return frozenset({("spec",), ("metadata",)} if kind.custom else {("spec",)})
    if not subresource and "status" in kind.subresources and kind.kind not in _STATUS_AT_CREATE:
        return frozenset({("status",)})
    return frozenset()
