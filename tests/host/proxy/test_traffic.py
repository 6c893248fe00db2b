"""What the proxy's rules do to real packets, in namespaces of our own."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import pytest

from controlplane.objects.resources import ENDPOINT_SLICES, NODES, PODS, SERVICES
from node.config import Config
from node.host.nft import Nft
from node.proxy.apply import ServiceProxy
from node.proxy.plan import FAMILY, TABLE
from tests.fakes.host import (
    Host,
    Objects,
    Server,
    ask_tcp,
    ask_udp,
    endpoint_slice,
    new_host,
    open_in,
    ready,
    service,
)

pytestmark = pytest.mark.root
WEB = [{"name": "", "port": 80, "protocol": "TCP"}]
WEB_POD = [{"name": "", "port": 8080, "protocol": "TCP"}]


class _Config:
    node_name = "n1"
    node_ips = ("192.0.2.1",)
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")


@pytest.fixture
def host() -> Iterator[Host]:
    with new_host() as made:
        yield made


@contextlib.asynccontextmanager
async def running(
    host: Host,
    objects: Objects,
    *,
    own_ports: tuple[int, ...] = (),
    own_ips: frozenset[IPv4Address] = frozenset(),
) -> AsyncIterator[ServiceProxy]:
    netns = host.node.path
    proxy = ServiceProxy(
        cast(Config, _Config()),
        objects,
        Nft(netns=netns),
        own_ips=own_ips,
        own_ports=own_ports,
        netns=netns,
        health_host="127.0.0.1",
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(proxy.run())
        async with asyncio.timeout(10):
            await proxy.settle()
        yield proxy
        task.cancel()


async def settled(proxy: ServiceProxy) -> None:
    async with asyncio.timeout(10):
        await proxy.settle()


def web(objects: Objects, *addresses: str, **spec: Any) -> None:
    port = {"name": "", "port": 80, "protocol": "TCP"}
    if spec.get("type") in ("NodePort", "LoadBalancer"):
        port["nodePort"] = 30080
    objects.put(SERVICES, service("web", "10.43.0.80", [port], **spec))
    objects.put(ENDPOINT_SLICES, endpoint_slice("web", [ready(a) for a in addresses], WEB_POD))


async def test_a_pod_reaches_another_through_the_cluster_ip(host: Host) -> None:
    one, two = host.add_pod("10.42.0.2"), host.add_pod("10.42.0.3")
    objects = Objects()
    web(objects, "10.42.0.2")
    async with Server(one, "one", 8080), running(host, objects):
        assert await ask_tcp(two, "10.43.0.80", 80) == "one 10.42.0.3"


async def test_connections_spread_over_all_endpoints(host: Host) -> None:
    one, two = host.add_pod("10.42.0.2"), host.add_pod("10.42.0.3")
    objects = Objects()
    web(objects, "10.42.0.2", "10.42.0.3")
    async with Server(one, "one", 8080), Server(two, "two", 8080), running(host, objects):
        answers = [await ask_tcp(host.node, "10.43.0.80", 80) for _ in range(40)]
    assert {answer.split()[0] for answer in answers} == {"one", "two"}


async def test_the_node_and_a_client_outside_reach_a_cluster_ip(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2")
    async with Server(one, "one", 8080), running(host, objects):
        assert (await ask_tcp(host.node, "10.43.0.80", 80)).startswith("one")
        assert await ask_tcp(host.client, "10.43.0.80", 80) == "one 10.42.0.1"


async def test_a_pod_reaches_itself_through_its_service(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2")
    async with Server(one, "one", 8080), running(host, objects):
        assert await ask_tcp(one, "10.43.0.80", 80) == "one 10.42.0.1"


async def test_a_node_port_answers_on_every_address_of_the_node(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2", type="NodePort")
    async with Server(one, "one", 8080), running(host, objects):
        assert await ask_tcp(host.client, "192.0.2.1", 30080) == "one 10.42.0.1"
        for address in ("192.0.2.1", "127.0.0.1", "10.42.0.1"):
            assert (await ask_tcp(host.node, address, 30080)).startswith("one")
        assert (await ask_tcp(one, "192.0.2.1", 30080)).startswith("one")


async def test_the_local_policy_keeps_the_client_address(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2", type="NodePort", externalTrafficPolicy="Local")
    async with Server(one, "one", 8080), running(host, objects):
        assert await ask_tcp(host.client, "192.0.2.1", 30080) == "one 192.0.2.9"
        assert (await ask_tcp(host.node, "127.0.0.1", 30080)).startswith("one")


async def test_the_local_policy_drops_where_the_endpoints_are_elsewhere(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, type="NodePort", externalTrafficPolicy="Local")
    away = [ready("10.42.0.2", node="n2")]
    objects.put(ENDPOINT_SLICES, endpoint_slice("web", away, WEB_POD))
    async with Server(one, "one", 8080), running(host, objects):
        with pytest.raises(TimeoutError):
            await ask_tcp(host.client, "192.0.2.1", 30080, seconds=0.3)
        assert (await ask_tcp(host.node, "192.0.2.1", 30080)).startswith("one")


async def test_a_load_balancer_address_admits_only_its_source_ranges(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    host.client.ip("addr", "add", "192.0.2.10/24", "dev", "up0")
    host.client.ip("route", "add", "198.51.100.7", "via", "192.0.2.1")
    web(
        objects,
        "10.42.0.2",
        type="LoadBalancer",
        loadBalancerSourceRanges=["192.0.2.9/32"],
        status={"loadBalancer": {"ingress": [{"ip": "198.51.100.7", "ipMode": "VIP"}]}},
    )
    async with Server(one, "one", 8080), running(host, objects):
        found = await ask_tcp(host.client, "198.51.100.7", 80, source="192.0.2.9")
        assert found == "one 10.42.0.1"
        with pytest.raises(TimeoutError):
            await ask_tcp(host.client, "198.51.100.7", 80, source="192.0.2.10", seconds=0.3)


async def test_source_ranges_of_the_annotation_hold_for_the_load_balancer_only(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(
        objects,
        "10.42.0.2",
        type="LoadBalancer",
        status={"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}},
    )
    body = dict(objects.list(SERVICES)[0])
    annotation = {"service.beta.kubernetes.io/load-balancer-source-ranges": "198.51.100.0/24"}
    objects.put(SERVICES, body | {"metadata": body["metadata"] | {"annotations": annotation}})
    async with Server(one, "one", 8080), running(host, objects):
        with pytest.raises(TimeoutError):
            await ask_tcp(host.client, "192.0.2.1", 80, seconds=0.3)
        assert (await ask_tcp(host.client, "192.0.2.1", 30080)).startswith("one")
        assert (await ask_tcp(host.client, "10.43.0.80", 80)).startswith("one")


async def test_a_load_balancer_keeps_the_address_of_its_client_with_the_local_policy(
    host: Host,
) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    spec = {
        "type": "LoadBalancer",
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}},
    }
    web(objects, "10.42.0.2", **spec)
    async with Server(one, "one", 8080), running(host, objects) as proxy:
        assert await ask_tcp(host.client, "192.0.2.1", 80) == "one 10.42.0.1"
        web(objects, "10.42.0.2", externalTrafficPolicy="Local", **spec)
        await settled(proxy)
        assert await ask_tcp(host.client, "192.0.2.1", 80) == "one 192.0.2.9"


@pytest.mark.parametrize("published", ["192.0.2.1", "198.51.100.1"])
async def test_a_balancer_of_this_node_is_reached_at_any_address_of_it(
    host: Host, published: str
) -> None:
    """Such as that of another network, or the one to which a router sends what comes for it."""
    one = host.add_pod("10.42.0.2")
    host.node.ip("addr", "add", "192.0.2.2/24", "dev", "up0")
    objects = Objects()
    addresses = [
        {"type": "InternalIP", "address": "192.0.2.1"},
        {"type": "ExternalIP", "address": "198.51.100.1"},
    ]
    objects.put(NODES, {"metadata": {"name": "n1"}, "status": {"addresses": addresses}})
    given = {"loadBalancer": {"ingress": [{"ip": published, "ipMode": "VIP"}]}}
    web(objects, "10.42.0.2", type="LoadBalancer", status=given)
    async with Server(one, "one", 8080), running(host, objects) as proxy:
        for address in ("192.0.2.1", "192.0.2.2"):
            assert (await ask_tcp(host.client, address, 80)).startswith("one")
        assert (await ask_tcp(one, "192.0.2.2", 80)).startswith("one")
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(host.node, "127.0.0.1", 80)
        # With an address of another node only, it is that node's.
        away = {"loadBalancer": {"ingress": [{"ip": "192.0.2.77", "ipMode": "VIP"}]}}
        web(objects, "10.42.0.2", type="LoadBalancer", status=away)
        await settled(proxy)
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(host.client, "192.0.2.2", 80)


async def test_source_ranges_hold_at_every_address_of_the_node(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    host.node.ip("addr", "add", "192.0.2.2/24", "dev", "up0")
    objects = Objects()
    given = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
    ranges = ["198.51.100.0/24"]
    web(objects, "10.42.0.2", type="LoadBalancer", status=given, loadBalancerSourceRanges=ranges)
    async with Server(one, "one", 8080), running(host, objects):
        for address in ("192.0.2.1", "192.0.2.2"):
            with pytest.raises(TimeoutError):
                await ask_tcp(host.client, address, 80, seconds=0.3)


async def test_the_nodes_own_dns_is_not_taken_by_a_host_port(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    host.node.ip("addr", "add", "10.43.0.10/32", "dev", "lo")
    objects = Objects()
    port = {"containerPort": 8080, "hostPort": 53}
    pod = {
        "metadata": {"namespace": "default", "name": "one"},
        "spec": {"nodeName": "n1", "containers": [{"ports": [port]}]},
        "status": {"podIP": "10.42.0.2", "phase": "Running"},
    }
    objects.put(PODS, pod)
    own = frozenset({IPv4Address("10.43.0.10")})
    async with (
        Server(one, "pod", 8080),
        Server(host.node, "dns", 53),
        running(host, objects, own_ips=own),
    ):
        assert (await ask_tcp(one, "10.43.0.10", 53)).startswith("dns")
        assert (await ask_tcp(host.node, "10.43.0.10", 53)).startswith("dns")
        assert (await ask_tcp(host.client, "192.0.2.1", 53)).startswith("pod")


@pytest.mark.parametrize("how", ["load balancer", "external IP", "host port"])
async def test_the_nodes_own_ports_are_never_taken(host: Host, how: str) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    if how == "host port":
        port = {"containerPort": 8080, "hostPort": 80}
        pod = {
            "metadata": {"namespace": "default", "name": "one"},
            "spec": {"nodeName": "n1", "containers": [{"ports": [port]}]},
            "status": {"podIP": "10.42.0.2", "phase": "Running"},
        }
        objects.put(PODS, pod)
    elif how == "external IP":
        web(objects, "10.42.0.2", externalIPs=["192.0.2.1"])
    else:
        given = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1", "ipMode": "VIP"}]}}
        web(objects, "10.42.0.2", type="LoadBalancer", status=given)
    async with (
        Server(one, "one", 8080),
        Server(host.node, "node", 80),
        running(host, objects, own_ports=(80,)),
    ):
        assert await ask_tcp(host.client, "192.0.2.1", 80) == "node 192.0.2.9"
        assert (await ask_tcp(host.node, "192.0.2.1", 80)).startswith("node")
        assert (await ask_tcp(one, "192.0.2.1", 80)).startswith("node")


async def test_an_external_ip_is_forwarded(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    host.client.ip("route", "add", "198.51.100.8", "via", "192.0.2.1")
    web(objects, "10.42.0.2", externalIPs=["198.51.100.8"])
    async with Server(one, "one", 8080), running(host, objects):
        assert (await ask_tcp(host.client, "198.51.100.8", 80)).startswith("one")


async def test_a_client_stays_with_its_endpoint(host: Host) -> None:
    one, two = host.add_pod("10.42.0.2"), host.add_pod("10.42.0.3")
    three = host.add_pod("10.42.0.4")
    objects = Objects()
    web(objects, "10.42.0.2", "10.42.0.3", sessionAffinity="ClientIP")
    async with Server(one, "one", 8080), Server(two, "two", 8080), running(host, objects):
        answers = {await ask_tcp(three, "10.43.0.80", 80) for _ in range(20)}
    assert len(answers) == 1


@pytest.mark.parametrize("where", ["pod", "node", "client"])
async def test_a_service_without_endpoints_refuses_at_once(host: Host, where: str) -> None:
    asker = {"pod": host.add_pod("10.42.0.2"), "node": host.node, "client": host.client}[where]
    objects = Objects()
    web(objects, type="NodePort")
    async with running(host, objects):
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(asker, "10.43.0.80", 80)
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(asker, "192.0.2.1", 30080)


async def test_a_cluster_ip_that_nobody_has_refuses(host: Host) -> None:
    async with running(host, Objects()):
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(host.client, "10.43.7.7", 1234)


async def test_a_udp_client_moves_on_when_its_endpoint_goes(host: Host) -> None:
    one, two = host.add_pod("10.42.0.2"), host.add_pod("10.42.0.3")
    three = host.add_pod("10.42.0.4")
    objects = Objects()
    port = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    objects.put(SERVICES, service("dns", "10.43.0.53", port))
    objects.put(ENDPOINT_SLICES, endpoint_slice("dns", [ready("10.42.0.2")], port))
    servers = Server(one, "one", 53, udp=True), Server(two, "two", 53, udp=True)
    async with servers[0], servers[1], running(host, objects) as proxy:
        with open_in(three, socket.SOCK_DGRAM) as client:
            client.bind(("10.42.0.4", 5555))
            assert await ask_udp(client, "10.43.0.53", 53) == "one 10.42.0.4"
            objects.put(ENDPOINT_SLICES, endpoint_slice("dns", [ready("10.42.0.3")], port))
            await settled(proxy)
            assert await ask_udp(client, "10.43.0.53", 53) == "two 10.42.0.4"


async def test_a_host_port_leads_to_its_pod(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    port = {"containerPort": 8080, "hostPort": 8888, "protocol": "TCP"}
    pod = {
        "metadata": {"namespace": "default", "name": "one"},
        "spec": {"nodeName": "n1", "containers": [{"ports": [port]}]},
        "status": {"podIP": "10.42.0.2", "phase": "Running"},
    }
    objects.put(PODS, pod)
    async with Server(one, "one", 8080), running(host, objects) as proxy:
        assert await ask_tcp(host.client, "192.0.2.1", 8888) == "one 192.0.2.9"
        assert (await ask_tcp(host.node, "127.0.0.1", 8888)).startswith("one")
        assert (await ask_tcp(one, "192.0.2.1", 8888)).startswith("one")
        objects.put(PODS, {**pod, "status": {"podIP": "10.42.0.2", "phase": "Succeeded"}})
        await settled(proxy)
        with pytest.raises(ConnectionRefusedError):
            await ask_tcp(host.client, "192.0.2.1", 8888)


async def test_one_host_port_on_two_host_addresses_leads_to_two_pods(host: Host) -> None:
    objects = Objects()
    pods = []
    for number, host_ip in enumerate(("127.0.0.1", "192.0.2.1")):
        address = f"10.42.0.{number + 2}"
        pods.append(host.add_pod(address))
        port = {"containerPort": 8080, "hostPort": 8888, "hostIP": host_ip}
        pod = {
            "metadata": {"namespace": "default", "name": f"p{number}"},
            "spec": {"nodeName": "n1", "containers": [{"ports": [port]}]},
            "status": {"podIP": address, "phase": "Running"},
        }
        objects.put(PODS, pod)
    async with (
        Server(pods[0], "one", 8080),
        Server(pods[1], "two", 8080),
        running(host, objects),
    ):
        # From the node's own address, as the conformance suite asks.
        found = await ask_tcp(host.node, "127.0.0.1", 8888, source="192.0.2.1")
        assert found.startswith("one")
        assert (await ask_tcp(host.client, "192.0.2.1", 8888)).startswith("two")


async def test_a_table_that_somebody_flushed_comes_back(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2")
    nft = Nft(netns=host.node.path)
    async with Server(one, "one", 8080), running(host, objects):
        await nft.load("flush ruleset")
        async with asyncio.timeout(5):
            while await nft.list_table(FAMILY, TABLE) is None:
                pass
        assert (await ask_tcp(host.client, "10.43.0.80", 80)).startswith("one")


async def test_the_rules_stay_when_the_proxy_stops_and_go_with_cleanup(host: Host) -> None:
    one = host.add_pod("10.42.0.2")
    objects = Objects()
    web(objects, "10.42.0.2")
    nft = Nft(netns=host.node.path)
    async with Server(one, "one", 8080):
        async with running(host, objects) as proxy:
            pass
        assert (await ask_tcp(host.client, "10.43.0.80", 80)).startswith("one")
        await proxy.cleanup()
        assert await nft.list_table(FAMILY, TABLE) is None
