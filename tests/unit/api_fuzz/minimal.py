"""The least that each kind accepts."""

import copy
from typing import Any

from controlplane.objects.kinds import Kind

NAMES = ("a", "b", "a.example.com", "web")
CONTAINERS = [{"name": "c", "image": "busybox"}]
SELECTOR = {"matchLabels": {"app": "web"}}
TEMPLATE = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": CONTAINERS}}
JOB = {"metadata": {}, "spec": {"containers": CONTAINERS, "restartPolicy": "Never"}}
ROLE = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
CLIENT = {"url": "https://127.0.0.1:1/x"}
HOOK = {
    "name": "a.example.com",
    "clientConfig": CLIENT,
    "sideEffects": "None",
    "admissionReviewVersions": ["v1"],
}
RULES = [{"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["*"], "resources": ["*"]}]
VARIABLES = {"resourceRules": RULES}
CLAIM = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
DEVICES = {"requests": [{"name": "r", "exactly": {"deviceClassName": "c.example.com"}}]}
DEFINITION = {
    "group": "example.com",
    "scope": "Namespaced",
    "names": {"plural": "webs", "singular": "web", "kind": "Web", "listKind": "WebList"},
    "versions": [
        {
            "name": "v1",
            "served": True,
            "storage": True,
            "schema": {
                "openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object"}}}
            },
        }
    ],
}

# By kind; the group where two groups share a kind. Metadata but the name included.
FIELDS: dict[str, dict[str, Any]] = {
    "ConfigMap": {"data": {"a": "b"}},
    "Secret": {"data": {"a": "YQ=="}, "stringData": {"b": "c"}},
    "Pod": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": CONTAINERS}},
    "PodTemplate": {"template": TEMPLATE},
    "Service": {"spec": {"ports": [{"port": 80}], "selector": {"app": "web"}}},
    "Endpoints": {"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]},
    "EndpointSlice": {
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"]}],
        "ports": [],
    },
    "LimitRange": {"spec": {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}},
    "ResourceQuota": {"spec": {"hard": {"pods": "1000"}}},
    "PersistentVolume": {
        "spec": {
            "capacity": {"storage": "1Gi"},
            "accessModes": ["ReadWriteOnce"],
            "hostPath": {"path": "/a"},
        }
    },
    "PersistentVolumeClaim": {"spec": CLAIM},
    "ReplicationController": {"spec": {"selector": {"app": "web"}, "template": TEMPLATE}},
    "ReplicaSet": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "Deployment": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "DaemonSet": {"spec": {"selector": SELECTOR, "template": TEMPLATE}},
    "StatefulSet": {"spec": {"selector": SELECTOR, "template": TEMPLATE, "serviceName": "web"}},
    "ControllerRevision": {"revision": 1, "data": {"a": 1}},
    "Job": {"spec": {"template": JOB}},
    "CronJob": {"spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": JOB}}}},
    "HorizontalPodAutoscaler": {
        "spec": {
            "maxReplicas": 3,
            "scaleTargetRef": {"kind": "Deployment", "name": "web", "apiVersion": "apps/v1"},
        }
    },
    "Event": {"involvedObject": {"namespace": "default"}, "reason": "x"},
    "Event.events.k8s.io": {
        "eventTime": "2026-01-02T03:04:05.000001Z",
        "regarding": {"namespace": "default"},
        "reportingController": "example.com/a",
        "reportingInstance": "a",
        "action": "Try",
        "reason": "Because",
        "type": "Normal",
    },
    "Lease": {"spec": {"holderIdentity": "a", "leaseDurationSeconds": 10}},
    "LeaseCandidate": {
        "spec": {"leaseName": "a", "binaryVersion": "1.0.0", "strategy": "OldestEmulationVersion"}
    },
    "Ingress": {"spec": {"defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}}},
    "IngressClass": {"spec": {"controller": "example.com/a"}},
    "NetworkPolicy": {"spec": {"podSelector": {}}},
    "IPAddress": {
        "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "web"}}
    },
    "ServiceCIDR": {"spec": {"cidrs": ["10.99.0.0/16"]}},
    "PodDisruptionBudget": {"spec": {"selector": SELECTOR, "minAvailable": 1}},
    "Role": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
    "ClusterRole": {"rules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]},
    "RoleBinding": {"roleRef": ROLE, "subjects": []},
    "ClusterRoleBinding": {"roleRef": ROLE, "subjects": []},
    "CertificateSigningRequest": {
        "spec": {"request": "YQ==", "signerName": "example.com/a", "usages": ["client auth"]}
    },
    "StorageClass": {"provisioner": "example.com/a"},
    "CSIDriver": {"spec": {}},
    "CSINode": {"spec": {"drivers": []}},
    "CSIStorageCapacity": {"storageClassName": "a"},
    "VolumeAttachment": {
        "spec": {
            "attacher": "example.com",
            "nodeName": "n",
            "source": {"persistentVolumeName": "a"},
        }
    },
    "VolumeAttributesClass": {"driverName": "example.com", "parameters": {"a": "b"}},
    "PriorityClass": {"value": 1},
    "RuntimeClass": {"handler": "runc"},
    "ValidatingWebhookConfiguration": {"webhooks": [{**HOOK, "rules": RULES}]},
    "MutatingWebhookConfiguration": {"webhooks": [{**HOOK, "rules": RULES}]},
    "ValidatingAdmissionPolicy": {
        "spec": {"matchConstraints": VARIABLES, "validations": [{"expression": "true"}]}
    },
    "ValidatingAdmissionPolicyBinding": {
        "spec": {"policyName": "a", "validationActions": ["Deny"]}
    },
    "MutatingAdmissionPolicy": {
        "spec": {
            "matchConstraints": VARIABLES,
            "reinvocationPolicy": "Never",
            "mutations": [
                {
                    "patchType": "ApplyConfiguration",
                    "applyConfiguration": {"expression": "Object{}"},
                }
            ],
        }
    },
    "MutatingAdmissionPolicyBinding": {"spec": {"policyName": "a"}},
    "FlowSchema": {"spec": {"priorityLevelConfiguration": {"name": "exempt"}}},
    "PriorityLevelConfiguration": {
        "spec": {"type": "Limited", "limited": {"limitResponse": {"type": "Reject"}}}
    },
    "CustomResourceDefinition": {"spec": DEFINITION},
    "APIService": {
        "spec": {
            "group": "a.example.com",
            "version": "v1",
            "groupPriorityMinimum": 100,
            "versionPriority": 100,
        }
    },
    "DeviceClass": {"spec": {}},
    "ResourceClaim": {"spec": {"devices": DEVICES}},
    "ResourceClaimTemplate": {"spec": {"spec": {"devices": DEVICES}}},
    "ResourceSlice": {
        "spec": {
            "driver": "example.com",
            "nodeName": "n",
            "pool": {"name": "p", "resourceSliceCount": 1, "generation": 1},
        }
    },
    "TokenReview": {"spec": {"token": "x"}},
    "SubjectAccessReview": {
        "spec": {"user": "ann", "resourceAttributes": {"verb": "get", "resource": "pods"}}
    },
    "LocalSubjectAccessReview": {
        "spec": {
            "user": "ann",
            "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "default"},
        }
    },
    "SelfSubjectAccessReview": {"spec": {"nonResourceAttributes": {"path": "/a", "verb": "get"}}},
    "SelfSubjectRulesReview": {"spec": {"namespace": "default"}},
    "Binding": {"target": {"kind": "Node", "name": "n"}},
}
_OWN_NAMES = {
    "CustomResourceDefinition": "webs.example.com",
    "APIService": "v1.a.example.com",
    "IPAddress": "10.99.0.1",
}


def minimal(kind: Kind, name: str = "a") -> dict[str, Any]:
    """A valid new object of a built-in kind; a copy of its own."""
    fields = copy.deepcopy(FIELDS.get(kind.group_kind) or FIELDS.get(kind.kind) or {})
    fields.setdefault("metadata", {})["name"] = _OWN_NAMES.get(kind.kind, name)
    return {"apiVersion": kind.api_version, "kind": kind.kind, **fields}
