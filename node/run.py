"""
The composition root of the agent: every part is made here and passed by argument.

One connection to the API server feeds one cache of what concerns this node;
kubelet, service proxy, pod network and DNS work from it. Everything runs in one
task group of one event loop; what the kernel and containerd hold stays when it ends.
"""

import asyncio
import logging
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from controlplane.client.base import Selection
from controlplane.client.cache import Cache
from controlplane.client.http import from_kubeconfig
from controlplane.objects.resources import (
    CONFIG_MAPS,
    ENDPOINT_SLICES,
    NODES,
    PODS,
    RUNTIME_CLASSES,
    SERVICES,
)
from node.config import Config, from_settings
from node.cri.client import CriClient
from node.dns.server import DnsServer
from node.host.nft import Nft
from node.kubelet.run import Kubelet
from node.network.apply import PodNetwork
from node.proxy.apply import ServiceProxy

LOG = logging.getLogger(__name__)
CUSTOM_DNS = Selection(namespace="kube-system", fields="metadata.name=coredns-custom")


def now() -> datetime:
    return datetime.now(UTC)


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    """Run the agent until SIGTERM; ``ready`` is called once this node is Ready."""
    asyncio.run(_serve(from_settings(settings), ready))
    return 0


async def _serve(config: Config, ready: Callable[[], None]) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with (
        from_kubeconfig(config.agent_dir / "kubelet.kubeconfig", agent="kubelet") as client,
        asyncio.TaskGroup() as tasks,
    ):
        cache = Cache(client, _wanted(config))
        running = [tasks.create_task(cache.run())]
        await cache.synced()
        nft = Nft()
        network = PodNetwork(config, cache, nft)
        proxy = ServiceProxy(config, cache, nft, own_ips=frozenset({config.cluster_dns}))
        dns = DnsServer(config, cache, custom_feed=cache)
        kubelet = Kubelet(config, client, cache, cache, CriClient(config.containerd_socket), now)
        running += [
            tasks.create_task(network.run()),
            tasks.create_task(proxy.run()),
            tasks.create_task(dns.run()),
        ]
        ready()
        await kubelet.run(stop)
        for task in running:
            task.cancel()


def _wanted(config: Config) -> list[Any]:
    mine = Selection(fields=f"spec.nodeName={config.node_name}")
    return [
        (PODS, mine),
        (SERVICES, Selection()),
        (ENDPOINT_SLICES, Selection()),
        (NODES, Selection()),
        (RUNTIME_CLASSES, Selection()),
        (CONFIG_MAPS, CUSTOM_DNS),
    ]
