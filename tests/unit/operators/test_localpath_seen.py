"""Which events become work, and which are nobody's."""

from pathlib import Path
from typing import Any

from operators.localpath import paths
from operators.localpath.handlers import CAPACITY, CLEAR_UP, CONFIGURATION, Seen
from operators.localpath.state import State

OURS = {"volume.kubernetes.io/storage-provisioner": "rancher.io/local-path"}
NODE = "volume.kubernetes.io/selected-node"


class Board:
    """A :class:`Seen` for node pi, and what it asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.state = State(
            node="pi", native=True, configuration=paths.default(Path("/data/storage"))
        )
        add = self.asked.append
        self.seen = Seen(self.state, add=add, do=add, namespace="kube-system")

    def take(self) -> list[str]:
        taken, self.asked[:] = list(self.asked), []
        return taken


def claim(notes: dict[str, str], **spec: Any) -> dict[str, Any]:
    metadata = {"namespace": "shop", "name": "db", "uid": "1", "annotations": notes}
    return {"metadata": metadata, "spec": {"resources": {}, **spec}}


def node(name: str, *, ready: bool = True, **labels: str) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    metadata = {"name": name, "uid": name, "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": {"conditions": conditions}}


def test_only_claims_of_this_provisioner_and_node_are_work() -> None:
    board = Board()
    board.seen.node(node("n2"), gone=False)
    board.take()
    board.seen.claim(claim({}), gone=False)
    board.seen.claim(claim(OURS, volumeName="pvc-1"), gone=False)
    board.seen.claim(claim(OURS | {NODE: "n2"}), gone=False)
    assert board.take() == []
    board.seen.claim(claim(OURS | {NODE: "pi"}), gone=False)
    board.seen.claim(claim(OURS), gone=False)
    assert board.take() == ["claim shop/db"] * 2


def test_a_claim_of_another_node_is_work_when_that_node_goes() -> None:
    board = Board()
    board.seen.node(node("n2"), gone=False)
    board.seen.claim(claim(OURS | {NODE: "n2"}), gone=False)
    board.take()
    board.seen.node(node("n2"), gone=True)
    assert board.take() == ["claim shop/db"]
    board.seen.claim(claim(OURS | {NODE: "n2"}), gone=False)
    assert board.take() == ["claim shop/db"]


def test_a_claim_that_goes_before_it_has_a_volume_may_have_left_one_behind() -> None:
    board = Board()
    board.seen.claim(claim(OURS, volumeName="pvc-1"), gone=True)
    assert board.take() == []
    board.seen.claim(claim(OURS), gone=True)
    assert board.take() == [CLEAR_UP]


def test_what_waits_is_tried_again_when_classes_or_nodes_change() -> None:
    board = Board()
    board.state.waiting.add("shop/db")
    storage_class = {"metadata": {"name": "fast"}, "provisioner": "rancher.io/local-path"}
    other = storage_class | {"provisioner": "example.com/nfs"}
    board.seen.storage_class(other, gone=False)
    assert board.take() == []
    board.seen.storage_class(storage_class, gone=False)
    assert board.take() == [CAPACITY, "claim shop/db"]
    board.seen.storage_class(storage_class, gone=True)
    assert board.take() == [CAPACITY, "claim shop/db"]
    assert board.state.classes == {}
    board.seen.node(node("pi"), gone=False)
    assert sorted(board.take()) == [CAPACITY, "claim shop/db"]


def test_a_heartbeat_of_a_node_is_nothing() -> None:
    board = Board()
    board.seen.node(node("pi", zone="a"), gone=False)
    board.take()
    beat = node("pi", zone="a") | {"spec": {"taints": []}}
    board.seen.node(beat, gone=False)
    assert board.take() == []
    board.seen.node(node("pi", zone="b"), gone=False)
    assert board.take() == [CAPACITY]


def test_only_the_configuration_of_its_own_namespace_counts() -> None:
    board = Board()
    for namespace, name in (("default", paths.NAME), ("kube-system", "other")):
        board.seen.config_map({"metadata": {"namespace": namespace, "name": name}})
    assert board.take() == []
    board.seen.config_map({"metadata": {"namespace": "kube-system", "name": paths.NAME}})
    assert board.take() == [CONFIGURATION]


def test_snapshots_that_are_ready_and_contents_of_others_are_no_work() -> None:
    board = Board()
    metadata = {"namespace": "shop", "name": "s", "uid": "7"}
    snapshot = {"metadata": metadata, "spec": {"source": {"persistentVolumeClaimName": "db"}}}
    board.seen.snapshot(snapshot, gone=False)
    assert board.take() == ["snapshot shop/s"]
    board.seen.snapshot(snapshot | {"status": {"readyToUse": True}}, gone=False)
    assert board.take() == []
    board.seen.snapshot(snapshot, gone=True)
    assert board.take() == ["content snapcontent-7"]
    reference = {"namespace": "shop", "name": "s"}
    content: dict[str, Any] = {
        "metadata": {"name": "c", "deletionTimestamp": "now"},
        "spec": {"driver": "example.com", "volumeSnapshotRef": reference},
    }
    board.seen.content(content, gone=False)
    assert board.take() == []
    content["spec"]["driver"] = "rancher.io/local-path"
    board.seen.content(content, gone=False)
    assert board.take() == ["content c", "snapshot shop/s"]
