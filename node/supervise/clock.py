"""
The time that this node begins with, where the machine has no clock that can be believed.

A board without a battery starts in 1970, or in the year in which its system was built. No true
clock is behind this program, behind the image, or behind the last write to the data
folder; the latest of these is the floor. Nothing is written for that: what the datastore writes
anyway carries the time, and an orderly stop touches one file more.

What happened to the clock since the machine started is kept in the run folder, so that a daemon
that is started again knows which times were written under which clock.
"""

import json
import logging
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from controlplane.client.clock import WallClock
from controlplane.objects.moment import BUILD
from node.appliance import release

LOG = logging.getLogger(__name__)
RTC = Path("/sys/class/rtc/rtc0")
SYNCHRONIZED = Path("/run/systemd/timesync/synchronized")  # there once the time came by NTP
STATE = "clock.json"
LAST_SEEN = "clock"  # an empty file of the data folder; its time says when the node stopped
WRITTEN = ("server/db/state.db-wal", "server/db/state.db", LAST_SEEN)


def last_seen(data_dir: Path) -> float:
    """The time of the last write that is known of; 0: none."""
    found = 0.0
    for name in WRITTEN:
        try:
            found = max(found, (data_dir / name).stat().st_mtime)
        except OSError:
            continue
    return found


def floor_of(wall: float, *, built: float, seen: float, may_be_right: bool) -> float:
    """
    No true clock is behind this; seconds since 1970. ``built``: of the program or the image.

    What was seen last is one clock's word against another's: it counts where the machine's own
    is impossible, or may not be right.
    """
    return max(built, seen) if wall < built or not may_be_right else built


def begin(settings: Mapping[str, Any]) -> WallClock:
    """The clock of this node; the machine's own is set forward where that is allowed."""
    data_dir, run_dir = Path(settings["data-dir"]), Path(settings["run-dir"])
    image = release.read()
    may_be_right = image is None or RTC.exists() or SYNCHRONIZED.exists()
    built = max(BUILD.timestamp(), float(image.epoch) if image is not None else 0.0)
    wall = time.time()
    floor = floor_of(wall, built=built, seen=last_seen(data_dir), may_be_right=may_be_right)
    sure = may_be_right and wall >= floor
    if wall < floor and (image is not None or settings["set-clock"]):
        _set(floor)
    clock = WallClock(floor=floor, sure=sure)
    _resume(clock, run_dir / STATE)
    if not clock.sure:
        LOG.warning(
            "the machine's clock says %s, which cannot be believed: going on from %s until "
            "somebody sets it; a time server or `timedatectl set-time` does",
            _shown(wall),
            _shown(clock.check()),
        )
    clock.on_step.append(_Noted(clock, data_dir, run_dir / STATE))
    return clock


def end(clock: WallClock, data_dir: Path) -> None:
    """An orderly stop: the next start is not before this."""
    _touch(data_dir / LAST_SEEN, clock.check())


def _set(seconds: float) -> None:
    try:
        time.clock_settime(time.CLOCK_REALTIME, seconds)
    except OSError as err:
        LOG.warning("the machine's clock cannot be set: %s", err.strerror)


def _resume(clock: WallClock, path: Path) -> None:
    try:
        clock.resume(json.loads(path.read_text()))
    except FileNotFoundError:
        pass
    except (OSError, KeyError, TypeError, ValueError) as err:
        LOG.warning("%s is not used: %s", path, err)
    clock.check()
    _keep(clock, path)


def _keep(clock: WallClock, path: Path) -> None:
    draft = path.with_suffix(".new")
    try:
        draft.write_text(json.dumps(clock.state()))
        draft.replace(path)
    except OSError as err:
        LOG.warning("%s was not written: %s", path, err.strerror)


class _Noted:
    """In the daemon: what is said and kept when the clock was set."""

    def __init__(self, clock: WallClock, data_dir: Path, path: Path) -> None:
        self._clock, self._data_dir, self._path = clock, data_dir, path
        self._pid = os.getpid()

    def __call__(self, by: timedelta) -> None:
        if os.getpid() != self._pid:
            return  # a child, which has the daemon's clock as it was when it was forked
        now = self._clock.check()
        LOG.info("the clock was set by %+.0f s and is %s now", by.total_seconds(), _shown(now))
        _keep(self._clock, self._path)
        if by < timedelta(0):
            lower(self._data_dir, now)


def lower(data_dir: Path, now: float) -> None:
    """The clock was ahead: what it wrote must not be the floor of the next start."""
    for name in WRITTEN:
        path = data_dir / name
        try:
            ahead = path.stat().st_mtime > now
        except OSError:
            continue
        if ahead:
            _touch(path, now)


def _touch(path: Path, seconds: float) -> None:
    try:
        path.touch(mode=0o644)
        os.utime(path, (seconds, seconds))
    except OSError as err:
        LOG.warning("%s was not written: %s", path, err.strerror)


def _shown(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
