"""
Names of the resources that code speaks about, so that nobody spells a group twice.

Loads no facts: a controller that reads pods needs to know where they are, not what
they are made of.
"""

from controlplane.objects.kinds import Resource

BINDINGS = Resource("", "v1", "bindings", True)
COMPONENT_STATUSES = Resource("", "v1", "componentstatuses", False)
CONFIG_MAPS = Resource("", "v1", "configmaps", True)
ENDPOINTS = Resource("", "v1", "endpoints", True)
EVENTS = Resource("", "v1", "events", True)
LIMIT_RANGES = Resource("", "v1", "limitranges", True)
NAMESPACES = Resource("", "v1", "namespaces", False)
NODES = Resource("", "v1", "nodes", False)
PERSISTENT_VOLUME_CLAIMS = Resource("", "v1", "persistentvolumeclaims", True)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", False)
PODS = Resource("", "v1", "pods", True)
POD_TEMPLATES = Resource("", "v1", "podtemplates", True)
REPLICATION_CONTROLLERS = Resource("", "v1", "replicationcontrollers", True)
RESOURCE_QUOTAS = Resource("", "v1", "resourcequotas", True)
SECRETS = Resource("", "v1", "secrets", True)
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", True)
SERVICES = Resource("", "v1", "services", True)

API_SERVICES = Resource("apiregistration.k8s.io", "v1", "apiservices", False)

CONTROLLER_REVISIONS = Resource("apps", "v1", "controllerrevisions", True)
DAEMON_SETS = Resource("apps", "v1", "daemonsets", True)
DEPLOYMENTS = Resource("apps", "v1", "deployments", True)
REPLICA_SETS = Resource("apps", "v1", "replicasets", True)
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", True)

EVENTS_V1 = Resource("events.k8s.io", "v1", "events", True)

SELF_SUBJECT_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", False)
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", False)

LOCAL_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "localsubjectaccessreviews", True
)
SELF_SUBJECT_ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", False
)
SELF_SUBJECT_RULES_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectrulesreviews", False
)
SUBJECT_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", False)

HORIZONTAL_POD_AUTOSCALERS = Resource("autoscaling", "v2", "horizontalpodautoscalers", True)
HORIZONTAL_POD_AUTOSCALERS_V1 = Resource("autoscaling", "v1", "horizontalpodautoscalers", True)

CRON_JOBS = Resource("batch", "v1", "cronjobs", True)
JOBS = Resource("batch", "v1", "jobs", True)

CERTIFICATE_SIGNING_REQUESTS = Resource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", False
)

INGRESS_CLASSES = Resource("networking.k8s.io", "v1", "ingressclasses", False)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", True)
IP_ADDRESSES = Resource("networking.k8s.io", "v1", "ipaddresses", False)
NETWORK_POLICIES = Resource("networking.k8s.io", "v1", "networkpolicies", True)
SERVICE_CIDRS = Resource("networking.k8s.io", "v1", "servicecidrs", False)

POD_DISRUPTION_BUDGETS = Resource("policy", "v1", "poddisruptionbudgets", True)

CLUSTER_ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", False)
CLUSTER_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", False)
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", True)
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", True)

CSI_DRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", False)
CSI_NODES = Resource("storage.k8s.io", "v1", "csinodes", False)
CSI_STORAGE_CAPACITIES = Resource("storage.k8s.io", "v1", "csistoragecapacities", True)
STORAGE_CLASSES = Resource("storage.k8s.io", "v1", "storageclasses", False)
VOLUME_ATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", False)
VOLUME_ATTRIBUTES_CLASSES = Resource("storage.k8s.io", "v1", "volumeattributesclasses", False)

MUTATING_ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingadmissionpolicies", False
)
MUTATING_ADMISSION_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingadmissionpolicybindings", False
)
MUTATING_WEBHOOK_CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations", False
)
VALIDATING_ADMISSION_POLICIES = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicies", False
)
VALIDATING_ADMISSION_POLICY_BINDINGS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingadmissionpolicybindings", False
)
VALIDATING_WEBHOOK_CONFIGURATIONS = Resource(
    "admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", False
)

CUSTOM_RESOURCE_DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", False
)

PRIORITY_CLASSES = Resource("scheduling.k8s.io", "v1", "priorityclasses", False)

LEASES = Resource("coordination.k8s.io", "v1", "leases", True)

RUNTIME_CLASSES = Resource("node.k8s.io", "v1", "runtimeclasses", False)

ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", True)

DEVICE_CLASSES = Resource("resource.k8s.io", "v1", "deviceclasses", False)
RESOURCE_CLAIMS = Resource("resource.k8s.io", "v1", "resourceclaims", True)
RESOURCE_CLAIM_TEMPLATES = Resource("resource.k8s.io", "v1", "resourceclaimtemplates", True)
RESOURCE_SLICES = Resource("resource.k8s.io", "v1", "resourceslices", False)

FLOW_SCHEMAS = Resource("flowcontrol.apiserver.k8s.io", "v1", "flowschemas", False)
PRIORITY_LEVEL_CONFIGURATIONS = Resource(
    "flowcontrol.apiserver.k8s.io", "v1", "prioritylevelconfigurations", False
)
