"""
Run the children: perform what the plan says, and learn what became of it.

One thread, no event loop: the daemon must stay as it was when it forked its
first child, since later children are forked from it too. It sleeps until a
signal, a sign of life or the plan's next time; at idle that is twice a minute.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from controlplane.client.clock import WallClock, open_timer
from node.supervise import plan
from node.supervise.addresses import Addresses
from node.supervise.base import Executed, Facts, Forked, Phase, Service
from node.supervise.memory import give_back
from node.supervise.process import Running, execute, fork

LOG = logging.getLogger(__name__)
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
HAND_OVER = 75  # exit code of a child: end the others too, and let the daemon go on alone
ADDRESS_SECONDS = 2.0  # for addresses and routes that come one after the other
SETTLING_SECONDS = 20.0  # until a program that is ready has done all that belongs to its start


class Supervisor:
    """Its mutable state: the facts and the process of each child, and whether we stop."""

    def __init__(
        self,
        services: Sequence[Service],
        *,
        run_dir: Path,
        clock: Callable[[], float],
        on_ready: Callable[[], None],
    ) -> None:
        self._order = [service.name for service in services]
        self._facts = {service.name: Facts(service=service) for service in services}
        self._running: dict[str, Running] = {}
        self._run_dir = run_dir
        self._clock = clock
        self._on_ready = on_ready
        self._announced = False
        self._stopping = False
        self._handed_over = False
        self._selector = selectors.DefaultSelector()
        self._wall: WallClock | None = None
        self._timer: int | None = None
        self._addresses: Addresses | None = None
        self._look_at: float | None = None  # when to look at the node's own address

    def follow(self, wall: WallClock) -> None:
        """Hear when somebody sets the clock, so that children that start later know of it."""
        self._wall = wall
        with contextlib.suppress(OSError):
            self._timer = timer = open_timer()
            self._selector.register(timer, selectors.EVENT_READ, lambda: wall.heard(timer))

    def follow_addresses(self, addresses: Addresses) -> None:
        """Hear when an address came or went; the owner closes them."""
        self._addresses = addresses
        addresses.open()
        if addresses.socket is not None:
            self._selector.register(addresses.socket, selectors.EVENT_READ, self._hear_addresses)
            self._look_at = self._clock()  # it may have changed since it was looked at

    def run(self) -> bool:
        """
        Until SIGTERM or SIGINT, and then until every child has stopped.

        True: a child ended with ``HAND_OVER``, or the node has another address, so that the
        daemon goes on alone.
        """
        woken, wakeup = socket.socketpair()
        woken.setblocking(False)
        wakeup.setblocking(False)
        signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
        for number in (*STOP_SIGNALS, signal.SIGCHLD, signal.SIGALRM):
            signal.signal(number, lambda _number, _frame: None)
        self._selector.register(woken, selectors.EVENT_READ, None)
        try:
            while self._turn(woken):
                pass
        finally:
            signal.set_wakeup_fd(-1)
            self._selector.close()
            if self._timer is not None:
                os.close(self._timer)
            woken.close()
            wakeup.close()
        return self._handed_over

    def _turn(self, woken: socket.socket) -> bool:
        now = self._clock()
        if self._wall is not None:
            self._wall.check()
        if self._stopping:
            decided = plan.stopping(self._facts, self._order, now)
            if not decided.steps and all(f.phase is Phase.WAITING for f in self._facts.values()):
                return False
        else:
            decided = plan.running(self._facts, now)
        for step in decided.steps:
            self._perform(step)
        if decided.steps:
            return True  # decide again on the new facts before sleeping
        if self._has_moved():
            self._stopping = self._handed_over = True
            return True
        times = [at for at in (decided.wake_at, self._look_at) if at is not None]
        pause = max(0.0, min(times) - self._clock()) if times else None
        for key, _ in self._selector.select(pause):
            if key.data is None:
                self._hear_signals(woken)
            elif callable(key.data):
                key.data()
            else:
                self._hear_child(key.data)
        return True

    def _hear_addresses(self) -> None:
        assert self._addresses is not None
        self._addresses.heard()
        if self._look_at is None:
            self._look_at = self._clock() + ADDRESS_SECONDS

    def _has_moved(self) -> bool:
        if self._stopping or self._look_at is None or self._clock() < self._look_at:
            return False
        self._look_at = None
        return self._addresses is not None and self._addresses.look()

    def _set(self, name: str, phase: Phase) -> None:
        self._facts[name] = replace(
            self._facts[name],
            phase=phase,
            since=self._clock(),
            heard=self._clock(),
            asked=None,
            was_ready=self._facts[name].was_ready or phase is Phase.READY,
        )

    def _perform(self, step: plan.Step) -> None:
        match step:
            case plan.Start(name):
                self._start(name)
            case plan.AskForSign(name):
                self._running[name].ask()
                self._facts[name] = replace(self._facts[name], asked=self._clock())
            case plan.Terminate(name):
                self._running[name].terminate()
                self._set(name, Phase.STOPPING)
            case plan.Kill(name, why):
                LOG.error("killing %s: %s", name, why)
                self._running[name].kill()
                self._set(name, Phase.STOPPING)

    def _start(self, name: str) -> None:
        service = self._facts[name].service
        child = fork(service) if isinstance(service, Forked) else execute(service, self._run_dir)
        self._running[name] = child
        self._selector.register(child.socket, selectors.EVENT_READ, name)
        self._set(name, Phase.STARTING)
        LOG.debug("started %s as process %d", name, child.pid)

    def _hear_signals(self, woken: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            numbers = woken.recv(4096)
            if any(number in STOP_SIGNALS for number in numbers):
                self._stopping = True
                self._handed_over = False  # whoever ends us has the last word
            if signal.SIGALRM in numbers:
                self._settle()
        self._reap()

    def _settle(self) -> None:
        """The programs have started: what only that needed goes from memory."""
        for name, child in self._running.items():
            if isinstance(self._facts[name].service, Executed):
                give_back(child.pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = next((n for n, c in self._running.items() if c.pid == pid), None)
            if name is not None:
                self._bury(name, os.waitstatus_to_exitcode(status))

    def _bury(self, name: str, code: int) -> None:
        child = self._running.pop(name)
        with contextlib.suppress(KeyError):
            self._selector.unregister(child.socket)
        child.close()
        fact = self._facts[name]
        if code == HAND_OVER and not self._stopping:
            LOG.info("%s asks for everything to end", name)
            self._stopping = self._handed_over = True
        if self._stopping or fact.phase is Phase.STOPPING:
            LOG.debug("%s ended with %d", name, code)
        failures = plan.failures_after_death(fact, self._clock())
        self._set(name, Phase.WAITING)
        self._facts[name] = replace(self._facts[name], failures=failures)
        if not self._stopping:
            delay = plan.restart_delay(failures)
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            LOG.error("%s died (%s); starting it again in %.1f s", name, how, delay)
            if isinstance(fact.service, Executed) and (said := _last_words(fact.service.log)):
                LOG.error("%s said: %s", name, said)

    def _hear_child(self, name: str) -> None:
        child = self._running.get(name)
        if child is None:
            return  # it was buried earlier in this turn
        try:
            heard = child.socket.recv(4096)
        except (BlockingIOError, ConnectionResetError):
            return
        if not heard:  # closed: it is dying, and SIGCHLD will tell
            self._selector.unregister(child.socket)
            return
        if b"READY=1" in heard or heard[:1] == b"r":
            self._became_ready(name)
        self._facts[name] = replace(self._facts[name], asked=None, heard=self._clock())

    def _became_ready(self, name: str) -> None:
        if self._facts[name].phase is Phase.STARTING:
            self._set(name, Phase.READY)
            LOG.info("%s is ready", name)
            if isinstance(self._facts[name].service, Executed):
                signal.setitimer(signal.ITIMER_REAL, SETTLING_SECONDS)
        if not self._announced and all(f.was_ready for f in self._facts.values()):
            self._announced = True
            self._on_ready()


def _last_words(log: Path) -> str:
    """The last line that a child wrote, for whoever reads only our log."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            lines = file.read().decode(errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
