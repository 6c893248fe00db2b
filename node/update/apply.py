"""
Perform the agent's steps of an update: fetch, check, install, look, commit.

What is done while nothing of the node runs is done by :mod:`node.update.recover`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from controlplane.client.base import Unreachable
from controlplane.objects.errors import StatusError
from node.update import place, steps
from node.update.base import Bundle, InstallError, RefusedError, Slots
from node.update.download import Downloads, Wanted
from node.update.plan import Health
from node.update.state import Phase, State
from node.update.steps import AgentStep, Done, Failed, Outcome

LOG = logging.getLogger(__name__)
_LOOKS, _LOOK_PAUSE = 5, 3.0
_RESTART_SECONDS = 60.0


class Performer:
    """
    ``look`` lists what is healthy in kube-system; ``judge`` asks the gate anew; ``remember``
    notes that a version failed.

    Its mutable state: the bundle that was checked, which the next step installs.
    """

    def __init__(
        self,
        slots: Slots,
        downloads: Downloads,
        *,
        look: Callable[[], Awaitable[Sequence[str]]],
        judge: Callable[[], Awaitable[Health]],
        progress: Callable[[int], None],
        remember: Callable[[State], None],
    ) -> None:
        self._slots = slots
        self._downloads = downloads
        self._look = look
        self._judge = judge
        self._progress = progress
        self._remember = remember
        self._bundle: Bundle | None = None

    async def perform(self, step: AgentStep, state: State, *, by_hand: bool) -> Outcome:
        """``by_hand``: a person has ordered the commit, healthy or not."""
        try:
            return Done(await self._do(step, state, by_hand=by_hand))
        except RefusedError as err:
            return Failed(str(err), err.reason)
        except (InstallError, OSError) as err:
            return Failed(str(err))
        except Exception as err:
            LOG.exception("%s", type(step).__name__)
            return Failed(f"{type(err).__name__}: {err}")

    async def _do(self, step: AgentStep, state: State, *, by_hand: bool) -> Any:
        match step:
            case steps.Download():
                return await self._downloads.fetch(_wanted(state), self._progress)
            case steps.Check():
                return (await self._checked(state)).version
            case steps.Install():
                return await self._install(state)
            case steps.Look():
                return await self._looked()
            case steps.Commit():
                return await self._commit(by_hand=by_hand)
            case steps.GiveUp():
                return await self._give_up(state)
            case steps.Restart():
                await self._slots.restart()
                return await asyncio.sleep(_RESTART_SECONDS)  # it ends us
            case steps.Cancel():
                return await asyncio.to_thread(self._downloads.drop)
            case _:
                return None

    async def _checked(self, state: State) -> Bundle:
        # From the disk again: after a restart nobody knows what was checked before it.
        path = await self._downloads.fetch(_wanted(state), lambda _: None)
        self._bundle = await self._slots.check(path)
        return self._bundle

    async def _install(self, state: State) -> None:
        bundle = self._bundle or await self._checked(state)
        await self._slots.install(bundle, self._progress)
        self._bundle = None
        await asyncio.to_thread(self._downloads.drop)

    async def _looked(self) -> Sequence[str]:
        for left in reversed(range(_LOOKS)):
            try:
                return await self._look()
            except (StatusError, Unreachable) as err:
                if not left:
                    raise InstallError(f"cannot see what is healthy before it: {err}") from err
                await asyncio.sleep(_LOOK_PAUSE)
        return ()

    async def _give_up(self, state: State) -> None:
        if state.phase is Phase.SWITCHING:
            return await self._slots.cancel_try()
        if not state.request.rollback:
            self._remember(state)
        return await self._slots.mark_bad()

    async def _commit(self, *, by_hand: bool) -> None:
        health = await self._judge()
        if not health.is_ok and not by_hand:
            raise InstallError(health.message)
        await place.commit(self._slots)


def _wanted(state: State) -> Wanted:
    request = state.request
    return Wanted(url=request.url, sha256=request.sha256, size=request.size)
