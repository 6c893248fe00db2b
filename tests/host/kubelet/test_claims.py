"""Pods on volumes that are file system images, and what a group or a bad image does to them."""

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from node.cri.base import Features
from node.host import mountinfo, mounts
from node.kubelet.base import CLAIMS, PODS, VOLUMES
from tests.host.kubelet.conftest import Node, pod, until

pytestmark = pytest.mark.root

SIZE = 16 << 20
BOUND = {"spec": {"volumeName": "pv1"}, "status": {"phase": "Bound"}}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An image beside the folder that it is to be mounted on."""
    subprocess.run(["mkfs.ext4", "-q", "-F", tmp_path / "image", str(SIZE // 1024)], check=True)
    yield tmp_path / "data"
    for point in mounts.mounted_below(tmp_path):
        mounts.unmount(point, detach=True)


def put_volume(node: Node, path: Path, image: Path | None, **more: Any) -> None:
    notes = {"annotations": {"localpath.pinnace.dev/image": str(image)}} if image else {}
    spec = {"local": {"path": str(path)}, **more}
    node.api.put(CLAIMS, {"metadata": {"name": "mine", "namespace": "default"}, **BOUND})
    node.api.put(VOLUMES, {"metadata": {"name": "pv1", **notes}, "spec": spec})


def user(name: str, command: str = "", **more: Any) -> dict[str, Any]:
    spec = more.pop("spec", {})
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "mine"}}]
    container = {"volumeMounts": [{"name": "d", "mountPath": "/d", **more.pop("mount", {})}]}
    container |= more.pop("container", {})
    return pod(name, command, spec={"volumes": volumes, **spec}, container=container, **more)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def group_and_mode(path: Path) -> tuple[int, int]:
    info = path.stat()
    return info.st_gid, stat.S_IMODE(info.st_mode)


def private_file(folder: Path) -> Path:
    """In a folder that is the group's already."""
    folder.mkdir()
    folder.chmod(0o2770)
    file = folder / "file"
    file.touch()
    file.chmod(0o600)
    return file


async def test_a_pod_writes_into_the_image_and_never_into_the_folder(
    node: Node, disk: Path
) -> None:
    put_volume(node, disk, disk.parent / "image")
    once = {"restartPolicy": "Never"}
    made = user("writer", "echo kept > /d/file; df -k /d | tail -1", spec=once)
    node.api.put(PODS, made)
    await node.phase("writer", "Succeeded")
    assert int(node.log("writer").split()[1]) < SIZE // 1024
    assert (disk / "file").read_text() == "kept\n"
    assert mountinfo.at(disk) is not None, "it stays mounted after the last pod"
    mounts.unmount(disk)  # as a reboot does
    assert names(disk) == []
    node.api.put(PODS, user("reader", "cat /d/file", spec=once))
    await node.phase("reader", "Succeeded")
    assert node.log("reader") == "kept"


async def test_without_its_image_a_pod_waits_and_the_event_says_why(node: Node, disk: Path) -> None:
    image, away = disk.parent / "image", disk.parent / "away"
    image.rename(away)
    put_volume(node, disk, image)
    node.api.put(PODS, user("early"))
    await node.api.until(lambda: node.api.events("FailedMount"))
    (event,) = node.api.events("FailedMount")
    assert event["message"] == (
        f'MountVolume.SetUp failed for volume "pv1" : the image of the volume is missing: {image}'
    )
    away.rename(image)
    await node.ready("early")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (None, 'failed to fetch PVC from API server: persistentvolumeclaims "mine" not found'),
        ({"status": {"phase": "Pending"}}, "PVC is not bound"),
        ({"spec": {"volumeName": ""}}, "PVC has empty pvc.Spec.VolumeName"),
        ({"metadata": {"deletionTimestamp": "now"}}, "PVC is being deleted"),
        (
            {"spec": {"volumeName": "pv2"}},
            'failed to fetch PV pv2 from API server: persistentvolumes "pv2" not found',
        ),
    ],
)
async def test_a_claim_that_is_not_ready_is_told_of(
    node: Node, disk: Path, claim: dict[str, Any] | None, message: str
) -> None:
    put_volume(node, disk, disk.parent / "image")
    if claim is None:
        node.api.remove(CLAIMS, "default", "mine")
    else:
        meta = {"name": "mine", "namespace": "default", **claim.pop("metadata", {})}
        node.api.put(CLAIMS, {**BOUND, **claim, "metadata": meta})
    node.api.put(PODS, user("waiter"))
    await node.api.until(lambda: node.api.events("FailedMount"))
    assert node.api.events("FailedMount")[0]["message"] == (
        "Unable to attach or mount volumes: unmounted volumes=[d], unattached volumes=[], "
        f"failed to process volumes=[d]: error processing PVC default/mine: {message}"
    )


async def test_a_container_is_not_restarted_on_the_bare_folder(node: Node, disk: Path) -> None:
    put_volume(node, disk, disk.parent / "image")
    node.api.put(PODS, user("restarter", "until [ -e /d/end ]; do sleep 0.1; done; rm /d/end"))
    await node.ready("restarter")
    mounts.unmount(disk, detach=True)
    mounts.tmpfs(disk, size=1 << 20)
    (status,) = node.status("restarter")["containerStatuses"]
    await node.runtime.stop_container(status["containerID"].removeprefix("containerd://"), 0)
    await node.api.until(lambda: node.api.events("FailedMount"))
    (waiting,) = node.status("restarter")["containerStatuses"]
    assert waiting["restartCount"] == 0
    assert "has tmpfs mounted, not" in node.api.events("FailedMount")[0]["message"]


async def test_a_group_gets_a_local_volume_once_in_the_life_of_a_pod(
    node: Node, disk: Path
) -> None:
    put_volume(node, disk, disk.parent / "image")
    security = {"fsGroup": 4321, "runAsUser": 1000, "runAsNonRoot": True}
    node.api.put(PODS, user("grouped", "", spec={"securityContext": security}))
    await node.ready("grouped")
    assert group_and_mode(disk) == (4321, 0o2775)
    # A second pod must not take the files away from the first.
    other = {"fsGroup": 4322, "runAsUser": 1000}
    node.api.put(PODS, user("other", spec={"securityContext": other}))
    await node.ready("other")
    await node.api.until(lambda: node.api.events("AlreadyMountedVolume"))
    (event,) = node.api.events("AlreadyMountedVolume")
    assert event["message"] == (
        "The requested fsGroup is 4322, but the volume pv1 has GID 4321. "
        "The volume may not be shareable."
    )
    assert group_and_mode(disk) == (4321, 0o2775)


async def test_a_volume_for_one_pod_is_not_given_to_a_second(node: Node, disk: Path) -> None:
    put_volume(node, disk, disk.parent / "image")
    alone = {"spec": {**BOUND["spec"], "accessModes": ["ReadWriteOncePod"]}}
    node.api.put(CLAIMS, {"metadata": {"name": "mine", "namespace": "default"}, **BOUND, **alone})
    node.api.put(PODS, user("first"))
    await node.ready("first")
    node.api.put(PODS, user("second"))
    await node.api.until(lambda: node.api.events("FailedMount"))
    assert node.api.events("FailedMount")[0]["message"].endswith(
        "volume uses the ReadWriteOncePod access mode and is already in use by another pod"
    )
    node.api.ask_to_delete("first", 0)
    await node.ready("second")


async def test_on_root_mismatch_what_lies_deeper_is_left_alone(node: Node, disk: Path) -> None:
    put_volume(node, disk, None)
    file = private_file(disk)
    security = {"fsGroup": 0, "fsGroupChangePolicy": "OnRootMismatch"}
    node.api.put(PODS, user("lazy", spec={"securityContext": security}))
    await node.ready("lazy")
    assert group_and_mode(file) == (0, 0o600)
    await _gone(node, "lazy")
    security["fsGroupChangePolicy"] = "Always"
    node.api.put(PODS, user("eager", spec={"securityContext": security}))
    await node.ready("eager")
    assert group_and_mode(file) == (0, 0o660)


async def _gone(node: Node, name: str) -> None:
    node.api.ask_to_delete(name, 0)
    await node.api.until(lambda: not node.api.has(PODS, "default", name))
    await node.idle()


async def test_the_claim_of_an_ephemeral_volume_must_be_the_pods_own(
    node: Node, disk: Path
) -> None:
    put_volume(node, disk, disk.parent / "image")
    meta = {"name": "short-scratch", "namespace": "default"}
    node.api.put(CLAIMS, {"metadata": meta, **BOUND})
    volumes = [{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": {}}}}]
    mount = [{"name": "scratch", "mountPath": "/d"}]
    made = pod("short", spec={"volumes": volumes}, container={"volumeMounts": mount})
    uid = node.api.put(PODS, made)["metadata"]["uid"]
    await node.api.until(lambda: node.api.events("FailedMount"))
    (event,) = node.api.events("FailedMount")
    assert "(pod is not owner)" in event["message"]
    owner = {"kind": "Pod", "name": "short", "uid": uid, "controller": True}
    node.api.put(CLAIMS, {"metadata": {**meta, "ownerReferences": [owner]}, **BOUND})
    await node.ready("short")
    assert mountinfo.at(disk) is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"local": None, "nfs": {"server": "s", "path": "/"}}, "persistent volumes of type nfs"),
        ({"volumeMode": "Block"}, "raw block volumes (volumeMode: Block)"),
        ({"local": {"path": "/a/../b"}}, "invalid path: /a/../b must be absolute and must not"),
        ({"claimRef": {"uid": "other"}}, "PV pv1 points to unexpected claim other"),
    ],
)
async def test_what_cannot_be_mounted_is_refused_by_name(
    node: Node, disk: Path, spec: dict[str, Any], message: str
) -> None:
    put_volume(node, disk, None, **spec)
    if spec.get("local", ...) is None:
        del node.api._objects[VOLUMES, "", "pv1"]["spec"]["local"]
    node.api.put(PODS, user("refused"))
    await node.api.until(lambda: node.api.events("FailedMount"))
    assert message in node.api.events("FailedMount")[0]["message"]


async def test_raw_block_devices_are_refused_by_name(node: Node, disk: Path) -> None:
    put_volume(node, disk, None)
    devices = [{"name": "d", "devicePath": "/dev/xvda"}]
    node.api.put(PODS, user("raw", container={"volumeDevices": devices, "volumeMounts": []}))
    await node.api.until(lambda: node.api.events("FailedMount"))
    assert node.api.events("FailedMount")[0]["message"] == (
        'MapVolume.SetUpDevice failed for volume "d" : '
        "Pinnace does not support raw block volumes (volumeDevices)"
    )


async def test_a_folder_made_for_a_sub_path_has_the_permissions_of_the_volume(
    node: Node, disk: Path
) -> None:
    volumes = [{"name": "e", "emptyDir": {}}]
    mount = [{"name": "e", "mountPath": "/e", "subPath": "a/b"}]
    made = pod(
        "nobody",
        "echo mine > /e/file && cat /e/file",
        spec={"volumes": volumes, "restartPolicy": "Never", "securityContext": {"runAsUser": 99}},
        container={"volumeMounts": mount},
    )
    node.api.put(PODS, made)
    await node.phase("nobody", "Succeeded")
    assert node.log("nobody") == "mine"


async def test_a_runtime_that_cannot_mount_recursively_read_only_says_so(node: Node) -> None:
    assert node.kubelet is not None
    await until(lambda: node.kubelet is not None and not node.kubelet.runtime_error)
    if node.kubelet.settings.handlers.get("", Features()).recursive_read_only:
        pytest.skip("this containerd can")
    volumes = [{"name": "e", "emptyDir": {}}]
    mount = {"name": "e", "mountPath": "/e", "readOnly": True}
    for name, wanted in (("must", "Enabled"), ("may", "IfPossible")):
        mounts_ = [{**mount, "recursiveReadOnly": wanted}]
        made = pod(name, spec={"volumes": volumes}, container={"volumeMounts": mounts_})
        node.api.put(PODS, made)
    status = await node.ready("may")
    (shown,) = [m for m in status["containerStatuses"][0]["volumeMounts"] if m["mountPath"] == "/e"]
    assert shown["recursiveReadOnly"] == "Disabled"
    await node.api.until(
        lambda: (
            "not supported by the runtime"
            in node.status("must")["containerStatuses"][0]["state"]["waiting"]["message"]
        )
    )


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder whose mounts spread, as those of a machine that booted with systemd do."""
    folder = tmp_path / "shared"
    folder.mkdir()
    mounts.tmpfs(folder, size=1 << 20)
    mounts.set_propagation(folder, "shared")
    yield folder
    for point in mounts.mounted_below(folder):
        mounts.unmount(point, detach=True)


async def test_mounts_spread_as_far_as_a_container_asked_for(node: Node, shared: Path) -> None:
    volumes = [{"name": "h", "hostPath": {"path": str(shared)}}]

    def member(name: str, how: str, command: str, **more: Any) -> dict[str, Any]:
        mount = {"name": "h", "mountPath": "/h", "mountPropagation": how}
        container = {"volumeMounts": [mount], **more}
        return pod(name, command, spec={"volumes": volumes}, container=container)

    for name, how in (("hears", "HostToContainer"), ("deaf", "None")):
        node.api.put(PODS, member(name, how, ""))
        await node.ready(name)
    script = "mkdir /h/in && mount -t tmpfs t /h/in && touch /h/in/note; sleep 3600"
    privileged = {"securityContext": {"privileged": True}}
    node.api.put(PODS, member("tells", "Bidirectional", script, **privileged))
    await node.ready("tells")
    await until(lambda: "note" in names(shared / "in"))

    async def sees(name: str) -> bool:
        (status,) = node.status(name)["containerStatuses"]
        id_ = status["containerID"].removeprefix("containerd://")
        done = await node.runtime.exec_sync(id_, ["ls", "/h/in/note"], 5)
        return done.exit_code == 0

    assert await sees("hears")
    assert not await sees("deaf")


async def test_what_is_in_memory_is_as_large_as_the_pod_may_use(node: Node) -> None:
    volumes = [
        {"name": "m", "emptyDir": {"medium": "Memory"}},
        {"name": "h", "emptyDir": {"medium": "HugePages-2Mi"}},
    ]
    mounted = [{"name": "m", "mountPath": "/m"}, {"name": "h", "mountPath": "/h"}]
    limits = {"limits": {"memory": "8Mi", "cpu": "1", "hugepages-2Mi": "2Mi"}}
    script = "df -k /m | tail -1; grep ' /h ' /proc/mounts; sleep 3600"
    more = {"volumeMounts": mounted, "resources": limits}
    node.api.put(PODS, pod("small", script, spec={"volumes": volumes}, container=more))
    await node.ready("small")
    await until(lambda: "/h" in node.log("small"))
    memory, huge = node.log("small").splitlines()
    assert memory.split()[1] == "8192"
    assert huge.split()[2] == "hugetlbfs"
    assert "pagesize=2M" in huge
