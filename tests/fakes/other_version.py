"""
``python -m tests.fakes.other_version MACHINE server …``: a version that has slots in folders.

What stands in ``<MACHINE>/<slot>/slot.json`` of the slot that runs is the version that it says it
is. ``<MACHINE>/broken-<version>`` breaks it, by what stands in there: "dies" before it does
anything, "no-operators" never gets its operators to run. ``restart`` ends the daemon, as systemd
would; :mod:`tests.e2e.slots` does what the boot loader does, and starts it again.
"""

import dataclasses
import os
import signal
import sys
from pathlib import Path

from controlplane.objects import version as served
from tests.fakes.slots import FakeMachine, FolderSlots


def _daemon() -> int:
    """The one that we, or a process aside, come from."""
    return int(os.environ["PINNACE_TEST_DAEMON"])


def main() -> int:
    folder = Path(sys.argv.pop(1))
    os.environ.setdefault("PINNACE_TEST_DAEMON", str(os.getpid()))
    machine = FakeMachine.found(folder)
    version = machine.version()
    served.VERSION = version
    broken = folder / f"broken-{version}"
    how = broken.read_text() if broken.exists() else ""
    if how == "dies":
        return 1

    # Loaded late: they take the version that is served by name.
    from node import __main__, daemon
    from node.update import place, watch

    def attached() -> FolderSlots:
        return machine.attach(lambda: os.kill(_daemon(), signal.SIGTERM))

    place.slots = attached
    real = place.moment
    place.moment = lambda: dataclasses.replace(real(), boot=f"boot {machine.boot()}")
    watch.board = lambda: FolderSlots.board
    if how == "no-operators":
        made = daemon.services
        daemon.services = lambda settings: [
            service for service in made(settings) if service.name != "operators"
        ]
    return __main__.main()


if __name__ == "__main__":
    raise SystemExit(main())
