"""
Where an update happens: which slots this machine has, and which start of it this is.

Loaded by those who have something to do with an update, and by nobody else.
"""

import asyncio
import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.appliance import release
from node.update.base import Slots

DATA = Path("/data")  # the data partition of the image
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Moment:
    now: datetime
    uptime: float  # seconds since the kernel started, sleep included
    boot: str


def moment() -> Moment:
    return Moment(
        now=datetime.fromtimestamp(time.time(), UTC),
        uptime=time.clock_gettime(time.CLOCK_BOOTTIME),
        boot=_BOOT_ID.read_text().strip(),
    )


def slots() -> Slots | None:
    """None: this machine was set up so that there is one version of Pinnace only."""
    name = "node.update.rauc" if release.slot() else "node.update.packages"
    found: Slots | None = importlib.import_module(name).of_machine()
    return found


async def commit(found: Slots) -> None:
    """For good; who waits for the end of the trial (pinnace-trial.timer) sees that it is over."""
    await found.commit()
    await asyncio.to_thread(release.TRIAL.unlink, missing_ok=True)


def copier() -> Callable[[str, str], None] | None:
    """Copies /etc and /var of one slot for the other; None where both have the same."""
    if not release.slot():
        return None
    module = importlib.import_module("node.appliance.overlays")

    def copy(from_slot: str, to_slot: str) -> None:
        module.copy_for_other_slot(DATA, from_slot, to_slot)
        os.sync()

    return copy
