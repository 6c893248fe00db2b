"""
What is done about an update while no child of the daemon runs: the switch, and the way back.

The daemon calls :func:`main` in a process of its own where there is a state file: before it forks
its children, and again when the agent has asked for the switch and all of them have ended. It goes
on from wherever the last one was interrupted, and ends when the children may be started or the
machine starts anew. Nothing here may keep a node from starting.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from node.config import datastore
from node.host.files import write_atomic
from node.update import place, plan, steps
from node.update.base import InstallError, RefusedError, Slots
from node.update.place import Moment
from node.update.plan import Facts
from node.update.rest import UNTOLD, VOID
from node.update.snapshot import Datastore, file_name
from node.update.state import ENDS, Failure, Phase, Records, State, stamp
from node.update.steps import Done, Failed, Kept, LoneStep, Outcome, Taken

LOG = logging.getLogger(__name__)
# Exit codes: the children may be started; so they may, and no snapshot is good any more; the
# machine starts anew.
START, DIED, RESTARTING = 0, 70, 75
_MOST_STEPS = 50  # of one run; more of them is an error of the plan


class Store(Protocol):
    """What is wanted of :class:`node.update.snapshot.Datastore`."""

    def take(self, name: str) -> Taken | None: ...
    def restore(self, name: str, keep_as: str) -> Kept: ...
    def keep_previous(self, name: str, about: Mapping[str, Any]) -> None: ...
    def previous_schema(self, version: str) -> int | None: ...
    def drop(self) -> None: ...


def main(settings: Mapping[str, Any]) -> int:
    """START, RESTARTING or DIED. Whatever goes wrong is logged, and the node starts."""
    data_dir = Path(settings["data-dir"])
    records = Records(data_dir / "update")
    try:
        found = place.slots()
        if found is None:
            LOG.error("there is a state of an update, and this machine has no slots: left alone")
            return DIED
        alone = Alone(
            records,
            found,
            Datastore(data_dir),
            moment=place.moment,
            copy=place.copier(),
            elsewhere=datastore(settings),
        )
        return START if asyncio.run(alone.run()) else RESTARTING
    except Exception:
        LOG.exception("the update cannot go on; the node starts as it is")
        return DIED


class Alone:
    """Performs what :func:`node.update.plan.decide_alone` says, one step after the other."""

    def __init__(
        self,
        records: Records,
        slots: Slots,
        store: Store,
        *,
        moment: Callable[[], Moment],
        copy: Callable[[str, str], None] | None,
        elsewhere: str,
    ) -> None:
        self._records = records
        self._slots = slots
        self._store = store
        self._moment = moment
        self._copy = copy
        self._elsewhere = elsewhere
        self._just_chosen = False

    async def run(self) -> bool:
        """True: the children may be started. False: the machine is starting anew."""
        state = self._records.load()
        for _ in range(_MOST_STEPS):
            facts = await self._facts(state)
            decision = plan.decide_alone(facts)
            state = self._save(state, decision.state, facts)
            step = decision.step
            if isinstance(step, steps.Start) or state is None:
                return True
            LOG.info("update to %s: %s", state.request.version, type(step).__name__)
            outcome = await self._perform(step, state, facts)
            if isinstance(step, steps.Restart) and (
                isinstance(outcome, Done) or state.phase is Phase.TRIAL
            ):
                # A trial that cannot be left now is left by the next who comes here.
                return False
            state = self._save(state, plan.after(state, step, outcome, facts), facts)
        raise RuntimeError(f"the update does not come to rest: {state}")

    async def _facts(self, state: State | None) -> Facts:
        moment, other = self._moment(), await self._slots.other()
        return Facts(
            state=state,
            request=None,
            running=await self._slots.running(),
            other=other,
            on_trial=await self._slots.on_trial(),
            now=moment.now,
            uptime=moment.uptime,
            boot=moment.boot,
            elsewhere=self._elsewhere,
            is_void=(self._records.folder / VOID).exists(),
            just_chosen=self._just_chosen,
            old_schema=self._store.previous_schema(str(other.version)),
        )

    def _save(self, before: State | None, state: State | None, facts: Facts) -> State | None:
        if state != before:
            self._records.save(state)
        if state is not None and state.phase in ENDS and (before is None or not before.has_ended):
            (self._records.folder / UNTOLD).touch()  # for the agent, which may be quiet else
            LOG.warning("update to %s: %s %s", state.request.version, state.phase, state.message)
            conclude(self._records, self._store, state, facts)
        return state

    async def _perform(self, step: LoneStep, state: State, facts: Facts) -> Outcome:
        try:
            return Done(await self._do(step, state, facts))
        except RefusedError as err:
            LOG.error("%s: %s", type(step).__name__, err)  # noqa: TRY400 - one line for people
            return Failed(str(err), err.reason)
        except (InstallError, OSError) as err:
            LOG.error("%s: %s", type(step).__name__, err)  # noqa: TRY400
            return Failed(str(err))
        except Exception as err:
            LOG.exception("%s", type(step).__name__)
            return Failed(f"{type(err).__name__}: {err}")

    async def _do(self, step: LoneStep, state: State, facts: Facts) -> Any:
        match step:
            case steps.Snapshot():
                if self._elsewhere:
                    return None
                name = file_name(f"{facts.running.version}-{facts.now:%Y%m%d%H%M%S}")
                return self._store.take(name)
            case steps.TryOnce():
                return await self._try_once(state)
            case steps.CancelTry():
                return await self._slots.cancel_try()
            case steps.Restart():
                return await self._slots.restart()
            case steps.Restore():
                return self._store.restore(state.snapshot, file_name(state.kept))
            case steps.MarkFailed(version):
                if version:
                    failure = Failure(at=stamp(facts.now), reason=state.message)
                    self._records.remember_failed(version, failure)
                return await self._slots.mark_bad()
            case steps.Start():
                return None

    async def _try_once(self, state: State) -> None:
        # The older slot keeps its own: what the newer one changed there is not for it.
        if self._copy is not None and not state.request.rollback:
            self._copy(state.from_slot, state.to_slot)
        # For the timer of the image, which is there when nothing of ours works.
        deadline = f"{state.request.deadline_seconds}\n"
        write_atomic(self._records.folder / "deadline", deadline)
        await self._slots.try_once()
        self._just_chosen = True


def conclude(records: Records, store: Store, state: State, facts: Facts) -> None:
    """What belongs to the end of an update; done again it does no harm."""
    try:
        records.add_history(state, facts.now)
        is_kept = state.phase is Phase.COMMITTED or state.request.rollback
        if is_kept and state.snapshot and state.phase in (Phase.COMMITTED, Phase.ROLLED_BACK):
            about = {"version": state.from_version, "schema": state.schema}
            store.keep_previous(state.snapshot, about)
        else:
            store.drop()
        (records.folder / "deadline").unlink(missing_ok=True)
        (records.folder / VOID).unlink(missing_ok=True)
    except OSError as err:
        LOG.warning("after the update: %s", err)
