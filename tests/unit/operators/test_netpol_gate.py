"""The agent's side of the gate and the operator's, over a real socket."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from node import netpol
from node.kubelet.gate import PolicyGate, ask, question
from node.settings import UsageError, read
from operators.netpol.apply import Enforcer
from operators.netpol.facts import Facts, Seen
from operators.netpol.gate import Gate, handed_pod
from operators.netpol.objects import NamedPort
from operators.netpol.plan import Compiler
from operators.netpol.policies import NoAnswer
from tests.fakes.netpol import Object, pod, policy
from tests.unit.operators.test_netpol_apply import Machine

DENY = {"policyTypes": ["Ingress"]}


class Operator:
    def __init__(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        self.machine = Machine()
        self.enforcer = Enforcer(Compiler("n1"), self.machine, clock=loop.time)
        self.facts = Facts(self.enforcer, closed=True)
        self.listed: list[Object] | None = []
        self.obstacle = ""
        self.gate = Gate(self.enforcer, self._of, lambda: self.obstacle, folder)

    async def _of(self, namespace: str) -> list[Object]:
        if self.listed is None:
            raise NoAnswer("away")
        return self.listed


@contextlib.asynccontextmanager
async def running(folder: Path, *, begin: bool = True) -> AsyncIterator[Operator]:
    operator = Operator(folder)
    async with asyncio.TaskGroup() as tasks:
        parts = [tasks.create_task(part.run()) for part in (operator.enforcer, operator.gate)]
        if begin:
            operator.facts.listed()
        for _ in range(10):
            await asyncio.sleep(0)
        assert (folder / "policy.sock").exists()
        yield operator
        for part in parts:
            part.cancel()


async def test_a_pod_is_covered_once_the_kernel_has_its_rules(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        operator.listed = [policy("deny", DENY)]
        answer = await PolicyGate(tmp_path, closed=True).covered(pod("a", ""), ["10.42.0.2"])
        assert (answer.start, answer.why) == (True, "")
        assert "10.42.0.2 : goto in/" in operator.machine.loaded[-1]


async def test_while_the_api_is_away_what_is_known_holds(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        operator.facts.policy(policy("deny", DENY))
        operator.listed = None
        answer = await PolicyGate(tmp_path, closed=True).covered(pod("a", ""), ["10.42.0.2"])
        assert answer.start
        assert "10.42.0.2 : goto in/" in operator.machine.loaded[-1]


async def test_a_pod_waits_until_everything_was_listed(tmp_path: Path) -> None:
    async with running(tmp_path, begin=False) as operator:
        gate = PolicyGate(tmp_path, closed=True, seconds=0.2)
        answer = await gate.covered(pod("a", ""), ["10.42.0.2"])
        assert not answer.start
        assert "did not answer" in answer.why
        operator.facts.listed()
        assert (await gate.covered(pod("a", ""), ["10.42.0.2"])).start


async def test_only_isolated_pods_wait_for_a_kernel_that_cannot_isolate(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        operator.obstacle = "no br_netfilter"
        gate = PolicyGate(tmp_path, closed=True, seconds=0.2)
        assert (await gate.covered(pod("a", ""), ["10.42.0.2"])).start
        operator.facts.policy(policy("deny", DENY))
        answer = await gate.covered(pod("b", ""), ["10.42.0.3"])
        assert (answer.start, answer.why) == (False, "no br_netfilter")


async def test_what_the_kernel_refuses_is_the_reason(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        operator.facts.policy(policy("deny", DENY))
        operator.machine.refuse = ["no nft"] * 20
        gate = PolicyGate(tmp_path, closed=False, seconds=0.2)
        answer = await gate.covered(pod("a", ""), ["10.42.0.2"])
        assert (answer.start, answer.why) == (True, "no nft")


async def test_pods_in_the_hosts_network_are_not_asked_for(tmp_path: Path) -> None:
    body = pod("a", "")
    body["spec"]["hostNetwork"] = True
    gate = PolicyGate(tmp_path, closed=True, seconds=0.2)
    assert await gate.covered(body, ["192.0.2.1"]) == (await gate.covered(body, []))
    assert (await gate.covered(body, [])).start


@pytest.mark.parametrize("asked", [{}, {"namespace": "a"}, [], {"explain": 3}])
async def test_nonsense_gets_an_answer_too(tmp_path: Path, asked: Any) -> None:
    async with running(tmp_path):
        answer = await ask(tmp_path, asked)
        assert answer.get("covered") is not True
        assert "not understood" in answer["reason"]


async def test_a_pod_without_an_address_is_not_covered(tmp_path: Path) -> None:
    async with running(tmp_path):
        answer = await ask(tmp_path, question(pod("a", ""), []))
        assert answer == {"covered": False, "reason": "the pod has no address"}


def test_the_question_holds_all_that_rules_depend_on() -> None:
    body = pod("a", "", labels={"x": "y"}, ports=[{"name": "http", "containerPort": 80}])
    made = handed_pod(question(body, ["10.42.0.2"]), "n1")
    assert (made.key, made.uid, made.node) == ("default/a", "default-a", "n1")
    assert (made.labels, made.ips) == ({"x": "y"}, ("10.42.0.2",))
    assert made.ports == (NamedPort("http", "TCP", 80),)


async def test_what_a_listing_lacks_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("operators.sweep.LISTING_SECONDS", 0.01)
    gone: list[str] = []
    seen = Seen(gone.append)
    for key in ("a", "b", "c"):
        seen.note(key, None)
    await asyncio.sleep(0.05)
    assert gone == []
    seen.note("a", None)
    seen.note("d", "ADDED")
    seen.note("b", "DELETED")
    await asyncio.sleep(0.05)
    assert gone == ["c"]


async def test_the_command_tells_what_the_operator_knows(tmp_path: Path) -> None:
    async with running(tmp_path) as operator:
        operator.facts.pod(pod("a", "10.42.0.2", labels={"app": "a"}))
        operator.facts.pod(pod("b", "10.42.0.3"))
        ports = [{"port": 80}, {"port": 90, "endPort": 99, "protocol": "UDP"}, {"port": "http"}]
        peers = [
            {"namespaceSelector": {}, "podSelector": {"matchLabels": {"x": "y"}}},
            {"ipBlock": {"cidr": "192.0.2.0/24", "except": ["192.0.2.128/25"]}},
        ]
        spec = {"ingress": [{"from": peers, "ports": ports}], "policyTypes": ["Ingress", "Egress"]}
        operator.facts.policy(policy("p", spec | {"podSelector": {"matchLabels": {"app": "a"}}}))
        assert await operator.enforcer.settle() == ""
        assert await told(tmp_path, "a") == [
            "pod default/a (10.42.0.2) on this node",
            "ingress: isolated; only this may enter:",
            "  default/p: from pods with x=y in all namespaces or 192.0.2.0-192.0.2.127; "
            "TCP 80, UDP 90-99, TCP http",
            "egress: isolated; only this may leave:",
            "  default/p: nothing",
        ]
        assert (await told(tmp_path, "a", "--from=192.0.2.5", "--port=80"))[1:] == [
            "egress of 192.0.2.5: no pod, no policies",
            "ingress of default/a: allowed by default/p",
            "allowed: 192.0.2.5 -> default/a TCP port 80",
        ]
        assert (await told(tmp_path, "b", "--to=a", "--port=80"))[-1].startswith("denied: ")
        assert (await told(tmp_path, "a", "--to=a", "--port=80"))[1:] == [
            "allowed: a pod always reaches itself"
        ]
        with pytest.raises(UsageError, match="no pod default/none"):
            await told(tmp_path, "none")


async def told(folder: Path, *arguments: str) -> list[str]:
    asked, rest = netpol.parse(["explain", *arguments])
    assert rest == []
    lines: list[str] = []
    await asyncio.to_thread(netpol.run, asked, folder, lines.append)
    return lines


def test_the_command_reads_its_own_flags_and_leaves_the_others() -> None:
    words = ["explain", "web", "-n", "shop", "--from=client", "--port=80", "--run-dir=/r"]
    asked, rest = netpol.parse(words)
    assert asked == {
        "pod": "shop/web",
        "from": "shop/client",
        "port": 80,
        "protocol": "TCP",
    }
    assert rest == ["--run-dir=/r"]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["show"],
        ["explain"],
        ["explain", "a", "b"],
        ["explain", "a", "--from"],
        ["explain", "a", "--from=b"],
        ["explain", "a", "--from=b", "--port=http"],
        ["explain", "a", "--from=b", "--to=c", "--port=1"],
    ],
)
def test_the_command_refuses_in_one_line(words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        netpol.parse(words)
    assert "\n" not in str(caught.value)


def test_a_port_that_is_missing_is_asked_for() -> None:
    with pytest.raises(UsageError, match="need --port too"):
        netpol.parse(["explain", "a", "--to=b"])


def test_without_an_operator_the_command_says_so(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does pinnace run"):
        netpol.run({"pod": "a/b"}, tmp_path, lambda _: None)


def test_what_happens_without_rules_is_closed_or_open() -> None:
    assert read("server", ["--network-policy-fail=open"], {})["network-policy-fail"] == "open"
    with pytest.raises(UsageError, match="--network-policy-fail takes closed or open"):
        read("server", ["--network-policy-fail=maybe"], {})
