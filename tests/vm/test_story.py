"""
From a card to a newer release and past a broken one: the whole of it, in one machine.

A card is written with a ``pinnace.yaml`` and the hello chart; the node becomes Ready and serves the
page; an UpgradePlan brings the second release, with data and releases as they were; another one
brings a release whose node never starts: the machine comes back by itself, the plan says why,
and the release is refused from then on.
"""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.cluster import SERVER, Cluster, Served
from tests.vm.releases import BROKEN, FIRST, PANICS, ROOT, SECOND, Releases

CONFIG = """\
hostname: boat
disable: [traefik]
"""
DATA = """
apiVersion: v1
kind: ConfigMap
metadata: {name: kept, namespace: default}
data: {written: before}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: kept, namespace: default}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 16Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: writer, namespace: default}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: writer
    image: busybox:1.35
    command: [sh, -c, "[ -e /data/file ] || echo from the first release >/data/file; sleep 1000000"]
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: kept}}]
"""
PLAN = """
apiVersion: upgrade.pinnace.dev/v1
kind: UpgradePlan
metadata: {{name: {name}}}
spec:
  version: {version}
  source: http://{server}
  soakSeconds: 5
  trialDeadlineSeconds: {deadline}
  healthChecks:
  - name: page
    tcp: {{host: $(NODE_IP), port: 8080}}
  - name: data
    cel: {{apiVersion: v1, kind: ConfigMap, namespace: default, name: kept,
           expression: "object.data.written == 'before'"}}
"""


def plan(name: str, version: str, deadline: int = 900) -> str:
    return PLAN.format(name=name, version=version, server=SERVER, deadline=deadline)


def flashed(disk: Path, folder: Path) -> Path:
    """A card as its owner writes it."""
    config, card = folder / "pinnace.yaml", folder / "card.img"
    config.write_text(CONFIG)
    manifests = folder / "manifests"
    manifests.mkdir()
    (manifests / "hello.yaml").write_text((ROOT / "examples" / "hello.yaml").read_text())
    card.touch()
    command = [sys.executable, "-m", "node", "image", "flash", f"--image={disk}"]
    command += [f"--config={config}", f"--manifests={manifests}", "--yes", str(card)]
    subprocess.run(command, check=True, cwd=ROOT)
    return card


@pytest.fixture(scope="module")
def boat(releases: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("boat")
    card = flashed(releases.disk, folder)
    served = releases.disk.parent
    with Served(folder=folder / "machine", image=card, serves=served) as machine:
        machine.start()
        yield Cluster(machine=machine, kubeconfig=folder / "kubeconfig")


def page(cluster: Cluster) -> str:
    address = f"http://127.0.0.1:{cluster.machine.port(8080)}/"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return str(answer.read().decode())


def phase(cluster: Cluster, name: str) -> str:
    return str(cluster.get("upgradeplan", name).get("status", {}).get("phase"))


def of_node(cluster: Cluster, name: str) -> dict[str, str]:
    [node] = cluster.get("upgradeplan", name)["status"]["nodes"]
    return dict(node)


def check_data(cluster: Cluster) -> None:
    assert cluster.get("configmap", "kept")["data"] == {"written": "before"}
    cluster.until(lambda: cluster.get("pod", "writer")["status"]["phase"] == "Running")
    text = cluster.until(lambda: cluster.kubectl("exec", "writer", "--", "cat", "/data/file"))
    assert text == "from the first release\n"
    chart = cluster.get("helmchart", "hello", "-n", "kube-system")
    ready = {c["type"]: c for c in chart["status"]["conditions"]}["Ready"]
    assert ready["status"] == "True"
    assert "revision 1" in ready["message"]


def test_a_card_with_a_file_becomes_a_node_that_serves(boat: Cluster) -> None:
    boat.connect()
    boat.ready()
    assert boat.get("nodes")["items"][0]["metadata"]["name"] == "boat"
    boat.until(lambda: "Hello from Pinnace" in page(boat))
    boat.apply(DATA)
    check_data(boat)
    assert boat.version() == FIRST


def test_a_plan_brings_the_next_release_with_everything_as_it_was(boat: Cluster) -> None:
    boat.apply(plan("second", SECOND))
    boat.until(lambda: phase(boat, "second") == "Complete", 1800)
    assert boat.version() == SECOND
    boat.ready()
    check_data(boat)
    assert "Hello from Pinnace" in page(boat)
    assert json.loads(boat.machine.run("cat /usr/share/pinnace/release.json"))["version"] == SECOND


@pytest.mark.parametrize(("name", "version"), [("broken", BROKEN), ("panics", PANICS)])
def test_a_release_that_does_not_come_up_is_left_and_refused(
    boat: Cluster, name: str, version: str
) -> None:
    # A node is the older plan's for as long as that one names it.
    boat.kubectl("delete", "upgradeplan", "second", "--ignore-not-found")
    boat.apply(plan(name, version, deadline=240))
    boat.until(lambda: phase(boat, name) in {"Paused", "Failed"}, 2400)
    found = of_node(boat, name)
    assert (found["phase"], found["to"]) == ("RolledBack", version)
    assert found["message"]
    assert boat.version() == SECOND
    boat.ready()
    check_data(boat)
    boat.kubectl("delete", "upgradeplan", name)
    boat.apply(plan(f"{name}-again", version))
    boat.until(lambda: of_node(boat, f"{name}-again").get("phase") == "Refused")
    assert "failed" in of_node(boat, f"{name}-again")["message"]
    boat.kubectl("delete", "upgradeplan", f"{name}-again")
