"""
From flags, files and environment to settings: every flag's name with its value.

Precedence is K3s's: a flag beats the configuration files, these beat the
environment, that beats the default. A repeatable flag on the command line
replaces the whole list. Across files the last one wins, and ``key+:`` appends.
Whatever is wrong is said in one line that says what to do.
"""

import difflib
import os
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address, IPv4Network, NetmaskValueError, ip_address
from pathlib import Path
from typing import Any

import yaml

from node.flags import BY_NAME, BY_SHORT, FLAGS, NOT_SUPPORTED, Flag, defaults

FOUND = "node-ip-found"  # among the settings: nobody chose the node's address
TRUE = frozenset({"true", "1", "yes", "on", ""})
FALSE = frozenset({"false", "0", "no", "off"})
CHOICES = {
    "network-policy-fail": ("closed", "open"),
    "cluster-dns-provider": ("pinnace", "coredns"),
}


class UsageError(Exception):
    """Something that the user can mend; the text is one line that says what to do."""


def read(role: str, arguments: Sequence[str], environment: Mapping[str, str]) -> dict[str, Any]:
    """
    The complete settings for ``server`` or ``agent``.

    Raises :class:`UsageError`. ``role`` is among the settings, as ``role``.
    """
    given = _from_arguments(role, arguments)
    ambient = _from_environment(environment)
    config = Path(str((defaults() | ambient | given)["config"]))
    if not config.exists() and ("config" in given or "config" in ambient):
        raise UsageError(f"cannot read the configuration file {config}: it does not exist")
    settings = defaults() | ambient | _from_files(config) | given
    settings["role"] = role
    _fill_in(settings)
    _check(settings)
    return settings


def _lookup(name: str, where: str) -> Flag:
    flag = BY_NAME.get(name)
    if flag is not None:
        return flag
    if name in NOT_SUPPORTED:
        raise UsageError(
            f"{where} is not supported by Pinnace; remove it (see docs/compatibility.md)"
        )
    near = difflib.get_close_matches(name, BY_NAME, n=1)
    hint = (
        f"did you mean {where.replace(name, near[0])}?" if near else "see `pinnace server --help`"
    )
    raise UsageError(f"unknown {'flag' if where.startswith('-') else 'key'} {where}: {hint}")


def _convert(flag: Flag, text: str, where: str) -> Any:
    """One textual value; of a repeatable flag a tuple, since commas separate values too."""
    match flag.default:
        case bool():
            if text.lower() in TRUE | FALSE:
                return text.lower() in TRUE
            raise UsageError(f"{where} takes true or false, not {text!r}")
        case int():
            if text.isdecimal():
                return int(text)
            raise UsageError(f"{where} takes a whole number, not {text!r}")
        case tuple():
            return tuple(part.strip() for part in text.split(",") if part.strip())
        case _:
            return text


def _from_arguments(role: str, arguments: Sequence[str]) -> dict[str, Any]:
    given: dict[str, Any] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        flag, where, text = _split(word)
        if text is None and isinstance(flag.default, bool):
            text = "true"
        elif text is None:
            if not rest:
                raise UsageError(f"{where} needs a value: {where}=VALUE")
            text = rest.pop(0)
        if flag.server_only and role != "server":
            raise UsageError(
                f"{where} is a flag of `pinnace server`; remove it from `pinnace {role}`"
            )
        value = _convert(flag, text, where)
        given[flag.name] = (*given.get(flag.name, ()), *value) if flag.repeatable else value
    return given


def _split(word: str) -> tuple[Flag, str, str | None]:
    """A command line word as flag, how it was written, and its value where that came with it."""
    name, equals, text = word.partition("=")
    value = text if equals else None
    if name.startswith("--") and len(name) > 2:
        return _lookup(name[2:], name), name, value
    if re.fullmatch(r"-[a-z]", name) and name[1] in BY_SHORT:
        return BY_SHORT[name[1]], name, value
    if name.startswith("-"):
        raise UsageError(f"unknown flag {name}: see `pinnace server --help`")
    raise UsageError(f"unexpected argument {word!r}: flags begin with --")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        flag.name: _convert(flag, environment[flag.environment], flag.environment)
        for flag in FLAGS
        if flag.environment in environment
    }


def _from_files(config: Path) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    folder = config.with_name(config.name + ".d")
    drop_ins = sorted(folder.glob("*.yaml")) if folder.is_dir() else []
    for path in [config, *drop_ins]:
        if path.exists():
            _merge_file(merged, path)
    return merged


def _merge_file(merged: dict[str, Any], path: Path) -> None:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError) as err:
        raise UsageError(f"cannot read the configuration file {path}: {err}") from err
    except yaml.YAMLError as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    if content is None:
        return
    if not isinstance(content, dict):
        raise UsageError(f"{path} must hold keys and values, as in `node-name: pi`")
    for key, value in content.items():
        _merge_key(merged, str(key), value, path)


def _merge_key(merged: dict[str, Any], key: str, value: object, path: Path) -> None:
    append = key.endswith("+")
    name = key.removesuffix("+")
    where = f"{name} in {path}"
    flag = _lookup(name, where)
    texts = [_text(item) for item in value] if isinstance(value, list) else [_text(value)]
    if len(texts) != 1 and not flag.repeatable:
        raise UsageError(f"{where} takes one value, not a list")
    if flag.repeatable:
        parsed: Any = tuple(part for text in texts for part in _convert(flag, text, where))
    else:
        parsed = _convert(flag, texts[0], where)
    if append and flag.repeatable:
        parsed = (*merged.get(name, ()), *parsed)
    elif append and isinstance(flag.default, str):
        parsed = merged.get(name, "") + parsed
    merged[name] = parsed


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fill_in(settings: dict[str, Any]) -> None:
    """What cannot stand in a table: defaults that depend on this machine."""
    if settings["token-file"] and not settings["token"]:
        try:
            settings["token"] = Path(settings["token-file"]).read_text().strip()
        except OSError as err:
            raise UsageError(f"cannot read --token-file: {err}") from err
    settings["node-name"] = settings["node-name"].lower() or socket.gethostname().lower()
    settings[FOUND] = not settings["node-ip"]
    if not settings["node-ip"]:
        settings["node-ip"] = (own_address(),)


def own_address() -> str:
    """
    The address on the link of the default route, else on the first link that has one.

    Without any link but loopback it is 127.0.0.1: a node works without a network.
    """
    addresses = _addresses()
    ordered = [*_default_links(), *addresses]
    return next((a for link in ordered for a in addresses.get(link, ())), "127.0.0.1")


def own_addresses() -> frozenset[str]:
    """All that :func:`own_address` may choose from."""
    return frozenset(a for found in _addresses().values() for a in found)


def _addresses() -> Mapping[str, list[str]]:
    """By link, without those of pods."""
    import psutil

    ours = re.compile(r"lo|cni0|flannel|pinnace|veth|docker|dummy")
    return {
        link: [a.address for a in found if a.family == socket.AF_INET]
        for link, found in psutil.net_if_addrs().items()
        if not ours.match(link)
    }


def _default_links() -> Iterable[str]:
    """Links with a default route, from the kernel's routing table."""
    try:
        lines = Path("/proc/net/route").read_text().splitlines()[1:]
    except OSError:
        return ()
    fields = (line.split() for line in lines)
    return [field[0] for field in fields if len(field) > 7 and field[1] == field[7] == "00000000"]


def _network(settings: Mapping[str, Any], name: str) -> IPv4Network:
    try:
        return IPv4Network(settings[name])
    except (AddressValueError, NetmaskValueError, ValueError) as err:
        raise UsageError(f"--{name} takes an IPv4 network such as 10.42.0.0/16: {err}") from err


def _check(settings: Mapping[str, Any]) -> None:
    pods, services = _network(settings, "cluster-cidr"), _network(settings, "service-cidr")
    if pods.overlaps(services):
        raise UsageError("--cluster-cidr and --service-cidr overlap: choose two separate networks")
    if pods.prefixlen > 24:
        raise UsageError("--cluster-cidr must have room for a /24 for each node")
    try:
        if IPv4Address(settings["cluster-dns"]) not in services:
            raise UsageError("--cluster-dns must be an address within --service-cidr")
    except AddressValueError as err:
        raise UsageError(f"--cluster-dns takes an IPv4 address: {err}") from err
    _check_ports(settings)
    _check_names(settings)
    _check_choices(settings)


def _check_ports(settings: Mapping[str, Any]) -> None:
    for name in ("https-listen-port", "kubelet-port"):
        if not 0 < settings[name] < 65536:
            raise UsageError(f"--{name} takes a port from 1 to 65535, not {settings[name]}")
    found = re.fullmatch(r"(\d+)-(\d+)", settings["service-node-port-range"])
    if not found or not 0 < int(found[1]) <= int(found[2]) < 65536:
        raise UsageError("--service-node-port-range takes FIRST-LAST, such as 30000-32767")


def _check_names(settings: Mapping[str, Any]) -> None:
    label = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
    if not re.fullmatch(rf"{label}(\.{label})*", settings["node-name"]):
        raise UsageError(
            f"--node-name={settings['node-name']} is not a DNS name: use letters, digits, - and ."
        )
    for address in (*settings["node-ip"], *settings["node-external-ip"]):
        try:
            ip_address(address)
        except ValueError as err:
            raise UsageError(f"--node-ip takes an address: {err}") from err
    if not re.fullmatch(r"0?[0-7]{3}", settings["write-kubeconfig-mode"]):
        raise UsageError("--write-kubeconfig-mode takes an octal mode such as 0600")
    for item in settings["node-label"]:
        if "=" not in item:
            raise UsageError(f"--node-label takes key=value, not {item!r}")
    for item in settings["node-taint"]:
        if not re.fullmatch(r"[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)", item):
            raise UsageError(f"--node-taint takes key=value:Effect, not {item!r}")
    if settings["datastore-endpoint"]:
        raise UsageError("--datastore-endpoint is not supported yet: only the embedded SQLite is")


def _check_choices(settings: Mapping[str, Any]) -> None:
    for name, words in CHOICES.items():
        if settings[name] not in words:
            raise UsageError(f"--{name} takes {' or '.join(words)}, not {settings[name]!r}")


def environment() -> Mapping[str, str]:
    """The process's environment; here, so that nothing else reads it."""
    return os.environ
