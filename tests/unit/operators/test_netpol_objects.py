from typing import Any

import pytest

from operators.netpol.objects import (
    NamedPort,
    Port,
    merged,
    named_ports,
    pod_of,
    policy_of,
    selector_of,
)
from tests.fakes.netpol import pod, policy


@pytest.mark.parametrize(
    ("selector", "labels", "fits"),
    [
        ({}, {}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1", "b": "1"}}, {"a": "1"}, False),
        ({"matchExpressions": [{"key": "a", "operator": "In", "values": ["1"]}]}, {}, False),
        ({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": ["1"]}]}, {}, True),
        ({"matchExpressions": [{"key": "a", "operator": "Exists"}]}, {"a": ""}, True),
        ({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, {"a": ""}, False),
        ({"matchExpressions": [{"key": "a", "operator": "Resembles"}]}, {"a": ""}, False),
    ],
)
def test_selectors_select_by_all_that_they_require(
    selector: Any, labels: dict[str, str], fits: bool
) -> None:
    assert selector_of(selector).matches(labels) is fits


def test_equal_selectors_are_written_alike() -> None:
    one = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["x", "y"]}]}
    two = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["y", "x"]}]}
    assert repr(selector_of(one)) == repr(selector_of(two))


@pytest.mark.parametrize(
    "body",
    [
        pod("a", "10.0.0.1", phase="Succeeded"),
        pod("a", "10.0.0.1", phase="Failed"),
        pod("a", "10.0.0.1") | {"spec": {"hostNetwork": True}},
    ],
)
def test_finished_pods_and_those_in_the_hosts_network_do_not_count(body: Any) -> None:
    assert pod_of(body) is None


def test_a_pod_has_all_its_addresses_in_one_form() -> None:
    made = pod_of(pod("a", "10.0.0.1,fd00:0::1"))
    assert made is not None
    assert made.ips == ("10.0.0.1", "fd00::1")


def test_ports_have_names_in_containers_and_sidecars_only() -> None:
    port = {"name": "http", "containerPort": 80}
    spec = {
        "containers": [{"ports": [{"containerPort": 81}, port]}],
        "initContainers": [
            {"ports": [{"name": "init", "containerPort": 1}]},
            {
                "restartPolicy": "Always",
                "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}],
            },
        ],
    }
    assert named_ports(spec) == (NamedPort("dns", "UDP", 53), NamedPort("http", "TCP", 80))


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ({}, True, False),
        ({"egress": [{}]}, True, True),
        ({"policyTypes": ["Egress"]}, False, True),
        ({"policyTypes": ["Ingress", "Egress"]}, True, True),
        ({"policyTypes": ["Egress"], "ingress": [{}]}, False, True),
    ],
)
def test_the_types_of_a_policy_have_defaults(spec: Any, ingress: bool, egress: bool) -> None:
    made = policy_of(policy("p", spec))
    assert (made.ingress is not None, made.egress is not None) == (ingress, egress)


def test_a_rule_without_peers_or_ports_is_for_all_of_them() -> None:
    made = policy_of(policy("p", {"ingress": [{}, {"from": [], "ports": []}]}))
    assert made.ingress is not None
    assert [(r.everyone, r.every_port) for r in made.ingress] == [(True, True)] * 2


def test_ports_are_ranges_or_names_and_tcp_by_default() -> None:
    ports = [
        {"port": 80},
        {"port": 1, "endPort": 9, "protocol": "UDP"},
        {"port": "http"},
        {"protocol": "SCTP"},
    ]
    made = policy_of(policy("p", {"ingress": [{"ports": ports}]}))
    assert made.ingress is not None
    assert made.ingress[0].ports == (
        Port("TCP", 80, 80),
        Port("UDP", 1, 9),
        Port("TCP", name="http"),
        Port("SCTP", 0, 65535),
    )


def blocks(*given: Any) -> Any:
    spec = {"ingress": [{"from": [{"ipBlock": block} for block in given]}]}
    made = policy_of(policy("p", spec)).ingress
    assert made is not None
    return made[0]


def test_exceptions_are_cut_out_of_a_block() -> None:
    rule = blocks({"cidr": "10.0.0.0/29", "except": ["10.0.0.0/31", "10.0.0.4/32"]})
    first = 10 << 24
    assert rule.blocks4 == ((first + 2, first + 3), (first + 5, first + 7))


def test_another_block_may_allow_what_one_excepts() -> None:
    rule = blocks({"cidr": "10.0.0.0/30", "except": ["10.0.0.1/32"]}, {"cidr": "10.0.0.1/32"})
    assert rule.blocks4 == ((10 << 24, (10 << 24) + 3),)


def test_an_exception_of_all_leaves_nothing() -> None:
    assert blocks({"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}).blocks4 == ()


def test_blocks_of_ipv6_are_kept_apart() -> None:
    rule = blocks({"cidr": "fd00::/127"}, {"cidr": "10.0.0.1/32"})
    assert len(rule.blocks6) == len(rule.blocks4) == 1


def test_what_is_no_network_allows_nothing() -> None:
    rule = blocks({"cidr": "10.0.0.0/99"})
    assert not rule.everyone
    assert rule.blocks4 == rule.blocks6 == ()


def test_ranges_that_touch_become_one() -> None:
    assert merged([(5, 9), (1, 4), (20, 30), (22, 25)]) == ((1, 9), (20, 30))


@pytest.mark.parametrize(
    "rule",
    [
        {"from": [{"podSelector": {"matchExpressions": [{"key": "a"}]}}]},
        {"from": "everybody"},
        {"ports": [{"port": 80, "protocol": "ICMP; flush ruleset"}]},
        {"ports": [{"port": 80, "endPort": "x"}]},
    ],
)
def test_a_rule_that_is_not_understood_allows_nothing(rule: Any) -> None:
    made = policy_of(policy("p", {"ingress": [rule]}))
    assert made.ingress is not None
    assert not any(one.every_port or one.ports for one in made.ingress)


def test_only_addresses_are_taken_for_addresses() -> None:
    made = pod_of(pod("a", "10.42.0.2,10.42.0.3 }; flush ruleset"))
    assert made is not None
    assert made.ips == ("10.42.0.2",)
