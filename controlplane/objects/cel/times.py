"""Parts of timestamps and durations, in UTC or in a zone."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from controlplane.objects.cel.values import CelError, Duration, Timestamp, no_overload


def _zone(name: str) -> tzinfo:
    if name[:1] in "+-" or name[:1].isdecimal():
        sign, digits = (-1, name[1:]) if name[:1] == "-" else (1, name.removeprefix("+"))
        hours, _, minutes = digits.partition(":")
        if hours.isdecimal() and minutes.isdecimal() and int(hours) < 24 and int(minutes) < 60:
            return timezone(sign * timedelta(hours=int(hours), minutes=int(minutes)))
        raise CelError(f"unknown time zone {name}")
    if name in ("UTC", ""):
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as err:
        raise CelError(f"unknown time zone {name}") from err


def _part(pick: Callable[[datetime], int]) -> Callable[..., int]:
    def part(value: Any, zone: str = "UTC") -> int:
        if not isinstance(value, Timestamp):
            raise no_overload()
        return pick(value.moment().astimezone(_zone(zone)))

    return part


def _of_both(pick: Callable[[datetime], int], nanos: int) -> Callable[..., int]:
    """Of a duration the whole number of such units."""
    of_timestamp = _part(pick)

    def part(value: Any, zone: str = "UTC") -> int:
        if isinstance(value, Duration):
            whole = abs(value.nanos) // nanos
            return -whole if value.nanos < 0 else whole
        return of_timestamp(value, zone)

    return part


def _milliseconds(value: Any, zone: str = "UTC") -> int:
    if isinstance(value, Duration):
        whole = abs(value.nanos) // 10**6
        return -whole if value.nanos < 0 else whole
    return _part(lambda moment: moment.microsecond // 1000)(value, zone)


METHODS: dict[str, Callable[..., Any]] = {
    "getFullYear": _part(lambda moment: moment.year),
    "getMonth": _part(lambda moment: moment.month - 1),
    "getDate": _part(lambda moment: moment.day),
    "getDayOfMonth": _part(lambda moment: moment.day - 1),
    "getDayOfWeek": _part(lambda moment: moment.isoweekday() % 7),
    "getDayOfYear": _part(lambda moment: moment.timetuple().tm_yday - 1),
    "getHours": _of_both(lambda moment: moment.hour, 3600 * 10**9),
    "getMinutes": _of_both(lambda moment: moment.minute, 60 * 10**9),
    "getSeconds": _of_both(lambda moment: moment.second, 10**9),
    "getMilliseconds": _milliseconds,
}
