"""Helper pods on another Kubernetes: a real control plane, and pods that end as the test says."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fakes.operators_cluster import Cluster, new_cluster
from tests.host.operators.test_localpath import (
    CLAIMS,
    CLASSES,
    CONFIG,
    SNAPSHOTS,
    VOLUMES,
    add_claim,
    add_class,
    bound,
    message,
    phase,
    status,
    take_snapshot,
)

pytestmark = pytest.mark.root
PODS = "/api/v1/namespaces/kube-system/pods"
FLAGS = ("--disable=traefik", "--disable=metrics-server", "--disable=runtimes")
POD = """
apiVersion: v1
kind: Pod
metadata: {name: helper-pod}
spec:
  containers:
  - {name: helper-pod, image: busybox, env: [{name: MORE, value: told}]}
"""
PATHS = {"nodePathMap": [{"node": "DEFAULT_PATH_FOR_NON_LISTED_NODES", "paths": ["/opt/lp"]}]}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with new_cluster(tmp_path_factory.mktemp("pods")) as made:
        made.stop("controlplane.run")
        made.start("controlplane.run", *FLAGS)
        made.create("/api/v1/nodes", {"metadata": {"name": "n1"}})
        made.until(CLASSES, "local-path", lambda found: found is not None)
        accounts = "/api/v1/namespaces/kube-system/serviceaccounts"
        made.until(accounts, "default", lambda found: found is not None)
        data = {"config.json": json.dumps(PATHS), "helperPod.yaml": POD}
        made.merge(CONFIG, {"data": data})
        yield made


@pytest.fixture
def acting(cluster: Cluster) -> Iterator[Cluster]:
    process = operators(cluster)
    yield cluster
    process.terminate()
    process.wait(20)


def operators(cluster: Cluster) -> "subprocess.Popen[bytes]":
    flags = ("--operators=localpath", "--leader-elect=false", "--health-address=0")
    paths = (f"--kubeconfig={cluster.kubeconfig}", f"--run-dir={cluster.data / 'run'}")
    with (cluster.data / "elsewhere.log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "operators", *flags, *paths, "--namespace=kube-system"],
            stdout=log,
            stderr=log,
            env=os.environ | {"NODE_NAME": "another"},
        )


def ended(cluster: Cluster, name: str, how: str) -> Any:
    """The pod as it was before it ended so."""
    pod = cluster.until(PODS, name, lambda found: found is not None)
    cluster.merge(f"{PODS}/{name}/status", {"status": {"phase": how}})
    return pod


def names(cluster: Cluster, claim: str) -> tuple[str, str, str]:
    """Of its volume and of the two pods."""
    volume = f"pvc-{cluster.get(f'{CLAIMS}/{claim}')['metadata']['uid']}"
    return volume, f"helper-pod-create-{volume}", f"helper-pod-delete-{volume}"


def test_a_pod_makes_a_volume_and_another_removes_it(acting: Cluster) -> None:
    class_name = add_class(acting, {"permPattern": "0750", "userPattern": "1000"})
    claim = add_claim(acting, class_name)
    volume, create, delete = names(acting, claim)
    pod = ended(acting, create, "Succeeded")
    spec, container = pod["spec"], pod["spec"]["containers"][0]
    path = f"/opt/lp/{volume}_default_{claim}"
    assert (spec["nodeName"], spec["restartPolicy"]) == ("n1", "Never")
    assert container["command"] == ["/bin/sh", "/script/setup"]
    size = str(16 * 2**20)
    asked = ["-p", path, "-s", size, "-m", "Filesystem", "-a", "create"]
    assert container["args"] == asked
    told = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    assert told == {
        "MORE": "told",
        "VOL_DIR": path,
        "VOL_MODE": "Filesystem",
        "VOL_SIZE_BYTES": size,
        "VOL_USER": "1000",
        "VOL_GROUP": "",
        "VOL_PERM": "0750",
    }
    assert spec["volumes"][0]["hostPath"] == {"path": "/opt/lp", "type": "DirectoryOrCreate"}
    made = bound(acting, claim)
    assert made["spec"]["hostPath"]["path"] == path
    assert made["metadata"]["annotations"]["local.path.provisioner/selected-node"] == "n1"
    acting.until(PODS, create, lambda found: found is None)
    acting.delete(f"{CLAIMS}/{claim}")
    container = ended(acting, delete, "Succeeded")["spec"]["containers"][0]
    assert container["command"] == ["/bin/sh", "/script/teardown"]
    assert container["args"][:2] == ["-p", path]
    acting.until(VOLUMES, volume, lambda found: found is None)
    acting.until(PODS, delete, lambda found: found is None)


def test_a_pod_that_fails_is_told_of_and_tried_again(acting: Cluster) -> None:
    claim = add_claim(acting, add_class(acting))
    _, create, delete = names(acting, claim)
    first = ended(acting, create, "Failed")
    assert "failed to create the volume" in message(acting, claim, "ProvisioningFailed")
    acting.until(
        PODS,
        create,
        lambda found: found is not None and found["metadata"]["uid"] != first["metadata"]["uid"],
    )
    ended(acting, create, "Succeeded")
    bound(acting, claim)
    acting.delete(f"{CLAIMS}/{claim}")
    ended(acting, delete, "Succeeded")


def test_what_needs_more_than_a_script_is_refused_by_name(acting: Cluster) -> None:
    claim = add_claim(acting, add_class(acting))
    volume, create, delete = names(acting, claim)
    ended(acting, create, "Succeeded")
    bound(acting, claim)
    more = {"spec": {"resources": {"requests": {"storage": "100Mi"}}}}
    acting.merge(f"{CLAIMS}/{claim}", more)
    assert "cannot grow" in message(acting, claim, "VolumeResizeFailed")
    snapshot = take_snapshot(acting, claim)
    failed = acting.until(SNAPSHOTS, snapshot, lambda s: "error" in status(s))
    assert "have no snapshots" in status(failed)["error"]["message"]
    source = {"kind": "PersistentVolumeClaim", "name": claim}
    clone = add_claim(acting, add_class(acting), dataSource=source)
    assert "helper pods cannot make" in message(acting, clone, "ProvisioningFailed")
    limited = add_claim(acting, add_class(acting, {"enforce": "image"}))
    assert "not possible with helper pods" in message(acting, limited, "ProvisioningFailed")
    for name in (clone, limited, claim):
        acting.delete(f"{CLAIMS}/{name}")
    ended(acting, delete, "Succeeded")
    acting.until(VOLUMES, volume, lambda found: found is None)


def test_a_volume_begun_by_one_who_was_killed_is_finished_or_removed(cluster: Cluster) -> None:
    class_name = add_class(cluster)
    process = operators(cluster)
    kept, given_up = add_claim(cluster, class_name), add_claim(cluster, class_name)
    create = {claim: names(cluster, claim)[1] for claim in (kept, given_up)}
    for pod in create.values():
        cluster.until(PODS, pod, lambda found: found is not None)
    process.kill()
    process.wait()
    cluster.delete(f"{CLAIMS}/{given_up}")
    _, _, delete = names(cluster, kept)
    for pod in create.values():
        cluster.merge(f"{PODS}/{pod}/status", {"status": {"phase": "Succeeded"}})
    process = operators(cluster)
    try:
        assert phase(bound_claim(cluster, kept)) == "Bound"
        left = create[given_up].replace("create", "delete")
        ended(cluster, left, "Succeeded")
        cluster.until(PODS, create[given_up], lambda found: found is None)
        cluster.delete(f"{CLAIMS}/{kept}")
        ended(cluster, delete, "Succeeded")
        cluster.until(PODS, delete, lambda found: found is None)
    finally:
        process.terminate()
        process.wait(20)


def bound_claim(cluster: Cluster, claim: str) -> Any:
    return cluster.until(CLAIMS, claim, lambda found: phase(found) == "Bound")
