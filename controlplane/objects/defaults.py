"""
What the API server fills in when a field was left out.

One function a kind, by hand: upstream keeps most defaults in code too, and walking a
schema for the few that are in the facts would cost every write. They expect what
:func:`controlplane.objects.walk.decode` returns (no nulls, right types).
"""

from collections.abc import Callable
from typing import Any

from controlplane.objects import defaults_cluster as cluster
from controlplane.objects import defaults_core as core
from controlplane.objects import defaults_pods as pods
from controlplane.objects import defaults_workloads as workloads
from controlplane.objects.kinds import Kind

_ADMISSION = "admissionregistration.k8s.io/v1"

_DEFAULTS: dict[tuple[str, str], Callable[[dict[str, Any]], None]] = {
    ("v1", "Pod"): pods.pod,
    ("v1", "PodTemplate"): core.pod_template,
    ("v1", "ReplicationController"): core.replication_controller,
    ("v1", "Service"): core.service,
    ("v1", "Namespace"): core.namespace,
    ("v1", "Node"): core.node,
    ("v1", "Secret"): core.secret,
    ("v1", "PersistentVolume"): core.persistent_volume,
    ("v1", "PersistentVolumeClaim"): core.persistent_volume_claim,
    ("v1", "Endpoints"): core.endpoints,
    ("v1", "LimitRange"): core.limit_range,
    ("v1", "ResourceQuota"): core.resource_quota,
    ("apps/v1", "Deployment"): workloads.deployment,
    ("apps/v1", "DaemonSet"): workloads.daemon_set,
    ("apps/v1", "StatefulSet"): workloads.stateful_set,
    ("apps/v1", "ReplicaSet"): workloads.replica_set,
    ("batch/v1", "Job"): workloads.job,
    ("batch/v1", "CronJob"): workloads.cron_job,
    ("autoscaling/v1", "HorizontalPodAutoscaler"): workloads.autoscaler_v1,
    ("autoscaling/v2", "HorizontalPodAutoscaler"): workloads.autoscaler,
    ("networking.k8s.io/v1", "NetworkPolicy"): cluster.network_policy,
    ("networking.k8s.io/v1", "IngressClass"): cluster.ingress_class,
    ("discovery.k8s.io/v1", "EndpointSlice"): cluster.endpoint_slice,
    ("storage.k8s.io/v1", "StorageClass"): cluster.storage_class,
    ("storage.k8s.io/v1", "CSIDriver"): cluster.csi_driver,
    ("storage.k8s.io/v1", "VolumeAttachment"): cluster.volume_attachment,
    ("rbac.authorization.k8s.io/v1", "RoleBinding"): cluster.role_binding,
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"): cluster.role_binding,
    ("scheduling.k8s.io/v1", "PriorityClass"): cluster.priority_class,
    (_ADMISSION, "ValidatingWebhookConfiguration"): cluster.validating_webhooks,
    (_ADMISSION, "MutatingWebhookConfiguration"): cluster.mutating_webhooks,
    (_ADMISSION, "ValidatingAdmissionPolicy"): cluster.admission_policy,
    (_ADMISSION, "MutatingAdmissionPolicy"): cluster.admission_policy,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): cluster.admission_binding,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): cluster.admission_binding,
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"): cluster.custom_resource_definition,
    ("apiregistration.k8s.io/v1", "APIService"): cluster.api_service,
    ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"): cluster.flow_schema,
    ("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration"): cluster.priority_level,
    ("resource.k8s.io/v1", "ResourceClaim"): cluster.resource_claim,
    ("resource.k8s.io/v1", "ResourceClaimTemplate"): cluster.resource_claim_template,
    ("resource.k8s.io/v1", "ResourceSlice"): cluster.resource_slice,
    ("authentication.k8s.io/v1", "TokenRequest"): cluster.token_request,
}


def apply_defaults(kind: Kind, obj: dict[str, Any]) -> None:
    """In place; custom resources have their defaults in their own schema."""
    if not kind.custom:
        apply_body_defaults(kind.api_version, kind.kind, obj)


def apply_body_defaults(api_version: str, kind: str, obj: dict[str, Any]) -> None:
    """As :func:`apply_defaults`, also of bodies that are no kinds: ``TokenRequest``."""
    function = _DEFAULTS.get((api_version, kind))
    if function is not None:
        function(obj)
