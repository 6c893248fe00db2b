"""
A machine that is updated, with everything but the node: real plan, real files, real way back.

The datastore is a file of numbers, each a write that somebody was told is safe. The power can go
before each write to the disk; whoever comes back then finds what the last one left.
"""

import asyncio
import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from node.update import plan, steps
from node.update.base import InstallError, RefusedError
from node.update.place import Moment
from node.update.plan import Facts, Health
from node.update.recover import Alone, conclude
from node.update.request import Request
from node.update.rest import mark_void, needs_one_alone
from node.update.state import Failure, Phase, Records, State
from node.update.steps import Done, Failed, Kept, Outcome, Taken
from tests.conformance.slots import PowerCut
from tests.fakes.slots import FakeMachine, FolderSlots, Power

START_TIME = datetime(2026, 11, 24, 12, tzinfo=UTC)


class CutRecords(Records):
    """The power may go before each file of the records is written."""

    def __init__(self, folder: Path, power: Power) -> None:
        super().__init__(folder)
        self._power = power

    def _write(self, path: Path, content: Any) -> None:
        """Without waiting for the disk: nothing but the test's own power goes here."""
        self._power.spend()
        _put(path, content)

    def save(self, state: State | None) -> None:
        self._power.spend()
        super().save(state)


def _put(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(path.name + ".new")
    staged.write_text(json.dumps(content))
    staged.replace(path)


class NumberStore:
    """Implements :class:`node.update.recover.Store`: a file of numbers, moved as the real one."""

    def __init__(self, folder: Path, power: Power) -> None:
        self._folder = folder
        self._power = power
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "db.json"
        if not self.path.exists():
            _put(self.path, {"writes": [], "schema": 1})

    def read(self, path: Path | None = None) -> dict[str, Any]:
        return dict(json.loads((path or self.path).read_text()))

    def acknowledge(self, number: int) -> None:
        content = self.read()
        _put(self.path, content | {"writes": [*content["writes"], number]})

    def take(self, name: str) -> Taken | None:
        self._power.spend()
        for old in self._folder.glob("snapshot-*"):
            old.unlink()
        self._power.spend()
        _put(self._folder / f"snapshot-{name}", self.read())
        return Taken(name=name, schema=int(self.read()["schema"]))

    def restore(self, name: str, keep_as: str) -> Kept:
        if not name:
            return Kept(count=0, note="no snapshot")
        kept, snapshot = self._folder / f"kept-{keep_as}", self._folder / f"snapshot-{name}"
        if not kept.exists():
            if not snapshot.exists():
                raise FileNotFoundError(snapshot)
            self._power.spend()
            kept.hardlink_to(self.path)
        if snapshot.exists():
            self._power.spend()
            snapshot.replace(self.path)
        self._power.spend()
        lost = set(self.read(kept)["writes"]) - set(self.read()["writes"])
        return Kept(count=len(lost))

    def keep_previous(self, name: str, about: Mapping[str, Any]) -> None:
        self._power.spend()
        (self._folder / f"snapshot-{name}").unlink(missing_ok=True)

    def previous_schema(self, version: str) -> int | None:
        return None

    def drop(self) -> None:
        for old in self._folder.glob("snapshot-*"):
            self._power.spend()
            old.unlink()

    def kept(self) -> set[int]:
        found = self._folder.glob("kept-*")
        return {n for path in found for n in self.read(path)["writes"]}


@dataclass
class World:
    """
    ``bad``: versions that never become healthy; ``dead``: versions whose start ends at once;
    ``dies``: which runs of the one who is alone die before they do anything.
    """

    folder: Path
    bad: frozenset[str] = frozenset()
    dead: frozenset[str] = frozenset()
    dies: frozenset[int] = frozenset()
    lone_runs: int = 0
    request: Request | None = None
    order: str = ""
    uptime: float = 0.0
    time: datetime = START_TIME
    boots: int = 0
    safe: set[int] = field(default_factory=set)  # acknowledged by a version that was no trial
    tried: set[int] = field(default_factory=set)  # acknowledged by a trial
    performed: list[str] = field(default_factory=list)  # what was performed
    healthy_since: float | None = None
    _last: int = 0

    def __post_init__(self) -> None:
        self.machine = FakeMachine(self.folder / "machine")
        self.power = self.machine.power
        self.records = CutRecords(self.folder / "update", self.power)
        self.store = NumberStore(self.folder / "data", self.power)
        self._restarting = False

    def moment(self) -> Moment:
        return Moment(now=self.time, uptime=self.uptime, boot=f"boot {self.boots}")

    def pass_time(self, seconds: float) -> None:
        self.uptime += seconds
        self.time += timedelta(seconds=seconds)

    def run(self, ticks: int) -> None:
        """Power on, and live for so many turns of the agent, restarts included."""
        asyncio.run(self._run(ticks))

    async def _run(self, ticks: int) -> None:
        while ticks > 0:  # 0: it rests as well
            slots = self._boot()
            if str((await slots.running()).version) in self.dead:
                ticks -= 1
                continue  # the watchdog ends it
            while ticks > 0 and not self._restarting:
                ticks -= 1
                if await self._goes_on_alone(slots):
                    ticks = await self._node(slots, ticks)

    async def _goes_on_alone(self, slots: FolderSlots) -> bool:
        """True: the children are started, which they are also when that process has died."""
        self.lone_runs += 1
        if self.lone_runs not in self.dies:
            return await self._alone(slots).run()
        if needs_one_alone(self.records.folder):
            self.power.spend()
            mark_void(self.records.folder, (await slots.running()).name)
        return True

    def _boot(self) -> FolderSlots:
        self.boots += 1
        self.uptime = 5.0
        self.pass_time(5)
        self._restarting = False
        self.healthy_since = None
        self.machine.power_on()

        def restart() -> None:
            self._restarting = True

        return self.machine.attach(restart)

    def _alone(self, slots: FolderSlots) -> Alone:
        return Alone(
            self.records,
            slots,
            self.store,
            moment=self.moment,
            copy=None,
            elsewhere="",
        )

    async def _node(self, slots: FolderSlots, ticks: int) -> int:
        """Until it asks for the end of everything, or rests; how many ticks are left."""
        state = self.records.load()
        while ticks > 0:
            ticks -= 1
            self.pass_time(7)
            await self._acknowledge(slots)
            facts = await self._facts(slots, state)
            decision = plan.decide(facts)
            state = self._save(state, decision.state, facts)
            if isinstance(decision.step, steps.StopNode):
                self.performed.append("StopNode")
                return ticks
            if decision.step == steps.Wait() and (state is None or state.has_ended):
                return 0
            if isinstance(decision.step, steps.Wait | steps.Report | steps.Cancel) or state is None:
                continue
            self.performed.append(type(decision.step).__name__)
            outcome = await self._perform(decision.step, slots, state)
            if self._restarting:
                return ticks
            state = self._save(state, plan.after(state, decision.step, outcome, facts), facts)
        return ticks

    async def _acknowledge(self, slots: FolderSlots) -> None:
        self._last += 1
        self.store.acknowledge(self._last)
        (self.tried if await slots.on_trial() else self.safe).add(self._last)

    async def _facts(self, slots: FolderSlots, state: State | None) -> Facts:
        running = await slots.running()
        is_well = str(running.version) not in self.bad
        if is_well and self.healthy_since is None:
            self.healthy_since = self.uptime
        health = Health(is_ok=is_well, message="bad", since=self.healthy_since or 0.0)
        return Facts(
            state=state,
            request=self.request,
            running=running,
            other=await slots.other(),
            on_trial=await slots.on_trial(),
            now=self.time,
            uptime=self.uptime,
            boot=self.moment().boot,
            failed=self.records.failed(),
            health=health,
            order=self.order,
        )

    def _save(self, before: State | None, state: State | None, facts: Facts) -> State | None:
        if state != before:
            self.records.save(state)
        if state is not None and state.has_ended and (before is None or not before.has_ended):
            conclude(self.records, self.store, state, facts)
        return state

    async def _perform(self, step: steps.AgentStep, slots: FolderSlots, state: State) -> Outcome:
        path = Path(state.request.url)
        try:
            match step:
                case steps.Check():
                    return Done((await slots.check(path)).version)
                case steps.Install():
                    await slots.install(await slots.check(path), lambda _: None)
                case steps.Look():
                    return Done(["Deployment/one"])
                case steps.Commit():
                    await slots.commit()
                case steps.GiveUp() if state.phase is Phase.SWITCHING:
                    await slots.cancel_try()
                case steps.GiveUp():
                    failure = Failure(at="", reason=state.message)
                    self.records.remember_failed(state.request.version, failure)
                    await slots.mark_bad()
                case steps.Restart():
                    await slots.restart()
                case _:
                    pass
            return Done()
        except RefusedError as err:
            return Failed(str(err), err.reason)
        except InstallError as err:
            return Failed(str(err))

    # -- what must hold

    def run_with_cuts(self, cuts: list[int], ticks: int) -> None:
        """The power goes after so many writes, again and again; then it stays."""
        for writes in cuts:
            self.power.left = writes
            with contextlib.suppress(PowerCut):
                self.run(ticks)
        self.power.left = -1
        self.run(3 * ticks)

    def check(self) -> None:
        """Nothing acknowledged is lost, and what is committed can be started."""
        boot = json.loads((self.machine.folder / "boot.json").read_text())
        slot = json.loads((self.machine.folder / boot["primary"] / "slot.json").read_text())
        assert slot["version"], "what is committed is no version"
        assert slot["version"] not in self.bad | self.dead, f"{slot['version']} was committed"
        state = self.records.load()
        assert state is None or state.has_ended, state
        now = set(self.store.read()["writes"])
        assert self.safe <= now, f"lost for good: {sorted(self.safe - now)}"
        gone = self.tried - now - self.store.kept()
        assert not gone, f"writes of a trial that are nowhere: {sorted(gone)}"
