"""
Slices of systemd, made and changed through systemd itself.

A cgroup that is written behind its back is set back at the next reload, so whoever runs with
systemd as the cgroup driver has to ask it. Root speaks to it on a socket of its own, also
where no message bus runs. Blocks.

Source: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from node.host.dbus import Connection, DBusError, Variant

SOCKET = Path("/run/systemd/private")
INFINITY = (1 << 64) - 1
_OBJECT = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_EXISTS = "org.freedesktop.systemd1.UnitExists"
_UNKNOWN = "org.freedesktop.systemd1.NoSuchUnit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """``numbers``: properties such as CPUWeight, MemoryMax; bytes, or microseconds."""

    name: str  # kubepods-burstable.slice lies in kubepods.slice
    numbers: Mapping[str, int]


def ensure(wanted: Slice) -> None:
    """Make the slice, or change it. ``OSError`` where systemd does not answer or refuses."""
    numbers = [(name, Variant("t", value)) for name, value in wanted.numbers.items()]
    with _speaking() as connection:
        properties = [
            ("Description", Variant("s", f"Pods of Pinnace: {wanted.name}")),
            ("DefaultDependencies", Variant("b", False)),
            *((f"{what}Accounting", Variant("b", True)) for what in ("CPU", "Memory", "Tasks")),
            *numbers,
        ]
        try:
            start, signature = f"{_MANAGER}.StartTransientUnit", "ssa(sv)a(sa(sv))"
            connection.call(_OBJECT, start, signature, wanted.name, "replace", properties, [])
        except DBusError as err:
            if err.name != _EXISTS:
                raise
            change = f"{_MANAGER}.SetUnitProperties"
            connection.call(_OBJECT, change, "sba(sv)", wanted.name, True, numbers)


def remove(name: str) -> None:
    """Stop the slice with all that runs in it; to remove what is gone is no error."""
    with _speaking() as connection:
        try:
            connection.call(_OBJECT, f"{_MANAGER}.StopUnit", "ss", name, "replace")
        except DBusError as err:
            if err.name != _UNKNOWN:
                raise


@contextlib.contextmanager
def _speaking() -> Iterator[Connection]:
    try:
        with Connection(SOCKET) as connection:
            yield connection
    except (OSError, DBusError) as err:
        raise OSError(f"systemd, the cgroup driver of the runtime: {err}") from err
