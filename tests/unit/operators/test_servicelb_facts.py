"""What is kept of objects, how much memory it takes, and who listens on a node."""

import os
import sys
import tracemalloc
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any

import pytest

from operators.servicelb.annotations import Toleration, source_ranges, tolerations
from operators.servicelb.facts import (
    Taint,
    node_of,
    node_ports_of,
    pod_of,
    ready_nodes,
    service_of,
)
from operators.servicelb.listeners import owners
from operators.servicelb.placement import tolerates
from tests.fakes.operators_services import MANAGER, pod_body, service, service_body

SOURCES = "service.beta.kubernetes.io/load-balancer-source-ranges"
TOLERATIONS = "svccontroller.k3s.cattle.io/tolerations"


def test_endpoints_count_unless_they_are_not_ready() -> None:
    endpoints = [
        {"nodeName": "a", "conditions": {"ready": True}},
        {"nodeName": "b", "conditions": {"ready": False}},
        {"nodeName": "c"},
        {"conditions": {"ready": True}},
    ]
    assert ready_nodes({"endpoints": endpoints}) == {"a", "c"}


def test_an_address_that_is_none_is_left_out() -> None:
    addresses = [
        {"type": "InternalIP", "address": "what"},
        {"type": "Hostname", "address": "pi"},
        {"type": "InternalIP", "address": "10.0.0.1"},
    ]
    body = {"metadata": {"name": "a"}, "status": {"addresses": addresses}}
    assert [str(address) for address in node_of(body).addresses] == ["10.0.0.1"]


def test_the_field_goes_before_the_annotation_of_source_ranges() -> None:
    told = {SOURCES: "10.0.0.0/8, 192.0.2.7/24"}
    assert source_ranges({}, told) == (("10.0.0.0/8", "192.0.2.0/24"), "")
    assert source_ranges({"loadBalancerSourceRanges": ["1.2.3.4/32"]}, told) == (
        ("1.2.3.4/32",),
        "",
    )
    assert source_ranges({}, {}) == ((), "")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("- {key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}", ""),
        ('[{"key": "a", "value": "b"}]', ""),
        ("key: a", "not a list"),
        ("[a]", "not an object"),
        ("[{key: a, colour: red}]", "unknown field colour"),
        ("[{key: a, operator: Like}]", "neither Equal nor Exists"),
        ("[{key: a, operator: Exists, value: b}]", "value must be empty"),
        ("[{key: a, operator: Exists, tolerationSeconds: 5}]", "NoExecute only"),
    ],
)
def test_tolerations_are_checked_as_those_of_pods_are(text: str, wrong: str) -> None:
    found, problem = tolerations({TOLERATIONS: text})
    assert bool(found) is not bool(wrong)
    assert wrong in problem


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration("a", "Equal", "b", "NoSchedule"), True),
        (Toleration("a", "Equal", "c", "NoSchedule"), False),
        (Toleration("a", "Equal", "b", "NoExecute"), False),
        (Toleration("a", "Exists"), True),
        (Toleration("", "Exists"), True),
        (Toleration("c", "Exists"), False),
    ],
)
def test_a_toleration_is_for_a_key_a_value_and_an_effect(
    toleration: Toleration, expected: bool
) -> None:
    assert tolerates(toleration, Taint("a", "b", "NoSchedule")) is expected


def test_pods_without_host_ports_are_not_kept() -> None:
    assert pod_of(pod_body("p", "n"), "kube-system") is None
    body = pod_body("p", "n")
    sidecar = {"restartPolicy": "Always", "ports": [{"hostPort": 80, "containerPort": 80}]}
    body["spec"]["initContainers"] = [sidecar]
    assert pod_of(body, "kube-system") is not None


def test_a_label_makes_no_pod_of_another_namespace_one_that_forwards() -> None:
    labels = {"svccontroller.k3s.cattle.io/svcname": "web"}
    found = pod_of(pod_body("p", "n", 80, labels=labels), "kube-system")
    assert found is not None
    assert found.service == ""


def test_node_ports_are_those_of_ports_and_of_the_health_check() -> None:
    body = service_body("web", 80, "UDP/53", healthCheckNodePort=31000)
    assert node_ports_of(body) == (("TCP", 30080), ("UDP", 30053), ("TCP", 31000))


def test_a_thousand_services_take_little_memory() -> None:
    bodies = [service_body(f"web-{i}", 80, 443, published=("10.0.0.1",)) for i in range(1000)]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = {body["metadata"]["name"]: service_of(body, MANAGER) for body in bodies}
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 1000
    # What they share with the bodies in this test, kopf's parser makes anew: 3 strings, 200 bytes.
    assert after - before < 1_500_000


def line(table: Path, entry: str) -> None:
    table.parent.mkdir(exist_ok=True)
    with table.open("a") as file:
        if not file.tell():
            file.write("  sl  local_address …\n")
        file.write(f"   0: {entry}\n")


def process(proc: Path, number: int, name: str, inode: int, **more: str) -> None:
    """``cgroup`` and ``parent`` as strings."""
    folder = proc / str(number)
    (folder / "fd").mkdir(parents=True)
    (folder / "fd" / "3").symlink_to(f"socket:[{inode}]")
    (folder / "comm").write_text(f"{name}\n")
    (folder / "cgroup").write_text(f"0::{more.get('cgroup', '/system.slice')}\n")
    (folder / "stat").write_text(f"{number} (a) b) S {more.get('parent', '1')} 0 0\n")


TAIL = "00000000:00000000 00:00000000 00000000     0        0"


@pytest.mark.skipif(sys.byteorder == "big", reason="the table is written for little endian")
def test_programs_that_listen_are_found_but_not_those_of_pods_and_of_the_daemon(
    tmp_path: Path,
) -> None:
    anywhere, own, loop = "00000000", "0100000A", "0100007F"
    for address, port, state, inode in [
        (anywhere, 22, "0A", 1),
        (own, 80, "0A", 2),
        (loop, 81, "0A", 3),
        (anywhere, 85, "0A", 7),
        (anywhere, 82, "01", 4),
        (anywhere, 83, "0A", 5),
    ]:
        entry = f"{address}:{port:04X} 00000000:0000 {state} {TAIL} {inode} 1 0 100 0"
        line(tmp_path / "net" / "tcp", entry)
    mapped = "0000000000000000FFFF00000100000A"
    line(tmp_path / "net" / "tcp6", f"{mapped}:0054 {'0' * 32}:0000 0A {TAIL} 6 1 0 100 0")
    line(tmp_path / "net" / "udp", f"{anywhere}:2118 00000000:0000 07 {TAIL} 0 2 0 0")
    process(tmp_path, 10, "sshd", 1)
    process(tmp_path, 11, "nginx", 2)
    process(tmp_path, 12, "inpod", 5, cgroup="/kubepods/burstable/x")
    process(tmp_path, 13, "six", 6)
    process(tmp_path, 14, "sibling", 7, parent=str(os.getppid()))
    wanted = {("TCP", port) for port in range(20, 90)} | {("UDP", 8472)}
    assert owners(wanted, tmp_path) == {
        ("TCP", 22): "sshd",
        ("TCP", 80): "nginx",
        ("TCP", 84): "six",
        ("UDP", 8472): "kernel",
    }


LISTEN = """
import socket, sys
servers = [socket.create_server((address, 0)) for address in ("0.0.0.0", "127.0.0.1")]
print(*(server.getsockname()[1] for server in servers), flush=True)
sys.stdin.read()
"""


def test_a_real_listener_of_this_machine_is_found_and_one_on_loopback_is_not() -> None:
    argv = [sys.executable, "-c", LISTEN]
    with Popen(argv, stdin=PIPE, stdout=PIPE, text=True) as child:
        assert child.stdout is not None
        one, two = (("TCP", int(port)) for port in child.stdout.readline().split())
        comm = Path(f"/proc/{child.pid}/comm").read_text().strip()
        in_pod = "kubepods" in Path("/proc/self/cgroup").read_text()
        assert owners({one, two}) == ({} if in_pod else {one: comm})
        child.communicate()
    assert owners({one, two}) == {}


def test_a_service_keeps_its_trouble_until_the_condition_goes() -> None:
    body: dict[str, Any] = service_body()
    body["status"]["conditions"] = [
        {"type": "Other", "status": "True", "message": "x"},
        {"type": "LoadBalancerPortsError", "status": "True", "reason": "R", "message": "m"},
    ]
    assert service_of(body, MANAGER).trouble == ("LoadBalancerPortsError", "R", "m")
    assert service().trouble.message == ""
