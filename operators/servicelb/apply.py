"""
What is known of Services, Nodes and EndpointSlices, and the writing of what differs.

kopf tells of what was deleted only while it watches. After a gap it lists anew, and
what then is missing has gone: hence :meth:`Known.seen`.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from operators import events
from operators.client import ApiError, Client
from operators.servicelb import plan
from operators.servicelb.plan import Change, Node, Service

LOG = logging.getLogger(__name__)
EVERYTHING = "all"  # the one key: a port that one Service frees may be another's
LISTING_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class _Listing:
    """Of one kind, until nothing more came for a while."""

    timer: asyncio.TimerHandle
    keys: set[str]


class Known:
    """Facts by kind and key; ``changed`` is called when something is not as it was."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self.synced = False  # all kinds were listed once
        self.services: dict[str, Any] = {}
        self.nodes: dict[str, Any] = {}
        self.slices: dict[str, Any] = {}
        self._listings: dict[int, _Listing] = {}

    def put(self, kind: dict[str, Any], key: str, facts: Any) -> None:
        """``facts`` None: of no interest."""
        if kind.get(key) == facts:
            return
        if facts is None:
            del kind[key]
        else:
            kind[key] = facts
        self._tell()

    def sync(self) -> None:
        if not self.synced:
            self.synced = True
            self._changed()

    def seen(self, kind: dict[str, Any], key: str, *, listed: bool) -> None:
        """``listed``: ``key`` came in a listing; otherwise in a watch, and is there too."""
        under_way = self._listings.get(id(kind))
        if listed:
            if under_way:
                under_way.timer.cancel()
            loop = asyncio.get_running_loop()
            timer = loop.call_later(LISTING_SECONDS, self._sweep, kind)
            under_way = _Listing(timer, under_way.keys if under_way else set())
            self._listings[id(kind)] = under_way
        if under_way:
            under_way.keys.add(key)

    def _sweep(self, kind: dict[str, Any]) -> None:
        found = self._listings.pop(id(kind)).keys
        gone = [key for key in kind if key not in found]
        for key in gone:
            del kind[key]
        if gone:
            self._tell()

    def _tell(self) -> None:
        if self.synced:
            self._changed()


class Addresses:
    """``disabled``: take back what was given, once, and give nothing."""

    def __init__(
        self, client: Client, known: Known, *, disabled: bool, now: Callable[[], datetime]
    ) -> None:
        self._client = client
        self._known = known
        self._disabled = disabled
        self._now = now
        self._withdrawn: set[str] = set()

    async def reconcile(self, _key: str) -> None:
        nodes: list[Node] = list(self._known.nodes.values())
        services: list[Service] = list(self._known.services.values())
        for change in self._changes(services, nodes):
            await self._write(change)

    def _changes(self, services: list[Service], nodes: list[Node]) -> list[Change]:
        if not self._disabled:
            return plan.changes(services, nodes, self._local())
        # Once for each: later addresses are another controller's, whatever they look like.
        found = plan.withdrawals([s for s in services if s.uid not in self._withdrawn], nodes)
        self._withdrawn |= {service.uid for service in services}
        return found

    def _local(self) -> Mapping[str, frozenset[str]]:
        found: dict[str, frozenset[str]] = {}
        for service, nodes in self._known.slices.values():
            found[service] = found.get(service, frozenset()) | nodes
        return found

    async def _write(self, change: Change) -> None:
        namespace, _, name = change.service.key.partition("/")
        path = f"/api/v1/namespaces/{namespace}/services/{name}/status"
        now = self._now().strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            body = await self._client.merge(path, plan.status_patch(change, now))
        except ApiError as err:
            # Changed or deleted meanwhile: the watch tells soon, and then comes another look.
            if err.code not in {404, 409}:
                raise
            return
        await self._tell({"apiVersion": "v1", "kind": "Service", **body}, change, now)

    async def _tell(self, body: Mapping[str, Any], change: Change, now: str) -> None:
        before, after = " ".join(change.service.published), " ".join(change.addresses)
        told = events.event(
            body,
            warning=bool(change.conflict),
            reason="UnAvailableLoadBalancer" if change.conflict else "UpdatedLoadBalancer",
            message=change.conflict
            or f"Updated LoadBalancer with new IPs: [{before}] -> [{after}]",
            now=now,
        )
        try:
            await self._client.create(events.path(body), told)
        except ApiError as err:
            LOG.debug("event: %s", err)
