"""Services × endpoints → parts of the table."""

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from node.proxy.endpoints import choose
from node.proxy.plan import Facts, plan_pod, plan_service
from node.proxy.ruleset import EMPTY, Element, Part
from node.proxy.services import (
    Endpoint,
    Service,
    parse_endpoints,
    parse_service,
    slice_service,
)
from tests.fakes.host import endpoint_slice, ready, service

FACTS = Facts(
    node="n1",
    node_ips=("192.0.2.1",),
    zone="",
    cluster_cidr=IPv4Network("10.42.0.0/16"),
    service_cidr=IPv4Network("10.43.0.0/16"),
    own_ips=frozenset([IPv4Address("10.43.0.10")]),
)
HTTP = {"name": "", "port": 80, "protocol": "TCP"}
PORTS = [{"name": "", "port": 8080, "protocol": "TCP"}]


def parsed(**spec: Any) -> Service:
    ports = spec.pop("ports", [HTTP])
    found = parse_service(service("web", spec.pop("ip", "10.43.0.80"), ports, **spec))
    assert found is not None
    return found


def endpoints(*entries: dict[str, Any]) -> tuple[Endpoint, ...]:
    return parse_endpoints(endpoint_slice("web", list(entries), PORTS))


def verdicts(part: Part, container: str = "service_ips") -> Mapping[str, str]:
    return {e.key: value for e, value in part.elements.items() if e.container == container}


def test_one_endpoint_needs_no_choice() -> None:
    part = plan_service(parsed(), endpoints(ready("10.42.0.2")), FACTS)
    assert part.chains == {
        "svc/default/web/tcp/80": ("meta l4proto tcp dnat ip to 10.42.0.2:8080",)
    }
    assert verdicts(part) == {"10.43.0.80 . tcp . 80": "goto svc/default/web/tcp/80"}


def test_several_endpoints_are_chosen_at_random() -> None:
    part = plan_service(parsed(), endpoints(ready("10.42.0.3"), ready("10.42.0.2")), FACTS)
    assert part.chains["svc/default/web/tcp/80"] == (
        "meta l4proto tcp dnat ip to numgen random mod 2 "
        "map { 0 : 10.42.0.2 . 8080, 1 : 10.42.0.3 . 8080 }",
    )


def test_a_service_without_endpoints_has_no_chain_and_refuses() -> None:
    part = plan_service(parsed(type="NodePort", ports=[{**HTTP, "nodePort": 30080}]), (), FACTS)
    assert not part.chains
    assert verdicts(part) == {"10.43.0.80 . tcp . 80": "goto refuse"}
    assert verdicts(part, "node_ports") == {"tcp . 30080": "goto refuse"}


def test_an_address_that_the_node_answers_itself_is_left_alone() -> None:
    dns = parsed(ip="10.43.0.10", ports=[{"port": 53, "protocol": "UDP", "name": "dns"}])
    assert plan_service(dns, (), FACTS) == EMPTY


@pytest.mark.parametrize(
    ("nodes", "verdict"),
    [
        (["n1", "n2"], "goto local/default/web/tcp/80"),
        (["n2"], "drop"),
        ([], "goto refuse"),
    ],
)
def test_the_internal_policy_local_stays_on_the_node(nodes: list[str], verdict: str) -> None:
    entries = [ready(f"10.42.{i}.2", node=node) for i, node in enumerate(nodes)]
    part = plan_service(parsed(internalTrafficPolicy="Local"), endpoints(*entries), FACTS)
    assert verdicts(part) == {"10.43.0.80 . tcp . 80": verdict}
    assert "svc/default/web/tcp/80" not in part.chains


@pytest.mark.parametrize(
    "spec",
    [
        {"clusterIPs": ["None"]},
        {"type": "ExternalName", "externalName": "example.com"},
        {"clusterIPs": ["fd00::1"]},
    ],
)
def test_what_has_nothing_to_forward_is_no_service(spec: dict[str, Any]) -> None:
    assert parse_service(service("web", "", [HTTP], **spec)) is None


def test_a_label_leaves_a_service_to_another_proxy() -> None:
    given: Any = service("web", "10.43.0.80", [HTTP])
    given["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    assert parse_service(given) is None


def test_only_virtual_load_balancer_addresses_are_taken() -> None:
    ingress = [
        {"ip": "198.51.100.1", "ipMode": "VIP"},
        {"ip": "198.51.100.2", "ipMode": "Proxy"},
        {"ip": "198.51.100.3"},
        {"hostname": "lb.example"},
    ]
    found = parsed(type="LoadBalancer", status={"loadBalancer": {"ingress": ingress}})
    assert found.load_balancer_ips == ("198.51.100.1", "198.51.100.3")


def test_source_ranges_are_joined_and_those_of_ipv6_only_admit_nobody() -> None:
    found = parsed(
        type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8", "10.1.0.0/16 ", "192.0.2.1/32"]
    )
    assert found.source_ranges == ("10.0.0.0/8", "192.0.2.1/32")
    closed = parsed(type="LoadBalancer", loadBalancerSourceRanges=["fd00::/8"])
    assert closed.source_ranges == ("255.255.255.255/32",)


@pytest.mark.parametrize(
    ("told", "field", "expected"),
    [
        (" 10.0.0.0/8, 192.0.2.1/32 ", [], ("10.0.0.0/8", "192.0.2.1/32")),
        ("10.0.0.0/8", ["192.0.2.1/32"], ("192.0.2.1/32",)),
        ("10.0.0.0/8,what", [], ("255.255.255.255/32",)),
        ("", [], ()),
    ],
)
def test_source_ranges_of_the_annotation_count_where_the_field_is_empty(
    told: str, field: list[str], expected: tuple[str, ...]
) -> None:
    body = dict(
        service("web", "10.43.0.80", [HTTP], type="LoadBalancer", loadBalancerSourceRanges=field)
    )
    annotation = {"service.beta.kubernetes.io/load-balancer-source-ranges": told}
    body["metadata"] = {**body["metadata"], "annotations": annotation}
    found = parse_service(body)
    assert found is not None
    assert found.source_ranges == expected


def condition(address: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [address], "nodeName": "n1", "conditions": conditions}


def chosen(*entries: dict[str, Any], zone: str = "") -> list[str]:
    port = parsed().ports[0]
    found = choose(endpoints(*entries), port, node="n1", zone=zone)
    return [backend.address for backend in found.cluster]


def test_endpoints_that_drain_serve_only_where_no_other_is_ready() -> None:
    draining = condition("10.42.0.3", ready=False, serving=True, terminating=True)
    starting = condition("10.42.0.4", ready=False, serving=False, terminating=False)
    assert chosen(ready("10.42.0.2"), draining, starting) == ["10.42.0.2"]
    assert chosen(draining, starting) == ["10.42.0.3"]
    assert chosen(starting) == []


def test_hints_count_only_where_every_endpoint_has_one() -> None:
    a = ready("10.42.0.2", hints={"forZones": [{"name": "a"}]})
    b = ready("10.42.0.3", hints={"forZones": [{"name": "b"}]})
    plain = ready("10.42.0.4")
    assert chosen(a, b, zone="b") == ["10.42.0.3"]
    assert chosen(a, b, plain, zone="b") == ["10.42.0.2", "10.42.0.3", "10.42.0.4"]
    assert chosen(a, b, zone="c") == ["10.42.0.2", "10.42.0.3"]
    here = ready("10.42.0.5", hints={"forNodes": [{"name": "n1"}]})
    away = ready("10.42.0.6", hints={"forNodes": [{"name": "n2"}]})
    assert chosen(here, away) == ["10.42.0.5"]


def test_endpoints_are_found_by_the_name_of_the_port_and_its_protocol() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
    ]
    slices = endpoint_slice("web", [ready("10.42.0.2")], [{**ports[0], "port": 5353}])
    part = plan_service(parsed(ports=ports), parse_endpoints(slices), FACTS)
    assert verdicts(part) == {
        "10.43.0.80 . udp . 53": "goto svc/default/web/udp/53",
        "10.43.0.80 . tcp . 53": "goto refuse",
    }
    assert part.udp == {("10.43.0.80", 53): frozenset([("10.42.0.2", 5353)])}


def test_slices_of_headless_services_and_other_families_are_left_out() -> None:
    given: Any = endpoint_slice("web", [ready("10.42.0.2")], PORTS)
    assert slice_service(given) == ("default", "web")
    assert parse_endpoints({**given, "addressType": "IPv6"}) == ()
    given["metadata"]["labels"]["service.kubernetes.io/headless"] = ""
    assert slice_service(given) is None


def pod(ports: list[dict[str, Any]], **more: Any) -> Mapping[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": "p"},
        "spec": {"nodeName": "n1", "containers": [{"ports": ports}], **more.pop("spec", {})},
        "status": {"podIP": "10.42.0.2", "phase": "Running", **more},
    }


def test_host_ports_are_forwarded_to_running_pods() -> None:
    ports: list[dict[str, Any]] = [
        {"containerPort": 80, "hostPort": 8080},
        {"containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "192.0.2.1"},
        {"containerPort": 90},
    ]
    part = plan_pod(pod(ports))
    assert part.elements == {
        Element("host_ports", "tcp . 8080"): "10.42.0.2 . 80",
        Element("host_port_ips", "192.0.2.1 . udp . 53"): "10.42.0.2 . 53",
        Element("hairpins", "10.42.0.2 . 10.42.0.2"): "",
    }
    assert plan_pod(pod(ports, phase="Failed")) == EMPTY
    assert plan_pod(pod(ports, podIP="")) == EMPTY
    assert plan_pod(pod(ports, spec={"hostNetwork": True})) == EMPTY
