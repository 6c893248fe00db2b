"""What a node brings along: there after the first start, gone when it is disabled."""

import os
import shutil
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.deploy.folder import PACKAGED, STATIC
from tests.e2e.conftest import a_space, traefik_serves
from tests.e2e.node import ADDRESS, Node

# A client that has nothing to show and believes anything.
FETCH = """
import base64, ssl, sys, urllib.error, urllib.request
context = ssl._create_unverified_context()
try:
    body = urllib.request.urlopen(sys.argv[1], context=context, timeout=5).read()
except urllib.error.HTTPError as err:
    body = b"refused %d" % err.code
print(base64.b64encode(body).decode())
"""
SYSTEM = ("-n", "kube-system")


def fetch(node: Node, path: str) -> bytes:
    done = node.namespace.exec(sys.executable, "-c", FETCH, f"https://{ADDRESS}:6443{path}")
    return b64decode(done.stdout)


def addons(node: Node) -> dict[str, Any]:
    found = node.get("addons.k3s.cattle.io", *SYSTEM)["items"]
    return {item["metadata"]["name"]: item for item in found}


def reasons(node: Node, addon: str) -> set[str]:
    about = f"involvedObject.kind=Addon,involvedObject.name={addon}"
    events = node.get("events", *SYSTEM, "--field-selector", about)["items"]
    return {event["reason"] for event in events}


def is_applied(node: Node, *names: str) -> bool:
    """Since the last start: events do not outlive one."""
    return all("AppliedManifest" in reasons(node, name) for name in names)


def restart(node: Node, *flags: str) -> None:
    node.stop()
    node.flags = flags
    node.start()


@pytest.fixture
def as_before(ingress: Node) -> Iterator[Node]:
    """Whatever a test disables, the next one has everything again."""
    yield ingress
    if ingress.flags:
        restart(ingress)
    ingress.until(lambda: traefik_serves(ingress))


def test_each_component_is_an_addon_that_tells_what_happened(ingress: Node) -> None:
    packaged = [path.stem for path in PACKAGED.glob("*.yaml") if path.stem != "coredns"]
    ingress.until(lambda: is_applied(ingress, *packaged))
    found = addons(ingress)
    assert {"runtimes", "traefik"} <= set(packaged) <= set(found)
    manifests = ingress.data / "server" / "manifests"
    assert found["traefik"]["spec"]["source"] == str(manifests / "traefik.yaml")
    kinds = found["traefik"]["metadata"]["annotations"]["addon.k3s.cattle.io/gvks"]
    assert kinds == "helm.cattle.io/v1, Kind=HelmChart"
    assert "ApplyingManifest" in reasons(ingress, "traefik")


def test_a_packed_chart_is_given_to_whoever_asks(whole: Node) -> None:
    [chart] = (STATIC / "charts").glob("traefik-crd-*.tgz")
    assert fetch(whole, f"/static/charts/{chart.name}") == chart.read_bytes()
    mine = whole.data / "server" / "static" / "mine.txt"
    mine.parent.mkdir(exist_ok=True)
    mine.write_text("of my own")
    assert fetch(whole, "/static/mine.txt") == b"of my own"
    assert fetch(whole, "/static/..%2Ftoken") == b"refused 404"
    assert fetch(whole, "/api/v1/namespaces") == b"refused 403"


def test_a_start_with_nothing_new_writes_nothing(ingress: Node) -> None:
    kinds = "addons.k3s.cattle.io,helmcharts,runtimeclasses,deployments,services,crds"

    def written() -> tuple[set[tuple[str, str, str]], dict[Path, int]]:
        items = ingress.get(kinds, "-A")["items"]
        metas = [(item["kind"], item["metadata"]) for item in items]
        objects = {(kind, meta["name"], meta["resourceVersion"]) for kind, meta in metas}
        files = (ingress.data / "server" / "manifests").iterdir()
        return objects, {path: path.stat().st_mtime_ns for path in files}

    before = written()
    restart(ingress)
    ingress.until(lambda: is_applied(ingress, "runtimes", "traefik"))
    ingress.until(lambda: traefik_serves(ingress))
    changed = {entry[:2] for entry in before[0] ^ written()[0]}
    # A pod that was not asked for a moment may count as unavailable for that long.
    assert changed <= {("Deployment", "traefik")}
    assert before[1] == written()[1]


POD = """
apiVersion: v1
kind: Pod
metadata: {{name: special}}
spec:
  runtimeClassName: {runtime}
  terminationGracePeriodSeconds: 0
  containers: [{{name: c, image: "docker.io/library/busybox:1.35", command: [sleep, "3600"]}}]
"""


def test_a_class_whose_runtime_is_not_installed_says_so(whole: Node) -> None:
    with a_space(whole) as space:
        space.apply(POD.format(runtime="nvidia"))

        def told() -> str:
            events = space.get("events", "--field-selector=reason=FailedCreatePodSandBox")
            return " ".join(event["message"] for event in events["items"])

        space.until(lambda: 'no runtime for "nvidia" is configured' in told(), seen=told)


def test_a_class_whose_runtime_is_found_in_path_runs_by_it(whole: Node, tmp_path: Path) -> None:
    runc = shutil.which("runc")
    assert runc is not None
    # What it would do is runc's affair here; that it is asked is what counts.
    log = tmp_path / "asked"
    program = tmp_path / "bin" / "crun"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho asked >>{log}\nexec {runc} "$@"\n')
    program.chmod(0o755)
    whole.extra_environment["PATH"] = f"{program.parent}:{os.environ['PATH']}"
    try:
        restart(whole, "--default-runtime=crun")
        with a_space(whole) as space:
            space.apply(POD.format(runtime="crun"))
            space.wait("pod/special", "--for=condition=Ready")
            assert log.read_text()
            space.kubectl("delete", "pod", "special")
    finally:
        del whole.extra_environment["PATH"]
        restart(whole)


def test_a_component_that_is_disabled_is_uninstalled_and_comes_back(as_before: Node) -> None:
    node = as_before
    restart(node, "--disable=traefik,runtimes")
    node.until(lambda: not {"traefik", "runtimes"} & set(addons(node)))
    node.until(lambda: not node.get("helmcharts", *SYSTEM)["items"])
    kinds = "deployments,services,secrets"
    node.until(lambda: "traefik" not in node.kubectl("get", kinds, *SYSTEM, "-o", "name").stdout)
    assert not node.get("runtimeclasses")["items"]
    assert not node.get("ingressclasses")["items"]
    assert not (node.data / "server" / "manifests" / "traefik.yaml").exists()
    # Routes that people wrote outlive the controller that reads them.
    assert node.get("customresourcedefinition", "ingressroutes.traefik.io")
