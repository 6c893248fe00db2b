"""
A question about the cluster becomes an answer: the Kubernetes DNS specification 1.1.

Pure: no sockets, no clock. What is not the cluster's to answer gets None and is
forwarded; an alias that leads out of the cluster gets a :class:`Follow`.
Names that exist without a record of the wanted type get an empty answer (NODATA),
others NXDOMAIN, both with the zone's SOA so that clients may remember it.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address

from node.dns import wire
from node.dns.index import Endpoint, Index, Key, Service
from node.dns.wire import Answer, Record, encode_record, name_bytes

TTL = 5  # seconds: upstream's default for names of the cluster
HOST_TTL = 60  # for names of nodes
SPECIFICATION = "1.1.0"
_ALIAS_LIMIT = 8
_V4_SUFFIX, _V6_SUFFIX = ".in-addr.arpa", ".ip6.arpa"


@dataclass(frozen=True, slots=True)
class Follow:
    """An alias: these records, then whatever the target has elsewhere."""

    records: tuple[bytes, ...]
    target: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A name that exists: its records, of all types."""

    records: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    alias: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Zone:
    """What the answers depend on besides the index."""

    domain: str  # cluster.local
    dns_address: str  # the cluster DNS address
    networks: tuple[IPv4Network, ...]  # of services and pods: their reverse names are ours


def answer(name: str, kind: int, index: Index, zone: Zone) -> Answer | Follow | None:
    """``name`` in lower case, without the last dot. None: not ours."""
    if name == zone.domain or name.endswith(f".{zone.domain}"):
        return _in_zone(name, kind, index, zone)
    if name.endswith((_V4_SUFFIX, _V6_SUFFIX)):
        return _reverse(name, kind, index, zone)
    addresses = index.host(name)
    if addresses is not None:
        return host_answer(addresses, kind, zone, HOST_TTL)
    return None


def host_answer(addresses: Iterable[str], kind: int, zone: Zone, ttl: int) -> Answer:
    """For a name that has these addresses and nothing else."""
    return _reply(_Found(_address_records("", addresses, ttl)), kind, zone)


def _in_zone(name: str, kind: int, index: Index, zone: Zone) -> Answer | Follow:
    found = _look_up(name, index, zone)
    if found is None:
        return _denied(zone)
    if not found.alias:
        return _reply(found, kind, zone)
    return _follow(found.alias, kind, index, zone)


def _follow(alias: str, kind: int, index: Index, zone: Zone) -> Answer | Follow:
    """Aliases within the cluster are followed here, those that lead out by the caller."""
    records = [encode_record(Record("", wire.CNAME, TTL, name_bytes(alias)))]
    for _ in range(_ALIAS_LIMIT):
        if kind in (wire.CNAME, wire.ANY):
            break
        if not alias.endswith(f".{zone.domain}"):
            return Follow(tuple(records), alias)
        found = _look_up(alias, index, zone)
        if found is None:
            break
        if not found.alias:
            here = [r._replace(owner=alias) for r in found.records if r.type == kind]
            records += [encode_record(record) for record in here]
            break
        records.append(encode_record(Record(alias, wire.CNAME, TTL, name_bytes(found.alias))))
        alias = found.alias
    return Answer(answers=tuple(records))


def _reply(found: _Found, kind: int, zone: Zone) -> Answer:
    answers = tuple(encode_record(r) for r in found.records if kind in (r.type, wire.ANY))
    if not answers:
        return Answer(authority=_soa(zone))
    return Answer(answers=answers, additional=tuple(encode_record(r) for r in found.additional))


@functools.cache
def _denied(zone: Zone) -> Answer:
    return Answer(wire.NXDOMAIN, authority=_soa(zone))


@functools.cache
def _soa(zone: Zone) -> tuple[bytes, ...]:
    # The serial says nothing: nobody transfers the zone.
    data = wire.soa_data(zone.domain, serial=1, minimum=TTL)
    return (encode_record(Record(zone.domain, wire.SOA, TTL, data)),)


def _look_up(name: str, index: Index, zone: Zone) -> _Found | None:
    """None: there is no such name in the zone."""
    labels = name[: -len(zone.domain)].rstrip(".").split(".") if name != zone.domain else []
    match list(reversed(labels)):
        case []:
            return _apex(zone)
        case ["dns-version"]:
            return _Found((Record("", wire.TXT, TTL, wire.txt_data([SPECIFICATION])),))
        case ["dns"]:
            return _Found()
        case ["dns", "ns"]:
            return _Found(_address_records("", [zone.dns_address]))
        case ["svc" | "pod"]:
            return _Found()
        case ["svc", namespace]:
            return _Found() if index.has_namespace(namespace) else None
        case ["pod", namespace, *rest]:
            return _pod(rest, namespace)
        case ["svc", namespace, service, *rest]:
            found = index.service(Key(namespace, service))
            return _service(found, list(reversed(rest)), index, zone) if found else None
        case _:
            return None


def _apex(zone: Zone) -> _Found:
    data = wire.soa_data(zone.domain, serial=1, minimum=TTL)
    server = f"ns.dns.{zone.domain}"
    return _Found(
        (
            Record("", wire.SOA, TTL, data),
            Record("", wire.NS, TTL, name_bytes(server)),
        ),
        _address_records(server, [zone.dns_address]),
    )


def _pod(rest: list[str], namespace: str) -> _Found | None:
    """``a-b-c-d.<namespace>.pod``: the address in the name, whether or not a pod has it."""
    if not namespace or len(rest) > 1:
        return None
    if not rest:
        return _Found()
    dashed = rest[0]
    for text in (dashed.replace("-", "."), dashed.replace("-", ":")):
        try:
            return _Found(_address_records("", [str(ip_address(text))]))
        except ValueError:
            continue
    return None


def _service(service: Service, rest: list[str], index: Index, zone: Zone) -> _Found | None:
    """``rest``: the labels before the service's name, as they are written."""
    if service.alias:
        return None if rest else _Found(alias=service.alias)
    headless = not service.addresses
    endpoints = index.endpoints(service.key) if headless else []
    match rest:
        case []:
            addresses = [e.address for e in endpoints] if headless else service.addresses
            # Without a ready endpoint a headless service has no name, as with CoreDNS.
            return _Found(_address_records("", addresses)) if addresses else None
        case [port, protocol] if port.startswith("_") and protocol.startswith("_"):
            return _ports(service, endpoints, port[1:], protocol[1:], zone=zone)
        case [label] if label.startswith("_"):
            known = any(port.name and port.protocol == label[1:] for port in service.ports)
            return _Found() if known else None
        case [label]:
            own = [e.address for e in endpoints if e.label == label]
            return _Found(_address_records("", own)) if own else None
        case _:
            return None


def _ports(
    service: Service, endpoints: list[Endpoint], port: str, protocol: str, *, zone: Zone
) -> _Found | None:
    base = f"{service.key.name}.{service.key.namespace}.svc.{zone.domain}"
    if service.addresses:
        numbers = [p.port for p in service.ports if (p.name, p.protocol) == (port, protocol)]
        records = [Record("", wire.SRV, TTL, wire.srv_data(n, base)) for n in numbers]
        additional = _address_records(base, service.addresses)
    else:
        pairs = [
            (f"{e.label}.{base}", e, p.port)
            for e in endpoints
            for p in e.ports
            if (p.name, p.protocol) == (port, protocol)
        ]
        records = [
            Record("", wire.SRV, TTL, wire.srv_data(number, target)) for target, _, number in pairs
        ]
        additional = tuple(
            record
            for target, endpoint, _ in pairs
            for record in _address_records(target, [endpoint.address])
        )
    return _Found(tuple(dict.fromkeys(records)), additional) if records else None


def _reverse(name: str, kind: int, index: Index, zone: Zone) -> Answer | None:
    address = reverse_address(name)
    if address is None:
        return None
    text = str(address)
    names = [f"{key.name}.{key.namespace}.svc.{zone.domain}" for key in index.services_at(text)]
    names = names or [
        f"{label}.{key.name}.{key.namespace}.svc.{zone.domain}"
        for key, label in index.endpoints_at(text)
    ]
    ttl = TTL
    if not names and (host := index.host_at(text)) is not None:
        names, ttl = [host], HOST_TTL
    if names:
        records = tuple(Record("", wire.PTR, ttl, name_bytes(target)) for target in names)
        return _reply(_Found(records), kind, zone)
    if isinstance(address, IPv4Address) and any(address in network for network in zone.networks):
        # Nobody outside knows our private addresses: asking would only take time.
        return _denied(zone)
    return None


def reverse_address(name: str) -> IPv4Address | IPv6Address | None:
    """The address of a whole reverse name; None: of a network, or no address at all."""
    try:
        if name.endswith(_V4_SUFFIX):
            octets = name[: -len(_V4_SUFFIX)].split(".")
            return IPv4Address(".".join(reversed(octets)))
        digits = name[: -len(_V6_SUFFIX)].split(".")
        if len(digits) != 32 or any(len(digit) != 1 for digit in digits):
            return None
        return IPv6Address(int("".join(reversed(digits)), 16))
    except ValueError:
        return None


def _address_records(owner: str, addresses: Iterable[str], ttl: int = TTL) -> tuple[Record, ...]:
    records = []
    for text in dict.fromkeys(addresses):
        address = ip_address(text)
        kind = wire.A if address.version == 4 else wire.AAAA
        records.append(Record(owner, kind, ttl, address.packed))
    return tuple(records)
