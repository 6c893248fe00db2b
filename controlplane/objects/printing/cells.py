"""What cells of many kinds have in common: ages, label lists, container lists, columns."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controlplane.objects.meta import parse_time

NONE = "<none>"
UNSET = "<unset>"
UNKNOWN = "<unknown>"

Object = Mapping[str, Any]
Cells = list[Any]


@dataclass(frozen=True, slots=True)
class Printer:
    """The columns of a kind, and the cells of one object at a time."""

    columns: tuple[dict[str, Any], ...]
    cells: Callable[[Object, datetime], Cells]


_DESCRIPTIONS = {
    "Name": "The name of the object, unique within its namespace.",
    "Age": "The time since the object was created.",
    "Created At": "The time at which the object was created.",
}


def columns(*names: str) -> tuple[dict[str, Any], ...]:
    """Of names; ``#`` behind one: an integer, ``?``: a boolean, ``*``: only in wide output."""
    return tuple(map(_column, names))


def _column(text: str) -> dict[str, Any]:
    name = text.rstrip("#?*")
    marks = text[len(name) :]
    kind = "integer" if "#" in marks else "boolean" if "?" in marks else "string"
    return {
        "name": name,
        "type": kind,
        "format": "name" if name == "Name" else "",
        "description": _DESCRIPTIONS.get(name, f"{name} of the object."),
        "priority": 1 if "*" in marks else 0,
    }


def name(obj: Object) -> str:
    return str((obj.get("metadata") or {}).get("name", ""))


def age(obj: Object, now: datetime) -> str:
    return since((obj.get("metadata") or {}).get("creationTimestamp"), now)


def since(time: str | None, now: datetime) -> str:
    """How long ago an API time was."""
    if not time:
        return UNKNOWN
    try:
        return human(now - parse_time(time))
    except ValueError:
        return "<invalid>"


def human(duration: timedelta) -> str:
    """Two or three significant figures: ``95s``, ``2m5s``, ``5h``, ``3d4h``, ``2y10d``."""
    seconds = int(duration.total_seconds())
    if seconds < -1:
        return "<invalid>"
    minutes, hours = seconds // 60, seconds // 3600
    days = hours // 24
    years = days // 365
    if seconds < 120:
        return f"{max(seconds, 0)}s"
    if minutes < 10:
        return _pair(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _pair(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _pair(days, "d", hours % 24, "h")
    if days < 365 * 2:
        return f"{days}d"
    return _pair(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _pair(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def spec(obj: Object) -> Mapping[str, Any]:
    return obj.get("spec") or {}


def status(obj: Object) -> Mapping[str, Any]:
    return obj.get("status") or {}


def labels(given: Mapping[str, str] | None) -> str:
    """``a=1,b=2``, sorted."""
    return ",".join(f"{key}={value}" for key, value in sorted((given or {}).items())) or NONE


def joined(values: Iterable[Any], separator: str = ",") -> str:
    return separator.join(map(str, values)) or NONE


def flag(value: bool | None) -> str:
    return UNSET if value is None else str(bool(value)).lower()


def containers(template: Object | None) -> tuple[str, str]:
    """The names and the images of a pod template's containers."""
    listed = ((template or {}).get("spec") or {}).get("containers") or ()
    return (
        ",".join(container.get("name", "") for container in listed),
        ",".join(container.get("image", "") for container in listed),
    )


def shortened(items: list[str], limit: int = 3) -> str:
    """The first few, and how many more there are."""
    if len(items) <= limit:
        return ",".join(items)
    return f"{','.join(items[:limit])} + {len(items) - limit} more..."
