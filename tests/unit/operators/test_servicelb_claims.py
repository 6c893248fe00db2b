"""Who has a port of a node when several want it."""

from ipaddress import ip_address
from typing import Any

import pytest

from operators.servicelb.claims import Refusal, told
from operators.servicelb.facts import Node, Service, pod_of
from operators.servicelb.plan import Plan, World, native, newcomers
from tests.fakes.operators_services import node, pod_body, service

NODE = node("n", "10.0.0.1")


def plan(*services: Service, nodes: tuple[Node, ...] = (NODE,), **more: Any) -> Plan:
    held = more.pop("held", None)
    return native(World(services=services, nodes=nodes, local={}, **more), held)


def owners(decided: Plan) -> set[str]:
    return set(decided.held.values())


def refusal(decided: Plan, name: str) -> str:
    [change] = [c for c in decided.changes if c.service.key == f"default/{name}"]
    return change.trouble.message


def pods(*bodies: dict[str, Any]) -> list[Any]:
    return [pod_of(body, "kube-system") for body in bodies]


def test_the_older_service_has_a_port_that_two_want() -> None:
    decided = plan(service("new", created="2"), service("old"), service("dns", 53))
    assert owners(decided) == {"default/old", "default/dns"}
    assert refusal(decided, "new") == "Service default/old has TCP 80 on n"


def test_of_two_as_old_the_first_by_name_has_the_port() -> None:
    assert owners(plan(service("b"), service("a"))) == {"default/a"}


def test_the_same_port_with_another_protocol_is_another_port() -> None:
    decided = plan(service("tcp", 80), service("udp", "UDP/80"), service("sctp", "SCTP/80"))
    assert owners(decided) == {"default/tcp", "default/udp", "default/sctp"}


def test_who_was_served_first_stays_served_whoever_is_older() -> None:
    # As after a restart: an old service was changed to a port that a newer one has.
    old, new = service("old", 443), service("new", 443, created="2", published=("10.0.0.1",))
    assert owners(plan(old, new)) == {"default/new"}
    # And while running.
    first = plan(service("new", 443, created="2"))
    assert owners(plan(old, service("new", 443, created="2"), held=first.held)) == {"default/new"}


def test_a_freed_port_is_given_to_the_one_that_waited() -> None:
    old, new = service("old"), service("new", created="2")
    before = plan(old, new)
    after = plan(service("old", 8080), new, held=before.held)
    assert after.held["n", "TCP", 80] == "default/new"
    assert after.held["n", "TCP", 8080] == "default/old"


def test_a_service_has_all_its_ports_on_a_node_or_none() -> None:
    before = plan(service("a", 80), service("b", 443))
    wider = service("a", 80, 443)
    decided = plan(wider, service("b", 443), service("c", 80, created="3"), held=before.held)
    assert decided.held["n", "TCP", 443] == "default/b"
    assert decided.held["n", "TCP", 80] == "default/c"
    holders = "Service default/b has TCP 443 on n; Service default/c has TCP 80 on n"
    assert refusal(decided, "a") == holders


def test_a_port_that_is_added_is_not_lost_to_an_older_one_that_waits() -> None:
    waiting = service("waiting", 80, 443)
    before = plan(service("has", 80, created="2"))
    decided = plan(waiting, service("has", 80, 443, created="2"), held=before.held)
    assert owners(decided) == {"default/has"}


def test_a_node_that_is_not_ready_keeps_its_ports_for_whom_it_served() -> None:
    before = plan(service("new", created="2"))
    away = node("n", "10.0.0.1", ready=False)
    during = plan(service("new", created="2"), service("old"), nodes=(away,), held=before.held)
    after = plan(service("new", created="2"), service("old"), held=during.held)
    assert owners(after) == {"default/new"}


def test_a_conflict_on_one_node_leaves_the_others() -> None:
    nodes = (node("a", "10.0.0.1"), node("b", "10.0.0.2"))
    found = pods(pod_body("web", "a", 80))
    decided = plan(service(), nodes=nodes, pods=found)
    [change] = decided.changes
    assert change.addresses == ("10.0.0.2",)
    assert change.trouble.message == "Pod default/web has TCP 80 on a"


def test_a_node_whose_external_address_is_taken_leaves_the_internal_one_of_another() -> None:
    nodes = (node("a", "10.0.0.1", "ext:1.2.3.4"), node("b", "10.0.0.2"))
    decided = plan(service(), nodes=nodes, pods=pods(pod_body("web", "a", 80)))
    assert [change.addresses for change in decided.changes] == [("10.0.0.2",)]


@pytest.mark.parametrize(
    ("body", "conflict"),
    [
        (pod_body("p", "n", 80), True),
        (pod_body("p", "n", "10.0.0.1:80"), True),
        (pod_body("p", "n", "127.0.0.1:80"), False),
        (pod_body("p", "n", "UDP/80"), False),
        (pod_body("p", "other", 80), False),
        (pod_body("p", "", 80), False),
        (pod_body("p", "n", 80, hostNetwork=True), True),
    ],
)
def test_host_ports_of_pods_keep_newcomers_away(body: dict[str, Any], conflict: bool) -> None:
    assert (owners(plan(service(), pods=pods(body))) == set()) is conflict


def test_a_pod_that_came_later_takes_nothing_and_is_in_the_shadow() -> None:
    late = pods(pod_body("p", "n", 80), pod_body("q", "n", "127.0.0.1:80"), pod_body("r", "m", 80))
    decided = plan(service(published=("10.0.0.1",)), pods=late)
    assert owners(decided) == {"default/web"}
    found = [(s.pod.key, s.port, s.node, s.owner) for s in decided.shadows]
    assert found == [("default/p", ("TCP", 80), "n", "Service default/web")]


def test_a_host_port_that_the_node_uses_itself_is_in_its_shadow() -> None:
    host = node("n", "10.0.0.1", kubelet=10250)
    inside = pod_body("p", "n", 10250)
    itself = pod_body("kubelet", "n", 10250, hostNetwork=True)
    decided = plan(nodes=(host,), pods=pods(inside, itself))
    assert [(s.pod.key, s.owner) for s in decided.shadows] == [("default/p", "the kubelet")]


def test_a_pod_that_has_finished_has_no_port() -> None:
    body = pod_body("p", "n", 80)
    body["status"]["phase"] = "Succeeded"
    assert pod_of(body, "kube-system") is None


def test_a_node_port_of_another_is_not_taken_and_ones_own_may_be() -> None:
    taken = {("TCP", 80): "default/other"}
    decided = plan(service(), node_ports=taken)
    expected = "Service default/other, as a node port, has TCP 80 on n"
    assert refusal(decided, "web") == expected
    assert owners(plan(service(), node_ports={("TCP", 80): "default/web"})) == {"default/web"}


def test_the_kubelet_and_the_api_server_are_never_displaced() -> None:
    host = node("n", "10.0.0.1", kubelet=10250)
    servers = frozenset({(ip_address("10.0.0.1"), 6443)})
    decided = plan(
        service("kubelet", 10250, published=("10.0.0.1",)),
        service("api", 6443, published=("10.0.0.1",)),
        service("udp", "UDP/6443"),
        nodes=(host, node("m", "10.0.0.2")),
        api_servers=servers,
    )
    assert {c.service.key: c.addresses for c in decided.changes} == {
        "default/kubelet": ("10.0.0.2",),
        "default/api": ("10.0.0.2",),
        "default/udp": ("10.0.0.1", "10.0.0.2"),
    }
    assert refusal(decided, "api") == "the API server has TCP 6443 on n"
    assert refusal(decided, "kubelet") == "the kubelet has TCP 10250 on n"


def test_a_program_of_the_node_keeps_its_port_and_is_asked_again() -> None:
    world = World(services=[service("ssh", 22)], nodes=[NODE], local={}, here="n")
    assert newcomers(world, None) == {("TCP", 22)}
    decided = plan(service("ssh", 22), here="n", listeners={("TCP", 22): "sshd"})
    assert refusal(decided, "ssh") == "the program sshd has TCP 22 on n"
    assert decided.passing
    assert not plan(service("ssh", 22), here="other", listeners={("TCP", 22): "x"}).passing


def test_a_program_that_came_later_takes_nothing_and_is_not_looked_for() -> None:
    has_it = service("web", 80, published=("10.0.0.1",))
    world = World(services=[has_it], nodes=[NODE], local={}, here="n")
    assert newcomers(world, None) == set()
    assert owners(plan(has_it, here="n", listeners={("TCP", 80): "x"}))


def test_a_message_names_a_few_nodes_and_counts_the_rest() -> None:
    refused = [Refusal(f"n{i}", ("TCP", 80), "the kubelet", passing=False) for i in range(6)]
    assert told(refused) == "the kubelet has TCP 80 on n0, n1, n2, n3 and 2 more"
