"""
Defaults of pods and of the pod templates in workloads.

Source: the field documentation of core/v1 PodSpec; KEP-2837 for pod-level resources,
KEP-753 for how restartable init containers add up.
"""

import re
from collections.abc import Mapping
from typing import Any

from controlplane.objects.quantity import add, canonical, compare, nanos, of_milli

Dict = dict[str, Any]

# A repository in an image reference, in the grammar of the distribution specification.
_REPOSITORY = re.compile(
    r"(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?"
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
)
_NANOS_A_MILLI = 10**6
_MODE = 0o644
_AZURE_DISK = {
    "cachingMode": "ReadWrite",
    "fsType": "ext4",
    "readOnly": False,
    "kind": "Shared",
}
_RBD = {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}
_SCALE_IO = {"storageMode": "ThinProvisioned", "fsType": "xfs"}
_PROBE = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
_CONTAINER_LISTS = ("initContainers", "containers", "ephemeralContainers")


def fill(target: Dict, values: Mapping[str, Any]) -> None:
    """Set what is not there."""
    for name, value in values.items():
        if name not in target:
            target[name] = value


def dig(obj: Mapping[str, Any], *path: str) -> Dict:
    """The dict at the path; an empty one that is not part of ``obj`` where there is none."""
    value: Any = obj
    for name in path:
        value = value.get(name)
        if not value:
            return {}
    found: Dict = value
    return found


def resource_list(resources: Dict | None) -> None:
    """Nothing is accounted finer than a thousandth, so quantities are rounded up to that."""
    for name, text in (resources or {}).items():
        if isinstance(text, str) and text.endswith(("n", "u")):
            assert resources is not None
            resources[name] = of_milli(-(-nanos(text) // _NANOS_A_MILLI))


def requirements(resources: Dict | None) -> None:
    if resources:
        resource_list(resources.get("limits"))
        resource_list(resources.get("requests"))


def pull_policy(image: str) -> str:
    """Always for ``latest``, said or implied; IfNotPresent for others and for what is no image."""
    name, _, digest = image.partition("@")
    slash = name.rfind("/")
    colon = name.rfind(":")
    repository, tag = (name[:colon], name[colon + 1 :]) if colon > slash else (name, "")
    if not _REPOSITORY.fullmatch(repository):
        return "IfNotPresent"
    return "Always" if (tag or ("" if digest else "latest")) == "latest" else "IfNotPresent"


def pod_spec(spec: Dict) -> None:
    """What is true of any pod spec, also in a template."""
    fill(
        spec,
        {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
        },
    )
    spec.setdefault("securityContext", {})
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        # The deprecated name is always written along.
        spec["serviceAccountName"] = spec["serviceAccount"] = account
    for item in spec.get("volumes", ()):
        volume(item)
    for kind in _CONTAINER_LISTS:
        for item in spec.get(kind, ()):
            container(item)
    resource_list(spec.get("overhead"))
    requirements(spec.get("resources"))


def pod(obj: Dict) -> None:
    """Beyond the spec's own defaults, those that templates do not get."""
    spec = obj.setdefault("spec", {})
    for item in (*spec.get("containers", ()), *spec.get("initContainers", ())):
        resources = item.get("resources")
        if resources and resources.get("limits"):
            fill(resources.setdefault("requests", {}), resources["limits"])
        if spec.get("hostNetwork"):
            for port in item.get("ports", ()):
                port.setdefault("hostPort", port.get("containerPort", 0))
    if spec.get("resources"):
        _pod_level_resources(spec)
    spec.setdefault("enableServiceLinks", True)
    pod_spec(spec)
    status = obj.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for item in status.get(kind, ()):
            resource_list(item.get("allocatedResources"))
            requirements(item.get("resources"))


def template(owner: Dict) -> None:
    """The pod template of a workload, at ``spec.template`` of it."""
    spec = owner.get("spec")
    if spec and "template" in spec:
        pod_spec(spec["template"].setdefault("spec", {}))


def container(item: Dict) -> None:
    if "imagePullPolicy" not in item:
        item["imagePullPolicy"] = pull_policy(item.get("image", ""))
    item.setdefault("terminationMessagePath", "/dev/termination-log")
    item.setdefault("terminationMessagePolicy", "File")
    for port in item.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for variable in item.get("env", ()):
        source = variable.get("valueFrom")
        if source:
            _field_ref(source.get("fieldRef"))
            if "fileKeyRef" in source:
                source["fileKeyRef"].setdefault("optional", False)
    requirements(item.get("resources"))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in item:
            _probe(item[name])
    for action in (item.get("lifecycle") or {}).values():
        if isinstance(action, dict):
            _http_get(action.get("httpGet"))


def _field_ref(ref: Dict | None) -> None:
    if ref is not None:
        ref.setdefault("apiVersion", "v1")


def _probe(probe: Dict) -> None:
    fill(probe, _PROBE)
    _http_get(probe.get("httpGet"))
    if "grpc" in probe:
        probe["grpc"].setdefault("service", "")


def _http_get(action: Dict | None) -> None:
    if action is not None:
        action.setdefault("path", "/")
        action.setdefault("scheme", "HTTP")


def volume(item: Dict) -> None:
    if item.keys() <= {"name"}:
        item["emptyDir"] = {}
    if "image" in item:
        image = item["image"]
        image.setdefault("pullPolicy", pull_policy(image.get("reference", "")))
    for name in ("secret", "configMap", "downwardAPI", "projected"):
        if name in item:
            item[name].setdefault("defaultMode", _MODE)
    _items(item.get("downwardAPI"))
    for source in dig(item, "projected").get("sources", ()):
        _items(source.get("downwardAPI"))
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    volume_source(item)
    claim = dig(item, "ephemeral", "volumeClaimTemplate")
    if claim:
        claim_spec(claim.setdefault("spec", {}))


def _items(downward: Dict | None) -> None:
    for item in (downward or {}).get("items", ()):
        _field_ref(item.get("fieldRef"))


def volume_source(item: Dict) -> None:
    """What volumes and persistent volumes have in common."""
    if "hostPath" in item:
        item["hostPath"].setdefault("type", "")
    if "iscsi" in item:
        item["iscsi"].setdefault("iscsiInterface", "default")
    for name, values in (("rbd", _RBD), ("azureDisk", _AZURE_DISK), ("scaleIO", _SCALE_IO)):
        if name in item:
            fill(item[name], values)


def claim_spec(spec: Dict) -> None:
    spec.setdefault("volumeMode", "Filesystem")
    requirements(spec.get("resources"))


def _pod_level_resources(spec: Dict) -> None:
    own = spec["resources"]
    if not own.get("limits") and not own.get("requests"):
        return
    limits = dict(own.get("limits") or {})
    requests = dict(own.get("requests") or {})
    for name, text in aggregate(spec, "limits").items():
        if name.startswith("hugepages-") and name not in requests:
            limits.setdefault(name, text)
    if limits:
        own["limits"] = limits
        for name, text in aggregate(spec, "requests").items():
            if name in ("cpu", "memory"):
                requests.setdefault(name, text)
        for name, text in limits.items():
            if name in ("cpu", "memory") or name.startswith("hugepages-"):
                requests.setdefault(name, text)
    if requests:
        own["requests"] = requests


def aggregate(spec: Mapping[str, Any], which: str) -> dict[str, str]:
    """
    What all containers need together; ``which``: requests or limits.

    Init containers run one after another, next to the restartable ones before them.
    """
    totals: dict[str, str] = {}
    for item in spec.get("containers", ()):
        _plus(totals, dig(item, "resources", which))
    sidecars: dict[str, str] = {}
    peak: dict[str, str] = {}
    for item in spec.get("initContainers", ()):
        own = dig(item, "resources", which)
        if item.get("restartPolicy") == "Always":
            _plus(totals, own)
            _plus(sidecars, own)
            _raise(peak, sidecars)
        else:
            together = dict(sidecars)
            _plus(together, own)
            _raise(peak, together)
    _raise(totals, peak)
    return totals


def _plus(totals: dict[str, str], more: Mapping[str, Any]) -> None:
    for name, text in more.items():
        totals[name] = add(totals[name], text) if name in totals else canonical(text)


def _raise(totals: dict[str, str], floor: Mapping[str, str]) -> None:
    for name, text in floor.items():
        if name not in totals or compare(totals[name], text) < 0:
            totals[name] = text
