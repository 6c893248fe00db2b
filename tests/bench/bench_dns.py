"""
How many questions about the cluster one core answers, next to a library doing the same.

``python -m tests.bench.bench_dns``. The baseline reads the question, looks the name up
in a dictionary and writes the answer with dnslib. Questions a second, for the
answer alone and over a UDP socket on the loopback interface.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network
from typing import cast

import dnslib

from controlplane.objects.resources import SERVICES
from node.config import Config
from node.dns.server import DnsServer
from tests.fakes.host import Objects, service

COUNT = 20_000
NAMES = [f"s{number}.default.svc.cluster.local" for number in range(200)]
QUESTIONS = [bytes(dnslib.DNSRecord.question(name).pack()) for name in NAMES]


class _Config:
    node_name = "n1"
    cluster_dns = IPv4Address("127.0.0.1")
    cluster_domain = "cluster.local"
    cluster_cidr = IPv4Network("10.42.0.0/16")
    service_cidr = IPv4Network("10.43.0.0/16")
    resolv_conf = "/nonexistent"


def server() -> DnsServer:
    objects = Objects()
    for number in range(200):
        ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
        objects.put(SERVICES, service(f"s{number}", f"10.43.1.{number}", ports))
    made = DnsServer(cast(Config, _Config()), objects)
    objects.subscribe([SERVICES], made._deliver)
    return made


def with_library() -> Callable[[bytes], object]:
    known = {f"{name}.": f"10.43.1.{number}" for number, name in enumerate(NAMES)}

    def respond(data: bytes) -> bytes:
        query = dnslib.DNSRecord.parse(data)
        answer = query.reply()
        name = query.q.qname
        answer.add_answer(dnslib.RR(name, rdata=dnslib.A(known[str(name).lower()]), ttl=5))
        return bytes(answer.pack())

    return respond


def rate(respond: Callable[[bytes], object], count: int) -> float:
    start = time.perf_counter()
    for number in range(count):
        respond(QUESTIONS[number % len(QUESTIONS)])
    return count / (time.perf_counter() - start)


async def over_udp(made: DnsServer) -> float:
    """Bursts of 50 questions, as many clients would send them, from the same core."""
    served = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    served.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    served.setblocking(False)
    served.bind(("127.0.0.1", 0))
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.setblocking(False)
    asker.connect(served.getsockname())
    loop = asyncio.get_running_loop()
    with served, asker:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(made._serve_datagrams(served, group))
            start = time.perf_counter()
            for _ in range(COUNT // 50):
                for number in range(50):
                    asker.send(QUESTIONS[number])
                for _ in range(50):
                    await loop.sock_recv(asker, 4096)
            took = time.perf_counter() - start
            task.cancel()
    return COUNT / took


def run() -> list[tuple[str, float, str, str]]:
    """Name, value, unit and note of each thing measured."""
    made = server()
    ours, baseline = rate(made.respond, COUNT), rate(with_library(), COUNT // 10)
    note = f"{ours / baseline:.1f} x dnslib, which does the same with {baseline:,.0f}"
    return [
        ("answers", ours, "1/s", note),
        ("round trips over UDP", asyncio.run(over_udp(made)), "1/s", "client on the same core"),
    ]


def main() -> None:
    for name, value, unit, note in run():
        sys.stdout.write(f"{name:40} {value:12,.1f} {unit:9} {note}\n")


if __name__ == "__main__":
    main()
