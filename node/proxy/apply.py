"""
Keeps the kernel's table equal to what services and endpoint slices say.

Driven by changes alone: what arrives within a few milliseconds goes into one
transaction, and nothing runs while nothing changes. A table that somebody else
removed is put back.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Iterable
from ipaddress import IPv4Address

from controlplane.client.base import Change, Feed
from controlplane.objects.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from node.config import Config
from node.host import conntrack
from node.host.nft import Nft, NftError, NftMissing, wait_until_lost
from node.proxy.health import Health, HealthServer
from node.proxy.plan import (
    FAMILY,
    TABLE,
    Facts,
    fixed_text,
    local_endpoints,
    plan_pod,
    plan_service,
)
from node.proxy.ruleset import EMPTY, Owner, Part, Ruleset
from node.proxy.services import (
    Endpoint,
    Service,
    ServiceKey,
    parse_endpoints,
    parse_service,
    slice_service,
)
from node.proxy.stale import changed_destinations, is_stale

log = logging.getLogger(__name__)
_BATCH = 0.01  # seconds: changes come in groups, such as a service and its slice
_ZONE_LABEL = "topology.kubernetes.io/zone"
_RETRY_FIRST, _RETRY_LAST = 1.0, 60.0


class ServiceProxy:
    """
    The service proxy of a node: ClusterIP, NodePort, load balancers, external IPs, host ports.

    ``feed`` must know all current objects when :meth:`run` is called: the first
    transaction replaces whatever table there was. ``own_ips``: cluster IPs that this
    node answers itself (its DNS), which are left alone. ``own_ports``: TCP ports of the kubelet
    and the API server, which nobody may take. ``netns`` as for :class:`Nft`.

    Mutable state, changed on the event loop only: the parsed services and endpoints, the
    ruleset, the owners to be planned again. The rules stay when it stops.
    """

    def __init__(
        self,
        config: Config,
        feed: Feed,
        nft: Nft,
        *,
        own_ips: frozenset[IPv4Address] = frozenset(),
        own_ports: tuple[int, ...] = (),
        netns: str = "",
        health_host: str = "0.0.0.0",
    ) -> None:
        self._feed = feed
        self._nft = nft
        self._netns = netns
        self._facts = Facts(
            node=config.node_name,
            node_ips=tuple(ip for ip in config.node_ips if ":" not in ip),
            zone="",
            cluster_cidr=config.cluster_cidr,
            service_cidr=config.service_cidr,
            own_ips=own_ips,
            own_ports=own_ports,
        )
        self._ruleset = Ruleset(FAMILY, TABLE, fixed_text(self._facts))
        self._services: dict[ServiceKey, Service] = {}
        self._slices: dict[ServiceKey, dict[str, tuple[Endpoint, ...]]] = {}
        self._slice_owner: dict[tuple[str, str], ServiceKey] = {}
        self._pods: dict[Owner, Part] = {}
        self._dirty: set[Owner] = set()
        self._whole = True  # the table is to be replaced, not changed
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()  # the kernel has all that was delivered
        self._stale: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}
        self._health = HealthServer(health_host)

    async def run(self) -> None:
        """Without end; ends by cancellation only and leaves the rules as they are."""
        kinds = [SERVICES, ENDPOINT_SLICES, PODS, NODES]
        unsubscribe = self._feed.subscribe(kinds, self._deliver)
        self._wake.set()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._follow())
                group.create_task(self._guard())
        finally:
            unsubscribe()
            self._health.close()

    async def cleanup(self) -> None:
        """Remove the table; services stop working on this node."""
        await self._nft.delete_table(FAMILY, TABLE)

    async def settle(self) -> None:
        """Until the kernel has every change that was delivered so far."""
        await self._settled.wait()

    def _deliver(self, change: Change) -> None:
        match change.resource.plural:
            case "services":
                self._on_service(change)
            case "endpointslices":
                self._on_slice(change)
            case "pods":
                self._on_pod(change)
            case _:
                self._on_node(change)
        if self._dirty:
            self._settled.clear()
            self._wake.set()

    def _on_service(self, change: Change) -> None:
        key = ServiceKey(change.namespace, change.name)
        new = change.new
        parsed = parse_service(new) if new is not None else None
        if parsed == self._services.get(key):
            return  # labels, most annotations, conditions
        if parsed is None:
            del self._services[key]
        else:
            self._services[key] = parsed
        self._dirty.add(key)

    def _on_slice(self, change: Change) -> None:
        where = (change.namespace, change.name)
        new = change.new
        owner = slice_service(new) if new is not None else None
        endpoints = parse_endpoints(new) if new is not None and owner is not None else ()
        before = self._slice_owner.pop(where, None)
        if before is not None and before != owner:
            self._drop_slice(before, change.name)
        if owner is None:
            return
        self._slice_owner[where] = owner
        slices = self._slices.setdefault(owner, {})
        if slices.get(change.name) != endpoints:
            slices[change.name] = endpoints
            self._dirty.add(owner)

    def _drop_slice(self, owner: ServiceKey, name: str) -> None:
        slices = self._slices[owner]
        del slices[name]
        if not slices:
            del self._slices[owner]
        self._dirty.add(owner)

    def _on_pod(self, change: Change) -> None:
        owner = ("pod", change.namespace, change.name)
        new = change.new
        ours = new is not None and new["spec"].get("nodeName") == self._facts.node
        part = plan_pod(new) if ours and new is not None else EMPTY
        if part != self._pods.get(owner, EMPTY):
            self._pods[owner] = part
            self._dirty.add(owner)

    def _on_node(self, change: Change) -> None:
        node = change.new
        if change.name != self._facts.node or node is None:
            return
        zone = (node["metadata"].get("labels") or {}).get(_ZONE_LABEL, "")
        addresses = (node.get("status") or {}).get("addresses") or []
        named = {
            kind: tuple(
                a["address"] for a in addresses if a["type"] == kind and ":" not in a["address"]
            )
            for kind in ("InternalIP", "ExternalIP")
        }
        facts = dataclasses.replace(
            self._facts,
            zone=zone,
            node_ips=named["InternalIP"] or self._facts.node_ips,
            external_ips=named["ExternalIP"],
        )
        if facts != self._facts:
            self._facts = facts
            self._dirty |= self._services.keys()

    async def _follow(self) -> None:
        retry = _RETRY_FIRST
        while True:
            await self._wake.wait()
            await asyncio.sleep(_BATCH)
            self._wake.clear()
            try:
                await self._apply()
                retry = _RETRY_FIRST
            except (NftError, NftMissing) as error:
                log.error("cannot program services: %s", error)  # noqa: TRY400 - nft's text says it
                self._whole = True
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), retry)
                self._wake.set()
                retry = min(retry * 2, _RETRY_LAST)

    async def _guard(self) -> None:
        while True:
            await self._settled.wait()
            await wait_until_lost(FAMILY, TABLE, netns=self._netns)
            log.warning("somebody removed the table %s; loading it again", TABLE)
            self._settled.clear()
            self._whole = True
            self._wake.set()

    async def _apply(self) -> None:
        dirty, self._dirty = self._dirty, set()
        parts = {owner: self._plan(owner) for owner in dirty}
        before = {owner: self._ruleset.part(owner) for owner in parts}
        difference = self._ruleset.replace(parts)
        self._stale |= changed_destinations((before[owner], parts[owner]) for owner in parts)
        text = self._ruleset.full() if self._whole else difference
        self._whole = False
        if text:
            await self._nft.load(text)
        self._report_losers(parts)
        await self._health.update(self._health_checks())
        await self._forget_stale()
        if not self._dirty and not self._whole:
            self._settled.set()

    def _plan(self, owner: Owner) -> Part:
        if not isinstance(owner, ServiceKey):
            return self._pods.pop(owner) if self._pods[owner] == EMPTY else self._pods[owner]
        service = self._services.get(owner)
        return plan_service(service, self._endpoints(owner), self._facts) if service else EMPTY

    def _endpoints(self, key: ServiceKey) -> list[Endpoint]:
        return [e for endpoints in self._slices.get(key, {}).values() for e in endpoints]

    def _health_checks(self) -> dict[int, Health]:
        node = self._facts.node
        return {
            service.health_port: Health(key, local_endpoints(service, self._endpoints(key), node))
            for key, service in self._services.items()
            if service.health_port
        }

    async def _forget_stale(self) -> None:
        if not self._stale:
            return
        check = is_stale(self._stale, self._facts.node_ips)
        self._stale = {}
        try:
            await asyncio.to_thread(conntrack.forget_udp, check, netns=self._netns)
        except OSError as error:
            log.warning("cannot forget stale UDP connections: %s", error)

    def _report_losers(self, owners: Iterable[Owner]) -> None:
        for owner in owners:
            for element in self._ruleset.losers(owner):
                log.warning("%s wants %s, which another has", "/".join(owner), element.key)
