"""Which addresses Services get where the nodes forward themselves."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from operators.servicelb.claims import Claim
from operators.servicelb.facts import (
    NODES_CONDITION,
    PORTS_CONDITION,
    SPEC_CONDITION,
    Node,
    Service,
    Trouble,
    concerns_us,
    service_of,
)
from operators.servicelb.plan import Change, World, native, status_patch, withdrawals
from tests.fakes.operators_services import MANAGER, node, service


def changes(
    services: list[Service],
    nodes: list[Node],
    local: Mapping[str, frozenset[str]] | None = None,
    held: Mapping[Claim, str] | None = None,
) -> list[Change]:
    world = World(services=services, nodes=nodes, local=local or {})
    return list(native(world, held).changes)


def given(
    services: list[Service], nodes: list[Node], local: Mapping[str, frozenset[str]] | None = None
) -> dict[str, tuple[str, ...]]:
    return {
        change.service.key.removeprefix("default/"): change.addresses
        for change in changes(services, nodes, local)
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


def test_internal_addresses_count_where_the_external_node_is_not_chosen() -> None:
    nodes = [node("a", "10.0.0.1", "ext:1.2.3.4"), node("b", "10.0.0.2")]
    local = service(externalTrafficPolicy="Local")
    assert given([local], nodes, {"default/web": frozenset({"b"})}) == {"web": ("10.0.0.2",)}


def test_addresses_are_of_the_families_of_the_service_in_its_order() -> None:
    nodes = [node("a", "10.0.0.1", "fd00::1")]
    assert given([service()], nodes) == {"web": ("10.0.0.1",)}
    both = service(ipFamilies=["IPv6", "IPv4"])
    assert given([both], nodes) == {"web": ("fd00::1", "10.0.0.1")}


def test_an_address_that_was_asked_for_is_the_only_one_if_a_node_has_it() -> None:
    nodes = [node("a", "10.0.0.1", "ext:1.2.3.4"), node("b", "10.0.0.2")]
    assert given([service(loadBalancerIP="10.0.0.2")], nodes) == {"web": ("10.0.0.2",)}
    assert given([service(loadBalancerIP="192.168.1.240")], nodes) == {"web": ("1.2.3.4",)}


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


def test_services_in_different_pools_share_a_port() -> None:
    nodes = [
        node("a", "10.0.0.1", enable="true", pool="left"),
        node("b", "10.0.0.2", enable="true", pool="right"),
    ]
    services = [service("one", pool="left"), service("two", pool="right")]
    assert given(services, nodes) == {"one": ("10.0.0.1",), "two": ("10.0.0.2",)}


def test_a_pool_means_nothing_without_enabled_nodes() -> None:
    nodes = [node("a", "10.0.0.1", pool="left")]
    assert given([service(pool="right")], nodes) == {"web": ("10.0.0.1",)}


def test_local_traffic_comes_only_to_nodes_with_a_ready_endpoint() -> None:
    nodes = [node("a", "10.0.0.1"), node("b", "10.0.0.2")]
    local = service(externalTrafficPolicy="Local")
    assert given([local], nodes, {"default/web": frozenset({"b"})}) == {"web": ("10.0.0.2",)}
    assert given([local], nodes) == {}


@pytest.mark.parametrize(
    ("taint", "tolerations", "expected"),
    [
        ("dedicated:NoSchedule", "", ()),
        ("dedicated:NoExecute", "", ()),
        ("dedicated:PreferNoSchedule", "", ("10.0.0.1",)),
        ("node-role.kubernetes.io/control-plane:NoSchedule", "", ("10.0.0.1",)),
        ("node.kubernetes.io/unschedulable:NoSchedule", "", ("10.0.0.1",)),
        ("CriticalAddonsOnly:NoExecute", "", ("10.0.0.1",)),
        ("dedicated:NoSchedule", "- {key: dedicated, operator: Exists}", ("10.0.0.1",)),
        ("dedicated:NoSchedule", '[{"operator":"Exists"}]', ("10.0.0.1",)),
        ("dedicated:NoSchedule", '[{"key":"dedicated","value":"x"}]', ()),
    ],
)
def test_taints_keep_addresses_away_as_they_would_pods(
    taint: str, tolerations: str, expected: tuple[str, ...]
) -> None:
    noted = {"svccontroller.k3s.cattle.io/tolerations": tolerations}
    nodes = [node("a", "10.0.0.1", taints=(taint,))]
    assert given([service(annotations=noted)], nodes).get("web", ()) == expected


def test_a_taint_for_newcomers_takes_nothing_away() -> None:
    has_it = service(published=("10.0.0.1",))
    assert changes([has_it], [node("a", "10.0.0.1", taints=("x:NoSchedule",))]) == []
    [change] = changes([has_it], [node("a", "10.0.0.1", taints=("x:NoExecute",))])
    assert change.addresses == ()


def test_nothing_is_written_when_nothing_differs() -> None:
    assert changes([service(published=("10.0.0.1",))], [node("a", "10.0.0.1")]) == []


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"svccontroller.k3s.cattle.io/tolerations": "{"}, "tolerations"),
        ({"svccontroller.k3s.cattle.io/tolerations": "[{effect: Never}]"}, "Never"),
        ({"svccontroller.k3s.cattle.io/tolerations": "[{value: a}]"}, "operator must be Exists"),
        ({"service.beta.kubernetes.io/load-balancer-source-ranges": "1.2.3.4/99"}, "1.2.3.4/99"),
    ],
)
def test_what_cannot_be_understood_gets_no_address_and_a_condition(
    annotation: dict[str, str], message: str
) -> None:
    asked = service(annotations=annotation, published=("10.0.0.1",))
    [change] = changes([asked], [node("a", "10.0.0.1")])
    assert change.addresses == ()
    assert change.trouble.condition == SPEC_CONDITION
    assert message in change.trouble.message


def test_a_condition_comes_and_goes_with_its_conflict_and_leaves_others() -> None:
    other = {"type": "Other", "status": "True"}
    nodes = [node("a", "10.0.0.1")]
    old = service("old", published=("10.0.0.1",))
    new = replace(service("new", created="2"), conditions=(other,))
    [change] = changes([old, new], nodes)
    status = status_patch(change, "now")["status"]
    assert [condition["type"] for condition in status["conditions"]] == ["Other", PORTS_CONDITION]
    assert status["loadBalancer"] == {"ingress": None}

    [cleared] = changes([replace(new, conditions=tuple(status["conditions"]))], nodes)
    assert status_patch(cleared, "now")["status"] == {
        "loadBalancer": {"ingress": [{"ip": "10.0.0.1", "ipMode": "VIP"}]},
        "conditions": [other],
    }


def body(spec: dict[str, Any], ingress: list[Any], manager: str = "") -> dict[str, Any]:
    fields: Any = {"f:status": {"f:loadBalancer": {"f:ingress": {}}}}
    metadata = {"name": "a", "namespace": "b", "uid": "u", "resourceVersion": "1"}
    return {
        "metadata": {**metadata, "managedFields": [{"manager": manager, "fieldsV1": fields}]},
        "spec": spec,
        "status": {"loadBalancer": {"ingress": ingress}},
    }


@pytest.mark.parametrize(
    ("spec", "ingress", "manager", "expected"),
    [
        ({"type": "LoadBalancer"}, [], "", True),
        ({"type": "LoadBalancer", "loadBalancerClass": "x/y"}, [{"ip": "1.1.1.1"}], "", False),
        ({"type": "LoadBalancer", "loadBalancerClass": "x/y"}, [{"ip": "1.1.1.1"}], MANAGER, True),
        ({"type": "ClusterIP"}, [], "", False),
        ({"type": "ClusterIP"}, [{"ip": "1.1.1.1"}], "", True),
    ],
)
def test_other_classes_are_left_alone(
    spec: dict[str, Any], ingress: list[Any], manager: str, expected: bool
) -> None:
    thing = body(spec, ingress, manager)
    assert concerns_us(service_of(thing, MANAGER), thing) is expected


def test_what_is_no_load_balancer_any_more_loses_its_addresses() -> None:
    was = service(type="ClusterIP", published=("10.0.0.1",))
    assert [c.addresses for c in changes([was], [node("a", "10.0.0.1")])] == [()]


def test_disabled_it_takes_back_only_what_it_gave() -> None:
    ours = replace(service("ours", published=("10.0.0.1",)), given=True)
    theirs = service("theirs", published=("10.0.0.1",))
    nothing = replace(service("nothing"), given=True)
    found = withdrawals([ours, theirs, nothing])
    assert [(change.service.key, change.trouble) for change in found] == [
        ("default/ours", Trouble())
    ]


def test_what_is_taken_away_comes_before_what_is_given() -> None:
    nodes = [node("a", "10.0.0.1", enable="true"), node("b", "10.0.0.2")]
    services = [
        service("a-waits", created="2"),
        service("b-leaves", created="1", published=("10.0.0.1",), annotations={"x": "y"}),
    ]
    services[1] = replace(services[1], ours=False)
    assert [change.service.key for change in changes(services, nodes)] == [
        "default/b-leaves",
        "default/a-waits",
    ]


@pytest.mark.parametrize(
    ("nodes", "told"),
    [
        ([node("a", "10.0.0.1", taints=("gpu:NoSchedule",))], "a taint that it does not tolerate"),
        ([node("a", "10.0.0.1", enable="true", pool="blue")], "lbpool=red"),
        ([node("a", "10.0.0.1", enable="false")], "no node has the label"),
        (
            [node("a", "10.0.0.1", enable="true", pool="red", taints=("gpu:NoExecute",))],
            "every node with svccontroller.k3s.cattle.io/enablelb=true",
        ),
    ],
)
def test_a_service_that_no_node_may_carry_is_told_why(nodes: list[Node], told: str) -> None:
    [change] = changes([service(pool="red")], nodes)
    assert change.addresses == ()
    assert (change.trouble.condition, change.trouble.reason) == (NODES_CONDITION, "NoNode")
    assert told in change.trouble.message


def test_a_node_that_is_away_for_the_moment_is_no_trouble() -> None:
    assert changes([service()], [node("a", "10.0.0.1", ready=False)]) == []
