"""
ResourceQuota: a namespace uses no more than its quotas allow.

What a write will use is added to the quota's status before the write happens,
guarded by its resourceVersion, so that two writes at once cannot both take the
last place. A write that fails later leaves the count too high until the quota
controller counts again. The last plugin: nothing may change the object after it.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from controlplane.api.admission.plugin import Plugin, refused
from controlplane.api.base import AdmissionRequest, Operation
from controlplane.client.base import Client, Object
from controlplane.objects import meta, quantity, quotas
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import RESOURCE_QUOTAS

_ATTEMPTS = 5
_ON_UPDATE = frozenset({"services", "persistentvolumeclaims", "pods"})


class ResourceQuota(Plugin):
    """Its mutable state is a lock for each namespace that has quotas."""

    name = "ResourceQuota"

    def __init__(self, client: Callable[[], Client], clock: Callable[[], datetime]) -> None:
        """``client`` is asked late, since it goes through the plugins itself."""
        self._client = client
        self._clock = clock
        self._locks: dict[str, asyncio.Lock] = {}

    async def validate(self, request: AdmissionRequest) -> None:
        if request.object is None or not request.namespace or not _is_counted(request):
            return
        if not request.reads.list(RESOURCE_QUOTAS, request.namespace):
            self._locks.pop(request.namespace, None)
            return
        lock = self._locks.setdefault(request.namespace, asyncio.Lock())
        async with lock:
            await self._take(request)

    async def _take(self, request: AdmissionRequest) -> None:
        done: set[str] = set()
        for _ in range(_ATTEMPTS):
            found = request.reads.list(RESOURCE_QUOTAS, request.namespace)
            # All are checked before any is charged.
            charges = [
                (quota, used)
                for quota in found
                if meta.name(quota) not in done
                and (used := _charge(request, quota, self._clock())) is not None
            ]
            if request.dry_run:
                return
            if await self._write(charges, done):
                return
        raise StatusError(
            409, "Conflict", "the quotas of the namespace changed too often; try again"
        )

    async def _write(self, charges: list[tuple[Object, quotas.Used]], done: set[str]) -> bool:
        for quota, used in charges:
            status = quota.get("status") or {}
            hard = status.get("hard") or (quota.get("spec") or {}).get("hard") or {}
            body = {**quota, "status": {**status, "hard": hard, "used": used}}
            try:
                await self._client().update(RESOURCE_QUOTAS, body, subresource="status")
            except StatusError as err:
                if err.reason == "Conflict":
                    return False
                if err.reason != "NotFound":
                    raise
            done.add(meta.name(quota))
        return True


def _is_counted(request: AdmissionRequest) -> bool:
    group_resource, operation = request.kind.group_resource, request.operation
    if group_resource in quotas.UNCOUNTED or not request.kind.namespaced:
        return False
    if request.subresource:
        resized = request.subresource == "resize" and operation is Operation.UPDATE
        return group_resource == "pods" and resized
    if operation is Operation.UPDATE:
        return group_resource in _ON_UPDATE
    return operation is Operation.CREATE


def _charge(request: AdmissionRequest, quota: Object, now: datetime) -> quotas.Used | None:
    """What the quota's ``status.used`` becomes; None: this write costs it nothing."""
    group_resource, obj = request.kind.group_resource, request.object or {}
    hard: Mapping[str, Any] = _hard(quota)
    names = quotas.counted(group_resource, hard)
    if not names or not quotas.in_scope(quota, group_resource, obj):
        return None
    name = meta.name(quota)
    if group_resource == "pods" and request.operation is Operation.CREATE:
        silent = quotas.missing(names, obj)
        if silent:
            raise refused(request, f"failed quota: {name}: {silent}")
    delta = _delta(request, quota, names, now)
    if not delta:
        return None
    used = _used(request, quota, names, now)
    after = quotas.plus(used, delta)
    over = [n for n in sorted(delta) if n in after and quantity.compare(after[n], hard[n]) > 0]
    if over:
        raise refused(
            request,
            f"exceeded quota: {name}, requested: {_shown(delta, over)}, used: "
            f"{_shown(used, over)}, limited: {_shown(hard, over)}",
        )
    return after


def _hard(quota: Object) -> Mapping[str, Any]:
    status = quota.get("status") or {}
    return status.get("hard") or (quota.get("spec") or {}).get("hard") or {}


def _delta(
    request: AdmissionRequest, quota: Object, names: list[str], now: datetime
) -> quotas.Used:
    """What is used in addition; giving back is the controller's work."""
    group_resource = request.kind.group_resource
    new = quotas.usage(group_resource, request.object or {}, now)
    old: quotas.Used = {}
    if request.old is not None and quotas.in_scope(quota, group_resource, request.old):
        old = quotas.usage(group_resource, request.old, now)
    changes = {n: quantity.subtract(new.get(n, "0"), old.get(n, "0")) for n in names if n in new}
    return {n: value for n, value in changes.items() if quantity.nanos(value) > 0}


def _used(request: AdmissionRequest, quota: Object, names: list[str], now: datetime) -> quotas.Used:
    """The status, completed by counting for names that no controller has counted yet."""
    used = dict((quota.get("status") or {}).get("used") or {})
    if any(name not in used for name in names):
        objects = request.reads.list(request.kind.resource, request.namespace)
        used = quotas.total(quota, request.kind.group_resource, objects, now) | used
    return used


def _shown(amounts: Mapping[str, Any], names: list[str]) -> str:
    return ",".join(f"{name}={quantity.canonical(amounts[name])}" for name in names)
