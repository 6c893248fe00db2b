"""
Policies in nft's language. Pure.

A packet's way through the chains::

    forward, input   established connections pass; then
    out/…            the pod that sends: one chain for each combination of policies
    policy/egress/…  what a policy allows goes on to ``ingress``; what none does is denied
    ingress, in/…    the pod that receives
    policy/ingress/… what a policy allows is accepted; what none does is denied

A pod that no policy isolates has no element in the maps, so it costs one look-up. The
hooks come behind the translation of Service addresses, which happens in prerouting.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from operators.netpol.objects import Peers, Port, Range, Rule, merged
from operators.netpol.oracle import EGRESS, INGRESS

FAMILY = "inet"
TABLE = "pinnace_netpol"
FAMILIES = ("4", "6")
LOG_GROUP = 100  # as with K3s, for ulogd and its like
OWN_LOG_GROUP = 101  # a group has one reader, and this one is ours
PREFIXES = {EGRESS: "pinnace egress", INGRESS: "pinnace ingress", "unknown": "pinnace unknown"}
_ICMP = "echo-request, destination-unreachable, time-exceeded"
_ICMP6 = (
    "packet-too-big, nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert"
)
_LONGEST_NAME = 200  # nft takes 255 bytes
_TYPES = {"4": "ipv4_addr", "6": "ipv6_addr"}
_FIELDS = {"4": "ip", "6": "ip6"}
_NEXT = {EGRESS: "goto ingress", INGRESS: "accept"}
_PEER_SIDE = {EGRESS: "daddr", INGRESS: "saddr"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """``closed``: networks of this node's pods, in which an unknown address gets nowhere."""

    closed: tuple[str, ...] = ()
    log: bool = True


def fixed_text(facts: Facts) -> str:
    """The base chains and the table's own sets and maps: what no pod and no policy changes."""
    sets = "".join(
        f"map {name}{family} {{ type {_TYPES[family]} : verdict; }}\n"
        for name, family in product(("egress", "ingress"), FAMILIES)
    ) + "".join(
        f"set {name}{family} {{ type {_TYPES[family]}; }}\n"
        f"set itself{family} {{ type {_TYPES[family]} . {_TYPES[family]}; }}\n"
        if name == "isolated"
        else f"set {name}{family} {{ type {_TYPES[family]}; }}\n"
        for name, family in product(("isolated", "known"), FAMILIES)
    )
    return sets + _ends(facts) + _odd_packets() + _hooks(facts)


def _ends(facts: Facts) -> str:
    """How a packet ends that is not let through; told to those who want to know, not too often."""

    def log(kind: str) -> str:
        if not facts.log:
            return ""
        prefix = PREFIXES[kind]
        groups = "".join(f' log prefix "{prefix}" group {g}' for g in (LOG_GROUP, OWN_LOG_GROUP))
        return f"  limit rate 10/minute burst 10 packets{groups}\n"

    # A reset that goes out over the bridge is not translated back, so a client of a
    # Service would not take it for an answer. ICMP is.
    translated = "".join(
        f"  ct status dnat {_FIELDS[f]} saddr @known{f} reject with icmpx admin-prohibited\n"
        for f in FAMILIES
    )
    return f"""chain deny {{
{translated}  meta l4proto tcp reject with tcp reset
  reject with icmpx admin-prohibited
}}
chain deny_egress {{
{log(EGRESS)}  goto deny
}}
chain deny_ingress {{
{log(INGRESS)}  goto deny
}}
chain unknown {{
{log("unknown")}  drop
}}
"""


def _odd_packets() -> str:
    """
    What belongs to no connection.

    A connection that was cut must not come back with its next packet, which may be the
    answer of one who is allowed to begin a connection the other way round.
    """
    sides = list(product(FAMILIES, ("saddr", "daddr")))
    drop = "".join(f"  {_FIELDS[f]} {side} @isolated{f} drop\n" for f, side in sides)
    reset = "".join(
        f"  {_FIELDS[f]} {side} @isolated{f} reject with tcp reset\n" for f, side in sides
    )
    return f"chain invalid {{\n{drop}}}\nchain midstream {{\n{reset}}}\n"


def _hooks(facts: Facts) -> str:
    from_unknown = _unknown(facts, "saddr")
    vmaps = {
        kind: "".join(f"  {_FIELDS[f]} {side} vmap @{kind}{f}\n" for f in FAMILIES)
        for kind, side in ((EGRESS, "saddr"), (INGRESS, "daddr"))
    }
    itself = "".join(
        f"  {_FIELDS[f]} saddr . {_FIELDS[f]} daddr @itself{f} accept\n" for f in FAMILIES
    )
    # As with K3s: these help to find faults, and paths need them to learn their MTU.
    icmp = f"""  icmp type {{ {_ICMP} }} accept
  icmpv6 type {{ {_ICMP}, {_ICMP6} }} accept
"""
    known = """  ct state vmap { established : accept, related : accept, invalid : jump invalid }
"""
    new = "  tcp flags & (fin|syn|rst|ack) != syn jump midstream\n"
    return f"""chain ingress {{
{vmaps[INGRESS]}  accept
}}
chain forward {{
  type filter hook forward priority filter; policy accept;
{known}{from_unknown}{_unknown(facts, "daddr")}{new}{itself}{icmp}{vmaps[EGRESS]}  goto ingress
}}
chain input {{
  type filter hook input priority filter; policy accept;
  iifname "lo" accept
{known}{from_unknown}{new}{icmp}{vmaps[EGRESS]}}}
"""


def _unknown(facts: Facts, side: str) -> str:
    return "".join(
        f"  {_FIELDS[f]} {side} {network} {_FIELDS[f]} {side} != @known{f} goto unknown\n"
        for network in facts.closed
        for f in [family_of(network)]
    )


def family_of(address: str) -> str:
    return "6" if ":" in address else "4"


def digest(*texts: str) -> str:
    return hashlib.sha1("\n".join(texts).encode(), usedforsecurity=False).hexdigest()[:12]


def policy_chain(key: str, direction: str) -> str:
    name = f"policy/{direction}/{key}"
    return name if len(name) <= _LONGEST_NAME else f"policy/{direction}/{digest(key)}"


def pod_chain(direction: str, policies: Sequence[str]) -> str:
    """One for all pods that the same policies isolate."""
    return f"{'out' if direction == EGRESS else 'in'}/{digest(*policies)}"


def pod_rules(direction: str, policies: Sequence[str]) -> tuple[str, ...]:
    jumps = [f"jump {policy_chain(key, direction)}" for key in policies]
    return (*jumps, f"goto deny_{direction}")


def peers_set(peers: Peers, family: str) -> str:
    return f"peers/{digest(repr(peers))}/{family}"


def peers_type(family: str) -> str:
    return f"type {_TYPES[family]};"


def ports_set(key: str, direction: str, rule: int, family: str) -> str:
    """The set for the named ports of a rule: addresses of the target pods with their ports."""
    return f"{policy_chain(key, direction)}/{rule}/{family}".replace("policy/", "ports/", 1)


def ports_type(family: str) -> str:
    return f"type {_TYPES[family]} . inet_proto . inet_service;"


def rule_texts(
    rule: Rule, direction: str, groups: Mapping[Peers, frozenset[str]], named: Mapping[str, str]
) -> list[str]:
    """
    The nft rules of a policy's rule.

    ``groups``: the address families that each group of peers has members of. ``named``:
    by family, the set of target pods' named ports; in egress it stands for the peers too.
    """
    side, verdict = _PEER_SIDE[direction], _NEXT[direction]
    peers = _peer_matches(rule, side, groups)
    numbers = [""] if rule.every_port else _port_matches(rule.ports)
    matches = [f"{peer}{number}" for _, peer in peers for number in numbers]
    for family, name in named.items():
        port = f"{_FIELDS[family]} daddr . meta l4proto . th dport @{name} "
        if direction == EGRESS:
            matches.append(port)
        else:
            # nft refuses a rule that could never match.
            matches += [f"{peer}{port}" for of, peer in peers if of in ("", family)]
    return [f"{match}{verdict}" for match in matches]


def _peer_matches(
    rule: Rule, side: str, groups: Mapping[Peers, frozenset[str]]
) -> list[tuple[str, str]]:
    """Each with its address family; "": both."""
    if rule.everyone:
        return [("", "")]
    found = [
        (family, f"{_FIELDS[family]} {side} @{peers_set(peers, family)} ")
        for peers in dict.fromkeys(rule.peers)
        for family in sorted(groups[peers])
    ]
    if rule.blocks4:
        texts = [_range(IPv4Address(a), IPv4Address(b)) for a, b in rule.blocks4]
        found.append(("4", f"ip {side} {_one_of(texts)} "))
    if rule.blocks6:
        texts = [_range(IPv6Address(a), IPv6Address(b)) for a, b in rule.blocks6]
        found.append(("6", f"ip6 {side} {_one_of(texts)} "))
    return found


def dotted(rule: Rule) -> list[str]:
    """The blocks of addresses, exceptions taken out, as people write them."""
    found = [_range(IPv4Address(a), IPv4Address(b)) for a, b in rule.blocks4]
    return found + [_range(IPv6Address(a), IPv6Address(b)) for a, b in rule.blocks6]


def _port_matches(ports: Iterable[Port]) -> list[str]:
    by_protocol: dict[str, list[Range]] = {}
    for port in ports:
        if not port.name:
            by_protocol.setdefault(port.protocol.lower(), []).append((port.first, port.last))
    found = []
    for protocol, ranges in by_protocol.items():
        whole = merged(ranges)
        if whole[0][0] == 0 and whole[0][1] == 65535:
            found.append(f"meta l4proto {protocol} ")
        else:
            found.append(f"{protocol} dport {_one_of([_range(a, b) for a, b in whole])} ")
    return found


def _range(first: object, last: object) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def _one_of(texts: Sequence[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{{ {', '.join(texts)} }}"
