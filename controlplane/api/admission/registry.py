"""
The built-in plugins, in kube-apiserver's order.

Of upstream's default plugins these are not here: PodGroupProtection,
PodGroupWorkloadExists, JobValidation, NodeDeclaredFeatureValidator and
ClusterTrustBundleAttest (kinds we do not serve), PodTopologyLabels and
PodResizeValidator. Webhooks and policies follow these; :mod:`resource_quota` comes
after everything that may still change the object.
"""

from collections.abc import Callable

from controlplane.api.admission.certificates import (
    CertificateApproval,
    CertificateSigning,
    CertificateSubjectRestriction,
)
from controlplane.api.admission.defaults import (
    DefaultIngressClass,
    DefaultStorageClass,
    PersistentVolumeClaimResize,
    StorageObjectInUseProtection,
    TaintNodesByCondition,
)
from controlplane.api.admission.escalation import EscalationCheck
from controlplane.api.admission.limit_ranger import LimitRanger
from controlplane.api.admission.namespace_lifecycle import NamespaceLifecycle
from controlplane.api.admission.node_restriction import NodeRestriction
from controlplane.api.admission.pod_security import PodSecurity
from controlplane.api.admission.scheduling import DefaultTolerationSeconds, Priority, RuntimeClass
from controlplane.api.admission.service_account import ServiceAccount
from controlplane.api.base import Admission, Authorizer
from controlplane.api.rbac import Rbac
from controlplane.client.base import Feed


def default_admissions(
    *, feed: Feed, authorizer: Authorizer, rbac: Rbac, randomness: Callable[[int], bytes]
) -> tuple[Admission, ...]:
    """``randomness``: that many random bytes, such as ``os.urandom``."""
    return (
        NamespaceLifecycle(),
        LimitRanger(),
        ServiceAccount(feed, randomness),
        NodeRestriction(authorizer),
        TaintNodesByCondition(),
        PodSecurity(),
        Priority(),
        DefaultTolerationSeconds(),
        DefaultStorageClass(),
        StorageObjectInUseProtection(),
        PersistentVolumeClaimResize(),
        RuntimeClass(),
        CertificateApproval(authorizer),
        CertificateSigning(authorizer),
        CertificateSubjectRestriction(),
        DefaultIngressClass(),
        EscalationCheck(authorizer, rbac),
    )
