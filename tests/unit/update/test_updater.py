"""The updater of the agent: what it hears, what it does, and what it tells; on slots in folders."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from controlplane.client.base import Object
from controlplane.objects.errors import StatusError
from controlplane.objects.resources import NODES
from node.config import Config, from_settings
from node.flags import defaults
from node.settings import UsageError
from node.update import command, place
from node.update.place import Moment
from node.update.recover import Alone
from node.update.request import REPORT, REQUEST
from node.update.rest import UNTOLD
from node.update.snapshot import Datastore
from node.update.state import Failure, Phase, Records
from node.update.watch import Surroundings, UpdateWatch
from tests.fakes.reads import World, WorldClient
from tests.fakes.slots import FakeMachine

V1, V2 = "v1.36.3+pinnace1", "v1.36.4+pinnace1"
NOW = datetime(2026, 11, 24, 14, tzinfo=UTC)


class Api(WorldClient):
    async def text(self, path: str) -> str:
        return "ok"


@dataclass
class Agent:
    """What a node has of updates, and what it said."""

    folder: Path
    machine: FakeMachine
    world: World
    handed_over: asyncio.Event = field(default_factory=asyncio.Event)
    events: list[tuple[str, str, str]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def records(self) -> Records:
        return Records(self.folder / "data" / "update")

    @property
    def config(self) -> Config:
        told = {"data-dir": str(self.folder / "data"), "run-dir": str(self.folder / "run")}
        more = {"role": "server", "node-name": "pi", "node-ip": ("10.0.0.1",)}
        return from_settings(defaults() | told | more)

    def record(self, _: Object, kind: str, reason: str, message: str) -> None:
        self.events.append((kind, reason, message))

    def request(self, **fields: Any) -> None:
        content = {"plan": "fleet", "uid": "u", "version": V2, "stage": "switch"} | fields
        self.annotate(REQUEST, json.dumps(content))

    def annotate(self, name: str, text: str | None) -> None:
        self.world.change(NODES, "", "pi", metadata={"annotations": {name: text}})

    @property
    def report(self) -> dict[str, Any]:
        node = self.world.get(NODES, "", "pi")
        assert node is not None
        text = node["metadata"].get("annotations", {}).get(REPORT, "{}")
        return dict(json.loads(text))

    async def says(self, phase: str) -> dict[str, Any]:
        """The report, once it says so."""
        async with asyncio.timeout(30):
            while self.report.get("phase") != phase:
                self.changed.clear()
                await self.changed.wait()
        return self.report

    @asynccontextmanager
    async def running(self) -> AsyncIterator[UpdateWatch]:
        """The part of the agent that is there at idle, and what it loads."""
        around = Surroundings(
            config=self.config,
            client=cast(Any, Api(self.world)),
            cache=cast(Any, self.world),
            record=self.record,
            now=lambda: NOW,
            hand_over=self.handed_over.set,
        )
        watch = UpdateWatch(around)
        unsubscribe = self.world.subscribe([NODES], lambda _: self.changed.set())
        task = asyncio.ensure_future(watch.run())
        try:
            for _ in range(1000):  # until it listens
                if (self.folder / "run" / "update.sock").exists():
                    break
                await asyncio.sleep(0.01)
            yield watch
        finally:
            task.cancel()
            await asyncio.wait({task})
            unsubscribe()

    async def switch(self) -> bool:
        """What the daemon does when it goes on alone."""
        slots = self.machine.attach()
        store = Datastore(self.folder / "data")
        alone = Alone(self.records, slots, store, moment=place.moment, copy=None, elsewhere="")
        return await alone.run()


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    (tmp_path / "run").mkdir()
    machine = FakeMachine(tmp_path / "machine")
    machine.power_on()
    monkeypatch.setattr(place, "slots", machine.attach)
    real = place.moment

    def moment() -> Moment:
        return replace(real(), boot=f"boot {machine.boot()}")

    monkeypatch.setattr(place, "moment", moment)
    world = World()
    world.put(NODES, {"metadata": {"name": "pi"}, "spec": {}, "status": {}})
    return Agent(tmp_path, machine, world)


async def test_a_request_is_installed_and_then_everything_is_asked_to_end(agent: Agent) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)), stage="install")
        report = await agent.says("Installed")
        assert (report["uid"], report["attempt"], report["running"]) == ("u", 1, V1)
        assert list(report["times"]) == ["Downloading", "Installing", "Installed"]
        assert not agent.handed_over.is_set()
        agent.request(url=str(agent.machine.bundle(V2)), stage="switch")
        await agent.says("Switching")
        async with asyncio.timeout(20):
            await agent.handed_over.wait()
    assert not await agent.switch()  # it restarts
    state = agent.records.load()
    assert state is not None
    assert state.phase is Phase.SWITCHING
    assert [reason for _, reason, _ in agent.events][-2:] == ["UpdateInstalled", "UpdateSwitching"]


async def test_a_version_that_was_left_is_told_once_with_a_warning(agent: Agent) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)))
        async with asyncio.timeout(20):
            await agent.handed_over.wait()
    assert not await agent.switch()
    agent.machine.power_on()  # the trial, which never says anything
    agent.machine.power_on()
    assert await agent.switch()
    agent.events.clear()
    async with agent.running():
        report = await agent.says("RolledBack")
        for _ in range(1000):
            if not (agent.records.folder / UNTOLD).exists():
                break
            await asyncio.sleep(0.01)
    assert report["failed"] == [V2]
    [(kind, reason, message)] = agent.events
    assert (kind, reason) == ("Warning", "UpdateRolledBack")
    assert "did not come up" in message
    async with agent.running() as watch:
        await asyncio.sleep(0)
        assert watch._updater is None  # nothing was loaded for it again
    assert len(agent.events) == 1


async def test_what_failed_before_is_refused_and_said(agent: Agent) -> None:
    agent.records.remember_failed(V2, Failure(at="2026-11-23T00:00:00Z", reason="no node"))
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)))
        report = await agent.says("Refused")
        assert report["reason"] == "FailedBefore"
        agent.request(
            url=str(agent.machine.bundle(V2)), attempt=2, retryFailed=True, stage="install"
        )
        await agent.says("Installed")


@pytest.mark.parametrize(
    ("text", "uid"),
    [("{not json", ""), ('{"plan": "p", "uid": "u-9", "version": "latest"}', "u-9")],
)
async def test_a_request_that_makes_no_sense_is_answered(agent: Agent, text: str, uid: str) -> None:
    async with agent.running():
        agent.annotate(REQUEST, text)
        report = await agent.says("Refused")
        assert (report["reason"], report["uid"]) == ("InvalidRequest", uid)
        agent.request(url=str(agent.machine.bundle(V2)), stage="install")
        await agent.says("Installed")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"key": "stranger"}, "BadSignature"),
        ({"board": "another"}, "WrongBoard"),
        ({"damage": "tampered"}, "Tampered"),
        ({"damage": "truncated"}, "Truncated"),
        ({"damage": "garbage"}, "NotABundle"),
    ],
)
async def test_a_bundle_that_is_not_good_is_refused(
    agent: Agent, given: dict[str, str], reason: str
) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2, **given)))
        report = await agent.says("Refused")
    assert report["reason"] == reason
    assert agent.machine.version() == V1
    assert not agent.handed_over.is_set()


async def test_a_request_that_is_taken_back_is_cancelled(agent: Agent) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)), stage="install")
        await agent.says("Installed")
        agent.annotate(REQUEST, None)
        async with asyncio.timeout(20):
            while agent.report:
                agent.changed.clear()
                await agent.changed.wait()
    assert agent.records.load() is None


async def test_without_slots_a_request_is_refused(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "slots", lambda: None)
    async with agent.running():
        agent.request(url="/x")
        assert (await agent.says("Refused"))["reason"] == "NoSlots"


async def test_a_report_that_cannot_be_written_is_written_later(agent: Agent) -> None:
    refused = 0

    def refuse(*_: object) -> None:
        nonlocal refused
        refused += 1
        if refused < 3:
            raise StatusError(503, "", "not now")

    agent.world.refuse = refuse
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)), stage="install")
        await agent.says("Installed")
    assert refused >= 3


async def test_a_disk_that_cannot_be_written_is_an_end_that_is_told(
    agent: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "state.json")

    monkeypatch.setattr(Records, "save", full)
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)))
        report = await agent.says("Failed")
    assert report["message"] == "state.json: No space left on device"
    assert agent.machine.version() == V1


async def test_reports_are_few(agent: Agent) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V2)), stage="install")
        await agent.says("Installed")
    assert len(agent.world.writes) <= 4


async def test_at_idle_nothing_is_loaded(agent: Agent) -> None:
    async with agent.running() as watch:
        agent.world.change(NODES, "", "pi", metadata={"labels": {"a": "b"}})
        await asyncio.sleep(0)
        assert watch._updater is None
    assert not agent.records.folder.exists()


# -- a person


async def ask(agent: Agent, *words: str) -> list[str]:
    """What ``pinnace update`` says, from a thread as from another process."""
    given, _ = command.parse(words)
    told = {"data-dir": str(agent.folder / "data"), "run-dir": str(agent.folder / "run")}
    said: list[str] = []
    await asyncio.to_thread(command.run, given, told, said.append)
    return said


async def test_a_person_installs_and_switches(agent: Agent) -> None:
    path = str(agent.machine.bundle(V2))
    async with agent.running():
        said = await ask(agent, "install", path)
        assert said[-1] == f"{V2}: Installed"
        status = await ask(agent, "status")
        assert f"running: {V1} in slot a (fake)" in status
        assert f"other:   {V2} in slot b" in status
        with pytest.raises(UsageError, match="another update is on its way"):
            await ask(agent, "install", str(agent.machine.bundle("v1.36.9+pinnace1")))
        said = await ask(agent, "install", path, "--now")
        assert said[-1] == f"{V2}: Switching"
        async with asyncio.timeout(20):
            await agent.handed_over.wait()


async def test_a_person_takes_back_what_was_installed(agent: Agent) -> None:
    async with agent.running():
        await ask(agent, "install", str(agent.machine.bundle(V2)))
        assert await ask(agent, "back") == ["update: Cancelled"]
    assert agent.records.load() is None


async def test_a_person_is_told_why_not(agent: Agent) -> None:
    async with agent.running():
        with pytest.raises(UsageError, match="signed by a stranger"):
            await ask(agent, "install", str(agent.machine.bundle(V2, key="stranger")))
        with pytest.raises(UsageError, match="runs already"):
            await ask(agent, "install", str(agent.machine.bundle(V1)))
        with pytest.raises(UsageError, match="nothing is being updated"):
            await ask(agent, "commit")
        with pytest.raises(UsageError, match="nothing that can be started"):
            await ask(agent, "back")
        with pytest.raises(UsageError, match="there is no bundle at"):
            await ask(agent, "install", "/nowhere")


async def test_a_person_does_the_same_while_the_node_is_down(agent: Agent) -> None:
    path = str(agent.machine.bundle(V2))
    said = await ask(agent, "install", path)
    assert said[-1] == f"{V2} is installed; --now tries it"
    said = await ask(agent, "install", path, "--now")
    assert said[-1] == f"{V2} is tried with the next start of pinnace"
    assert not await agent.switch()
    agent.machine.power_on()
    assert await agent.switch()
    assert (await ask(agent, "commit")) == [f"{V2} is committed"]
    agent.machine.power_on()
    assert agent.machine.version() == V2
    assert (await ask(agent, "back")) == ["the other slot is tried with the next start of pinnace"]
    assert not await agent.switch()
    agent.machine.power_on()
    assert agent.machine.version() == V1


async def test_a_person_leaves_a_trial_while_the_node_is_down(agent: Agent) -> None:
    await ask(agent, "install", str(agent.machine.bundle(V2)), "--now")
    assert not await agent.switch()
    agent.machine.power_on()
    assert await agent.switch()
    await ask(agent, "back")
    assert not await agent.switch()
    agent.machine.power_on()
    assert await agent.switch()
    assert agent.machine.version() == V1
    assert [line.partition(" ")[0] for line in await ask(agent, "failed")] == [V2]
    await ask(agent, "failed", f"--forget={V2}")
    assert await ask(agent, "failed") == []


async def test_a_plans_answer_outlives_what_a_person_does(agent: Agent) -> None:
    async with agent.running():
        agent.request(url=str(agent.machine.bundle(V1)), version=V1)
        assert (await agent.says("Refused"))["reason"] == "SameVersion"
        await ask(agent, "install", str(agent.machine.bundle(V2)))
        assert (agent.report["uid"], agent.report["phase"]) == ("u", "Refused")


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("upgrade",),
        ("install",),
        ("install", "a", "b"),
        ("status", "x"),
        ("install", "a", "--soak"),
        ("kept", "a", "b"),
    ],
)
def test_what_cannot_be_understood_is_one_line(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as caught:
        command.parse(words)
    assert "\n" not in str(caught.value)


def test_other_flags_are_left_for_the_settings() -> None:
    given, rest = command.parse(["install", "x", "--now", "--data-dir=/d", "--soak", "5"])
    assert rest == ["--data-dir=/d"]
    assert (given.name, given.options) == ("x", {"now": "", "soak": "5"})
