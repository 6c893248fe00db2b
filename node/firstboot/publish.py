"""
Say how the machine is: on its screen, its serial line, and in ``status.txt`` on its partition.

Run when something changed (systemd says when: an address from DHCP, the node ready or dead), then
it ends again. Nothing is written where it says what it said before.
"""

import contextlib
import json
import re
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

from controlplane.objects.version import VERSION
from node.appliance import partition, release
from node.firstboot import keys, status
from node.firstboot.places import AUTHORIZED_KEYS, STATUS_NAME, Places
from node.firstboot.run import say_to_journal
from node.firstboot.status import FAILING, READY, STARTING, Status
from node.host.netlink import Netlink, attributes

UNIT = "pinnace.service"
PROBLEM = "problem"  # of the machine, one a line, below run: node/appliance/early.py
SHOWN = "screen"  # what the consoles showed last
_RESTARTS = 3  # a node that began so often does not start
_ROUTE_PROTOCOL, _GET_ADDRESS, _IFA_ADDRESS, _IFA_LOCAL = 0, 22, 1, 2  # rtnetlink(7)
_ADDRESS = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_CLEAR = "\x1b[H\x1b[2J\x1b[3J"


def publish(places: Places, say: Callable[[str], None]) -> Status:
    """Gather, and write where it changed. What cannot be written is said, not raised."""
    found = gather(places)
    try:
        to_file(places, found)
    except OSError as err:
        say(f"{STATUS_NAME} was not written: {err}")
    try:
        to_consoles(places, status.as_screen(found))
    except OSError as err:
        say(f"a console cannot be written to: {err}")
    return found


def to_file(places: Places, found: Status) -> bool:
    """Addresses that are still to come are not worth a write to the card."""
    path = places.partition / STATUS_NAME
    before = path.read_bytes().decode(errors="replace") if path.exists() else ""
    text = status.as_file(found)
    coming = found.state == STARTING or not found.addresses
    if text == before or (coming and _but_addresses(text) == _but_addresses(before)):
        return False
    with partition.writable(places.partition, places.run / partition.LOCK.name):
        partition.replace(path, text.encode())
    return True


def _but_addresses(text: str) -> list[str]:
    return [line for line in text.splitlines() if not re.match(r"Addresses:| {12}\S", line)]


def to_consoles(places: Places, text: str) -> None:
    shown = places.run / SHOWN
    if shown.exists() and shown.read_text() == text:
        return
    for console in consoles(places.sys):
        clear = _CLEAR if re.fullmatch(r"tty\d+", console.name) else "\n"
        with console.open("w", encoding="utf-8", errors="replace") as file:
            file.write(clear + text.replace("\n", "\r\n") + "\r\n")
    places.run.mkdir(parents=True, exist_ok=True)
    shown.write_text(text)


def consoles(sys: Path) -> list[Path]:
    """Those of the kernel; of the screen the first, which people see."""
    try:
        names = (sys / "class/tty/console/active").read_text().split()
    except OSError:
        return []
    return [Path("/dev", "tty1" if name == "tty0" else name) for name in names]


# What there is to say


def gather(places: Places) -> Status:
    try:
        said = json.loads(places.summary.read_text())
    except (OSError, ValueError):
        said = {}
    try:
        result = json.loads(places.result.read_text())
    except (OSError, ValueError):
        result = {}
    hostname = str(said.get("hostname") or "pinnace")
    booted, state = _release(), _state()
    return Status(
        hostname=hostname,
        mdns_name=f"{_mdns_host() or hostname}.local",
        node_name=str(said.get("nodeName") or hostname),
        version=booted.version if booted else VERSION,
        slot=release.slot(places.run / "slot"),
        board=booted.board if booted else "",
        state=state,
        reason=_last_words() if state == FAILING else "",
        addresses=status.reachable(_addresses()),
        fingerprints=_fingerprints(places.root / "etc/ssh"),
        has_keys=_has_keys(places.root / AUTHORIZED_KEYS),
        source=str(result.get("source") or "file"),
        problems=tuple(map(str, result.get("problems") or ())),
        faults=tuple(_lines(places.run / PROBLEM)),
    )


def _release() -> release.Release | None:
    try:
        return release.read()
    except ValueError:
        return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


def _fingerprints(folder: Path) -> tuple[str, ...]:
    found = (keys.fingerprint(" ".join(_lines(p))) for p in sorted(folder.glob("*_key.pub")))
    return tuple(filter(None, found))


def _has_keys(path: Path) -> bool:
    return any(line.strip() and not line.startswith("#") for line in _lines(path))


def _addresses() -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with contextlib.closing(Netlink(_ROUTE_PROTOCOL)) as kernel:
        for message in kernel.dump(_GET_ADDRESS, _ADDRESS.pack(0, 0, 0, 0, 0)):
            family, _, _, _, index = _ADDRESS.unpack_from(message.body)
            values = attributes(message.body, _ADDRESS.size)
            raw = values.get(_IFA_LOCAL) or values.get(_IFA_ADDRESS)
            if raw and family in (socket.AF_INET, socket.AF_INET6):
                link = socket.if_indextoname(index)
                found.setdefault(link, []).append(socket.inet_ntop(family, raw))
    return found


def _state() -> str:
    said = dict(
        line.partition("=")[::2]
        for line in _ask(
            "systemctl", "show", "-p", "ActiveState,SubState,NRestarts", UNIT
        ).splitlines()
    )
    # It says that it is ready before systemd has done what comes after: this, among others.
    if said.get("ActiveState") == "active" or said.get("SubState") == "start-post":
        return READY
    restarts = said.get("NRestarts", "0")
    often = restarts.isdecimal() and int(restarts) >= _RESTARTS
    return FAILING if said.get("ActiveState") == "failed" or often else STARTING


def _last_words() -> str:
    """What the node itself said last; not what systemd says of it."""
    said = _ask("journalctl", "-b", "-o", "cat", "-n", "1", f"_SYSTEMD_UNIT={UNIT}")
    return said.strip().removeprefix("pinnace: ")


def _mdns_host() -> str:
    """Where another machine has the name already, resolved has taken the next one."""
    service = ("org.freedesktop.resolve1", "/org/freedesktop/resolve1")
    name = "org.freedesktop.resolve1.Manager"
    said = _ask("busctl", "--json=short", "get-property", *service, name, "LLMNRHostname")
    try:
        return str(json.loads(said)["data"])
    except (ValueError, KeyError, TypeError):
        return ""


def _ask(*argv: str) -> str:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


if __name__ == "__main__":
    publish(Places(), say_to_journal)
