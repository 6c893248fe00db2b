"""Static volumes on a real node: data outlives pods, crashes and reboots."""

import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import Node, booted, run

BUSYBOX = "docker.io/library/busybox:1.35"


def claim(name: str, class_name: str) -> str:
    return f"""
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: {name}}}
spec:
  accessModes: [ReadWriteOnce]
  storageClassName: "{class_name}"
  resources: {{requests: {{storage: 1Mi}}}}
---
"""


def volume(name: str, class_name: str, source: str) -> str:
    return f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}}}
spec:
  capacity: {{storage: 1Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: "{class_name}"
  {source}
---
"""


def pod(name: str, claim_name: str, script: str) -> str:
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: "{BUSYBOX}"
    command: [sh, -c, "{script}; sleep 3600"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: {claim_name}}}}}
---
"""


def test_data_on_a_claim_outlives_the_pod(space: Space, tmp_path: Path) -> None:
    name = f"{space.name}-kept"
    source = f'hostPath: {{path: "{tmp_path}/kept", type: DirectoryOrCreate}}'
    space.apply(volume(name, name, source) + claim("kept", name))
    space.wait("pvc/kept", "--for=jsonpath={.status.phase}=Bound")
    space.apply(pod("first", "kept", "echo remembered > /data/note"))
    space.wait("pod/first", "--for=condition=Ready")
    space.until(lambda: (tmp_path / "kept" / "note").exists())
    space.kubectl("delete", "pod", "first")
    space.apply(pod("second", "kept", "cat /data/note"))
    space.wait("pod/second", "--for=condition=Ready")
    space.until(lambda: space.kubectl("logs", "second") == "remembered\n")
    # In use it stays, however much somebody wants it gone; then its volume is left behind.
    space.kubectl("delete", "pvc", "kept", "--wait=false")
    assert space.value("pvc", "kept", path="{.status.phase}") == "Bound"
    space.kubectl("delete", "pod", "second")
    space.wait("pvc/kept", "--for=delete")
    space.wait(f"pv/{name}", "--for=jsonpath={.status.phase}=Released")
    space.kubectl("delete", "pv", name)
    assert (tmp_path / "kept" / "note").read_text() == "remembered\n"


def test_a_local_volume_is_bound_with_the_first_pod(space: Space, tmp_path: Path) -> None:
    name = f"{space.name}-local"
    storage = f"""
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: {name}}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
---
"""
    where = "{key: kubernetes.io/hostname, operator: In, values: [pi]}"
    source = (
        f'local: {{path: "{tmp_path}"}}\n'
        f"  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{where}]}}]}}}}"
    )
    space.apply(storage + volume(name, name, source) + claim("data", name))
    reasons = ("events", "--field-selector=involvedObject.name=data")
    space.until(lambda: "WaitForFirstConsumer" in space.kubectl("get", *reasons))
    assert space.value("pvc", "data", path="{.status.phase}") == "Pending"
    space.apply(pod("user", "data", "echo here > /data/note"))
    space.wait("pod/user", "--for=condition=Ready")
    assert space.value("pvc", "data", path="{.status.phase}") == "Bound"
    space.until(lambda: (tmp_path / "note").exists())
    space.kubectl("delete", "pod/user", "pvc/data")
    space.kubectl("delete", f"pv/{name}", f"storageclass/{name}")


def mounted(node: Node, path: Path) -> str:
    """The type of what is mounted there, as the node sees it."""
    argv = ("findmnt", "--noheadings", "--output=FSTYPE", f"--mountpoint={path}")
    return run(*node.namespace.enter_mounts, *argv, check=False).stdout.strip()


def test_a_volume_that_is_an_image_survives_a_crash_and_a_reboot(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    top = tmp_path_factory.mktemp("disk")
    image, folder = top / "data.img", top / "data"
    subprocess.run(["mkfs.ext4", "-q", "-F", image, "16M"], check=True)
    made = f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: boxed, annotations: {{localpath.pinnace.dev/image: "{image}"}}}}
spec:
  capacity: {{storage: 16Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: by-hand
  hostPath: {{path: "{folder}", type: DirectoryOrCreate}}
---
"""
    script = "echo began >> /data/note; trap 'exit 0' TERM"
    with booted(top / "pinnace", name="pinnace-volumes") as node:

        def notes() -> list[str]:
            done = node.kubectl("exec", "user", "--", "cat", "/data/note", check=False)
            return done.stdout.split()

        node.apply(made + claim("data", "by-hand") + pod("user", "data", script))
        node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=40s")
        assert notes() == ["began"]
        assert mounted(node, folder) == "ext4"
        node.kill()
        node.start()
        node.kubectl("wait", "pod/user", "--for=condition=Ready", "--timeout=40s")
        assert notes() == ["began"], "the pod runs on"
        assert node.stop() == 0
        run(*node.command, "killall", *node.arguments)  # as a reboot: no pods, no mounts
        assert mounted(node, folder) == ""
        assert not (folder / "note").exists()
        node.start()
        node.until(lambda: notes() == ["began", "began"])
        assert mounted(node, folder) == "ext4"
        node.kubectl("delete", "pod", "user")
        assert mounted(node, folder) == "ext4", "it stays mounted after the last pod"


def test_a_volume_that_is_too_large_for_every_node_is_not_begun(space: Space) -> None:
    space.until(lambda: space.node.get("csistoragecapacities", "-A")["items"])
    huge = claim("huge", "local-path").replace("storage: 1Mi", "storage: 900Ti")
    space.apply(huge + pod("waiting", "huge", "true"))
    path = '{.status.conditions[?(@.type=="PodScheduled")].message}'
    expected = "0/1 nodes are available: 1 node(s) did not have enough free storage."
    space.until(lambda: space.value("pod", "waiting", path=path).startswith(expected))
    notes = space.get("pvc", "huge")["metadata"].get("annotations", {})
    assert "volume.kubernetes.io/selected-node" not in notes
    space.kubectl("delete", "pod/waiting", "pvc/huge")


def test_a_volume_of_a_pods_own_is_made_and_goes_with_it(space: Space) -> None:
    spec = "{accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}"
    space.apply(
        pod("owner", "none", "echo mine > /data/note").replace(
            "persistentVolumeClaim: {claimName: none}",
            f"ephemeral: {{volumeClaimTemplate: {{spec: {spec}}}}}",
        )
    )
    space.wait("pod/owner", "--for=condition=Ready")
    found = space.get("pvc", "owner-data")
    assert found["status"]["phase"] == "Bound"
    assert found["metadata"]["ownerReferences"][0]["name"] == "owner"
    space.kubectl("delete", "pod", "owner")
    space.wait("pvc/owner-data", "--for=delete")
    space.wait(f"pv/{found['spec']['volumeName']}", "--for=delete")
