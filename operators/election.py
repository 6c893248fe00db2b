"""
Who of several processes acts: the holder of a Lease, as client-go elects its leaders.

Nobody's clock is compared with anybody else's: a Lease is over when it did not change for its
duration as measured here. A holder that could not renew for the shorter deadline stops before
another may begin. Only elsewhere: on a node of Pinnace there is one process and no Lease.
Source: the Lease API, coordination.k8s.io/v1, and k8s.io/client-go/tools/leaderelection.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from operators.client import ApiError

LOG = logging.getLogger(__name__)

JITTER = 1.2  # a candidate's wait is drawn out by up to this, so that not all come at once

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    namespace: str
    name: str
    identity: str
    duration: float = 15.0  # seconds; others wait so long
    deadline: float = 10.0  # without renewal for so long the holder stops
    retry: float = 2.0


class Leases(Protocol):
    """Each raises :class:`operators.client.ApiError`; get: None where there is none."""

    async def get(self, namespace: str, name: str) -> dict[str, Any] | None: ...
    async def create(self, lease: Object) -> dict[str, Any]: ...
    async def replace(self, lease: Object) -> dict[str, Any]: ...


def claim(lease: Object | None, told: Told, *, age: float, now: str) -> dict[str, Any] | None:
    """
    The Lease to write; None where somebody else holds it.

    ``age``: seconds since this Lease was first seen as it is. ``now``: RFC 3339 with microseconds.
    """
    spec = (lease or {}).get("spec") or {}
    holder = spec.get("holderIdentity") or ""
    if holder not in {"", told.identity} and age < (spec.get("leaseDurationSeconds") or 0):
        return None
    ours = holder == told.identity
    transitions = spec.get("leaseTransitions") or 0
    wanted = {
        "holderIdentity": told.identity,
        "leaseDurationSeconds": round(told.duration),
        "acquireTime": spec.get("acquireTime") or now if ours else now,
        "renewTime": now,
        "leaseTransitions": transitions if ours or lease is None else transitions + 1,
    }
    return _with(lease, told, wanted)


def surrender(lease: Object, told: Told, *, now: str) -> dict[str, Any]:
    """The Lease as its holder leaves it, so that another need not wait."""
    wanted = {
        "holderIdentity": "",
        "leaseDurationSeconds": 1,
        "acquireTime": now,
        "renewTime": now,
        "leaseTransitions": (lease.get("spec") or {}).get("leaseTransitions") or 0,
    }
    return _with(lease, told, wanted)


def _with(lease: Object | None, told: Told, wanted: Object) -> dict[str, Any]:
    metadata = (lease or {}).get("metadata") or {"namespace": told.namespace, "name": told.name}
    kind = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}
    return {**kind, "metadata": metadata, "spec": {**((lease or {}).get("spec") or {}), **wanted}}


class Elector:
    """``clock``: seconds that only go forward. ``chance``: a number from 0 to 1."""

    def __init__(
        self,
        leases: Leases,
        told: Told,
        *,
        now: Callable[[], datetime],
        clock: Callable[[], float],
        chance: Callable[[], float],
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
    ) -> None:
        self._leases = leases
        self._told = told
        self._now = now
        self._clock = clock
        self._chance = chance
        self._sleep = sleep
        self._lease: Object | None = None  # as last seen or written
        self._seen_at = 0.0
        self._renewed_at: float | None = None  # when the last renewal was begun
        self.transitions = 0  # times that this process began to hold it

    @property
    def holds(self) -> bool:
        """Also False when this process slept through its own deadline."""
        begun = self._renewed_at
        return begun is not None and self._clock() - begun < self._told.deadline

    @property
    def holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Returns when the Lease is ours."""
        while not await self._try(self._told.deadline):
            await self._sleep(self._told.retry * (1 + JITTER * self._chance()))
        self.transitions += 1
        LOG.info("%s holds the Lease %s", self._told.identity, self._told.name)

    async def hold(self) -> None:
        """Renew; returns when the Lease is lost, or could not be renewed in time."""
        while True:
            await self._sleep(self._told.retry)
            if not await self._renew():
                self._renewed_at = None
                LOG.error("lost the Lease %s to %r", self._told.name, self.holder)
                return

    async def release(self) -> None:
        """Give it back, where it is ours."""
        if self._renewed_at is None or self._lease is None:
            return
        self._renewed_at = None
        body = surrender(self._lease, self._told, now=self._time())
        try:
            async with asyncio.timeout(self._told.retry):
                self._lease = await self._leases.replace(body)
        except (ApiError, TimeoutError) as err:
            LOG.warning("could not give the Lease back: %s", err)

    async def _renew(self) -> bool:
        assert self._renewed_at is not None
        while (left := self._renewed_at + self._told.deadline - self._clock()) > 0:
            if await self._try(left):
                return True
            if self.holder not in {"", self._told.identity}:
                return False
            await self._sleep(min(self._told.retry, max(left, 0)))
        return False

    async def _try(self, limit: float) -> bool:
        begun = self._clock()
        try:
            async with asyncio.timeout(limit):
                held = await self._write()
        except (ApiError, TimeoutError) as err:
            LOG.warning("the Lease %s: %s", self._told.name, str(err) or "no answer in time")
            return False
        except asyncio.CancelledError:
            # Not ours: something that the request was waiting for was cancelled.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return False
        if held:
            self._renewed_at = begun
        return held

    async def _write(self) -> bool:
        """The holder writes over what it wrote last; who is not the holder looks first."""
        if self._renewed_at is not None and self._lease is not None:
            try:
                self._note(await self._leases.replace(self._claim(self._lease) or {}))
            except ApiError as err:
                if err.code not in {404, 409}:
                    raise
            else:
                return True
        found = await self._leases.get(self._told.namespace, self._told.name)
        if found is None or _version(found) != _version(self._lease):
            self._note(found)
        wanted = self._claim(found)
        if wanted is None:
            return False
        write = self._leases.create if found is None else self._leases.replace
        self._note(await write(wanted))
        return True

    def _claim(self, lease: Object | None) -> dict[str, Any] | None:
        return claim(lease, self._told, age=self._clock() - self._seen_at, now=self._time())

    def _note(self, lease: Object | None) -> None:
        self._lease, self._seen_at = lease, self._clock()

    def _time(self) -> str:
        return self._now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _version(lease: Object | None) -> str:
    return str(((lease or {}).get("metadata") or {}).get("resourceVersion") or "")
