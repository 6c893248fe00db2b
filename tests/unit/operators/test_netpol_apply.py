"""What goes to the kernel, when, and what happens when it refuses."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from operators.netpol.apply import Enforcer
from operators.netpol.conntrack import Flow
from operators.netpol.facts import Facts
from operators.netpol.kernel import KernelError
from operators.netpol.objects import pod_of
from operators.netpol.plan import Compiler
from operators.netpol.table import Difference
from tests.fakes.netpol import Object, pod, policy


class Machine:
    """A kernel that notes what it is told, refuses when told to, and tracks some flows."""

    def __init__(self, *flows: Flow) -> None:
        self.loaded: list[str] = []
        self.removed = 0
        self.refuse: list[str] = []  # one for each load that is refused
        self.flows_now = list(flows)
        self.poison = ""  # a rule that nft does not take
        self.lost = asyncio.Event()
        self.touched = asyncio.Event()
        self.hold: asyncio.Event | None = None  # connections are looked for once it is set

    async def load(self, text: str) -> None:
        await self.check(text)
        if self.refuse:
            raise KernelError(self.refuse.pop())
        self.loaded.append(text)
        self.touched.set()

    async def check(self, text: str) -> None:
        await asyncio.sleep(0)
        if self.poison and self.poison in text:
            raise KernelError("syntax error")

    async def change(self, difference: Difference) -> None:
        await self.load(difference.text)

    async def remove(self) -> None:
        self.removed += 1

    async def wait_until_lost(self) -> None:
        await self.lost.wait()
        self.lost.clear()

    async def flows(self, addresses: frozenset[str]) -> list[Flow]:
        if self.hold:
            await self.hold.wait()
        return [f for f in self.flows_now if f.source in addresses or f.answers in addresses]

    async def forget(self, flows: Sequence[Flow]) -> None:
        self.flows_now = [flow for flow in self.flows_now if flow not in flows]
        self.touched.set()

    async def own_addresses(self) -> frozenset[str]:
        return frozenset({"10.42.0.1"})


class Node:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        loop = asyncio.get_running_loop()
        self.enforcer = Enforcer(Compiler("n1"), machine, clock=loop.time)
        self.facts = Facts(self.enforcer, closed=True)

    def policy(self, name: str = "p", **spec: Any) -> Object:
        body = policy(name, {"policyTypes": ["Ingress"], **spec})
        self.facts.policy(body)
        return body


@contextlib.asynccontextmanager
async def running(machine: Machine, *, begin: bool = True) -> AsyncIterator[Node]:
    node = Node(machine)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(node.enforcer.run())
        if begin:
            node.facts.listed()
        yield node
        task.cancel()


async def test_nothing_is_loaded_before_everything_was_listed() -> None:
    machine = Machine()
    async with running(machine, begin=False) as node:
        node.facts.pod(pod("a", "10.42.0.2"))
        node.policy()
        waiting = asyncio.ensure_future(node.enforcer.settle())
        for _ in range(5):
            await asyncio.sleep(0)
        assert machine.loaded == []
        node.facts.listed()
        assert await waiting == ""
        assert len(machine.loaded) == 1


async def test_without_a_policy_a_table_of_before_is_removed_once() -> None:
    machine = Machine()
    async with running(machine) as node:
        assert await node.enforcer.settle() == ""
        node.facts.pod(pod("a", "10.42.0.2"))
        assert await node.enforcer.settle() == ""
    assert (machine.loaded, machine.removed) == ([], 1)


async def test_many_changes_at_once_are_one_transaction() -> None:
    machine = Machine()
    async with running(machine) as node:
        node.policy()
        await node.enforcer.settle()
        for number in range(50):
            node.facts.pod(pod(f"p{number}", f"10.42.0.{number + 2}"))
        await node.enforcer.settle()
    whole, change = machine.loaded
    assert whole.startswith("add table")
    assert change.count("10.42.0.9 ") >= 1
    assert not change.startswith("add table")


async def test_what_the_kernel_refused_is_told_and_loaded_whole_the_next_time() -> None:
    machine = Machine()
    async with running(machine) as node:
        node.policy()
        await node.enforcer.settle()
        machine.refuse = ["Error: no"]
        made = pod_of(pod("a", "10.42.0.2"))
        assert made is not None
        assert await node.enforcer.hand(made) == "Error: no"
        node.facts.pod(pod("b", "10.42.0.3"))
        assert await node.enforcer.settle() == ""
    assert machine.loaded[-1].startswith("add table")
    assert "10.42.0.2" in machine.loaded[-1]


async def test_a_kernel_without_the_log_gets_the_rules_without_it() -> None:
    machine = Machine()
    async with running(machine) as node:
        machine.refuse = ["Error: log"]
        node.policy()
        assert await node.enforcer.settle() == ""
    [text] = machine.loaded
    assert "log prefix" not in text


async def test_a_policy_that_nft_does_not_take_allows_nothing_and_stops_nobody() -> None:
    machine = Machine()
    machine.poison = "dport 666 "
    async with running(machine) as node:
        node.facts.pod(pod("a", "10.42.0.2"))
        node.policy("good", ingress=[{"ports": [{"port": 80}]}])
        bad = node.policy("bad", ingress=[{"ports": [{"port": 666}]}])
        assert await node.enforcer.settle() == ""
        assert "dport 80 " in machine.loaded[-1]
        assert "jump policy/ingress/default/bad" in machine.loaded[-1]
        assert "log prefix" in machine.loaded[-1]
        bad["spec"]["ingress"] = [{"ports": [{"port": 81}]}]
        bad["metadata"]["resourceVersion"] = "9"
        node.facts.policy(bad)
        assert await node.enforcer.settle() == ""
        machine.touched.clear()
        machine.lost.set()
        await asyncio.wait_for(machine.touched.wait(), 5)
        assert "dport 81 " in machine.loaded[-1]


async def test_a_table_that_is_lost_is_loaded_again() -> None:
    machine = Machine()
    async with running(machine) as node:
        node.policy()
        await node.enforcer.settle()
        machine.touched.clear()
        machine.lost.set()
        await asyncio.wait_for(machine.touched.wait(), 5)
    assert machine.loaded[0] == machine.loaded[1]


async def test_only_connections_that_are_forbidden_now_are_cut() -> None:
    kept = [
        Flow("TCP", "10.42.0.1", 1, "10.42.0.2", 80),  # from the node itself
        Flow("TCP", "10.42.0.2", 1, "10.42.0.3", 80),  # egress is not isolated
        Flow("TCP", "10.42.0.2", 1, "10.42.0.2", 80),  # to itself, by a service
        Flow("TCP", "192.0.2.7", 1, "192.0.2.8", 80),  # of no pod
    ]
    machine = Machine(*kept, Flow("TCP", "10.42.0.3", 1, "10.42.0.2", 80))
    async with running(machine) as node:
        node.facts.pod(pod("a", "10.42.0.2", labels={"app": "a"}))
        node.facts.pod(pod("b", "10.42.0.3"))
        node.policy(podSelector={"matchLabels": {"app": "a"}})
        await node.enforcer.settle()
    assert machine.flows_now == kept


async def test_an_answer_on_its_way_does_not_bring_a_flow_back() -> None:
    machine = Machine(Flow("UDP", "10.42.0.3", 999, "10.42.0.2", 53))
    async with running(machine) as node:
        node.facts.pod(pod("a", "10.42.0.2", labels={"app": "a"}))
        node.policy(podSelector={"matchLabels": {"app": "a"}})
        await node.enforcer.settle()
        assert machine.flows_now == []
        machine.flows_now = [Flow("UDP", "10.42.0.2", 53, "10.42.0.3", 999)]
        machine.touched.clear()
        await asyncio.wait_for(machine.touched.wait(), 5)
        assert machine.flows_now == []


async def test_a_new_pod_does_not_inherit_connections_of_its_address() -> None:
    machine = Machine(Flow("TCP", "192.0.2.9", 1, "10.42.0.2", 80))
    async with running(machine) as node:
        node.policy()
        made = pod_of(pod("a", "10.42.0.2"))
        assert made is not None
        assert await node.enforcer.hand(made) == ""
        assert await node.enforcer.settle() == ""
        assert machine.flows_now == []


async def test_an_address_that_is_free_again_has_no_connections() -> None:
    machine = Machine(Flow("UDP", "192.0.2.9", 1, "10.42.0.2", 80))
    async with running(machine) as node:
        node.facts.pod(pod("a", "10.42.0.2"))
        node.policy(podSelector={"matchLabels": {"app": "another"}})
        await node.enforcer.settle()
        assert len(machine.flows_now) == 1
        node.facts.pod_deleted(pod("a", "10.42.0.2", version=9))
        await node.enforcer.settle()
        assert machine.flows_now == []


async def test_a_pod_starts_before_old_connections_are_looked_for() -> None:
    machine = Machine(Flow("TCP", "192.0.2.9", 1, "10.42.0.2", 80))
    machine.hold = asyncio.Event()
    async with running(machine) as node:
        node.policy()
        made = pod_of(pod("a", "10.42.0.2"))
        assert made is not None
        assert await node.enforcer.hand(made) == ""
        assert len(machine.flows_now) == 1
        machine.hold.set()
        assert await node.enforcer.settle() == ""
        assert machine.flows_now == []


async def test_a_listing_does_not_undo_what_the_watch_told_later() -> None:
    async with running(Machine()) as node:
        old = policy("p", {"policyTypes": ["Ingress"]}, version=3)
        new = policy("p", {"policyTypes": ["Egress"]}, version=5)
        node.facts.policy(new)
        node.enforcer.put_policies("default", [old])
        found = node.enforcer.compiler.policy("default", "p")
        assert found is not None
        assert found.egress is not None
        node.facts.policy_deleted(old)
        assert node.enforcer.compiler.policy("default", "p") is not None
        node.facts.policy_deleted(policy("p", {}, version=6))
        assert node.enforcer.compiler.empty


async def test_networks_of_this_node_are_closed_once_it_has_them() -> None:
    machine = Machine()
    async with running(machine) as node:
        node.policy()
        await node.enforcer.settle()
        node.facts.node({"metadata": {"name": "n1"}, "spec": {"podCIDR": "10.42.0.0/24"}})
        node.facts.node({"metadata": {"name": "n2"}, "spec": {"podCIDR": "10.42.1.0/24"}})
        await node.enforcer.settle()
    assert "10.42.0.0/24" not in machine.loaded[0]
    assert "10.42.0.0/24" in machine.loaded[1]
    assert "10.42.1.0/24" not in machine.loaded[1]
