"""
What network policies cost: making the rules, loading them, a pod's start, each connection.

Run as root: ``python -m tests.bench.bench_netpol [policies] [pods]``. In namespaces of its
own; the operator is a process there, as on a node, without the API.
"""

import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from node.host.netlink import run_inside
from node.kubelet.gate import PolicyGate
from operators.netpol import elements, rules
from operators.netpol.objects import labels_of, pod_of, policy_of
from operators.netpol.plan import Compiler
from operators.netpol.rules import FAMILY, TABLE, Facts
from operators.netpol.table import Difference, Table
from tests.fakes.netpol import Net, Object, new_net, pod, policy
from tests.host.operators.test_netpol import NODE, Operator

Row = tuple[str, float, str, str]
NAMESPACES = 20
LOCAL = 110  # pods of this node
ROUNDS = 20
DENY = {"policyTypes": ["Ingress", "Egress"]}


def made_pod(number: int, *, version: int = 1) -> Object:
    labels = {
        "app": f"a{number % 50}",
        "tier": f"t{(number + version) % 3}",
        "pod-template-hash": f"{number:010}",
    }
    return pod(
        f"p{number}",
        f"10.42.{number // 250}.{number % 250 + 2}",
        namespace=f"ns{number % NAMESPACES}",
        labels=labels,
        ports=[{"name": "http", "containerPort": 8080}],
        node="n1" if number < LOCAL else "n2",
        version=version,
    )


def made_policy(number: int) -> Object:
    peers = [
        {"podSelector": {"matchLabels": {"tier": f"t{number % 3}"}}},
        {
            "namespaceSelector": {"matchLabels": {"team": f"t{number % 4}"}},
            "podSelector": {"matchLabels": {"app": f"a{number % 7}"}},
        },
    ]
    ports = [{"port": 80}, {"port": "http"}, {"port": 8000, "endPort": 8080}]
    block = {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}
    spec = {
        "podSelector": {"matchLabels": {"app": f"a{number % 50}"}} if number % 3 else {},
        **DENY,
        "ingress": [{"from": peers, "ports": ports}],
        "egress": [{"to": [block, *peers]}, {"ports": [{"port": 53, "protocol": "UDP"}]}],
    }
    return policy(f"policy{number}", spec, namespace=f"ns{number % NAMESPACES}")


def told(compiler: Compiler, body: Object) -> None:
    made = pod_of(body)
    assert made is not None
    compiler.change_pods(compiler.pods.told(made))


def filled(policies: int, pods: int) -> Compiler:
    compiler = Compiler("n1")
    for number in range(NAMESPACES):
        compiler.put_namespace(f"ns{number}", labels_of({"team": f"t{number % 4}"}))
    for number in range(pods):
        told(compiler, made_pod(number))
    for number in range(policies):
        found = policy_of(made_policy(number))
        compiler.put_policy(found.namespace, found.name, found)
    return compiler


def median_ms(work: Callable[[int], object], rounds: int = ROUNDS) -> float:
    took = []
    for number in range(rounds):
        began = time.perf_counter()
        work(number)
        took.append((time.perf_counter() - began) * 1000)
    return statistics.median(took)


def rules_rows(net: Net, policies: int, pods: int) -> list[Row]:
    compiler, table = Compiler("n1"), Table(FAMILY, TABLE)

    def make(_: int) -> None:
        nonlocal compiler, table
        compiler, table = filled(policies, pods), Table(FAMILY, TABLE)
        table.replace(compiler.parts())

    def load(text: str) -> None:
        subprocess.run([*net.enter, "nft", "-f", "-"], input=text.encode(), check=True)

    make_ms = median_ms(make, 3)
    text = table.full(rules.fixed_text(Facts()))
    load_ms = median_ms(lambda _: load(text), 5)
    changes: list[Difference] = []

    def change(number: int) -> None:
        told(compiler, made_pod(200, version=2 + number))
        told(compiler, made_pod(201, version=2 + number))
        changes.append(table.replace(compiler.parts()))

    change_ms = median_ms(change, ROUNDS * 3)
    texts = [one.text for one in changes]
    # Each of the three has changes of its own to load, in the order in which they were made.
    nft_ms = median_ms(lambda number: load(texts[number]))
    kept_ms = _interactive(net, texts[ROUNDS:])

    def by_netlink(number: int) -> None:
        one = changes[2 * ROUNDS + number]
        elements.change(one.gone, one.fresh)

    netlink_ms = run_inside(net.host.node.path, lambda: median_ms(by_netlink))
    size = f"{policies} policies x {pods} pods"
    note = f"{len(text) / 1024:,.0f} KiB of rules"
    return [
        (f"make the rules of {size}", make_ms, "ms", note),
        ("load them", load_ms, "ms", ""),
        ("make the change of two pods' labels", change_ms, "ms", ""),
        ("load it, nft -f", nft_ms, "ms", f"{len(texts[-1]) / 1024:,.1f} KiB"),
        ("load it, nft -i", kept_ms, "ms", "a process that stays"),
        ("load it, netlink", netlink_ms, "ms", "what is done where only elements change"),
    ]


def _interactive(net: Net, texts: list[str]) -> float:
    """A process that reads commands as they come; each line is a transaction."""
    marker = "list table inet marker"
    with subprocess.Popen(
        [*net.enter, "nft", "-i"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def load(number: int) -> None:
            stdin.write("; ".join(texts[number].splitlines()) + f"\n{marker}\n")
            stdin.flush()
            while stdout.readline().strip() != "}":
                pass

        stdin.write("add table inet marker\n")
        found = median_ms(load)
        stdin.close()
    return found


@contextlib.contextmanager
def operating(net: Net, *bodies: Object) -> Iterator[Operator]:
    with tempfile.TemporaryDirectory() as folder:
        operator = Operator(net, Path(folder))
        operator.put("node", dict(NODE))
        for body in bodies:
            operator.put("policy", body)
        operator.start()
        try:
            yield operator
        finally:
            operator.kill()
            operator.nft("delete", "table", FAMILY, TABLE)


def gate_ms(operator: Operator) -> float:
    """How long a pod waits."""
    gate = PolicyGate(operator.folder, closed=True)

    async def start(number: int) -> None:
        late = pod(f"late{number}", "", namespace="ns0", labels={"app": "a0"})
        answer = await gate.covered(late, [f"10.42.0.{number + 100}"])
        assert not answer.why, answer

    return median_ms(lambda number: asyncio.run(start(number)))


def gate_rows(net: Net, policies: int) -> list[Row]:
    with operating(net) as operator:
        without = gate_ms(operator)
    with operating(net, *map(made_policy, range(policies))) as operator:
        with_policies = gate_ms(operator)
    return [
        ("a pod's wait, no policies", without, "ms", ""),
        (f"a pod's wait, {policies} policies", with_policies, "ms", ""),
    ]


def connect_us(net: Net) -> float:
    def connect(_: int) -> None:
        for _ in range(100):
            with socket.create_connection(("10.42.0.3", 80)):
                pass

    return run_inside(net.names["p0"].path, lambda: median_ms(connect)) * 10


def connection_rows(net: Net) -> list[Row]:
    net.serve((80,), ())
    before = connect_us(net)
    allow: list[Object] = [{"podSelector": {}}]
    spec = {**DENY, "ingress": [{"from": allow}], "egress": [{"to": allow}]}
    with operating(net, policy("allow", spec)) as operator:
        for number in range(2):
            operator.put("pod", pod(f"p{number}", f"10.42.0.{number + 2}"))
        operator.settle()
        after = connect_us(net)
    return [
        ("a connection between pods, no policies", before, "us", ""),
        ("the same, allowed by policies of both", after, "us", ""),
    ]


def run(policies: int = 200, pods: int = 500) -> list[Row]:
    """Name, value, unit and note of each thing measured."""
    with new_net() as net:
        for number in range(2):
            net.add_pod(f"p{number}", f"10.42.0.{number + 2}")
        found = rules_rows(net, policies, pods)
        subprocess.run([*net.enter, "nft", "delete", "table", FAMILY, TABLE], check=True)
        return found + gate_rows(net, policies) + connection_rows(net)


def main() -> None:
    for name, value, unit, note in run(*map(int, sys.argv[1:])):
        sys.stdout.write(f"{name:45} {value:10,.1f} {unit:4} {note}\n")


if __name__ == "__main__":
    main()
