"""
The composition root of the operators: one event loop, one kopf, every operator.

kopf lists and watches, and only that: its handlers note what they saw and put a
key into a queue, so nothing of kopf's is ever written to a user's object.
While nothing changes, the open watches are all there is. The operators keep no
state of their own, so whatever goes wrong here is mended by starting over.
"""

import asyncio
import importlib
import inspect
import itertools
import logging
import random
import signal
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from contextlib import suppress
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from operators import health, owners
from operators.base import Operator, Parts
from operators.client import ApiError, WriterClient
from operators.config import Config, Credentials, from_settings, read_kubeconfig
from operators.crew import Crew
from operators.election import Elector, Told
from operators.health import Vitals
from operators.lease import LeaseApi

# kopf imports the official client when it finds it, for types that we do not
# use: 19 MiB in this process for nothing. It lives in operators/writer.py.
_HIDDEN = [name for name in ("kubernetes", "kubernetes_asyncio") if name not in sys.modules]
sys.modules.update(dict.fromkeys(_HIDDEN))  # type: ignore[arg-type]
try:
    import kopf
finally:
    for _name in _HIDDEN:
        del sys.modules[_name]

LOG = logging.getLogger(__name__)

# The server ends a watch after 30 to 60 minutes by itself; asking again sooner,
# as kopf does after 70 s without an event, would be the only work of an idle node.
WATCH_SECONDS = 3700.0
# Before the watches begin again; a kopf that ran for a while begins with the first pause anew.
FIRST_RETRY_SECONDS, LONGEST_RETRY_SECONDS = 0.5, 30.0
STEADY_SECONDS = 60.0
RETRY_SECONDS = 5.0
LONGEST_LOGIN_PAUSE = 30.0
# kopf's name for us among its peers, which are off. Else it asks DNS for this machine's name,
# and waits 6 s for an answer where there is no network.
IDENTITY: Any = "pinnace"
KOPF = f"{Path(kopf.__file__).parent}/"
_CLEANUP = "startup/cleanup activities"  # kopf's name for the task that does so
ENDING_TRIES, ENDING_SECONDS = 8, 1.0  # how often its tasks are told to end, and how soon again
# Makes SIGTERM ours (again): kopf, when it begins, takes it for itself.
_LISTEN: ContextVar[Callable[[], None]] = ContextVar("listen", default=lambda: None)
# What --disable calls them, where that is not the name of the operator.
DISABLED_AS = {"localpath": "local-storage"}


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    """Run the operators until SIGTERM; ``ready`` is called once the watches begin."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    if "clock" in settings:
        _NOW.set(settings["clock"].now)
    asyncio.run(until_told(_native(from_settings(settings), ready)))
    return 0


def main_elsewhere(config: Config, election: Told | None, address: tuple[str, int] | None) -> int:
    """
    The same on another Kubernetes, until SIGTERM; ``address`` of /healthz, /readyz and /metrics.

    Raises OSError where the address cannot be had.
    """
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(until_told(_elsewhere(config, election, address)))
    return 0


def now() -> datetime:
    return datetime.now(UTC)


# On a node of Pinnace the daemon's, which believes in no clock that cannot be right.
_NOW: ContextVar[Callable[[], datetime]] = ContextVar("now", default=now)


async def until_told(work: Coroutine[Any, Any, None]) -> None:
    """``work`` is cancelled by SIGTERM and SIGINT, and may clean up then."""
    loop = asyncio.get_running_loop()

    def listen() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: task.cancel())

    _LISTEN.set(listen)
    task = asyncio.create_task(work)
    listen()
    with suppress(asyncio.CancelledError):
        await task


async def _native(config: Config, ready: Callable[[], None]) -> None:
    leases = LeaseApi(config.kubeconfig)
    disabled = {name for name in config.operators if DISABLED_AS.get(name, name) in config.disable}
    runs = config.operators - disabled
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_announce(leases, config.node_name, runs))
            await operate(config, config.operators, Vitals(), ready)
    finally:
        await leases.close()


async def _announce(leases: LeaseApi, node: str, runs: Collection[str]) -> None:
    await owners.announce(leases, node, runs)
    await leases.close()


async def _elsewhere(
    config: Config, election: Told | None, address: tuple[str, int] | None
) -> None:
    leases, vitals = LeaseApi(config.kubeconfig), Vitals()
    runner = await health.serve(vitals, address) if address else None
    try:
        if election is None:
            await _while_ours(config, leases, vitals, lambda: True)
        else:
            await _in_turn(config, election, leases, vitals)
    finally:
        await leases.close()
        if runner is not None:
            await runner.cleanup()


async def _in_turn(config: Config, told: Told, leases: LeaseApi, vitals: Vitals) -> None:
    """Act while the Lease is ours, and wait for it while it is not."""
    elector = Elector(leases, told, now=now, clock=time.monotonic, chance=random.random)
    vitals.leader = lambda: elector.holds
    try:
        while True:
            vitals.ready = True
            await elector.acquire()
            async with asyncio.TaskGroup() as tasks:
                work = tasks.create_task(_while_ours(config, leases, vitals, lambda: elector.holds))
                await elector.hold()
                vitals.lost_at = time.monotonic()
                work.cancel()
            vitals.lost_at = None
    finally:
        # After all that acted has ended: who comes next may begin at once.
        await elector.release()


async def _while_ours(
    config: Config, leases: LeaseApi, vitals: Vitals, may_act: Callable[[], bool]
) -> None:
    """What nodes of Pinnace run themselves is left to them, for as long as they do."""
    seen: Mapping[str, str] | None = None
    while True:
        found = await _natives(leases, config.node_name)
        if seen is None or found.keys() != seen.keys():
            for name in sorted(found.keys() & config.operators):
                LOG.warning("%s runs on node %s itself: not here", name, found[name])
        seen, vitals.elsewhere = found, found
        async with asyncio.TaskGroup() as tasks:
            names = config.operators - found.keys()
            work = tasks.create_task(operate(config, names, vitals, may_act=may_act))
            await owners.until_changed(leases, config.node_name, found)
            work.cancel()


async def _natives(leases: LeaseApi, node: str) -> Mapping[str, str]:
    while True:
        try:
            return (await owners.natives(leases, node))[0]
        except ApiError as err:
            LOG.warning("cannot ask which operators nodes run themselves: %s", err)
            if err.code == 403:
                return {}
            await asyncio.sleep(RETRY_SECONDS)


async def operate(
    config: Config,
    names: Collection[str],
    vitals: Vitals,
    ready: Callable[[], None] = lambda: None,
    *,
    may_act: Callable[[], bool] = lambda: True,
) -> None:
    """Run these operators until cancelled."""
    client = WriterClient(config, may_act=may_act)
    parts = Parts(config=config, client=client, now=_NOW.get(), clock=time.monotonic)
    crew = Crew(names, lambda name: _operator(name, parts), time.monotonic)
    vitals.restarts = crew.restarts
    try:
        # As tasks, so that the end of one's time to act is everybody's at the same moment.
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(crew.run())
            await crew.begun()
            tasks.create_task(_watch_on(crew, config, vitals, ready))
    finally:
        vitals.ready = False
        await client.close()


def _operator(name: str, parts: Parts) -> Operator:
    """Imported only where it runs: an operator that is off takes no memory."""
    operator: Operator = importlib.import_module(f"operators.{name}.run").operator(parts)
    return operator


async def _watch_on(crew: Crew, config: Config, vitals: Vitals, ready: Callable[[], None]) -> None:
    """One kopf after the other: for each change of the crew, and whenever one gave up."""
    started = asyncio.Event()
    pause = FIRST_RETRY_SECONDS
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_call_when(started, vitals, ready))
        while True:
            registry = kopf.OperatorRegistry()
            _login(registry, config)
            crew.register(registry)
            began = time.monotonic()
            watching = tasks.create_task(_watch(registry, started))
            changed = tasks.create_task(crew.changed())
            await asyncio.wait({watching, changed}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                steady = time.monotonic() - began > STEADY_SECONDS
                pause = FIRST_RETRY_SECONDS if steady else min(2 * pause, LONGEST_RETRY_SECONDS)
                LOG.warning("the watches ended: %s; again in %.0f s", watching.result(), pause)
                await asyncio.sleep(pause)
            watching.cancel()
            changed.cancel()
            await asyncio.wait({watching, changed})


async def _call_when(started: asyncio.Event, vitals: Vitals, ready: Callable[[], None]) -> None:
    await started.wait()
    vitals.ready = True
    ready()


async def _watch(registry: Any, started: asyncio.Event) -> str:
    """Ends when kopf gives up, as when the API is away while it begins; why it did."""
    try:
        roots = await kopf.spawn_tasks(
            registry=registry,
            settings=_settings(),
            clusterwide=True,
            standalone=True,
            identity=IDENTITY,
            ready_flag=started,
        )
        _LISTEN.get()()  # kopf took the signals for itself
        done, _ = await asyncio.wait(roots, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await _end_kopf()
    errors = (task.exception() for task in done if not task.cancelled())
    return next((_said(err) for err in errors if err is not None), "kopf ended")


def _said(err: BaseException) -> str:
    """Of an answer of the API its message, which is only a part of the error's text."""
    return getattr(err, "message", None) or str(err) or type(err).__name__


async def _end_kopf() -> None:
    """
    End all of kopf's tasks, and none of ours.

    Its own end takes every task that is younger than itself for its own, and waits without
    end for watches that forget that they were cancelled.
    """
    told = False
    # The last one closes the connections, when the others are gone.
    for last in (False, True):
        for _ in range(ENDING_TRIES):
            left = {task for task in _kopfs() if last or task.get_name() != _CLEANUP}
            for task in left:
                if not (last and task.cancelling()):
                    task.cancel()
            if not left:
                break
            try:
                await asyncio.wait(left, timeout=ENDING_SECONDS)
            except asyncio.CancelledError:
                told = True  # what is left behind would keep the process from ending
    if left := _kopfs():
        LOG.warning("these did not end: %s", sorted(task.get_name() for task in left))
    if told:
        raise asyncio.CancelledError


def _kopfs() -> set["asyncio.Task[Any]"]:
    return {task for task in asyncio.all_tasks() if _is_kopfs(task.get_coro())}


def _is_kopfs(coroutine: object) -> bool:
    return inspect.iscoroutine(coroutine) and coroutine.cr_code.co_filename.startswith(KOPF)


def _settings() -> Any:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None
    settings.watching.inactivity_timeout = WATCH_SECONDS
    # The records of releases are the largest Secrets of all, and of no interest here.
    settings.watching.field_selectors["", "v1", "secrets"] = "type!=helm.sh/release.v1"
    # Of all ConfigMaps, operators watch only the one of local-path storage.
    settings.watching.field_selectors["", "v1", "configmaps"] = "metadata.name=local-path-config"
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = (0.5, 1, 1, 2, 3, 5, 8, 10, 10, 10)
    return settings


def _login(registry: Any, config: Config) -> None:
    # Who was refused logs in again, ever later. What is the same as before kopf would not try
    # again, and its watches would end one by one: hence the number.
    # Later by how long it has gone on, not by how often: one login closes the connections of all
    # watches, which come to the next refusal each at another moment.
    numbers, begun, last = itertools.count(), 0.0, -2 * LONGEST_LOGIN_PAUSE  # of the clock

    # Without end: kopf that gives up on logging in neither ends nor can be ended.
    @kopf.on.login(registry=registry, backoff=1.0)
    async def login(**_: Any) -> Any:
        nonlocal begun, last
        now = time.monotonic()
        if now - last > 2 * LONGEST_LOGIN_PAUSE:
            begun = now
        else:
            await asyncio.sleep(min(max(0.5, (now - begun) / 8), LONGEST_LOGIN_PAUSE))
        last = time.monotonic()
        return _connection(read_kubeconfig(config.kubeconfig), next(numbers))


def _connection(found: Credentials, number: int) -> Any:
    return kopf.ConnectionInfo(
        priority=number,
        server=found.server,
        ca_data=found.ca or None,
        certificate_data=found.certificate or None,
        private_key_data=found.key or None,
        token=found.bearer() or None,
        insecure=found.insecure or None,
    )
