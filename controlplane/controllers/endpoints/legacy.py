"""
Service and Pod → Endpoints: the older form, which many programs still read.

Source: the API reference of Endpoints.
"""

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.endpoints import addresses
from controlplane.objects.meta import is_deleting, rfc3339
from controlplane.objects.resources import ENDPOINTS, PODS, SERVICES
from controlplane.reconcile import pods
from controlplane.reconcile.base import Controller, Create, Delete, Key, Update, Write

MOST = 1000  # addresses; the rest is in the slices only
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
MANAGED_BY = "endpoints.kubernetes.io/managed-by"


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    service = reads.get(SERVICES, key.namespace, key.name)
    found = reads.get(ENDPOINTS, key.namespace, key.name)
    if service is None:
        if found is not None:
            yield Delete(ENDPOINTS, found)
        return
    if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
        return
    subsets, truncated = _truncated(_subsets(service, addresses.backends(service, reads)))
    labels = addresses.inherited_labels(service, MANAGED_BY) | {MANAGED_BY: "endpoint-controller"}
    if found is None:
        yield Create(ENDPOINTS, _new(service, labels, subsets, truncated=truncated, now=now))
    elif (found.get("subsets") or []) != subsets or found["metadata"].get("labels") != labels:
        annotations = dict(found["metadata"].get("annotations") or {})
        annotations |= {TRIGGER_TIME: rfc3339(now)}
        annotations.pop(OVER_CAPACITY, None)
        if truncated:
            annotations[OVER_CAPACITY] = "truncated"
        meta = {**found["metadata"], "labels": labels, "annotations": annotations}
        yield Update(ENDPOINTS, {**found, "metadata": meta, "subsets": subsets})


def _new(
    service: Object,
    labels: dict[str, str],
    subsets: list[Object],
    *,
    truncated: bool,
    now: datetime,
) -> dict[str, Any]:
    annotations = {TRIGGER_TIME: rfc3339(now)}
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    meta = service["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": labels,
            "annotations": annotations,
        },
        "subsets": subsets,
    }


def _subsets(service: Object, backends: Sequence[Object]) -> list[Object]:
    """Pods with the same ports share a subset."""
    unready_too = addresses.publishes_not_ready(service)
    headless = addresses.is_headless(service)
    groups: dict[str, dict[str, Any]] = {}
    for pod in backends:
        if is_deleting(pod) and not unready_too:
            continue
        address = addresses.address_of(pod, addresses.families(service)[0])
        found = addresses.ports(service, pod)
        if address is None or not (found or (headless and not service["spec"].get("ports"))):
            continue
        group = groups.setdefault(json.dumps(found), {"ports": found, "yes": [], "no": []})
        ready = unready_too or pods.is_ready(pod)
        group["yes" if ready else "no"].append(_address(service, pod, address))
    made = [_subset(group) for _, group in sorted(groups.items())]
    return [subset for subset in made if len(subset) > ("ports" in subset)]


def _address(service: Object, pod: Object, address: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"ip": address, "targetRef": addresses.target_reference(pod)}
    if pod["spec"].get("nodeName"):
        entry["nodeName"] = pod["spec"]["nodeName"]
    hostname = addresses.hostname_of(pod, service)
    return {**entry, "hostname": hostname} if hostname else entry


def _subset(group: dict[str, Any]) -> dict[str, Any]:
    def ordered(entries: list[Object]) -> list[Object]:
        return sorted(entries, key=lambda e: (ip_address(e["ip"]).packed, e["targetRef"]["uid"]))

    made: dict[str, Any] = {}
    if group["yes"]:
        made["addresses"] = ordered(group["yes"])
    if group["no"]:
        made["notReadyAddresses"] = ordered(group["no"])
    listed = [{k: v for k, v in port.items() if v != ""} for port in group["ports"]]
    if listed:
        made["ports"] = sorted(listed, key=lambda p: (p["protocol"], p["port"]))
    return made


def _truncated(subsets: list[Object]) -> tuple[list[Object], bool]:
    """At most :data:`MOST` addresses, ready ones first."""
    total = sum(len(s.get(f, ())) for s in subsets for f in ("addresses", "notReadyAddresses"))
    if total <= MOST:
        return subsets, False
    left, made = MOST, [dict(subset) for subset in subsets]
    for field in ("addresses", "notReadyAddresses"):
        for subset in made:
            kept = list(subset.get(field, ()))[:left]
            left -= len(kept)
            if kept:
                subset[field] = kept
            else:
                subset.pop(field, None)
    full = [s for s in made if s.get("addresses") or s.get("notReadyAddresses")]
    return list(full), True


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource.plural == PODS.plural:
        yield from addresses.services_of(change, reads)
    elif reads.get(SERVICES, change.namespace, change.name) is not None:
        # Endpoints without a Service are their maker's own and stay.
        yield Key(change.namespace, change.name)


ENDPOINTS_CONTROLLER = Controller(
    name="endpoint-controller",
    primary=SERVICES,
    reads=frozenset({PODS, ENDPOINTS}),
    writes=frozenset({ENDPOINTS}),
    shares=frozenset({ENDPOINTS}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
