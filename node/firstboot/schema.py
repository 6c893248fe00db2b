"""
``pinnace.yaml`` as :class:`~node.firstboot.base.Settings`, or every mistake that is in it.

Nothing of the machine is read here: the same check runs where a card is written
(``pinnace image check``) and where it boots.
"""

import re
from collections.abc import Callable, Container
from typing import TypeVar

from node.firstboot import cluster, document, keys, network
from node.firstboot.base import ConfigError, Problem, Settings
from node.firstboot.fields import At, present, shown
from node.flags import BY_NAME, NOT_SUPPORTED

T = TypeVar("T")
_REFUSED = {
    "swap": "is not supported: memory that is swapped to a card wears it out; zram is on already",
    "dataEncryption": "is not supported yet: the data partition is not encrypted",
    "server": "is not supported yet: this version runs one server, 'pinnace agent' comes later",
    "users": "is not supported: there is one user, root, with the keys under 'ssh'",
    "password": "is not supported: login is by key alone, see 'ssh'",
    "sshKeys": "is written 'ssh: {keys: […]}'",
    "ssh_authorized_keys": "is written 'ssh: {keys: […]}'",
    "labels": "is called 'nodeLabels'",
    "taints": "is called 'nodeTaints'",
    "ntp": "is called 'timeServers'",
    "timezone": "is called 'timeZone'",
}
_SSH_REFUSED = {
    "password": "is not supported: login is by key alone",
    "passwordAuthentication": "is not supported: login is by key alone",
    "permitRootLogin": "is not supported: root logs in by key alone",
    "authorizedKeys": "is called 'keys' here",
    "authorized_keys": "is called 'keys' here",
}
_HOSTNAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_SECONDS = re.compile(r"(\d{1,5})\s*(s|m|min)?")
WATCHDOG = (10, 300)  # seconds; below, a slow card is taken for a hang


def parse(data: bytes, *, time_zones: Container[str] | None = None) -> Settings:
    """
    The settings; of an empty file the defaults.

    ``time_zones`` are the names that exist, None where that is not known.
    Raises :class:`ConfigError`, which holds every mistake.
    """
    found: list[Problem] = []
    try:
        top = document.compose(document.decode(data), found)
        settings = _settings(top, time_zones) if top is not None else Settings()
    except RecursionError as err:
        raise ConfigError([Problem(0, "", "has too many values within each other")]) from err
    if found:
        raise ConfigError(found)
    return settings


def _settings(top: At, time_zones: Container[str] | None) -> Settings:
    given = top.fields(_READERS, _REFUSED | _flags_at_the_top())
    if "role" in given:
        _role(given["role"])
    return Settings(
        hostname=_read(given, "hostname", _hostname, ""),
        links=_read(given, "network", network.links, ()),
        wifi=_read(given, "wifi", network.wifi, None),
        ssh_keys=_read(given, "ssh", _ssh, ()),
        token=_read(given, "token", cluster.token, ""),
        time_servers=_read(given, "timeServers", _time_servers, ()),
        time_zone=_read(given, "timeZone", lambda at: _time_zone(at, time_zones), ""),
        manifests=_read(given, "manifests", cluster.manifests, ()),
        registries=_read(given, "registries", cluster.image_registries, {}),
        node_labels=_read(given, "nodeLabels", cluster.labels, ()),
        node_taints=_read(given, "nodeTaints", cluster.taints, ()),
        disable=_read(given, "disable", cluster.names, ()),
        config=_read(given, "config", cluster.config, {}),
        usb_updates=_read(given, "usbUpdates", At.boolean, None) is not False,
        console_getty=_read(given, "console", _console, False),
        watchdog=_read(given, "watchdog", _watchdog, Settings().watchdog),
    )


_READERS = (
    *("hostname", "network", "wifi", "ssh", "role", "token", "timeServers", "timeZone"),
    *("manifests", "registries", "nodeLabels", "nodeTaints", "disable", "config"),
    *("usbUpdates", "console", "watchdog"),
)


def _read(given: dict[str, At], name: str, reader: Callable[[At], T], default: T) -> T:
    return reader(given[name]) if name in given else default


def _flags_at_the_top() -> dict[str, str]:
    """A flag of K3s that was written where it would stand in K3s's own file."""
    known = {name: f"belongs under 'config', as 'config: {{{name}: …}}'" for name in BY_NAME}
    refused = dict.fromkeys(NOT_SUPPORTED, "is not supported by Pinnace: remove it")
    taken = set(_READERS) | set(_REFUSED)
    return {name: text for name, text in (known | refused).items() if name not in taken}


def _hostname(at: At) -> str:
    text = (at.text() or "").strip().lower()
    if text.endswith(".local"):
        at.wrong(f"is written without '.local': {shown(text.removesuffix('.local'))}")
    elif "." in text:
        at.wrong(f"{shown(text)} has a dot: give the first part alone")
    elif text == "localhost":
        at.wrong("'localhost' is every machine's name for itself: choose another")
    elif not _HOSTNAME.fullmatch(text):
        at.wrong(f"{shown(text)} is no host name: at most 63 of a-z, 0-9 and -, such as kitchen-1")
    return text


def _role(at: At) -> None:
    text = (at.text() or "").strip()
    if text == "agent":
        at.wrong("'agent' is not supported yet: leave it out, or say 'server'")
    elif text != "server":
        at.wrong(f"{shown(text)} is no role: 'server'")


def _ssh(at: At) -> tuple[str, ...]:
    given = at.fields(["keys"], _SSH_REFUSED)
    if "keys" not in given:
        return ()
    return present(_ssh_key(item) for item in given["keys"].one_or_more())


def _ssh_key(at: At) -> str | None:
    text = at.text()
    if text is None:
        return None
    wrong = keys.wrong_with(text)
    if wrong:
        at.wrong(wrong)
        return None
    return text.strip()


def _time_servers(at: At) -> tuple[str, ...]:
    return present(network.host(item) for item in at.one_or_more())


def _time_zone(at: At, known: Container[str] | None) -> str:
    text = (at.text() or "").strip()
    well_formed = re.fullmatch(r"[A-Za-z][A-Za-z0-9_+\-]*(/[A-Za-z0-9_+\-]+){0,2}", text)
    if not well_formed or (known is not None and text not in known):
        at.wrong(f"{shown(text)} is no time zone such as Europe/Berlin or UTC")
    return text


def _console(at: At) -> bool:
    given = at.fields(["getty"])
    return bool(given["getty"].boolean()) if "getty" in given else False


def _watchdog(at: At) -> int:
    text = (at.text() or "").strip().lower()
    if text in {"off", "false", "no", "0"}:
        return 0
    found = _SECONDS.fullmatch(text)
    seconds = int(found[1]) * (60 if (found[2] or "s").startswith("m") else 1) if found else 0
    if not WATCHDOG[0] <= seconds <= WATCHDOG[1]:
        at.wrong(f"{shown(text)} is neither 'off' nor {WATCHDOG[0]} to {WATCHDOG[1]} seconds: 60s")
    return seconds
