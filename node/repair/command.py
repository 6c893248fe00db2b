"""
``pinnace repair [--yes]``: look at everything, say it in plain words, and mend what can be mended.

Exit code 0: nothing is wrong, or all was mended. 2: something is wrong and was not mended. 1: it
could not be looked at all.
"""

import contextlib
import fcntl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from node.repair import certificates, containers, datastore, disk
from node.repair.base import Finding, Options, Place, State, Unmendable
from node.settings import UsageError
from node.supervise.preflight import CannotStart, lock

USAGE = "usage: pinnace repair [--yes] [--from-snapshot[=FILE]] [--new-certificates] [FLAGS]"
NOT_MENDED = 2


def parse(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """What was asked for, and the flags of the server."""
    if {"-h", "--help"} & set(arguments):
        raise UsageError(USAGE)
    rest = list(arguments)
    snapshot = ""
    for word in arguments:
        if word == "--from-snapshot" or word.startswith("--from-snapshot="):
            snapshot = word.partition("=")[2] or "newest"
            rest.remove(word)
    chosen = Options(
        yes="--yes" in rest,
        from_snapshot=snapshot,
        new_certificates="--new-certificates" in rest,
    )
    return chosen, [w for w in rest if w not in {"--yes", "--new-certificates"}]


def run(options: Options, settings: Mapping[str, Any], say: Callable[[str], None]) -> int:
    """Raises :class:`UsageError`."""
    data, now = Path(settings["data-dir"]), time.time()
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(now))
    running = _is_running(Path(settings["run-dir"]))
    place = Place(
        settings=dict(settings),
        data=data,
        run=Path(settings["run-dir"]),
        running=running,
        aside=data / "repair" / stamp,
    )
    if not data.is_dir():
        raise UsageError(f"there is no data folder {data}: name it with --data-dir")
    with contextlib.ExitStack() as stack:
        if running and options.yes:
            raise UsageError("the node runs: stop it first (`systemctl stop pinnace`)")
        if options.yes:
            try:
                stack.enter_context(lock(place.run))
            except CannotStart as err:
                raise UsageError(str(err)) from err
        elif running:
            say("the node runs: this is a look only")
        found = list(look(place, options, now))
        return _report(found, options, say)


def look(place: Place, options: Options, now: float) -> Iterator[Finding]:
    yield from disk.look(place)
    yield from datastore.look(place, options)
    yield from containers.look(place)
    yield from certificates.look(place, options, now)
    yield from disk.update(place)


def _report(found: Sequence[Finding], options: Options, say: Callable[[str], None]) -> int:
    left = 0
    for finding in found:
        say(f"{finding.state.value:<6} {finding.area}: {finding.text}")
        if finding.state is not State.WRONG:
            continue
        if options.yes and finding.mend is not None:
            try:
                say(f"       mended: {finding.mend()}")
                continue
            except (OSError, Unmendable) as err:
                say(f"       not mended: {err}")
        elif finding.would:
            say(f"       would: {finding.would}")
        left += 1
    if not left:
        say("nothing is wrong" if not any(f.mend for f in found) else "all is mended")
        return 0
    if not options.yes and any(f.mend is not None for f in found):
        say("nothing was changed: stop the node and say --yes to mend it")
    return NOT_MENDED


def _is_running(run_dir: Path) -> bool:
    """Without taking its lock for longer than a moment."""
    try:
        with (run_dir / "pinnace.lock").open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
