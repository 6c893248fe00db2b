"""Local-path storage on a whole node: K3s's manifests, with sizes that hold."""

from pathlib import Path

import pytest

from tests.e2e.conftest import Space
from tests.e2e.node import run

BUSYBOX = "docker.io/library/busybox:1.35"
CAP_SYS_RESOURCE = 24

# The two manifests of K3s's documentation ("Volumes and Storage"), but for the image and size.
PVC = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  name: local-path-pvc
spec:
  accessModes:
    - ReadWriteOnce
  storageClassName: local-path
  resources:
    requests:
      storage: 40Mi
"""
POD = f"""
apiVersion: v1
kind: Pod
metadata:
  name: volume-test
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: volume-test
    image: {BUSYBOX}
    imagePullPolicy: IfNotPresent
    command: [sleep, "3600"]
    volumeMounts:
    - name: volv
      mountPath: /data
  volumes:
  - name: volv
    persistentVolumeClaim:
      claimName: local-path-pvc
"""
SNAPSHOT = """
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: before}
spec: {source: {persistentVolumeClaimName: local-path-pvc}}
"""
RESTORED = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: restored}
spec:
  accessModes: [ReadWriteOnce]
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: before}
  resources: {requests: {storage: 40Mi}}
"""


def start(space: Space, name: str = "volume-test", claim: str = "local-path-pvc") -> None:
    pod = POD.replace("name: volume-test", f"name: {name}", 1).replace("local-path-pvc", claim)
    space.apply(pod)
    space.wait(f"pod/{name}", "--for=condition=Ready", timeout=60)


def inside(space: Space, script: str, name: str = "volume-test") -> str:
    return space.run("exec", name, "--", "sh", "-c", script, check=False).stdout


def free(space: Space) -> int:
    """KiB."""
    return int(inside(space, "df -k /data | tail -1").split()[3])


HOSTPATH = PVC.replace(
    "  name: local-path-pvc", "  name: hostpath\n  annotations: {volumeType: hostPath}"
)
STRICT = f"""
apiVersion: v1
kind: Pod
metadata: {{name: strict}}
spec:
  terminationGracePeriodSeconds: 0
  nodeSelector: {{kubernetes.io/hostname: pi}}
  securityContext: {{runAsNonRoot: true, runAsUser: 1000, runAsGroup: 3000, fsGroup: 2000}}
  containers:
  - name: main
    image: {BUSYBOX}
    command: [sh, -c, "id > /data/id && echo mine > /sub/file && sleep 3600"]
    securityContext: {{allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    volumeMounts:
    - {{name: data, mountPath: /data}}
    - {{name: data, mountPath: /sub, subPath: below}}
  volumes:
  - {{name: data, persistentVolumeClaim: {{claimName: hostpath}}}}
"""


def may_grow_mounted() -> bool:
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def on_node(space: Space, *argv: str) -> str:
    return run(*space.node.namespace.enter_mounts, *argv).stdout


def test_data_outlives_its_pod_and_the_size_holds(space: Space) -> None:
    space.apply(PVC)
    start(space)
    volume = space.value("pvc", "local-path-pvc", path="{.spec.volumeName}")
    path = space.value("pv", volume, path="{.spec.local.path}")
    assert Path(path) == space.node.data / "storage" / f"{volume}_{space.name}_local-path-pvc"
    assert on_node(space, "stat", "-c", "%a", path, str(Path(path).parent)) == "777\n700\n"
    inside(space, "echo remembered > /data/note")
    said = inside(space, "dd if=/dev/zero of=/data/big bs=1M count=64 2>&1; ls -A /data")
    assert "No space left on device" in said
    assert "lost+found" not in said
    size = int(inside(space, "stat -c %s /data/big"))
    assert 39 * 2**20 < size < 44 * 2**20
    space.kubectl("delete", "pod", "volume-test")
    start(space)
    assert inside(space, "cat /data/note") == "remembered\n"
    space.kubectl("delete", "pod/volume-test", "pvc/local-path-pvc")
    space.wait(f"pv/{volume}", "--for=delete")
    left = on_node(space, "find", str(space.node.data / "storage"), "-name", f"{volume}*")
    assert left == ""
    assert volume not in on_node(space, "cat", "/proc/self/mountinfo")


def test_a_pod_without_rights_writes_to_a_volume_and_below_it(space: Space) -> None:
    space.apply(HOSTPATH + "---" + STRICT)
    space.wait("pod/strict", "--for=condition=Ready", timeout=60)
    volume = space.value("pvc", "hostpath", path="{.spec.volumeName}")
    assert space.value("pv", volume, path="{.spec.hostPath.type}") == "DirectoryOrCreate"
    assert "uid=1000 gid=3000" in inside(space, "cat /data/id", "strict")
    assert inside(space, "cat /data/below/file", "strict") == "mine\n"
    space.kubectl("delete", "pod/strict", "pvc/hostpath")


def test_a_claim_grows_under_a_running_pod(space: Space) -> None:
    if not may_grow_mounted():
        pytest.skip("ext4 grows a mounted file system only with CAP_SYS_RESOURCE")
    space.apply(PVC)
    start(space)
    before = free(space)
    inside(space, "echo kept > /data/note")
    ask = '{"spec":{"resources":{"requests":{"storage":"200Mi"}}}}'
    space.kubectl("patch", "pvc", "local-path-pvc", "-p", ask)
    space.wait("pvc/local-path-pvc", "--for=jsonpath={.status.capacity.storage}=200Mi")
    assert free(space) - before > 150 * 1024
    assert inside(space, "cat /data/note") == "kept\n"
    assert (
        space.value("pod", "volume-test", path="{.status.containerStatuses[0].restartCount}") == "0"
    )
    assert space.value("pvc", "local-path-pvc", path="{.status.conditions}") == ""
    space.kubectl("delete", "pod/volume-test", "pvc/local-path-pvc")


def test_a_claim_that_nobody_uses_grows_everywhere(space: Space) -> None:
    space.apply(PVC)
    start(space)
    inside(space, "echo kept > /data/note")
    space.kubectl("delete", "pod", "volume-test")
    ask = '{"spec":{"resources":{"requests":{"storage":"200Mi"}}}}'
    space.kubectl("patch", "pvc", "local-path-pvc", "-p", ask)
    space.wait("pvc/local-path-pvc", "--for=jsonpath={.status.capacity.storage}=200Mi")
    start(space)
    assert free(space) > 190 * 1024
    assert inside(space, "cat /data/note") == "kept\n"
    volume = space.value("pvc", "local-path-pvc", path="{.spec.volumeName}")
    assert space.value("pv", volume, path="{.spec.capacity.storage}") == "200Mi"
    less = '{"spec":{"resources":{"requests":{"storage":"10Mi"}}}}'
    assert "less than" in space.refused("patch", "pvc", "local-path-pvc", "-p", less)
    space.kubectl("delete", "pod/volume-test", "pvc/local-path-pvc")


def test_a_snapshot_becomes_a_claim_with_the_data_of_then(space: Space) -> None:
    space.apply(PVC)
    start(space)
    inside(space, "echo then > /data/note; sync")
    space.apply(SNAPSHOT)
    space.wait("volumesnapshot/before", "--for=jsonpath={.status.readyToUse}=true")
    inside(space, "echo now > /data/note")
    space.apply(RESTORED)
    start(space, "second", "restored")
    assert inside(space, "cat /data/note", "second") == "then\n"
    assert inside(space, "cat /data/note") == "now\n"
    content = space.value(
        "volumesnapshot", "before", path="{.status.boundVolumeSnapshotContentName}"
    )
    space.kubectl("delete", "volumesnapshot", "before")
    space.wait(f"volumesnapshotcontent/{content}", "--for=delete")
    storage = str(space.node.data / "storage" / ".pinnace" / "snapshots")
    assert on_node(space, "find", storage, "-type", "f") == ""
    space.kubectl("delete", "pod", "volume-test", "second")
    space.kubectl("delete", "pvc", "local-path-pvc", "restored")
