"""
The composition root of the agent: every part is made here and passed by argument.

One connection to the API server feeds one cache of what concerns this node;
kubelet, service proxy, pod network and DNS work from it. Everything runs in one
task group of one event loop; what the kernel and containerd hold stays when it ends.
"""

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.client.base import Selection
from controlplane.client.cache import Cache
from controlplane.client.clock import WallClock
from controlplane.client.http import HttpClient, from_kubeconfig
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
from node.cri.reference import normalise
from node.dns.server import DnsServer
from node.host.nft import Nft
from node.kubelet.authorize import Authorizer
from node.kubelet.evictor import Evictor
from node.kubelet.gate import policy_gate
from node.kubelet.housekeeping import Housekeeper
from node.kubelet.node import NodeAgent
from node.kubelet.preload import Preloader
from node.kubelet.renewal import Renewal
from node.kubelet.run import Kubelet
from node.kubelet.server import KubeletServer
from node.network.apply import PodNetwork
from node.proxy.apply import ServiceProxy
from node.supervise.apply import HAND_OVER
from node.update.watch import Surroundings, UpdateWatch

LOG = logging.getLogger(__name__)
STOP_SECONDS = 5.0
CUSTOM_DNS = Selection(namespace="kube-system", fields="metadata.name=coredns-custom")


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    """Run the agent until SIGTERM; ``ready`` is called once this node is Ready."""
    clock = settings.get("clock") or WallClock()
    return asyncio.run(_serve(from_settings(settings), ready, clock))


async def _serve(config: Config, ready: Callable[[], None], clock: WallClock) -> int:
    """
    SIGTERM ends the work by cancellation, wherever it stands; what runs in the kernel stays.

    The exit code: 0, or HAND_OVER where the daemon is to go on alone with an update.
    """
    stop = asyncio.Event()
    handed_over = asyncio.Event()

    def hand_over() -> None:
        handed_over.set()
        stop.set()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with from_kubeconfig(config.agent_dir / "kubelet.kubeconfig", agent="kubelet") as client:
        clock.follow(asyncio.get_running_loop())
        working = asyncio.ensure_future(
            _work(config, client, ready, stop, clock=clock, hand_over=hand_over)
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stop.is_set():
            # Those who stop by the event have a moment to say so to the API server.
            await asyncio.wait({working}, timeout=STOP_SECONDS)
        working.cancel()
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working
    return HAND_OVER if handed_over.is_set() else 0


async def _work(
    config: Config,
    client: HttpClient,
    ready: Callable[[], None],
    stop: asyncio.Event,
    *,
    clock: WallClock,
    hand_over: Callable[[], None],
) -> None:
    now = clock.now
    runtime = CriClient(config.containerd_socket)
    cache = Cache(client, _wanted(config))
    nft = Nft()
    gate = await policy_gate(config, nft)
    kubelet = Kubelet(config, client, cache, cache, runtime=runtime, clock=now, gate=gate)
    images = Preloader(
        config.images_dir, config.containerd_socket, config.agent_dir / "images.json", runtime
    )

    async def kept() -> frozenset[str]:
        return await images.pinned() | {normalise(config.pause_image)}

    housekeeper = Housekeeper(kubelet, runtime, now, kept=kept)
    evictor = Evictor(kubelet, runtime, housekeeper, data_dir=config.data_dir, clock=now)
    node = NodeAgent(
        config, client, runtime, kubelet.recorder, clock=now, held=lambda: evictor.held
    )
    evictor.on_change.append(node.wake)
    kubelet.held = lambda: evictor.held
    kubelet.on_stirred.append(evictor.wake)
    kubelet.on_runtime.append(node.runtime_changed)
    authorizer = Authorizer(client, config.node_name, time.monotonic)
    renewal = Renewal(config.agent_dir)
    if client.tls is not None:
        renewal.keep("client-kubelet", client.tls)
    server = KubeletServer(kubelet, runtime, now, authorizer=authorizer)
    server.on_start = lambda context: renewal.keep("serving-kubelet", context)
    clock.on_step.append(lambda _by: kubelet.clock_was_set())
    clock.on_step.append(lambda _by: node.wake())
    updates = UpdateWatch(
        Surroundings(
            config=config,
            client=client,
            cache=cache,
            record=kubelet.recorder.record,
            now=now,
            hand_over=hand_over,
        )
    )
    imported = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        running = [
            tasks.create_task(cache.run()),
            tasks.create_task(node.run(stop)),
            tasks.create_task(images.run(imported)),
            tasks.create_task(_announce(node, ready)),
        ]
        await cache.synced()
        running += [
            tasks.create_task(PodNetwork(config, cache, nft).run()),
            tasks.create_task(
                ServiceProxy(
                    config,
                    cache,
                    nft,
                    own_ips=frozenset({config.cluster_dns} if config.answers_dns else ()),
                    own_ports=config.own_ports,
                ).run()
            ),
            tasks.create_task(_cluster_dns(config, cache)),
            tasks.create_task(server.run(stop, config.agent_dir, "", config.kubelet_port)),
            tasks.create_task(renewal.run()),
            tasks.create_task(updates.run()),
            tasks.create_task(housekeeper.run()),
            tasks.create_task(evictor.run()),
        ]
        await imported.wait()  # no pod starts before the sandbox's own image is there
        await kubelet.run(stop)
        for task in running:
            task.cancel()


async def _cluster_dns(config: Config, cache: Cache) -> None:
    server = DnsServer(config, cache, custom_feed=cache)
    if config.answers_dns:
        await server.run()
    else:
        # As at an earlier start with another provider: the address must not lead here.
        await server.cleanup()


async def _announce(node: NodeAgent, ready: Callable[[], None]) -> None:
    await node.ready.wait()
    ready()


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
