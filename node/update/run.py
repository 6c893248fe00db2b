"""
The updater of the agent: joins what is asked, what is planned, and what does it.

It is made by :mod:`node.update.watch` when there is something to update, works until nothing is
left to do, and is asked again when something changes.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from controlplane.client.base import Client
from controlplane.client.cache import Cache
from controlplane.client.http import from_kubeconfig
from controlplane.objects.resources import NODES
from node.update import place, plan, steps
from node.update import request as requests
from node.update.apply import Performer
from node.update.base import Slots
from node.update.download import Downloads
from node.update.gate import OURS, Gate, Scope, healthy_now, wanted
from node.update.plan import Facts, Health
from node.update.recover import conclude
from node.update.report import Reporter, complaint, report
from node.update.request import Request
from node.update.rest import UNTOLD
from node.update.snapshot import Datastore
from node.update.state import Failure, Phase, Records, State, stamp
from node.update.steps import AgentStep, Outcome
from node.update.watch import Surroundings

LOG = logging.getLogger(__name__)
_TELL_WITHIN = 10.0  # seconds for the last word before everything ends
_PAUSE = 5.0  # after a step that did not work and is to be tried again
_CANCELLED = (Phase.DOWNLOADING, Phase.INSTALLING, Phase.INSTALLED)  # when it is taken back
_BROAD = "operators.kubeconfig"  # may read all of kube-system; on servers
NO_SLOTS = "this machine has no slots: it was made neither from our image nor from our package"


class Updater:
    """Its mutable state: what a person has asked for here, the percent, and the gate."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self.records = Records(around.folder)
        self._store = Datastore(around.config.data_dir)
        self._downloads = Downloads(around.folder)
        self._reporter = Reporter(around.client, around.config.node_name, around.record)
        self._gate: Gate | None = None
        self._percent = 0
        self.asked: Request | None = None  # by a person, and not begun yet
        self.order = ""  # "commit" | "back": of a person, about the trial that runs
        self.listeners: list[Callable[[State | None, int], None]] = []
        self._complaint: dict[str, Any] | None = None  # of a request that makes no sense
        self._state: State | None = None  # as last told, with what was known
        self._seen: Facts | None = None

    async def run(self) -> None:
        """Until there is nothing to do but to wait for a request."""
        around = self._around
        self._reporter.begin(around.cache.get(NODES, "", around.config.node_name))
        slots = await asyncio.to_thread(place.slots)
        async with asyncio.TaskGroup() as tasks:
            telling = tasks.create_task(self._reporter.run())
            try:
                if slots is None:
                    self._refuse(Phase.REFUSED, "NoSlots", NO_SLOTS)
                elif not await self._worked(slots):
                    return  # all of this process ends
                if await self._reporter.said(None, unless=around.stirred):
                    await asyncio.to_thread((around.folder / UNTOLD).unlink, missing_ok=True)
            finally:
                telling.cancel()

    def _refuse(self, phase: Phase, reason: str, message: str) -> None:
        """An end that is told, and written down nowhere."""
        request, self.asked = self._wanted(None), None
        if request is not None:
            self._tell(State(request=request, phase=phase, reason=reason, message=message), None)

    async def _worked(self, slots: Slots) -> bool:
        """As :meth:`_work`; a disk that is full or can only be read is an end as well."""
        try:
            return await self._work(slots)
        except OSError as err:
            LOG.warning("%s", err)
            self._refuse(Phase.FAILED, "", f"{err.filename or self.records.folder}: {err.strerror}")
            return True

    async def _work(self, slots: Slots) -> bool:
        """False: everything was asked to end."""
        state = await asyncio.to_thread(self.records.load)
        async with self._watched(slots, state):
            while True:
                self._around.stirred.clear()
                facts = await self._facts(slots, state)
                decision = plan.decide(facts)
                state = await self._save(state, decision.state, facts)
                if state is None and self._complaint is not None:
                    self._tell(State(request=Request(version=""), phase=Phase.REFUSED), facts)
                match decision.step:
                    case steps.Wait(until):
                        is_idle = state is None or (state.has_ended and until is None)
                        if is_idle and not self._around.stirred.is_set():
                            return True
                        await self._wait(until, facts)
                    case steps.StopNode():
                        await self._reporter.said(_TELL_WITHIN)
                        self._around.hand_over()
                        return False
                    case steps.Report():
                        pass
                    case _:
                        state = await self._perform(decision.step, slots, state, facts)

    async def _wait(self, until: float | None, facts: Facts) -> None:
        """For a change, or for a moment that the plan named."""
        seconds = None if until is None else max(0.0, until - facts.uptime)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._around.stirred.wait(), seconds)

    async def _perform(
        self, step: AgentStep, slots: Slots, state: State | None, facts: Facts
    ) -> State | None:
        performer = Performer(
            slots,
            self._downloads,
            look=self._look,
            judge=self._judge,
            progress=self._on_loop(),
            remember=self._remember,
        )
        if isinstance(step, steps.Cancel) or state is None:
            self.asked, self.order = None, ""
            if self._state is not None and self._state.request.plan:
                self._reporter.say(None)
            self._inform(None)
            await asyncio.to_thread(self._downloads.drop)
            return state
        self._percent = 0
        work = performer.perform(step, state, by_hand=self.order == "commit")
        outcome = await self._unless_cancelled(work, state)
        self.order = "" if isinstance(step, steps.Commit) else self.order
        if outcome is None:
            return state
        after = plan.after(state, step, outcome, replace(facts, now=self._around.now()))
        if isinstance(outcome, steps.Failed):
            LOG.warning("%s: %s", type(step).__name__, outcome.message)
            if not after.has_ended:
                await asyncio.sleep(_PAUSE)
        return await self._save(state, after, facts)

    def _remember(self, state: State) -> None:
        failure = Failure(at=stamp(self._around.now()), reason=state.message)
        self.records.remember_failed(state.request.version, failure)

    async def _unless_cancelled(self, work: Awaitable[Outcome], state: State) -> Outcome | None:
        """None: the request was taken back meanwhile, and what it was about was ended."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                stirred = asyncio.ensure_future(self._around.stirred.wait())
                await asyncio.wait({task, stirred}, return_when=asyncio.FIRST_COMPLETED)
                stirred.cancel()
                self._around.stirred.clear()
                if state.phase in _CANCELLED and self._is_taken_back(state):
                    return None
            return task.result()
        finally:
            if not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    def _is_taken_back(self, state: State) -> bool:
        request = self._wanted(state)
        return self.order == "back" or request is None or request.key != state.request.key

    # -- what is known

    async def _facts(self, slots: Slots, state: State | None) -> Facts:
        moment = await asyncio.to_thread(place.moment)
        return Facts(
            state=state,
            request=self._wanted(state),
            running=await slots.running(),
            other=await slots.other(),
            on_trial=await slots.on_trial(),
            now=self._around.now(),
            uptime=moment.uptime,
            boot=moment.boot,
            failed=await asyncio.to_thread(self.records.failed),
            health=self._gate.health if self._gate is not None else None,
            order=self.order,
            elsewhere=self._around.config.datastore,
        )

    def _wanted(self, state: State | None) -> Request | None:
        is_active = state is not None and not state.has_ended
        if state is not None and is_active and not state.request.plan:
            return self._by_person(state)
        if self.asked is not None and not is_active:
            return self.asked
        return self._by_plan()

    def _by_person(self, state: State) -> Request:
        """Nobody takes it back but by an order; a plan goes before one that only waits."""
        if state.phase is not Phase.INSTALLED:
            return state.request
        if self.asked is not None and self.asked.stage == "switch":
            return replace(state.request, stage="switch")
        return self._by_plan() or state.request

    def _by_plan(self) -> Request | None:
        self._complaint = None
        if not self._around.request:
            return None
        try:
            request = requests.parse(self._around.request)
        except ValueError as err:
            LOG.warning("%s", err)
            self._complaint = complaint(self._around.request, str(err))
            return None
        return None if self._reporter.has_answered(request) else request

    async def _look(self) -> Sequence[str]:
        async with self._broad() as client:
            return await healthy_now(client) if client is not None else ()

    async def _judge(self) -> Health:
        return await self._gate.judge() if self._gate is not None else Health(is_ok=True)

    @contextlib.asynccontextmanager
    async def _broad(self) -> AsyncIterator[Client | None]:
        path = self._around.config.agent_dir / _BROAD
        if not self._around.config.is_server or not await asyncio.to_thread(path.exists):
            yield None
            return
        client = await asyncio.to_thread(from_kubeconfig, path, agent="pinnace-update")
        async with client:
            yield client

    @contextlib.asynccontextmanager
    async def _watched(self, slots: Slots, state: State | None) -> AsyncIterator[None]:
        """With the gate that a trial is judged by, where there is a trial."""
        if not await slots.on_trial():
            yield
            return
        around, config = self._around, self._around.config
        healthy = state.healthy if state is not None else ()
        async with self._broad() as client, asyncio.TaskGroup() as tasks:
            broad = Cache(client, [(r, OURS) for r in wanted(healthy)]) if client else None
            scope = Scope(
                node_name=config.node_name,
                healthy=healthy,
                parent=os.getppid(),
                policy_socket=config.run_dir / "policy.sock" if config.network_policy else None,
            )
            self._gate = Gate(
                scope,
                own=(around.cache, around.cache),
                batteries=(broad, broad) if broad is not None else None,
                readyz=lambda: around.client.text("/readyz"),
                uptime=lambda: place.moment().uptime,
                changed=around.stirred.set,
            )
            work = [tasks.create_task(self._gate.run())]
            if broad is not None:
                work.append(tasks.create_task(broad.run()))
            try:
                yield
            finally:
                for task in work:
                    task.cancel()
                self._gate = None

    # -- what is said

    async def _save(self, before: State | None, state: State | None, facts: Facts) -> State | None:
        if state != before:
            await asyncio.to_thread(self.records.save, state)
        if state is not None and state.has_ended and (before is None or not before.has_ended):
            LOG.warning("update to %s: %s %s", state.request.version, state.phase, state.message)
            await asyncio.to_thread(conclude, self.records, self._store, state, facts)
        if state is not None:
            if self.asked is not None and self.asked.uid == state.request.uid:
                self.asked = None  # it was begun
            self._percent = (
                0 if before is None or before.phase is not state.phase else self._percent
            )
            self._tell(state, facts)
        return state

    def _tell(self, state: State, facts: Facts | None) -> None:
        self._state, self._seen = state, facts
        made = report(state, facts, percent=self._percent)
        # What cannot be understood is nobody's request, and waits for no end of another one.
        self._reporter.say(made if self._complaint is None else made | self._complaint)
        self._inform(state)

    def _inform(self, state: State | None) -> None:
        for listen in list(self.listeners):
            listen(state, self._percent)

    def _on_loop(self) -> Callable[[int], None]:
        """Slots may tell it from a thread of theirs."""
        loop = asyncio.get_running_loop()

        def told(percent: int) -> None:
            loop.call_soon_threadsafe(self._progressed, percent)

        return told

    def _progressed(self, percent: int) -> None:
        if percent != self._percent and self._state is not None:
            self._percent = percent
            self._tell(self._state, self._seen)

    async def answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, begin: Callable[[], None]
    ) -> None:
        """One question of a person, see :mod:`node.update.orders`."""
        from node.update import orders

        await orders.answer(self, reader, writer, begin)
