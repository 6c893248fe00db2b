"""
Which pods stand behind a Service, at which addresses and ports.

Source: the API concepts "Service" and "EndpointSlices"; KEP-1672 (terminating endpoints).
"""

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.objects.meta import is_deleting, is_true
from controlplane.objects.resources import PODS, SERVICES
from controlplane.objects.selectors import of_labels
from controlplane.reconcile import pods
from controlplane.reconcile.base import Key

HEADLESS_LABEL = "service.kubernetes.io/headless"
Port = dict[str, Any]  # name, port, protocol, appProtocol


def backends(service: Object, reads: Reads) -> list[Object]:
    """Pods that match, have an address and have not finished."""
    meta, selector = service["metadata"], of_labels(service["spec"].get("selector"))
    return [
        pod
        for pod in reads.list(PODS, meta["namespace"])
        if selector.matches(pod["metadata"].get("labels"))
        and not pods.is_finished(pod)
        and addresses(pod)
    ]


def addresses(pod: Object) -> list[str]:
    status = pod.get("status") or {}
    many = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return many or ([status["podIP"]] if status.get("podIP") else [])


def address_of(pod: Object, family: str) -> str | None:
    """The pod's address of ``IPv4`` or ``IPv6``."""
    wants_six = family == "IPv6"
    return next((ip for ip in addresses(pod) if (":" in ip) == wants_six), None)


def families(service: Object) -> list[str]:
    listed = service["spec"].get("ipFamilies")
    if listed:
        return list(listed)
    return ["IPv6" if ":" in (service["spec"].get("clusterIP") or "") else "IPv4"]


def is_headless(service: Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def ports(service: Object, pod: Object) -> list[Port]:
    """The Service's ports as this pod has them; a named one it lacks is left out."""
    made: list[Port] = []
    for port in service["spec"].get("ports") or ():
        number = _target(port, pod)
        if number is None:
            continue
        entry: Port = {
            "name": port.get("name") or "",
            "port": number,
            "protocol": port.get("protocol") or "TCP",
        }
        if port.get("appProtocol"):
            entry["appProtocol"] = port["appProtocol"]
        made.append(entry)
    return made


def _target(port: Object, pod: Object) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    protocol = port.get("protocol") or "TCP"
    spec = pod["spec"]
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*(spec.get("containers") or ()), *sidecars]:
        for offered in container.get("ports") or ():
            same = (offered.get("protocol") or "TCP") == protocol
            if offered.get("name") == target and same:
                return int(offered["containerPort"])
    return None


def hostname_of(pod: Object, service: Object) -> str:
    """The pod's own name under the Service, "" if it has none there."""
    spec = pod["spec"]
    if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
        return str(spec["hostname"])
    return ""


def target_reference(pod: Object) -> dict[str, str]:
    meta = pod["metadata"]
    return {
        "kind": "Pod",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def publishes_not_ready(service: Object) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def inherited_labels(service: Object, *own: str) -> dict[str, str]:
    """The Service's labels, without those that are ours to set."""
    labels: Mapping[str, str] = service["metadata"].get("labels") or {}
    kept = {key: value for key, value in labels.items() if key not in (*own, HEADLESS_LABEL)}
    return kept | ({HEADLESS_LABEL: ""} if is_headless(service) else {})


def services_of(change: Change, reads: Reads) -> Iterator[Key]:
    """The Services that a change to a pod concerns, before or after it."""
    old, new = change.old, change.new
    if old is not None and new is not None and _facts(old) == _facts(new):
        return
    seen = [pod["metadata"].get("labels") for pod in (old, new) if pod is not None]
    for service in reads.list(SERVICES, change.namespace):
        chosen = service["spec"].get("selector")
        if chosen and any(of_labels(chosen).matches(labels) for labels in seen):
            yield Key(change.namespace, service["metadata"]["name"])


def _facts(pod: Object) -> tuple[Any, ...]:
    """All of a pod that endpoints are made of."""
    spec = pod["spec"]
    return (
        pod["metadata"].get("labels"),
        addresses(pod),
        is_true(pod, "Ready"),
        is_deleting(pod),
        pods.is_finished(pod),
        spec.get("nodeName"),
        spec.get("hostname"),
        spec.get("subdomain"),
    )
