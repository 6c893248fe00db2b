"""
How long services take to reach the kernel, in a network namespace of its own.

Run as root: ``python -m tests.bench.bench_proxy [services]``. Prints the time
to plan everything, to load everything, to plan and load one changed endpoint, and how
many times cheaper the change is than loading everything again in the same run.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Network

from node.host.nft import Nft
from node.proxy.plan import FAMILY, TABLE, Facts, fixed_text, plan_service
from node.proxy.ruleset import Owner, Part, Ruleset
from node.proxy.services import Service, parse_endpoints, parse_service
from tests.fakes.host import Namespace, endpoint_slice, ready, service

PORTS = [{"name": "", "port": 80, "protocol": "TCP"}]
FACTS = Facts(
    node="n1",
    node_ips=("192.0.2.1",),
    zone="",
    cluster_cidr=IPv4Network("10.42.0.0/16"),
    service_cidr=IPv4Network("10.43.0.0/16"),
    own_ips=frozenset(),
)
ROUNDS = 9


def made(number: int) -> Service:
    found = parse_service(service(f"s{number}", f"10.43.{number // 250}.{number % 250 + 1}", PORTS))
    assert found is not None
    return found


def planned(number: int, shift: int = 0) -> tuple[Owner, Part]:
    base = f"10.42.{number // 120}"
    addresses = [ready(f"{base}.{2 * (number % 120) + i + shift}") for i in (1, 2)]
    one = made(number)
    return one.key, plan_service(
        one, parse_endpoints(endpoint_slice(one.key.name, addresses, PORTS)), FACTS
    )


async def milliseconds(work: Callable[[int], Awaitable[None]]) -> float:
    took = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        await work(number)
        took.append((time.perf_counter() - start) * 1000)
    return statistics.median(took)


async def measure(count: int, nft: Nft) -> dict[str, float]:
    ruleset = Ruleset(FAMILY, TABLE, fixed_text(FACTS))
    start = time.perf_counter()
    ruleset.replace(dict(planned(number) for number in range(count)))
    text = ruleset.full()
    plan_ms = (time.perf_counter() - start) * 1000

    async def full(_: int) -> None:
        await nft.load(text)

    async def change(number: int) -> None:
        await nft.load(ruleset.replace(dict([planned(count // 2, shift=number % 2 + 3)])))

    async def nothing(_: int) -> None:
        await nft.load("list tables")

    full_ms, change_ms = await milliseconds(full), await milliseconds(change)
    return {
        "services": count,
        "plan_ms": plan_ms,
        "text_kib": len(text) / 1024,
        "full_load_ms": full_ms,
        "one_change_ms": change_ms,
        "empty_nft_ms": await milliseconds(nothing),
        "full_over_change": full_ms / change_ms,
    }


def run(count: int = 1000) -> list[tuple[str, float, str, str]]:
    """Name, value, unit and note of each thing measured."""
    namespace = Namespace("bench")
    try:
        found = asyncio.run(measure(count, Nft(netns=namespace.path)))
    finally:
        namespace.remove()
    services = f"{count:,} services"
    return [
        (f"plan {services}", found["plan_ms"], "ms", f"{found['text_kib']:,.0f} KiB of rules"),
        (f"load {services}", found["full_load_ms"], "ms", ""),
        (
            f"change one of {services}",
            found["one_change_ms"],
            "ms",
            f"1/{found['full_over_change']:.0f} of loading all; "
            f"{found['empty_nft_ms']:.1f} ms of it starts nft",
        ),
    ]


def main() -> None:
    for name, value, unit, note in run(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        sys.stdout.write(f"{name:40} {value:12,.1f} {unit:9} {note}\n")


if __name__ == "__main__":
    main()
