"""
Service and Pod → EndpointSlice.

Source: the API concept "EndpointSlices"; KEP-752, KEP-1672.
"""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from controlplane.client.base import Change, Object, Reads
from controlplane.controllers.endpoints import addresses, fill
from controlplane.objects.meta import controller_reference, is_deleting
from controlplane.objects.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from controlplane.reconcile import pods
from controlplane.reconcile.base import Controller, Key, Write

MANAGER = "endpointslice-controller.k8s.io"
ZONE = "topology.kubernetes.io/zone"


def _reconcile(key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    service = reads.get(SERVICES, key.namespace, key.name)
    if service is None or is_deleting(service):
        return  # the garbage collector takes the slices
    if not service["spec"].get("selector") or service["spec"].get("type") == "ExternalName":
        return
    own = {fill.SERVICE_NAME: key.name, fill.MANAGED_BY: MANAGER}
    maker = fill.Maker(
        key.name,
        key.namespace,
        addresses.inherited_labels(service, *own) | own,
        controller_reference(service),
        now,
    )
    existing = [
        item
        for item in reads.list(ENDPOINT_SLICES, key.namespace)
        if own.items() <= (item["metadata"].get("labels") or {}).items()
    ]
    yield from fill.plan(maker, _groups(service, reads), existing)


def _groups(service: Object, reads: Reads) -> Iterator[fill.Group]:
    backends = addresses.backends(service, reads)
    for family in addresses.families(service):
        groups: dict[str, tuple[list[addresses.Port], list[Object]]] = {}
        for pod in backends:
            address = addresses.address_of(pod, family)
            if address is None:
                continue
            ports = addresses.ports(service, pod)
            _, members = groups.setdefault(fill.group_key(family, ports), (ports, []))
            members.append(_endpoint(service, pod, address, reads))
        for ports, members in groups.values():
            yield fill.Group(family, ports, members)
        if not groups:
            yield fill.Group(family, (), ())


def _endpoint(service: Object, pod: Object, address: str, reads: Reads) -> dict[str, Any]:
    serving, leaving = pods.is_ready(pod), is_deleting(pod)
    ready = addresses.publishes_not_ready(service) or (serving and not leaving)
    made: dict[str, Any] = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": leaving},
        "targetRef": addresses.target_reference(pod),
    }
    hostname = addresses.hostname_of(pod, service)
    if hostname:
        made["hostname"] = hostname
    name = pod["spec"].get("nodeName")
    if name:
        made["nodeName"] = name
        node = reads.get(NODES, "", name)
        zone = (node["metadata"].get("labels") or {}).get(ZONE) if node is not None else None
        if zone:
            made["zone"] = zone
    return made


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    match change.resource.plural:
        case PODS.plural:
            yield from addresses.services_of(change, reads)
        case NODES.plural:
            yield from _with_node(change, reads)
        case _:
            item = change.new or change.old
            labels = (item["metadata"].get("labels") or {}) if item is not None else {}
            if labels.get(fill.MANAGED_BY) == MANAGER and fill.SERVICE_NAME in labels:
                yield Key(change.namespace, labels[fill.SERVICE_NAME])


def _with_node(change: Change, reads: Reads) -> Iterator[Key]:
    """Only a node's zone shows in slices."""

    def zone(node: Object | None) -> str | None:
        return (node["metadata"].get("labels") or {}).get(ZONE) if node is not None else None

    if change.load_old is not None and zone(change.old) != zone(change.new):
        for service in reads.list(SERVICES):
            yield Key(service["metadata"]["namespace"], service["metadata"]["name"])


ENDPOINTSLICE = Controller(
    name="endpointslice-controller",
    primary=SERVICES,
    reads=frozenset({PODS, NODES, ENDPOINT_SLICES}),
    writes=frozenset({ENDPOINT_SLICES}),
    shares=frozenset({ENDPOINT_SLICES}),
    reconcile=_reconcile,
    keys_for=_keys_for,
)
