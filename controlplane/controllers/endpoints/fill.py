"""
Wanted endpoints into slices with as few writes as possible: pure, shared by both slice makers.

Endpoints that are where they belong stay there; new ones fill slices that change
anyway, then slices with room, then new slices.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane.client.base import Object
from controlplane.objects.meta import rfc3339
from controlplane.objects.resources import ENDPOINT_SLICES
from controlplane.reconcile.base import Create, Delete, Update, Write

MOST = 100  # endpoints in a slice
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"

Ports = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Group:
    """Endpoints that share an address type and ports."""

    family: str
    ports: Ports
    endpoints: Sequence[Object]


@dataclass(frozen=True, slots=True)
class Maker:
    """What is the same in all slices of one Service."""

    prefix: str  # of names
    namespace: str
    labels: Mapping[str, str]
    owner: Mapping[str, Any]
    now: datetime


def group_key(family: str, ports: Ports | None) -> str:
    listed = sorted(ports or (), key=lambda p: (p.get("name") or "", p.get("port") or 0))
    return json.dumps([family, [sorted(p.items()) for p in listed]])


def _identity(endpoint: Object) -> tuple[str, ...]:
    target = endpoint.get("targetRef") or {}
    return (target.get("uid", ""), *endpoint["addresses"])


def plan(maker: Maker, groups: Iterable[Group], existing: Iterable[Object]) -> Iterator[Write]:
    by_key: dict[str, list[Object]] = {}
    for item in existing:
        by_key.setdefault(group_key(item["addressType"], item.get("ports")), []).append(item)
    for group in groups:
        slices = by_key.pop(group_key(group.family, group.ports), [])
        yield from _group(maker, group, slices)
    for slices in by_key.values():
        yield from (Delete(ENDPOINT_SLICES, item) for item in slices)


def _group(maker: Maker, group: Group, slices: Sequence[Object]) -> Iterator[Write]:
    wanted = {_identity(endpoint): endpoint for endpoint in group.endpoints}
    kept = [_take(item, wanted) for item in slices]
    changed = [
        now != (item.get("endpoints") or []) or _differs(maker, item)
        for item, now in zip(slices, kept, strict=True)
    ]
    left = list(wanted.values())
    # A slice that is written anyway first, so that the others stay as they are.
    for index in sorted(range(len(slices)), key=lambda i: not changed[i]):
        room = MOST - len(kept[index])
        if left and room > 0:
            kept[index] = kept[index] + left[:room]
            left = left[room:]
            changed[index] = True
    while left:
        yield Create(ENDPOINT_SLICES, _new(maker, group, left[:MOST]))
        left = left[MOST:]
    placeholder = not group.endpoints  # one empty slice says that the Service is known
    for item, now, dirty in zip(slices, kept, changed, strict=True):
        if not now and not placeholder:
            yield Delete(ENDPOINT_SLICES, item)
            continue
        if dirty:
            yield Update(ENDPOINT_SLICES, _changed(maker, item, now))
        if placeholder:
            placeholder = False
            yield from (Delete(ENDPOINT_SLICES, s) for s in slices if s is not item)
            return
    if placeholder:
        yield Create(ENDPOINT_SLICES, _new(maker, group, []))


def _take(item: Object, wanted: dict[tuple[str, ...], Object]) -> list[Object]:
    """The slice's endpoints that are still wanted, as they are now; they are taken out."""
    found = (wanted.pop(_identity(e), None) for e in item.get("endpoints") or ())
    return [endpoint for endpoint in found if endpoint is not None]


def _differs(maker: Maker, item: Object) -> bool:
    return bool(item["metadata"].get("labels") != dict(maker.labels))


def _changed(maker: Maker, item: Object, endpoints: Sequence[Object]) -> dict[str, Any]:
    meta = item["metadata"]
    annotations = {**(meta.get("annotations") or {}), TRIGGER_TIME: rfc3339(maker.now)}
    meta = {**meta, "labels": dict(maker.labels), "annotations": annotations}
    return {**item, "metadata": meta, "endpoints": list(endpoints)}


def _new(maker: Maker, group: Group, endpoints: Sequence[Object]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{maker.prefix}-",
            "namespace": maker.namespace,
            "labels": dict(maker.labels),
            "annotations": {TRIGGER_TIME: rfc3339(maker.now)},
            "ownerReferences": [dict(maker.owner)],
        },
        "addressType": group.family,
        "endpoints": list(endpoints),
        "ports": list(group.ports),
    }
