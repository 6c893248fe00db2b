"""The server on its address in a namespace, asked by dig from a pod and from the node."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import pytest

from controlplane.objects.resources import ENDPOINT_SLICES, SERVICES
from node.config import Config
from node.dns.server import DnsServer
from tests.fakes.host import (
    Host,
    Namespace,
    Objects,
    endpoint_slice,
    new_host,
    open_in,
    ready,
    service,
)

pytestmark = pytest.mark.root
PORTS = [{"name": "http", "port": 80, "protocol": "TCP"}]


class _Config:
    node_name = "n1"
    cluster_dns = IPv4Address("10.43.0.10")
    cluster_domain = "cluster.local"
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")
    resolv_conf = "/nonexistent"


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@contextlib.asynccontextmanager
async def running(host: Host, objects: Objects) -> AsyncIterator[DnsServer]:
    server = DnsServer(
        cast(Config, _Config()),
        objects,
        netns=host.node.path,
        open_socket=lambda kind: open_in(host.node, kind),
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(server.run())
        async with asyncio.timeout(10):
            await server.wait_listening()
        yield server
        task.cancel()


async def dig(namespace: Namespace, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "ip", "netns", "exec", namespace.name,
        "dig", "@10.43.0.10", "+tries=1", "+time=1", *arguments,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await process.communicate()
    return output.decode()


def cluster() -> Objects:
    objects = Objects()
    objects.put(SERVICES, service("web", "10.43.0.80", PORTS))
    objects.put(SERVICES, service("big", "None", PORTS))
    pods = [ready(f"10.42.1.{number}") for number in range(150)]
    objects.put(ENDPOINT_SLICES, endpoint_slice("big", pods, PORTS))
    return objects


async def test_a_pod_and_the_node_are_answered(host: Host) -> None:
    pod = host.add_pod("10.42.0.2")
    async with running(host, cluster()):
        for asker in (pod, host.node):
            assert await dig(asker, "+short", "web.default.svc.cluster.local") == "10.43.0.80\n"


async def test_a_long_answer_comes_whole_over_tcp(host: Host) -> None:
    pod = host.add_pod("10.42.0.2")
    async with running(host, cluster()):
        found = await dig(pod, "+short", "big.default.svc.cluster.local")
    assert len(found.splitlines()) == 150


async def test_dig_is_content_with_every_part_of_an_answer(host: Host) -> None:
    async with running(host, cluster()):
        found = await dig(host.node, "_http._tcp.big.default.svc.cluster.local", "SRV", "+tcp")
        missing = await dig(host.node, "nothing.default.svc.cluster.local")
        version = await dig(host.node, "+short", "dns-version.cluster.local", "TXT")
    assert "ANSWER: 150, AUTHORITY: 0, ADDITIONAL: 151" in found
    assert "status: NXDOMAIN" in missing
    assert "malformed" not in found + missing
    assert "EDNS: version: 0" in found
    assert version == '"1.1.0"\n'


async def test_without_upstreams_the_world_fails_fast(host: Host) -> None:
    async with running(host, cluster()):
        found = await dig(host.node, "example.com")
    assert "status: SERVFAIL" in found


async def test_the_address_stays_when_the_server_stops_and_goes_with_cleanup(host: Host) -> None:
    async with running(host, cluster()) as server:
        pass
    async with running(host, cluster()):
        assert "10.43.0.80" in await dig(host.node, "web.default.svc.cluster.local")
    await server.cleanup()
    assert "10.43.0.80" not in await dig(host.node, "web.default.svc.cluster.local")
