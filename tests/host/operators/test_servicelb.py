"""Addresses of Services on a real control plane."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.operators_cluster import Cluster, condition, new_cluster

pytestmark = pytest.mark.root
OPERATORS = "operators.run"
SERVICES = "/api/v1/namespaces/default/services"
EVENTS = "/api/v1/namespaces/default/events"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PODS = "/api/v1/namespaces/default/pods"
NODES = "/api/v1/nodes"
PORTS_ERROR = "LoadBalancerPortsError"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("servicelb")) as made:
        made.start(OPERATORS)
        yield made


@pytest.fixture
def tidy(cluster: Cluster) -> Iterator[Cluster]:
    """Without nodes and Services of other tests, before and after."""
    yield cluster
    for name in cluster.names(SERVICES) - {"kubernetes"}:
        cluster.delete(f"{SERVICES}/{name}")
    for name in cluster.names(NODES):
        cluster.delete(f"{NODES}/{name}")


def add_node(cluster: Cluster, name: str, *addresses: str, ready: bool = True) -> None:
    """``ext:`` in front of an address makes it an external one."""
    cluster.create(NODES, {"metadata": {"name": name}})
    set_node(cluster, name, *addresses, ready=ready)


def set_node(cluster: Cluster, name: str, *addresses: str, ready: bool = True) -> None:
    given = [
        {
            "type": "ExternalIP" if text.startswith("ext:") else "InternalIP",
            "address": text.removeprefix("ext:"),
        }
        for text in addresses
    ]
    conditions = [{"type": "Ready", "status": str(ready)}]
    status = {"addresses": given, "conditions": conditions}
    cluster.merge(f"{NODES}/{name}/status", {"status": status})


def ips(service: Any) -> list[str]:
    ingress = service["status"]["loadBalancer"].get("ingress", [])
    assert all(entry["ipMode"] == "VIP" for entry in ingress)
    return [entry["ip"] for entry in ingress]


def add_service(cluster: Cluster, name: str, port: int, **spec: Any) -> Any:
    metadata = {"name": name, "annotations": spec.pop("annotations", {})}
    labels = spec.pop("labels", {})
    spec = {"type": "LoadBalancer", "ports": [{"port": port}], "selector": {"app": name}, **spec}
    return cluster.create(SERVICES, {"metadata": metadata | {"labels": labels}, "spec": spec})


def until(cluster: Cluster, name: str, *expected: str) -> Any:
    return cluster.until(SERVICES, name, lambda s: s is not None and ips(s) == list(expected))


def reasons(cluster: Cluster, name: str) -> set[str]:
    events = cluster.get(EVENTS)["items"]
    return {e["reason"] for e in events if e["involvedObject"]["name"] == name}


def test_addresses_follow_nodes_and_services(tidy: Cluster) -> None:
    cluster = tidy
    add_service(cluster, "first", 80)
    add_node(cluster, "m1", "10.0.0.1")
    first = until(cluster, "first", "10.0.0.1")
    assert "annotations" not in first["metadata"]
    assert "finalizers" not in first["metadata"]

    add_service(cluster, "second", 80)
    second = cluster.until(SERVICES, "second", lambda s: bool(condition(s, PORTS_ERROR)))
    assert ips(second) == []
    held = condition(second, PORTS_ERROR)
    assert held["message"] == "Service default/first has TCP 80 on m1"
    assert held["reason"] == "PortConflict"

    cluster.delete(f"{SERVICES}/first")
    second = until(cluster, "second", "10.0.0.1")
    assert condition(second, PORTS_ERROR) == {}

    cluster.delete(f"{NODES}/m1")
    until(cluster, "second")
    assert {"UpdatedLoadBalancer", "UnAvailableLoadBalancer"} <= reasons(cluster, "second")


def test_addresses_follow_what_a_node_says_of_itself(tidy: Cluster) -> None:
    cluster = tidy
    add_service(cluster, "web", 80)
    add_node(cluster, "m1", "10.0.0.1")
    add_node(cluster, "m2", "10.0.0.2")
    until(cluster, "web", "10.0.0.1", "10.0.0.2")
    set_node(cluster, "m1", "10.0.0.7")
    until(cluster, "web", "10.0.0.2", "10.0.0.7")
    set_node(cluster, "m1", "10.0.0.7", ready=False)
    until(cluster, "web", "10.0.0.2")
    set_node(cluster, "m2", "10.0.0.2", "ext:198.51.100.2")
    until(cluster, "web", "198.51.100.2")
    labels = {"svccontroller.k3s.cattle.io/enablelb": "true"}
    cluster.merge(f"{NODES}/m1", {"metadata": {"labels": labels}})
    set_node(cluster, "m1", "10.0.0.7")
    until(cluster, "web", "10.0.0.7")


def test_two_pools_share_a_port(tidy: Cluster) -> None:
    cluster = tidy
    pool = "svccontroller.k3s.cattle.io/lbpool"
    for number, name in enumerate(("left", "right"), 1):
        add_node(cluster, name, f"10.0.0.{number}")
        labels = {"svccontroller.k3s.cattle.io/enablelb": "true", pool: name}
        cluster.merge(f"{NODES}/{name}", {"metadata": {"labels": labels}})
        add_service(cluster, f"to-{name}", 80, labels={pool: name})
    until(cluster, "to-left", "10.0.0.1")
    until(cluster, "to-right", "10.0.0.2")


def test_the_local_policy_follows_endpoints(tidy: Cluster) -> None:
    cluster = tidy
    add_node(cluster, "m1", "10.0.0.1")
    add_node(cluster, "m2", "10.0.0.2")
    add_service(cluster, "web", 80, externalTrafficPolicy="Local", selector=None)
    body: dict[str, Any] = {
        "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.42.0.2"], "nodeName": "m2"}],
    }
    cluster.create(SLICES, body)
    until(cluster, "web", "10.0.0.2")
    body["endpoints"][0]["conditions"] = {"ready": False}
    cluster.merge(f"{SLICES}/web-1", {"endpoints": body["endpoints"]})
    until(cluster, "web")


def test_addresses_go_with_the_type_and_are_not_given_to_another_class(tidy: Cluster) -> None:
    cluster = tidy
    add_node(cluster, "m1", "10.0.0.1")
    add_service(cluster, "web", 80)
    add_service(cluster, "other", 81, loadBalancerClass="example.com/other")
    until(cluster, "web", "10.0.0.1")
    cluster.merge(f"{SERVICES}/web", {"spec": {"type": "NodePort"}})
    until(cluster, "web")
    cluster.merge(f"{SERVICES}/web", {"spec": {"type": "LoadBalancer"}})
    until(cluster, "web", "10.0.0.1")
    assert ips(cluster.get(f"{SERVICES}/other")) == []


def test_what_cannot_be_understood_is_told_in_a_condition_and_an_event(tidy: Cluster) -> None:
    cluster = tidy
    add_node(cluster, "m1", "10.0.0.1")
    wrong = {"svccontroller.k3s.cattle.io/tolerations": "[{operator: Maybe}]"}
    add_service(cluster, "web", 80, annotations=wrong)
    found = cluster.until(SERVICES, "web", lambda s: bool(condition(s, "LoadBalancerSpecError")))
    assert "Maybe" in condition(found, "LoadBalancerSpecError")["message"]
    cluster.merge(f"{SERVICES}/web", {"metadata": {"annotations": dict.fromkeys(wrong, "[]")}})
    until(cluster, "web", "10.0.0.1")
    assert "SyncLoadBalancerFailed" in reasons(cluster, "web")


def test_killed_it_goes_on_and_who_was_served_stays_served(tidy: Cluster) -> None:
    cluster = tidy
    add_node(cluster, "m1", "10.0.0.1")
    add_service(cluster, "newer", 8080)
    until(cluster, "newer", "10.0.0.1")
    cluster.kill(OPERATORS)
    # While nobody looks, one that sorts first wants the port, and a pod has it as a host port.
    add_service(cluster, "a-new-one", 8080)
    port = {"containerPort": 80, "hostPort": 8080}
    container = {"name": "c", "image": "none", "ports": [port]}
    spec = {"nodeName": "m1", "containers": [container]}
    cluster.create(PODS, {"metadata": {"name": "late"}, "spec": spec})
    cluster.start(OPERATORS)
    waiting = cluster.until(SERVICES, "a-new-one", lambda s: bool(condition(s, PORTS_ERROR)))
    assert condition(waiting, PORTS_ERROR)["message"] == "Service default/newer has TCP 8080 on m1"
    assert ips(cluster.get(f"{SERVICES}/newer")) == ["10.0.0.1"]
    cluster.delete(f"{SERVICES}/newer")
    pod = "Pod default/late has TCP 8080 on m1"
    cluster.until(SERVICES, "a-new-one", lambda s: condition(s, PORTS_ERROR).get("message") == pod)
    cluster.delete(f"{PODS}/late?gracePeriodSeconds=0")
    until(cluster, "a-new-one", "10.0.0.1")


def test_a_disabled_operator_takes_its_addresses_back_and_no_others(tidy: Cluster) -> None:
    cluster = tidy
    add_node(cluster, "m2", "10.0.0.2")
    add_service(cluster, "kept", 81)
    add_service(cluster, "others", 82, loadBalancerClass="example.com/other")
    given = {"loadBalancer": {"ingress": [{"ip": "10.0.0.2", "ipMode": "VIP"}]}}
    cluster.merge(f"{SERVICES}/others/status", {"status": given})
    until(cluster, "kept", "10.0.0.2")
    assert cluster.stop(OPERATORS) == 0

    cluster.start(OPERATORS, "--disable=servicelb")
    until(cluster, "kept")
    assert ips(cluster.get(f"{SERVICES}/others")) == ["10.0.0.2"]
    assert cluster.stop(OPERATORS) == 0
    cluster.start(OPERATORS)
