"""
From settings to the files of the system that put them into effect. Pure.

Whatever can be in one of these files can also be absent: :data:`OWNED` names all of them, so
that what was taken out of ``pinnace.yaml`` is taken back without a record of what was written
before, after a power cut at any instant too.

Source: systemd.network(5), systemd.netdev(5), wpa_supplicant.conf(5), timesyncd.conf(5).
"""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from node.firstboot.base import Link, Settings, Wifi, Wireless

HOSTNAME = "etc/hostname"
HOSTS = "etc/hosts"
TIME_ZONE = "etc/localtime"
TIME_SERVERS = "etc/systemd/timesyncd.conf.d/10-appliance.conf"
WATCHDOG = "etc/systemd/system.conf.d/20-appliance.conf"
WIRELESS = "etc/wpa_supplicant/pinnace.conf"
NODE = "etc/pinnace/config.yaml.d/10-appliance.yaml"
TOKEN = "etc/pinnace/token"  # noqa: S105 - a path
REGISTRIES = "etc/pinnace/registries.yaml"
CONSOLE = "etc/pinnace/console-shell"  # while it is there, the consoles have a shell of root
NETWORK = "etc/systemd/network"
SUMMARY = "etc/pinnace/appliance.json"
# All that may be there and is removed where it is not wanted; of networks, by the pattern.
OWNED = (TIME_SERVERS, WATCHDOG, WIRELESS, TOKEN, REGISTRIES, CONSOLE)
NETWORKS = "*-appliance-*"
BLOCK = ("# From pinnace.yaml; what stands between these two lines is replaced.", "# End.")
ZONES = "/usr/share/zoneinfo"
UTC = "Etc/UTC"
PREFIX = "pinnace-"


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of the machine, which the file does not say."""

    default_hostname: str  # pinnace-1a2b3c
    node_name: str  # of an earlier boot; "": this is the first


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    path: str  # below the root, without the leading slash
    content: str
    mode: int = 0o644


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    hostname: str
    node_name: str
    files: tuple[File, ...]
    time_zone: str  # what /etc/localtime points to, below the zones
    keys: tuple[str, ...]  # of root


def plan(settings: Settings, facts: Facts) -> Plan:
    hostname = settings.hostname or facts.default_hostname
    chosen = str(settings.config.get("node-name", "")).lower()
    # A node that changed its name would be another one: its volumes and pods stay with the old.
    node_name = chosen or facts.node_name or hostname
    files = [
        File(path=HOSTNAME, content=f"{hostname}\n"),
        File(path=HOSTS, content=_hosts(hostname)),
        *_networks(settings.links),
        *_optional(settings),
        File(path=NODE, content=_node(settings, hostname, node_name), mode=0o600),
    ]
    return Plan(
        hostname=hostname,
        node_name=node_name,
        files=tuple(files),
        time_zone=settings.time_zone or UTC,
        keys=settings.ssh_keys,
    )


def default_hostname(serial: str, macs: Iterable[str], machine_id: str) -> str:
    """Of six hexadecimal digits that stay: the board's serial number, else a MAC address."""
    for text in (serial, *macs, machine_id):
        digits = re.sub(r"[^0-9a-f]", "", text.lower())
        if len(digits) >= 6 and digits.strip("0"):
            return PREFIX + digits[-6:]
    return PREFIX + "node"


def summary(settings: Settings, plan: Plan, source: str) -> dict[str, Any]:
    """What others may read in appliance.json: no secrets. ``source``: see ``status.SOURCES``."""
    return {
        "source": source,
        "hostname": plan.hostname,
        "nodeName": plan.node_name,
        "role": settings.role,
        "usbUpdates": settings.usb_updates,
        "watchdog": settings.watchdog,
        "console": {"getty": settings.console_getty},
    }


def _hosts(hostname: str) -> str:
    return (
        f"127.0.0.1 localhost\n127.0.1.1 {hostname}.local {hostname}\n"
        "::1 localhost ip6-localhost ip6-loopback\n"
    )


def _optional(settings: Settings) -> Iterator[File]:
    if settings.time_servers:
        servers = " ".join(settings.time_servers)
        yield File(path=TIME_SERVERS, content=f"[Time]\nNTP={servers}\n")
    seconds = f"{settings.watchdog}s" if settings.watchdog else "off"
    yield File(path=WATCHDOG, content=f"[Manager]\nRuntimeWatchdogSec={seconds}\n")
    if settings.wifi is not None:
        yield File(path=WIRELESS, content=_wireless(settings.wifi), mode=0o600)
    if settings.token:
        yield File(path=TOKEN, content=f"{settings.token}\n", mode=0o600)
    if settings.registries:
        # JSON is YAML; it holds passwords of registries.
        yield File(path=REGISTRIES, content=_json(settings.registries), mode=0o600)
    if settings.console_getty:
        yield File(path=CONSOLE, content="console.getty in pinnace.yaml\n")


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, sort_keys=True, default=str) + "\n"


def _node(settings: Settings, hostname: str, node_name: str) -> str:
    flags: dict[str, Any] = dict(settings.config)
    flags["node-name"] = node_name
    names = [f"{hostname}.local", hostname]
    flags["tls-san"] = list(dict.fromkeys([*names, *flags.get("tls-san", ())]))
    for name, values in (
        ("disable", settings.disable),
        ("node-label", settings.node_labels),
        ("node-taint", settings.node_taints),
    ):
        if values:
            flags[name] = list(values)
    if settings.token:
        flags["token-file"] = f"/{TOKEN}"
    return _json(flags)


# Networks


def _networks(links: tuple[Link, ...]) -> Iterator[File]:
    default = next((link for link in links if link.match == "default"), Link(match="default"))
    for number, link in enumerate(one for one in links if one.match != "default"):
        yield from _network(link, f"{20 + number // 10}-appliance-{number % 10}")
    # Wireless last: where a cable is plugged in too, it is the way out.
    yield _default(default, "ether", 1024)
    yield _default(default, "wlan", 2048)


def _default(link: Link, kind: str, metric: int) -> File:
    match = f"Type={kind}\nKind=!*"  # what is hardware has no kind: no bridge, no veth of a pod
    return File(
        path=f"{NETWORK}/80-appliance-{kind}.network", content=_text(match, link, (), metric)
    )


def _network(link: Link, name: str) -> Iterator[File]:
    by_address = ":" in link.match
    match = f"MACAddress={link.match}\nKind=!*" if by_address else f"Name={link.match}"
    vlans = {number: _vlan_name(link.match, number) for number, _ in link.vlans}
    yield File(
        path=f"{NETWORK}/{name}.network",
        content=_text(match, link, tuple(vlans.values()), 1024),
    )
    for number, below in link.vlans:
        text = f"[NetDev]\nName={vlans[number]}\nKind=vlan\n\n[VLAN]\nId={number}\n"
        yield File(path=f"{NETWORK}/{name}-{number}.netdev", content=text)
        yield File(
            path=f"{NETWORK}/{name}-{number}.network",
            content=_text(f"Name={vlans[number]}", below, (), 1024),
        )


def _vlan_name(parent: str, number: int) -> str:
    name = f"{parent}.{number}"
    return name if ":" not in parent and len(name) <= 15 else f"vlan{number}"


def _text(match: str, link: Link, vlans: tuple[str, ...], metric: int) -> str:
    dhcp = ("yes" if link.ipv6 else "ipv4") if link.dhcp else "no"
    lines = ["[Match]", match, "", "[Network]", f"DHCP={dhcp}"]
    lines += [f"LinkLocalAddressing={'ipv6' if link.ipv6 else 'no'}"]
    lines += [f"IPv6AcceptRA={'yes' if link.ipv6 else 'no'}"]
    lines += ["MulticastDNS=yes", "LLMNR=no"]
    if link.addresses:
        lines += ["ConfigureWithoutCarrier=yes"]  # a node works with its cable out
    lines += [f"Address={address}" for address in link.addresses]
    lines += [f"Gateway={gateway}" for gateway in link.gateways]
    lines += [f"DNS={server}" for server in link.dns]
    lines += [f"Domains={' '.join(link.search)}"] if link.search else []
    lines += [f"VLAN={name}" for name in vlans]
    # The node starts without a network, and nothing else waits for one.
    lines += ["", "[Link]", "RequiredForOnline=no"]
    lines += [f"MTUBytes={link.mtu}"] if link.mtu else []
    if link.dhcp:
        # By the MAC address, as people reserve addresses in their routers.
        lines += ["", "[DHCPv4]", "ClientIdentifier=mac", "UseHostname=no"]
        lines += [f"RouteMetric={metric}"]
        lines += ["", "[IPv6AcceptRA]", f"RouteMetric={metric}"] if link.ipv6 else []
    return "\n".join(lines) + "\n"


def _wireless(wifi: Wifi) -> str:
    lines = ["ctrl_interface=/run/wpa_supplicant", "update_config=0", "p2p_disabled=1"]
    lines += [f"country={wifi.country}"] if wifi.country else []
    for network in wifi.networks:
        for secured in _securities(network):
            lines += ["network={", *_wireless_network(network), *secured, "}"]
    return "\n".join(lines) + "\n"


def _wireless_network(network: Wireless) -> Iterator[str]:
    yield f"  ssid={network.ssid.encode().hex()}"  # without quotes: any byte may be in it
    if network.hidden:
        yield "  scan_ssid=1"
    if network.priority:
        yield f"  priority={network.priority}"


def _securities(network: Wireless) -> Iterator[list[str]]:
    """
    WPA2 where the access point has it, which every driver can; WPA3 for those that have no other.

    In one entry together they keep some drivers from both. All in hexadecimal digits, since a
    quote or a # in a pass phrase is not understood within quotes.
    """
    if not network.psk:
        yield ["  key_mgmt=NONE"]
    elif re.fullmatch(r"[0-9A-Fa-f]{64}", network.psk):
        yield ["  key_mgmt=WPA-PSK", f"  psk={network.psk}"]  # a raw key is of WPA2 alone
    else:
        phrase, ssid = network.psk.encode(), network.ssid.encode()
        key = hashlib.pbkdf2_hmac("sha1", phrase, ssid, 4096, 32)  # IEEE 802.11, annex J.4
        yield ["  key_mgmt=WPA-PSK", f"  psk={key.hex()}"]
        yield ["  key_mgmt=SAE", "  ieee80211w=2", f"  sae_password={phrase.hex()}"]


# Keys of SSH


def authorized(before: str, keys: Iterable[str]) -> str:
    """The file authorized_keys: lines of others stay, ours are replaced."""
    first, last = BLOCK
    kept: list[str] = []
    within = False
    for line in before.splitlines():
        if line in (first, last):
            within = line == first
        elif not within:
            kept.append(line)
    ours = [first, *keys, last] if keys else []
    lines = [*kept, *ours]
    return "\n".join(lines) + "\n" if lines else ""
