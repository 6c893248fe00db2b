"""Policies in a real kernel: from the first packet, through changes and crashes."""

import asyncio
import contextlib
import itertools
import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from node.host import sysctl
from node.host.netlink import run_inside
from node.kubelet.gate import PolicyGate, ask
from tests.fakes.netpol import Net, Object, Probe, namespace_object, new_net, pod, policy

pytestmark = pytest.mark.root
ROOT = Path(__file__).parent.parent.parent.parent
DENY = {"policyTypes": ["Ingress", "Egress"]}
DENY_INGRESS = {"policyTypes": ["Ingress"]}
NODE = {"metadata": {"name": "n1"}, "spec": {"podCIDRs": ["10.42.0.0/24"]}}
VERSIONS = itertools.count(100)


@dataclass
class Operator:
    """The operator as a process in the node's namespace, and what its watches tell it."""

    net: Net
    folder: Path
    closed: str = "closed"
    process: "subprocess.Popen[str] | None" = None
    told: dict[tuple[str, str, str], tuple[str, Object]] = field(default_factory=dict)

    def start(self, *, begin: bool = True) -> None:
        """With all that it was told before."""
        log = (self.folder / "operator.log").open("a")
        self.process = subprocess.Popen(
            [
                *self.net.enter,
                sys.executable,
                "-m",
                "tests.fakes.netpol_child",
                self.folder,
                self.closed,
            ],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        log.close()
        for what, body in self.told.values():
            self.tell(what, body)
        if begin:
            self.tell("begin", True)
            self.settle()

    def tell(self, what: str, body: Any) -> Any:
        assert self.process is not None
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({what: body}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, self.log()
        return json.loads(line)

    def settle(self) -> None:
        assert self.tell("settle", True) == ""

    def put(self, what: str, body: Object) -> None:
        """Told now, and again to whoever is started later."""
        body["metadata"]["resourceVersion"] = str(next(VERSIONS))
        metadata = body["metadata"]
        self.told[what, metadata.get("namespace", ""), metadata["name"]] = what, body
        if self.process is not None:
            self.tell(what, body)

    def remove(self, what: str, body: Object) -> None:
        del self.told[what, body["metadata"].get("namespace", ""), body["metadata"]["name"]]
        body["metadata"]["resourceVersion"] = str(next(VERSIONS))
        self.tell(f"{what}-deleted", body)

    def log(self) -> str:
        return (self.folder / "operator.log").read_text()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def nft(self, *words: str) -> str:
        return subprocess.run(
            [*self.net.enter, "nft", *words], capture_output=True, text=True, check=False
        ).stdout

    def through(self, source: str, target: str, protocol: str = "TCP", port: int = 80) -> bool:
        address = self.net.addresses.get(target, target)
        return self.net.probe([Probe(source, address, protocol, port)])[0]


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with new_net() as made:
        for number in range(4):
            made.add_pod(f"p{number}", f"10.42.0.{number + 2}")
        made.serve((80, 81), (53,))
        yield made


@pytest.fixture
def operator(net: Net, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(net, tmp_path)
    made.put("namespace", namespace_object("default"))
    made.put("node", dict(NODE))
    for number in range(4):
        name = f"p{number}"
        made.put("pod", pod(name, net.addresses[name], labels={"app": name}))
    try:
        yield made
    finally:
        made.kill()
        made.nft("delete", "table", "inet", "pinnace_netpol")


def only(name: str) -> Object:
    return {"podSelector": {"matchLabels": {"app": name}}}


def test_without_policies_there_is_no_table(operator: Operator) -> None:
    operator.start()
    assert "netpol" not in operator.nft("list", "tables")
    operator.put("policy", policy("deny", DENY))
    operator.settle()
    assert not operator.through("p0", "p1")
    operator.remove("policy", policy("deny", DENY))
    operator.settle()
    assert "netpol" not in operator.nft("list", "tables")
    assert operator.through("p0", "p1")


def test_a_pod_is_denied_from_its_first_packet_on(operator: Operator, tmp_path: Path) -> None:
    """200 pods, each asked for by the agent's own gate and known to no watch."""
    operator.put("policy", policy("deny", DENY | only("late")))
    operator.start()
    gate = PolicyGate(tmp_path, closed=True)
    namespace = operator.net.names["p3"]

    addresses = [f"10.42.0.{number}" for number in range(20, 220)]
    for address in addresses:
        namespace.ip("addr", "add", f"{address}/24", "dev", "eth0")

    async def connects(address: str) -> list[bool]:
        late = pod(f"late-{address}", "", labels={"app": "late"}, version=next(VERSIONS))
        answer = await gate.covered(late, [address])
        assert answer.start, answer
        assert not answer.why
        return [
            connected(operator.net, "p3", ("10.42.0.2", 80), source=address),
            connected(operator.net, "p0", (address, 80)),
        ]

    async def all_connect() -> list[list[bool]]:
        found = []
        for first in range(0, len(addresses), 5):
            found += await asyncio.gather(*map(connects, addresses[first : first + 5]))
        return found

    assert asyncio.run(all_connect()) == [[False, False]] * 200


def connected(net: Net, inside: str, to: tuple[str, int], *, source: str = "") -> bool:
    with run_inside(net.names[inside].path, socket.socket) as client:
        client.settimeout(0.5)
        if source:
            client.bind((source, 0))
        return client.connect_ex(to) == 0


def test_a_policy_that_no_watch_told_of_yet_holds_for_a_pod_that_starts(
    operator: Operator, tmp_path: Path
) -> None:
    operator.start()
    operator.tell("listed", [policy("deny", DENY | only("p0"), version=next(VERSIONS))])
    given = pod("p0", "", labels={"app": "p0"}, version=next(VERSIONS))
    answer = asyncio.run(PolicyGate(tmp_path, closed=True).covered(given, ["10.42.0.2"]))
    assert answer.start
    assert not operator.through("p1", "p0")


def test_an_address_of_this_node_that_no_pod_is_known_to_have_gets_nowhere(
    operator: Operator,
) -> None:
    del operator.told["pod", "default", "p2"]
    operator.put("policy", policy("other", DENY | only("nobody")))
    operator.start()
    assert operator.through("p0", "p1")
    assert not connected(operator.net, "p2", ("10.42.0.3", 80))
    assert not connected(operator.net, "p0", ("10.42.0.4", 80))
    operator.put("pod", pod("p2", "10.42.0.4"))
    operator.settle()
    assert operator.through("p2", "p1")


def test_ipv6_is_judged_like_ipv4(operator: Operator) -> None:
    node = operator.net.host.node
    sysctl.ensure("net.bridge.bridge-nf-call-ip6tables", "1", netns=node.path)
    for number in range(3):
        inside, address = operator.net.names[f"p{number}"], f"fd00::{number + 2}"
        inside.ip("addr", "add", f"{address}/64", "dev", "eth0", "nodad")
        ips = f"10.42.0.{number + 2},{address}"
        operator.put("pod", pod(f"p{number}", ips, labels={"app": f"p{number}"}))
    node.ip("addr", "add", "fd00::1/64", "dev", "cni0", "nodad")
    inside = operator.net.names["p0"]
    with run_inside(
        inside.path, lambda: socket.create_server(("::", 7000), family=socket.AF_INET6)
    ):
        operator.start()
        assert connected6(operator.net, "p1", "fd00::2")
        allow = {"ingress": [{"from": [only("p1")]}]}
        operator.put("policy", policy("p1", DENY_INGRESS | only("p0") | allow))
        operator.settle()
        assert connected6(operator.net, "p1", "fd00::2")
        assert not connected6(operator.net, "p2", "fd00::2")


def connected6(net: Net, inside: str, address: str) -> bool:
    with run_inside(net.names[inside].path, lambda: socket.socket(socket.AF_INET6)) as client:
        client.settimeout(2)
        return client.connect_ex((address, 7000)) == 0


def test_sctp_is_judged_like_tcp(operator: Operator) -> None:
    try:
        sctp().close()
    except OSError as err:
        pytest.skip(f"this kernel has no SCTP: {err}")
    with run_inside(operator.net.names["p1"].path, sctp) as served:
        served.bind(("0.0.0.0", 9))
        served.listen()
        operator.put("policy", policy("sctp", DENY_INGRESS | only("p1") | to_sctp(9)))
        operator.start()
        assert associated(operator.net)
        operator.put("policy", policy("sctp", DENY_INGRESS | only("p1") | to_sctp(10)))
        operator.settle()
        assert not associated(operator.net)


def to_sctp(port: int) -> Object:
    return {"ingress": [{"ports": [{"protocol": "SCTP", "port": port}]}]}


def sctp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_SCTP)


def associated(net: Net) -> bool:
    with run_inside(net.names["p0"].path, sctp) as client:
        client.settimeout(2)
        return client.connect_ex(("10.42.0.3", 9)) == 0


def test_the_node_reaches_its_own_pods_and_pods_reach_it_as_egress_allows(
    operator: Operator,
) -> None:
    operator.put("policy", policy("deny", DENY | only("p0")))
    operator.start()
    assert operator.through("node", "p0")
    assert not operator.through("p0", "node")
    assert operator.through("p1", "node")
    block = {"egress": [{"to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}]}]}
    operator.put("policy", policy("node", DENY | only("p0") | block))
    operator.settle()
    assert operator.through("p0", "node")


def test_the_cluster_dns_counts_as_a_pod_of_kube_system(operator: Operator) -> None:
    node = operator.net.host.node
    node.ip("addr", "add", "10.43.0.10/32", "dev", "lo")
    dns = {
        "to": [
            {
                "namespaceSelector": {
                    "matchLabels": {"kubernetes.io/metadata.name": "kube-system"}
                },
                "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
            }
        ],
        "ports": [{"protocol": "UDP", "port": 53}],
    }
    operator.put("namespace", namespace_object("kube-system"))
    operator.put("policy", policy("deny", DENY | only("p0")))
    operator.start()
    assert not operator.through("p0", "10.43.0.10", "UDP", 53)
    operator.put("policy", policy("dns", DENY | only("p0") | {"egress": [dns]}))
    operator.settle()
    assert operator.through("p0", "10.43.0.10", "UDP", 53)
    assert not operator.through("p0", "10.43.0.10", "TCP", 80)
    node.ip("addr", "del", "10.43.0.10/32", "dev", "lo")


def test_an_open_connection_is_cut_by_a_policy_that_forbids_it(operator: Operator) -> None:
    operator.start()
    listener = run_inside(operator.net.names["p1"].path, socket.socket)
    client = run_inside(operator.net.names["p0"].path, socket.socket)
    with listener, client:
        listener.bind(("", 9000))
        listener.listen()
        client.settimeout(5)
        client.connect(("10.42.0.3", 9000))
        server, _ = listener.accept()
        with server:
            server.settimeout(5)
            operator.put("policy", policy("other", DENY_INGRESS | only("p2")))
            operator.settle()
            server.send(b"still")
            assert client.recv(10) == b"still"
            operator.put("policy", policy("deny", DENY_INGRESS | only("p1")))
            operator.settle()
            # The server may connect to the client, yet its next packet begins nothing new.
            server.send(b"again")
            with pytest.raises(ConnectionResetError):
                server.recv(10)
            client.send(b"again")
            with pytest.raises(ConnectionResetError):
                client.recv(10)
    assert re.search(r"cut \d+ connections", operator.log())


def test_a_udp_flow_is_cut_by_a_policy_that_forbids_it(operator: Operator) -> None:
    operator.start()
    client = run_inside(
        operator.net.names["p0"].path, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    )
    with client:
        client.settimeout(2)
        client.connect(("10.42.0.3", 53))
        client.send(b"?")
        assert client.recv(10) == b"?"
        operator.put("policy", policy("deny", DENY_INGRESS | only("p1")))
        operator.settle()
        client.send(b"?")
        with pytest.raises(OSError, match="No route to host"):
            client.recv(10)


def test_rules_stay_when_the_operator_is_killed_and_when_it_comes_back(
    operator: Operator,
) -> None:
    operator.put("policy", policy("deny", DENY | only("p1")))
    operator.start()
    for _ in range(3):
        operator.kill()
        assert not operator.through("p0", "p1")
        operator.start(begin=False)
        assert not operator.through("p0", "p1")
        operator.tell("begin", True)
        operator.settle()
        assert not operator.through("p0", "p1")
        assert operator.through("p0", "p2")


def test_nothing_is_open_for_a_moment_while_rules_change_and_the_operator_dies(
    operator: Operator,
) -> None:
    """Another policy, other pods' labels and kill -9 at any moment; p1 is denied throughout."""
    operator.put("policy", policy("deny", DENY | only("p1")))
    operator.start()
    probes = [Probe("p0", "10.42.0.3", "TCP", 80), Probe("p2", "10.42.0.3", "UDP", 53)]
    for number in range(40):
        opens: Object = {"ingress": [{}]} if number % 2 else {}
        spec = DENY_INGRESS | only("p3") | opens
        with contextlib.suppress(AssertionError, BrokenPipeError):
            operator.put("policy", policy("flapping", spec))
            operator.put("pod", pod("p2", "10.42.0.4", labels={"app": "p2", "n": str(number)}))
        assert operator.net.probe(probes) == [False, False]
        if number % 8 == 7:
            operator.kill()
            assert operator.net.probe(probes) == [False, False]
            operator.start()


def test_a_table_that_somebody_removed_is_loaded_again(operator: Operator) -> None:
    operator.put("policy", policy("deny", DENY | only("p1")))
    operator.start()
    operator.nft("delete", "table", "inet", "pinnace_netpol")
    deadline = time.monotonic() + 10
    while operator.through("p0", "p1"):
        assert time.monotonic() < deadline
    assert "somebody removed the table" in operator.log()


def test_what_is_denied_is_told_in_the_log_by_name(operator: Operator) -> None:
    operator.put("policy", policy("deny", DENY_INGRESS | only("p1")))
    operator.start()
    assert not operator.through("p0", "p1")
    operator.settle()
    expected = "denied default/p0 (10.42.0.2) -> default/p1 (10.42.0.3) TCP port 80: ingress"
    assert expected in operator.log()


def test_a_storm_of_changes_takes_few_transactions(operator: Operator) -> None:
    operator.put("policy", policy("deny", DENY_INGRESS | only("p1")))
    operator.start()
    for number in range(200):
        spec = DENY_INGRESS | only("p2") | {"ingress": [{"ports": [{"port": number + 1}]}]}
        operator.put("policy", policy("storm", spec))
    operator.settle()
    assert not operator.through("p0", "p2", port=81)
    rules = operator.nft("list", "chain", "inet", "pinnace_netpol", "policy/ingress/default/storm")
    assert re.findall(r"tcp dport (\d+)", rules) == ["200"]


def test_the_operator_says_why_something_is_denied(operator: Operator, tmp_path: Path) -> None:
    operator.put("policy", policy("deny", DENY_INGRESS | only("p1")))
    operator.start()
    wanted = {"pod": "default/p1", "from": "default/p0", "port": 80}
    found = asyncio.run(ask(tmp_path, {"explain": wanted}))
    assert found["allowed"] is False
    assert "ingress of default/p1: no rule of default/deny allows it" in found["lines"]


def test_a_pod_waits_while_no_operator_runs(operator: Operator, tmp_path: Path) -> None:
    given = pod("p0", "", labels={"app": "p0"})
    closed = PolicyGate(tmp_path, closed=True, seconds=0.3)
    answer = asyncio.run(closed.covered(given, ["10.42.0.2"]))
    assert not answer.start
    assert "does not run" in answer.why
    opened = PolicyGate(tmp_path, closed=False, seconds=0.3)
    answer = asyncio.run(opened.covered(given, ["10.42.0.2"]))
    assert answer.start
    assert "does not run" in answer.why
