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
from typing import Any, NamedTuple, Protocol

from operators.netpol import rules
from operators.netpol.cuts import Connections, Cuts
from operators.netpol.kernel import KernelError
from operators.netpol.objects import Pod, policy_of
from operators.netpol.plan import Compiler, Lost
from operators.netpol.rules import FAMILY, TABLE, Facts
from operators.netpol.table import Difference, Table

LOG = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.5
SHARE = 4.0  # pauses are at least so many times as long as what they follow
CALM = 1.0  # seconds without a transaction after which the first pause holds again
RETRY_FIRST, RETRY_LONGEST = 1.0, 60.0


class _Waiter(NamedTuple):
    needed: int  # how far the kernel has to be
    loaded: bool  # with the rules; else with cutting connections too
    done: asyncio.Future[str]


class Machine(Connections, Protocol):
    """See :class:`operators.netpol.kernel.Kernel`."""

    async def load(self, text: str) -> None: ...

    async def check(self, text: str) -> None: ...

    async def change(self, difference: Difference) -> None: ...

    async def remove(self) -> None: ...

    async def wait_until_lost(self) -> None: ...


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
        self._refused: frozenset[str] = frozenset()  # chains of policies that nft does not take
        self._begun = asyncio.Event()
        self._wake, self._urgent = asyncio.Event(), asyncio.Event()
        self._there = asyncio.Event()  # the table is loaded
        self._wanted = self._loaded_to = self._reached = 0
        self._waiting: list[_Waiter] = []
        self._pause, self._last = FIRST_PAUSE, -CALM
        self._cost = 0.0  # seconds that the last transaction took
        self._cuts = Cuts(compiler, machine, self._is_cut, clock=clock)

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
        return await self._until(loaded=True)

    async def begun(self) -> None:
        await self._begun.wait()

    async def settle(self) -> str:
        """
        Until the kernel has all that was told so far, and what is not allowed any longer has
        been cut; "" or why not.
        """
        return await self._until(loaded=False)

    async def _until(self, *, loaded: bool) -> str:
        await self._begun.wait()
        if (self._loaded_to if loaded else self._reached) >= self._wanted:
            return self.error
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiter(self._wanted, loaded, done))
        self._urgent.set()
        self._wake.set()
        return await done

    # -- what is done

    async def run(self) -> None:
        """Until cancelled; the rules stay."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._guard())
            tasks.create_task(self._cuts.run())

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
            lost = await self._apply()
            self._loaded_to = wanted
            self._cuts.after(wanted, lost)
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
        self._answer(error)
        return not error

    def _answer(self, error: str) -> None:
        """Those who need not wait any longer."""
        still = []
        for waiter in self._waiting:
            reached = self._loaded_to if waiter.loaded else self._reached
            if not error and waiter.needed > reached:
                still.append(waiter)
            elif not waiter.done.done():
                waiter.done.set_result(error)
        self._waiting = still

    def _is_cut(self, reached: int) -> None:
        self._reached = reached
        self._answer("")

    async def _apply(self) -> Lost:
        lost = self.compiler.take_lost()
        difference = self._table.replace(self.compiler.parts())
        try:
            if self.compiler.empty:
                await self._unload()
            else:
                await self._load(difference)
        except BaseException:
            self.compiler.lost |= lost
            raise
        return lost

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
            # What was changed has been taken now.
            self._refused = frozenset(n for n in self._refused if f" {n}" not in difference.before)

    async def _load_whole(self) -> None:
        try:
            await self._machine.load(self._full(self._facts))
        except KernelError:
            # A kernel without nfnetlink_log: better no log than no rules.
            silent = Facts(closed=self._facts.closed, log=False)
            try:
                await self._machine.load(self._full(silent))
                LOG.warning("this kernel cannot log what network policies deny")
                self._facts = silent
            except KernelError:
                await self._find_refused()
                await self._machine.load(self._full(self._facts))

    def _full(self, facts: Facts) -> str:
        return self._table.full(rules.fixed_text(facts), without=self._refused)

    async def _find_refused(self) -> None:
        """
        One policy that nft will not take must not stand in the way of all others.

        It isolates its pods, and allows nothing. Raises KernelError where it is not a policy.
        """
        chains, fixed = set(self._table.chains("policy/")), rules.fixed_text(self._facts)
        await self._machine.check(self._table.full(fixed, without=chains))
        refused = set()
        for name in sorted(chains):
            try:
                await self._machine.check(self._table.full(fixed, without=chains - {name}))
            except KernelError as err:
                LOG.error("%s allows nothing, since nft refuses it: %s", name, err)  # noqa: TRY400
                refused.add(name)
        self._refused = frozenset(refused)

    async def _guard(self) -> None:
        while True:
            await self._there.wait()
            await self._machine.wait_until_lost()
            if self._there.is_set():
                LOG.warning("somebody removed the table %s; loading it again", TABLE)
                self._there.clear()
                self._whole = True
                self._follow_up()
