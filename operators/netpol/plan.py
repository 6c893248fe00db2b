"""
All policies, pods and namespaces become the parts of this node's table. Pure.

Only what concerns a pod of this node is compiled: a policy without such a pod has no
chain, and a group of peers without such a policy has no set. A change marks the parts
that it touches, and :meth:`Compiler.parts` makes these anew.

The cluster DNS, where a process of the node answers at its Service's address, is
taken for a pod with the labels and ports that CoreDNS has: a policy that lets pods ask
``k8s-app: kube-dns`` in kube-system lets them ask here too.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from operators.netpol import rules
from operators.netpol.objects import Labels, Peers, Pod, Policy, Rule, alike, says_the_same
from operators.netpol.oracle import EGRESS, INGRESS, isolating, rules_of, selects, within
from operators.netpol.pods import Change, Pods, dns_pod
from operators.netpol.rules import FAMILIES, family_of
from operators.netpol.table import EMPTY, Owner, Part

DIRECTIONS = (INGRESS, EGRESS)
_NOTHING: Labels = {}
Side = tuple[str, str]  # a policy's key and a direction
Combination = tuple[str, ...]  # keys of policies


class Lost(NamedTuple):
    """``narrowed``: a connection may have lost its permission. ``released``: free addresses."""

    narrowed: bool = False
    released: frozenset[str] = frozenset()

    def __or__(self, other: "Lost") -> "Lost":
        return Lost(self.narrowed or other.narrowed, self.released | other.released)


@dataclass(slots=True)
class _Group:
    """Pods that some rules name as peers, and the rules' policies."""

    peers: Peers
    members: dict[str, Pod] = field(default_factory=dict)
    users: set[Side] = field(default_factory=set)
    count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 0))

    def families(self) -> frozenset[str]:
        return frozenset(family for family in FAMILIES if self.count[family])

    def put(self, key: str, pod: Pod | None) -> None:
        for one, step in ((self.members.pop(key, None), -1), (pod, 1)):
            for address in one.ips if one else ():
                self.count[family_of(address)] += step
        if pod:
            self.members[key] = pod


@dataclass(frozen=True, slots=True)
class _Local:
    """A pod of this node, and by direction the policies that isolate it."""

    pod: Pod
    policies: Mapping[str, Combination]


class Compiler:
    """
    Its mutable state: what is known, what of it concerns this node, and which parts are due.

    ``node``: the name of this node. ``dns``: the address of a cluster DNS that no pod is behind.
    """

    def __init__(self, node: str, *, dns: str = "") -> None:
        self.node = node
        self.pods = Pods()
        self.lost = Lost()  # since :meth:`take_lost`
        self._namespaces: dict[str, Labels] = {}
        self._policies: dict[str, dict[str, Policy]] = {}
        self._groups: dict[Peers, _Group] = {}
        self._local: dict[str, _Local] = {}
        self._selected: dict[Side, set[str]] = {}  # policies at work, and their pods here
        self._combined: dict[tuple[str, Combination], set[str]] = {}  # with the pods here
        self._any_pod: set[Side] = set()  # they look up the named ports of whatever pod
        self._due: dict[Owner, None] = {}
        if dns:
            self.change_pods(self.pods.told(dns_pod(dns)))

    # -- what others ask

    def labels(self, namespace: str) -> Labels:
        return self._namespaces.get(namespace, _NOTHING)

    def policies(self, namespace: str) -> Iterable[Policy]:
        return self._policies.get(namespace, {}).values()

    def policy(self, namespace: str, name: str) -> Policy | None:
        return self._policies.get(namespace, {}).get(name)

    @property
    def empty(self) -> bool:
        """There is no policy at all."""
        return not self._policies

    @property
    def due(self) -> bool:
        """Rules have changed since :meth:`parts` was called, or may forbid a connection."""
        return bool(self._due or self.lost.narrowed or self.lost.released)

    def isolated(self, key: str) -> bool:
        """Is it a pod of this node that policies select?"""
        found = self._local.get(key)
        return found is not None and any(found.policies.values())

    def guarded(self) -> frozenset[str]:
        """The addresses of this node's pods that policies select."""
        return frozenset(
            ip for key, local in self._local.items() if self.isolated(key) for ip in local.pod.ips
        )

    # -- changes

    def change_pods(self, changes: Iterable[Change]) -> None:
        """What :class:`Pods` says has changed."""
        for old, new in changes:
            if alike(old, new):
                continue
            key = new.key if new else old.key if old else ""
            for group in self._groups.values():
                self._member(group, key, new)
            for side in self._any_pod if _have_ports(old, new) else ():
                self._mark(side)
            here = new and new.ips and self.node and new.node == self.node
            self._place(key, new if here else None)

    def put_policy(self, namespace: str, name: str, policy: Policy | None) -> None:
        """None: it is gone."""
        known = self._policies.get(namespace, {})
        if says_the_same(known.get(name), policy):
            if policy:
                known[name] = policy
            return
        self.lost |= Lost(narrowed=True)
        for direction in DIRECTIONS:
            self._close((f"{namespace}/{name}", direction))
        if policy is None:
            del known[name]
            if not known:
                del self._policies[namespace]
        else:
            self._policies.setdefault(namespace, {})[name] = policy
        for key, local in list(self._local.items()):
            if local.pod.namespace == namespace:
                self._place(key, local.pod)

    def put_namespace(self, name: str, labels: Labels | None) -> None:
        """None: it is gone."""
        if self._namespaces.get(name) == labels:
            return
        if labels is None:
            del self._namespaces[name]
        else:
            self._namespaces[name] = labels
        by_labels = [group for group in self._groups.values() if group.peers.namespaces is not None]
        for pod in self.pods if by_labels else ():
            if pod.namespace == name:
                for group in by_labels:
                    self._member(group, pod.key, pod)

    # -- the peers of rules

    def _member(self, group: _Group, key: str, pod: Pod | None) -> None:
        old = group.members.get(key)
        new = pod if pod and pod.ips and selects(group.peers, pod, self.labels) else None
        if old is None and new is None:
            return
        before = group.families()
        group.put(key, new)
        if old and new and old.ips == new.ips and old.ports == new.ports:
            return
        self._due["peers", group.peers] = None
        self.lost |= Lost(narrowed=old is not None)
        if _have_ports(old, new) or before != group.families():
            for side in group.users:
                self._mark(side)

    # -- the pods of this node

    def _place(self, key: str, pod: Pod | None) -> None:
        old = self._local.get(key)
        if old is None and pod is None:
            return
        self._due["pod", key] = None
        policies = {direction: self._isolating(pod, direction) for direction in DIRECTIONS}
        then, ips = frozenset(old.pod.ips if old else ()), frozenset(pod.ips if pod else ())
        narrowed = bool(ips - then) and any(policies.values())
        self.lost |= Lost(narrowed=narrowed, released=then - ips)
        for direction in DIRECTIONS:
            before = old.policies[direction] if old else ()
            now = policies[direction]
            self._combine(direction, key, before, now)
            for policy in set(before) - set(now):
                self._deselect((policy, direction), key)
            for policy in now:
                self._select((policy, direction), key)
                if direction == INGRESS and _have_ports(old.pod if old else None, pod):
                    self._mark((policy, direction))
        if pod is None:
            del self._local[key]
        else:
            self._local[key] = _Local(pod, policies)

    def _isolating(self, pod: Pod | None, direction: str) -> Combination:
        return tuple(sorted(p.key for p in isolating(self, pod, direction))) if pod else ()

    def _combine(self, direction: str, key: str, before: Combination, now: Combination) -> None:
        if before != now and now:
            self.lost |= Lost(narrowed=True)
        for combination, present in ((before, False), (now, True)):
            if not combination or (before == now and not present):
                continue
            pods = self._combined.setdefault((direction, combination), set())
            if present:
                pods.add(key)
            else:
                pods.discard(key)
            self._due["pods", direction, *combination] = None
            if not pods:
                del self._combined[direction, combination]

    def _select(self, side: Side, key: str) -> None:
        if side not in self._selected:
            self._selected[side] = set()
            self._open(side)
        self._selected[side].add(key)

    def _deselect(self, side: Side, key: str) -> None:
        pods = self._selected.get(side)
        if pods is None:
            return
        pods.discard(key)
        if side[1] == INGRESS:
            self._mark(side)
        if not pods:
            self._close(side)

    # -- policies at work

    def _mark(self, side: Side) -> None:
        self._due["policy", *side] = None

    def _rules(self, side: Side) -> tuple[Rule, ...]:
        policy = self.policy(*side[0].split("/", 1))
        return (rules_of(policy, side[1]) or ()) if policy else ()

    def _open(self, side: Side) -> None:
        self._mark(side)
        for rule in self._rules(side):
            for peers in rule.peers:
                group = self._groups.get(peers) or self._new_group(peers)
                group.users.add(side)
            anywhere = rule.everyone or rule.blocks4 or rule.blocks6
            if side[1] == EGRESS and anywhere and any(port.name for port in rule.ports):
                self._any_pod.add(side)

    def _close(self, side: Side) -> None:
        """Before the policy itself is forgotten."""
        if self._selected.pop(side, None) is None:
            return
        self._mark(side)
        self._any_pod.discard(side)
        for rule in self._rules(side):
            for peers in rule.peers:
                group = self._groups.get(peers)
                if group is None:
                    continue
                group.users.discard(side)
                if not group.users:
                    del self._groups[peers]
                    self._due["peers", peers] = None

    def _new_group(self, peers: Peers) -> _Group:
        group = self._groups[peers] = _Group(peers)
        self._due["peers", peers] = None
        for pod in self.pods:
            if pod.ips and selects(peers, pod, self.labels):
                group.put(pod.key, pod)
        return group

    def take_lost(self) -> "Lost":
        found, self.lost = self.lost, Lost()
        return found

    # -- the parts

    def parts(self) -> dict[Owner, Part]:
        """Those that have changed since the last call."""
        due, self._due = self._due, {}
        return {owner: self._part(owner) for owner in due}

    def _part(self, owner: Owner) -> Part:
        kind, *rest = owner
        match kind:
            case "pod":
                return self._pod_part(rest[0])
            case "pods":
                return self._combination_part(rest[0], tuple(rest[1:]))
            case "peers":
                return self._peers_part(rest[0])
            case _:
                return self._policy_part((rest[0], rest[1]))

    def _pod_part(self, key: str) -> Part:
        local = self._local.get(key)
        if local is None:
            return EMPTY
        elements: dict[str, dict[str, str]] = {}
        for ip in local.pod.ips:
            family = family_of(ip)
            elements.setdefault(f"known{family}", {})[ip] = ""
            if any(local.policies.values()):
                elements.setdefault(f"isolated{family}", {})[ip] = ""
                elements.setdefault(f"itself{family}", {})[f"{ip} . {ip}"] = ""
            for direction, policies in local.policies.items():
                if policies:
                    verdict = f"goto {rules.pod_chain(direction, policies)}"
                    elements.setdefault(f"{direction}{family}", {})[ip] = verdict
        return Part(elements=elements)

    def _combination_part(self, direction: str, policies: Combination) -> Part:
        if (direction, policies) not in self._combined:
            return EMPTY
        name = rules.pod_chain(direction, policies)
        return Part(chains={name: rules.pod_rules(direction, policies)})

    def _peers_part(self, peers: Peers) -> Part:
        group = self._groups.get(peers)
        if group is None:
            return EMPTY
        names = {family: rules.peers_set(peers, family) for family in sorted(group.families())}
        elements: dict[str, dict[str, str]] = {name: {} for name in names.values()}
        for pod in group.members.values():
            for ip in pod.ips:
                elements[names[family_of(ip)]][ip] = ""
        return Part(
            sets={name: rules.peers_type(family) for family, name in names.items()},
            elements=elements,
        )

    def _policy_part(self, side: Side) -> Part:
        if side not in self._selected:
            return EMPTY
        key, direction = side
        texts: list[str] = []
        sets: dict[str, str] = {}
        elements: dict[str, dict[str, str]] = {}
        for number, rule in enumerate(self._rules(side)):
            named: dict[str, str] = {}
            for family, found in self._named_ports(side, rule).items():
                name = named[family] = rules.ports_set(key, direction, number, family)
                sets[name] = rules.ports_type(family)
                elements[name] = found
            groups = {peers: self._groups[peers].families() for peers in rule.peers}
            texts += rules.rule_texts(rule, direction, groups, named)
        chain = rules.policy_chain(key, direction)
        return Part(chains={chain: tuple(texts)}, sets=sets, elements=elements)

    def _named_ports(self, side: Side, rule: Rule) -> dict[str, dict[str, str]]:
        """By family, what the ports with a name are at the pods that the rule may lead to."""
        wanted = {(port.name, port.protocol) for port in rule.ports if port.name}
        if not wanted:
            return {}
        found: dict[str, dict[str, str]] = {}
        for pod, ips in self._targets(side, rule):
            numbers = [p for p in pod.ports if (p.name, p.protocol) in wanted]
            for ip in ips if numbers else ():
                elements = found.setdefault(family_of(ip), {})
                for port in numbers:
                    elements[f"{ip} . {port.protocol.lower()} . {port.number}"] = ""
        return found

    def _targets(self, side: Side, rule: Rule) -> Iterator[tuple[Pod, tuple[str, ...]]]:
        if side[1] == INGRESS:
            for key in self._selected[side]:
                if pod := self.pods.get(key):
                    yield pod, pod.ips
            return
        if rule.everyone or rule.blocks4 or rule.blocks6:
            for pod in self.pods:
                yield pod, tuple(ip for ip in pod.ips if rule.everyone or _in_block(rule, ip))
        for peers in rule.peers:
            for pod in self._groups[peers].members.values():
                yield pod, pod.ips


def _in_block(rule: Rule, ip: str) -> bool:
    blocks = rule.blocks6 if ":" in ip else rule.blocks4
    return bool(blocks) and within(blocks, int(ip_address(ip)))


def _have_ports(*pods: Pod | None) -> bool:
    return any(pod is not None and pod.ports for pod in pods)
