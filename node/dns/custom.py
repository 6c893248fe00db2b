"""
The user's own additions: the ConfigMap ``kube-system/coredns-custom``, as in K3s.

Keys ending in ``.server`` hold server blocks for zones of their own, those ending in
``.override`` add to the block for everything. Of CoreDNS's directives ``forward``
and ``hosts`` are understood; those that only tune what this server does anyway are
passed over; everything else is refused by name. Zones must name the port 53 or none.

Source: the CoreDNS manual, "Configuration", "forward" and "hosts".
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from node.dns.resolv import DNS_PORT, Upstream

NAMESPACE, NAME = "kube-system", "coredns-custom"
# We do these in our own way, or have no need for them.
_PASSED_OVER = frozenset(
    "errors log cache loop reload loadbalance ready health prometheus bufsize "
    "debug lameduck minimal bind".split()
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Custom:
    """Names in lower case, without the last dot; the zone "" is everything."""

    forwards: Mapping[str, tuple[Upstream, ...]] = field(default_factory=dict)  # zone → servers
    hosts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # name → addresses
    refused: tuple[str, ...] = ()  # what was not understood, each in one line

    def upstreams(self, name: str) -> tuple[Upstream, ...] | None:
        """Of the longest zone that the name is in; None: no zone says anything."""
        if not self.forwards:
            return None
        while True:
            if name in self.forwards:
                return self.forwards[name]
            if not name:
                return None
            name = name.partition(".")[2]


NOTHING = Custom()


class Directive(NamedTuple):
    words: list[str]
    body: list[list[str]] | None  # the lines between its braces; None: it has none


@dataclass(slots=True)
class _Found:
    forwards: dict[str, tuple[Upstream, ...]] = field(default_factory=dict)
    hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)


class _Refused(ValueError):
    pass


def parse(data: Mapping[str, str]) -> Custom:
    """``data`` of the ConfigMap."""
    found = _Found()
    for key in sorted(data):
        try:
            if key.endswith(".override"):
                for directive in _directives(_statements(data[key])):
                    _take(found, key, "", directive)
            elif key.endswith(".server"):
                _take_server(found, key, data[key])
        except _Refused as error:
            found.refused.append(f"{key}: {error}")
    return Custom(forwards=found.forwards, hosts=found.hosts, refused=tuple(found.refused))


def _take_server(found: _Found, key: str, text: str) -> None:
    for block in _directives(_statements(text)):
        if block.body is None:
            raise _Refused(f"{' '.join(block.words)}: not a server block")
        for zone in block.words:
            name = _zone(zone.rstrip(","))
            for directive in _directives(block.body):
                _take(found, key, name, directive)


def _zone(text: str) -> str:
    text = text.removeprefix("dns://")
    name, _, port = text.partition(":")
    if port and port != str(DNS_PORT):
        raise _Refused(f"the zone {text}: only port {DNS_PORT} is served")
    if "/" in name or "://" in text:
        raise _Refused(f"the zone {text} is not supported")
    return name.rstrip(".").lower()


def _take(found: _Found, key: str, zone: str, directive: Directive) -> None:
    name, words = directive.words[0], directive.words[1:]
    try:
        if name == "forward":
            where = _zone(words[0]) if words else ""
            found.forwards[where or zone] = _servers(words[1:])
        elif name == "hosts":
            _take_hosts(found, words, directive.body or [])
        elif name not in _PASSED_OVER:
            raise _Refused(f"the directive {name} is not supported")
    except _Refused as error:
        found.refused.append(f"{key}: {error}")


def _servers(words: Iterable[str]) -> tuple[Upstream, ...]:
    servers = []
    for word in words:
        text = word.removeprefix("dns://")
        address, port = text, str(DNS_PORT)
        if text.startswith("["):
            address, _, rest = text[1:].partition("]")
            port = rest.removeprefix(":") or port
        elif text.count(":") == 1:
            address, _, port = text.partition(":")
        try:
            servers.append(Upstream(str(ip_address(address)), int(port)))
        except ValueError as error:
            raise _Refused(f"forward to {word} is not supported: name an IP address") from error
    if not servers:
        raise _Refused("forward without a server")
    return tuple(servers)


def _take_hosts(found: _Found, words: list[str], body: list[list[str]]) -> None:
    if words and words[0].startswith("/"):
        raise _Refused(f"hosts from the file {words[0]} is not supported")
    for line in body:
        if line[0] in ("fallthrough", "ttl", "reload", "no_reverse"):
            continue
        try:
            address = str(ip_address(line[0]))
        except ValueError as error:
            raise _Refused(f"hosts: {line[0]} is not an address") from error
        for name in line[1:]:
            name = name.rstrip(".").lower()
            found.hosts[name] = (*found.hosts.get(name, ()), address)


def _statements(text: str) -> list[list[str]]:
    """One list of words for each line, braces as words of their own."""
    lines = (line.split("#", 1)[0].split() for line in text.splitlines())
    return [words for words in lines if words]


def _directives(lines: list[list[str]]) -> list[Directive]:
    found: list[Directive] = []
    rest = iter(lines)
    for line in rest:
        if line[-1] != "{":
            found.append(Directive(line, None))
            continue
        if not line[:-1]:
            raise _Refused("a block without a name")
        found.append(Directive(line[:-1], _body(line[0], rest)))
    return found


def _body(name: str, rest: Iterator[list[str]]) -> list[list[str]]:
    """The lines up to the brace that closes the block."""
    body: list[list[str]] = []
    depth = 1
    for line in rest:
        depth += (line[-1] == "{") - (line == ["}"])
        if not depth:
            return body
        body.append(line)
    raise _Refused(f"{name}: a brace is not closed")
