"""Forwarding, against real servers on the loopback interface."""

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, cast

import dnslib
import pytest

from controlplane.objects.resources import CONFIG_MAPS, SERVICES
from node.config import Config
from node.dns import custom
from node.dns.cache import Cache, Key
from node.dns.forward import Forwarder, Unanswered
from node.dns.resolv import ResolvConf, Upstream, parse
from node.dns.server import DnsServer
from node.dns.wire import Query
from tests.fakes.host import Objects, service

Reply = Callable[[dnslib.DNSRecord], dnslib.DNSRecord | None]


class Outside(asyncio.DatagramProtocol):
    """A name server on 127.0.0.1; ``reply`` None: it stays silent."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.asked: list[str] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Any) -> None:
        query = dnslib.DNSRecord.parse(data)
        self.asked.append(str(query.q.qname))
        answer = self._reply(query)
        if answer is not None:
            self._transport.sendto(answer.pack(), addr)


@contextlib.asynccontextmanager
async def outside(reply: Reply) -> AsyncIterator[tuple[Outside, Upstream]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: Outside(reply), local_addr=("127.0.0.1", 0)
    )
    try:
        yield server, Upstream("127.0.0.1", transport.get_extra_info("sockname")[1])
    finally:
        transport.close()


def address(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
    answer = query.reply()
    answer.add_answer(dnslib.RR(query.q.qname, rdata=dnslib.A("203.0.113.7"), ttl=20))
    answer.add_ar(dnslib.EDNS0(udp_len=1232))
    return answer


def failing(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
    answer = query.reply()
    answer.header.rcode = dnslib.RCODE.SERVFAIL
    return answer


def silent(_: dnslib.DNSRecord) -> None:
    return None


def closed_port() -> Upstream:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        return Upstream("127.0.0.1", taken.getsockname()[1])


KEY = Key("example.com", 1, False)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_an_answer_is_kept_as_long_as_it_says_and_its_ttl_runs_down() -> None:
    clock = Clock()
    async with outside(address) as (server, upstream):
        dns = made(upstream, clock=clock)
        assert (await resolved(dns, "example.com")).rr[0].ttl == 20
        clock.now += 15
        found = await resolved(dns, "example.com")
        assert (found.rr[0].ttl, str(found.rr[0].rdata)) == (5, "203.0.113.7")
        assert len(server.asked) == 1
        clock.now += 5
        await resolved(dns, "example.com")
        assert len(server.asked) == 2


async def test_equal_questions_at_the_same_time_are_asked_once() -> None:
    async with outside(address) as (server, upstream):
        forwarder = Forwarder(lambda: [upstream], Cache(10000))
        await asyncio.gather(*(forwarder.ask(KEY) for _ in range(20)))
    assert len(server.asked) == 1


@pytest.mark.parametrize("first", [failing, silent])
async def test_the_next_server_is_asked_where_the_first_does_not_know(first: Reply) -> None:
    async with outside(first) as (_, broken), outside(address) as (_, sound):
        forwarder = Forwarder(lambda: [broken, sound], Cache(10000))
        entry = await forwarder.ask(KEY)
    assert b"\xcb\x00\x71\x07" in entry.message


async def test_a_server_that_refuses_is_passed_over_at_once_and_asked_last_next_time() -> None:
    async with outside(address) as (_, sound):
        forwarder = Forwarder(lambda: [closed_port(), sound], Cache(0))
        async with asyncio.timeout(0.5):
            await forwarder.ask(KEY)


async def test_without_a_server_the_failure_is_immediate() -> None:
    forwarder = Forwarder(list, Cache(10000))
    with pytest.raises(Unanswered):
        await asyncio.wait_for(forwarder.ask(KEY), 0.1)


async def test_an_answer_to_another_question_is_ignored() -> None:
    def forged(query: dnslib.DNSRecord) -> dnslib.DNSRecord:
        return address(dnslib.DNSRecord.question("evil.example"))

    async with outside(forged) as (_, upstream):
        forwarder = Forwarder(lambda: [upstream], Cache(10000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(forwarder.ask(KEY), 0.2)


async def test_the_cache_keeps_within_its_bounds() -> None:
    async with outside(address) as (_, upstream):
        cache = Cache(5000)
        forwarder = Forwarder(lambda: [upstream], cache)
        for number in range(60):
            await forwarder.ask(Key(f"n{number}.example.com", 1, False))
    assert 0 < cache.size <= 5000
    assert len(cache) < 60


class _Config:
    node_name = "n1"
    cluster_dns = IPv4Address("10.43.0.10")
    cluster_domain = "cluster.local"
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")
    resolv_conf = "/nonexistent"


def made(upstream: Upstream, *, clock: Callable[[], float] = time.monotonic) -> DnsServer:
    """A server whose outside world is that upstream, through the user's ConfigMap."""
    objects = Objects()
    put_custom(objects, {"world.override": f"forward . {upstream.address}:{upstream.port}"})
    server = DnsServer(cast(Config, _Config()), objects, clock=clock)
    objects.subscribe([CONFIG_MAPS], server._on_config_map)
    alias = service("alias", "", [], type="ExternalName", externalName="Example.com.")
    objects.subscribe([SERVICES], server._deliver)
    objects.put(SERVICES, alias)
    return server


def put_custom(objects: Objects, data: dict[str, str]) -> None:
    metadata = {"namespace": "kube-system", "name": "coredns-custom"}
    objects.put(CONFIG_MAPS, {"metadata": metadata, "data": data})


async def resolved(server: DnsServer, name: str, kind: str = "A") -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    found = server.respond(query.pack())
    if isinstance(found, Query):
        found = await server.resolve(found)
    assert found is not None
    answer = dnslib.DNSRecord.parse(found)
    assert answer.header.id == query.header.id
    return answer


async def test_a_service_that_is_an_alias_brings_the_addresses_of_its_target() -> None:
    async with outside(address) as (_, upstream):
        answer = await resolved(made(upstream), "alias.default.svc.cluster.local")
    assert [str(record.rdata) for record in answer.rr] == ["example.com.", "203.0.113.7"]


async def test_a_client_without_edns_gets_none() -> None:
    async with outside(address) as (_, upstream):
        answer = await resolved(made(upstream), "example.com")
    assert (answer.ar, answer.header.aa) == ([], 0)


async def test_nobody_outside_means_servfail() -> None:
    answer = await resolved(made(closed_port()), "example.com")
    assert answer.header.rcode == dnslib.RCODE.SERVFAIL


def test_resolv_conf_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "resolv.conf"
    conf = ResolvConf(file, not_these=["10.43.0.10"])
    assert conf.upstreams() == ()
    file.write_text("# by hand\nnameserver 10.43.0.10\nnameserver 192.0.2.53\nsearch lan\n")
    assert conf.upstreams() == (Upstream("192.0.2.53", 53),)
    file.write_text("nameserver 192.0.2.54\n")
    os.utime(file, ns=(1, 1))
    assert conf.upstreams() == (Upstream("192.0.2.54", 53),)


def test_resolv_conf_knows_comments_ipv6_and_nonsense() -> None:
    text = "nameserver fd00::53\nnameserver 192.0.2.1 # home\n;nameserver 1.2.3.4\nnameserver x\n"
    assert parse(text) == (Upstream("fd00::53", 53), Upstream("192.0.2.1", 53))


def test_the_users_additions_are_taken_or_refused_by_name() -> None:
    found = custom.parse(
        {
            "lab.server": "lab.example:53 {\n  errors\n  forward . 192.0.2.5 192.0.2.6:5353\n}\n",
            "names.override": "hosts {\n  192.0.2.9 nas.lan NAS\n  fallthrough\n}\n",
            "more.override": "template ANY ANY {\n  rcode NXDOMAIN\n}\nrewrite name a b\n",
            "port.server": "other.example:5300 {\n  forward . 192.0.2.5\n}",
            "open.server": "x {",
            "notes.txt": "ignored",
        }
    )
    servers = (Upstream("192.0.2.5", 53), Upstream("192.0.2.6", 5353))
    assert found.upstreams("a.b.lab.example") == servers
    assert found.upstreams("example") is None
    assert found.hosts == {"nas.lan": ("192.0.2.9",), "nas": ("192.0.2.9",)}
    assert found.refused == (
        "more.override: the directive template is not supported",
        "more.override: the directive rewrite is not supported",
        "open.server: x: a brace is not closed",
        "port.server: the zone other.example:5300: only port 53 is served",
    )
