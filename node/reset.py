"""
``pinnace reset --keep-data | --wipe``: back to a machine on which nothing was ever started.

On an appliance it is asked for here and done at the next start, before anything is mounted; on a
plain Debian at once. Without ``--yes`` it says what would be done.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from node import killall
from node.appliance import release, reset
from node.host import mounts
from node.settings import UsageError
from node.supervise.preflight import lock

USAGE = "usage: pinnace reset --keep-data | --wipe [--yes] [FLAGS]"
CONFIG = Path("/boot/pinnace")
_FLAGS = mounts.NO_SUID | mounts.NO_DEVICES | mounts.NO_EXECUTE
WHAT = {
    "keep": "objects, certificates, tokens, container images and settings go; volumes stay",
    "wipe": "all that is in {folder} goes, volumes too",
}


def parse(arguments: Sequence[str]) -> tuple[str, bool, list[str]]:
    """Mode, whether it was confirmed, and what else was said. Raises :class:`UsageError`."""
    modes = {"--keep-data": "keep", "--wipe": "wipe"}
    given = [modes[a] for a in arguments if a in modes]
    if len(given) != 1:
        raise UsageError(USAGE)
    rest = [a for a in arguments if a not in modes and a != "--yes"]
    return given[0], "--yes" in arguments, rest


def run(mode: str, settings: Mapping[str, Any], say: Callable[[str], None], *, yes: bool) -> None:
    """Raises :class:`UsageError`."""
    folder = Path(settings["data-dir"])
    say(WHAT[mode].format(folder=folder))
    if not yes:
        raise UsageError("nothing was done: say --yes as well to go on")
    if release.read() is not None:
        _ask(mode)
        say("start the machine anew (`reboot`): it is done before anything else")
        return
    killall.run(settings, say)  # refuses while the daemon runs
    with lock(Path(settings["run-dir"])):
        busy = mounts.mounted_below(folder)
        if busy and busy != [folder]:
            raise UsageError(f"{busy[0]} is still mounted: unmount it, or restart the machine")
        try:
            reset.clear(mode, folder)
            kubeconfig = Path(settings["write-kubeconfig"])
            kubeconfig.unlink(missing_ok=True)
        except OSError as err:
            raise UsageError(f"{err.filename}: {err.strerror}; run it again") from err
    say("done")


def _ask(mode: str) -> None:
    """Write the marker where the next start looks for it."""
    try:
        mounts.remount(CONFIG, flags=_FLAGS)
        try:
            (CONFIG / reset.MARKER).write_text(f"{mode}\n")
        finally:
            mounts.remount(CONFIG, flags=_FLAGS | mounts.READ_ONLY)
    except OSError as err:
        raise UsageError(f"{CONFIG} cannot be written: {err.strerror}") from err
