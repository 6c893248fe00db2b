"""
What ``pinnace.yaml`` may say, as frozen values, and what others may read of it afterwards.

:mod:`node.firstboot.schema` makes :class:`Settings` from the file, :mod:`node.firstboot.plan`
makes files of the system from them. The rest of the node reads none of this but the few facts
in ``/etc/pinnace/appliance.json`` (:func:`node.firstboot.plan.summary`): what the settings say
about updates from a USB stick, the watchdog and the console, under the names of the file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One mistake in the file, in words for whoever wrote it."""

    line: int  # from 1; 0: of the whole file
    path: str  # network.eth0.address; "" for the file itself
    message: str  # what is wrong and what would be right, one line

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        return f"{where}{self.path + ': ' if self.path else ''}{self.message}"


class ConfigError(Exception):
    """The file cannot be used; every mistake that was found in it, in the order of its lines."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(sorted(problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One network interface, or one VLAN on it."""

    match: str  # "default", a name such as eth0, or a MAC address in lower case
    dhcp: bool = True
    addresses: tuple[str, ...] = ()  # 192.168.1.20/24, 2001:db8::20/64
    gateways: tuple[str, ...] = ()  # at most one of each family
    dns: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    mtu: int = 0  # 0: the kernel's
    ipv6: bool = True  # take part in IPv6: router advertisements and link-local addresses
    vlans: tuple[tuple[int, "Link"], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wireless:
    ssid: str
    psk: str  # "": an open network
    hidden: bool = False
    priority: int = 0  # the highest that is in reach is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Wifi:
    country: str  # DE; "": the world's common channels
    networks: tuple[Wireless, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """YAML documents that stand in the file itself, or the name of a file or folder beside it."""

    text: str = ""
    name: str = ""  # relative to the partition


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that the file says; the defaults are what holds without a file."""

    hostname: str = ""  # "": made from the serial number
    links: tuple[Link, ...] = ()
    wifi: Wifi | None = None
    ssh_keys: tuple[str, ...] = ()
    role: str = "server"
    token: str = ""
    time_servers: tuple[str, ...] = ()
    time_zone: str = ""
    manifests: tuple[Manifest, ...] = ()
    registries: Mapping[str, Any] = field(default_factory=dict)  # K3s's registries.yaml
    node_labels: tuple[str, ...] = ()  # key=value
    node_taints: tuple[str, ...] = ()  # key=value:Effect
    disable: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)  # flags of the node, by name
    usb_updates: bool = True
    console_getty: bool = False
    watchdog: int = 60  # seconds; 0: off
