"""Why a pod that was put on this node does not run here."""

from typing import Any

import pytest

from node.kubelet.admit import Room, refuse
from tests.unit.kubelet.pods import container, pod

ALLOCATABLE = {"cpu": "1", "memory": "512Mi", "ephemeral-storage": "1Gi", "pods": "3"}
NODE = {
    "metadata": {"name": "n1", "labels": {"disk": "ssd"}},
    "spec": {"taints": [{"key": "closed", "effect": "NoExecute"}]},
}
OPEN = {"metadata": NODE["metadata"], "spec": {}}


def asking(name: str = "p", **requests: str) -> dict[str, Any]:
    named = {key.replace("_", "-"): value for key, value in requests.items()}
    made = container(resources={"requests": named})
    return pod(made, meta={"name": name, "uid": name})


def listening(*ports: dict[str, Any], name: str = "p") -> dict[str, Any]:
    return pod(container(ports=list(ports)), meta={"name": name, "uid": name})


def why(what: dict[str, Any], *others: dict[str, Any], node: Any = OPEN) -> tuple[str, str] | None:
    found = refuse(what, Room(node=node, allocatable=ALLOCATABLE, others=others))
    return (found.reason, found.message) if found is not None else None


@pytest.mark.parametrize(
    ("what", "others", "reason", "numbers"),
    [
        (asking(cpu="500m"), [asking("o", cpu="600m")], "cpu", (500, 600, 1000)),
        (asking(memory="1Gi"), [], "memory", (1 << 30, 0, 512 << 20)),
        (asking(ephemeral_storage="2Gi"), [], "ephemeral-storage", (2 << 30, 0, 1 << 30)),
        (asking(), [asking("a"), asking("b"), asking("c")], "pods", (1, 3, 3)),
    ],
)
def test_what_the_node_has_too_little_of(
    what: dict[str, Any], others: list[dict[str, Any]], reason: str, numbers: tuple[int, ...]
) -> None:
    wanted, used, offered = numbers
    assert why(what, *others) == (
        f"OutOf{reason}",
        f"Node didn't have enough resource: {reason}, requested: {wanted}, used: {used}, "
        f"capacity: {offered}",
    )


def test_what_fits_is_let_in() -> None:
    assert why(asking(cpu="400m", memory="100Mi"), asking("o", cpu="600m")) is None
    assert why(asking(**{"example.com/gpu": "1"})) is None, "an unknown resource is another's"


def test_the_overhead_of_a_runtime_class_counts() -> None:
    heavy = asking(cpu="800m")
    heavy["spec"]["overhead"] = {"cpu": "300m"}
    found = why(heavy)
    assert found is not None
    assert "requested: 1100" in found[1]


TAKEN = (
    "NodePorts",
    "Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports",
)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"hostPort": 80}, {"hostPort": 80}, TAKEN),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80}, TAKEN),
        ({"hostPort": 80, "hostIP": "10.0.0.1"}, {"hostPort": 80, "hostIP": "10.0.0.2"}, None),
        ({"hostPort": 80}, {"hostPort": 80, "protocol": "UDP"}, None),
        ({"hostPort": 80}, {"containerPort": 80}, None),
    ],
)
def test_a_port_of_the_host_is_for_one_pod(
    first: dict[str, Any], second: dict[str, Any], expected: tuple[str, str] | None
) -> None:
    assert why(listening(second), listening(first, name="o")) == expected


def test_a_sidecars_port_counts_too() -> None:
    sidecar = container("s", restartPolicy="Always", ports=[{"hostPort": 80}])
    other = pod(container(), initContainers=[sidecar], meta={"name": "o", "uid": "o"})
    assert why(listening({"hostPort": 80}), other) == TAKEN


def test_the_node_has_to_be_one_that_the_pod_wants() -> None:
    expected = (
        "NodeAffinity",
        "Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector",
    )
    assert why(pod(nodeSelector={"disk": "hdd"})) == expected
    assert why(pod(nodeSelector={"disk": "ssd"})) is None
    term = {"matchExpressions": [{"key": "disk", "operator": "NotIn", "values": ["ssd"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}
    assert why(pod(affinity={"nodeAffinity": required})) == expected


def test_a_taint_that_evicts_keeps_out_as_well() -> None:
    assert why(pod(), node=NODE) == (
        "TaintToleration",
        "Predicate TaintToleration failed: node(s) had taints that the pod didn't tolerate",
    )
    assert why(pod(tolerations=[{"operator": "Exists"}]), node=NODE) is None


def test_other_systems_pods_are_refused() -> None:
    assert (why(pod(os={"name": "windows"})) or ("",))[0] == "PodOSNotSupported"
    labelled = pod(meta={"labels": {"kubernetes.io/os": "windows"}})
    assert (why(labelled) or ("",))[0] == "PodOSSelectorNodeLabelDoesNotMatch"
