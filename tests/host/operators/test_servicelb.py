"""Addresses of Services on a real control plane."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.operators_cluster import Cluster, condition, new_cluster

pytestmark = pytest.mark.root
OPERATORS = "operators.run"
SERVICES = "/api/v1/namespaces/default/services"
NODES = "/api/v1/nodes"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("servicelb")) as made:
        made.start(OPERATORS)
        yield made


def add_node(cluster: Cluster, name: str, address: str) -> None:
    cluster.create(NODES, {"metadata": {"name": name}})
    status = {
        "addresses": [{"type": "InternalIP", "address": address}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    cluster.merge(f"{NODES}/{name}/status", {"status": status})


def ingress(service: Any) -> list[dict[str, str]]:
    found: list[dict[str, str]] = service["status"]["loadBalancer"].get("ingress", [])
    return found


def add_service(cluster: Cluster, name: str, port: int) -> Any:
    spec = {"type": "LoadBalancer", "ports": [{"port": port}], "selector": {"app": name}}
    return cluster.create(SERVICES, {"metadata": {"name": name}, "spec": spec})


def test_addresses_follow_nodes_and_services(cluster: Cluster) -> None:
    add_service(cluster, "first", 80)
    add_node(cluster, "n1", "10.0.0.1")
    first = cluster.until(SERVICES, "first", lambda s: bool(ingress(s)))
    assert ingress(first) == [{"ip": "10.0.0.1", "ipMode": "VIP"}]
    assert "annotations" not in first["metadata"]
    assert "finalizers" not in first["metadata"]

    add_service(cluster, "second", 80)
    second = cluster.until(
        SERVICES, "second", lambda s: bool(condition(s, "LoadBalancerPortsError"))
    )
    assert ingress(second) == []
    assert condition(second, "LoadBalancerPortsError")["message"] == (
        "Service default/first has TCP 80 on n1"
    )

    cluster.delete(f"{SERVICES}/first")
    second = cluster.until(SERVICES, "second", lambda s: bool(ingress(s)))
    assert condition(second, "LoadBalancerPortsError") == {}

    cluster.delete(f"{NODES}/n1")
    cluster.until(SERVICES, "second", lambda s: not ingress(s))


def test_a_disabled_operator_takes_its_addresses_back(cluster: Cluster) -> None:
    add_node(cluster, "n2", "10.0.0.2")
    add_service(cluster, "kept", 81)
    cluster.until(SERVICES, "kept", lambda s: bool(ingress(s)))
    assert cluster.stop(OPERATORS) == 0

    cluster.start(OPERATORS, "--disable=servicelb")
    cluster.until(SERVICES, "kept", lambda s: not ingress(s))
