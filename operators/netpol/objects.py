"""
What is kept of pods and policies: values with the few fields that rules depend on. Pure.

A whole pod is ten kilobytes of JSON, a :class:`Pod` less than one.
Source: the API documentation of networking.k8s.io/v1 NetworkPolicy.
"""

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

LOG = logging.getLogger(__name__)
Object = Mapping[str, Any]
Labels = Mapping[str, str]
Range = tuple[int, int]  # addresses as numbers, both inclusive

PROTOCOLS = ("TCP", "UDP", "SCTP")
_FINISHED = ("Succeeded", "Failed")
_LAST_PORT = 65535


class NamedPort(NamedTuple):
    name: str
    protocol: str
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that policies may concern: not in the node's network, not finished."""

    namespace: str
    name: str
    uid: str
    labels: Labels
    ips: tuple[str, ...]
    ports: tuple[NamedPort, ...]
    node: str
    created: str  # RFC 3339
    version: int  # of the object when it was seen

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Requirement(NamedTuple):
    key: str
    operator: str  # In, NotIn, Exists, DoesNotExist
    values: tuple[str, ...]  # in order, so that equal selectors are written alike


class Selector(NamedTuple):
    """Of labels; without requirements it selects all."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Labels) -> bool:
        for key, operator, values in self.requirements:
            value = labels.get(key)
            match operator:
                case "In":
                    fits = value is not None and value in values
                case "NotIn":
                    fits = value is None or value not in values
                case "Exists":
                    fits = value is not None
                case "DoesNotExist":
                    fits = value is None
                case _:
                    fits = False  # nothing that a later API may mean by it
            if not fits:
                return False
        return True


class Peers(NamedTuple):
    """Pods of one namespace, or of the namespaces that a selector selects."""

    namespace: str  # "": see ``namespaces``
    namespaces: Selector | None
    pods: Selector


class Port(NamedTuple):
    """A range of ports, or where ``name`` is set whatever the target pod calls so."""

    protocol: str
    first: int = 0
    last: int = _LAST_PORT
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``everyone``: no peers were named. ``every_port``: no ports were."""

    everyone: bool
    peers: tuple[Peers, ...]
    blocks4: tuple[Range, ...]
    blocks6: tuple[Range, ...]
    every_port: bool
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """``ingress`` and ``egress`` are None where the policy does not isolate in that direction."""

    namespace: str
    name: str
    version: int
    pods: Selector
    ingress: tuple[Rule, ...] | None
    egress: tuple[Rule, ...] | None

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


def pod_of(body: Object) -> Pod | None:
    """None: one that policies do not concern."""
    metadata, spec, status = body["metadata"], body.get("spec") or {}, body.get("status") or {}
    if spec.get("hostNetwork") or status.get("phase") in _FINISHED:
        return None
    return Pod(
        namespace=sys.intern(metadata["namespace"]),
        name=metadata["name"],
        uid=metadata["uid"],
        labels=labels_of(metadata.get("labels")),
        ips=addresses(_ips(status)),
        ports=named_ports(spec),
        node=sys.intern(spec.get("nodeName") or ""),
        created=metadata.get("creationTimestamp") or "",
        version=version_of(metadata),
    )


def _ips(status: Object) -> Iterable[str]:
    if listed := status.get("podIPs"):
        return [entry["ip"] for entry in listed if entry.get("ip")]
    return [status["podIP"]] if status.get("podIP") else []


def addresses(texts: Iterable[str]) -> tuple[str, ...]:
    """Each in its one written form, so that equal addresses are equal texts; no other text."""
    found = []
    for text in texts:
        try:
            found.append(str(ip_address(text)))
        except ValueError:
            LOG.warning("%r is no address", text)
    return tuple(found)


def labels_of(labels: Labels | None) -> Labels:
    return {sys.intern(key): sys.intern(value) for key, value in (labels or {}).items()}


def version_of(metadata: Object) -> int:
    """Versions of objects can be compared as numbers. Source: KEP-5504."""
    text = str(metadata.get("resourceVersion") or "0")
    return int(text) if text.isdecimal() else 0


def named_ports(spec: Object) -> tuple[NamedPort, ...]:
    """Those of containers, and of sidecars, which are init containers that stay (KEP-753)."""
    sidecars = [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    found = {
        NamedPort(
            sys.intern(port["name"]),
            sys.intern(port.get("protocol") or "TCP"),
            int(port["containerPort"]),
        )
        for container in (*(spec.get("containers") or ()), *sidecars)
        for port in container.get("ports") or ()
        if port.get("name") and (port.get("protocol") or "TCP") in PROTOCOLS
    }
    return tuple(sorted(found))


def policy_of(body: Object) -> Policy:
    metadata, spec = body["metadata"], body.get("spec") or {}
    namespace = sys.intern(metadata["namespace"])
    types = spec.get("policyTypes") or (
        ("Ingress", "Egress") if spec.get("egress") else ("Ingress",)
    )

    def rules(direction: str, side: str) -> tuple[Rule, ...]:
        found = []
        for rule in spec.get(direction) or ():
            try:
                found.append(_rule(rule, side, namespace))
            except (KeyError, TypeError, ValueError, AttributeError) as err:
                # The policy isolates all the same: what is not understood allows nothing.
                LOG.warning("%s/%s: a rule allows nothing: %r", namespace, metadata["name"], err)
        return tuple(found)

    return Policy(
        namespace=namespace,
        name=metadata["name"],
        version=version_of(metadata),
        pods=selector_of(spec.get("podSelector")),
        ingress=rules("ingress", "from") if "Ingress" in types else None,
        egress=rules("egress", "to") if "Egress" in types else None,
    )


def selector_of(body: Object | None) -> Selector:
    body = body or {}
    wanted = [
        Requirement(sys.intern(key), "In", (value,))
        for key, value in sorted((body.get("matchLabels") or {}).items())
    ]
    wanted += [
        Requirement(sys.intern(e["key"]), e["operator"], tuple(sorted(e.get("values") or ())))
        for e in body.get("matchExpressions") or ()
    ]
    return Selector(tuple(wanted))


def _rule(rule: Object, side: str, namespace: str) -> Rule:
    named: Sequence[Object] = rule.get(side) or ()
    blocks = [peer["ipBlock"] for peer in named if peer.get("ipBlock")]
    ranges = {4: list[Range](), 6: list[Range]()}
    for block in blocks:
        version, found = _block(block)
        ranges[version] += found
    ports = rule.get("ports") or ()
    return Rule(
        everyone=not named,
        peers=tuple(_peers(peer, namespace) for peer in named if not peer.get("ipBlock")),
        blocks4=merged(ranges[4]),
        blocks6=merged(ranges[6]),
        every_port=not ports,
        ports=tuple(made for port in ports if (made := _port(port)).protocol in PROTOCOLS),
    )


def _peers(peer: Object, namespace: str) -> Peers:
    pods = selector_of(peer.get("podSelector"))
    if peer.get("namespaceSelector") is None:
        return Peers(namespace, None, pods)
    return Peers("", selector_of(peer["namespaceSelector"]), pods)


def _port(port: Object) -> Port:
    protocol, number = port.get("protocol") or "TCP", port.get("port")
    if number is None:
        return Port(protocol)
    if isinstance(number, str):
        return Port(protocol, name=number)
    return Port(protocol, int(number), int(port.get("endPort") or number))


def _block(block: Object) -> tuple[int, list[Range]]:
    """The IP version, and the block without its exceptions. What is no network allows nothing."""
    try:
        whole = ip_network(block["cidr"], strict=False)
        holes = [ip_network(text, strict=False) for text in block.get("except") or ()]
    except ValueError as err:
        LOG.warning("an ipBlock allows nothing: %s", err)
        return 4, []
    left = [(int(whole.network_address), int(whole.broadcast_address))]
    for hole in holes:
        if hole.version == whole.version:
            span = int(hole.network_address), int(hole.broadcast_address)
            left = [part for one in left for part in _without(one, span)]
    return whole.version, left


def _without(one: Range, hole: Range) -> Iterable[Range]:
    (first, last), (start, end) = one, hole
    if end < first or start > last:
        return [one]
    parts = [(first, start - 1), (end + 1, last)]
    return [part for part in parts if part[0] <= part[1]]


def merged(ranges: Iterable[Range]) -> tuple[Range, ...]:
    """The same numbers in as few ranges as there can be, in order."""
    found: list[Range] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(last, found[-1][1])
        else:
            found.append((first, last))
    return tuple(found)


def alike(old: Pod | None, new: Pod | None) -> bool:
    """Nothing that a rule depends on has changed."""
    if old is None or new is None:
        return old is new
    return (old.uid, old.labels, old.ips, old.ports, old.node) == (
        new.uid,
        new.labels,
        new.ips,
        new.ports,
        new.node,
    )


def says_the_same(old: Policy | None, new: Policy | None) -> bool:
    """But for its version: labels and annotations do not matter."""
    if old is None or new is None:
        return old is new
    return _content(old) == _content(new)


def _content(policy: Policy) -> tuple[Any, ...]:
    return policy.pods, policy.ingress, policy.egress
