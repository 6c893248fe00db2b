"""The pod network in namespaces, with the real CNI plugins."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, cast

import pytest

from controlplane.objects.resources import ENDPOINT_SLICES, NODES, SERVICES
from node.config import Config
from node.host import sysctl
from node.host.nft import Nft, has_table
from node.network.apply import PodNetwork
from node.network.cni import FILE_NAME, find_plugins
from node.network.plan import FAMILY, TABLE
from node.proxy.apply import ServiceProxy
from tests.fakes.host import (
    End,
    Namespace,
    Objects,
    Server,
    ask_tcp,
    connect,
    endpoint_slice,
    ready,
    service,
)

pytestmark = pytest.mark.root


class _Config:
    node_name = "n1"
    node_ips = ("192.0.2.1",)
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")

    def __init__(self, folder: Path) -> None:
        self.run_dir = folder / "run"
        self.cni_conf_dir = folder / "net.d"


class Machine:
    """A node without a default route, and a neighbour."""

    def __init__(self, folder: Path) -> None:
        self.node, self.neighbour = Namespace("node"), Namespace("near")
        self.namespaces = [self.node, self.neighbour]
        near = End(self.neighbour, "up0", "192.0.2.9/24")
        connect(End(self.node, "up0", "192.0.2.1/24"), near)
        self.config = cast(Config, _Config(folder))
        self.nft = Nft(netns=self.node.path)

    async def add_pod(self) -> tuple[Namespace, str]:
        """As containerd does: each plugin of the conflist in turn; the pod and its address."""
        pod = Namespace("pod")
        self.namespaces.append(pod)
        conf = json.loads((self.config.cni_conf_dir / FILE_NAME).read_text())
        result: dict[str, Any] = {}
        for plugin in conf["plugins"]:
            given = {**plugin, "name": conf["name"], "cniVersion": conf["cniVersion"]}
            result = await self._plugin(pod, given | ({"prevResult": result} if result else {}))
        return pod, result["ips"][0]["address"].partition("/")[0]

    async def _plugin(self, pod: Namespace, given: dict[str, Any]) -> dict[str, Any]:
        folder = find_plugins()
        assert folder is not None
        process = await asyncio.create_subprocess_exec(
            "ip", "netns", "exec", self.node.name, str(folder / given["type"]),
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "CNI_COMMAND": "ADD",
                "CNI_CONTAINERID": pod.name,
                "CNI_NETNS": pod.path,
                "CNI_IFNAME": "eth0",
                "CNI_PATH": str(folder),
            },
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        output, _ = await process.communicate(json.dumps(given).encode())
        assert process.returncode == 0, output.decode()
        found: dict[str, Any] = json.loads(output)
        return found


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        for namespace in reversed(made.namespaces):
            namespace.remove()


@contextlib.asynccontextmanager
async def running(machine: Machine, objects: Objects) -> AsyncIterator[PodNetwork]:
    network = PodNetwork(machine.config, objects, machine.nft, netns=machine.node.path)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(network.run())
        if objects.list(NODES):
            async with asyncio.timeout(10):
                await network.wait_ready()
        yield network
        task.cancel()


def node() -> Objects:
    objects = Objects()
    objects.put(NODES, {"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.42.0.0/24"}})
    return objects


async def test_pods_reach_each_other_as_they_are_and_others_by_the_nodes_address(
    machine: Machine,
) -> None:
    async with running(machine, node()):
        (one, address), (two, other) = await machine.add_pod(), await machine.add_pod()
        assert (address, other) == ("10.42.0.2", "10.42.0.3")
        async with Server(one, "one", 80), Server(machine.neighbour, "near", 80):
            assert await ask_tcp(two, address, 80) == f"one {other}"
            assert await ask_tcp(machine.node, address, 80) == "one 10.42.0.1"
            assert await ask_tcp(two, "192.0.2.9", 80) == "near 192.0.2.1"


async def test_services_work_on_a_node_without_a_default_route(machine: Machine) -> None:
    objects = node()
    ports = [{"name": "", "port": 80, "protocol": "TCP"}]
    objects.put(SERVICES, service("web", "10.43.0.80", ports))
    async with running(machine, objects), Server(machine.node, "api", 6443):
        pod, address = await machine.add_pod()
        objects.put(ENDPOINT_SLICES, endpoint_slice("web", [ready(address)], ports))
        api = [{"name": "https", "port": 443, "protocol": "TCP"}]
        objects.put(SERVICES, service("kubernetes", "10.43.0.1", api))
        host = [{"name": "https", "port": 6443, "protocol": "TCP"}]
        objects.put(
            ENDPOINT_SLICES, endpoint_slice("kubernetes", [{"addresses": ["192.0.2.1"]}], host)
        )
        netns = machine.node.path
        proxy = ServiceProxy(machine.config, objects, machine.nft, netns=netns)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(proxy.run())
            await proxy.settle()
            async with Server(pod, "web", 80):
                assert (await ask_tcp(machine.node, "10.43.0.80", 80)).startswith("web")
                assert await ask_tcp(pod, "10.43.0.1", 443) == f"api {address}"
                assert (await ask_tcp(machine.node, "10.43.0.1", 443)).startswith("api")
            task.cancel()


async def test_strangers_do_not_reach_what_listens_on_the_loopback_address(
    machine: Machine,
) -> None:
    near = machine.neighbour.path
    sysctl.ensure("net.ipv4.conf.all.route_localnet", "1", netns=near)  # to hear the answer
    machine.neighbour.ip("link", "set", "lo", "down")
    machine.neighbour.ip("addr", "flush", "dev", "lo")
    machine.neighbour.ip("route", "add", "127.0.0.0/8", "via", "192.0.2.1")
    async with running(machine, node()), Server(machine.node, "private", 7777):
        assert (await ask_tcp(machine.node, "127.0.0.1", 7777)).startswith("private")
        with pytest.raises(TimeoutError):
            await ask_tcp(machine.neighbour, "127.0.0.1", 7777, seconds=0.3)


async def test_the_conflist_waits_for_the_pod_cidr(machine: Machine) -> None:
    objects = Objects()
    file = machine.config.cni_conf_dir / FILE_NAME
    async with running(machine, objects) as network:
        objects.put(NODES, {"metadata": {"name": "n1"}, "spec": {}})
        assert not file.exists()
        objects.put(NODES, {"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.42.7.0/24"}})
        async with asyncio.timeout(10):
            await network.wait_ready()
        assert "10.42.7.0/24" in file.read_text()


async def test_cleanup_leaves_nothing(machine: Machine) -> None:
    async with running(machine, node()) as network:
        await machine.add_pod()
    assert has_table(FAMILY, TABLE, netns=machine.node.path)
    await network.cleanup()
    await network.cleanup()
    assert not has_table(FAMILY, TABLE, netns=machine.node.path)
    assert not (machine.config.cni_conf_dir / FILE_NAME).exists()
