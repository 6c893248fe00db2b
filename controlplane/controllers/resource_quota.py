"""
ResourceQuota → its status: what the namespace uses of it.

Admission adds to the count before a write; this counts anew when something is
deleted, finished or made smaller, and when the quota itself changes. Source:
the API concept "Resource Quotas".
"""

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from controlplane.client.base import Change, Object, Reads
from controlplane.objects import meta, quotas
from controlplane.objects.kinds import Kinds, Resource
from controlplane.objects.resources import RESOURCE_QUOTAS
from controlplane.reconcile.base import Controller, Key, SetStatus, Write


def make(kinds: Kinds) -> Controller:
    """``kinds``: what is served now; quotas may count custom resources."""
    return Controller(
        name="resourcequota-controller",
        primary=RESOURCE_QUOTAS,
        reads=frozenset(),
        writes=frozenset({RESOURCE_QUOTAS}),
        shares=frozenset({RESOURCE_QUOTAS}),
        reconcile=partial(_reconcile, kinds),
        keys_for=_keys_for,
        every_kind=True,
    )


def _keys_for(change: Change, reads: Reads) -> Iterator[Key]:
    if change.resource.plural == RESOURCE_QUOTAS.plural and not change.resource.group:
        yield Key(change.namespace, change.name)
    if not change.namespace:
        return
    for quota in reads.list(RESOURCE_QUOTAS, change.namespace):
        names = _hard(quota)
        if quotas.counted(change.resource.group_resource, names):
            yield Key(change.namespace, meta.name(quota))


def _reconcile(kinds: Kinds, key: Key, reads: Reads, now: datetime) -> Iterator[Write]:
    quota = reads.get(RESOURCE_QUOTAS, key.namespace, key.name)
    if quota is None or meta.is_deleting(quota):
        return
    hard = _hard(quota)
    used = dict.fromkeys(hard, "0")
    for group_resource in sorted(quotas.kinds_of(hard)):
        resource = _resource(kinds, group_resource)
        if resource is not None:
            objects = reads.list(resource, key.namespace)
            used |= quotas.total(quota, group_resource, objects, now)
    status = {"hard": dict(hard), "used": {name: used[name] for name in hard}}
    if status != quota.get("status"):
        yield SetStatus(RESOURCE_QUOTAS, quota, status)


def _hard(quota: Object) -> dict[str, str]:
    return dict((quota.get("spec") or {}).get("hard") or {})


def _resource(kinds: Kinds, group_resource: str) -> Resource | None:
    plural, _, group = group_resource.partition(".")
    for kind in kinds:
        if (kind.group, kind.plural) == (group, plural) and kind.namespaced:
            return kind.resource
    return None
