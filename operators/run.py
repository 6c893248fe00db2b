"""
The composition root of the operators: one event loop, one kopf, every operator.

kopf lists and watches, and only that: its handlers note what they saw and put a
key into a queue, so nothing of kopf's is ever written to a user's object.
While nothing changes, the open watches are all there is. The operators keep no
state of their own, so whatever goes wrong here is mended by starting over.
"""

import asyncio
import importlib
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from operators.base import Operator, Parts
from operators.client import WriterClient
from operators.config import Config, Credentials, from_settings, read_kubeconfig

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
RETRY_SECONDS = 5.0
# kopf's name for us among its peers, which are off. Else it asks DNS for this machine's name,
# and waits 6 s for an answer where there is no network.
IDENTITY: Any = "pinnace"


def main(settings: Mapping[str, Any], ready: Callable[[], None]) -> int:
    """Run the operators until SIGTERM; ``ready`` is called once the watches begin."""
    logging.getLogger("kopf").setLevel(logging.WARNING)
    asyncio.run(_serve(from_settings(settings), ready))
    return 0


def now() -> datetime:
    return datetime.now(UTC)


async def _serve(config: Config, ready: Callable[[], None]) -> None:
    started = asyncio.Event()
    client = WriterClient(config)
    registry = kopf.OperatorRegistry()
    _login(registry, config)
    parts = Parts(config=config, client=client, now=now, clock=time.monotonic)
    operators = [_operator(name, parts) for name in sorted(config.operators)]
    for operator in operators:
        operator.register(registry)
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(operator.run()) for operator in operators]
        running.append(tasks.create_task(_call_when(started, ready)))
        # kopf takes what is not running yet for its own, and waits for it at the end.
        for _ in range(3):
            await asyncio.sleep(0)
        await _watch_until_told(registry, started)
        for task in running:
            task.cancel()
    await client.close()


def _operator(name: str, parts: Parts) -> Operator:
    """Imported only where it runs: an operator that is off takes no memory."""
    operator: Operator = importlib.import_module(f"operators.{name}.run").operator(parts)
    return operator


async def _watch_until_told(registry: Any, started: asyncio.Event) -> None:
    """kopf takes SIGTERM for itself while it runs; before and after that it is ours."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        while not stop.is_set():
            watching = tasks.create_task(_watch(registry, started))
            loop.add_signal_handler(signal.SIGTERM, watching.cancel)
            await asyncio.wait([watching])
            if watching.cancelled() or watching.result():
                return
            loop.add_signal_handler(signal.SIGTERM, stop.set)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), RETRY_SECONDS)


async def _call_when(event: asyncio.Event, call: Callable[[], None]) -> None:
    await event.wait()
    call()


async def _watch(registry: Any, started: asyncio.Event) -> bool:
    """True: told to stop. False: kopf gave up, as when the API is away while it begins."""
    try:
        await kopf.operator(
            registry=registry,
            settings=_settings(),
            clusterwide=True,
            standalone=True,
            identity=IDENTITY,
            ready_flag=started,
        )
    except Exception as err:
        LOG.warning("the watches ended: %s; beginning again in %.0f s", err, RETRY_SECONDS)
        return False
    return True


def _settings() -> Any:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.process.ultimate_exiting_timeout = None
    settings.watching.inactivity_timeout = WATCH_SECONDS
    # The records of releases are the largest Secrets of all, and of no interest here.
    settings.watching.field_selectors["", "v1", "secrets"] = "type!=helm.sh/release.v1"
    settings.networking.connect_timeout = 10.0
    settings.networking.error_backoffs = (0.5, 1, 1, 2, 3, 5, 8, 10, 10, 10)
    return settings


def _login(registry: Any, config: Config) -> None:
    # Without end: kopf that gives up on logging in neither ends nor can be ended.
    @kopf.on.login(registry=registry, backoff=1.0)
    def login(**_: Any) -> Any:
        return _connection(read_kubeconfig(config.kubeconfig))


def _connection(found: Credentials) -> Any:
    return kopf.ConnectionInfo(
        server=found.server,
        ca_data=found.ca or None,
        certificate_data=found.certificate or None,
        private_key_data=found.key or None,
        token=found.token or None,
        insecure=found.insecure or None,
    )
