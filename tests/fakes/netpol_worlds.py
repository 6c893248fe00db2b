"""
Random pods, namespaces and policies, and a reference that says what they allow.

The reference is written from the documentation of NetworkPolicy alone, for raw objects and
slowly: it shares nothing with what it judges.
"""

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import strategies as st

from operators.netpol.objects import labels_of, pod_of, policy_of
from operators.netpol.oracle import End, Wanted, allowed
from operators.netpol.plan import Compiler
from tests.fakes.netpol import Object, namespace_object, pod, policy

NAMESPACES = ("red", "blue", "green")
PODS = {f"p{number}": f"10.42.0.{number + 2}" for number in range(6)}


def reference(world: "World", source: Object | str, target: Object | str, wanted: Any) -> bool:
    """Pods are objects, what is no pod is an address, and the node is "node"."""
    if source == "node" or source is target:
        return True
    for pod_, other, direction in ((source, target, "Egress"), (target, source, "Ingress")):
        if isinstance(pod_, str):
            continue
        selecting = [
            p
            for p in world.policies
            if p["metadata"]["namespace"] == pod_["metadata"]["namespace"]
            and direction in p["spec"]["policyTypes"]
            and label_match(p["spec"]["podSelector"], pod_["metadata"]["labels"])
        ]
        if selecting and not any(
            rule_allows(world, p, rule, (other, target, wanted))
            for p in selecting
            for rule in p["spec"].get(direction.lower(), [])
        ):
            return False
    return True


def label_match(selector: Any, labels: Any) -> bool:
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions", []):
        present, values = one["key"] in labels, one.get("values", [])
        matched = {
            "Exists": present,
            "DoesNotExist": not present,
            "In": present and labels[one["key"]] in values,
            "NotIn": not present or labels[one["key"]] not in values,
        }
        if not matched[one["operator"]]:
            return False
    return True


def rule_allows(world: "World", p: Any, rule: Any, asked: Any) -> bool:
    other, target, wanted = asked
    peers, ports = rule.get("from") or rule.get("to"), rule.get("ports")
    if peers and not any(peer_match(world, p, peer, other) for peer in peers):
        return False
    return not ports or any(port_match(port, target, wanted) for port in ports)


def peer_match(world: "World", p: Any, peer: Any, other: Any) -> bool:
    if "ipBlock" in peer:
        address = ip_address(address_of(other))
        inside = address in ip_network(peer["ipBlock"]["cidr"])
        return inside and not any(
            address in ip_network(hole) for hole in peer["ipBlock"].get("except", [])
        )
    if isinstance(other, str):
        return False
    if "namespaceSelector" in peer:
        namespace = world.namespaces[other["metadata"]["namespace"]]
        if not label_match(peer["namespaceSelector"], namespace["metadata"]["labels"]):
            return False
    elif other["metadata"]["namespace"] != p["metadata"]["namespace"]:
        return False
    return label_match(peer.get("podSelector", {}), other["metadata"]["labels"])


def port_match(port: Any, target: Any, wanted: Any) -> bool:
    protocol, number = wanted
    if port.get("protocol", "TCP") != protocol:
        return False
    given: int | str | None = port.get("port")
    if given is None:
        return True
    if isinstance(given, int):
        last: int = port.get("endPort", given)
        return bool(given <= number <= last)
    return not isinstance(target, str) and any(
        own["name"] == given
        and own.get("protocol", "TCP") == protocol
        and own["containerPort"] == number
        for container in target["spec"]["containers"]
        for own in container["ports"]
    )


def address_of(end: Object | str) -> str:
    if isinstance(end, str):
        return "192.0.2.1" if end == "node" else end
    return str(end["status"]["podIPs"][0]["ip"])


# -- random worlds


class World:
    def __init__(self, pods: list[Object], namespaces: list[Object], policies: list[Object]):
        self.pods = {one["metadata"]["name"]: one for one in pods}
        self.namespaces = {one["metadata"]["name"]: one for one in namespaces}
        self.policies = policies

    def __repr__(self) -> str:
        shown = [(p["metadata"]["namespace"], p["metadata"]["labels"]) for p in self.pods.values()]
        return f"pods {shown} namespaces {self.namespaces} policies {self.policies}"


KEYS, VALUES = st.sampled_from(("app", "tier")), st.sampled_from(("a", "b"))
LABELS = st.dictionaries(KEYS, VALUES, max_size=2)
EXPRESSIONS = st.one_of(
    st.builds(
        lambda key, operator, values: {"key": key, "operator": operator, "values": values},
        KEYS,
        st.sampled_from(("In", "NotIn")),
        st.lists(VALUES, min_size=1, max_size=2),
    ),
    st.builds(
        lambda key, operator: {"key": key, "operator": operator},
        KEYS,
        st.sampled_from(("Exists", "DoesNotExist")),
    ),
)
SELECTORS = st.one_of(
    st.just({}),
    st.builds(lambda labels: {"matchLabels": labels}, LABELS),
    st.builds(lambda found: {"matchExpressions": found}, st.lists(EXPRESSIONS, max_size=2)),
)
BLOCKS = st.sampled_from(
    (
        {"cidr": "0.0.0.0/0"},
        {"cidr": "192.0.2.0/24"},
        {"cidr": "192.0.2.9/32"},
        {"cidr": "10.42.0.0/24", "except": ["10.42.0.4/31", "10.42.0.7/32"]},
        {"cidr": "10.42.0.0/30"},
        {"cidr": "0.0.0.0/0", "except": ["10.42.0.0/16", "192.0.2.9/32"]},
        {"cidr": "fd00::/8"},
    )
)
PEERS = st.one_of(
    st.builds(lambda s: {"podSelector": s}, SELECTORS),
    st.builds(lambda s: {"namespaceSelector": s}, SELECTORS),
    st.builds(lambda n, s: {"namespaceSelector": n, "podSelector": s}, SELECTORS, SELECTORS),
    st.builds(lambda b: {"ipBlock": b}, BLOCKS),
)
PORTS = st.one_of(
    st.just({}),
    st.builds(lambda p: {"protocol": p}, st.sampled_from(("TCP", "UDP", "SCTP"))),
    st.builds(
        lambda protocol, port: {"protocol": protocol, "port": port},
        st.sampled_from(("TCP", "UDP")),
        st.sampled_from((80, 81, 53, "http", "dns", "nothing")),
    ),
    st.builds(
        lambda first, more: {"port": first, "endPort": first + more},
        st.sampled_from((1, 53, 80, 81)),
        st.sampled_from((0, 1, 30, 8000)),
    ),
)


def rules_of(side: str) -> st.SearchStrategy[list[Object]]:
    rule = st.builds(
        lambda peers, ports: ({side: peers} if peers else {}) | ({"ports": ports} if ports else {}),
        st.lists(PEERS, max_size=3),
        st.lists(PORTS, max_size=3),
    )
    return st.lists(rule, max_size=2)


POLICIES = st.builds(
    lambda number, namespace, selector, types, ingress, egress: policy(
        f"policy{number}",
        {"podSelector": selector, "policyTypes": types}
        | ({"ingress": ingress} if "Ingress" in types else {})
        | ({"egress": egress} if "Egress" in types else {}),
        namespace=namespace,
    ),
    st.integers(0, 3),
    st.sampled_from(NAMESPACES),
    SELECTORS,
    st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"])),
    rules_of("from"),
    rules_of("to"),
)
NAMED_PORTS = st.sampled_from(
    (
        [],
        [{"name": "http", "containerPort": 80}],
        [{"name": "http", "containerPort": 8080}, {"name": "dns", "containerPort": 53}],
        [{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
    )
)


@st.composite
def worlds(draw: Any) -> World:
    pods = [
        pod(name, ip, namespace=draw(st.sampled_from(NAMESPACES)), labels=draw(LABELS))
        for name, ip in PODS.items()
    ]
    for one in pods:
        one["spec"]["containers"][0]["ports"] = draw(NAMED_PORTS)
    namespaces = [namespace_object(name, **draw(LABELS)) for name in NAMESPACES]
    found = draw(st.lists(POLICIES, min_size=1, max_size=6))
    unique = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in found}
    return World(pods, namespaces, list(unique.values()))


# -- what is judged


class Told:
    """A compiler that is told of one world after another, as watches would tell it."""

    def __init__(self) -> None:
        self.compiler = Compiler("n1")
        self._known: dict[str, Object] = {}

    def follow(self, world: World) -> None:
        compiler = self.compiler
        for name, one in world.namespaces.items():
            compiler.put_namespace(name, labels_of(one["metadata"]["labels"]))
        for name, one in world.pods.items():
            before = self._known.get(name)
            if before and before["metadata"]["namespace"] != one["metadata"]["namespace"]:
                key = f"{before['metadata']['namespace']}/{name}"
                compiler.change_pods(compiler.pods.gone(key, before["metadata"]["uid"]))
            self._known[name] = one
            made = pod_of(one)
            assert made is not None
            compiler.change_pods(compiler.pods.told(made))
        wanted = {(p["metadata"]["namespace"], p["metadata"]["name"]): p for p in world.policies}
        for namespace in NAMESPACES:
            for old in list(compiler.policies(namespace)):
                if (namespace, old.name) not in wanted:
                    compiler.put_policy(namespace, old.name, None)
        for (namespace, name), body in wanted.items():
            compiler.put_policy(namespace, name, policy_of(body))


def said(compiler: Compiler, source: Any, target: Any, wanted: Wanted) -> bool:
    """What the operator's own oracle says."""
    pods = compiler.pods
    ends = [
        End(address_of(end), pods.at(address_of(end)), here=end == "node")
        for end in (source, target)
    ]
    return allowed(compiler, ends[0], ends[1], wanted, node="n1")
