"""
Keeps the kernel's table equal to what policies, pods and namespaces say.

Driven by changes alone. The first change goes to the kernel within a few milliseconds;
in a storm of them, fewer and larger transactions follow each other ever more slowly, up
to half a second. A pod that waits to start never waits for that.

While there is no policy at all there is no table, so packets pay nothing.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from operators.netpol import rules
from operators.netpol.conntrack import Flow
from operators.netpol.kernel import KernelError
from operators.netpol.objects import Pod, policy_of
from operators.netpol.oracle import End, Wanted, allowed
from operators.netpol.plan import Compiler
from operators.netpol.rules import FAMILY, TABLE, Facts
from operators.netpol.table import Difference, Table

LOG = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
SHARE = 4.0  # pauses are at least so many times as long as what they follow
CALM = 1.0  # seconds without a transaction after which the first pause holds again
RETRY_FIRST, RETRY_LONGEST = 1.0, 60.0
# Answers of UDP that were on their way when a connection was cut have arrived by then.
SECOND_LOOK = 0.2


class Machine(Protocol):
    """See :class:`operators.netpol.kernel.Kernel`."""

    async def load(self, text: str) -> None: ...

    async def change(self, difference: Difference) -> None: ...

    async def remove(self) -> None: ...

    async def wait_until_lost(self) -> None: ...

    async def forget(self, is_forbidden: Callable[[Flow], bool]) -> list[Flow]: ...

    async def own_addresses(self) -> frozenset[str]: ...


class Enforcer:
    """
    Its mutable state: the compiler's, the table's, and how far the kernel has followed.

    Changes are told by :meth:`change`; none goes to the kernel before :meth:`begin`, since
    the first transaction replaces the rules of whoever was here before.
    """

    def __init__(self, compiler: Compiler, machine: Machine, *, clock: Callable[[], float]) -> None:
        self.compiler = compiler
        self.error = ""  # why the kernel has not what it should
        self._machine = machine
        self._clock = clock
        self._table = Table(FAMILY, TABLE)
        self._facts = Facts()
        self._whole = True  # the table is to be replaced, not changed
        self._loaded = False
        self._begun = asyncio.Event()
        self._wake, self._urgent = asyncio.Event(), asyncio.Event()
        self._there = asyncio.Event()  # the table is loaded
        self._wanted = self._reached = 0
        self._waiting: list[tuple[int, asyncio.Future[str]]] = []
        self._pause, self._last = FIRST_PAUSE, -CALM
        self._cost = 0.0  # seconds that the last transaction took
        self._echoes: set[Flow] = set()

    # -- what is told

    def change(self) -> None:
        """The compiler was told something; most of it changes no rule."""
        if self.compiler.due:
            self._follow_up()

    def _follow_up(self) -> None:
        self._wanted += 1
        self._wake.set()

    def begin(self) -> None:
        """All that there is was told once."""
        if not self._begun.is_set():
            self._begun.set()
            self._follow_up()

    def close_networks(self, networks: Iterable[str]) -> None:
        """In these an address that is no known pod's is let nowhere; from the next load on."""
        facts = Facts(closed=tuple(networks), log=self._facts.log)
        if facts != self._facts:
            self._facts, self._whole = facts, True
            self._follow_up()

    def put_policies(self, namespace: str, bodies: Iterable[Mapping[str, Any]]) -> None:
        """Those of a namespace, as listed; what the watch has told later already stays."""
        for body in bodies:
            policy = policy_of(body)
            known = self.compiler.policy(namespace, policy.name)
            if known is None or known.version < policy.version:
                self.compiler.put_policy(namespace, policy.name, policy)
        self.change()

    async def hand(self, pod: Pod) -> str:
        """Until the kernel has the rules of a pod that is about to start; "" or why it has not."""
        self.compiler.change_pods(self.compiler.pods.hand(pod))
        self.change()
        return await self.settle()

    async def begun(self) -> None:
        await self._begun.wait()

    async def settle(self) -> str:
        """Until the kernel has all that was told so far; "" or why it has not."""
        await self._begun.wait()
        if self._reached >= self._wanted:
            return self.error
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append((self._wanted, done))
        self._urgent.set()
        self._wake.set()
        return await done

    # -- what is done

    async def run(self) -> None:
        """Until cancelled; the rules stay."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._guard())

    async def _follow(self) -> None:
        await self._begun.wait()
        retry = RETRY_FIRST
        while True:
            await self._wake.wait()
            await self._sit_out()
            self._wake.clear()
            self._urgent.clear()
            if await self._attempt():
                retry = RETRY_FIRST
                continue
            asyncio.get_running_loop().call_later(retry, self._again)
            retry = min(2 * retry, RETRY_LONGEST)

    def _again(self) -> None:
        self._whole = True
        self._wake.set()

    async def _sit_out(self) -> None:
        """Others may come with this change, and in a storm they do."""
        calm = self._clock() - self._last > CALM
        self._pause = FIRST_PAUSE if calm else min(2 * self._pause, LONGEST_PAUSE)
        # On a machine where it takes long, it must not take all the time there is.
        self._pause = max(self._pause, SHARE * self._cost)
        try:
            async with asyncio.timeout(self._pause):
                await self._urgent.wait()
        except TimeoutError:
            pass

    async def _attempt(self) -> bool:
        wanted, error, began = self._wanted, "", self._clock()
        try:
            await self._apply()
            self._reached = wanted
        except asyncio.CancelledError:
            # kopf, when it gives up, cancels what it finds running in the loop: nft, not us.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = "interrupted"
        except (KernelError, OSError) as err:
            error = str(err)
        if error:
            self._whole = True
            LOG.error("cannot load the rules of network policies: %s", error)
        self.error = error
        self._last = self._clock()
        self._cost = self._last - began
        still = []
        for needed, done in self._waiting:
            if not error and needed > self._reached:
                still.append((needed, done))
            elif not done.done():
                done.set_result(error)
        self._waiting = still
        return not error

    async def _apply(self) -> None:
        difference = self._table.replace(self.compiler.parts())
        if self.compiler.empty:
            await self._unload()
        else:
            await self._load(difference)
        if self.compiler.narrowed and not self.compiler.empty:
            await self._cut()
        self.compiler.narrowed = False
        await self._cut_echoes()

    async def _unload(self) -> None:
        if self._loaded or self._whole:
            self._there.clear()
            await self._machine.remove()
        self._loaded = self._whole = False

    async def _load(self, difference: Difference) -> None:
        if self._whole or not self._loaded:
            self._whole = False
            await self._load_whole()
            self._loaded = True
            self._there.set()
        elif difference:
            await self._machine.change(difference)

    async def _load_whole(self) -> None:
        try:
            await self._machine.load(self._table.full(rules.fixed_text(self._facts)))
        except KernelError:
            if not self._facts.log:
                raise
            # A kernel without nfnetlink_log: better no log than no rules.
            silent = Facts(closed=self._facts.closed, log=False)
            await self._machine.load(self._table.full(rules.fixed_text(silent)))
            self._facts = silent
            LOG.warning("this kernel cannot log what network policies deny")

    async def _guard(self) -> None:
        while True:
            await self._there.wait()
            await self._machine.wait_until_lost()
            if self._there.is_set():
                LOG.warning("somebody removed the table %s; loading it again", TABLE)
                self._there.clear()
                self._whole = True
                self._follow_up()

    # -- connections

    async def _cut(self) -> None:
        """Forget connections that are not allowed any longer; their next packet is a new one."""
        guarded = self.compiler.guarded()
        if not guarded:
            return
        own = await self._machine.own_addresses()
        known: dict[tuple[str, str, str, int], bool] = {}

        def is_forbidden(flow: Flow) -> bool:
            if flow.source not in guarded and flow.answers not in guarded:
                return False
            key = flow.protocol, flow.source, flow.answers, flow.answers_port
            if key not in known:
                known[key] = not self._allows(flow, own)
            return known[key]

        deleted = await self._machine.forget(is_forbidden)
        if deleted:
            LOG.info("cut %d connections, which network policies forbid now", len(deleted))
        echoes = {
            Flow(f.protocol, f.answers, f.answers_port, f.source, f.source_port)
            for f in deleted
            if f.protocol != "TCP"
        }
        if echoes:
            asyncio.get_running_loop().call_later(SECOND_LOOK, self._look_again, echoes)

    def _look_again(self, echoes: set[Flow]) -> None:
        self._echoes |= echoes
        self._wake.set()

    def _allows(self, flow: Flow, own: frozenset[str]) -> bool:
        pods = self.compiler.pods
        source = End(flow.source, pods.at(flow.source), here=flow.source in own)
        target = End(flow.answers, pods.at(flow.answers))
        wanted = Wanted(flow.protocol, flow.answers_port)
        return allowed(self.compiler, source, target, wanted, node=self.compiler.node)

    async def _cut_echoes(self) -> None:
        """
        An answer that was on its way began a connection in the other direction, which may be
        allowed; what the client sends would pass as the answer to it.
        """
        echoes, self._echoes = self._echoes, set()
        if echoes:
            await self._machine.forget(lambda flow: flow in echoes)
