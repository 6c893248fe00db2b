"""
Which units of systemd start in an image: links, made as data and never by ``systemctl``.

They lie in ``/usr``, so that a slot's own ``/etc`` holds nothing but what its user changed.
Debian's own units start where it is said here; ours (``image-build/files/root``) where their
``[Install]`` section says so.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

SYSTEM = "usr/lib/systemd/system"
# What packages' own links do not start already: unit → target that wants it.
ENABLED: Mapping[str, str] = {
    "systemd-networkd.service": "multi-user.target",
    "systemd-networkd.socket": "sockets.target",
    "systemd-resolved.service": "sysinit.target",
    "systemd-timesyncd.service": "sysinit.target",
    "systemd-pstore.service": "sysinit.target",
}
# Names under which D-Bus starts them.
ALIASES: Mapping[str, str] = {
    "dbus-org.freedesktop.network1.service": "systemd-networkd.service",
    "dbus-org.freedesktop.resolve1.service": "systemd-resolved.service",
    "dbus-org.freedesktop.timesync1.service": "systemd-timesyncd.service",
    "default.target": "multi-user.target",
}


class UnitError(Exception):
    """A unit that is to start is not there."""


def enable(tree: Path, masked: frozenset[str], own: frozenset[str]) -> None:
    """
    Make all links. ``own``: names of units of ours. Raises :class:`UnitError`.
    """
    folder = tree / SYSTEM
    for unit in sorted(masked):
        (folder / unit).unlink(missing_ok=True)
        (folder / unit).symlink_to("/dev/null")
        for wanted in sorted(folder.glob(f"*.wants/{unit}")):
            wanted.unlink()
    for name, unit in ALIASES.items():
        _require(folder / unit)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(unit)
    for unit, target in [*ENABLED.items(), *_installs(folder, own)]:
        template = re.sub(r"@[^.]+\.", "@.", unit)
        _require(folder / template)
        link = folder / f"{target}.wants" / unit
        link.parent.mkdir(exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(f"../{template}")


def _require(path: Path) -> None:
    if not path.exists():
        raise UnitError(f"{path.name} is to start and is in no package")


def _installs(folder: Path, own: frozenset[str]) -> Iterator[tuple[str, str]]:
    for unit in sorted(own):
        text = (folder / unit).read_text()
        instance = re.search(r"^DefaultInstance=(\S+)$", text, re.MULTILINE)
        name = unit.replace("@.", f"@{instance[1]}.") if instance else unit
        for line in re.findall(r"^WantedBy=(.*)$", text, re.MULTILINE):
            yield from ((name, target) for target in line.split())


def dangling(tree: Path) -> list[str]:
    """Links of ``*.wants`` folders to units that are not there."""
    links = (tree / SYSTEM).glob("*.wants/*")
    return sorted(link.relative_to(tree).as_posix() for link in links if not link.exists())
