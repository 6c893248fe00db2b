"""
Make one child process, and talk to it.

A forked child gets one end of a socket pair: it writes ``r`` when it is ready
and answers each ``?`` with ``!`` from its event loop, which shows that the loop
runs. An executed child gets a datagram socket for systemd's ``READY=1``. Both
die with the daemon (PR_SET_PDEATHSIG): the containers do not, since their shims
are no children of ours.
"""

import asyncio
import ctypes
import gc
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.supervise.base import Executed, Forked
from node.supervise.memory import small_pages

LOG = logging.getLogger(__name__)
PR_SET_PDEATHSIG = 1
PR_SET_NAME = 15
LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(slots=True)
class Running:
    """A child that was started; ``socket`` carries its signs of life."""

    pid: int
    socket: socket.socket

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def ask(self) -> None:
        self.socket.send(b"?")

    def close(self) -> None:
        self.socket.close()


def name_this_process(name: str) -> None:
    LIBC.prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def log_as(name: str) -> None:
    """Lines of this process are marked with the name."""
    form = f"%(asctime)s %(levelname).1s {name} %(name)s: %(message)s"
    for handler in logging.getLogger().handlers:
        handler.setFormatter(logging.Formatter(form))


def fork(service: Forked) -> Running:
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        theirs.close()
        ours.setblocking(False)
        return Running(pid, ours)
    ours.close()
    code = 70
    try:
        code = _be_child(service, theirs, parent)
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        LOG.exception("%s died", service.name)
    finally:
        logging.shutdown()
        os._exit(code)


def _be_child(service: Forked, sign: socket.socket, parent: int) -> int:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the daemon died before the line above took effect
        return 1
    name_this_process(f"pinnace-{service.name}")
    log_as(service.name)
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    # ^C in a terminal is for the daemon, which stops us in order; kopf would listen to it too.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.enable()
    sign.setblocking(False)
    main: Callable[..., int] = importlib.import_module(service.module).main
    return main(service.settings, lambda: _say_ready(sign))


def _say_ready(sign: socket.socket) -> None:
    """Called in the child, within its event loop, once it serves."""

    def answer() -> None:
        if sign.recv(16):
            sign.send(b"!")
        else:
            asyncio.get_running_loop().remove_reader(sign)

    asyncio.get_running_loop().add_reader(sign, answer)
    sign.send(b"r")


def execute(service: Executed, run_dir: Path) -> Running:
    path = run_dir / f"notify-{service.name}.sock"
    path.unlink(missing_ok=True)
    notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notify.bind(str(path))
    notify.setblocking(False)
    environment = {**os.environb, b"NOTIFY_SOCKET": bytes(path)}
    environment |= {key.encode(): text.encode() for key, text in service.environment.items()}
    service.log.parent.mkdir(parents=True, exist_ok=True)
    with service.log.open("ab") as log:
        child = subprocess.Popen(
            service.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_the_daemon,
        )
    # The daemon reaps all children itself; Popen must not warn that it did not.
    child.returncode = 0
    return Running(child.pid, notify)


def _die_with_the_daemon() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    small_pages(on=False)  # not for containerd and the pods
