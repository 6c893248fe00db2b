"""
The node daemon: load what is shared once, fork the children, look after them, nothing else.

The children share what was loaded here copy-on-write, so this process must
stay as it was at the first fork: one thread, no event loop, no connection.
:mod:`node.supervise.memory` keeps what is shared from being written to, and so copied.
"""

import contextlib
import importlib
import logging
import shutil
import time
from asyncio import sslproto
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.config import from_settings
from node.supervise import addresses, clock, containerd, memory, preflight
from node.supervise.apply import Supervisor
from node.supervise.aside import run_aside
from node.supervise.base import Forked, Service
from node.supervise.notify import notify
from node.supervise.process import log_as, name_this_process
from node.update.rest import mark_void, needs_one_alone, running_slot

LOG = logging.getLogger(__name__)

# What at least two children use. By name: the daemon itself uses none of it. What
# only one of them uses it loads itself: here it would be in memory twice, once for
# the child, which changes the pages that it runs, and once as they were.
PRELOAD = (
    "asyncio",
    "concurrent.futures.thread",
    "gzip",
    "hmac",
    "secrets",
    "ssl",
    "aiohttp",
    "aiohttp.web",
    "orjson",
    "yaml",
    "controlplane.objects.meta",
    "controlplane.objects.moment",
    "controlplane.objects.resources",
    "controlplane.objects.selectors",
    "controlplane.objects.validation.names",
)

TLS_BUFFER = 16 * 1024
MAY_START, RESTARTING = 0, 75  # what node.update.recover returns; else it has died
RESTART_SECONDS = 300.0
EXIT_RESTARTING = 1  # systemd starts us again, and we look again


def services(settings: Mapping[str, Any]) -> Sequence[Service]:
    """The children, in the order in which they start."""
    config = from_settings(settings)
    program = shutil.which("containerd") or "containerd"
    found: list[Service] = [containerd.service(config, program)]
    after: tuple[str, ...] = ()
    if settings["role"] == "server":
        found.append(Forked(name="api", module="controlplane.run", settings=settings))
        after = ("api",)
    found.append(
        Forked(name="agent", module="node.run", settings=settings, after=(*after, "containerd"))
    )
    found.append(Forked(name="operators", module="operators.run", settings=settings, after=after))
    return found


def preload(names: Sequence[str] = PRELOAD) -> None:
    for name in names:
        importlib.import_module(name)
    # asyncio reserves a quarter of a megabyte for each connection; all that we read fits in this.
    sslproto.SSLProtocol.max_size = TLS_BUFFER
    memory.settle()


def may_start(settings: Mapping[str, Any]) -> bool:
    """
    Go on with an update that was begun, as far as that needs a machine on which no child runs.

    False: the machine should have started anew by now, and has not.
    """
    folder = Path(settings["data-dir"]) / "update"
    if not needs_one_alone(folder):
        return True
    code = run_aside("node.update.recover", settings, "update")
    if code != RESTARTING:
        if code != MAY_START:
            with contextlib.suppress(OSError):  # where this cannot be written, nothing can
                mark_void(folder, running_slot())
        return True
    time.sleep(RESTART_SECONDS)  # whoever restarts us ends this
    return False


def serve(settings: Mapping[str, Any], *, notify_address: str, say: Callable[[str], None]) -> int:
    """
    Run the node until SIGTERM; the pods keep running after that.

    Raises :class:`node.supervise.preflight.CannotStart` before anything is started.
    """
    began = time.monotonic()
    logging.basicConfig(level=logging.DEBUG if settings["debug"] else logging.INFO)
    log_as("daemon")
    run_dir = Path(settings["run-dir"])
    with preflight.lock(run_dir):
        if not may_start(settings):
            return EXIT_RESTARTING
        preflight.check(settings)
        wall = clock.begin(settings)
        settings = {**settings, "clock": wall}
        name_this_process("pinnace")
        memory.small_pages(on=True)
        preload()

        def all_ready() -> None:
            notify(notify_address, "READY=1")
            say(f"pinnace is ready after {time.monotonic() - began:.1f} s")
            say(f"kubeconfig: {settings['write-kubeconfig']}")

        while True:
            supervisor = Supervisor(
                services(settings), run_dir=run_dir, clock=time.monotonic, on_ready=all_ready
            )
            supervisor.follow(wall)
            with contextlib.closing(addresses.Addresses(settings)) as own:
                supervisor.follow_addresses(own)
                if not supervisor.run():
                    break
            if not may_start(settings):
                return EXIT_RESTARTING
            settings = addresses.current(settings)
        clock.end(wall, Path(settings["data-dir"]))
        notify(notify_address, "STOPPING=1")
    return 0
