"""
Endpoints that somebody made by hand for a Service without selector → EndpointSlice.

Source: the API concept "EndpointSlices", "EndpointSlice mirroring".
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.endpoints import fill
from controlplane.objects.meta import controller_reference, is_deleting
from controlplane.objects.resources import ENDPOINT_SLICES, ENDPOINTS, SERVICES
from controlplane.reconcile.base import Controller, Delete, Key, Write

MANAGER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
MOST = 1000  # addresses of a subset that are mirrored


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    found = reads.get(ENDPOINTS, key.namespace, key.name)
    service = reads.get(SERVICES, key.namespace, key.name)
    own = {fill.SERVICE_NAME: key.name, fill.MANAGED_BY: MANAGER}
    existing = [
        item
        for item in reads.list(ENDPOINT_SLICES, key.namespace)
        if own.items() <= (item["metadata"].get("labels") or {}).items()
    ]
    if found is None or service is None or not _is_to_be_mirrored(found, service):
        yield from (Delete(ENDPOINT_SLICES, item) for item in existing)
        return
    labels = {**(found["metadata"].get("labels") or {}), **own}
    maker = fill.Maker(key.name, key.namespace, labels, controller_reference(found), now)
    yield from fill.plan(maker, _groups(found), existing)


def _is_to_be_mirrored(found: Object, service: Object) -> bool:
    meta = found["metadata"]
    return not (
        is_deleting(found)
        or service["spec"].get("selector")
        or (meta.get("labels") or {}).get(SKIP_LABEL) == "true"
        or LEADER_ANNOTATION in (meta.get("annotations") or {})
    )


def _groups(found: Object) -> Iterator[fill.Group]:
    groups: dict[str, tuple[str, list[Any], list[Object]]] = {}
    for subset in found.get("subsets") or ():
        ports = [{"name": "", "protocol": "TCP", **port} for port in subset.get("ports") or ()]
        left = MOST
        for field, ready in (("addresses", True), ("notReadyAddresses", False)):
            for address in list(subset.get(field) or ())[:left]:
                left -= 1
                family = "IPv6" if ":" in address["ip"] else "IPv4"
                group = groups.setdefault(fill.group_key(family, ports), (family, ports, []))
                group[2].append(_endpoint(address, ready=ready))
    for family, ports, members in groups.values():
        yield fill.Group(family, ports, members)


def _endpoint(address: Object, *, ready: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [address["ip"]], "conditions": {"ready": ready}}
    made |= {k: address[k] for k in ("hostname", "nodeName", "targetRef") if address.get(k)}
    return made


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource.plural == SERVICES.plural:
        yield Key(change.namespace, change.name)
        return
    item = change.new or change.old
    labels = (item["metadata"].get("labels") or {}) if item is not None else {}
    if labels.get(fill.MANAGED_BY) == MANAGER and fill.SERVICE_NAME in labels:
        yield Key(change.namespace, labels[fill.SERVICE_NAME])


MIRROR = Controller(
    name="endpointslice-mirroring-controller",
    primary=ENDPOINTS,
    reads=frozenset({SERVICES, ENDPOINT_SLICES}),
    writes=frozenset({ENDPOINT_SLICES}),
    shares=frozenset({ENDPOINT_SLICES}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
