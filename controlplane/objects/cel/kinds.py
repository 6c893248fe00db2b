"""
Values of Kubernetes's own libraries: quantities, addresses, networks, URLs, versions, formats.
"""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

from controlplane.objects import quantity as quantities
from controlplane.objects.cel.values import NONE, CelError, Optional, no_overload
from controlplane.objects.validation import names

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
)


@dataclass(frozen=True, slots=True)
class Quantity:
    cel_type: ClassVar[str] = "kubernetes.Quantity"
    nanos: int
    text: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nanos == other.nanos

    def __hash__(self) -> int:
        return hash(self.nanos)

    def __str__(self) -> str:
        return self.text or str(quantities.Quantity(self.nanos))


@dataclass(frozen=True, slots=True)
class Ip:
    cel_type: ClassVar[str] = "net.IP"
    address: Address

    def __str__(self) -> str:
        return str(self.address)


@dataclass(frozen=True, slots=True)
class Cidr:
    cel_type: ClassVar[str] = "net.CIDR"
    address: Address
    length: int

    @property
    def network(self) -> Network:
        return ipaddress.ip_network(f"{self.address}/{self.length}", strict=False)

    def __str__(self) -> str:
        return f"{self.address}/{self.length}"


@dataclass(frozen=True, slots=True)
class Url:
    cel_type: ClassVar[str] = "kubernetes.URL"
    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Semver:
    cel_type: ClassVar[str] = "kubernetes.Semver"
    numbers: tuple[int, int, int]
    before: str  # the pre-release
    text: str

    def cel_order(self) -> tuple[Any, ...]:
        parts = tuple(
            (0, int(part), "") if part.isdecimal() else (1, 0, part)
            for part in self.before.split(".")
            if part
        )
        return (*self.numbers, not self.before, parts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Semver) and self.cel_order() == other.cel_order()

    def __hash__(self) -> int:
        return hash(self.numbers)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Format:
    """A named format; ``problems`` gives what is wrong with a text."""

    cel_type: ClassVar[str] = "kubernetes.NamedFormat"
    name: str
    problems: Callable[[str], list[str]]


def _made(make: Callable[[Any], Any]) -> Callable[[Any], bool]:
    def check(text: Any) -> bool:
        if not isinstance(text, str):
            raise no_overload()
        try:
            make(text)
        except CelError:
            return False
        return True

    return check


# Quantities


def _quantity(text: Any) -> Quantity:
    if not isinstance(text, str):
        raise no_overload()
    try:
        found = quantities.parse(text)
    except quantities.QuantityError as err:
        raise CelError(str(err)) from err
    return Quantity(found.nanos, str(found))


def _amount(value: Any) -> int:
    match value:
        case Quantity():
            return value.nanos
        case bool():
            raise no_overload()
        case int():
            return value * 10**9
        case _:
            raise no_overload()


def _quantity_compare(value: Any, other: Any) -> int:
    if isinstance(value, Semver) and isinstance(other, Semver):
        a, b = value.cel_order(), other.cel_order()
        return -1 if a < b else int(a > b)
    if not (isinstance(value, Quantity) and isinstance(other, Quantity)):
        raise no_overload()
    return (_amount(value) > _amount(other)) - (_amount(value) < _amount(other))


def _is_less(value: Any, other: Any) -> bool:
    return _quantity_compare(value, other) < 0


def _is_greater(value: Any, other: Any) -> bool:
    return _quantity_compare(value, other) > 0


def _quantity_sign(value: Quantity) -> int:
    return (value.nanos > 0) - (value.nanos < 0)


def _add(value: Quantity, other: Any) -> Quantity:
    return Quantity(value.nanos + _amount(other))


def _sub(value: Quantity, other: Any) -> Quantity:
    return Quantity(value.nanos - _amount(other))


def _is_integer(value: Quantity) -> bool:
    return value.nanos % 10**9 == 0 and abs(value.nanos // 10**9) < 1 << 63


def _as_integer(value: Quantity) -> int:
    if not _is_integer(value):
        raise CelError("cannot convert value to integer")
    return value.nanos // 10**9


def _as_float(value: Quantity) -> float:
    return value.nanos / 10**9


# Addresses


def _ip(text: Any) -> Ip:
    if isinstance(text, Cidr):
        return Ip(text.address)
    if not isinstance(text, str):
        raise no_overload()
    try:
        address = ipaddress.ip_address(text)
    except ValueError as err:
        raise CelError(f'IP Address "{text}" parse error during conversion from string') from err
    if isinstance(address, ipaddress.IPv6Address) and (address.scope_id or address.ipv4_mapped):
        raise CelError(f'IP Address "{text}" is not allowed')
    return Ip(address)


def _cidr(text: Any) -> Cidr:
    if not isinstance(text, str):
        raise no_overload()
    host, slash, length = text.partition("/")
    try:
        if not slash or not length.isdecimal() or (len(length) > 1 and length[0] == "0"):
            raise ValueError("no length")
        found = Cidr(ipaddress.ip_address(host), int(length))
        _ = found.network
    except ValueError as err:
        raise CelError(
            f'network address parse error during conversion from string: "{text}"'
        ) from err
    return found


def _is_canonical(text: str) -> bool:
    return str(_ip(text)) == text


def _family(value: Ip) -> int:
    return value.address.version


def _is_unspecified(value: Ip) -> bool:
    return value.address.is_unspecified


def _is_loopback(value: Ip) -> bool:
    return value.address.is_loopback


def _is_link_local_multicast(value: Ip) -> bool:
    address = value.address
    if isinstance(address, ipaddress.IPv4Address):
        return address in ipaddress.ip_network("224.0.0.0/24")
    return address in ipaddress.ip_network("ff02::/16")


def _is_link_local_unicast(value: Ip) -> bool:
    return value.address.is_link_local


def _is_global_unicast(value: Ip) -> bool:
    address = value.address
    broadcast = str(address) == "255.255.255.255"
    others = address.is_unspecified or address.is_loopback or address.is_multicast
    return not (others or address.is_link_local or broadcast)


def _contains_ip(value: Cidr, other: Any) -> bool:
    address: Ip = _ip(other) if isinstance(other, str) else other
    inside: bool = address.address in value.network
    return inside


def _holds(outer: Network, inner: Network) -> bool:
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


def _contains_cidr(value: Cidr, other: Any) -> bool:
    inner = _cidr(other) if isinstance(other, str) else other
    return _holds(value.network, inner.network)


def _masked(value: Cidr) -> Cidr:
    return Cidr(value.network.network_address, value.length)


def _prefix_length(value: Cidr) -> int:
    return value.length


# URLs


def _url(text: Any) -> Url:
    if not isinstance(text, str):
        raise no_overload()
    try:
        split = urlsplit(text)
        _ = split.port
    except ValueError as err:
        raise CelError(f"URL parse error during conversion from string: {err}") from err
    if not (split.scheme and split.netloc) and not text.startswith("/"):
        raise CelError(
            f'URL parse error during conversion from string: parse "{text}": invalid URI'
        )
    return Url(text)


def _scheme(value: Url) -> str:
    return urlsplit(value.text).scheme


def _host(value: Url) -> str:
    return urlsplit(value.text).netloc.rpartition("@")[2]


def _hostname(value: Url) -> str:
    return urlsplit(value.text).hostname or ""


def _port(value: Url) -> str:
    return str(urlsplit(value.text).port or "")


def _escaped_path(value: Url) -> str:
    return urlsplit(value.text).path


def _query(value: Url) -> dict[str, list[str]]:
    return parse_qs(urlsplit(value.text).query, keep_blank_values=True)


# Versions


def _semver(text: Any, normalize: bool = False) -> Semver:
    if not isinstance(text, str):
        raise no_overload()
    if normalize:
        core, sign, rest = re.match(r"v?([^-+]*)(.?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]
        numbers = [str(int(n)) if n.isdecimal() else n for n in core.split(".")]
        text = ".".join([*numbers, "0", "0"][: max(3, len(numbers))]) + sign + rest
    found = _SEMVER.fullmatch(text)
    if found is None:
        raise CelError(f'"{text}" is no semantic version')
    major, minor, patch, before, _ = found.groups()
    return Semver((int(major), int(minor), int(patch)), before or "", text)


def _is_semver(text: Any, normalize: bool = False) -> bool:
    return _made(lambda value: _semver(value, normalize))(text)


def _major(value: Semver) -> int:
    return value.numbers[0]


def _minor(value: Semver) -> int:
    return value.numbers[1]


def _patch(value: Semver) -> int:
    return value.numbers[2]


# Formats


def _checked(check: Callable[[str], Any]) -> Callable[[str], list[str]]:
    return lambda text: list(check(text))


def _parses(make: Callable[[Any], Any]) -> Callable[[str], list[str]]:
    def problems(text: str) -> list[str]:
        try:
            make(text)
        except CelError as err:
            return [str(err)]
        return []

    return problems


_FORMATS = {
    "dns1123Label": _checked(names.dns1123_label),
    "dns1123Subdomain": _checked(names.dns1123_subdomain),
    "dns1035Label": _checked(names.dns1035_label),
    "qualifiedName": _checked(names.qualified_name),
    "labelValue": _checked(names.label_value),
    "uri": _parses(_url),
}


def _named(name: str) -> Optional:
    found = _FORMATS.get(name)
    return NONE if found is None else Optional(Format(name, found), True)


def _format_of(name: str) -> Callable[[], Format]:
    return lambda: Format(name, _FORMATS[name])


def _validate(value: Format, text: Any) -> Optional:
    if not isinstance(text, str):
        raise no_overload()
    problems = value.problems(text)
    return Optional(problems, True) if problems else NONE


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "quantity": _quantity,
    "isQuantity": _made(_quantity),
    "ip": _ip,
    "isIP": _made(_ip),
    "cidr": _cidr,
    "isCIDR": _made(_cidr),
    "url": _url,
    "isURL": _made(_url),
    "semver": _semver,
    "isSemver": _is_semver,
}

METHODS: dict[str, Callable[..., Any]] = {
    "compareTo": _quantity_compare,
    "isLessThan": _is_less,
    "isGreaterThan": _is_greater,
    "sign": _quantity_sign,
    "add": _add,
    "sub": _sub,
    "isInteger": _is_integer,
    "asInteger": _as_integer,
    "asApproximateFloat": _as_float,
    "family": _family,
    "isUnspecified": _is_unspecified,
    "isLoopback": _is_loopback,
    "isLinkLocalMulticast": _is_link_local_multicast,
    "isLinkLocalUnicast": _is_link_local_unicast,
    "isGlobalUnicast": _is_global_unicast,
    "containsIP": _contains_ip,
    "containsCIDR": _contains_cidr,
    "ip": _ip,
    "masked": _masked,
    "prefixLength": _prefix_length,
    "getScheme": _scheme,
    "getHost": _host,
    "getHostname": _hostname,
    "getPort": _port,
    "getEscapedPath": _escaped_path,
    "getQuery": _query,
    "major": _major,
    "minor": _minor,
    "patch": _patch,
    "validate": _validate,
}

NAMESPACED: dict[str, Callable[..., Any]] = {
    "ip.isCanonical": _is_canonical,
    "format.named": _named,
    **{f"format.{name}": _format_of(name) for name in _FORMATS},
}
