"""What the server says about the cluster, read back with another library."""

import contextlib
import struct
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

import dnslib
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.objects.resources import ENDPOINT_SLICES, NODES, SERVICES
from node.config import Config
from node.dns import wire
from node.dns.cache import make_entry, render
from node.dns.server import DnsServer
from node.dns.wire import Query
from tests.fakes.host import Objects, endpoint_slice, ready, service

DB_PORTS = [{"name": "sql", "port": 5432, "protocol": "TCP"}]


class _Config:
    node_name = "n1"
    cluster_dns = IPv4Address("10.43.0.10")
    cluster_domain = "cluster.local"
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")
    resolv_conf = "/nonexistent"


def cluster() -> Objects:
    objects = Objects()
    http = [{"name": "http", "port": 80, "protocol": "TCP"}]
    objects.put(SERVICES, service("web", "10.43.0.80", http))
    pods = [ready("10.42.0.2"), ready("10.42.0.3")]
    objects.put(ENDPOINT_SLICES, endpoint_slice("web", pods, http))
    objects.put(SERVICES, service("db", "None", DB_PORTS, clusterIP="None"))
    named = [
        ready("10.42.0.4", hostname="db-0"),
        ready("10.42.0.5"),
        {"addresses": ["10.42.0.6"], "hostname": "db-2", "conditions": {"ready": False}},
    ]
    objects.put(ENDPOINT_SLICES, endpoint_slice("db", named, DB_PORTS))
    objects.put(SERVICES, service("empty", "None", DB_PORTS))
    alias = service(
        "alias", "", [], type="ExternalName", externalName="web.default.svc.cluster.local"
    )
    objects.put(SERVICES, alias)
    outside = service("outside", "", [], type="ExternalName", externalName="example.com")
    objects.put(SERVICES, outside)
    addresses = [{"type": "InternalIP", "address": "192.0.2.1"}]
    objects.put(NODES, {"metadata": {"name": "n1"}, "status": {"addresses": addresses}})
    return objects


def started(objects: Objects) -> DnsServer:
    server = DnsServer(cast(Config, _Config()), objects)
    objects.subscribe([SERVICES, ENDPOINT_SLICES, NODES], server._deliver)
    return server


def ask(server: DnsServer, name: str, kind: str = "A", **how: Any) -> dnslib.DNSRecord:
    query = dnslib.DNSRecord.question(name, kind)
    if how.get("edns"):
        query.add_ar(dnslib.EDNS0(udp_len=how["edns"]))
    found = server.respond(query.pack(), tcp=how.get("tcp", False))
    assert isinstance(found, bytes), f"{name} would be forwarded"
    return dnslib.DNSRecord.parse(found)


def texts(answer: dnslib.DNSRecord) -> set[str]:
    return {f"{dnslib.QTYPE[r.rtype]} {r.rdata}" for r in answer.rr}


def code(answer: dnslib.DNSRecord) -> str:
    return str(dnslib.RCODE[answer.header.rcode])


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("web.default.svc.cluster.local", "A", {"A 10.43.0.80"}),
        ("WEB.Default.SVC.cluster.LOCAL", "A", {"A 10.43.0.80"}),
        ("db.default.svc.cluster.local", "A", {"A 10.42.0.4", "A 10.42.0.5"}),
        ("db-0.db.default.svc.cluster.local", "A", {"A 10.42.0.4"}),
        ("10-42-0-5.db.default.svc.cluster.local", "A", {"A 10.42.0.5"}),
        ("10-42-0-9.any.pod.cluster.local", "A", {"A 10.42.0.9"}),
        (
            "_http._tcp.web.default.svc.cluster.local",
            "SRV",
            {"SRV 0 100 80 web.default.svc.cluster.local."},
        ),
        (
            "_sql._tcp.db.default.svc.cluster.local",
            "SRV",
            {
                "SRV 0 100 5432 db-0.db.default.svc.cluster.local.",
                "SRV 0 100 5432 10-42-0-5.db.default.svc.cluster.local.",
            },
        ),
        ("80.0.43.10.in-addr.arpa", "PTR", {"PTR web.default.svc.cluster.local."}),
        ("4.0.42.10.in-addr.arpa", "PTR", {"PTR db-0.db.default.svc.cluster.local."}),
        ("1.2.0.192.in-addr.arpa", "PTR", {"PTR n1."}),
        ("dns-version.cluster.local", "TXT", {'TXT "1.1.0"'}),
        ("alias.default.svc.cluster.local", "CNAME", {"CNAME web.default.svc.cluster.local."}),
        (
            "alias.default.svc.cluster.local",
            "A",
            {"CNAME web.default.svc.cluster.local.", "A 10.43.0.80"},
        ),
        ("n1", "A", {"A 192.0.2.1"}),
        ("cluster.local", "NS", {"NS ns.dns.cluster.local."}),
        ("ns.dns.cluster.local", "A", {"A 10.43.0.10"}),
    ],
)
def test_a_name_has_its_records(name: str, kind: str, expected: set[str]) -> None:
    answer = ask(started(cluster()), name, kind)
    assert texts(answer) == expected
    assert (code(answer), answer.header.aa, answer.header.ra) == ("NOERROR", 1, 1)


@pytest.mark.parametrize(
    "name",
    [
        "nothing.default.svc.cluster.local",
        "web.other.svc.cluster.local",
        "db-2.db.default.svc.cluster.local",
        "empty.default.svc.cluster.local",
        "x.web.default.svc.cluster.local",
        "a.b.c.web.default.svc.cluster.local",
        "_nope._tcp.web.default.svc.cluster.local",
        "not-an-address.default.pod.cluster.local",
        "nonsense.cluster.local",
        "9.9.43.10.in-addr.arpa",
    ],
)
def test_a_name_that_does_not_exist_is_denied_with_the_zones_soa(name: str) -> None:
    answer = ask(started(cluster()), name)
    assert code(answer) == "NXDOMAIN"
    assert [dnslib.QTYPE[r.rtype] for r in answer.auth] == ["SOA"]
    assert answer.auth[0].ttl == 5


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("web.default.svc.cluster.local", "AAAA"),
        ("web.default.svc.cluster.local", "MX"),
        ("default.svc.cluster.local", "A"),
        ("svc.cluster.local", "A"),
        ("_tcp.web.default.svc.cluster.local", "SRV"),
        ("n1", "AAAA"),
    ],
)
def test_a_name_without_such_a_record_gets_an_empty_answer(name: str, kind: str) -> None:
    answer = ask(started(cluster()), name, kind)
    assert (code(answer), answer.rr, len(answer.auth)) == ("NOERROR", [], 1)


def test_srv_answers_bring_the_addresses_of_their_targets() -> None:
    answer = ask(started(cluster()), "_sql._tcp.db.default.svc.cluster.local", "SRV", edns=1232)
    assert {str(r.rname) for r in answer.ar if r.rtype == dnslib.QTYPE.A} == {
        "db-0.db.default.svc.cluster.local.",
        "10-42-0-5.db.default.svc.cluster.local.",
    }


def test_addresses_take_turns_to_be_first() -> None:
    server = started(cluster())
    firsts = {str(ask(server, "db.default.svc.cluster.local").rr[0].rdata) for _ in range(4)}
    assert firsts == {"10.42.0.4", "10.42.0.5"}


def many(count: int) -> DnsServer:
    objects = Objects()
    objects.put(SERVICES, service("big", "None", DB_PORTS))
    addresses = [ready(f"10.42.1.{i}") for i in range(count)]
    objects.put(ENDPOINT_SLICES, endpoint_slice("big", addresses, DB_PORTS))
    return started(objects)


def test_an_answer_too_long_for_udp_is_cut_and_says_so() -> None:
    server = many(100)
    name = "big.default.svc.cluster.local"
    short = ask(server, name)
    assert (short.header.tc, len(short.pack()) <= 512) == (1, True)
    longer = ask(server, name, edns=4096)
    assert longer.header.tc == 1
    assert len(short.rr) < len(longer.rr) < 100
    whole = ask(server, name, tcp=True)
    assert (whole.header.tc, len(whole.rr)) == (0, 100)


def test_names_outside_the_cluster_are_left_to_be_forwarded() -> None:
    server = started(cluster())
    for name in ("example.com", "cluster.local.example.com", "xcluster.local", "localhost"):
        query = dnslib.DNSRecord.question(name)
        assert isinstance(server.respond(query.pack()), Query)


def test_an_answer_follows_the_changes_of_its_objects() -> None:
    objects = cluster()
    server = started(objects)
    name = "web.default.svc.cluster.local"
    assert texts(ask(server, name)) == {"A 10.43.0.80"}
    http = [{"name": "http", "port": 80, "protocol": "TCP"}]
    objects.put(SERVICES, service("web", "10.43.0.81", http))
    assert texts(ask(server, name)) == {"A 10.43.0.81"}
    assert code(ask(server, "80.0.43.10.in-addr.arpa", "PTR")) == "NXDOMAIN"
    objects.remove(SERVICES, "default", "web")
    assert code(ask(server, name)) == "NXDOMAIN"
    objects.remove(ENDPOINT_SLICES, "default", "db-x")
    assert code(ask(server, "db-0.db.default.svc.cluster.local")) == "NXDOMAIN"
    assert code(ask(server, "4.0.42.10.in-addr.arpa", "PTR")) == "NXDOMAIN"


def answer_to(message: bytes) -> Mapping[str, Any]:
    found = started(cluster()).respond(message)
    assert isinstance(found, bytes)
    header = dnslib.DNSRecord.parse(found).header
    return {"code": str(dnslib.RCODE[header.rcode]), "id": header.id}


def test_what_is_no_query_gets_an_error_or_silence() -> None:
    server = started(cluster())
    good = bytes(dnslib.DNSRecord.question("web.default.svc.cluster.local").pack())
    assert server.respond(b"short") is None
    assert server.respond(good[:2] + b"\x80\0" + good[4:]) is None  # an answer
    assert answer_to(good[:2] + b"\x28\0" + good[4:])["code"] == "NOTIMP"  # an update
    assert answer_to(good[:20])["code"] == "FORMERR"
    dotted = good[:12] + b"\x07a.b.c.d" + good[20:]
    assert answer_to(dotted)["code"] == "FORMERR"
    assert answer_to(bytes(dnslib.DNSRecord.question("cluster.local", "AXFR").pack()))["code"] == (
        "REFUSED"
    )


def test_the_question_comes_back_as_it_was_written() -> None:
    query = dnslib.DNSRecord.question("wEb.DeFault.svc.cluster.local")
    found = started(cluster()).respond(query.pack())
    assert isinstance(found, bytes)
    assert b"\x03wEb\x07DeFault" in found


FUZZED = started(cluster())


@given(data=st.binary(max_size=80), at=st.integers(0, 60), junk=st.binary(max_size=20))
def test_no_bytes_from_the_network_raise_an_error(data: bytes, at: int, junk: bytes) -> None:
    good = bytes(dnslib.DNSRecord.question("web.default.svc.cluster.local").pack())
    answer = bytes(dnslib.DNSRecord.parse(good).reply().pack())
    for message in (data, good[:at] + junk + good[at:], good[:at] + junk):
        FUZZED.respond(message)
        with contextlib.suppress(wire.Malformed, struct.error):
            entry = make_entry(answer[:at] + junk + answer[at:] + data, 0.0)
            query = wire.parse_query(good)
            render(entry, query, 1.0, limit=512)
            wire.copy_records(entry.message, "x")
