"""The provisioner on a real control plane: local-path-provisioner's cases, and what it refuses."""

import json
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from operators.localpath import mounts
from tests.fakes.operators_cluster import Cluster, condition, new_cluster

pytestmark = pytest.mark.root
OPERATORS = "operators.run"
FLAGS = ("--disable=traefik", "--disable=metrics-server", "--disable=runtimes")
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
CLASSES = "/apis/storage.k8s.io/v1/storageclasses"
CONFIG = "/api/v1/namespaces/kube-system/configmaps/local-path-config"
CAPACITIES = "/apis/storage.k8s.io/v1/namespaces/kube-system/csistoragecapacities"
SNAPSHOTS = "/apis/snapshot.storage.k8s.io/v1/namespaces/default/volumesnapshots"
CONTENTS = "/apis/snapshot.storage.k8s.io/v1/volumesnapshotcontents"
EVENTS = "/api/v1/namespaces/default/events"
NUMBERS = count(1)
Object = dict[str, Any]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("localpath")
    with own_disk(folder / "storage"), new_cluster(folder) as made:
        made.stop("controlplane.run")
        made.start("controlplane.run", *FLAGS)
        made.start(OPERATORS, *FLAGS)
        labels = {"kubernetes.io/hostname": "n1", "example.com/stable-id": "stable"}
        made.create("/api/v1/nodes", {"metadata": {"name": "n1", "labels": labels}})
        beat(made)
        made.until(CLASSES, "local-path", lambda found: found is not None)
        yield made
    for mount in reversed(mounts.all_mounts()):
        assert not mount.point.is_relative_to(made.data), "something was left mounted"


@contextmanager
def own_disk(point: Path) -> Iterator[None]:
    """What others write on this machine is not to change how much room there is."""
    image = point.with_name("disk")
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(64 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


def beat(cluster: Cluster) -> None:
    """The node has no kubelet, and is taken for dead after a while."""
    condition = {"type": "Ready", "status": "True", "reason": f"beat-{next(NUMBERS)}"}
    cluster.merge("/api/v1/nodes/n1/status", {"status": {"conditions": [condition]}})


def storage(cluster: Cluster) -> Path:
    return cluster.data / "storage"


def add_class(cluster: Cluster, parameters: Object | None = None, **more: Any) -> str:
    name = f"class-{next(NUMBERS)}"
    body = {
        "metadata": {"name": name, "annotations": more.pop("annotations", {})},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": True,
        "parameters": parameters or {},
        **more,
    }
    cluster.create(CLASSES, body)
    return name


def add_claim(cluster: Cluster, class_name: str, *, node: str = "n1", **more: Any) -> str:
    name: str = more.pop("name", f"claim-{next(NUMBERS)}")
    notes = dict(more.pop("annotations", {}))
    if node:
        notes["volume.kubernetes.io/selected-node"] = node
    size = more.pop("size", "16Mi")
    spec = {
        "storageClassName": class_name,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
        **more,
    }
    cluster.create(CLAIMS, {"metadata": {"name": name, "annotations": notes}, "spec": spec})
    return name


def bound(cluster: Cluster, claim: str) -> Object:
    """Its PersistentVolume."""
    found = cluster.until(CLAIMS, claim, lambda c: phase(c) == "Bound")
    volume: Object = cluster.get(f"{VOLUMES}/{found['spec']['volumeName']}")
    return volume


def phase(body: Object | None) -> str:
    return str(status(body).get("phase"))


def message(cluster: Cluster, about: str, reason: str, namespace: str = "default") -> str:
    """Of the first event of this reason, once there is one."""
    path = f"/api/v1/namespaces/{namespace}/events"
    selector = f"involvedObject.name%3D{about},reason%3D{reason}"
    listed = cluster.get(f"{path}?fieldSelector={selector}")
    if listed["items"]:
        return str(listed["items"][0]["message"])
    version = listed["metadata"]["resourceVersion"]
    watch = f"{path}?fieldSelector={selector}&watch=1&resourceVersion={version}"
    for event in cluster._watch(watch):
        return str(event["object"].get("message"))
    raise AssertionError(f"no event {reason} about {about}")


def remove(cluster: Cluster, *claims: str) -> None:
    volumes = [cluster.get(f"{CLAIMS}/{claim}")["spec"].get("volumeName") for claim in claims]
    for claim in claims:
        cluster.delete(f"{CLAIMS}/{claim}")
    for volume in filter(None, volumes):
        cluster.until(VOLUMES, volume, lambda found: found is None)


# What local-path-provisioner is tested for


def test_a_volume_is_of_the_type_hostpath_by_default(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster))
    volume = bound(cluster, claim)
    name, uid = volume["metadata"]["name"], cluster.get(f"{CLAIMS}/{claim}")["metadata"]["uid"]
    assert name == f"pvc-{uid}"
    path = storage(cluster) / f"{name}_default_{claim}"
    assert volume["spec"]["hostPath"] == {"path": str(path), "type": "DirectoryOrCreate"}
    assert volume["metadata"]["annotations"]["local.path.provisioner/selected-node"] == "n1"
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
    assert volume["spec"]["claimRef"]["uid"] == uid
    assert f'claim "default/{claim}"' in message(cluster, claim, "Provisioning")
    succeeded = message(cluster, claim, "ProvisioningSucceeded")
    assert succeeded == f"Successfully provisioned volume {name}"
    assert path.is_dir()
    assert storage(cluster).stat().st_mode & 0o777 == 0o700
    remove(cluster, claim)
    assert not path.exists()


def test_the_class_or_the_claim_says_that_it_is_local(cluster: Cluster) -> None:
    local = add_class(cluster, annotations={"defaultVolumeType": "local"})
    one = add_claim(cluster, local)
    two = add_claim(cluster, local, annotations={"volumeType": "hostPath"})
    three = add_claim(cluster, add_class(cluster), annotations={"volumeType": "local"})
    wrong = add_claim(cluster, local, annotations={"volumeType": "nfs"})
    assert "local" in bound(cluster, one)["spec"]
    assert "hostPath" in bound(cluster, two)["spec"]
    assert "local" in bound(cluster, three)["spec"]
    assert '"nfs" is not a recognised volume type' in message(cluster, wrong, "ProvisioningFailed")
    remove(cluster, one, two, three, wrong)


def test_a_volume_stays_with_its_node(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster))
    assert affinity(bound(cluster, claim)) == ("kubernetes.io/hostname", ["n1"])
    remove(cluster, claim)


def test_another_label_may_say_which_node_it_is(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster, {"nodeAffinityKey": "example.com/stable-id"}))
    assert affinity(bound(cluster, claim)) == ("example.com/stable-id", ["stable"])
    remove(cluster, claim)


def affinity(volume: Object) -> tuple[str, list[str]]:
    (term,) = volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"]
    (wanted,) = term["matchExpressions"]
    return wanted["key"], wanted["values"]


def test_a_claim_of_one_pod_alone_is_served(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster), accessModes=["ReadWriteOncePod"])
    assert bound(cluster, claim)["spec"]["accessModes"] == ["ReadWriteOncePod"]
    remove(cluster, claim)


def test_a_pattern_gives_the_path_and_user_group_and_permissions(cluster: Cluster) -> None:
    parameters = {
        "nodePath": str(storage(cluster)),
        "pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}/",
        "userPattern": "1000",
        "groupPattern": "{{ .PVC.Annotations.group }}",
        "enforce": "none",
    }
    permissions = {"permPattern": "0700"}
    class_name = add_class(cluster, parameters, annotations=permissions)
    claim = add_claim(cluster, class_name, annotations={"group": "2000"})
    path = Path(bound(cluster, claim)["spec"]["hostPath"]["path"])
    assert path == storage(cluster) / "default" / claim
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (1000, 2000, 0o700)
    remove(cluster, claim)
    assert not path.exists()


@pytest.mark.parametrize("where", ["parameters", "annotations"])
def test_the_check_of_the_pattern_may_be_skipped(cluster: Cluster, where: str) -> None:
    parameters = {"pathPattern": "anywhere/{{ .PVC.Name }}"}
    skip = {"allowUnsafePathPattern": "true"}
    if where == "parameters":
        class_name = add_class(cluster, parameters | skip)
    else:
        class_name = add_class(cluster, parameters, annotations=skip)
    claim = add_claim(cluster, class_name)
    path = bound(cluster, claim)["spec"]["hostPath"]["path"]
    assert path == str(storage(cluster) / "anywhere" / claim)
    remove(cluster, claim)


@pytest.mark.parametrize(
    ("pattern", "unsafe", "complaint"),
    [
        ("other/{{ .PVC.Name }}", "false", "pathPattern must start with"),
        ("{{ .PVC.Namespace }}/{{ .PVC.Name }}/../../../../etc", "false", "invalid references"),
        ("../{{ .PVC.Name }}", "true", "invalid references"),
        (".pinnace/images/{{ .PVC.Name }}", "true", "for images and snapshots"),
        ("{{ .PVC.Annotations.none }}/x", "true", 'no entry "none"'),
    ],
)
def test_a_path_that_leads_elsewhere_is_refused(
    cluster: Cluster, pattern: str, unsafe: str, complaint: str
) -> None:
    parameters = {"pathPattern": pattern, "allowUnsafePathPattern": unsafe}
    claim = add_claim(cluster, add_class(cluster, parameters))
    assert complaint in message(cluster, claim, "ProvisioningFailed")
    assert phase(cluster.get(f"{CLAIMS}/{claim}")) == "Pending"
    remove(cluster, claim)


def test_volumes_of_two_claims_may_share_a_path_of_an_unsafe_pattern(cluster: Cluster) -> None:
    parameters = {"pathPattern": "shared", "allowUnsafePathPattern": "true", "enforce": "none"}
    class_name = add_class(cluster, parameters)
    one, two = add_claim(cluster, class_name), add_claim(cluster, class_name)
    path = Path(bound(cluster, one)["spec"]["hostPath"]["path"])
    assert bound(cluster, two)["spec"]["hostPath"]["path"] == str(path)
    (path / "file").write_text("of both")
    remove(cluster, one)
    assert (path / "file").exists()
    remove(cluster, two)
    assert not path.exists()


def test_a_volume_of_an_older_provisioner_is_removed_by_its_affinity(cluster: Cluster) -> None:
    path = storage(cluster) / "legacy"
    path.mkdir(parents=True, exist_ok=True)
    (path / "file").write_text("old")
    reference = {"namespace": "default", "name": "gone", "uid": "none-such"}
    volume = bare_volume(path, claimRef=reference)
    cluster.create(VOLUMES, volume)
    cluster.until(VOLUMES, volume["metadata"]["name"], lambda found: found is None)
    assert not path.exists()


def bare_volume(path: Path | str, *, node: str = "n1", **spec: Any) -> Object:
    wanted = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    terms = [{"matchExpressions": [wanted]}]
    return {
        "metadata": {
            "name": f"bare-{next(NUMBERS)}",
            "annotations": {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"},
        },
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "1Mi"},
            "persistentVolumeReclaimPolicy": "Delete",
            "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
            "local": {"path": str(path)},
            "storageClassName": "local-path",
            **spec,
        },
    }


# What is refused


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"accessModes": ["ReadWriteMany"]}, "NodePath only supports ReadWriteOnce"),
        ({"selector": {"matchLabels": {"a": "b"}}}, "claim.Spec.Selector is not supported"),
        ({"volumeMode": "Block"}, "does not support block volume provisioning"),
        ({"size": "64Pi"}, "not enough free space"),
        ({"dataSource": {"kind": "PersistentVolumeClaim", "name": "none"}}, "is not bound"),
    ],
)
def test_what_a_folder_cannot_be_is_refused(
    cluster: Cluster, asked: Object, complaint: str
) -> None:
    claim = add_claim(cluster, add_class(cluster), **asked)
    said = message(cluster, claim, "ProvisioningFailed")
    assert said.startswith("failed to provision volume with StorageClass")
    assert complaint in said
    remove(cluster, claim)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"nodePath": "/elsewhere"}, "config doesn't contain path /elsewhere on node n1"),
        ({"enforce": "some"}, "enforce must be auto, quota, image or none"),
        ({"enforce": "quota"}, "enforce 'quota' is not possible"),
        ({"overcommit": "-1"}, "overcommit must be a number above 0"),
        ({"permPattern": "rwx", "enforce": "none"}, "are not octal"),
        ({"userPattern": "postgres", "enforce": "none"}, "is not a number"),
    ],
)
def test_a_class_that_asks_for_the_impossible_is_told(
    cluster: Cluster, parameters: Object, complaint: str
) -> None:
    claim = add_claim(cluster, add_class(cluster, parameters))
    assert complaint in message(cluster, claim, "ProvisioningFailed")
    remove(cluster, claim)


def test_the_scheduler_may_choose_again_where_a_node_does_not_fit(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster), size="64Pi")

    def chosen(body: Object | None) -> bool:
        notes = ((body or {}).get("metadata") or {}).get("annotations") or {}
        return "volume.kubernetes.io/selected-node" in notes

    cluster.until(CLAIMS, claim, lambda found: not chosen(found))
    remove(cluster, claim)


def test_a_claim_of_a_node_that_is_gone_may_go_to_another(cluster: Cluster) -> None:
    cluster.create("/api/v1/nodes", {"metadata": {"name": "n8"}})
    claim = add_claim(cluster, add_class(cluster), node="n8")
    cluster.delete("/api/v1/nodes/n8")
    assert 'nodes "n8" not found' in message(cluster, claim, "ProvisioningFailed")
    cluster.until(
        CLAIMS,
        claim,
        lambda c: "volume.kubernetes.io/selected-node" not in (c or {})["metadata"]["annotations"],
    )
    remove(cluster, claim)


def test_a_class_that_does_not_wait_gets_a_node_at_once(cluster: Cluster) -> None:
    beat(cluster)
    claim = add_claim(cluster, add_class(cluster, volumeBindingMode="Immediate"), node="")
    assert affinity(bound(cluster, claim)) == ("kubernetes.io/hostname", ["n1"])
    remove(cluster, claim)


# Volumes that go, and that stay


def test_a_retained_volume_stays_with_its_data_and_its_size(cluster: Cluster) -> None:
    parameters = {"pathPattern": "{{ .PVC.Namespace }}/{{ .PVC.Name }}/"}
    class_name = add_class(cluster, parameters, reclaimPolicy="Retain")
    claim = add_claim(cluster, class_name)
    volume = bound(cluster, claim)
    name, image = volume["metadata"]["name"], image_of(volume)
    cluster.delete(f"{CLAIMS}/{claim}")
    cluster.until(VOLUMES, name, lambda found: phase(found) == "Released")
    cluster.delete(f"{VOLUMES}/{name}")
    cluster.until(VOLUMES, name, lambda found: found is None)
    assert image.exists()
    again = bound(cluster, add_claim(cluster, class_name, name=claim))
    assert image_of(again) == image
    patch = {"spec": {"persistentVolumeReclaimPolicy": "Delete"}}
    cluster.merge(f"{VOLUMES}/{again['metadata']['name']}", patch)
    remove(cluster, claim)
    assert not image.exists()


def image_of(volume: Object) -> Path:
    return Path(volume["metadata"]["annotations"]["localpath.pinnace.dev/image"])


@pytest.mark.parametrize(
    "path", ["/etc", "{storage}", "{storage}/.pinnace", "{storage}//", "{storage}/./.pinnace"]
)
def test_a_volume_that_points_elsewhere_removes_nothing(cluster: Cluster, path: str) -> None:
    outside = cluster.data / "outside"
    outside.mkdir(exist_ok=True)
    (outside / "file").write_text("kept")
    reference = {"namespace": "default", "name": "gone", "uid": "none-such"}
    told = path.format(storage=storage(cluster))
    volume = bare_volume(told, claimRef=reference)
    name = volume["metadata"]["name"]
    cluster.create(VOLUMES, volume)
    assert "failed to delete volume" in message(cluster, name, "VolumeFailedDelete")
    assert (outside / "file").exists()
    assert storage(cluster).is_dir()
    cluster.merge(f"{VOLUMES}/{name}", {"spec": {"persistentVolumeReclaimPolicy": "Retain"}})
    cluster.delete(f"{VOLUMES}/{name}")


def test_an_image_of_somebody_else_is_not_removed(cluster: Cluster) -> None:
    other = add_claim(cluster, add_class(cluster))
    image = image_of(bound(cluster, other))
    path = storage(cluster) / "tampered"
    path.mkdir()
    volume = bare_volume(path, claimRef={"namespace": "default", "name": "gone", "uid": "x"})
    volume["metadata"]["annotations"]["localpath.pinnace.dev/image"] = str(image)
    cluster.create(VOLUMES, volume)
    name = volume["metadata"]["name"]
    assert "is not that of the volume" in message(cluster, name, "VolumeFailedDelete")
    assert image.exists()
    notes = {"localpath.pinnace.dev/image": None}
    cluster.merge(f"{VOLUMES}/{name}", {"metadata": {"annotations": notes}})
    cluster.until(VOLUMES, name, lambda found: found is None)
    remove(cluster, other)


def test_the_volume_of_a_node_that_is_gone_goes_without_it(cluster: Cluster) -> None:
    cluster.create("/api/v1/nodes", {"metadata": {"name": "n9"}})
    volume = bare_volume(
        storage(cluster) / "far",
        node="n9",
        claimRef={"namespace": "default", "name": "gone", "uid": "none-such"},
    )
    cluster.create(VOLUMES, volume)
    name = volume["metadata"]["name"]
    cluster.until(VOLUMES, name, lambda found: phase(found) == "Released")
    other = add_claim(cluster, add_class(cluster))
    bound(cluster, other)  # by then this node has seen it, and left it to the other
    assert phase(cluster.get(f"{VOLUMES}/{name}")) == "Released"
    cluster.delete("/api/v1/nodes/n9")
    cluster.until(VOLUMES, name, lambda found: found is None)
    remove(cluster, other)


# Growing, capacity, snapshots


def test_a_claim_grows_and_nothing_is_left_pending(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster))
    volume = bound(cluster, claim)
    more = {"spec": {"resources": {"requests": {"storage": "100Mi"}}}}
    cluster.merge(f"{CLAIMS}/{claim}", more)
    grown = cluster.until(
        CLAIMS, claim, lambda c: c is not None and c["status"]["capacity"]["storage"] == "100Mi"
    )
    assert grown["status"].get("conditions", []) == []
    name = volume["metadata"]["name"]
    assert cluster.get(f"{VOLUMES}/{name}")["spec"]["capacity"]["storage"] == "100Mi"
    assert message(cluster, claim, "VolumeResizeSuccessful") == "Resize volume succeeded"
    remove(cluster, claim)


def test_a_claim_that_cannot_grow_is_told_why_and_grows_later(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster))
    image = image_of(bound(cluster, claim))
    hidden = image.with_name("hidden")
    image.rename(hidden)
    more = {"spec": {"resources": {"requests": {"storage": "100Mi"}}}}
    cluster.merge(f"{CLAIMS}/{claim}", more)
    failed = cluster.until(CLAIMS, claim, lambda c: bool(condition(c, "ControllerResizeError")))
    assert "failed" in condition(failed, "ControllerResizeError")["message"]
    assert message(cluster, claim, "VolumeResizeFailed")
    hidden.rename(image)
    cluster.until(
        CLAIMS, claim, lambda c: c is not None and c["status"]["capacity"]["storage"] == "100Mi"
    )
    remove(cluster, claim)


def test_the_scheduler_is_told_what_is_left(cluster: Cluster) -> None:
    class_name = add_class(cluster)
    before = cluster.until(CAPACITIES, f"{class_name}.n1", lambda found: found is not None)
    assert before["nodeTopology"] == {"matchLabels": {"kubernetes.io/hostname": "n1"}}
    (owner,) = before["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["name"]) == ("Node", "n1")
    claim = add_claim(cluster, class_name, size="10Gi")
    bound(cluster, claim)
    after = cluster.until(
        CAPACITIES, f"{class_name}.n1", lambda c: mebibytes(c) < mebibytes(before) - 10 * 1024
    )
    assert mebibytes(before) - mebibytes(after) < 12 * 1024
    remove(cluster, claim)
    cluster.until(CAPACITIES, f"{class_name}.n1", lambda c: mebibytes(c) > mebibytes(after) + 9000)
    cluster.delete(f"{CLASSES}/{class_name}")
    cluster.until(CAPACITIES, f"{class_name}.n1", lambda found: found is None)
    marked = cluster.get("/api/v1/nodes/n1")["metadata"]["annotations"]
    assert marked["localpath.pinnace.dev/enforcement"] == "image"


def mebibytes(body: Object | None) -> int:
    text = str((body or {})["capacity"])
    unit = {"Ki": 1 / 1024, "Mi": 1, "Gi": 1024}[text[-2:]]
    return int(int(text[:-2]) * unit)


def test_a_snapshot_is_bound_restored_and_removed(cluster: Cluster) -> None:
    class_name = add_class(cluster)
    claim = add_claim(cluster, class_name)
    volume = bound(cluster, claim)
    snapshot = take_snapshot(cluster, claim)
    ready = cluster.until(SNAPSHOTS, snapshot, lambda s: status(s).get("readyToUse") is True)
    assert status(ready)["restoreSize"] == "16Mi"
    content = cluster.get(f"{CONTENTS}/{status(ready)['boundVolumeSnapshotContentName']}")
    assert content["spec"]["source"] == {"volumeHandle": volume["metadata"]["name"]}
    assert status(content)["snapshotHandle"].startswith("n1/snapshot-")
    assert "is ready to use" in message(cluster, snapshot, "SnapshotReady")
    source = {"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": snapshot}
    small = add_claim(cluster, class_name, dataSource=source, size="8Mi")
    restored = add_claim(cluster, class_name, dataSource=source, size="32Mi")
    clone = {"kind": "PersistentVolumeClaim", "name": claim}
    cloned = add_claim(cluster, class_name, dataSource=clone)
    bound(cluster, restored)
    bound(cluster, cloned)
    assert "that of its source" in message(cluster, small, "ProvisioningFailed")
    cluster.delete(f"{SNAPSHOTS}/{snapshot}")
    cluster.until(SNAPSHOTS, snapshot, lambda found: found is None)
    cluster.until(CONTENTS, content["metadata"]["name"], lambda found: found is None)
    remove(cluster, claim, small, restored, cloned)
    assert list((storage(cluster) / ".pinnace" / "snapshots").iterdir()) == []


def status(body: Object | None) -> Object:
    found: Object = (body or {}).get("status") or {}
    return found


def take_snapshot(cluster: Cluster, claim: str, **source: Any) -> str:
    name = f"snapshot-{next(NUMBERS)}"
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": name},
        "spec": {"source": source or {"persistentVolumeClaimName": claim}},
    }
    cluster.create(SNAPSHOTS, body)
    return name


def test_a_retained_snapshot_is_bound_again_by_its_handle(cluster: Cluster) -> None:
    claim = add_claim(cluster, add_class(cluster))
    bound(cluster, claim)
    first = take_snapshot(cluster, claim)
    ready = cluster.until(SNAPSHOTS, first, lambda s: status(s).get("readyToUse") is True)
    assert ready is not None
    assert ready["spec"]["volumeSnapshotClassName"] == "local-path"  # the default one
    name = status(ready)["boundVolumeSnapshotContentName"]
    handle = status(cluster.get(f"{CONTENTS}/{name}"))["snapshotHandle"]
    cluster.merge(f"{CONTENTS}/{name}", {"spec": {"deletionPolicy": "Retain"}})
    cluster.delete(f"{SNAPSHOTS}/{first}")
    cluster.until(SNAPSHOTS, first, lambda found: found is None)
    cluster.delete(f"{CONTENTS}/{name}")
    cluster.until(CONTENTS, name, lambda found: found is None)
    second = f"again-{next(NUMBERS)}"
    content = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshotContent",
        "metadata": {"name": second},
        "spec": {
            "deletionPolicy": "Delete",
            "driver": "rancher.io/local-path",
            "source": {"snapshotHandle": handle},
            "volumeSnapshotRef": {"namespace": "default", "name": f"snapshot-{second}"},
        },
    }
    cluster.create(CONTENTS, content)
    body = {
        "apiVersion": "snapshot.storage.k8s.io/v1",
        "kind": "VolumeSnapshot",
        "metadata": {"name": f"snapshot-{second}"},
        "spec": {"source": {"volumeSnapshotContentName": second}},
    }
    cluster.create(SNAPSHOTS, body)
    cluster.until(SNAPSHOTS, f"snapshot-{second}", lambda s: status(s).get("readyToUse") is True)
    cluster.delete(f"{SNAPSHOTS}/snapshot-{second}")
    cluster.until(CONTENTS, second, lambda found: found is None)
    remove(cluster, claim)
    assert list((storage(cluster) / ".pinnace" / "snapshots").iterdir()) == []


@pytest.mark.parametrize("named", [{"volumeSnapshotClassName": "local-path"}, {}])
def test_a_snapshot_of_nothing_says_so(cluster: Cluster, named: dict[str, str]) -> None:
    claim = add_claim(cluster, add_class(cluster), node="")
    name = f"snapshot-{next(NUMBERS)}"
    source = {"persistentVolumeClaimName": "none-such"}
    spec = {"source": source, **named}
    head = {"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshot"}
    cluster.create(SNAPSHOTS, {**head, "metadata": {"name": name}, "spec": spec})
    failed = cluster.until(SNAPSHOTS, name, lambda s: "error" in status(s))
    assert "none-such not found" in status(failed)["error"]["message"]
    assert "none-such not found" in message(cluster, name, "SnapshotCreationFailed")
    cluster.delete(f"{SNAPSHOTS}/{name}")
    remove(cluster, claim)


# Configuration


def test_a_changed_configuration_is_heeded_and_a_wrong_one_told(cluster: Cluster) -> None:
    before = cluster.get(CONFIG)["data"]["config.json"]
    second = cluster.data / "second"
    nodes = json.loads(before)["nodePathMap"]
    told = {"nodePathMap": [{"node": "n1", "paths": [str(second)]}, *nodes]}
    cluster.merge(CONFIG, {"data": {"config.json": json.dumps(told)}})
    class_name = add_class(cluster, {"nodePath": str(second)})
    claim = add_claim(cluster, class_name)
    assert bound(cluster, claim)["spec"]["hostPath"]["path"].startswith(str(second))
    cluster.merge(CONFIG, {"data": {"config.json": "#"}})
    said = message(cluster, "local-path-config", "InvalidConfiguration", "kube-system")
    assert "the last valid configuration stays" in said
    remove(cluster, claim)
    nothing = {"nodePathMap": [{"node": "n1", "paths": []}]}
    cluster.merge(CONFIG, {"data": {"config.json": json.dumps(nothing)}})
    cluster.until(CAPACITIES, f"{class_name}.n1", lambda found: found is None)
    refused = add_claim(cluster, add_class(cluster), node="n1")
    assert "no local path available on node n1" in message(cluster, refused, "ProvisioningFailed")
    cluster.merge(CONFIG, {"data": {"config.json": before}})
    cluster.until(CAPACITIES, "local-path.n1", lambda found: found is not None)
    remove(cluster, refused)


def test_a_shared_file_system_serves_many_nodes(cluster: Cluster) -> None:
    before = cluster.get(CONFIG)["data"]["config.json"]
    class_name = f"class-{next(NUMBERS)}"
    shared = {class_name: {"sharedFileSystemPath": str(cluster.data / "nfs")}}
    told = {"storageClassConfigs": shared}
    cluster.merge(CONFIG, {"data": {"config.json": json.dumps(told)}})
    body = {
        "metadata": {"name": class_name},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "Immediate",
    }
    cluster.create(CLASSES, body)
    beat(cluster)
    claim = add_claim(cluster, class_name, node="", accessModes=["ReadWriteMany"])
    volume = bound(cluster, claim)
    assert "nodeAffinity" not in volume["spec"]
    assert volume["metadata"]["annotations"]["localpath.pinnace.dev/enforced-by"] == "none"
    assert Path(volume["spec"]["hostPath"]["path"]).is_dir()
    remove(cluster, claim)
    cluster.merge(CONFIG, {"data": {"config.json": before}})


# At rest


def test_twenty_volumes_at_rest_cost_no_write_even_at_a_start(cluster: Cluster) -> None:
    class_name = add_class(cluster)
    claims = [add_claim(cluster, class_name) for _ in range(20)]
    volumes = [bound(cluster, claim) for claim in claims]
    kinds = (CLAIMS, VOLUMES, CAPACITIES, CLASSES)
    settled = add_claim(cluster, class_name)
    bound(cluster, settled)
    remove(cluster, settled)
    assert cluster.stop(OPERATORS) == 0
    before = [revisions(cluster, kind) for kind in kinds]
    images = [image_of(volume).stat().st_mtime_ns for volume in volumes]
    cluster.start(OPERATORS, *FLAGS)
    probe = add_claim(cluster, add_class(cluster, {"enforce": "none"}))
    name = bound(cluster, probe)["metadata"]["name"]
    after = [revisions(cluster, kind) for kind in kinds]
    for then, now in zip(before, after, strict=True):
        new = {key for key in now if key not in then}
        assert {key: now[key] for key in then} == then, "something old was written"
        assert all(key in {probe, name} or key.startswith("class-") for key in new)
    assert [image_of(volume).stat().st_mtime_ns for volume in volumes] == images
    remove(cluster, probe, *claims)


def revisions(cluster: Cluster, path: str) -> dict[str, str]:
    items = cluster.get(path)["items"]
    return {item["metadata"]["name"]: item["metadata"]["resourceVersion"] for item in items}


@pytest.mark.parametrize("seed", range(2))
def test_an_operator_that_is_killed_leaves_nothing_undone(cluster: Cluster, seed: int) -> None:
    chance, class_name = random.Random(seed), add_class(cluster)
    before = everything(cluster)
    claims = [add_claim(cluster, class_name) for _ in range(4)]
    kill_within(cluster, chance.uniform(0.0, 0.4))
    given_up = claims.pop()
    remove_claims(cluster, given_up)
    cluster.start(OPERATORS, *FLAGS)
    volumes = [bound(cluster, claim)["metadata"]["name"] for claim in claims]
    snapshot = take_snapshot(cluster, claims[0])
    more = {"spec": {"resources": {"requests": {"storage": "32Mi"}}}}
    cluster.merge(f"{CLAIMS}/{claims[1]}", more)
    kill_within(cluster, chance.uniform(0.0, 0.5))
    cluster.start(OPERATORS, *FLAGS)
    cluster.until(SNAPSHOTS, snapshot, lambda s: status(s).get("readyToUse") is True)
    cluster.until(
        CLAIMS, claims[1], lambda c: c is not None and c["status"]["capacity"]["storage"] == "32Mi"
    )
    cluster.delete(f"{SNAPSHOTS}/{snapshot}")
    remove_claims(cluster, *claims)
    kill_within(cluster, chance.uniform(0.0, 0.4))
    cluster.start(OPERATORS, *FLAGS)
    for volume in volumes:
        cluster.until(VOLUMES, volume, lambda found: found is None)
    cluster.until(SNAPSHOTS, snapshot, lambda found: found is None)
    last = add_claim(cluster, class_name)  # by then the start is over, and what it clears up
    bound(cluster, last)
    remove(cluster, last)
    assert everything(cluster) == before


def kill_within(cluster: Cluster, seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        cluster.children[OPERATORS].wait(seconds)
    cluster.kill(OPERATORS)


def remove_claims(cluster: Cluster, *claims: str) -> None:
    for claim in claims:
        cluster.delete(f"{CLAIMS}/{claim}")


def everything(cluster: Cluster) -> set[str]:
    """Files and volumes below the path; not our own folders, nor a trial of what the disk can."""
    base, own = storage(cluster), storage(cluster) / ".pinnace"
    found = [path for path in base.rglob("*") if path != own and path.parent != own]
    return {str(path.relative_to(base)) for path in found if "trial" not in path.name}
