"""
Objects as a ``meta.k8s.io/v1`` Table, for ``kubectl get``.

Built-in kinds have printers, custom resources their ``additionalPrinterColumns``
(name and age where there are none); the few built-in kinds without a printer
show when they were created. Ages are rendered here, by the server's clock.
Source: the API conventions, "Receiving resources as Tables".
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson

from controlplane.objects.jsonpath import JSONPathError, Path, compile_path
from controlplane.objects.kinds import Column, Kind
from controlplane.objects.printing import cluster, extensions, network, pods, storage, workloads
from controlplane.objects.printing.cells import Cells, Object, Printer, name, since

API_VERSION = "meta.k8s.io/v1"
_AGE = Column(name="Age", type="date", json_path=".metadata.creationTimestamp")
_NAME = cluster.CREATED.columns[0]


def table(
    kind: Kind, objects: Iterable[Object], *, now: datetime, include_object: str = "Metadata"
) -> dict[str, Any]:
    """
    A Table of the objects; its ``metadata`` is left for the caller to fill in.

    ``include_object`` is the request's ``includeObject``: None, Metadata (also
    when empty) or Object.
    """
    printer = _custom(kind) if kind.custom else _PRINTERS.get(_key(kind), cluster.CREATED)
    is_pod = printer is pods.POD
    rows = []
    for obj in objects:
        row: dict[str, Any] = {"cells": printer.cells(obj, now)}
        if is_pod and (conditions := pods.conditions(obj)):
            row["conditions"] = conditions
        row["object"] = _included(obj, include_object or "Metadata")
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": API_VERSION,
        "metadata": {},
        "columnDefinitions": list(printer.columns),
        "rows": rows,
    }


def _included(obj: Object, how: str) -> Object | None:
    match how:
        case "None":
            return None
        case "Object":
            return obj
        case _:
            return {
                "kind": "PartialObjectMetadata",
                "apiVersion": API_VERSION,
                "metadata": obj.get("metadata") or {},
            }


def _custom(kind: Kind) -> Printer:
    given = kind.columns or (_AGE,)
    definitions = (_NAME, *map(_definition, given))
    paths = [(column, _path(column)) for column in given]

    def cells(obj: Object, now: datetime) -> Cells:
        return [name(obj), *(_cell(column, path, obj, now) for column, path in paths)]

    return Printer(definitions, cells)


def _definition(column: Column) -> dict[str, Any]:
    text = (
        column.description
        or f"Custom resource definition column (in JSONPath format): {column.json_path}"
    )
    return {
        "name": column.name,
        "type": column.type,
        "format": column.format,
        "description": text,
        "priority": column.priority,
    }


def _path(column: Column) -> Path:
    """One that cannot be read finds nothing; definitions with one are refused on their way in."""
    try:
        return compile_path(column.json_path)
    except JSONPathError:
        return lambda _value: []


def _cell(column: Column, path: Path, obj: Object, now: datetime) -> Any:
    found = path(obj)
    if not found or found[0] is None:
        return None
    value = found[0]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match column.type:
        case "string":
            return _text(value)
        case "integer":
            return int(value) if number else None
        case "number":
            return float(value) if number else None
        case "boolean":
            return value if isinstance(value, bool) else None
        case "date":
            return since(value, now) if isinstance(value, str) else None
        case _:
            return None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict | list | bool):
        return orjson.dumps(value).decode()
    return str(value)


def _key(kind: Kind) -> tuple[str, str]:
    return kind.group, kind.kind


_ADMISSION = "admissionregistration.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_NETWORKING = "networking.k8s.io"
_STORAGE = "storage.k8s.io"
_FLOW = "flowcontrol.apiserver.k8s.io"
_RESOURCE = "resource.k8s.io"

_PRINTERS: dict[tuple[str, str], Printer] = {
    ("", "Pod"): pods.POD,
    ("", "PodTemplate"): pods.POD_TEMPLATE,
    ("", "ReplicationController"): workloads.REPLICATION_CONTROLLER,
    ("", "Service"): network.SERVICE,
    ("", "Endpoints"): network.ENDPOINTS,
    ("", "Node"): cluster.NODE,
    ("", "Namespace"): cluster.NAMESPACE,
    ("", "Event"): cluster.EVENT,
    ("", "ConfigMap"): cluster.CONFIG_MAP,
    ("", "Secret"): cluster.SECRET,
    ("", "ServiceAccount"): cluster.SERVICE_ACCOUNT,
    ("", "ResourceQuota"): cluster.QUOTA,
    ("", "ComponentStatus"): cluster.COMPONENT,
    ("", "PersistentVolume"): storage.PERSISTENT_VOLUME,
    ("", "PersistentVolumeClaim"): storage.CLAIM,
    ("events.k8s.io", "Event"): cluster.EVENT,
    ("apps", "Deployment"): workloads.DEPLOYMENT,
    ("apps", "ReplicaSet"): workloads.REPLICA_SET,
    ("apps", "StatefulSet"): workloads.STATEFUL_SET,
    ("apps", "DaemonSet"): workloads.DAEMON_SET,
    ("apps", "ControllerRevision"): workloads.CONTROLLER_REVISION,
    ("batch", "Job"): workloads.JOB,
    ("batch", "CronJob"): workloads.CRON_JOB,
    ("autoscaling", "HorizontalPodAutoscaler"): workloads.AUTOSCALER,
    ("policy", "PodDisruptionBudget"): workloads.DISRUPTION_BUDGET,
    (_NETWORKING, "Ingress"): network.INGRESS,
    (_NETWORKING, "IngressClass"): network.INGRESS_CLASS,
    (_NETWORKING, "NetworkPolicy"): network.NETWORK_POLICY,
    (_NETWORKING, "IPAddress"): network.IP_ADDRESS,
    (_NETWORKING, "ServiceCIDR"): network.SERVICE_CIDR,
    ("discovery.k8s.io", "EndpointSlice"): network.ENDPOINT_SLICE,
    (_RBAC, "Role"): cluster.CREATED,
    (_RBAC, "ClusterRole"): cluster.CREATED,
    (_RBAC, "RoleBinding"): cluster.BINDING,
    (_RBAC, "ClusterRoleBinding"): cluster.BINDING,
    ("coordination.k8s.io", "Lease"): cluster.LEASE,
    ("scheduling.k8s.io", "PriorityClass"): cluster.PRIORITY_CLASS,
    ("node.k8s.io", "RuntimeClass"): cluster.RUNTIME_CLASS,
    ("certificates.k8s.io", "CertificateSigningRequest"): cluster.SIGNING_REQUEST,
    (_STORAGE, "StorageClass"): storage.STORAGE_CLASS,
    (_STORAGE, "VolumeAttachment"): storage.VOLUME_ATTACHMENT,
    (_STORAGE, "CSINode"): storage.CSI_NODE,
    (_STORAGE, "CSIDriver"): storage.CSI_DRIVER,
    (_STORAGE, "CSIStorageCapacity"): storage.CSI_CAPACITY,
    (_STORAGE, "VolumeAttributesClass"): storage.ATTRIBUTES_CLASS,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): cluster.CREATED,
    ("apiregistration.k8s.io", "APIService"): extensions.API_SERVICE,
    (_ADMISSION, "MutatingWebhookConfiguration"): extensions.WEBHOOKS,
    (_ADMISSION, "ValidatingWebhookConfiguration"): extensions.WEBHOOKS,
    (_ADMISSION, "ValidatingAdmissionPolicy"): extensions.VALIDATING_POLICY,
    (_ADMISSION, "MutatingAdmissionPolicy"): extensions.MUTATING_POLICY,
    (_ADMISSION, "ValidatingAdmissionPolicyBinding"): extensions.POLICY_BINDING,
    (_ADMISSION, "MutatingAdmissionPolicyBinding"): extensions.POLICY_BINDING,
    (_FLOW, "FlowSchema"): extensions.FLOW_SCHEMA,
    (_FLOW, "PriorityLevelConfiguration"): extensions.PRIORITY_LEVEL,
    (_RESOURCE, "ResourceClaim"): extensions.RESOURCE_CLAIM,
    (_RESOURCE, "ResourceSlice"): extensions.RESOURCE_SLICE,
    (_RESOURCE, "ResourceClaimTemplate"): extensions.PLAIN,
    (_RESOURCE, "DeviceClass"): extensions.PLAIN,
}
