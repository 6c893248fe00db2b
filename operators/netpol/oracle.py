"""
May this reach that? Said straight from the policies, without the rules made of them. Pure.

What the rules admit and what this says must be the same: the tests hold one against the
other. It serves to find the tracked connections that are not allowed any longer, and to
explain to people why something is denied.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple, Protocol

from operators.netpol.objects import Labels, Peers, Pod, Policy, Port, Range, Rule

INGRESS, EGRESS = "ingress", "egress"


class World(Protocol):
    """What the answers depend on."""

    def labels(self, namespace: str) -> Labels: ...

    def policies(self, namespace: str) -> Iterable[Policy]: ...


class End(NamedTuple):
    """One end of a connection. ``pod`` None: an address that is no pod's."""

    address: str
    pod: Pod | None
    here: bool = False  # an address of the node itself


class Wanted(NamedTuple):
    """To which port; protocol TCP, UDP or SCTP, another one for all else."""

    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """``policies``: those that isolate the pod in this direction. ``by``: the one that allows."""

    allowed: bool
    policies: tuple[Policy, ...] = ()
    by: Policy | None = None


def allowed(world: World, source: End, target: End, wanted: Wanted, *, node: str = "") -> bool:
    """``node``: judge only what this node has to enforce; "": both ends, wherever they are."""
    if source.here or source.address == target.address:
        return True

    def ours(end: End) -> bool:
        return end.pod is not None and node in ("", end.pod.node)

    if ours(source) and not egress(world, source, target, wanted).allowed:
        return False
    return not ours(target) or ingress(world, source, target, wanted).allowed


def egress(world: World, source: End, target: End, wanted: Wanted) -> Verdict:
    """What the policies of the source's pod say."""
    return _judge(world, EGRESS, (source, target, target), wanted)


def ingress(world: World, source: End, target: End, wanted: Wanted) -> Verdict:
    """What the policies of the target's pod say."""
    return _judge(world, INGRESS, (target, source, target), wanted)


def isolating(world: World, pod: Pod, direction: str) -> tuple[Policy, ...]:
    return tuple(
        policy
        for policy in world.policies(pod.namespace)
        if rules_of(policy, direction) is not None and policy.pods.matches(pod.labels)
    )


def rules_of(policy: Policy, direction: str) -> tuple[Rule, ...] | None:
    return policy.ingress if direction == INGRESS else policy.egress


def selects(peers: Peers, pod: Pod, labels_of: Callable[[str], Labels]) -> bool:
    if peers.namespaces is None:
        return pod.namespace == peers.namespace and peers.pods.matches(pod.labels)
    return peers.namespaces.matches(labels_of(pod.namespace)) and peers.pods.matches(pod.labels)


def _judge(world: World, direction: str, ends: tuple[End, End, End], wanted: Wanted) -> Verdict:
    subject, other, target = ends
    if subject.pod is None:
        return Verdict(allowed=True)
    policies = isolating(world, subject.pod, direction)
    if not policies:
        return Verdict(allowed=True)
    for policy in policies:
        for rule in rules_of(policy, direction) or ():
            if _is_peer(world, rule, other) and _is_port(rule, target, wanted):
                return Verdict(True, policies, policy)
    return Verdict(False, policies)


def _is_peer(world: World, rule: Rule, end: End) -> bool:
    if rule.everyone:
        return True
    if end.pod is not None and any(selects(p, end.pod, world.labels) for p in rule.peers):
        return True
    blocks = rule.blocks6 if ":" in end.address else rule.blocks4
    return bool(blocks) and within(blocks, int(ip_address(end.address)))


def within(blocks: Iterable[Range], address: int) -> bool:
    return any(first <= address <= last for first, last in blocks)


def _is_port(rule: Rule, target: End, wanted: Wanted) -> bool:
    if rule.every_port:
        return True
    return any(_fits(port, target.pod, wanted) for port in rule.ports)


def _fits(port: Port, pod: Pod | None, wanted: Wanted) -> bool:
    if port.protocol != wanted.protocol:
        return False
    if not port.name:
        return port.first <= wanted.port <= port.last
    return pod is not None and any(
        own.name == port.name and own.protocol == port.protocol and own.number == wanted.port
        for own in pod.ports
    )
