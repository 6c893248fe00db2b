"""
The rules for built-in kinds: what an object must be to be stored, and how it may change.

Objects come decoded, defaulted and with their metadata filled in, as they are about
to be stored. Kinds without rules of their own get those of metadata, and (given
their schema) required fields and enumerations. Custom resources have
their schema; only their metadata is checked here.
"""

from collections.abc import Callable, Iterator

from controlplane.objects.errors import FieldError, not_supported, required
from controlplane.objects.kinds import Kind
from controlplane.objects.schema import Schema, Type
from controlplane.objects.validation import (
    access,
    cluster,
    data,
    metadata,
    networking,
    pods,
    policy,
    registrations,
    services,
    storage,
    workloads,
)
from controlplane.objects.validation.checks import Found, Object

Create = Callable[[Object], Found]
Update = Callable[[Object, Object], Found]


def validate_create(kind: Kind, obj: Object, *, schema: Schema | None = None) -> list[FieldError]:
    """Everything that is wrong with a new object; empty: it may be stored."""
    errors = list(metadata.created(kind, obj))
    if kind.custom:
        return errors
    if rule := _CREATE.get((kind.group, kind.kind)):
        return errors + list(rule(obj))
    return errors + (list(_by_schema(obj, schema, "")) if schema else [])


def validate_update(
    kind: Kind, new: Object, old: Object, *, schema: Schema | None = None
) -> list[FieldError]:
    """Everything that is wrong with a change to an object outside its subresources."""
    errors = list(metadata.updated(kind, new, old))
    if kind.custom:
        return errors
    key = (kind.group, kind.kind)
    if update := _UPDATE.get(key):
        return errors + list(update(new, old))
    if rule := _CREATE.get(key):
        return errors + list(rule(new))
    return errors + (list(_by_schema(new, schema, "")) if schema else [])


def validate_status(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    """
    The ``status`` subresource, and approval.

    Metadata and little else, since controllers of our own write it.
    """
    errors = list(metadata.updated(kind, new, old))
    if (kind.group, kind.kind) == ("certificates.k8s.io", "CertificateSigningRequest"):
        errors += cluster.signing_request_decided(new, old)
    return errors


def validate_ephemeral_containers(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    """The ``ephemeralcontainers`` subresource of pods."""
    return [*metadata.updated(kind, new, old), *pods.ephemeral_containers_updated(new, old)]


def validate_resize(kind: Kind, new: Object, old: Object) -> list[FieldError]:
    """The ``resize`` subresource of pods."""
    return [*metadata.updated(kind, new, old), *pods.resized(new, old)]


def _by_schema(obj: Object, schema: Schema, path: str) -> Iterator[FieldError]:
    """Required fields of nested objects, and enumerations."""
    for name, value in obj.items():
        field = schema.fields.get(name)
        if field is None or (not path and name in ("apiVersion", "kind", "metadata", "status")):
            continue
        where = f"{path}.{name}" if path else name
        yield from _value_by_schema(value, field.schema, where)


def _value_by_schema(value: object, schema: Schema, path: str) -> Iterator[FieldError]:
    if schema.enum and value not in schema.enum:
        yield not_supported(path, value, sorted(map(str, schema.enum)))
    if schema.type is Type.OBJECT and isinstance(value, dict):
        yield from _missing(value, schema, path)
        yield from _by_schema(value, schema, path)
    elif schema.type is Type.LIST and isinstance(value, list):
        items = schema.items
        for index, item in enumerate(value):
            yield from _value_by_schema(item, items, f"{path}[{index}]")


# Only what is surely wrong when it is empty; the Go types call far more "required".
_IDENTIFYING = frozenset({"name", "key", "driver", "operator"})


def _missing(value: Object, schema: Schema, path: str) -> Iterator[FieldError]:
    for name, field in schema.fields.items():
        empty = value.get(name) in (None, "")
        if field.required and empty and not field.has_default and name in _IDENTIFYING:
            yield required(f"{path}.{name}")


def _metadata_only(_obj: Object) -> Found:
    yield from ()


_RBAC = "rbac.authorization.k8s.io"
_NETWORKING = "networking.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"

_CREATE: dict[tuple[str, str], Create] = {
    ("", "Pod"): pods.created,
    ("", "PodTemplate"): lambda obj: pods.template(obj.get("template"), "template"),
    ("", "ReplicationController"): workloads.replication_controller,
    ("", "Service"): services.service,
    ("", "Endpoints"): services.endpoints,
    ("", "ConfigMap"): data.config_map,
    ("", "Secret"): data.secret,
    ("", "ServiceAccount"): _metadata_only,
    ("", "Namespace"): cluster.namespace,
    ("", "Node"): cluster.node,
    ("", "Event"): cluster.event,
    ("", "PersistentVolume"): storage.persistent_volume,
    ("", "PersistentVolumeClaim"): storage.claim,
    ("", "ResourceQuota"): policy.quota,
    ("", "LimitRange"): policy.limit_range,
    ("apps", "Deployment"): workloads.deployment,
    ("apps", "ReplicaSet"): workloads.replica_set,
    ("apps", "StatefulSet"): workloads.stateful_set,
    ("apps", "DaemonSet"): workloads.daemon_set,
    ("apps", "ControllerRevision"): workloads.controller_revision,
    ("batch", "Job"): workloads.job,
    ("batch", "CronJob"): workloads.cron_job,
    ("autoscaling", "HorizontalPodAutoscaler"): policy.autoscaler,
    ("policy", "PodDisruptionBudget"): policy.disruption_budget,
    (_RBAC, "Role"): access.role,
    (_RBAC, "ClusterRole"): access.cluster_role,
    (_RBAC, "RoleBinding"): access.binding,
    (_RBAC, "ClusterRoleBinding"): access.binding,
    (_NETWORKING, "Ingress"): networking.ingress,
    (_NETWORKING, "IngressClass"): networking.ingress_class,
    (_NETWORKING, "NetworkPolicy"): networking.network_policy,
    ("discovery.k8s.io", "EndpointSlice"): services.endpoint_slice,
    ("storage.k8s.io", "StorageClass"): storage.storage_class,
    ("scheduling.k8s.io", "PriorityClass"): cluster.priority_class,
    ("node.k8s.io", "RuntimeClass"): cluster.runtime_class,
    ("coordination.k8s.io", "Lease"): cluster.lease,
    ("events.k8s.io", "Event"): cluster.event,
    ("certificates.k8s.io", "CertificateSigningRequest"): cluster.signing_request,
    (_ADMISSION, "MutatingWebhookConfiguration"): registrations.webhooks,
    (_ADMISSION, "ValidatingWebhookConfiguration"): registrations.webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): registrations.validating_policy,
    (_ADMISSION, "MutatingAdmissionPolicy"): registrations.mutating_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): registrations.policy_binding,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): registrations.policy_binding,
    ("apiregistration.k8s.io", "APIService"): registrations.api_service,
}

_UPDATE: dict[tuple[str, str], Update] = {
    ("", "Pod"): pods.updated,
    ("", "Service"): services.service_updated,
    ("", "ConfigMap"): data.config_map_updated,
    ("", "Secret"): data.secret_updated,
    ("", "Node"): cluster.node_updated,
    ("", "PersistentVolume"): storage.persistent_volume_updated,
    ("", "PersistentVolumeClaim"): storage.claim_updated,
    ("", "ResourceQuota"): policy.quota_updated,
    ("apps", "Deployment"): workloads.deployment_updated,
    ("apps", "ReplicaSet"): workloads.replica_set_updated,
    ("apps", "StatefulSet"): workloads.stateful_set_updated,
    ("apps", "DaemonSet"): workloads.daemon_set_updated,
    ("apps", "ControllerRevision"): workloads.controller_revision_updated,
    ("batch", "Job"): workloads.job_updated,
    (_RBAC, "RoleBinding"): access.binding_updated,
    (_RBAC, "ClusterRoleBinding"): access.binding_updated,
    (_NETWORKING, "IngressClass"): networking.ingress_class_updated,
    ("discovery.k8s.io", "EndpointSlice"): services.endpoint_slice_updated,
    ("storage.k8s.io", "StorageClass"): storage.storage_class_updated,
    ("scheduling.k8s.io", "PriorityClass"): cluster.priority_class_updated,
    ("node.k8s.io", "RuntimeClass"): cluster.runtime_class_updated,
    ("certificates.k8s.io", "CertificateSigningRequest"): cluster.signing_request_updated,
}
