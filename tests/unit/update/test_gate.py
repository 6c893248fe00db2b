"""A trial is healthy when the node, its API, its operators and what was healthy before are."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.base import Unreachable
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import DAEMON_SETS, DEPLOYMENTS, NODES
from node.update.gate import KINDS, Gate, Scope, healthy_now, wanted, what_misses
from tests.fakes.reads import World, WorldClient

READY = {"conditions": [{"type": "Ready", "status": "True"}]}
CHARTS, ADDONS = KINDS["HelmChart"], KINDS["Addon"]
BEFORE = ("Deployment/traefik", "DaemonSet/agent", "HelmChart/hello", "Addon/runtimes")


def body(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "kube-system"}} | more


@pytest.fixture
def world() -> World:
    made = World()
    made.put(NODES, {"metadata": {"name": "pi"}, "spec": {}, "status": READY})
    deployed = {"observedGeneration": 1, "availableReplicas": 1}
    made.put(DEPLOYMENTS, body("traefik", spec={"replicas": 1}, status=deployed))
    running = {"observedGeneration": 1, "numberAvailable": 1, "desiredNumberScheduled": 1}
    made.put(DAEMON_SETS, body("agent", spec={}, status=running))
    made.put(CHARTS, body("hello", spec={}, status=READY))
    made.put(ADDONS, body("runtimes", spec={"checksum": "abc"}))
    return made


@pytest.fixture
def operators(tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A child of this process that the kernel knows by the operators' name."""
    program = tmp_path / "pinnace-operato"
    shutil.copy(shutil.which("sleep") or "/bin/sleep", program)
    with subprocess.Popen([str(program), "600"]) as process:
        yield process
        process.kill()


class Asked:
    """The API server's /readyz, and the uptime."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.uptime = 100.0
        self.changed = asyncio.Event()

    async def readyz(self) -> str:
        if self.error is not None:
            raise self.error
        return "ok"


@asynccontextmanager
async def judging(
    world: World, *, policy_socket: Path | None = None, healthy: tuple[str, ...] = BEFORE
) -> AsyncIterator[tuple[Gate, Asked]]:
    asked = Asked()
    scope = Scope(node_name="pi", healthy=healthy, parent=os.getpid(), policy_socket=policy_socket)
    gate = Gate(
        scope,
        own=(world, world),
        batteries=(world, world),
        readyz=asked.readyz,
        uptime=lambda: asked.uptime,
        changed=asked.changed.set,
    )
    task = asyncio.ensure_future(gate.run())
    try:
        yield gate, asked
    finally:
        task.cancel()
        await asyncio.wait({task})


async def becomes(gate: Gate, asked: Asked, *, ok: bool) -> str:
    """What misses, once it is so."""
    async with asyncio.timeout(20):
        while gate.health.is_ok != ok:
            asked.changed.clear()
            await asked.changed.wait()
    return gate.health.message


@pytest.mark.usefixtures("operators")
async def test_a_healthy_trial_is_healthy_since_it_was_so(world: World) -> None:
    async with judging(world) as (gate, asked):
        await becomes(gate, asked, ok=True)
        assert gate.health.since == 100.0
        asked.uptime = 130.0
        world.change(DEPLOYMENTS, "kube-system", "traefik", metadata={"labels": {"a": "b"}})
        assert (await gate.judge()).since == 100.0


@pytest.mark.parametrize(
    ("kind", "name", "fields", "message"),
    [
        ("Deployment", "traefik", {"status": {"availableReplicas": 0}}, "has 0 of 1 replicas"),
        ("Deployment", "traefik", {"spec": {"replicas": 2}}, "has not been looked at"),
        ("DaemonSet", "agent", {"status": {"numberAvailable": 0}}, "has 0 of 1 pods"),
        (
            "HelmChart",
            "hello",
            {"status": {"conditions": [{"type": "Ready", "status": "False", "message": "no"}]}},
            "is not ready: no",
        ),
        ("Addon", "runtimes", {"spec": {"checksum": None}}, "has not been applied"),
    ],
)
@pytest.mark.usefixtures("operators")
async def test_what_was_healthy_before_must_be_so_again_and_without_interruption(
    world: World, kind: str, name: str, *, fields: dict[str, Any], message: str
) -> None:
    async with judging(world) as (gate, asked):
        await becomes(gate, asked, ok=True)
        before = world.get(KINDS[kind], "kube-system", name)
        world.change(KINDS[kind], "kube-system", name, **fields)
        assert await becomes(gate, asked, ok=False) == f"{kind} kube-system/{name} {message}"
        asked.uptime = 150.0
        assert before is not None
        world.put(KINDS[kind], before)
        await becomes(gate, asked, ok=True)
        assert gate.health.since == 150.0


@pytest.mark.usefixtures("operators")
async def test_what_was_not_healthy_before_holds_nothing_up(world: World) -> None:
    world.change(DEPLOYMENTS, "kube-system", "traefik", status={"availableReplicas": 0})
    async with judging(world, healthy=BEFORE[1:]) as (gate, asked):
        await becomes(gate, asked, ok=True)


@pytest.mark.usefixtures("operators")
async def test_a_battery_that_is_gone_is_missed(world: World) -> None:
    world.remove(DEPLOYMENTS, "kube-system", "traefik")
    async with judging(world) as (gate, asked):
        await asked.changed.wait()
        assert gate.health.message == "Deployment kube-system/traefik is gone"


@pytest.mark.usefixtures("operators")
async def test_on_a_cordoned_node_deployments_prove_nothing(world: World) -> None:
    world.change(NODES, "", "pi", spec={"unschedulable": True})
    world.change(DEPLOYMENTS, "kube-system", "traefik", status={"availableReplicas": 0})
    async with judging(world) as (gate, asked):
        await becomes(gate, asked, ok=True)


@pytest.mark.usefixtures("operators")
async def test_the_node_must_be_ready(world: World) -> None:
    world.change(NODES, "", "pi", status={"conditions": [{"type": "Ready", "status": "False"}]})
    async with judging(world) as (gate, asked):
        await asked.changed.wait()
        assert gate.health.message == "node pi is not Ready"
        world.change(NODES, "", "pi", status=READY)
        await becomes(gate, asked, ok=True)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (Unreachable("GET /readyz: refused"), "does not answer: GET /readyz: refused"),
        (StatusError(500, "", "etcd failed"), "is not ready: etcd failed"),
    ],
)
@pytest.mark.usefixtures("operators")
async def test_the_api_server_must_be_ready(world: World, error: Exception, message: str) -> None:
    async with judging(world) as (gate, asked):
        await becomes(gate, asked, ok=True)
        asked.error = error
        assert (await gate.judge()).message == f"the API server {message}"


async def test_without_operators_it_is_not_healthy(world: World) -> None:
    async with judging(world) as (gate, asked):
        await asked.changed.wait()
        assert gate.health.message == "the operators do not run"


async def test_a_process_that_ends_is_an_interruption(
    world: World, operators: "subprocess.Popen[bytes]"
) -> None:
    async with judging(world) as (gate, asked):
        await becomes(gate, asked, ok=True)
        operators.kill()
        assert await becomes(gate, asked, ok=False) == "the operators do not run"


@pytest.mark.usefixtures("operators")
async def test_the_operators_must_answer(world: World, tmp_path: Path) -> None:
    path = tmp_path / "policy.sock"
    async with judging(world, policy_socket=path) as (gate, asked):
        await asked.changed.wait()
        assert gate.health.message.startswith("the operators do not answer")

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(b'{"reason": "no such pod"}\n')
            await writer.drain()
            writer.close()

        server = await asyncio.start_unix_server(answer, path=str(path))
        async with server:
            await becomes(gate, asked, ok=True)


async def test_what_is_healthy_now_is_listed_by_kind_and_name(world: World) -> None:
    world.put(DEPLOYMENTS, body("broken", spec={"replicas": 1}, status={"observedGeneration": 1}))
    world.put(DEPLOYMENTS, {"metadata": {"name": "user's", "namespace": "default"}, "spec": {}})
    assert sorted(await healthy_now(WorldClient(world))) == sorted(BEFORE)


def test_only_kinds_that_were_healthy_are_followed() -> None:
    assert wanted(["Deployment/a", "Deployment/b", "Later/c"]) == [DEPLOYMENTS]


def test_a_chart_without_conditions_is_not_ready() -> None:
    assert what_misses("HelmChart", body("x")) == "is not ready"
