"""The loop around the plan, with a recorder in place of nft."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from typing import Any, cast

import pytest

from controlplane.objects.resources import ENDPOINT_SLICES, SERVICES
from node.config import Config
from node.host.conntrack import Flow
from node.host.nft import Nft, NftError
from node.proxy import apply
from node.proxy.apply import ServiceProxy
from node.proxy.health import Health, HealthServer
from node.proxy.ruleset import Part
from node.proxy.services import ServiceKey
from node.proxy.stale import changed_destinations, is_stale
from tests.fakes.host import Objects, RecordingNft, endpoint_slice, ready, service

HTTP = [{"name": "", "port": 80, "protocol": "TCP"}]


class _Config:
    node_name = "n1"
    node_ips = ("192.0.2.1",)
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")


async def never_lost(family: str, table: str, *, netns: str = "") -> None:
    await asyncio.get_running_loop().create_future()


@contextlib.asynccontextmanager
async def running(
    objects: Objects, nft: RecordingNft, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ServiceProxy]:
    monkeypatch.setattr(apply, "wait_until_lost", never_lost)
    monkeypatch.setattr(apply, "_RETRY_FIRST", 0.01)
    proxy = ServiceProxy(cast(Config, _Config()), objects, cast(Nft, nft), health_host="127.0.0.1")
    async with asyncio.TaskGroup() as group:
        task = group.create_task(proxy.run())
        async with asyncio.timeout(5):
            await proxy.settle()
        yield proxy
        task.cancel()


def two_services(objects: Objects) -> None:
    for number, name in enumerate(("a", "b")):
        objects.put(SERVICES, service(name, f"10.43.0.{80 + number}", HTTP))
        objects.put(ENDPOINT_SLICES, endpoint_slice(name, [ready(f"10.42.0.{number + 2}")], HTTP))


async def test_all_that_is_there_at_the_start_is_one_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, nft = Objects(), RecordingNft()
    two_services(objects)
    async with running(objects, nft, monkeypatch):
        assert len(nft.loaded) == 1
        assert "delete table ip pinnace_proxy" in nft.loaded[0]
        assert "svc/default/b/tcp/80" in nft.loaded[0]


async def test_changes_that_come_together_are_one_small_transaction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, nft = Objects(), RecordingNft()
    two_services(objects)
    async with running(objects, nft, monkeypatch) as proxy:
        objects.remove(ENDPOINT_SLICES, "default", "a-x")
        objects.put(SERVICES, service("b", "10.43.0.99", HTTP))
        async with asyncio.timeout(5):
            await proxy.settle()
        assert len(nft.loaded) == 2
        assert "delete table" not in nft.loaded[1]
        assert "10.43.0.99 . tcp . 80 : goto svc/default/b/tcp/80" in nft.loaded[1]
        assert "delete chain ip pinnace_proxy svc/default/a/tcp/80" in nft.loaded[1]


async def test_what_changes_nothing_for_the_rules_loads_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, nft = Objects(), RecordingNft()
    two_services(objects)
    async with running(objects, nft, monkeypatch) as proxy:
        relabelled: Any = service("a", "10.43.0.80", HTTP)
        relabelled["metadata"]["labels"] = {"x": "y"}
        objects.put(SERVICES, relabelled)
        objects.put(ENDPOINT_SLICES, endpoint_slice("a", [ready("10.42.0.2")], HTTP))
        async with asyncio.timeout(5):
            await proxy.settle()
        assert len(nft.loaded) == 1


class Refusing(RecordingNft):
    """Refuses the second transaction."""

    async def load(self, ruleset: Any) -> None:
        await super().load(ruleset)
        if len(self.loaded) == 2:
            raise NftError("Error: No such file or directory")


async def test_after_a_refused_change_the_whole_table_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    objects, nft = Objects(), Refusing()
    two_services(objects)
    async with running(objects, nft, monkeypatch) as proxy:
        objects.remove(SERVICES, "default", "a")
        async with asyncio.timeout(5):
            await proxy.settle()
        assert len(nft.loaded) == 3
        assert "delete table ip pinnace_proxy" in nft.loaded[2]
        assert "default/a/" not in nft.loaded[2]


def flow(target: str, port: int, answers: str, answers_port: int) -> Flow:
    return Flow(target, port, answers, answers_port, b"")


def test_udp_connections_of_endpoints_that_are_gone_are_stale() -> None:
    old = Part(udp={("10.43.0.53", 53): frozenset([("10.42.0.2", 53), ("10.42.0.3", 53)])})
    new = Part(udp={("10.43.0.53", 53): frozenset([("10.42.0.3", 53)])})
    check = is_stale(changed_destinations([(old, new)]), ["192.0.2.1"])
    assert check(flow("10.43.0.53", 53, "10.42.0.2", 53))
    assert not check(flow("10.43.0.53", 53, "10.42.0.3", 53))
    assert not check(flow("10.43.0.54", 53, "10.42.0.2", 53))


def test_udp_sent_before_there_was_an_endpoint_is_stale() -> None:
    old = Part(udp={("", 30053): frozenset()})
    new = Part(udp={("", 30053): frozenset([("10.42.0.2", 53)])})
    check = is_stale(changed_destinations([(old, new)]), ["192.0.2.1"])
    assert check(flow("192.0.2.1", 30053, "192.0.2.1", 30053))
    assert not check(flow("203.0.113.1", 30053, "203.0.113.1", 30053))


def test_another_endpoint_makes_nothing_stale() -> None:
    old = Part(udp={("10.43.0.53", 53): frozenset([("10.42.0.2", 53)])})
    new = Part(udp={("10.43.0.53", 53): frozenset([("10.42.0.2", 53), ("10.42.0.3", 53)])})
    assert changed_destinations([(old, new)]) == {}


async def asked(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    try:
        return (await reader.read()).decode()
    finally:
        writer.close()
        await writer.wait_closed()


async def test_a_health_check_says_how_many_endpoints_are_here(unused_tcp_port: int) -> None:
    server = HealthServer("127.0.0.1")
    key = ServiceKey("default", "web")
    await server.update({unused_tcp_port: Health(key, 2)})
    found = await asked(unused_tcp_port)
    assert found.startswith("HTTP/1.1 200 OK")
    assert '"localEndpoints": 2' in found
    await server.update({unused_tcp_port: Health(key, 0)})
    assert (await asked(unused_tcp_port)).startswith("HTTP/1.1 503")
    await server.update({})
    with pytest.raises(ConnectionRefusedError):
        await asked(unused_tcp_port)
