"""
Windows of time in which something may be changed: certain hours of certain days.

The meaning is that of ``spec.window`` of system-upgrade-controller's Plan, which is that of
kured's time windows, and it has one surprise: the days are those on which the clock shows
the time, not those on which the window began. ``22:00`` to ``02:00`` on Monday is
Monday from 0:00 to 2:00 and Monday from 22:00 to midnight. Name both days where the night
between them is meant. A window includes the second of its end. Pure: the time is an argument.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_NAMES = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_DAYS = {name[:length]: day for day, name in enumerate(_NAMES) for length in (2, 3, 9)} | {
    str(number): (number - 1) % 7
    for number in range(7)  # 0 is Sunday
}
_24_HOURS = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2}))?)?")
_12_HOURS = re.compile(r"(\d{1,2})(?::(\d{2}))?(am|pm)")
_MIDNIGHT = time()
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    days: frozenset[int]  # 0 is Monday
    start: time
    end: time  # included; before ``start``: the hours around midnight
    zone: ZoneInfo

    def open(self, now: datetime) -> bool:
        """``now`` has a tzinfo."""
        day = now.astimezone(self.zone).date()
        if day.weekday() not in self.days:
            return False
        started = self._at(day, self.start) <= now
        ended = self._at(day, self.end) + _SECOND <= now
        if self.start > self.end:
            return started or not ended
        return started and not ended

    def next_opening(self, now: datetime) -> datetime:
        """``now`` itself while the window is open; UTC."""
        if self.open(now):
            return now.astimezone(UTC)
        today = now.astimezone(self.zone).date()
        # Two weeks, since summer time may swallow the only opening of the first.
        found = (at for at in self._openings(today, days=15) if at > now and self.open(at))
        return next(found)

    def _openings(self, first: date, *, days: int) -> Iterator[datetime]:
        for day in (first + _DAY * number for number in range(days)):
            if day.weekday() in self.days:
                if self.start > self.end:
                    yield self._at(day, _MIDNIGHT)
                yield self._at(day, self.start)

    def _at(self, day: date, moment: time) -> datetime:
        """
        When the clock of the zone shows this. Where summer time skips it: as much later;
        where the clock shows it twice: the first time.
        """
        return datetime.combine(day, moment, tzinfo=self.zone).astimezone(UTC)


def parse(given: Mapping[str, Any]) -> Window:
    """
    From ``{days: [mo, tuesday, 3, …], startTime, endTime, timeZone}``.

    Times are ``15``, ``15:04``, ``15:04:05``, ``3pm``, ``03:04pm``; the zone is
    an IANA name, UTC where none is given. Raises ValueError, which says what is wrong.
    """
    days = frozenset(_day(str(day)) for day in given.get("days") or () if str(day))
    if not days:
        raise ValueError("days: at least one day is needed")
    return Window(
        days=days,
        start=_time("startTime", given),
        end=_time("endTime", given),
        zone=_zone(str(given.get("timeZone") or "UTC")),
    )


def _day(text: str) -> int:
    try:
        return _DAYS[text.lower()]
    except KeyError as err:
        raise ValueError(f"days: {text!r} is no day of the week") from err


def _time(field: str, given: Mapping[str, Any]) -> time:
    text = str(given.get(field) or "")
    try:
        if found := _24_HOURS.fullmatch(text):
            hour, minute, second = (int(part or 0) for part in found.groups())
            return time(hour, minute, second)
        if (found := _12_HOURS.fullmatch(text)) and (hour := int(found[1])) <= 12:
            return time(hour % 12 + 12 * (found[3] == "pm"), int(found[2] or 0))
    except ValueError:
        pass
    raise ValueError(f"{field}: {text!r} is no time of the day such as 22:00")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    # A name with a slash in front or of a folder is refused in other ways than an unknown one.
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise ValueError(f"timeZone: {name!r} is not known on this machine") from err
