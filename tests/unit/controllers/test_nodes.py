"""Nodes that fall silent, and what becomes of their pods."""

from ipaddress import IPv4Network
from typing import Any

from controlplane.controllers import node_ipam, node_lifecycle, pod_gc, taint_eviction
from controlplane.objects.meta import condition
from controlplane.objects.resources import EVENTS, LEASES, NODES, PODS
from tests.fakes.reads import World
from tests.fakes.running import Running, running


def node(name: str, ready: str = "True", **spec: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "lastHeartbeatTime": "1"}]
    return {"metadata": {"name": name}, "spec": spec, "status": {"conditions": conditions}}


def lease(name: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {"renewTime": "0"},
    }


def pod(name: str, on: str, **spec: Any) -> dict[str, Any]:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    meta = {"name": name, "namespace": "default"}
    return {"metadata": meta, "spec": {"nodeName": on, **spec}, "status": status}


def world_of(*names: str) -> World:
    world = World()
    for name in names:
        world.put(NODES, node(name))
        world.put(LEASES, lease(name))
    return world


def renew(run: Running, name: str, value: str) -> None:
    run.world.change(LEASES, "kube-node-lease", name, spec={"renewTime": value})


def taints(run: Running, name: str) -> set[tuple[str, str]]:
    found = run.world.get(NODES, "", name)
    assert found is not None
    return {(t["key"], t["effect"]) for t in found["spec"].get("taints", ())}


def ready(run: Running, name: str) -> str:
    found = run.world.get(NODES, "", name)
    assert found is not None
    entry = condition(found, "Ready")
    assert entry is not None
    return str(entry["status"])


UNREACHABLE = "node.kubernetes.io/unreachable"


async def test_a_silent_node_becomes_unknown_and_is_tainted() -> None:
    async with running(node_lifecycle.make(), world=world_of("a", "b")) as run:
        run.world.put(PODS, pod("p", "b"))
        for second in range(0, 60, 10):
            renew(run, "a", f"t{second}")
            await run.advance(10)
        assert (ready(run, "a"), ready(run, "b")) == ("True", "Unknown")
        assert taints(run, "b") == {(UNREACHABLE, "NoSchedule"), (UNREACHABLE, "NoExecute")}
        assert taints(run, "a") == set()
        found = run.world.get(PODS, "default", "p")
        assert found is not None
        entry = condition(found, "Ready")
        assert entry is not None
        assert entry["status"] == "False"
        run.world.change(NODES, "", "b", status=node("b")["status"])
        renew(run, "b", "again")
        await run.settle()
        assert taints(run, "b") == set()


async def test_when_no_node_is_well_nobody_is_sent_away() -> None:
    async with running(node_lifecycle.make(), world=world_of("only")) as run:
        await run.advance(60)
        assert ready(run, "only") == "Unknown"
        assert taints(run, "only") == {(UNREACHABLE, "NoSchedule")}
        assert run.clock.timers == 0


async def test_a_healthy_node_costs_one_short_pass_a_renewal() -> None:
    async with running(node_lifecycle.make(), world=world_of("a")) as run:
        run.world.writes.clear()
        before = run.loop.counters["node-controller"].passes
        for second in range(5):
            renew(run, "a", f"t{second}")
            await run.advance(10)
        assert run.loop.counters["node-controller"].passes - before == 5
        assert run.world.writes == []


async def test_pressure_and_cordons_are_taints() -> None:
    async with running(node_lifecycle.make(), world=world_of("a")) as run:
        conditions = [
            {"type": "Ready", "status": "True"},
            {"type": "DiskPressure", "status": "True"},
        ]
        run.world.change(NODES, "", "a", status={"conditions": conditions})
        run.world.change(NODES, "", "a", spec={"unschedulable": True})
        await run.settle()
        assert taints(run, "a") == {
            ("node.kubernetes.io/disk-pressure", "NoSchedule"),
            ("node.kubernetes.io/unschedulable", "NoSchedule"),
        }


TAINT = {"key": "k", "value": "v", "effect": "NoExecute"}


async def test_pods_leave_a_tainted_node_when_their_patience_ends() -> None:
    world = world_of("a")
    for name, tolerations in {
        "none": [],
        "short": [{"key": "k", "operator": "Exists", "tolerationSeconds": 30}],
        "ever": [{"key": "k", "operator": "Exists"}],
    }.items():
        world.put(PODS, pod(name, "a", tolerations=tolerations))
    async with running(taint_eviction.make(), world=world) as run:

        def leaving() -> set[str]:
            found = [p for p in world.list(PODS) if p["metadata"].get("deletionTimestamp")]
            return {p["metadata"]["name"] for p in found}

        world.change(NODES, "", "a", spec={"taints": [TAINT]})
        await run.settle()
        assert leaving() == {"none"}
        await run.advance(29)
        assert leaving() == {"none"}
        await run.advance(1)
        assert leaving() == {"none", "short"}
        assert run.clock.timers == 0


async def test_a_taint_that_goes_in_time_is_forgiven() -> None:
    world = world_of("a")
    tolerations = [{"key": "k", "operator": "Exists", "tolerationSeconds": 30}]
    world.put(PODS, pod("p", "a", tolerations=tolerations))
    async with running(taint_eviction.make(), world=world) as run:
        world.change(NODES, "", "a", spec={"taints": [TAINT]})
        await run.settle()
        await run.advance(20)
        world.change(NODES, "", "a", spec={"taints": []})
        await run.settle()
        await run.advance(60)
        (found,) = world.list(PODS)
        assert not found["metadata"].get("deletionTimestamp")
        text = "Cancelling deletion of Pod default/p"
        assert text in [e["message"] for e in world.list(EVENTS)]


async def test_pods_of_a_node_that_is_gone_go_after_a_while() -> None:
    world = world_of("a")
    world.put(PODS, pod("p", "a"))
    async with running(pod_gc.make(), world=world) as run:
        world.remove(NODES, "", "a")
        await run.settle()
        await run.advance(39)
        assert len(world.list(PODS)) == 1
        await run.advance(1)
        assert world.list(PODS) == []


async def test_each_node_gets_its_own_part_of_the_network() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.put(NODES, node(name))
    async with running(node_ipam.make(IPv4Network("10.42.0.0/23")), world=world) as run:

        def networks() -> list[str]:
            return [n["spec"].get("podCIDR", "") for n in world.list(NODES)]

        assert sorted(networks()) == ["", "10.42.0.0/24", "10.42.1.0/24"]
        assert "CIDRNotAvailable" in [e["reason"] for e in world.list(EVENTS)]
        taken = [n["metadata"]["name"] for n in world.list(NODES) if n["spec"].get("podCIDR")]
        world.remove(NODES, "", taken[0])
        await run.advance(10)
        (late,) = [n["metadata"]["name"] for n in world.list(NODES) if not n["spec"].get("podCIDR")]
        world.change(NODES, "", late, metadata={"labels": {"x": "y"}})
        await run.settle()
        assert "" not in networks()
