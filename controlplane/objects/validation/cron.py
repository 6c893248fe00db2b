"""
Cron schedules: parsed, and asked for their next time.

Five fields with names, steps, ranges and lists, the ``@daily`` kind of macros, and
``@every <duration>``, as the API accepts them (robfig/cron v3, standard parser).
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache

_MONTHS = {
    name: index
    for index, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1)
}
_DAYS = {name: index for index, name in enumerate("sun mon tue wed thu fri sat".split())}
# Name, lowest, highest, names for values.
_FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("dom", 1, 31, {}),
    ("month", 1, 12, _MONTHS),
    ("dow", 0, 6, _DAYS),
)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_YEARS_AHEAD = 5


class ScheduleError(ValueError):
    """The text is no schedule; the message says why."""


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    # Whether both kinds of days were restricted: then either one will do.
    either_day: bool
    every: timedelta | None = None

    def next_after(self, time: datetime) -> datetime | None:
        """
        The first time after ``time``, in its time zone; None within five years.

        Wall clock arithmetic: the caller passes a time in the schedule's time zone.
        """
        if self.every is not None:
            return time.replace(microsecond=0) + self.every
        time = time.replace(second=0, microsecond=0) + timedelta(minutes=1)
        last = time.year + _YEARS_AHEAD
        while time.year <= last:
            if time.month not in self.months:
                time = _next_month(time)
            elif not self._is_day(time):
                time = time.replace(hour=0, minute=0) + timedelta(days=1)
            elif time.hour not in self.hours:
                time = time.replace(minute=0) + timedelta(hours=1)
            elif time.minute not in self.minutes:
                time += timedelta(minutes=1)
            else:
                return time
        return None

    def _is_day(self, time: datetime) -> bool:
        of_month = time.day in self.days
        of_week = time.isoweekday() % 7 in self.weekdays
        return (of_month or of_week) if self.either_day else (of_month and of_week)


def _next_month(time: datetime) -> datetime:
    year, month = divmod(time.year * 12 + time.month, 12)
    return time.replace(year=year, month=month + 1, day=1, hour=0, minute=0)


@lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
    """Raise :class:`ScheduleError` for what is no schedule; time zones are given elsewhere."""
    if not text.strip():
        raise ScheduleError("empty spec string")
    if text.startswith("@every "):
        return _every(text.removeprefix("@every "))
    if text.startswith("@"):
        if text not in _MACROS:
            raise ScheduleError(f"unrecognized descriptor: {text}")
        text = _MACROS[text]
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ScheduleError(f"expected exactly 5 fields, found {len(parts)}: [{' '.join(parts)}]")
    minutes, hours, days, months, weekdays = (
        _field(part, low, high, known)
        for part, (_, low, high, known) in zip(parts, _FIELDS, strict=True)
    )
    # The day fields are alternatives only where neither begins with a star.
    either = not parts[2].startswith(("*", "?")) and not parts[4].startswith(("*", "?"))
    return Schedule(minutes, hours, days, months, weekdays, either)


def _every(text: str) -> Schedule:
    found = _DURATION.findall(text)
    if not found or "".join(number + unit for number, unit in found) != text:
        raise ScheduleError(
            f'failed to parse duration @every {text}: time: invalid duration "{text}"'
        )
    seconds = sum(float(number) * _UNITS[unit] for number, unit in found)
    nothing: frozenset[int] = frozenset()
    every = timedelta(seconds=max(1, int(seconds)))
    return Schedule(nothing, nothing, nothing, nothing, nothing, False, every)


def _field(text: str, low: int, high: int, known: dict[str, int]) -> frozenset[int]:
    values: set[int] = set()
    for part in text.split(","):
        values |= _range(part, low, high, known)
    return frozenset(values)


def _range(text: str, low: int, high: int, known: dict[str, int]) -> set[int]:
    span, slash, step_text = text.partition("/")
    step = _number(step_text, {}) if slash else 1
    first_text, dash, last_text = span.partition("-")
    if first_text in ("*", "?"):
        if dash:
            raise ScheduleError(f"too many hyphens: {text}")
        first, last = low, high
    else:
        first = _number(first_text, known)
        last = _number(last_text, known) if dash else (high if slash else first)
    if first < low:
        raise ScheduleError(f"beginning of range ({first}) below minimum ({low}): {text}")
    if last > high:
        raise ScheduleError(f"end of range ({last}) above maximum ({high}): {text}")
    if first > last:
        raise ScheduleError(f"beginning of range ({first}) beyond end of range ({last}): {text}")
    if step == 0:
        raise ScheduleError(f"step of range should be a positive number: {text}")
    return set(range(first, last + 1, step))


def _number(text: str, known: dict[str, int]) -> int:
    if text.lower() in known:
        return known[text.lower()]
    if not text.isascii() or not text.isdigit():
        raise ScheduleError(f"failed to parse int from {text}: invalid syntax")
    return int(text)
