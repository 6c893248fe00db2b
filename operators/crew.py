"""
The operators of this process, each kept running, none able to take another down.

An operator that ends, for whatever reason, is made anew after a while; the others work on.
The watches begin anew then, since kopf takes no handlers while it runs: :meth:`Crew.changed`
says when. A first look at everything follows, which costs nothing where nothing changed.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from operators.base import Operator

LOG = logging.getLogger(__name__)

FIRST_DELAY = 1.0
LONGEST_DELAY = 300.0
STEADY_SECONDS = 600.0  # who ran for so long begins with the first delay again


class Crew:
    """``make``: an operator by its name; ``clock``: seconds."""

    def __init__(
        self, names: Iterable[str], make: Callable[[str], Operator], clock: Callable[[], float]
    ) -> None:
        self._make = make
        self._clock = clock
        self._members: dict[str, Operator] = {}
        self._changed = asyncio.Event()
        self._begun = asyncio.Event()
        self._tried: set[str] = set()
        self.restarts: dict[str, int] = dict.fromkeys(sorted(names), 0)

    @property
    def running(self) -> Mapping[str, Operator]:
        return self._members

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for name in self.restarts:
                tasks.create_task(self._keep(name))

    async def begun(self) -> None:
        """Each was tried once."""
        if self.restarts:
            await self._begun.wait()

    async def changed(self) -> None:
        """Somebody began to run since :meth:`register` was called last."""
        await self._changed.wait()

    def register(self, registry: Any) -> None:
        """The handlers of all that run. One that cannot register has nothing to do."""
        self._changed.clear()
        for name, operator in self._members.items():
            try:
                operator.register(registry)
            except Exception:
                LOG.exception("%s: cannot watch", name)

    async def _keep(self, name: str) -> None:
        failures = 0
        while True:
            began = self._clock()
            await self._run(name)
            failures = 0 if self._clock() - began > STEADY_SECONDS else failures
            delay = min(FIRST_DELAY * 2.0 ** min(failures, 10), LONGEST_DELAY)
            failures += 1
            self.restarts[name] += 1
            LOG.error("%s: beginning again in %.0f s", name, delay)
            await asyncio.sleep(delay)

    async def _run(self, name: str) -> None:
        """Returns when the operator ended; nothing but our own end is raised."""
        try:
            self._members[name] = self._make(name)
            self._changed.set()
            self._note(name)
            await self._members[name].run()
            LOG.error("%s ended, which an operator never does", name)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            LOG.exception("%s was cancelled from within", name)
        except Exception:
            LOG.exception("%s failed", name)
        finally:
            self._members.pop(name, None)
            self._note(name)

    def _note(self, name: str) -> None:
        self._tried.add(name)
        if self._tried == self.restarts.keys():
            self._begun.set()
