"""
The kinds that a v1.36 API server serves by itself: what the Go types do not say.

Groups stand in the order of upstream's discovery, versions with the preferred one first.
Only generally available versions are served, which is what an API server does by default.
"""

from collections.abc import Iterator

from controlplane.objects.kinds import CORE, Kind

ALL_VERBS = frozenset(
    {"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
)
_CREATE = frozenset({"create"})

# plural, kind, then options: ``cluster`` (no namespace), ``all`` and ``api-extensions``
# (categories), ``short=``, ``sub=``, ``verbs=``, ``volatile``, ``stored=`` (group/version).
_TABLE: dict[str, tuple[str, ...]] = {
    "v1": (
        "bindings Binding verbs=create",
        "componentstatuses ComponentStatus cluster short=cs verbs=get,list",
        "configmaps ConfigMap short=cm",
        "endpoints Endpoints short=ep",
        "events Event short=ev volatile",
        "limitranges LimitRange short=limits",
        "namespaces Namespace cluster short=ns sub=finalize,status"
        " verbs=create,delete,get,list,patch,update,watch",
        "nodes Node cluster short=no sub=proxy,status",
        "persistentvolumeclaims PersistentVolumeClaim short=pvc sub=status",
        "persistentvolumes PersistentVolume cluster short=pv sub=status",
        "pods Pod all short=po sub=attach,binding,ephemeralcontainers,eviction,exec,log,"
        "portforward,proxy,resize,status",
        "podtemplates PodTemplate",
        "replicationcontrollers ReplicationController all short=rc sub=scale,status",
        "resourcequotas ResourceQuota short=quota sub=status",
        "secrets Secret",
        "serviceaccounts ServiceAccount short=sa sub=token",
        "services Service all short=svc sub=proxy,status",
    ),
    "apiregistration.k8s.io/v1": ("apiservices APIService cluster api-extensions sub=status",),
    "apps/v1": (
        "controllerrevisions ControllerRevision",
        "daemonsets DaemonSet all short=ds sub=status",
        "deployments Deployment all short=deploy sub=scale,status",
        "replicasets ReplicaSet all short=rs sub=scale,status",
        "statefulsets StatefulSet all short=sts sub=scale,status",
    ),
    "events.k8s.io/v1": ("events Event short=ev volatile stored=v1",),
    "authentication.k8s.io/v1": (
        "selfsubjectreviews SelfSubjectReview cluster verbs=create",
        "tokenreviews TokenReview cluster verbs=create",
    ),
    "authorization.k8s.io/v1": (
        "localsubjectaccessreviews LocalSubjectAccessReview verbs=create",
        "selfsubjectaccessreviews SelfSubjectAccessReview cluster verbs=create",
        "selfsubjectrulesreviews SelfSubjectRulesReview cluster verbs=create",
        "subjectaccessreviews SubjectAccessReview cluster verbs=create",
    ),
    "autoscaling/v2": (
        "horizontalpodautoscalers HorizontalPodAutoscaler all short=hpa sub=status",
    ),
    "autoscaling/v1": (
        "horizontalpodautoscalers HorizontalPodAutoscaler all short=hpa sub=status"
        " stored=autoscaling/v2",
    ),
    "batch/v1": (
        "cronjobs CronJob all short=cj sub=status",
        "jobs Job all sub=status",
    ),
    "certificates.k8s.io/v1": (
        "certificatesigningrequests CertificateSigningRequest cluster short=csr"
        " sub=approval,status",
    ),
    "networking.k8s.io/v1": (
        "ingressclasses IngressClass cluster",
        "ingresses Ingress short=ing sub=status",
        "ipaddresses IPAddress cluster short=ip",
        "networkpolicies NetworkPolicy short=netpol",
        "servicecidrs ServiceCIDR cluster sub=status",
    ),
    "policy/v1": ("poddisruptionbudgets PodDisruptionBudget short=pdb sub=status",),
    "rbac.authorization.k8s.io/v1": (
        "clusterrolebindings ClusterRoleBinding cluster",
        "clusterroles ClusterRole cluster",
        "rolebindings RoleBinding",
        "roles Role",
    ),
    "storage.k8s.io/v1": (
        "csidrivers CSIDriver cluster",
        "csinodes CSINode cluster",
        "csistoragecapacities CSIStorageCapacity",
        "storageclasses StorageClass cluster short=sc",
        "volumeattachments VolumeAttachment cluster sub=status",
        "volumeattributesclasses VolumeAttributesClass cluster short=vac",
    ),
    "admissionregistration.k8s.io/v1": (
        "mutatingadmissionpolicies MutatingAdmissionPolicy cluster api-extensions",
        "mutatingadmissionpolicybindings MutatingAdmissionPolicyBinding cluster api-extensions",
        "mutatingwebhookconfigurations MutatingWebhookConfiguration cluster api-extensions",
        "validatingadmissionpolicies ValidatingAdmissionPolicy cluster api-extensions sub=status",
        "validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding cluster api-extensions",
        "validatingwebhookconfigurations ValidatingWebhookConfiguration cluster api-extensions",
    ),
    "apiextensions.k8s.io/v1": (
        "customresourcedefinitions CustomResourceDefinition cluster api-extensions"
        " short=crd,crds sub=status",
    ),
    "scheduling.k8s.io/v1": ("priorityclasses PriorityClass cluster short=pc",),
    "coordination.k8s.io/v1": ("leases Lease volatile",),
    "node.k8s.io/v1": ("runtimeclasses RuntimeClass cluster",),
    "discovery.k8s.io/v1": ("endpointslices EndpointSlice",),
    "resource.k8s.io/v1": (
        "deviceclasses DeviceClass cluster",
        "resourceclaims ResourceClaim sub=status",
        "resourceclaimtemplates ResourceClaimTemplate",
        "resourceslices ResourceSlice cluster",
    ),
    "flowcontrol.apiserver.k8s.io/v1": (
        "flowschemas FlowSchema cluster sub=status",
        "prioritylevelconfigurations PriorityLevelConfiguration cluster sub=status",
    ),
}

# What requests and answers carry besides the kinds: group, version, kind.
# Those of ``meta.k8s.io`` come with the group and version of whatever they are about.
BODIES: tuple[tuple[str, str, str], ...] = (
    ("policy", "v1", "Eviction"),
    ("autoscaling", "v1", "Scale"),
    ("authentication.k8s.io", "v1", "TokenRequest"),
    *(
        ("meta.k8s.io", "v1", name)
        for name in (
            "APIGroup",
            "APIGroupList",
            "APIResourceList",
            "APIVersions",
            "CreateOptions",
            "DeleteOptions",
            "GetOptions",
            "ListOptions",
            "PartialObjectMetadata",
            "PartialObjectMetadataList",
            "Patch",
            "PatchOptions",
            "Status",
            "Table",
            "UpdateOptions",
            "WatchEvent",
        )
    ),
)


def _rows() -> Iterator[Kind]:
    for api_version, rows in _TABLE.items():
        group, _, version = api_version.rpartition("/")
        for row in rows:
            yield _kind(group, version, row)


def _kind(group: str, version: str, row: str) -> Kind:
    plural, name, *options = row.split()
    values = dict(option.split("=") for option in options if "=" in option)
    stored = values.get("stored", "")
    stored_group = stored.rpartition("/")[0] if stored else group
    return Kind(
        group=group,
        version=version,
        kind=name,
        plural=plural,
        singular=name.lower(),
        namespaced="cluster" not in options,
        short_names=_list(values, "short"),
        categories=tuple(option for option in options if option in {"all", "api-extensions"}),
        verbs=frozenset(_list(values, "verbs")) or ALL_VERBS,
        subresources=frozenset(_list(values, "sub")),
        storage_version=stored,
        storage_key=f"/{stored_group or CORE}/{plural}",
        volatile="volatile" in options,
    )


def _list(values: dict[str, str], name: str) -> tuple[str, ...]:
    return tuple(values[name].split(",")) if name in values else ()


KINDS: tuple[Kind, ...] = tuple(_rows())
