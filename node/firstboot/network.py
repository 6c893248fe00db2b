"""
The section ``network`` and ``wifi``: addresses that can work, or what is wrong with them.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface

from node.firstboot.base import Link, Wifi, Wireless
from node.firstboot.fields import At, present, shown

_MAC = re.compile(r"([0-9a-f]{2}[:-]){5}[0-9a-f]{2}", re.IGNORECASE)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,14}")
_LINK = ("dhcp", "address", "gateway", "dns", "search", "mtu", "ipv6")
_OTHER_NAMES = {
    "addresses": "is called 'address' here, one or a list",
    "dhcp4": "is called 'dhcp' here",
    "nameservers": "is called 'dns' here, one address or a list",
    "gateway4": "is called 'gateway' here",
    "gateway6": "is called 'gateway' here, one of each family",
    "netmask": "is written with the address: 192.168.1.20/24",
}
_WIFI_OTHER_NAMES = {
    "password": "is called 'psk' here",
    "key": "is called 'psk' here",
    "eap": "networks of companies (802.1X) are not supported",
    "identity": "networks of companies (802.1X) are not supported",
}
DOMAIN = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9-]{1,63}(?<!-))*\.?")


def links(at: At) -> tuple[Link, ...]:
    found: list[Link] = []
    for name, below in at.entries():
        match = _match(name, below)
        if match and any(link.match == match for link in found):
            below.wrong(f"is the interface {match} once more")
        elif match and below.empty:
            found.append(Link(match=match))  # named to say: as the default
        elif match:
            found.append(_link(match, below))
    _twice(at, found)
    return tuple(found)


def _match(name: str, at: At) -> str:
    if name == "default":
        return name
    if _MAC.fullmatch(name):
        return name.lower().replace("-", ":")
    if _NAME.fullmatch(name) and name not in {"lo", "all"}:
        return name
    at.wrong(f"{shown(name)} is no interface: default, a name such as eth0, or a MAC address")
    return ""


def _link(match: str, at: At, *, vlan: bool = False) -> Link:
    given = at.fields([*_LINK, *([] if vlan else ["vlans"])], _OTHER_NAMES)
    addresses = present(_address(below) for below in _list(given, "address"))
    dhcp = given["dhcp"].boolean() if "dhcp" in given else not _list(given, "address")
    link = Link(
        match=match,
        dhcp=bool(dhcp),
        addresses=addresses,
        gateways=present(_gateway(below, addresses) for below in _list(given, "gateway")),
        dns=present(_plain_address(below, "192.168.1.1") for below in _list(given, "dns")),
        search=present(domain(below) for below in _list(given, "search")),
        mtu=(given["mtu"].number(576, 65535, "1500") or 0) if "mtu" in given else 0,
        ipv6=given["ipv6"].boolean() is not False if "ipv6" in given else True,
        vlans=_vlans(match, given["vlans"]) if "vlans" in given else (),
    )
    _sensible(link, given)
    return link


def _sensible(link: Link, given: dict[str, At]) -> None:
    """What is wrong with values that are right each for itself."""
    if "address" in given and link.match == "default" and link.addresses:
        given["address"].wrong("stands under 'default', so that several would have it: name one")
    families = [ip_address(gateway).version for gateway in link.gateways]
    if len(families) != len(set(families)):
        given["gateway"].wrong("has two of one family: one can be the way out")
    six = any(ip_interface(address).version == 6 for address in link.addresses)
    if six and not link.ipv6:
        given["ipv6"].wrong("is false although an address is of IPv6")
    if 0 < link.mtu < 1280 and link.ipv6:
        given["mtu"].wrong("is below 1280, which IPv6 needs: raise it, or set 'ipv6: false'")
    if not link.dhcp and not link.addresses and "dhcp" in given and not link.vlans:
        given["dhcp"].wrong("is false and there is no 'address': it would have none")


def _vlans(match: str, at: At) -> tuple[tuple[int, Link], ...]:
    found = []
    if match == "default":
        at.wrong("stands under 'default': name the interface that has them")
        return ()
    for name, below in at.entries():
        if not (name.isascii() and name.isdecimal() and 1 <= int(name) <= 4094):
            below.wrong(f"{shown(name)} is no VLAN from 1 to 4094")
        else:
            link = Link(match="vlan") if below.empty else _link("vlan", below, vlan=True)
            found.append((int(name), link))
    return tuple(found)


def _list(given: dict[str, At], name: str) -> list[At]:
    return given[name].one_or_more() if name in given else []


def _address(at: At) -> str | None:
    text = at.text()
    if text is None:
        return None
    try:
        found = ip_interface(text.strip())
    except ValueError:
        at.wrong(f"{shown(text)} is no address such as 192.168.1.20/24")
        return None
    if "/" not in text:
        at.wrong(f"{shown(text)} lacks the size of its network: {text.strip()}/{_usual(found)}")
        return None
    why = _not_usable(found)
    if why:
        at.wrong(f"{shown(text)} {why}")
        return None
    return found.with_prefixlen


def _usual(found: IPv4Interface | IPv6Interface) -> int:
    return 24 if found.version == 4 else 64


def _not_usable(found: IPv4Interface | IPv6Interface) -> str:
    network = found.network
    if found.ip.is_multicast or found.ip.is_unspecified or found.ip.is_loopback:
        return "is no address that an interface can have"
    if network.prefixlen < 8:
        return "has a network that is too large; meant is something like /24"
    if found.version == 4 and network.prefixlen < 31:
        if found.ip == network.network_address:
            return f"is the network itself: the first host of it is {network.network_address + 1}"
        if found.ip == network.broadcast_address:
            return "is the address of all in that network (broadcast): choose another"
    return ""


def _plain_address(at: At, example: str) -> str | None:
    text = at.text()
    if text is None:
        return None
    try:
        found = ip_address(text.strip())
    except ValueError:
        at.wrong(f"{shown(text)} is no address such as {example}")
        return None
    if found.is_unspecified or found.is_multicast:
        at.wrong(f"{shown(text)} is no address of a machine")
        return None
    return str(found)


def _gateway(at: At, addresses: Sequence[str]) -> str | None:
    text = _plain_address(at, "192.168.1.1")
    if text is None:
        return None
    way = ip_address(text)
    same = [i for i in map(ip_interface, addresses) if i.version == way.version]
    if way.version == 6 and way.is_link_local:
        return text
    if addresses and not any(way in interface.network for interface in same):
        networks = ", ".join(str(interface.network) for interface in same) or "no address of it"
        at.wrong(f"{shown(text)} is not in the network of the address ({networks})")
        return None
    if any(way == interface.ip for interface in same):
        at.wrong(f"{shown(text)} is the address of this machine itself")
        return None
    return text


def _twice(at: At, found: Iterable[Link]) -> None:
    seen: dict[str, str] = {}
    for link in found:
        below = [(f"{link.match} vlan {number}", vlan) for number, vlan in link.vlans]
        for name, one in [(link.match, link), *below]:
            for address in one.addresses:
                plain = address.partition("/")[0]
                if plain in seen:
                    at.wrong(f"{plain} is the address of {seen[plain]} and of {name}")
                seen[plain] = name


def domain(at: At) -> str | None:
    text = at.text()
    if text is None:
        return None
    if not DOMAIN.fullmatch(text.strip()) or len(text) > 253:
        at.wrong(f"{shown(text)} is no domain such as example.lan")
        return None
    return text.strip()


def host(at: At) -> str | None:
    """An address, or a name that DNS knows."""
    text = (at.text() or "").strip()
    try:
        return str(ip_address(text))
    except ValueError:
        pass
    if not DOMAIN.fullmatch(text) or len(text) > 253 or re.fullmatch(r"[\d.]+", text):
        at.wrong(f"{shown(text)} is no host such as pool.ntp.org or 192.168.1.1")
        return None
    return text


def wifi(at: At) -> Wifi | None:
    given = at.fields(["country", "networks"], {"ssid": "belongs into the list 'networks'"})
    country = (given["country"].text() or "").strip().upper() if "country" in given else ""
    if "country" in given and not re.fullmatch(r"[A-Z]{2}", country):
        given["country"].wrong(f"{shown(country)} is no country of two letters, such as DE")
    if "networks" not in given:
        at.wrong("needs 'networks', a list of 'ssid' and 'psk'")
        return None
    networks = present(_wireless(below) for below in given["networks"].items())
    names = [network.ssid for network in networks]
    for name in sorted({name for name in names if names.count(name) > 1}):
        given["networks"].wrong(f"has {shown(name)} twice")
    return Wifi(country=country, networks=networks)


def _wireless(at: At) -> Wireless | None:
    given = at.fields(["ssid", "psk", "hidden", "open", "priority"], _WIFI_OTHER_NAMES)
    if "ssid" not in given:
        at.wrong("needs 'ssid', the name of the network")
        return None
    ssid = given["ssid"].text()
    if ssid is not None and not 1 <= len(ssid.encode()) <= 32:
        given["ssid"].wrong("must have 1 to 32 bytes")
    is_open = bool(given["open"].boolean()) if "open" in given else False
    psk = (given["psk"].text() or "") if "psk" in given else ""
    if "psk" in given:
        _check_psk(given["psk"], psk, is_open=is_open)
    elif not is_open:
        at.wrong("needs 'psk', the network's password; for one without any say 'open: true'")
    priority = given["priority"].number(0, 100, "10") if "priority" in given else 0
    hidden = bool(given["hidden"].boolean()) if "hidden" in given else False
    return Wireless(ssid=ssid or "?", psk=psk, hidden=hidden, priority=priority or 0)


def _check_psk(at: At, psk: str, *, is_open: bool) -> None:
    if is_open:
        at.wrong("is there although the network is said to be open")
    elif re.fullmatch(r"[0-9A-Fa-f]{64}", psk):
        return
    elif not 8 <= len(psk) <= 63:
        at.wrong(f"must have 8 to 63 characters (or 64 hexadecimal digits), not {len(psk)}")
    elif not all(" " <= c <= "~" for c in psk):
        at.wrong("has a character that a Wi-Fi password cannot have: only those of ASCII can be")
