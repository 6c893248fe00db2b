"""What becomes of policies and pods in nft's language, and how little a change touches."""

from collections.abc import Mapping
from typing import Any

import pytest

from operators.netpol import rules
from operators.netpol.objects import labels_of, pod_of, policy_of
from operators.netpol.plan import Compiler
from operators.netpol.rules import Facts
from operators.netpol.table import Table
from tests.fakes.netpol import Object, pod, policy


class Node:
    """A compiler with its table; ``n1`` is this node."""

    def __init__(self, **more: Any) -> None:
        self.compiler = Compiler("n1", **more)
        self.table = Table("inet", "t")

    def put(self, *bodies: Object) -> str:
        """The transaction that they make."""
        for body in bodies:
            metadata = body["metadata"]
            if "podSelector" in body.get("spec", {}):
                made = policy_of(body)
                self.compiler.put_policy(made.namespace, made.name, made)
            elif "namespace" in metadata:
                found = pod_of(body)
                pods = self.compiler.pods
                self.compiler.change_pods(
                    pods.told(found)
                    if found
                    else pods.gone(
                        f"{metadata['namespace']}/{metadata['name']}", metadata["uid"], 99
                    )
                )
            else:
                self.compiler.put_namespace(metadata["name"], labels_of(metadata.get("labels")))
        return self.table.replace(self.compiler.parts()).text

    def chain(self, name: str) -> list[str]:
        text = self.table.full("")
        return [
            line.partition(f" {name} ")[2]
            for line in text.splitlines()
            if line.startswith("add rule") and f" {name} " in line
        ]


def ingress(*given: Mapping[str, Any], **more: Any) -> Object:
    return policy("p", {"policyTypes": ["Ingress"], "ingress": list(given)}, **more)


CHAIN = "policy/ingress/default/p"


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, ["accept"]),
        ({"ports": [{"port": 80}]}, ["tcp dport 80 accept"]),
        ({"ports": [{"protocol": "UDP"}]}, ["meta l4proto udp accept"]),
        (
            {"ports": [{"port": 80}, {"port": 90, "endPort": 99}, {"port": 53, "protocol": "UDP"}]},
            ["tcp dport { 80, 90-99 } accept", "udp dport 53 accept"],
        ),
        (
            {"ports": [{"port": 1, "endPort": 65535}, {"port": 80}]},
            ["tcp dport 1-65535 accept"],
        ),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/31"}}], "ports": [{"port": 80}]},
            ["ip saddr 10.0.0.0-10.0.0.1 tcp dport 80 accept"],
        ),
        ({"from": [{"ipBlock": {"cidr": "fd00::/128"}}]}, ["ip6 saddr fd00:: accept"]),
        ({"from": [{"podSelector": {"matchLabels": {"no": "such"}}}]}, []),
    ],
)
def test_rules_of_ingress(rule: Mapping[str, Any], wanted: list[str]) -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2"), ingress(rule))
    assert node.chain(CHAIN) == wanted


def test_egress_goes_on_to_the_ingress_of_the_target() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2"), policy("p", {"policyTypes": ["Egress"], "egress": [{}]}))
    assert node.chain("policy/egress/default/p") == ["goto ingress"]


def test_peers_are_a_set_for_each_group_and_a_rule_for_each_family() -> None:
    node = Node()
    rule: Object = {"from": [{"podSelector": {}}, {"podSelector": {}}]}
    node.put(pod("a", "10.42.0.2"), pod("b", "10.42.0.3,fd00::3", node="n2"), ingress(rule))
    [four, six] = node.chain(CHAIN)
    assert four.startswith("ip saddr @peers/")
    assert six.startswith("ip6 saddr @peers/")
    name = four.split("@")[1].split()[0]
    assert f"{name} {{ 10.42.0.2, 10.42.0.3 }}" in node.table.full("")


def test_pods_with_the_same_policies_share_a_chain() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2"), pod("b", "10.42.0.3"), ingress())
    text = node.table.full("")
    assert text.count("add chain inet t in/") == 1
    assert text.count(": goto in/") == 2


def test_a_policy_without_a_pod_here_has_no_chain() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2", node="n2"), ingress({"from": [{"podSelector": {}}]}))
    assert node.table.full("") == "add table inet t\ndelete table inet t\ntable inet t {\n}\n"


def test_a_new_peer_is_one_element_and_no_rule() -> None:
    node = Node()
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    web = {"app": "web"}
    node.put(pod("a", "10.42.0.2"), pod("b", "10.42.1.2", node="n2", labels=web), ingress(rule))
    text = node.put(pod("c", "10.42.1.3", node="n2", labels=web))
    [line] = text.splitlines()
    assert line.startswith("add element inet t peers/")
    assert line.endswith("{ 10.42.1.3 }")


def test_a_pod_that_becomes_ready_changes_nothing() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2"), ingress())
    node.compiler.take_lost()
    assert node.put(pod("a", "10.42.0.2", version=7)) == ""
    assert not node.compiler.due


def test_the_last_peer_takes_its_set_and_the_rule_along() -> None:
    node = Node()
    rule = {"from": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    node.put(pod("a", "10.42.0.2"), pod("b", "10.42.0.3", labels={"app": "web"}), ingress(rule))
    text = node.put(pod("b", "10.42.0.3", labels={"app": "other"}))
    assert f"flush chain inet t {CHAIN}" in text
    assert "delete set inet t peers/" in text
    assert node.compiler.lost.narrowed


def test_namespaces_are_selected_by_their_labels() -> None:
    node = Node()
    rule = {"from": [{"namespaceSelector": {"matchLabels": {"team": "red"}}}]}
    other = pod("b", "10.42.0.3", namespace="other")
    node.put(pod("a", "10.42.0.2"), other, ingress(rule))
    assert node.chain(CHAIN) == []
    node.put({"metadata": {"name": "other", "labels": {"team": "red"}}})
    assert len(node.chain(CHAIN)) == 1
    node.put({"metadata": {"name": "other", "labels": {}}})
    assert node.chain(CHAIN) == []


HTTP = [{"name": "http", "containerPort": 8080}]


def test_a_port_by_name_is_what_each_target_calls_so() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2", ports=HTTP), pod("b", "10.42.0.3"))
    node.put(ingress({"ports": [{"port": "http"}]}))
    assert node.chain(CHAIN) == [
        "ip daddr . meta l4proto . th dport @ports/ingress/default/p/0/4 accept"
    ]
    assert "ports/ingress/default/p/0/4 { 10.42.0.2 . tcp . 8080 }" in node.table.full("")


def test_peers_of_one_family_meet_no_ports_of_the_other() -> None:
    node = Node()
    peers = [{"ipBlock": {"cidr": "fd00::/64"}}, {"ipBlock": {"cidr": "10.0.0.0/8"}}]
    rule = {"from": peers, "ports": [{"port": "http"}]}
    node.put(pod("a", "10.42.0.2,fd00::2", ports=HTTP), ingress(rule))
    four, six = sorted(node.chain(CHAIN))
    assert four.startswith("ip saddr 10.0.0.0-10.255.255.255 ip daddr . ")
    assert six.startswith("ip6 saddr fd00::-fd00::ffff:ffff:ffff:ffff ip6 daddr . ")


def test_in_egress_a_port_by_name_is_looked_up_at_the_peers() -> None:
    node = Node()
    rule = {
        "to": [{"podSelector": {"matchLabels": {"app": "web"}}}],
        "ports": [{"port": "http"}],
    }
    node.put(pod("a", "10.42.0.2"), policy("p", {"policyTypes": ["Egress"], "egress": [rule]}))
    assert node.chain("policy/egress/default/p") == []
    node.put(pod("b", "10.42.1.2", node="n2", labels={"app": "web"}, ports=HTTP))
    [text] = node.chain("policy/egress/default/p")
    assert "@ports/egress/default/p/0/4" in text
    assert "{ 10.42.1.2 . tcp . 8080 }" in node.table.full("")


@pytest.mark.parametrize("to", [[], [{"ipBlock": {"cidr": "10.42.1.0/24"}}]])
def test_in_egress_to_anywhere_a_port_by_name_is_looked_up_at_all_pods(to: Any) -> None:
    node = Node()
    spec = {"policyTypes": ["Egress"], "egress": [{"to": to, "ports": [{"port": "http"}]}]}
    node.put(pod("a", "10.42.0.2"), policy("p", spec))
    node.put(pod("b", "10.42.1.2", node="n2", ports=HTTP))
    assert "{ 10.42.1.2 . tcp . 8080 }" in node.table.full("")
    node.put(pod("b", "10.42.1.2", node="n2", ports=HTTP, phase="Failed"))
    assert "10.42.1.2" not in node.table.full("")


def test_a_deleted_policy_leaves_nothing_behind() -> None:
    node = Node()
    rule = {"from": [{"podSelector": {}}], "ports": [{"port": "http"}]}
    node.put(pod("a", "10.42.0.2", ports=HTTP), ingress(rule))
    node.compiler.put_policy("default", "p", None)
    node.table.replace(node.compiler.parts())
    assert node.compiler.empty
    rest = node.table.full("").splitlines()[4:]
    assert rest == ["add element inet t known4 { 10.42.0.2 }"]


def test_long_names_get_short_ones_in_the_kernel() -> None:
    name = rules.policy_chain(f"{'n' * 63}/{'p' * 253}", "ingress")
    assert len(name) < 200


def test_the_cluster_dns_is_a_peer() -> None:
    node = Node(dns="10.43.0.10")
    peer = {"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}
    rule = {"to": [peer], "ports": [{"port": "dns", "protocol": "UDP"}]}
    node.put(pod("a", "10.42.0.2"), policy("p", {"policyTypes": ["Egress"], "egress": [rule]}))
    assert "{ 10.43.0.10 . udp . 53 }" in node.table.full("")


def test_unknown_addresses_are_stopped_only_where_that_is_wanted() -> None:
    assert "goto unknown" not in rules.fixed_text(Facts())
    text = rules.fixed_text(Facts(closed=("10.42.0.0/24",)))
    assert "ip saddr 10.42.0.0/24 ip saddr != @known4 goto unknown" in text


def test_a_kernel_that_cannot_log_gets_rules_without() -> None:
    assert "log prefix" in rules.fixed_text(Facts())
    assert "log prefix" not in rules.fixed_text(Facts(log=False))


def test_a_change_that_only_allows_more_is_not_narrowing() -> None:
    node = Node()
    node.put(pod("a", "10.42.0.2"), ingress({"from": [{"podSelector": {}}]}))
    node.compiler.take_lost()
    node.put(pod("b", "10.42.1.3", node="n2"))
    assert not node.compiler.lost.narrowed
