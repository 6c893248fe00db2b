"""
What the restricted level of the Pod Security Standards asks for: hardening.

Each check looks at a pod's metadata and spec and says what is wrong, or nothing.
"""

from controlplane.api.admission.pod_security_baseline import adds_beyond, seccomp_baseline
from controlplane.api.admission.pod_security_reading import (
    Object,
    Violation,
    containers,
    named,
    plural,
    quoted,
    security,
    who_sets,
)


def escalation(_holder: Object, spec: Object) -> Violation | None:
    bad = [
        c.get("name", "")
        for c in containers(spec)
        if security(c).get("allowPrivilegeEscalation") is not False
    ]
    if not bad:
        return None
    detail = f"{named(bad)} must set securityContext.allowPrivilegeEscalation=false"
    return Violation("allowPrivilegeEscalation != false", detail)


def capabilities_restricted(_holder: Object, spec: Object) -> Violation | None:
    keeping = [
        c.get("name", "")
        for c in containers(spec)
        if "ALL" not in ((security(c).get("capabilities") or {}).get("drop") or ())
    ]
    details = []
    if keeping:
        details.append(f'{named(keeping)} must set securityContext.capabilities.drop=["ALL"]')
    adding = adds_beyond(spec, frozenset({"NET_BIND_SERVICE"}))
    if adding:
        details.append(adding)
    return Violation("unrestricted capabilities", "; ".join(details)) if details else None


_VOLUMES = frozenset(
    "configMap csi downwardAPI emptyDir ephemeral image persistentVolumeClaim projected "
    "secret".split()
)
_OTHER_VOLUMES = (
    "hostPath gcePersistentDisk awsElasticBlockStore gitRepo nfs iscsi glusterfs rbd flexVolume "
    "cinder cephfs flocker fc azureFile vsphereVolume quobyte azureDisk photonPersistentDisk "
    "portworxVolume scaleIO storageos"
).split()


def volumes(_holder: Object, spec: Object) -> Violation | None:
    bad: list[str] = []
    kinds: set[str] = set()
    for volume in spec.get("volumes") or ():
        if not any(volume.get(kind) is not None for kind in _VOLUMES):
            bad.append(volume.get("name", ""))
            present = (kind for kind in _OTHER_VOLUMES if volume.get(kind) is not None)
            kinds.add(next(present, "unknown"))
    if not bad:
        return None
    using = f"{plural('volume', bad)} {quoted(bad)} {'uses' if len(bad) == 1 else 'use'}"
    what = plural("restricted volume type", kinds)
    return Violation("restricted volume types", f"{using} {what} {quoted(sorted(kinds))}")


def _without(spec: Object, field: str) -> list[str]:
    """Containers for which neither they nor their pod set a field."""
    if security(spec).get(field):
        return []
    return [c.get("name", "") for c in containers(spec) if security(c).get(field) is None]


def non_root(_holder: Object, spec: Object) -> Violation | None:
    setters = who_sets(spec, lambda security: security.get("runAsNonRoot") is False)
    if setters:
        setting = f"{' and '.join(setters)} must not set securityContext.runAsNonRoot=false"
        return Violation("runAsNonRoot != true", setting)
    silent = _without(spec, "runAsNonRoot")
    if not silent:
        return None
    detail = f"pod or {named(silent)} must set securityContext.runAsNonRoot=true"
    return Violation("runAsNonRoot != true", detail)


def user_zero(_holder: Object, spec: Object) -> Violation | None:
    setters = who_sets(spec, lambda security: security.get("runAsUser") == 0)
    if not setters:
        return None
    return Violation("runAsUser=0", f"{' and '.join(setters)} must not set runAsUser=0")


def seccomp_restricted(holder: Object, spec: Object) -> Violation | None:
    explicit = seccomp_baseline(holder, spec)
    if explicit is not None:
        return explicit
    silent = _without(spec, "seccompProfile")
    if not silent:
        return None
    return Violation(
        "seccompProfile",
        f"pod or {named(silent)} must set securityContext.seccompProfile.type to "
        '"RuntimeDefault" or "Localhost"',
    )
