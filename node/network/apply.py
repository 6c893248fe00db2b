"""
Brings the pod network of this node about, once the node has its podCIDR.
"""

import asyncio
import logging
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Any

from controlplane.client.base import Change, Feed
from controlplane.objects.resources import NODES
from node.config import Config
from node.host import sysctl
from node.host.links import SCOPE_LINK, Links, Route
from node.host.nft import Nft, NftError, wait_until_lost
from node.network import cni
from node.network.plan import FAMILY, TABLE, Facts, LinkFacts, Plan, RouteFacts, WantedRoute, plan

log = logging.getLogger(__name__)


class PodNetwork:
    """
    Rules, routes and settings at the start; the CNI configuration when the podCIDR is known.

    Its mutable state is the podCIDR that it was last told. What it made stays when it
    stops, so that pods keep their network while the agent is away; :meth:`cleanup` removes it.
    """

    def __init__(self, config: Config, feed: Feed, nft: Nft, *, netns: str = "") -> None:
        self._config = config
        self._feed = feed
        self._nft = nft
        self._netns = netns
        self._pod_cidr: IPv4Network | None = None
        self._told = asyncio.Event()
        self._ready = asyncio.Event()

    async def run(self) -> None:
        """Without end; :class:`OSError` and :class:`NftError` where the host refuses us."""
        unsubscribe = self._feed.subscribe([NODES], self._deliver)
        try:
            wanted = await self._prepare()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_rules(wanted.ruleset))
                group.create_task(self._keep_conflist(wanted.mtu))
        finally:
            unsubscribe()

    async def wait_ready(self) -> None:
        """Until sandboxes can be made: the CNI configuration is there."""
        await self._ready.wait()

    async def cleanup(self) -> None:
        """Remove rules, route, bridge and CNI configuration; what is absent is fine."""
        await self._nft.delete_table(FAMILY, TABLE)
        await asyncio.to_thread(self._remove_links)
        (self._config.cni_conf_dir / cni.FILE_NAME).unlink(missing_ok=True)

    def _deliver(self, change: Change) -> None:
        if change.name != self._config.node_name or (node := change.new) is None:
            return
        found = pod_cidr(node)
        if found is not None and found != self._pod_cidr:
            self._pod_cidr = found
            self._told.set()

    async def _prepare(self) -> Plan:
        facts = await asyncio.to_thread(self._look)
        wanted = plan(facts)
        await self._nft.load(wanted.ruleset)  # first: it closes what a setting opens
        await asyncio.to_thread(_set_sysctls, wanted, self._netns)
        await asyncio.to_thread(self._set_routes, wanted.routes)
        return wanted

    async def _keep_rules(self, ruleset: str) -> None:
        while True:
            await wait_until_lost(FAMILY, TABLE, netns=self._netns)
            log.warning("somebody removed the table %s; loading it again", TABLE)
            try:
                await self._nft.load(ruleset)
            except NftError:
                log.exception("cannot load the table %s again", TABLE)
                await asyncio.sleep(5)

    async def _keep_conflist(self, mtu: int) -> None:
        while True:
            await self._told.wait()
            self._told.clear()
            if self._pod_cidr is None:
                continue
            if await asyncio.to_thread(self._write_conflist, self._pod_cidr, mtu):
                log.info("pod network %s, MTU %d", self._pod_cidr, mtu)
            self._ready.set()

    def _write_conflist(self, network: IPv4Network, mtu: int) -> bool:
        plugins = cni.find_plugins()
        text = cni.conflist(
            network,
            mtu=mtu,
            # Not on the disk: the addresses in use are those of this boot.
            state_dir=self._config.run_dir / "cni",
            bandwidth=plugins is not None and (plugins / "bandwidth").is_file(),
        )
        return cni.write_conflist(self._config.cni_conf_dir, text)

    def _look(self) -> Facts:
        with Links(netns=self._netns) as links:
            addresses: dict[int, list[IPv4Interface]] = {}
            for index, address in links.addresses():
                addresses.setdefault(index, []).append(address)
            found = links.all()
            routes = links.routes()
        return Facts(
            node_ip=next((IPv4Address(ip) for ip in self._config.node_ips if ":" not in ip), None),
            cluster_cidr=self._config.cluster_cidr,
            service_cidr=self._config.service_cidr,
            loopback=next(link.index for link in found if link.name == "lo"),
            links=tuple(
                LinkFacts(index=x.index, mtu=x.mtu, addresses=tuple(addresses.get(x.index, ())))
                for x in found
            ),
            routes=tuple(RouteFacts(target=x.target, link=x.link, metric=x.metric) for x in routes),
        )

    def _set_routes(self, wanted: tuple[WantedRoute, ...]) -> None:
        with Links(netns=self._netns) as links:
            for route in wanted:
                links.set_route(_route(route), scope=SCOPE_LINK)

    def _remove_links(self) -> None:
        with Links(netns=self._netns) as links:
            for route in links.routes():
                if route.ours and route.target == self._config.service_cidr:
                    links.remove_route(route)
            links.remove(cni.BRIDGE)


def pod_cidr(node: Any) -> IPv4Network | None:
    """The node's IPv4 one; None: it has none yet."""
    spec = node.get("spec") or {}
    for text in spec.get("podCIDRs") or [spec.get("podCIDR") or ""]:
        if text and ":" not in text:
            return IPv4Network(text)
    return None


def _route(wanted: WantedRoute) -> Route:
    return Route(
        target=wanted.target,
        link=wanted.link,
        source=wanted.source,
        mtu=wanted.mtu,
        metric=wanted.metric,
    )


def _set_sysctls(wanted: Plan, netns: str) -> None:
    for name, value in wanted.sysctls.items():
        if not sysctl.ensure(name, value, netns=netns):
            raise FileNotFoundError(f"this kernel has no setting {name}")
    for name, value in wanted.optional_sysctls.items():
        try:
            if not sysctl.ensure(name, value, netns=netns):
                log.warning("this kernel has no setting %s", name)
        except OSError as error:
            log.warning("cannot set %s: %s", name, error)
