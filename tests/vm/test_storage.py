"""
Local volumes on a kernel that has everything: project quotas, and file systems that grow mounted.

What a sandbox may not do (CAP_SYS_RESOURCE, quota formats), a booted image may: a claim grows under
its running pod, whichever way its size is enforced, and a full volume is full for its own pod.
"""

from collections.abc import Iterator

import pytest

from tests.vm.cluster import Cluster
from tests.vm.machine import Machine
from tests.vm.releases import Releases

MIB = 1 << 20
CLAIMS = """
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: by-{way}}}
provisioner: rancher.io/local-path
volumeBindingMode: WaitForFirstConsumer
reclaimPolicy: Delete
allowVolumeExpansion: true
parameters: {{enforce: "{way}"}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: by-{way}, namespace: default}}
spec:
  storageClassName: by-{way}
  accessModes: [ReadWriteOnce]
  resources: {{requests: {{storage: 32Mi}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: by-{way}, namespace: default}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: one
    image: busybox:1.35
    command: [sleep, "1000000"]
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: by-{way}}}}}]
"""


@pytest.fixture(scope="module")
def boat(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("storage")
    files = {"pinnace.yaml": b"hostname: boat\ndisable: [traefik]\n"}
    with Machine(
        folder=folder / "machine", image=releases.disk, files=files, network="restricted"
    ) as machine:
        machine.start()
        cluster = Cluster(machine=machine, kubeconfig=folder / "kubeconfig")
        cluster.connect()
        cluster.ready()
        yield cluster


def inside(cluster: Cluster, pod: str, command: str) -> str:
    return cluster.kubectl("exec", pod, "--", "sh", "-c", command, seconds=300)


def room(cluster: Cluster, pod: str) -> int:
    """Bytes of the volume, as its pod sees it."""
    return int(inside(cluster, pod, "df -k /data | tail -1 | awk '{print $2}'")) * 1024


@pytest.mark.timeout(2400)
@pytest.mark.parametrize(
    ("way", "told", "full"),
    [
        ("image", "image", "No space left on device"),
        # ext4 says EDQUOT where xfs says ENOSPC.
        ("quota", "project-quota", "Disk quota exceeded"),
    ],
)
def test_a_claim_grows_under_its_running_pod(boat: Cluster, way: str, told: str, full: str) -> None:
    pod = f"by-{way}"
    boat.apply(CLAIMS.format(way=way))
    boat.until(lambda: boat.get("pod", pod)["status"]["phase"] == "Running")
    volume = boat.get("pvc", pod)["spec"]["volumeName"]
    notes = boat.get("pv", volume)["metadata"]["annotations"]
    assert notes["localpath.pinnace.dev/enforced-by"] == told
    assert 24 * MIB <= room(boat, pod) <= 40 * MIB
    said = inside(boat, pod, "dd if=/dev/zero of=/data/fill bs=1M count=64 2>&1; echo end")
    assert full in said
    assert "Running" in boat.kubectl("get", "pod", "-A")  # the node's own pods have room

    wanted = '{"spec":{"resources":{"requests":{"storage":"96Mi"}}}}'
    boat.kubectl("patch", "pvc", pod, "--type=merge", "-p", wanted)
    boat.until(lambda: room(boat, pod) >= 80 * MIB)
    boat.until(lambda: boat.get("pvc", pod)["status"]["capacity"]["storage"] == "96Mi")
    inside(boat, pod, "dd if=/dev/zero of=/data/fill bs=1M count=64 && sync")
    [status] = boat.get("pod", pod)["status"]["containerStatuses"]
    assert status["restartCount"] == 0
    boat.kubectl("delete", "pod,pvc", pod, seconds=300)
    boat.until(lambda: not boat.kubectl("get", "pv", volume, "--ignore-not-found"))
