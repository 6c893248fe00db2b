"""Where a pod goes, and the exact words when it goes nowhere."""

from typing import Any

import pytest

from controlplane.objects.resources import (
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    STORAGE_CLASSES,
)
from controlplane.scheduler import requests
from controlplane.scheduler.cycle import Placed, Planner, Unplaced
from controlplane.scheduler.snapshot import View, node_info, pod_info
from tests.fakes.reads import World
from tests.unit.scheduler.objects import node, pod, required, together

ZONE = "topology.kubernetes.io/zone"


def planner(
    nodes: list[dict[str, Any]], placed: list[dict[str, Any]] | None = None, world: Any = None
) -> Planner:
    view = View()
    for item in nodes:
        view.set_node(node_info(item))
    for item in placed or []:
        view.put_pod(pod_info(item))
    return Planner(view, world or World(), pick=lambda indices: indices[0])


def place(made: Planner, item: dict[str, Any]) -> str:
    """The node, or the message."""
    outcome = made.place(item)
    return outcome.node if isinstance(outcome, Placed) else outcome.message


NOT_HELPFUL = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."


@pytest.mark.parametrize(
    ("on", "what", "reason"),
    [
        (node(unschedulable=True), pod(), "node(s) were unschedulable"),
        (
            node(taints=[{"key": "a", "value": "b", "effect": "NoSchedule"}]),
            pod(),
            "node(s) had untolerated taint(s)",
        ),
        (
            node(),
            pod(nodeSelector={"disk": "ssd"}),
            "node(s) didn't match Pod's node affinity/selector",
        ),
        (node(cpu="1"), pod(cpu="2"), "Insufficient cpu"),
        (
            node(labels={}),
            pod(
                topologySpreadConstraints=[
                    {"maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule"}
                ]
            ),
            "node(s) didn't match pod topology spread constraints (missing required label)",
        ),
        (
            node(),
            pod(affinity=required("podAffinity", together({"app": "db"}))),
            "node(s) didn't match pod affinity rules",
        ),
    ],
)
def test_the_reason_why_no_node_will_do(on: Any, what: Any, reason: str) -> None:
    assert place(planner([on]), what) == f"0/1 nodes are available: 1 {reason}.{NOT_HELPFUL}"


def test_reasons_are_counted_over_nodes() -> None:
    made = planner(
        [node("a", unschedulable=True), node("b", cpu="1"), node("c", cpu="1", memory="1Gi")]
    )
    assert place(made, pod(cpu="2", memory="2Gi")) == (
        "0/3 nodes are available: 1 Insufficient memory, 1 node(s) were unschedulable, "
        "2 Insufficient cpu. preemption: 0/3 nodes are available: "
        "3 Preemption is not helpful for scheduling."
    )


def test_a_full_node_names_the_lack_of_victims() -> None:
    full = pod("full", cpu="4", nodeName="n1")
    assert place(planner([node()], [full]), pod(cpu="1")) == (
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: "
        "1 No preemption victims found for incoming pod."
    )


def test_without_nodes_it_says_so() -> None:
    assert place(planner([]), pod()) == "no nodes available to schedule pods"


def test_tolerations_open_a_tainted_or_cordoned_node() -> None:
    anything = [{"operator": "Exists"}]
    taints = [{"key": "a", "effect": "NoSchedule"}]
    made = planner([node(taints=taints, unschedulable=True)])
    assert place(made, pod(tolerations=anything)) == "n1"


def test_host_ports_clash_unless_the_addresses_differ() -> None:
    taken = pod("a", ports=[{"hostPort": 80, "hostIP": "10.0.0.1"}], nodeName="n1")
    made = planner([node()], [taken])
    assert place(made, pod("b", ports=[{"hostPort": 80, "hostIP": "10.0.0.2"}])) == "n1"
    assert "free ports" in place(made, pod("b", ports=[{"hostPort": 80}]))
    assert place(made, pod("b", ports=[{"hostPort": 80, "protocol": "UDP"}])) == "n1"


def test_the_emptier_node_wins() -> None:
    busy = pod("busy", cpu="3", memory="6Gi", nodeName="n1")
    assert place(planner([node("n1"), node("n2")], [busy]), pod(cpu="1")) == "n2"


def test_a_preferred_node_wins_over_an_emptier_one() -> None:
    term = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
    wish = {
        "nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 10, "preference": term}]
        }
    }
    busy = pod("busy", cpu="2", nodeName="n2")
    made = planner([node("n1"), node("n2", labels={"disk": "ssd"})], [busy])
    assert place(made, pod(affinity=wish)) == "n2"


def test_the_node_that_has_the_image_wins() -> None:
    images = [{"names": ["app:1"], "sizeBytes": 900 << 20}]
    assert place(planner([node("n1"), node("n2", images=images)]), pod()) == "n2"


def test_anti_affinity_holds_in_both_directions() -> None:
    web = {"app": "web"}
    alone = required("podAntiAffinity", together(web))
    made = planner([node()], [pod("a", labels=web, nodeName="n1")])
    message = place(made, pod("b", labels=web, affinity=alone))
    assert "node(s) didn't match pod anti-affinity rules" in message
    made = planner([node()], [pod("a", labels=web, affinity=alone, nodeName="n1")])
    message = place(made, pod("b", labels=web))
    assert "node(s) didn't satisfy existing pods anti-affinity rules" in message


def test_the_first_of_a_group_may_start_it_and_the_rest_follows() -> None:
    web = {"app": "web"}
    close = required("podAffinity", together(web))
    assert place(planner([node("n1")]), pod("a", labels=web, affinity=close)) == "n1"
    made = planner([node("n1"), node("n2")], [pod("a", labels=web, cpu="3", nodeName="n2")])
    assert place(made, pod("b", labels=web, affinity=close)) == "n2"


def test_spread_keeps_the_skew() -> None:
    web = {"app": "web"}
    constraint = {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": web},
    }
    nodes = [node("n1", labels={ZONE: "a"}), node("n2", labels={ZONE: "b"}, cpu="1")]
    placed = [pod("a", labels=web, nodeName="n1")]
    wanted = pod("b", labels=web, topologySpreadConstraints=[constraint])
    assert place(planner(nodes, placed), wanted) == "n2"
    wanted = pod("b", cpu="2", labels=web, topologySpreadConstraints=[constraint])
    assert "didn't match pod topology spread constraints" in place(planner(nodes, placed), wanted)


def test_init_containers_sidecars_and_overhead_count() -> None:
    item = pod(cpu="500m", overhead={"cpu": "100m"})
    item["spec"]["initContainers"] = [
        {"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "200m"}}},
        {"name": "i", "resources": {"requests": {"cpu": "2"}}},
    ]
    assert requests.of_pod(item) == {"cpu": 2300}
    item["spec"]["initContainers"].pop()
    assert requests.of_pod(item) == {"cpu": 800}


def test_less_important_pods_make_room_as_few_as_possible() -> None:
    placed = [
        pod("small", cpu="1", priority=1, nodeName="n1"),
        pod("large", cpu="3", priority=0, nodeName="n1"),
    ]
    outcome = planner([node()], placed).place(pod("vip", cpu="2", priority=100))
    assert isinstance(outcome, Unplaced)
    assert outcome.victims is not None
    assert [v.name for v in outcome.victims.victims] == ["large"]
    assert outcome.message == "0/1 nodes are available: 1 Insufficient cpu."


def test_preemption_spares_what_a_budget_protects() -> None:
    world = World()
    budget = {
        "metadata": {"name": "b", "namespace": "default"},
        "spec": {"selector": {"matchLabels": {"app": "db"}}},
        "status": {"disruptionsAllowed": 0},
    }
    world.put(POD_DISRUPTION_BUDGETS, budget)
    placed = [
        pod("db", cpu="4", labels={"app": "db"}, nodeName="n1"),
        pod("web", cpu="4", nodeName="n2"),
    ]
    made = planner([node("n1"), node("n2")], placed, world)
    outcome = made.place(pod("vip", cpu="2", priority=100))
    assert isinstance(outcome, Unplaced)
    assert outcome.victims is not None
    assert outcome.victims.node == "n2"


def test_a_pod_that_may_not_preempt_says_so() -> None:
    made = planner([node()], [pod("a", cpu="4", nodeName="n1")])
    outcome = made.place(pod("vip", cpu="2", priority=100, preemptionPolicy="Never"))
    assert isinstance(outcome, Unplaced)
    assert outcome.victims is None
    assert outcome.message.endswith("preemption: not eligible due to preemptionPolicy=Never.")


def test_room_that_was_made_is_kept_from_the_less_important() -> None:
    made = planner([node()])
    made.nominated["uid-vip"] = pod_info(pod("vip", cpu="4", priority=100, nodeName="n1"))
    assert "Insufficient cpu" in place(made, pod("low", cpu="1"))
    assert place(made, pod("higher", cpu="1", priority=200)) == "n1"


def claim(name: str = "data", **fields: Any) -> dict[str, Any]:
    spec = {"storageClassName": "local", "accessModes": ["ReadWriteOnce"], **fields}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": spec}


def with_claim(name: str = "data") -> dict[str, Any]:
    return pod(volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": name}}])


def at(name: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [name]}
    return {"required": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}


def test_a_missing_claim_is_named() -> None:
    message = place(planner([node()]), with_claim())
    assert message.startswith(
        '0/1 nodes are available: persistentvolumeclaim "data" not found. preemption:'
    )


def test_a_pod_goes_where_its_volume_is() -> None:
    world = World()
    bound = claim(volumeName="pv1")
    bound["status"] = {"phase": "Bound"}
    world.put(PERSISTENT_VOLUME_CLAIMS, bound)
    volume = {"metadata": {"name": "pv1"}, "spec": {"nodeAffinity": at("n2")}}
    world.put(PERSISTENT_VOLUMES, volume)
    assert place(planner([node("n1"), node("n2")], world=world), with_claim()) == "n2"
    message = place(planner([node("n1")], world=world), with_claim())
    assert "node(s) didn't match PersistentVolume's node affinity" in message


def test_a_claim_that_waits_for_a_consumer_lets_the_pod_choose() -> None:
    world = World()
    world.put(PERSISTENT_VOLUME_CLAIMS, claim())
    storage = {
        "metadata": {"name": "local"},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    world.put(STORAGE_CLASSES, storage)
    outcome = planner([node()], world=world).place(with_claim())
    assert isinstance(outcome, Placed)
    ((waiting, volume),) = outcome.chosen
    assert waiting.claim["metadata"]["name"] == "data"
    assert volume is None
    storage["volumeBindingMode"] = "Immediate"
    world.put(STORAGE_CLASSES, storage)
    message = place(planner([node()], world=world), with_claim())
    assert "pod has unbound immediate PersistentVolumeClaims" in message
