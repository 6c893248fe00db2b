"""
Do something in a process of its own while no child runs, so that the daemon stays as it was.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

from node.supervise.process import LIBC, PR_SET_PDEATHSIG, log_as, name_this_process

LOG = logging.getLogger(__name__)
DIED = 70  # exit code


def run_aside(module: str, settings: Mapping[str, Any], name: str) -> int:
    """
    Call ``main(settings) -> int`` of a module, named here and loaded there; what it returned.

    Whoever ends the daemon meanwhile ends it too, wherever it stands.
    """
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)  # as they were before children were supervised
    sys.stdout.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = DIED
    try:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == parent:
            name_this_process(f"pinnace-{name}")
            log_as(name)
            code = int(importlib.import_module(module).main(settings))
    except BaseException:
        LOG.exception("%s died", name)
    finally:
        logging.shutdown()
        os._exit(code)
