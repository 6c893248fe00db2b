"""How full volumes are, as Prometheus and the summary API are told; limits on what is not kept."""

import json
import subprocess
import sys
from pathlib import Path

from tests.e2e.conftest import Space
from tests.e2e.node import ADDRESS
from tests.e2e.test_volumes import BUSYBOX, claim, pod

MIB = 1 << 20
# Who asks has the node's address and a token, no certificate.
ASK = """
import ssl, sys, urllib.request
context = ssl._create_unverified_context()
headers = {"Authorization": "Bearer " + sys.argv[2]}
request = urllib.request.Request(sys.argv[1], headers=headers)
try:
    print(urllib.request.urlopen(request, context=context, timeout=5).read().decode())
except urllib.error.HTTPError as err:
    print(err.code, err.read().decode())
"""
RIGHTS = """
apiVersion: v1
kind: ServiceAccount
metadata: {name: prometheus}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: scraper}
rules: [{apiGroups: [""], resources: [nodes/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: scraper}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: scraper}
subjects: [{kind: ServiceAccount, name: prometheus, namespace: SPACE}]
"""


def test_a_claim_is_measured_for_whoever_may_ask(space: Space, tmp_path: Path) -> None:
    image, name = tmp_path / "image", f"{space.name}-measured"
    subprocess.run(["mkfs.ext4", "-q", "-F", image, "16M"], check=True)
    space.apply(
        f"""
apiVersion: v1
kind: PersistentVolume
metadata: {{name: {name}, annotations: {{localpath.pinnace.dev/image: "{image}"}}}}
spec:
  capacity: {{storage: 16Mi}}
  accessModes: [ReadWriteOnce]
  storageClassName: {name}
  hostPath: {{path: "{tmp_path}/data"}}
---
"""
        + claim("data", name)
        + pod("user", "data", "dd if=/dev/zero of=/data/big bs=1M count=4")
        + RIGHTS.replace("SPACE", space.name)
    )
    space.wait("pod/user", "--for=condition=Ready")
    token = space.kubectl("create", "token", "prometheus").strip()

    def ask(path: str, bearer: str = token) -> str:
        url = f"https://{ADDRESS}:10250{path}"
        return space.node.namespace.exec(sys.executable, "-c", ASK, url, bearer).stdout

    def value(key: str) -> float:
        labels = f'{{namespace="{space.name}",persistentvolumeclaim="data"}}'
        series = f"kubelet_volume_stats_{key}{labels} "
        lines = [line for line in ask("/metrics").splitlines() if line.startswith(series)]
        return float(lines[0].removeprefix(series))

    space.until(lambda: value("used_bytes") >= 4 * MIB)
    assert 12 * MIB < value("capacity_bytes") < 16 * MIB
    assert value("available_bytes") <= value("capacity_bytes") - 4 * MIB
    assert value("inodes_used") + value("inodes_free") == value("inodes")
    assert "container_memory_working_set_bytes{" in ask("/metrics/cadvisor")
    assert ask("/pods").startswith("403 Forbidden (user=system:serviceaccount:")
    assert ask("/metrics", "nonsense").strip() == "401 Unauthorized"
    summary = json.loads(space.kubectl("get", "--raw", "/api/v1/nodes/pi/proxy/stats/summary"))
    (found,) = [p for p in summary["pods"] if p["podRef"]["namespace"] == space.name]
    (volume,) = [v for v in found["volume"] if "pvcRef" in v]
    assert volume["pvcRef"] == {"name": "data", "namespace": space.name}
    assert volume["usedBytes"] >= 4 * MIB
    space.kubectl("delete", "pod/user", "pvc/data", "--grace-period=1")
    space.kubectl("delete", f"pv/{name}", "clusterrole/scraper", "clusterrolebinding/scraper")


def test_a_pod_that_overfills_what_it_was_given_is_evicted(space: Space) -> None:
    space.apply(f"""
apiVersion: v1
kind: Pod
metadata: {{name: filler}}
spec:
  restartPolicy: Never
  containers:
  - name: main
    image: "{BUSYBOX}"
    command: [sh, -c, "dd if=/dev/zero of=/scratch/big bs=1M count=4; sleep 3600"]
    volumeMounts: [{{name: scratch, mountPath: /scratch}}]
  volumes:
  - {{name: scratch, emptyDir: {{sizeLimit: 1Mi}}}}
""")
    space.wait("pod/filler", "--for=jsonpath={.status.reason}=Evicted")
    status = space.get("pod", "filler")["status"]
    text = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". '
    assert (status["phase"], status["message"]) == ("Failed", text)
