"""
How long a pod that failed is left alone before it is replaced.

A kubelet that refuses a pod refuses the next one too; without a pause the two would keep
each other busy.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from controlplane.objects.moment import elapsed, left

FIRST = timedelta(seconds=1)
LONGEST = timedelta(minutes=15)

Place = tuple[str, int, str]  # uid of the DaemonSet, its generation, node


@dataclass(slots=True)
class _Entry:
    pause: timedelta
    since: datetime


class Replacements:
    """
    Pauses between replacements of failed pods, doubled each time.

    Its mutable state is the last replacement at each place; a restart forgets them all,
    which costs one early replacement each.
    """

    def __init__(self) -> None:
        self._entries: dict[Place, _Entry] = {}

    def left(self, place: Place, now: datetime) -> timedelta:
        """Of the pause; zero where the pod may be replaced."""
        entry = self._entries.get(place)
        if entry is None:
            return timedelta(0)
        return left(entry.since, entry.pause, now)

    def replaced(self, place: Place, now: datetime) -> None:
        self._forget(now)
        entry = self._entries.get(place)
        pause = FIRST if entry is None else min(entry.pause * 2, LONGEST)
        self._entries[place] = _Entry(pause, now)

    def _forget(self, now: datetime) -> None:
        old = [place for place, e in self._entries.items() if elapsed(e.since, now) > 2 * LONGEST]
        for place in old:
            del self._entries[place]
