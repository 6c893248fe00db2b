"""What the node knows of itself → MTU, route and rules; the CNI configuration."""

import json
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from pathlib import Path

import pytest

from node.network.apply import pod_cidr
from node.network.cni import FILE_NAME, conflist, find_plugins, write_conflist
from node.network.plan import Facts, LinkFacts, RouteFacts, plan

LOOPBACK = LinkFacts(index=1, mtu=65536, addresses=(IPv4Interface("127.0.0.1/8"),))
WIRED = LinkFacts(index=2, mtu=1500, addresses=(IPv4Interface("192.0.2.1/24"),))
MOBILE = LinkFacts(index=3, mtu=1400, addresses=(IPv4Interface("198.51.100.1/24"),))
EVERYWHERE = IPv4Network("0.0.0.0/0")


def facts(*routes: RouteFacts, node_ip: str = "192.0.2.1") -> Facts:
    return Facts(
        node_ip=IPv4Address(node_ip),
        cluster_cidr=IPv4Network("10.42.0.0/16"),
        service_cidr=IPv4Network("10.43.0.0/16"),
        loopback=1,
        links=(LOOPBACK, WIRED, MOBILE),
        routes=routes,
    )


def default(link: int, metric: int) -> RouteFacts:
    return RouteFacts(target=EVERYWHERE, link=link, metric=metric)


@pytest.mark.parametrize(
    ("given", "mtu"),
    [
        (facts(default(2, 100)), 1450),
        (facts(default(2, 200), default(3, 100)), 1350),
        (facts(), 1450),
        (facts(node_ip="198.51.100.1"), 1350),
        (facts(node_ip="127.0.0.1"), 1450),
        (facts(node_ip="203.0.113.1"), 1450),
    ],
)
def test_pods_get_the_mtu_of_the_way_out_less_the_overlay(given: Facts, mtu: int) -> None:
    assert plan(given).mtu == mtu


def test_services_have_a_route_also_without_a_default_route() -> None:
    (route,) = plan(facts()).routes
    assert (str(route.target), route.link, route.source) == (
        "10.43.0.0/16",
        1,
        IPv4Address("192.0.2.1"),
    )
    (route,) = plan(facts(node_ip="203.0.113.1")).routes
    assert route.source is None  # the kernel would refuse an address that is not there


def test_the_conflist_has_the_bridge_and_no_plugin_that_needs_iptables(tmp_path: Path) -> None:
    network = IPv4Network("10.42.3.0/24")
    text = conflist(network, mtu=1450, state_dir=tmp_path, bandwidth=True)
    plugins = json.loads(text)["plugins"]
    assert [plugin["type"] for plugin in plugins] == ["bridge", "bandwidth"]
    assert plugins[0]["bridge"] == "cni0"
    assert plugins[0]["ipam"]["ranges"] == [[{"subnet": "10.42.3.0/24"}]]


def test_the_conflist_is_written_only_when_it_differs(tmp_path: Path) -> None:
    folder = tmp_path / "net.d"
    assert write_conflist(folder, "a")
    assert not write_conflist(folder, "a")
    assert write_conflist(folder, "b")
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_plugins_are_found_only_where_all_are() -> None:
    there = {"/opt/cni/bin/bridge", "/opt/cni/bin/host-local", "/opt/cni/bin/loopback"}
    found = find_plugins(lambda path: str(path) in there | {"/usr/lib/cni/bridge"})
    assert found == Path("/opt/cni/bin")
    assert find_plugins(lambda path: False) is None


def test_the_pod_cidr_is_the_nodes_ipv4_one() -> None:
    assert pod_cidr({"spec": {}}) is None
    assert pod_cidr({"spec": {"podCIDRs": ["fd00::/64", "10.42.1.0/24"]}}) == IPv4Network(
        "10.42.1.0/24"
    )
