"""
Connections that policies do not allow any longer, and those of pods that are gone.

The rules let established connections pass, so these have to be forgotten; the next packet
is a new connection's. It works beside the loading of rules: the kernel keeps all
connections in one table, and to read it takes its time where it is large.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from operators.netpol.conntrack import Flow
from operators.netpol.oracle import End, Wanted, allowed
from operators.netpol.plan import Compiler, Lost

LOG = logging.getLogger(__name__)
RETRY = 1.0
SHARE, LONGEST_PAUSE = 4.0, 2.0  # pauses are so many times as long as what they follow
# Answers of UDP that were on their way when a connection was cut have arrived by then.
SECOND_LOOK = 0.2


class Connections(Protocol):
    """Those that the kernel tracks."""

    async def flows(self, addresses: frozenset[str]) -> list[Flow]: ...

    async def forget(self, flows: Sequence[Flow]) -> None: ...

    async def own_addresses(self) -> frozenset[str]: ...


class Cuts:
    """
    ``done`` is called with the version whose cuts are made.

    Its mutable state: what the rules in the kernel do not allow any longer.
    """

    def __init__(
        self,
        compiler: Compiler,
        connections: Connections,
        done: Callable[[int], None],
        *,
        clock: Callable[[], float],
    ) -> None:
        self._compiler = compiler
        self._connections = connections
        self._done = done
        self._clock = clock
        self._version = 0
        self._lost = Lost()
        self._echoes: set[Flow] = set()
        self._wake = asyncio.Event()

    def after(self, version: int, lost: Lost) -> None:
        """
        The kernel has the rules of this version.

        Not before: else the next packet of what is cut would be let through again.
        """
        self._version = version
        self._lost |= lost
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            version, began = self._version, self._clock()
            try:
                await self._cut()
            except OSError as err:
                LOG.warning("cannot cut connections that are forbidden now: %s", err)
                asyncio.get_running_loop().call_later(RETRY, self._wake.set)
            else:
                self._done(version)
            # Many pods that start one after another share a look at all connections.
            await asyncio.sleep(min(SHARE * (self._clock() - began), LONGEST_PAUSE))

    async def _cut(self) -> None:
        lost, self._lost = self._lost, Lost()
        try:
            if not self._compiler.empty:
                pods = self._compiler.pods
                free = frozenset(ip for ip in lost.released if pods.at(ip) is None)
                guarded = self._compiler.guarded() if lost.narrowed else frozenset()
                await self._forget(guarded, free)
            await self._cut_echoes()
        except BaseException:
            self._lost |= lost
            raise

    async def _forget(self, guarded: frozenset[str], released: frozenset[str]) -> None:
        addresses = guarded | released
        if not addresses:
            return
        own = await self._connections.own_addresses()
        known: dict[tuple[str, str, str, int], bool] = {}

        def is_forbidden(flow: Flow) -> bool:
            if flow.source in released or flow.answers in released:
                return True
            key = flow.protocol, flow.source, flow.answers, flow.answers_port
            if key not in known:
                known[key] = not self._allows(flow, own)
            return known[key]

        doomed = [flow for flow in await self._connections.flows(addresses) if is_forbidden(flow)]
        if not doomed:
            return
        await self._connections.forget(doomed)
        LOG.info("cut %d connections, which network policies forbid now", len(doomed))
        echoes = {
            Flow(f.protocol, f.answers, f.answers_port, f.source, f.source_port)
            for f in doomed
            if f.protocol != "TCP"
        }
        if echoes:
            asyncio.get_running_loop().call_later(SECOND_LOOK, self._look_again, echoes)

    def _look_again(self, echoes: set[Flow]) -> None:
        self._echoes |= echoes
        self._wake.set()

    def _allows(self, flow: Flow, own: frozenset[str]) -> bool:
        pods = self._compiler.pods
        source = End(flow.source, pods.at(flow.source), here=flow.source in own)
        target = End(flow.answers, pods.at(flow.answers))
        wanted = Wanted(flow.protocol, flow.answers_port)
        return allowed(self._compiler, source, target, wanted, node=self._compiler.node)

    async def _cut_echoes(self) -> None:
        """
        An answer that was on its way began a connection in the other direction, which may be
        allowed; what the client sends would pass as the answer to it.
        """
        echoes, self._echoes = self._echoes, set()
        if echoes:
            found = await self._connections.flows(frozenset(flow.source for flow in echoes))
            await self._connections.forget([flow for flow in found if flow in echoes])
