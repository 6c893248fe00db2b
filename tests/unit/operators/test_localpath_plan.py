"""What is decided about claims, volumes and snapshots."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from node import settings
from operators.config import from_settings
from operators.localpath import paths, places, plan, snapshotplan
from operators.localpath.base import (
    FINALIZER,
    Copied,
    Made,
    Order,
    Refused,
    Source,
    StorageError,
    Support,
    Volume,
)
from operators.localpath.support import choose

CONFIG = paths.default(Path("/data"))
CLASS: dict[str, Any] = {
    "metadata": {"name": "local-path"},
    "provisioner": "rancher.io/local-path",
}
OURS = {"volume.kubernetes.io/storage-provisioner": "rancher.io/local-path"}


def claim(notes: dict[str, str] = OURS, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "shop",
            "name": "db",
            "uid": "1234",
            "resourceVersion": "5",
            "annotations": notes,
        },
        "spec": {
            "storageClassName": "local-path",
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
            **spec,
        },
    }


def bound(asked: str, held: str) -> dict[str, Any]:
    found = claim(resources={"requests": {"storage": asked}}, volumeName="pvc-1234")
    return found | {"status": {"phase": "Bound", "capacity": {"storage": held}}}


def order(found: dict[str, Any], **parameters: str) -> Order:
    storage_class = CLASS | {"parameters": parameters}
    return plan.order(found, storage_class, CONFIG, node="pi", source=None)


def volume(**changes: Any) -> Volume:
    body = plan.persistent_volume(
        claim(), CLASS, order(claim()), Made(enforced_by="image", image="/i"), labels={}
    )
    body["metadata"]["uid"] = "u"
    found = plan.volume_of(body)
    assert found
    return replace(found, **changes)


def test_the_operator_runs_on_servers_and_agents_unless_it_is_disabled() -> None:
    def running(*flags: str) -> frozenset[str]:
        return from_settings(settings.read("server", list(flags), {})).operators

    assert "localpath" in running()
    assert "localpath" not in running("--disable=local-storage")
    agent = settings.read("server", [], {}) | {"server": "https://10.0.0.1:6443"}
    assert "localpath" in from_settings(agent).operators


# Claims


def test_a_claim_wants_a_volume_only_of_its_own_provisioner_and_once() -> None:
    assert plan.wants_volume(claim())
    old = {"volume.beta.kubernetes.io/storage-provisioner": "rancher.io/local-path"}
    assert plan.wants_volume(claim(old))
    assert not plan.wants_volume(claim({}))
    other = OURS | {"volume.kubernetes.io/storage-provisioner": "example.com/nfs"}
    assert not plan.wants_volume(claim(other))
    assert not plan.wants_volume(claim(volumeName="pvc-1"))
    deleted = claim()
    deleted["metadata"]["deletionTimestamp"] = "now"
    assert not plan.wants_volume(deleted)


def test_a_claim_wants_more_when_it_asks_for_more_than_it_has() -> None:
    assert plan.wants_more(bound("2Gi", "1Gi"))
    assert not plan.wants_more(bound("1Gi", "1024Mi"))
    assert not plan.wants_more(bound("1Gi", "2Gi"))
    assert not plan.wants_more(claim())


def test_a_folder_is_named_as_k3s_names_it() -> None:
    assert order(claim()).folder == "pvc-1234_shop_db"
    assert order(claim()).base == Path("/data")
    made = order(claim(), pathPattern="{{ .PVC.Namespace }}/{{ .PVC.Name }}/")
    assert made.folder == "shop/db"


def test_an_old_annotation_names_the_class_first() -> None:
    notes = {"volume.beta.kubernetes.io/storage-class": "old"}
    assert plan.class_of(claim(notes)) == "old"


def test_a_source_must_fit() -> None:
    source = Source(kind="snapshot", name="s", size=2**31, base=Path("/data"))
    with pytest.raises(Refused, match="less than 2147483648"):
        plan.order(claim(), CLASS, CONFIG, node="pi", source=source)


@pytest.mark.parametrize(
    "source",
    [
        {"apiGroup": "example.com", "kind": "Backup", "name": "x"},
        {"apiGroup": "example.com", "kind": "VolumeSnapshot", "name": "x"},
        {"kind": "PersistentVolumeClaim", "name": "x", "namespace": "other"},
    ],
)
def test_other_sources_are_refused(source: dict[str, str]) -> None:
    with pytest.raises(Refused, match="not supported"):
        plan.data_source(claim(dataSourceRef=source))


@pytest.mark.parametrize(
    ("text", "found"), [("1", 1.0), ("2.5", 2.5), ("unlimited", math.inf), (None, 1.0)]
)
def test_free_space_may_be_promised_more_than_once(text: str | None, found: float) -> None:
    parameters = {"overcommit": text} if text else {}
    assert plan.overcommit(CLASS | {"parameters": parameters}) == found


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much"])
def test_a_promise_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="overcommit"):
        plan.overcommit(CLASS | {"parameters": {"overcommit": text}})


# Enforcement


def test_the_best_limit_is_taken_unless_one_is_asked_for() -> None:
    every, image = Support(), Support(no_quota="not mounted with prjquota")
    base = Path("/data")
    assert choose("auto", every, base, shared=False) == "project-quota"
    assert choose("auto", image, base, shared=False) == "image"
    assert choose("image", every, base, shared=False) == "image"
    assert choose("none", every, base, shared=False) == "none"
    assert choose("auto", every, base, shared=True) == "none"
    nothing = Support(no_quota="no", no_image="losetup is missing")
    assert choose("auto", nothing, base, shared=False) == "none"
    with pytest.raises(Refused, match="not mounted with prjquota"):
        choose("quota", image, base, shared=False)
    with pytest.raises(Refused, match="shared file system"):
        choose("image", every, base, shared=True)


# Volumes


def test_a_volume_says_who_made_it_where_and_how_its_size_holds() -> None:
    mount = CLASS | {"mountOptions": ["noexec"], "reclaimPolicy": "Retain"}
    body = plan.persistent_volume(
        claim(),
        mount,
        order(claim()),
        Made(enforced_by="image", image="/data/.pinnace/images/x.img"),
        labels={"kubernetes.io/hostname": "pi.local"},
    )
    assert body["metadata"]["annotations"] == {
        "pv.kubernetes.io/provisioned-by": "rancher.io/local-path",
        "local.path.provisioner/selected-node": "pi",
        "localpath.pinnace.dev/enforced-by": "image",
        "localpath.pinnace.dev/image": "/data/.pinnace/images/x.img",
    }
    assert "finalizers" not in body["metadata"]
    spec = body["spec"]
    assert spec["mountOptions"] == ["noexec"]
    assert spec["capacity"] == {"storage": "1Gi"}
    (term,) = spec["nodeAffinity"]["required"]["nodeSelectorTerms"]
    assert term["matchExpressions"][0]["values"] == ["pi.local"]


def test_only_released_volumes_of_the_policy_delete_go() -> None:
    released = volume(phase="Released")
    assert plan.wants_removal(released)
    assert not plan.wants_removal(volume(phase="Bound"))
    assert not plan.wants_removal(replace(released, policy="Retain"))
    assert plan.wants_removal(replace(released, deleting=True))
    assert not plan.wants_removal(replace(released, deleting=True, finalizers=()))


def test_the_finalizer_follows_the_policy() -> None:
    assert plan.wanted_finalizers(volume(phase="Bound")) is None
    bare = volume(phase="Bound", finalizers=("x",))
    assert plan.wanted_finalizers(bare) == ["x", FINALIZER]
    assert plan.wanted_finalizers(volume(policy="Retain")) == []
    assert plan.wanted_finalizers(replace(bare, policy="Retain")) is None
    assert plan.wanted_finalizers(replace(bare, deleting=True)) is None


def test_volumes_of_others_are_nobodys_business() -> None:
    body = {"metadata": {"name": "x", "uid": "u"}, "spec": {"hostPath": {"path": "/x"}}}
    assert plan.volume_of(body) is None
    nfs = {
        "metadata": {
            "name": "x",
            "uid": "u",
            "annotations": {"pv.kubernetes.io/provisioned-by": "rancher.io/local-path"},
        },
        "spec": {"nfs": {"path": "/x"}},
    }
    assert plan.volume_of(nfs) is None


def test_an_older_volume_is_found_by_its_affinity() -> None:
    old = volume(node="", affinity=("example.com/id", "seven"))
    assert plan.lies_on(old, "pi", {"example.com/id": "seven"})
    assert not plan.lies_on(old, "pi", {"example.com/id": "eight"})
    assert plan.lies_on(replace(old, affinity=("x", "pi")), "pi", {})
    assert not plan.lies_on(replace(old, affinity=("", "")), "pi", {})


@pytest.mark.parametrize(
    ("path", "image", "complaint"),
    [
        ("/etc/passwd", None, "not within a configured path"),
        ("/data", None, "not within a configured path"),
        ("/data/../etc", None, "not absolute and plain"),
        ("data/x", None, "not absolute and plain"),
        ("/database/x", None, "not within a configured path"),
        ("/data/.pinnace/images", None, "for images and snapshots"),
        ("/data/x", "/data/.pinnace/images/y.img", "is not that of the volume"),
        ("/data/x", "/dev/sda", "is not that of the volume"),
    ],
)
def test_a_volume_that_lies_is_not_believed(path: str, image: str | None, complaint: str) -> None:
    told = volume(path=path, image=image)
    with pytest.raises(Refused, match=complaint):
        places.locate(told, [Path("/data")], node="pi", shared=False)


def test_a_volume_is_found_in_the_innermost_path() -> None:
    told = volume(path="/data/fast/shop/db", image=None)
    found = places.locate(told, [Path("/data"), Path("/data/fast")], node="pi", shared=False)
    assert (found.base, found.folder) == (Path("/data/fast"), "shop/db")


def test_images_have_names_of_their_own_however_long() -> None:
    names = ["a/b", "a%2Fb", "a_b", ".hidden", "x" * 300, "x" * 299 + "y", "ü" * 200]
    found = [places.file_name(name) for name in names]
    assert len(set(found)) == len(names)
    assert all("/" not in name and len(name.encode()) <= 210 for name in found)
    assert not any(name.startswith(".") for name in found)


# Growing


def test_a_grown_claim_keeps_its_other_conditions_only() -> None:
    found = bound("2Gi", "1Gi")
    other = {"type": "ModifyingVolume", "status": "True"}
    found["status"]["conditions"] = [{"type": "FileSystemResizePending", "status": "True"}, other]
    patch = plan.grown_status(found, "2Gi")["status"]
    assert patch["conditions"] == [other]
    assert patch["capacity"] == patch["allocatedResources"] == {"storage": "2Gi"}


def test_the_same_failure_is_written_once() -> None:
    found = bound("2Gi", "1Gi")
    patch = plan.resize_condition(found, "ControllerResizeError", "full", "t1")
    assert patch
    found["status"] |= patch["status"]
    assert plan.resize_condition(found, "ControllerResizeError", "full", "t2") is None
    again = plan.resize_condition(found, "FileSystemResizePending", "in use", "t3")
    assert again
    assert [c["type"] for c in again["status"]["conditions"]] == ["FileSystemResizePending"]


# Snapshots


def snapshot(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "shop", "name": "s", "uid": "77", "resourceVersion": "1"},
        "spec": {"source": {"persistentVolumeClaimName": "db"}, **spec},
    }


def snapshot_class(
    name: str, *, default: bool = True, driver: str = "rancher.io/local-path"
) -> Any:
    notes = {snapshotplan.DEFAULT_CLASS: "true"} if default else {}
    metadata = {"name": name, "annotations": notes}
    return {"metadata": metadata, "driver": driver, "deletionPolicy": "Delete"}


def test_the_class_of_a_snapshot_is_named_or_the_default_one() -> None:
    classes = [snapshot_class("a"), snapshot_class("b", default=False)]
    assert snapshotplan.choose_class(snapshot(), classes) == classes[0]
    named = snapshot(volumeSnapshotClassName="b")
    assert snapshotplan.choose_class(named, classes) == classes[1]
    other = [snapshot_class("b", driver="example.com")]
    assert snapshotplan.choose_class(named, other) is None
    with pytest.raises(StorageError, match='"b" not found'):
        snapshotplan.choose_class(named, [])
    with pytest.raises(StorageError, match="no default"):
        snapshotplan.choose_class(snapshot(), other)
    with pytest.raises(StorageError, match="2 default"):
        snapshotplan.choose_class(snapshot(), [classes[0], snapshot_class("c")])


def test_a_content_points_at_its_snapshot_and_its_copy() -> None:
    body = snapshotplan.content(snapshot(), snapshot_class("a"), volume="pvc-1", node="pi")
    assert body["metadata"]["name"] == "snapcontent-77"
    assert snapshotplan.is_bound_to(body, snapshot())
    assert snapshotplan.handle_of(body) == ("pi", "snapshot-77")
    copied = Copied(created=1.5, consistent=True)
    status = snapshotplan.content_status("pi/snapshot-77", copied, 2**30)["status"]
    assert status["creationTime"] == 1_500_000_000
    body["status"] = status
    assert snapshotplan.handle_of(body) == ("pi", "snapshot-77")


def test_a_snapshot_is_looked_at_until_it_is_ready_and_when_it_goes() -> None:
    ready = snapshot() | {"status": {"readyToUse": True}}
    assert snapshotplan.wants_look(snapshot())
    assert not snapshotplan.wants_look(ready)
    going = snapshot()
    going["metadata"] |= {"deletionTimestamp": "now", "finalizers": [snapshotplan.BOUND]}
    assert snapshotplan.wants_look(going)
    going["metadata"]["finalizers"] = ["another"]
    assert not snapshotplan.wants_look(going)


def test_finalizers_are_put_on_and_taken_off_with_the_version_that_was_seen() -> None:
    body = snapshot()
    patch = snapshotplan.with_finalizer(body, "f")
    assert patch == {"metadata": {"finalizers": ["f"], "resourceVersion": "1"}}
    body["metadata"]["finalizers"] = ["f"]
    assert snapshotplan.with_finalizer(body, "f") is None
    patch = snapshotplan.without(body, "f")
    assert patch == {"metadata": {"finalizers": None, "resourceVersion": "1"}}
    assert snapshotplan.without(snapshot(), "f") is None
