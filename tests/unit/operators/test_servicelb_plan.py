from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operators.servicelb.plan import (
    CONDITION,
    ENABLE_LABEL,
    POOL_LABEL,
    Node,
    Service,
    changes,
    concerns_us,
    node_of,
    ready_nodes,
    service_of,
    status_patch,
    withdrawals,
)


def node(name: str, *addresses: str, ready: bool = True, **labels: str) -> Node:
    """``ext:`` in front of an address makes it an external one."""
    status = {
        "conditions": [{"type": "Ready", "status": str(ready)}],
        "addresses": [
            {
                "type": "ExternalIP" if text.startswith("ext:") else "InternalIP",
                "address": text.removeprefix("ext:"),
            }
            for text in addresses
        ],
    }
    known = {"enable": ENABLE_LABEL, "pool": POOL_LABEL}
    named = {known[key]: value for key, value in labels.items()}
    return node_of({"metadata": {"name": name, "labels": named}, "status": status})


def service(
    name: str = "web", port: int = 80, created: str = "1", pool: str = "", **spec: Any
) -> Service:
    metadata = {
        "name": name,
        "namespace": "default",
        "uid": name,
        "resourceVersion": "1",
        "creationTimestamp": created,
        "labels": {POOL_LABEL: pool},
    }
    spec = {"type": "LoadBalancer", "ports": [{"port": port, "protocol": "TCP"}], **spec}
    return service_of({"metadata": metadata, "spec": spec})


def given(
    services: list[Service], nodes: list[Node], local: Mapping[str, frozenset[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    return {
        change.service.key.removeprefix("default/"): change.addresses
        for change in changes(services, nodes, local or {})
        if change.addresses
    }


def test_every_ready_node_gives_its_address() -> None:
    nodes = [
        node("a", "10.0.0.10"),
        node("b", "10.0.0.9"),
        node("c", "10.0.0.1", ready=False),
        node("d"),
    ]
    assert given([service()], nodes) == {"web": ("10.0.0.9", "10.0.0.10")}


def test_external_addresses_go_before_internal_ones() -> None:
    nodes = [node("a", "10.0.0.1", "ext:1.2.3.4"), node("b", "10.0.0.2")]
    assert given([service()], nodes) == {"web": ("1.2.3.4",)}


def test_addresses_are_of_the_families_of_the_service_in_its_order() -> None:
    nodes = [node("a", "10.0.0.1", "fd00::1")]
    assert given([service()], nodes) == {"web": ("10.0.0.1",)}
    both = service(ipFamilies=["IPv6", "IPv4"])
    assert given([both], nodes) == {"web": ("fd00::1", "10.0.0.1")}


def test_one_label_turns_the_nodes_into_a_choice() -> None:
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2", enable="true")]
    assert given([service()], nodes) == {"web": ("10.0.0.2",)}
    assert given([service()], [nodes[0], node("b", "10.0.0.2", enable="false")]) == {}


def test_a_pool_of_the_service_chooses_among_enabled_nodes() -> None:
    nodes = [
        node("a", "10.0.0.1", enable="true", pool="left"),
        node("b", "10.0.0.2", enable="true", pool="right"),
        node("c", "10.0.0.3", pool="right"),
    ]
    assert given([service(pool="right")], nodes) == {"web": ("10.0.0.2",)}
    assert given([service()], nodes) == {"web": ("10.0.0.1", "10.0.0.2")}


def test_a_pool_means_nothing_without_enabled_nodes() -> None:
    nodes = [node("a", "10.0.0.1", pool="left")]
    assert given([service(pool="right")], nodes) == {"web": ("10.0.0.1",)}


def test_local_traffic_comes_only_to_nodes_with_a_ready_endpoint() -> None:
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]
    local = service(externalTrafficPolicy="Local")
    assert given([local], nodes, {"default/web": frozenset({"b"})}) == {"web": ("10.0.0.2",)}
    assert given([local], nodes) == {}


def test_the_older_service_has_a_port_that_two_want() -> None:
    services = [service("new", created="2"), service("old", created="1"), service("dns", port=53)]
    nodes = [node("a", "10.0.0.1")]
    assert given(services, nodes) == {"old": ("10.0.0.1",), "dns": ("10.0.0.1",)}
    [refused] = [change for change in changes(services, nodes, {}) if not change.addresses]
    assert refused.conflict == "default/old has TCP 80"


def test_of_two_as_old_the_first_by_name_has_the_port() -> None:
    assert given([service("b"), service("a")], [node("n", "10.0.0.1")]) == {"a": ("10.0.0.1",)}


def test_the_same_port_with_another_protocol_is_another_port() -> None:
    udp = service("udp", ports=[{"port": 80, "protocol": "UDP"}])
    assert set(given([service("tcp"), udp], [node("n", "10.0.0.1")])) == {"tcp", "udp"}


def test_nothing_is_written_when_nothing_differs() -> None:
    seen = replace(service(), published=("10.0.0.1",))
    assert changes([seen], [node("a", "10.0.0.1")], {}) == []


def test_a_condition_comes_and_goes_with_its_conflict_and_leaves_others() -> None:
    other = {"type": "Other", "status": "True"}
    nodes = [node("a", "10.0.0.1")]
    old, new = service("old"), replace(service("new", created="2"), conditions=(other,))
    [_, change] = changes([old, new], nodes, {})
    status = status_patch(change, "now")["status"]
    assert [condition["type"] for condition in status["conditions"]] == ["Other", CONDITION]
    assert status["loadBalancer"] == {"ingress": None}

    [cleared] = changes([replace(new, conditions=tuple(status["conditions"]))], nodes, {})
    assert status_patch(cleared, "now")["status"] == {
        "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]},
        "conditions": [other],
    }


@pytest.mark.parametrize(
    ("spec", "ingress", "expected"),
    [
        ({"type": "LoadBalancer"}, [], True),
        ({"type": "LoadBalancer", "loadBalancerClass": "x/y"}, [{"ip": "1.1.1.1"}], False),
        ({"type": "ClusterIP"}, [], False),
        ({"type": "ClusterIP"}, [{"ip": "1.1.1.1"}], True),
    ],
)
def test_other_classes_are_left_alone(
    spec: dict[str, Any], ingress: list[Any], expected: bool
) -> None:
    body = {
        "metadata": {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }
    assert concerns_us(service_of(body), body) is expected


def test_disabled_it_takes_back_only_addresses_of_nodes() -> None:
    nodes = [node("a", "10.0.0.1")]
    ours = replace(service("ours"), published=("10.0.0.1",))
    theirs = replace(service("theirs"), published=("192.168.1.240",))
    assert [change.service.key for change in withdrawals([ours, theirs], nodes)] == ["default/ours"]


def test_endpoints_count_unless_they_are_not_ready() -> None:
    endpoints = [
        {"nodeName": "a", "conditions": {"ready": True}},
        {"nodeName": "b", "conditions": {"ready": False}},
        {"nodeName": "c"},
        {"conditions": {"ready": True}},
    ]
    assert ready_nodes({"endpoints": endpoints}) == {"a", "c"}
