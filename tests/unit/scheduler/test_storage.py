"""Which node has room for the volumes of a pod, and who is woken when there is more of it."""

from typing import Any

import pytest

from controlplane.objects.resources import (
    CSI_DRIVERS,
    CSI_STORAGE_CAPACITIES,
    NODES,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    PODS,
    STORAGE_CLASSES,
)
from controlplane.scheduler.cycle import Placed, Unplaced
from tests.fakes.reads import World
from tests.unit.scheduler.objects import node, pod
from tests.unit.scheduler.test_cycle import place, planner
from tests.unit.scheduler.test_loop import running

PROVISIONER = "rancher.io/local-path"
DRIVER = "rancher.io.local-path"  # no name of an object has a slash
ON_BOTH = [node("n1"), node("n2")]


def claim(name: str = "data", size: str = "2Gi", **spec: Any) -> dict[str, Any]:
    requests = {"requests": {"storage": size}} if size else {}
    whole = {"storageClassName": "local", "resources": requests, "accessModes": ["ReadWriteOnce"]}
    return {"metadata": {"name": name, "namespace": "default"}, "spec": {**whole, **spec}}


def bound(name: str, volume: str, **spec: Any) -> dict[str, Any]:
    return {**claim(name, volumeName=volume, **spec), "status": {"phase": "Bound"}}


def user(*claims: str) -> dict[str, Any]:
    volumes = [{"name": c, "persistentVolumeClaim": {"claimName": c}} for c in claims or ("data",)]
    return pod(volumes=volumes)


def room(on: str | None, capacity: str = "", most: str = "", **more: Any) -> dict[str, Any]:
    """``on``: a node; None: on none."""
    topology = {"matchLabels": {"kubernetes.io/hostname": on}} if on is not None else None
    return {
        "metadata": {"name": f"room-{on}-{len(more)}", "namespace": "kube-system"},
        "storageClassName": "local",
        **({"nodeTopology": topology} if topology else {}),
        **({"capacity": capacity} if capacity else {}),
        **({"maximumVolumeSize": most} if most else {}),
        **more,
    }


def world(*rooms: dict[str, Any], tracked: bool = True, **storage: Any) -> World:
    made = World()
    made.put(PERSISTENT_VOLUME_CLAIMS, claim())
    waiting = {"provisioner": PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer"}
    made.put(STORAGE_CLASSES, {"metadata": {"name": "local"}, **waiting, **storage})
    made.put(CSI_DRIVERS, {"metadata": {"name": DRIVER}, "spec": {"storageCapacity": tracked}})
    for item in rooms:
        made.put(CSI_STORAGE_CAPACITIES, item)
    return made


FULL = (
    "0/2 nodes are available: 2 node(s) did not have enough free storage. preemption: "
    "0/2 nodes are available: 2 Preemption is not helpful for scheduling."
)


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [
        ([room("n1", "1Gi"), room("n2", "3Gi")], "n2"),
        ([room("n1", "1Gi"), room("n2", "2Gi")], "n2"),
        ([room("n1", "1Gi"), room("n2", "1Gi")], FULL),
        ([], FULL),
        # The largest volume counts for more than all that is left.
        ([room("n1", "100Gi", most="1Gi"), room("n2", "3Gi", most="3Gi")], "n2"),
        ([room("n1"), room("n2")], FULL),
        ([room(None, "100Gi")], FULL),
        ([room("n1", "100Gi", storageClassName="other")], FULL),
    ],
)
def test_a_volume_is_made_where_there_is_room(rooms: list[dict[str, Any]], expected: str) -> None:
    assert place(planner(ON_BOTH, world=world(*rooms)), user()) == expected


def test_where_nobody_tells_of_room_every_node_will_do() -> None:
    assert place(planner(ON_BOTH, world=world(tracked=False)), user()) == "n1"
    silent = world()
    silent.put(CSI_DRIVERS, {"metadata": {"name": DRIVER}, "spec": {}})
    assert place(planner(ON_BOTH, world=silent), user()) == "n1"


def test_a_claim_without_a_size_needs_no_room() -> None:
    made = world()
    made.put(PERSISTENT_VOLUME_CLAIMS, claim(size=""))
    assert place(planner(ON_BOTH, world=made), user()) == "n1"


def test_a_volume_that_is_there_needs_no_room() -> None:
    made = world()
    made.put(PERSISTENT_VOLUMES, free("pv1", "5Gi", "n2"))
    outcome = planner(ON_BOTH, world=made).place(user())
    assert isinstance(outcome, Placed)
    assert outcome.node == "n2"
    assert outcome.chosen[0][1] is not None


def free(name: str, size: str, on: str) -> dict[str, Any]:
    expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [on]}
    terms = [{"matchExpressions": [expression]}]
    return {
        "metadata": {"name": name},
        "spec": {
            "storageClassName": "local",
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            "local": {"path": "/disk"},
        },
        "status": {"phase": "Available"},
    }


def test_a_small_claim_leaves_the_large_volume_to_the_large_one() -> None:
    made = world(provisioner="kubernetes.io/no-provisioner")
    made.put(PERSISTENT_VOLUME_CLAIMS, claim("large", "5Gi"))
    made.put(PERSISTENT_VOLUME_CLAIMS, claim("small", "1Gi"))
    for name, size in (("pv-large", "5Gi"), ("pv-small", "2Gi")):
        made.put(PERSISTENT_VOLUMES, free(name, size, "n1"))
    outcome = planner([node()], world=made).place(user("large", "small"))
    assert isinstance(outcome, Placed)
    chosen = {item.claim["metadata"]["name"]: v for item, v in outcome.chosen}
    assert {name: v["metadata"]["name"] for name, v in chosen.items() if v is not None} == {
        "large": "pv-large",
        "small": "pv-small",
    }


def test_all_that_is_wrong_with_a_node_is_told() -> None:
    made = world(room("n1", "1Gi"))
    made.put(PERSISTENT_VOLUME_CLAIMS, bound("kept", "pv1"))
    made.put(PERSISTENT_VOLUMES, free("pv1", "5Gi", "n2"))
    assert place(planner([node()], world=made), user("kept", "data")).startswith(
        "0/1 nodes are available: 1 node(s) did not have enough free storage, "
        "1 node(s) didn't match PersistentVolume's node affinity."
    )


def test_what_was_chosen_for_a_claim_stands() -> None:
    made = world(room("n1", "9Gi"), room("n2", "9Gi"))
    chosen = claim()
    chosen["metadata"]["annotations"] = {"volume.kubernetes.io/selected-node": "n2"}
    made.put(PERSISTENT_VOLUME_CLAIMS, chosen)
    assert place(planner(ON_BOTH, world=made), user()) == "n2"
    assert "node(s) didn't find available persistent volumes to bind" in place(
        planner([node()], world=made), user()
    )


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"topology.kubernetes.io/zone": "a"}, "n1"),
        ({"topology.kubernetes.io/zone": "a__b"}, "n1"),
        ({"failure-domain.beta.kubernetes.io/zone": "a"}, "n1"),
        ({"topology.kubernetes.io/zone": "b"}, "1 node(s) had no available volume zone."),
        ({"topology.kubernetes.io/region": "x"}, "1 node(s) had no available volume zone."),
    ],
)
def test_a_volume_is_used_in_its_zone(labels: dict[str, str], expected: str) -> None:
    made = world()
    made.put(PERSISTENT_VOLUME_CLAIMS, bound("data", "pv1"))
    made.put(PERSISTENT_VOLUMES, {"metadata": {"name": "pv1", "labels": labels}, "spec": {}})
    zoned = node(labels={"topology.kubernetes.io/zone": "a"})
    assert expected in place(planner([zoned], world=made), user())
    assert place(planner([node()], world=made), user()) == "n1", "without zones, all of them"


@pytest.mark.parametrize(
    ("status", "owner", "expected"),
    [
        (
            {"phase": "Lost"},
            None,
            'persistentvolumeclaim "p1-data" bound to non-existent persistentvolume "pv1"',
        ),
        (
            {"phase": "Bound"},
            "uid-other",
            "PVC default/p1-data was not created for pod default/p1 (pod is not owner)",
        ),
        (None, None, "waiting for ephemeral volume controller to create the "),
    ],
)
def test_claims_that_no_node_can_help(
    status: dict[str, Any] | None, owner: str | None, expected: str
) -> None:
    made = world()
    if status is not None:
        found = {**claim("p1-data", volumeName="pv1"), "status": status}
        reference = {"kind": "Pod", "name": "p1", "uid": owner, "controller": True}
        found["metadata"]["ownerReferences"] = [reference]
        made.put(PERSISTENT_VOLUME_CLAIMS, found)
    what = pod(volumes=[{"name": "data", "ephemeral": {"volumeClaimTemplate": {}}}])
    assert expected in place(planner([node()], world=made), what)


def for_one(name: str = "data") -> dict[str, Any]:
    return bound(name, "pv1", accessModes=["ReadWriteOncePod"])


def taken_world(**fields: Any) -> tuple[World, dict[str, Any]]:
    """A claim for one pod, and the pod that has it on n1."""
    made = world()
    made.put(PERSISTENT_VOLUME_CLAIMS, for_one())
    made.put(PERSISTENT_VOLUMES, {"metadata": {"name": "pv1"}, "spec": {}})
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}
    first = pod("first", nodeName="n1", volumes=[volume], **fields)
    made.put(PODS, first)
    return made, first


def test_a_claim_for_one_pod_keeps_a_second_from_every_node() -> None:
    made, first = taken_world()
    message = place(planner(ON_BOTH, [first], world=made), user())
    assert message.startswith(
        "0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name "
        "and ReadWriteOncePod access mode. preemption: 0/2 nodes are available: "
    )


def test_a_more_important_pod_displaces_the_one_that_has_the_claim() -> None:
    made, first = taken_world()
    important = {**user(), "spec": {**user()["spec"], "priority": 1000}}
    outcome = planner(ON_BOTH, [first], world=made).place(important)
    assert isinstance(outcome, Unplaced)
    assert outcome.victims is not None
    assert outcome.victims.node == "n1"
    assert [victim.name for victim in outcome.victims.victims] == ["first"]


def test_a_claim_for_one_pod_is_free_when_that_one_has_no_node() -> None:
    made, _ = taken_world()
    assert place(planner(ON_BOTH, world=made), user()) == "n1"


async def test_more_room_brings_back_who_waits_for_it_and_less_does_not() -> None:
    async with running() as run:
        for (group, plural, _, _), item in world(room("n1", "1Gi")).objects.items():
            for resource in (
                PERSISTENT_VOLUME_CLAIMS,
                STORAGE_CLASSES,
                CSI_DRIVERS,
                CSI_STORAGE_CAPACITIES,
            ):
                if (group, plural) == (resource.group, resource.plural):
                    run.world.put(resource, item)
        run.world.put(NODES, node())
        run.world.put(PODS, user())
        await run.settle()
        tries = run.scheduler.counters.unschedulable
        assert tries == 1
        name = ("kube-system", "room-n1-0")
        await run.advance(20)
        run.world.change(CSI_STORAGE_CAPACITIES, *name, capacity="500Mi")
        await run.settle()
        assert run.scheduler.counters.unschedulable == tries
        run.world.change(CSI_STORAGE_CAPACITIES, *name, capacity="9Gi")
        await run.settle()
        found = run.world.get(PERSISTENT_VOLUME_CLAIMS, "default", "data")
        assert found is not None
        assert found["metadata"]["annotations"] == {"volume.kubernetes.io/selected-node": "n1"}
